from absl.testing import absltest, parameterized

from jax_autorec import errors, interactions, spaces
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


if __name__ == '__main__':
  absltest.main()
