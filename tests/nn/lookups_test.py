"""Numbers of rows, by hand and by numpy."""

from absl.testing import absltest
import jax.numpy as jnp
import numpy as np

from jax_autorec import schema as schema_lib
from jax_autorec import sizes, spaces
from jax_autorec.nn import lookups
from jax_autorec.train import state as state_lib

_SCHEMA = schema_lib.Schema(
  (
    schema_lib.Field('user', vocab_size=9),
    schema_lib.Field('price', 'numeric'),
    schema_lib.Field('tags', vocab_size=7, max_length=3),
    schema_lib.Field('item', vocab_size=5),
  )
)
_ROWS = 8


class FlattenTest(absltest.TestCase):
  def test_rows_of_fields_lie_one_under_another(self):
    architecture = spaces.fm(_SCHEMA)
    batch = state_lib.example_batch(_SCHEMA, _ROWS)
    batch.ids[0] = [8, 6, 0, 6, 4]  # Last and first ids of their fields.
    batch.ids[1] = [9, 7, -1, 2**31 - 1, 5]  # Beyond their vocabularies.
    batch.ids[2] = [0, -1, -1, -(2**31), 1]
    batch.mask[3] = False
    (space, flat), *others = lookups.flatten_ids(architecture, batch).items()
    self.assertEqual((space, others), ('user+tags+item', []))
    unknown = schema_lib.UNKNOWN_ID
    np.testing.assert_array_equal(
      flat[:4],
      [
        [8, 9 + 6, 9 + 0, 9 + 6, 16 + 4],
        [unknown, 9 + unknown, 21, 9 + unknown, 16 + unknown],
        [0, 21, 21, 21, 16 + 1],
        [21] * 5,
      ],
    )
    self.assertEqual(flat.dtype, jnp.int32)

  def test_vocabulary_of_missing_values_alone(self):
    schema = schema_lib.Schema(
      (
        schema_lib.Field('a', vocab_size=1),
        schema_lib.Field('b', vocab_size=3),
      )
    )
    batch = state_lib.example_batch(schema, 1)
    batch.ids[:] = 1
    (flat,) = lookups.flatten_ids(spaces.lr(schema), batch).values()
    np.testing.assert_array_equal(flat, [[0, 2]])

  def test_capacity_is_the_largest_number_of_distinct_rows(self):
    architecture = spaces.fm(_SCHEMA)
    # user: 4 rows below 9 ids; tags: 3 x 4 above 7; item: 4 below 5.
    self.assertEqual(
      lookups.capacities(architecture, 4), {'user+tags+item': 15}
    )
    self.assertEqual(
      lookups.capacities(architecture, _ROWS), {'user+tags+item': 20}
    )
    batch = state_lib.example_batch(_SCHEMA, _ROWS)
    batch.ids[:, 0] = np.arange(_ROWS)
    batch.ids[:, 1:4] = np.arange(3 * _ROWS).reshape(_ROWS, 3) % 7
    batch.ids[:, 4] = np.arange(_ROWS) % 5
    (flat,) = lookups.flatten_ids(architecture, batch).values()
    self.assertLen(np.unique(flat), 20)

  def test_ids_beyond_float32_are_exact(self):
    """Numbers of rows alone: no such table is made here."""
    size = 2**24 + 2**20
    schema = schema_lib.Schema((schema_lib.Field('a', vocab_size=size),))
    model = spaces.wide_deep(schema, dim=4, hidden=(2,))
    batch = state_lib.example_batch(schema, 4)
    ids = np.array([2**24 - 1, 2**24 + 1, 2**24 + 3, size - 1], np.int32)
    batch = batch._replace(ids=ids[:, None])
    for c, architecture in (
      (3, sizes.quotient_remainder(model, collisions=3)),
      (5001, sizes.quotient_remainder(model, collisions=5001)),
    ):
      flat = lookups.flatten_ids(architecture, batch)
      by_table = {t.name: flat[t.space][:, 0] for t in architecture.tables}
      np.testing.assert_array_equal(by_table['main_dim_4'], ids // c)
      np.testing.assert_array_equal(by_table['main_factor_dim_4'], ids % c)
    (flat,) = [lookups.flatten_ids(sizes.hashed(model), batch)]
    rows = -(-size // 4)
    space = f'a[0:{size}//1%{rows}]'
    np.testing.assert_array_equal(flat[space][:, 0], ids % rows)


if __name__ == '__main__':
  absltest.main()
