from absl.testing import absltest, parameterized
import numpy as np

from jax_autorec import errors, quantization, spaces
from jax_autorec import schema as schema_lib


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
    plan = quantization.quantize(plain, 'vq', 4, tiers)
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
    named = quantization.quantize(plain, 'vq', 4, tiers, fields=all_fields)
    self.assertEqual(
      [(t.stop, t.centroids) for t in named.fields[2].quantizer.tiers],
      [(1, 32), (6, 8)],
    )
    with self.assertRaisesRegex(errors.ConfigError, 'No field takes less room'):
      quantization.quantize(plain, 'vq', 4, [(1.0, 2**13)])

  @parameterized.parameters(False, True)
  def test_sizes_are_those_of_the_sheet(self, shared):
    """V Dg log2 K bits, and 32 K d bits (over Dg where groups share)."""
    plain = spaces.fm(_skewed(), dim=8)
    tiers = [(0.1, 32), (0.9, 8)]
    plan = quantization.quantize(plain, 'sx', 4, tiers, shared=shared)
    first_order = 5000 + 300 + 6
    codes = (500 * 5 + 4500 * 3 + 30 * 5 + 270 * 3) * 4
    books = 2 * 32 * 32 * 8 // (4 if shared else 1)
    packed = plan.packed
    self.assertEqual(packed.embedding_params, first_order + 6 * 8)
    self.assertEqual(8 * packed.index_bytes, codes)
    self.assertEqual(32 * packed.codebook_params, books)
    self.assertEqual(packed.numeric_params, 2 * 8)
    total = 32 * (first_order + 6 * 8 + 2 * 8) + codes + books
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
      plan = quantization.quantize(plain, 'vq', groups, [(1.0, size)])
      found = (plain.ep_total - weights) / (plan.packed.ep_total - weights)
      self.assertAlmostEqual(found, ratio, delta=0.05)

  def test_a_budget_is_met(self):
    plain = spaces.deepfm(_skewed(), dim=16)
    least = quantization.quantize(plain, 'vq', 8, [(1.0, 2)]).packed.ep_total
    # The vectors of the number are not quantised: budgets are for the rest.
    numbers = plain.numeric_params
    whole = plain.ep_total - numbers
    for rest in np.geomspace(1.02 * (least - numbers), 0.9 * whole, 40):
      budget = rest + numbers
      plan = quantization.quantize_within(plain, 'vq', 8, (0.1, 0.9), budget)
      self.assertLessEqual(plan.packed.ep_total, budget)
      self.assertLen(plan.fields[0].quantizer.tiers, 2)
      # Nothing lies between the largest codebooks and plain rows.
      filled = 0.9 if rest < 0.7 * whole else 0.7
      self.assertGreaterEqual(plan.packed.ep_total - numbers, filled * rest)
    with self.assertRaisesRegex(errors.ConfigError, f'has {least}'):
      quantization.quantize_within(plain, 'vq', 8, (0.1, 0.9), least - 1)

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
      quantization.quantize(plain, **given)

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
      quantization.quantize_within(plain, **(given | options))

  def test_where_no_field_is_smaller_with_any_codebook(self):
    schema = schema_lib.Schema((schema_lib.Field('a', vocab_size=2),))
    plain = spaces.fm(schema, dim=4)
    with self.assertRaisesRegex(errors.ConfigError, 'No field takes less room'):
      quantization.quantize_within(plain, 'vq', 2, (1.0,), 1e9)


if __name__ == '__main__':
  absltest.main()
