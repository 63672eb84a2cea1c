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

  def test_unknown_model_names_the_nearest(self):
    with self.assertRaisesRegex(errors.ConfigError, "mean 'deepfm'"):
      spaces.build('deepmf', _SCHEMA)


if __name__ == '__main__':
  absltest.main()
