import dataclasses
import json

from absl.testing import absltest, parameterized
import numpy as np

from jax_autorec import architecture as arch_lib
from jax_autorec import errors, sizes, spaces
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

  def test_open_rows(self):
    closed = spaces.rater(_SCHEMA, dim=2, width=8)
    self.assertEqual((closed.dim, closed.squash), (8, True))
    grow = spaces.open_rows(closed, (2, 4, 8))
    mix = spaces.open_rows(closed, (2, 4, 8), 'mix')
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
      spaces.open_rows(closed, (2, 4), 'shrink')
    with self.assertRaisesRegex(errors.ConfigError, 'increasing'):
      spaces.open_rows(closed, (4, 2))

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


class OpenTest(parameterized.TestCase):
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

  @parameterized.parameters(
    ((2,), 'Widths are \\[2\\].*each of the 4'),
    ((2, 4, 4, 2, 2), 'each of the 4'),
    ((2, 4, 3, 2), '0 or of \\(2, 4\\)'),
  )
  def test_widths_are_candidates_one_per_field(self, dims, message):
    space = spaces.open_dims(spaces.fm(_SCHEMA, dim=4), (2, 4))
    with self.assertRaisesRegex(errors.ConfigError, message):
      spaces.with_dims(space, dims)

  def test_columns_are_no_more_than_there_are(self):
    space = spaces.open_columns(spaces.fm(_SCHEMA, dim=3))
    with self.assertRaisesRegex(errors.ConfigError, r'0 or of \(1, 2, 3\)'):
      spaces.with_dims(space, [1, 2, 3, 4])


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
      lambda plain: spaces.open_blocks(
        plain, (0.5, 0.5), (2, 1), frequencies=frequencies
      ),
      lambda plain: spaces.open_buckets(plain, (1, 2), frequencies),
      lambda plain: sizes.mixed_dims(plain, 0.3, frequencies=frequencies),
    ):
      with self.assertRaisesRegex(errors.ConfigError, message):
        open_space(spaces.fm(schema, dim=2))

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


def _skewed():
  """Vocabularies of 5000, 300 and 6, two values of the second per row."""
  return schema_lib.Schema(
    (
      schema_lib.Field('user', vocab_size=5000),
      schema_lib.Field('tags', vocab_size=300, max_length=2),
      schema_lib.Field('price', 'numeric'),
      schema_lib.Field('sex', vocab_size=6),
    )
  )


