import json

from absl.testing import absltest, parameterized
import numpy as np

from jax_autorec import architecture as arch_lib
from jax_autorec import choices as choices_lib
from jax_autorec import errors, field_spaces, sizes, spaces
from jax_autorec import schema as schema_lib

_SCHEMA = schema_lib.Schema(
  tuple(schema_lib.Field(name, vocab_size=9) for name in 'abcd')
)


class OpenTest(parameterized.TestCase):
  def test_groups_of_columns_are_even_and_no_more_than_ids(self):
    schema = schema_lib.Schema(
      (
        schema_lib.Field('a', vocab_size=10),
        schema_lib.Field('b', vocab_size=2),
      )
    )
    space = field_spaces.open_columns(spaces.fm(schema, dim=3), 4)
    self.assertEqual(space.choice.starts, ((0, 2, 5, 7), (0, 1)))
    self.assertEqual(space.choice.num_groups, 6)
    self.assertTrue(space.is_open)
    with self.assertRaisesRegex(errors.ConfigError, '0 groups'):
      field_spaces.open_columns(spaces.fm(schema), 0)

  def test_a_field_of_width_0_has_no_rows_and_no_map(self):
    space = field_spaces.open_columns(spaces.fm(_SCHEMA, dim=3))
    closed = field_spaces.with_dims(space, [0, 3, 2, 0])
    self.assertEqual(closed.embedding_params, 9 * 5 + 4 * 9)
    self.assertEqual(closed.projection_params, 2 * 3)
    self.assertEqual(closed.dim, 3)
    self.assertFalse(closed.is_open)

  @parameterized.parameters(
    ((2,), 'Widths are \\[2\\].*each of the 4'),
    ((2, 4, 4, 2, 2), 'each of the 4'),
    ((2, 4, 3, 2), '0 or of \\(2, 4\\)'),
  )
  def test_widths_are_candidates_one_per_field(self, dims, message):
    space = field_spaces.open_dims(spaces.fm(_SCHEMA, dim=4), (2, 4))
    with self.assertRaisesRegex(errors.ConfigError, message):
      field_spaces.with_dims(space, dims)

  def test_columns_are_no_more_than_there_are(self):
    space = field_spaces.open_columns(spaces.fm(_SCHEMA, dim=3))
    with self.assertRaisesRegex(errors.ConfigError, r'0 or of \(1, 2, 3\)'):
      field_spaces.with_dims(space, [1, 2, 3, 4])

  def test_open_rows(self):
    closed = spaces.rater(_SCHEMA, dim=2, width=8)
    self.assertEqual((closed.dim, closed.squash), (8, True))
    grow = field_spaces.open_rows(closed, (2, 4, 8))
    mix = field_spaces.open_rows(closed, (2, 4, 8), 'mix')
    self.assertEqual({p.dim for p in grow.fields}, {8})
    self.assertEqual({p.dim for p in mix.fields}, {14})
    self.assertEqual((grow.squash, mix.squash), (True, False))
    for space in (grow, mix):
      self.assertTrue(space.is_open)
      self.assertEqual(
        arch_lib.Architecture.from_dict(
          json.loads(json.dumps(space.to_dict()))
        ),
        space,
      )
    with self.assertRaisesRegex(errors.ConfigError, "'grow', 'mix'"):
      field_spaces.open_rows(closed, (2, 4), 'shrink')
    with self.assertRaisesRegex(errors.ConfigError, 'increasing'):
      field_spaces.open_rows(closed, (4, 2))


