from absl.testing import absltest, parameterized
import jax

from jax_autorec import architecture as arch_lib
from jax_autorec import errors, group_spaces, spaces
from jax_autorec import schema as schema_lib
from jax_autorec.nn import model as model_lib
from jax_autorec.train import state as state_lib

_SCHEMA = schema_lib.Schema(
  tuple(schema_lib.Field(name, vocab_size=9) for name in 'abcd')
)


def _params(architecture):
  model = model_lib.build(architecture)
  batch = state_lib.example_batch(_SCHEMA)
  return jax.eval_shape(lambda: model.init(jax.random.key(0), batch))['params']


class OpenTest(parameterized.TestCase):
  def test_every_order_has_tables_of_its_own_width(self):
    plain = spaces.deepfm(_SCHEMA, dim=4, hidden=(8,))
    space = group_spaces.open_groups(plain, (2, 0, 5, 3), copies=(1, 1, 2, 3))
    self.assertTrue(space.is_open)
    self.assertEqual(
      {table.name: table.dim for table in space.tables},
      {
        'groups_1_dim_4': 4,
        'groups_3_dim_8': 8,
        'groups_4_dim_12': 12,
        'first_order': 1,
      },
    )
    # Vectors of order 1 and one number per group above feed the MLP.
    kernel = _params(space)['mlp']['dense_0']['kernel']
    self.assertEqual(kernel.shape, (2 * 4 + 5 + 3, 8))

  def test_without_mlp_groups_feed_the_output_layer(self):
    space = group_spaces.open_groups(spaces.fm(_SCHEMA, dim=4), (0, 6))
    self.assertEqual(_params(space)['mlp']['output']['kernel'].shape, (6, 1))

  @parameterized.parameters(
    (dict(counts=()), 'one per order'),
    (dict(counts=(0, 0)), 'one per order'),
    (dict(counts=(2, -1)), 'one per order'),
    (dict(counts=(2, 3), copies=(1,)), 'one for all or one per order'),
    (dict(counts=(0, 0, 0, 0, 2)), 'order 5 of 4 fields'),
    (dict(counts=(2,), form='sum'), "'sum'"),
    (dict(counts=(0, 2), compensation=1.5), 'compensation.*0 to 1'),
  )
  def test_what_cannot_be_is_refused(self, options, message):
    with self.assertRaisesRegex(errors.ConfigError, message):
      group_spaces.open_groups(spaces.fm(_SCHEMA), **options)


class CloseTest(parameterized.TestCase):
  def _settled(self, members, **options):
    plain = spaces.deepfm(_SCHEMA, dim=4, hidden=(8,))
    space = group_spaces.open_groups(plain, (3, 2, 2), **options)
    return group_spaces.with_groups(space, members)

  def test_members_alone_have_rows_and_small_groups_go(self):
    found = self._settled(
      {
        'groups_1': [(), ('b',), ('a', 'b')],
        'groups_2': [('c',), ('a', 'c', 'd')],
        'groups_3': [(), ('d',)],
      }
    )
    self.assertFalse(found.is_open)
    first, second = found.interactions
    self.assertEqual(first.groups, (('b',), ('a', 'b')))
    self.assertEqual(second.groups, (('a', 'c', 'd'),))
    rows = {table.name: table.num_rows for table in found.tables}
    self.assertEqual(
      rows, {'groups_1_dim_4': 18, 'groups_2_dim_4': 27, 'first_order': 36}
    )
    kernel = _params(found)['mlp']['dense_0']['kernel']
    self.assertEqual(kernel.shape, (2 * 4 + 1, 8))
    directory = self.create_tempdir().full_path
    found.save(directory)
    self.assertEqual(arch_lib.Architecture.load(directory), found)

  @parameterized.parameters(
    (dict(), 2), (dict(compensation=0.01), 1), (dict(form='elementary'), 3)
  )
  def test_what_a_group_needs_depends_on_the_form(self, options, least):
    members = [('a', 'b', 'c', 'd')[:size] for size in range(1, 5)]
    found = self._settled(
      {'groups_1': [], 'groups_2': [], 'groups_3': members}, **options
    )
    (plan,) = found.interactions
    self.assertEqual(plan.groups, tuple(members[least - 1 :]))

  def test_nothing_left(self):
    none = {name: [('a',)] for name in ('groups_2', 'groups_3')}
    with self.assertRaisesRegex(errors.ConfigError, 'members enough'):
      self._settled({**none, 'groups_1': []})

  def test_members_are_fields_in_order(self):
    for group, message in (('ba', 'field order'), ('ax', "'x'")):
      with self.assertRaisesRegex(errors.ConfigError, message):
        self._settled({'groups_1': [group], 'groups_2': [], 'groups_3': []})


if __name__ == '__main__':
  absltest.main()
