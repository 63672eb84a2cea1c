import re
from xml.etree import ElementTree

from absl.testing import absltest, parameterized

from jax_autorec.report import plots

_SVG = '{http://www.w3.org/2000/svg}'


def _texts(svg):
  """(text, x, y) of all labels; those that are turned have no x and y."""
  root = ElementTree.fromstring(svg)
  return [
    (node.text, float(node.get('x', 'nan')), float(node.get('y', 'nan')))
    for node in root.iter(f'{_SVG}text')
  ]


def _paths(svg, style):
  root = ElementTree.fromstring(svg)
  nodes = root.iter(f'{_SVG}path')
  return [node for node in nodes if style in (node.get('style') or '')]


def _widths(paths):
  """Extents along x of closed paths."""
  found = []
  for path in paths:
    x = [float(v) for v in re.findall(r'[ML] (\S+) \S+', path.get('d'))]
    found.append(max(x) - min(x))
  return found


class PlotsTest(parameterized.TestCase):
  def test_octaves_are_even_steps_and_gaps_stay_empty(self):
    svg = plots.by_frequency(
      [1, 2, 8], {'a': [2.0, 3.0, 9.0], 'b': [1.0, float('nan'), 4.0]}, 'width'
    )
    place = {
      text: x for text, x, _ in _texts(svg) if text in ('1+', '2+', '8+')
    }
    self.assertLen(place, 3)
    ratio = (place['8+'] - place['2+']) / (place['2+'] - place['1+'])
    self.assertAlmostEqual(ratio, 2, places=1)
    self.assertContainsSubset(
      {'a', 'b', 'width', 'frequency'}, {text for text, *_ in _texts(svg)}
    )

  def test_pair_map_tells_kept_pruned_and_planted_apart(self):
    fields = ['a', 'b', 'c', 'd']
    values = {('a', 'b'): 0.5, ('a', 'c'): 0.0, ('b', 'c'): 0.0}
    svg = plots.pair_map(fields, values, [('a', 'b'), ('c', 'd')])
    self.assertLen(_paths(svg, f'stroke: {plots.RED.lower()}'), 2)
    self.assertLen(_paths(svg, 'fill: #eeeeee'), 2)

  @parameterized.parameters(4, 20, 40)
  def test_labels_of_the_pair_map_do_not_overlap(self, num_fields):
    fields = [f'a_rather_long_field_name_{i:02d}' for i in range(num_fields)]
    values = {(fields[0], name): 0.5 for name in fields[1:]}
    texts = _texts(plots.pair_map(fields, values, []))
    rows = sorted(y for text, _, y in texts if text in fields and y == y)
    self.assertLen(rows, num_fields)
    height = 8 if num_fields <= 20 else 6.5
    gaps = [after - before for before, after in zip(rows, rows[1:])]
    self.assertGreater(min(gaps), height)

  def test_labels_lie_inside_the_picture(self):
    fields = [f'a_rather_long_field_name_{i:02d}' for i in range(40)]
    values = {(fields[0], name): 0.5 for name in fields[1:]}
    svg = plots.pair_map(fields, values, [])
    width = float(ElementTree.fromstring(svg).get('viewBox').split()[2])
    # Ends of right-aligned labels; a letter is about .6 of its size wide.
    ends = [x for text, x, _ in _texts(svg) if text in fields and x == x]
    self.assertGreater(min(ends), len(fields[0]) * 6.5 * 0.55)
    self.assertLess(max(ends), width / 2)

  def test_gates_are_counted_by_truth_or_by_fate(self):
    steps, gates = [0, 5], [[0.6, 0.6, 0.6], [0.9, 0.0, 0.0]]
    texts = [t for t, _, _ in _texts(plots.gates_over_time(steps, gates, None))]
    self.assertContainsSubset({'kept (1)', 'pruned (2)'}, texts)
    planted = [True, True, False]
    svg = plots.gates_over_time(steps, gates, planted)
    texts = [t for t, _, _ in _texts(svg)]
    self.assertContainsSubset({'planted (2)', 'not planted (1)'}, texts)

  def test_many_gates_stay_small(self):
    rows = [[0.6 - 0.001 * i * s for i in range(741)] for s in range(50)]
    svg = plots.gates_over_time(list(range(50)), rows, None)
    self.assertLess(len(svg), 400_000)

  def test_bars_show_the_largest_and_keep_namesakes(self):
    # Both shorten to the same text.
    names = ['x' * 40 + c + 'y' * 40 for c in 'ab'] + ['small', 'middle']
    svg = plots.bars(names, [3.0, 2.0, 0.5, 1.0], 'size', most=3)
    widths = _widths(_paths(svg, f'fill: {plots.BLUE.lower()}'))
    self.assertLen(widths, 3)
    smallest = min(widths)
    for width, expected in zip(sorted(widths), (1, 2, 3)):
      self.assertAlmostEqual(width / smallest, expected, places=3)
    self.assertNotIn('small', [text for text, _, _ in _texts(svg)])

  def test_unmarked_bars_are_of_another_colour(self):
    svg = plots.bars(['a', 'b', 'c'], [1, 2, 3], 'x', [True, False, True])
    self.assertLen(_paths(svg, f'fill: {plots.ORANGE.lower()}'), 1)

  def test_the_best_possible_is_drawn_where_known(self):
    known = plots.levels(['a', 'b'], [0.7, 0.8], 'AUC', 0.9)
    unknown = plots.levels(['a', 'b'], [0.7, 0.8], 'AUC', None)
    self.assertIn('best possible', [text for text, _, _ in _texts(known)])
    self.assertNotIn('best possible', unknown)

  def test_any_name_is_drawn_as_it_is(self):
    names = ['price_$_a$', r'$\frac$', '<b>&amp;', '--><x>', '名前']
    values = {(names[0], name): 0.5 for name in names[1:]}
    texts = [t for t, _, _ in _texts(plots.pair_map(names, values, []))]
    self.assertContainsSubset(names, texts)

  def test_series_leave_lines_without_an_epoch_out(self):
    lines = [
      {'stage': 'search', 'step': 0, 'names': {}},
      {'stage': 'search', 'step': 5, 'epoch': 0.5, 'loss': 1.0},
      {'stage': 'search', 'step': 10, 'epoch': 1.0, 'valid_auc': 0.7},
      {'stage': 'retrain', 'step': 10, 'epoch': 1.0, 'valid_auc': 0.6},
      {'stage': 'retrain', 'step': 20, 'epoch': 2.0, 'valid_auc': 0.8},
    ]
    self.assertEqual(
      plots.series_by_stage(lines, 'valid_auc'),
      {'search': ([1.0], [0.7]), 'retrain': ([1.0, 2.0], [0.6, 0.8])},
    )


if __name__ == '__main__':
  absltest.main()
