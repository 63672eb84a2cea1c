import dataclasses

from absl.testing import absltest, parameterized

from jax_autorec import errors, spaces
from jax_autorec import schema as schema_lib

_SCHEMA = schema_lib.Schema(
  tuple(schema_lib.Field(name, vocab_size=9) for name in 'abcd')
)


class SpacesTest(parameterized.TestCase):
  @parameterized.parameters('fm', 'deepfm', 'ipnn')
  def test_open_and_closed(self, name):
    self.assertTrue(spaces.build(name, _SCHEMA, pairs='open').is_open)
    self.assertFalse(spaces.build(name, _SCHEMA, pairs='all').is_open)
    self.assertFalse(spaces.build(name, _SCHEMA).is_open)

  def test_all_terms_in_combination_order(self):
    plan = spaces.build('fm', _SCHEMA, pairs='all').interactions[0]
    self.assertEqual(
      plan.terms,
      (('a', 'b'), ('a', 'c'), ('a', 'd'), ('b', 'c'), ('b', 'd'), ('c', 'd')),
    )

  def test_pairs_as_lists(self):
    plan = spaces.build('fm', _SCHEMA, pairs=[['a', 'c']]).interactions[0]
    self.assertEqual(plan.terms, (('a', 'c'),))

  @parameterized.parameters(
    (dict(pairs='al'), "'fm', 'all', 'open'"),
    (dict(triples='fm'), "'all', 'open'"),
    (dict(pairs=[('a', 'e')]), 'e'),
  )
  def test_unknown_terms(self, options, message):
    with self.assertRaisesRegex(errors.ConfigError, message):
      spaces.build('fm', _SCHEMA, **options)

  @parameterized.parameters(*spaces.MODELS)
  def test_pooling_of_every_model(self, name):
    for pooling in ('sum', 'mean'):
      fields = spaces.build(name, _SCHEMA, pooling=pooling).fields
      self.assertEqual({plan.pooling for plan in fields}, {pooling})

  def test_interactions_of_a_model(self):
    """What is normalised and gated, and where it goes."""
    found = {}
    for name in ('fm', 'ipnn'):
      for pairs in ('fm', 'all', 'open', [('b', 'd')]):
        space = spaces.build(name, _SCHEMA, pairs=pairs, triples='open')
        two, three = (dataclasses.asdict(p) for p in space.interactions)
        found[name, str(pairs)] = tuple(
          two.get(key) for key in ('to', 'normalize', 'gates')
        )
        self.assertEqual(
          (three['to'], three['normalize'], three['gates']),
          (two['to'], True, 'open'),
        )
        self.assertLen(three['terms'], 4)
    self.assertEqual(
      found,
      {
        ('fm', 'fm'): ('logit', None, None),
        ('fm', 'all'): ('logit', True, 'weights'),
        ('fm', 'open'): ('logit', True, 'open'),
        ('fm', "[('b', 'd')]"): ('logit', True, 'weights'),
        ('ipnn', 'fm'): ('head', False, 'none'),
        ('ipnn', 'all'): ('head', True, 'weights'),
        ('ipnn', 'open'): ('head', True, 'open'),
        ('ipnn', "[('b', 'd')]"): ('head', True, 'weights'),
      },
    )

  def test_too_few_fields(self):
    schema = schema_lib.Schema(_SCHEMA.fields[:2])
    with self.assertRaisesRegex(errors.ConfigError, 'order 3 need 3 fields'):
      spaces.build('fm', schema, triples='all')

  def test_unfitted_schema(self):
    schema = schema_lib.Schema((schema_lib.Field('a'),))
    with self.assertRaisesRegex(errors.ConfigError, 'fitted schema'):
      spaces.build('lr', schema)

  def test_options(self):
    self.assertEqual(spaces.options('lr'), {'pooling': 'mean', 'numeric': None})
    self.assertEqual(spaces.options('crossnet')['layers'], 6)
    with self.assertRaisesRegex(errors.ConfigError, "mean 'dim'"):
      spaces.build('fm', _SCHEMA, dims=4)

  def test_unknown_model_names_the_nearest(self):
    with self.assertRaisesRegex(errors.ConfigError, "mean 'deepfm'"):
      spaces.build('deepmf', _SCHEMA)


if __name__ == '__main__':
  absltest.main()
