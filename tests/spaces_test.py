import dataclasses
import json

from absl.testing import absltest, parameterized
import numpy as np

from jax_autorec import architecture as arch_lib
from jax_autorec import errors, spaces
from jax_autorec import fields as fields_lib
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

  def test_unknown_model_names_the_nearest(self):
    with self.assertRaisesRegex(errors.ConfigError, "mean 'deepfm'"):
      spaces.build('deepmf', _SCHEMA)


class OpenTest(absltest.TestCase):
  def test_groups_of_columns_are_even_and_no_more_than_ids(self):
    schema = schema_lib.Schema(
      (
        schema_lib.Field('a', vocab_size=10),
        schema_lib.Field('b', vocab_size=2),
      )
    )
    space = spaces.open_columns(spaces.fm(schema, dim=3), 4)
    self.assertEqual(space.choice.starts, ((0, 2, 5, 7), (0, 1)))
    self.assertEqual(space.choice.num_groups, 6)
    self.assertTrue(space.is_open)
    with self.assertRaisesRegex(errors.ConfigError, '0 groups'):
      spaces.open_columns(spaces.fm(schema), 0)

  def test_a_field_of_width_0_has_no_rows_and_no_map(self):
    space = spaces.open_columns(spaces.fm(_SCHEMA, dim=3))
    closed = spaces.with_dims(space, [0, 3, 2, 0])
    self.assertEqual(closed.embedding_params, 9 * 5 + 4 * 9)
    self.assertEqual(closed.projection_params, 2 * 3)
    self.assertEqual(closed.dim, 3)
    self.assertFalse(closed.is_open)


class BlocksTest(parameterized.TestCase):
  def _ends(self, sizes, rows, counts=None):
    names = [f'f{i}' for i in range(len(sizes))]
    schema = schema_lib.Schema(
      tuple(schema_lib.Field(n, vocab_size=s) for n, s in zip(names, sizes))
    )
    frequencies = counts and {n: np.array(c) for n, c in zip(names, counts)}
    plain = spaces.fm(schema, dim=3)
    space = spaces.open_blocks(plain, rows, (2, 1), frequencies=frequencies)
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

  def test_widths_are_those_of_the_blocks(self):
    plain = spaces.deepfm(_SCHEMA, dim=5)
    space = spaces.open_blocks(plain, (0.5, 0.5), (2, 4, 1))
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
      spaces.open_blocks(spaces.fm(_SCHEMA, dim=3), **options)

  def test_rows_end_at_increasing_ids(self):
    for ends in ((), (0, 3), (3, 3), (4, 2)):
      with self.assertRaisesRegex(errors.ConfigError, 'increasing ids'):
        fields_lib.Blocks((ends,), (2,))

  def test_settled_blocks_are_tables_of_their_own(self):
    plain = spaces.fm(_SCHEMA, dim=3)
    kept = ((9, 9, 4), (4, 0, 0), (0, 0, 0), (0, 4, 4))
    sizes = {}
    for combine in fields_lib.BLOCK_COMBINES:
      space = spaces.open_blocks(plain, (0.2, 0.8), (2, 1, 3), combine=combine)
      self.assertEqual(space.choice.rows[0], (4, 9))
      closed = spaces.with_blocks(space, kept)
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
