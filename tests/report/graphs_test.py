import re
from xml.etree import ElementTree

from absl.testing import absltest, parameterized
import numpy as np

from jax_autorec import schema as schema_lib
from jax_autorec import spaces
from jax_autorec.interactions import Block
from jax_autorec.report import graphs, plots
from jax_autorec.search.autoctr import Rules, canonical, draw, with_blocks

_SVG = '{http://www.w3.org/2000/svg}'
_FIELDS = spaces.field_plans(
  schema_lib.Schema(
    (
      *(schema_lib.Field(f'field_{i}', vocab_size=9) for i in range(8)),
      schema_lib.Field('a_name_that_is_too_long_for_a_box', kind='numeric'),
    )
  ),
  4,
)


def _draw(blocks):
  return graphs.block_graph(with_blocks(_FIELDS, blocks), 'blocks')


def _texts(svg):
  return [node.text for node in ElementTree.fromstring(svg).iter(f'{_SVG}text')]


class BlockGraphTest(parameterized.TestCase):
  def test_blocks_and_fields_are_named(self):
    blocks = [
      Block('fm', ['values', 'vectors']),
      Block('mlp', ['vectors'], 64),
      Block('attention', [1]),
    ]
    texts = _texts(_draw(blocks))
    for text in (
      'numbers of 1 fields',
      'a_name_…r_a_box',
      'vectors of 8 fields',
      'field_5',
      'and 2 more',
      '0: FM',
      '1: MLP 64',
      '2: attention',
      'linear: the logit',
    ):
      self.assertIn(text, texts)
    self.assertNotIn('field_6', texts)

  @parameterized.parameters(range(4))
  def test_boxes_of_a_layer_are_apart_and_below_what_they_read(self, seed):
    blocks = canonical(draw(Rules(), np.random.default_rng(seed)))
    plan = with_blocks(_FIELDS, blocks)
    labels, edges = graphs._content(plan, plan.interactions[0])
    self.assertLen(edges, sum(len(b.inputs) for b in blocks) + len(
      plan.interactions[0].ends(_FIELDS)
    ))  # fmt: skip
    layers = graphs._layers(labels, edges)
    for one, other in edges:
      self.assertLess(layers[one], layers[other])
    routes = graphs._routes(edges, layers)
    rows, places = graphs._arranged(labels, layers, routes)
    for row in rows:
      boxes = [places[node] for node in row if not graphs._is_route(node)]
      steps = np.diff(sorted(boxes))
      self.assertTrue((steps > graphs._WIDTH).all())
      # A line that passes does not run through a box.
      for node in filter(graphs._is_route, row):
        nearest = min((abs(places[node] - x) for x in boxes), default=9)
        self.assertGreater(nearest, graphs._WIDTH / 2)
    self.assertEqual(_draw(blocks), _draw(blocks))

  def test_no_block_at_all(self):
    self.assertIn('linear: the logit', _texts(_draw([])))


class ScoresTest(absltest.TestCase):
  def test_a_score_far_off_is_out_of_range(self):
    scores = [0.5, 0.48, 900.0, *[0.49] * 8]
    svg = plots.scores_by_trial(
      range(1, 12), scores, [0.004] * 11, 'validation logloss'
    )
    texts = _texts(svg)
    self.assertIn('best so far', texts)
    numbers = [float(t) for t in texts if re.fullmatch(r'0\.\d+', t or '')]
    self.assertBetween(max(numbers), 0.48, 0.52)


if __name__ == '__main__':
  absltest.main()