class BlocksTest(parameterized.TestCase):
  def _ends(self, sizes, rows, counts=None):
    names = [f'f{i}' for i in range(len(sizes))]
    schema = schema_lib.Schema(
      tuple(schema_lib.Field(n, vocab_size=s) for n, s in zip(names, sizes))
    )
    frequencies = counts and {n: np.array(c) for n, c in zip(names, counts)}
    plain = spaces.fm(schema, dim=3)
    space = field_spaces.open_blocks(
      plain, rows, (2, 1), frequencies=frequencies
    )
    self.assertTrue(space.is_open)
    return space.choice.rows

  def test_shares_of_the_values(self):
    """The two reserved ids lie in the first block."""
    ends = self._ends([1002, 10], (0.1, 0.2, 0.7))
    self.assertEqual(ends[0], (102, 302, 1002))
    # .8 and 2.4 of eight values.
    self.assertEqual(ends[1], (3, 5, 10))

  def test_empty_blocks_are_left_out(self):
    ends = self._ends([1, 2, 3, 4, 5], (0.1, 0.1, 0.1, 0.7))
    self.assertEqual(ends, ((1,), (2,), (3,), (3, 4), (3, 5)))

  def test_shares_of_the_occurrences(self):
    counts = [[900, 900, 50, 30, 10, 5, 5]]
    self.assertEqual(self._ends([7], (0.5, 0.5), counts), ((3, 7),))
    self.assertEqual(self._ends([7], (0.6, 0.4), counts), ((4, 7),))
    # All ids that reach a share, none more.
    self.assertEqual(self._ends([7], (0.8, 0.15, 0.05), counts), ((4, 6, 7),))

  @parameterized.parameters(
    ([[9, 9, 5, 1]], "'f0' has 4 counts for 5 ids"),
    ([[9, 9, 5, 1, 3]], 'falling from the first value on'),
    ([[9, 9, 5, 1, -1]], 'at least 0'),
    ([[9, 9, 5, np.nan, 0]], 'at least 0'),
    ([], "'f0' has 0 counts"),
  )
  def test_counts_must_be_those_of_the_field(self, counts, message):
    schema = schema_lib.Schema((schema_lib.Field('f0', vocab_size=5),))
    frequencies = {f'f{i}': c for i, c in enumerate(counts)}
    for open_space in (
      lambda plain: field_spaces.open_blocks(
        plain, (0.5, 0.5), (2, 1), frequencies=frequencies
      ),
      lambda plain: field_spaces.open_buckets(plain, (1, 2), frequencies),
      lambda plain: sizes.mixed_dims(plain, 0.3, frequencies=frequencies),
    ):
      with self.assertRaisesRegex(errors.ConfigError, message):
        open_space(spaces.fm(schema, dim=2))

  def test_widths_are_those_of_the_blocks(self):
    plain = spaces.deepfm(_SCHEMA, dim=5)
    space = field_spaces.open_blocks(plain, (0.5, 0.5), (2, 4, 1))
    self.assertEqual({plan.dim for plan in space.fields}, {7})
    values = space.to_dict()
    again = arch_lib.Architecture.from_dict(json.loads(json.dumps(values)))
    self.assertEqual(again, space)

  @parameterized.parameters(
    (dict(rows=(0.5, 0.6)), 'sum to 1'),
    (dict(rows=(1.5, -0.5)), 'above 0'),
    (dict(rows=()), 'Shares'),
    (dict(columns=()), 'Blocks of columns'),
    (dict(columns=(2, 0)), 'at least 1'),
    (dict(mode='many'), "'single', 'multi'"),
    (dict(combine='sum'), "'project', 'concatenate'"),
  )
  def test_a_slip_is_named(self, options, message):
    options = dict(rows=(0.5, 0.5), columns=(2, 1)) | options
    with self.assertRaisesRegex(errors.ConfigError, message):
      field_spaces.open_blocks(spaces.fm(_SCHEMA, dim=3), **options)

  def test_settled_blocks_are_tables_of_their_own(self):
    plain = spaces.fm(_SCHEMA, dim=3)
    kept = ((9, 9, 4), (4, 0, 0), (0, 0, 0), (0, 4, 4))
    sizes = {}
    for combine in choices_lib.BLOCK_COMBINES:
      space = field_spaces.open_blocks(
        plain, (0.2, 0.8), (2, 1, 3), combine=combine
      )
      self.assertEqual(space.choice.rows[0], (4, 9))
      closed = field_spaces.with_blocks(space, kept)
      self.assertFalse(closed.is_open)
      self.assertEqual(closed.dim, 6)
      sizes[combine] = [
        [(p.stop, p.dim, p.column) for p in plan.pieces]
        for plan in closed.fields
      ]
      entries = sum(
        space.choice.entries(f, t, rows)
        for f, own in enumerate(kept)
        for t, rows in enumerate(own)
      )
      own = closed.embedding_params - closed.first_order_params
      self.assertEqual(own + closed.projection_params, entries)
    self.assertEqual(
      sizes['project'],
      [
        [(9, 2, 0), (9, 1, 2), (4, 3, 3)],
        [(4, 2, 0)],
        [],
        [(4, 1, 2), (4, 3, 3)],
      ],
    )
    # Side by side, equal ones are one.
    self.assertEqual(
      sizes['concatenate'],
      [[(9, 3, 0), (4, 3, 3)], [(4, 2, 0)], [], [(4, 4, 2)]],
    )


if __name__ == '__main__':
  absltest.main()
