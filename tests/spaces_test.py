import dataclasses

from absl.testing import absltest, parameterized
import numpy as np

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

  def test_unknown_model_names_the_nearest(self):
    with self.assertRaisesRegex(errors.ConfigError, "mean 'deepfm'"):
      spaces.build('deepmf', _SCHEMA)


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
      # Larger codebooks are the larger part: doubled, they take great steps.
      filled = 0.9 if budget < 0.4 * plain.ep_total else 0.6
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


if __name__ == '__main__':
  absltest.main()