class QuantizeTest(parameterized.TestCase):
  def test_only_what_gets_smaller_is_quantised(self):
    plain = spaces.fm(_skewed(), dim=8)
    tiers = [(0.1, 32), (0.9, 8)]
    plan = spaces.quantize(plain, 'vq', 4, tiers)
    user, tags, sex, price = plan.fields
    self.assertEqual(
      [(t.stop, t.centroids) for t in user.quantizer.tiers],
      [(500, 32), (5000, 8)],
    )
    self.assertEqual(
      [(t.stop, t.centroids) for t in tags.quantizer.tiers],
      [(30, 32), (300, 8)],
    )
    self.assertIsNone(sex.quantizer)
    self.assertIsNone(price.quantizer)
    all_fields = ('user', 'tags', 'sex')
    named = spaces.quantize(plain, 'vq', 4, tiers, fields=all_fields)
    self.assertEqual(
      [(t.stop, t.centroids) for t in named.fields[2].quantizer.tiers],
      [(1, 32), (6, 8)],
    )
    with self.assertRaisesRegex(errors.ConfigError, 'No field takes less room'):
      spaces.quantize(plain, 'vq', 4, [(1.0, 2**13)])

  @parameterized.parameters(False, True)
  def test_sizes_are_those_of_the_sheet(self, shared):
    """V Dg log2 K bits, and 32 K d bits (over Dg where groups share)."""
    plain = spaces.fm(_skewed(), dim=8)
    tiers = [(0.1, 32), (0.9, 8)]
    plan = spaces.quantize(plain, 'sx', 4, tiers, shared=shared)
    first_order = 5000 + 300 + 6
    codes = (500 * 5 + 4500 * 3 + 30 * 5 + 270 * 3) * 4
    books = 2 * 32 * 32 * 8 // (4 if shared else 1)
    packed = plan.packed
    self.assertEqual(packed.embedding_params, first_order + 6 * 8)
    self.assertEqual(8 * packed.index_bytes, codes)
    self.assertEqual(32 * packed.codebook_params, books)
    total = 32 * (first_order + 6 * 8) + codes + books
    self.assertEqual(32 * packed.ep_total, total)
    # In training there are queries, and keys beside the values.
    self.assertEqual(plan.embedding_params, plain.embedding_params)
    self.assertEqual(plan.codebook_params, 2 * packed.codebook_params)
    self.assertEqual(plan.index_bytes, 0)

  def test_the_sheets_ratios(self):
    """A million ids of width 16: 12.8 and 15.9 times smaller."""
    schema = schema_lib.Schema((schema_lib.Field('a', vocab_size=10**6),))
    plain, weights = spaces.fm(schema, dim=16), 10**6
    for size, groups, ratio in ((32, 8, 12.8), (256, 4, 15.9)):
      plan = spaces.quantize(plain, 'vq', groups, [(1.0, size)])
      found = (plain.ep_total - weights) / (plan.packed.ep_total - weights)
      self.assertAlmostEqual(found, ratio, delta=0.05)

  def test_a_budget_is_met(self):
    plain = spaces.deepfm(_skewed(), dim=16)
    least = spaces.quantize(plain, 'vq', 8, [(1.0, 2)]).packed.ep_total
    for budget in np.geomspace(1.02 * least, 0.9 * plain.ep_total, 40):
      plan = spaces.quantize_within(plain, 'vq', 8, (0.1, 0.9), budget)
      self.assertLessEqual(plan.packed.ep_total, budget)
      self.assertLen(plan.fields[0].quantizer.tiers, 2)
      # Nothing lies between the largest codebooks and plain rows.
      filled = 0.9 if budget < 0.7 * plain.ep_total else 0.7
      self.assertGreaterEqual(plan.packed.ep_total, filled * budget)
    with self.assertRaisesRegex(errors.ConfigError, f'has {least}'):
      spaces.quantize_within(plain, 'vq', 8, (0.1, 0.9), least - 1)

  @parameterized.parameters(
    (dict(tiers=[(0.5, 8), (0.4, 4)]), 'add up'),
    (dict(tiers=[(0.5, 4), (0.5, 8)]), 'no rise'),
    (dict(tiers=[(1.0, 6)]), 'power of two'),
    (dict(groups=3), 'divide'),
    (dict(kind='pq'), "'pq'"),
  )
  def test_senseless_options_are_refused(self, options, message):
    plain = spaces.fm(_skewed(), dim=8)
    given = dict(kind='vq', groups=4, tiers=[(1.0, 8)]) | options
    with self.assertRaisesRegex(errors.ConfigError, message):
      spaces.quantize(plain, **given)

  @parameterized.parameters(
    (dict(groups=3), 'width 8, which groups must divide'),
    (dict(groups=0, shared=True), '0 codes each'),
    (dict(shares=(0.1, 0.8)), 'add up'),
    (dict(shares=()), 'add up'),
    (dict(kind='qv'), "'qv'"),
    (dict(max_params=10), 'raise the budget'),
  )
  def test_within_a_budget_too(self, options, message):
    plain = spaces.fm(_skewed(), dim=8)
    given = dict(kind='vq', groups=4, shares=(0.1, 0.9), max_params=9000)
    with self.assertRaisesRegex(errors.ConfigError, message):
      spaces.quantize_within(plain, **(given | options))

  def test_where_no_field_is_smaller_with_any_codebook(self):
    schema = schema_lib.Schema((schema_lib.Field('a', vocab_size=2),))
    plain = spaces.fm(schema, dim=4)
    with self.assertRaisesRegex(errors.ConfigError, 'No field takes less room'):
      spaces.quantize_within(plain, 'vq', 2, (1.0,), 1e9)


if __name__ == '__main__':
  absltest.main()
