import json

from absl.testing import absltest, parameterized

from jax_autorec import architecture, errors, interactions, spaces
from jax_autorec import schema as schema_lib
from jax_autorec.nn import interactions as modules

_SCHEMA = schema_lib.Schema(
  tuple(schema_lib.Field(name, vocab_size=9) for name in 'abcd')
)


class ViewTest(parameterized.TestCase):
  def test_readers_of_a_view_share_it(self):
    view = interactions.View
    some = view('v', fields=('a', 'c'))
    joined = interactions.join(some, view('v', fields=('b', 'c')))
    self.assertEqual(joined, view('v', fields=('a', 'c', 'b')))
    self.assertEqual(interactions.join(some, view('v')), view('v'))
    self.assertTrue(some.has('c'))
    self.assertFalse(some.has('b'))

  @parameterized.parameters(dict(copies=2), dict(kind='weights'))
  def test_readers_that_disagree_are_refused(self, **other):
    with self.assertRaisesRegex(errors.ConfigError, "'v' is read as"):
      interactions.join(interactions.View('v'), interactions.View('v', **other))

  def test_unknown_kind(self):
    with self.assertRaisesRegex(errors.ConfigError, "'table'"):
      interactions.View('v', 'table')

  def test_views_of_an_architecture(self):
    for options, expected in (
      ({}, ['main', 'first_order']),
      ({'triples': 'all'}, ['main', 'order3', 'first_order']),
    ):
      space = spaces.fm(_SCHEMA, **options)
      self.assertEqual(list(space.views), expected)
      self.assertEqual(space.num_vectors('a'), len(expected) - 1)


class KindTest(parameterized.TestCase):
  def test_every_plan_has_a_module(self):
    self.assertSameElements(interactions.KINDS, modules.MODULES)

  @parameterized.parameters(
    (lambda: interactions.FieldAware(to='head'), 'Target'),
    (lambda: interactions.Cross(to='logit'), 'Target'),
    (lambda: interactions.FieldWeighted(linear='lw'), "'felv'"),
    (lambda: interactions.FieldMatrixed(matrices='full'), "'vectorized'"),
    (lambda: interactions.Polynomial('p', 6), 'Order'),
    (lambda: interactions.AttentionalPooling(size=0), "'size'"),
    (lambda: interactions.AttentionalPooling(dropout=1.0), 'dropout < 1'),
    (lambda: interactions.Cross(layers=0), "'layers'"),
    (lambda: interactions.Cross(weights='scalar'), "'matrix'"),
    (lambda: interactions.Compressed(sizes=()), "'sizes'"),
    (lambda: interactions.SelfAttention(heads=3), 'multiples of the heads'),
    (lambda: interactions.SelfAttention(heads=0), '0'),
    (lambda: interactions.Bilinear(matrices='none'), "'pair'"),
    (lambda: interactions.Bilinear(reduction=-1), 'Reduction'),
    (lambda: interactions.MaskBlocks(mode='both'), "'serial'"),
    (lambda: interactions.MaskBlocks(reduction=0), 'more than 0'),
    (lambda: interactions.TwoTowers(hidden=((4,),)), 'two towers'),
    (lambda: interactions.TwoTowers(hidden=((4,), ())), "'hidden'"),
    (lambda: interactions.TwoTowers(norm='rms'), "'layer'"),
    (lambda: interactions.NumbersAndVectors(product='sum'), "'cat'"),
    (lambda: spaces.finalmlp(_SCHEMA, contexts=(('e',), ())), "'e'"),
    (lambda: spaces.fwfm(_SCHEMA, linear='none'), "'lw'"),
    (lambda: spaces.hofm(_SCHEMA, order=1), 'order'),
    (lambda: spaces.hofm(_SCHEMA, order=6), 'order'),
    (lambda: spaces.ffm(schema_lib.Schema(_SCHEMA.fields[:1])), 'of pairs'),
    (
      lambda: spaces.dlrm(
        schema_lib.Schema((schema_lib.Field('x', 'numeric'),))
      ),
      'categorical',
    ),
  )
  def test_bad_options_are_refused(self, make, message):
    with self.assertRaisesRegex(errors.ConfigError, message):
      make()


class NumbersAndVectorsTest(absltest.TestCase):
  def test_the_bottom_has_a_dropout_of_its_own(self):
    """None by default, as in the benchmark's settings."""
    for options, expected in (({}, 0.0), ({'bottom_dropout': 0.2}, 0.2)):
      model = spaces.dlrm(_SCHEMA, dropout=0.4, **options)
      self.assertEqual(model.interactions[0].dropout, expected)
      self.assertEqual(model.head.dropout, 0.4)


class BlockGraphTest(parameterized.TestCase):
  @parameterized.parameters(
    (dict(type='conv', inputs=['vectors']), "Type of a block is 'conv'"),
    (dict(type='fm', inputs=[]), 'one input or more'),
    (dict(type='fm', inputs=['vectors', 'vectors']), 'each once'),
    (dict(type='mlp', inputs=['vectors']), 'has width 0'),
    (dict(type='fm', inputs=['vectors'], width=8), 'has width 8'),
    (dict(type='fm', inputs=['weights']), "reads 'weights'"),
    (dict(type='fm', inputs=[0]), 'reads 0; expected .* an earlier block'),
    (dict(type='fm', inputs=['values']), "reads 'values', but there is no"),
  )
  def test_graphs_that_make_no_sense(self, block, message):
    with self.assertRaisesRegex(errors.ConfigError, message):
      graph = interactions.BlockGraph((interactions.Block(**block),))
      graph.check(spaces.field_plans(_SCHEMA, 4))

  def test_views_and_json(self):
    numeric = schema_lib.Field('n', kind='numeric')
    schema = schema_lib.Schema((*_SCHEMA.fields, numeric))
    fields = spaces.field_plans(schema, 4)
    graph = interactions.BlockGraph(
      (
        interactions.Block('mlp', ('values',), 8),
        interactions.Block('dp', ('vectors', 0)),
      )
    )
    plan = architecture.Architecture(
      fields, (graph,), architecture.HeadPlan(first_order=False)
    )
    self.assertEqual(list(plan.views), ['main', 'values'])
    self.assertEqual(plan.views['main'].fields, tuple('abcd'))
    self.assertEqual(graph.ends(fields), (1,))
    again = json.loads(json.dumps(plan.to_dict()))
    self.assertEqual(architecture.Architecture.from_dict(again), plan)


if __name__ == '__main__':
  absltest.main()
