"""Sparse tables: the exact largest entries, and the model that holds them."""

import functools

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from jax_autorec import errors, field_spaces, numeric, spaces
from jax_autorec import schema as schema_lib
from jax_autorec.nn import lookups
from jax_autorec.nn import model as model_lib
from jax_autorec.search import controls, patterns
from jax_autorec.train import state as state_lib
from jax_autorec.train import steps

_SIZES = (40, 7, 90, 12)
_DIM = 10
_SCHEMA = schema_lib.Schema(
  tuple(
    schema_lib.Field(name, vocab_size=size, max_length=2 if name == 'b' else 1)
    for name, size in zip('abcd', _SIZES)
  )
)


def _space():
  return field_spaces.open_columns(spaces.fm(_SCHEMA, dim=_DIM))


def _unpack(bits, dim):
  return np.concatenate([np.unpackbits(b, axis=1, count=dim) for b in bits])


class LargestTest(parameterized.TestCase):
  @parameterized.parameters(1, 17, 250, 499, 500)
  def test_equals_a_stable_sort(self, count):
    rng = np.random.default_rng(count)
    values = rng.normal(size=(100, 5)).astype(np.float32)
    values[rng.random((100, 5)) < 0.2] = 0.25  # Ties, on either side.
    values[rng.random((100, 5)) < 0.1] = -0.25
    blocks = np.split(values, [30, 31, 80])
    bits = patterns.largest(lambda: iter(blocks), count)
    order = np.argsort(-values, axis=None, kind='stable')[:count]
    expected = np.zeros(500, bool)
    expected[order] = True
    np.testing.assert_array_equal(
      _unpack(bits, 5).reshape(-1).astype(bool), expected
    )

  def test_minus_infinity_is_never_taken(self):
    values = np.full((4, 3), -np.inf, np.float32)
    values[2, 1], values[0, 0] = -3e38, 0.0
    bits = patterns.largest(lambda: [values], 7)
    np.testing.assert_array_equal(_unpack(bits, 3), values > -np.inf)


class KeepTest(parameterized.TestCase):
  def _scores(self, seed=0):
    scores = np.random.default_rng(seed).normal(size=(sum(_SIZES), _DIM))
    return scores.astype(np.float32)

  def test_the_model_is_the_masked_full_one(self):
    """Look-ups, pooling and all; the values are those of the full table."""
    space, scores = _space(), self._scores()
    scores[-12:] = -np.inf  # The last field keeps nothing.
    full = jnp.asarray(self._scores(1))
    found = patterns.keep_largest(
      space, lambda: np.split(scores, [3, 77]), 0.3, None, full
    )
    self.assertEqual(found.fields[3].pieces, ())
    kept = sum(plan.num_values for plan in found.fields)
    self.assertEqual(kept, round(0.3 * scores.size))
    rng = np.random.default_rng(2)
    ids = np.stack(
      [rng.integers(0, size, 50) for size in (40, 7, 7, 90, 12)], 1
    ).astype(np.int32)
    ids[::3, 2] = -1
    batch = state_lib.example_batch(_SCHEMA, 50)._replace(ids=ids)
    tables = lookups.init_tables(found, jax.random.key(0), 0.1)
    self.assertEqual(tables['main_sparse'].shape, (kept, 1))
    threshold = np.sort(scores.reshape(-1))[-kept]
    name = patterns.main_table(space)
    masked = {
      name: jnp.where(scores >= threshold, full, 0),
      'first_order': tables['first_order'],
    }
    params = {'bias': jnp.ones(1)}
    collections = model_lib.constants_collection(model_lib.constants(found))
    got = steps.make_predict(model_lib.build(found))(
      params, tables, {}, batch, collections
    )
    arch = {'arch': {'fields': {'mask': jnp.ones((4, _DIM))}}}
    expected = steps.make_predict(model_lib.build(space))(
      params, masked, {}, batch, arch
    )
    self.assertGreater(float(jnp.std(expected)), 0.5)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)

  @parameterized.parameters(400, 600, 800)
  def test_budgets_count_the_pattern(self, budget):
    """P5. One field has no large entry: its bits make room for others."""
    scores = self._scores()
    scores[47:137] = -np.inf
    found = patterns.keep_largest(_space(), lambda: [scores], 1.0, budget)
    self.assertLessEqual(found.ep_total, budget)
    self.assertGreater(found.ep_total, budget - 2)
    held = sum(p.num_values for p in found.fields)
    index = (40 + 7 + 12) * (2 + 4) / 4
    self.assertEqual(found.ep_total, sum(_SIZES) + held + index)

  @parameterized.parameters(None, numeric.AutoDis(buckets=3))
  def test_budgets_count_what_numbers_need(self, embedding):
    """For which nothing is chosen: the more it is, the fewer entries."""
    schema = schema_lib.Schema(
      (*_SCHEMA.fields, schema_lib.Field('price', 'numeric'))
    )
    plain = spaces.fm(schema, dim=_DIM, numeric=embedding)
    space = field_spaces.open_columns(plain)
    scores, budget = self._scores(), 900
    found = patterns.keep_largest(space, lambda: [scores], 1.0, budget)
    self.assertLessEqual(found.ep_total, budget)
    self.assertGreater(found.ep_total, budget - 2)
    self.assertGreater(found.numeric_params, _DIM)
    # A search that goes by entries ends where the model does.
    held = np.array([plan.num_values for plan in found.categorical])
    self.assertTrue(patterns.is_reached(space, held, 1.0, budget))
    self.assertFalse(
      patterns.is_reached(space, held + [3, 0, 0, 0], 1.0, budget)
    )
    drawn = controls.random_entries(space, found, 0)
    self.assertLessEqual(drawn.ep_total, found.ep_total)
    self.assertGreater(drawn.ep_total, found.ep_total - 2)

  def test_a_budget_that_holds_nothing(self):
    take = functools.partial(
      patterns.keep_largest, _space(), lambda: [self._scores()], 1.0
    )
    least = sum(_SIZES) + 7 * (2 + 4) / 4 + 1
    with self.assertRaisesRegex(errors.ConfigError, 'cannot be met'):
      take(least - 0.5)
    patterns.check_space(_space(), least)
    # The scores of that field may be out of the question, though.
    with self.assertRaisesRegex(errors.ConfigError, 'raise the density or the'):
      scores = self._scores()
      scores[40:47] = -np.inf
      patterns.keep_largest(_space(), lambda: [scores], 1.0, least)
    with self.assertRaisesRegex(errors.ConfigError, 'No entry'):
      patterns.with_bits(_space(), np.zeros((sum(_SIZES), 2), np.uint8))
    for density, budget in ((0.0, None), (1.5, None), (0.5, 0), (0.5, -9)):
      with self.assertRaises(errors.ConfigError):
        patterns.check(density, budget)

  @parameterized.parameters(
    (23_700, (3200, 0)),  # The small field in full, and no more than that.
    (23_699, (3199, 0)),
    (50_600, (3200, 0)),  # All entries of the large field would cost its index.
    (53_701, (3200, 1)),
    (60_000, (3200, 6300)),
  )
  def test_a_field_that_opens_too_late_is_left_out(self, budget, expected):
    """P5, of unequal fields: all large scores are in the small one."""
    schema = schema_lib.Schema(
      (
        schema_lib.Field('large', vocab_size=20_000),
        schema_lib.Field('small', vocab_size=200),
      )
    )
    space = field_spaces.open_columns(spaces.fm(schema, dim=16))
    scores = np.random.default_rng(0).random((20_200, 16), np.float32)
    scores[20_000:] += 1
    found = patterns.keep_largest(
      space, lambda: np.split(scores, [7, 19_999, 20_100]), 1.0, budget
    )
    held = {plan.name: plan.num_values for plan in found.categorical}
    self.assertEqual((held['small'], held['large']), expected)
    self.assertLessEqual(found.ep_total, budget)
    # The same as by density.
    by_density = patterns.keep_largest(
      space, lambda: [scores], sum(expected) / scores.size
    )
    for name, array in by_density.arrays.items():
      np.testing.assert_array_equal(found.arrays[name], array)

  @parameterized.parameters(range(12))
  def test_a_budget_is_spent_entry_by_entry(self, seed):
    """Against a walk through all entries, of fields of all sizes and ties."""
    rng = np.random.default_rng(seed)
    rows = np.exp(rng.uniform(0, 6, 6)).astype(int)
    schema = schema_lib.Schema(
      tuple(
        schema_lib.Field(f'f{i}', vocab_size=int(n)) for i, n in enumerate(rows)
      )
    )
    space = field_spaces.open_columns(spaces.fm(schema, dim=5))
    field = np.repeat(np.arange(6), rows)
    scores = (
      rng.integers(0, 30, (len(field), 5)) * rng.integers(1, 9, 6)[field, None]
    )
    scores = np.where(rng.random(scores.shape) < 0.1, -np.inf, scores)
    scores = scores.astype(np.float32)
    least = rows.sum() + rows.min() * 5 / 4 + 1
    budget = rng.uniform(least, 8 * rows.sum() + least)
    kept, opened, size = np.zeros(scores.shape, bool), set(), float(rows.sum())
    for place in np.argsort(-scores, axis=None, kind='stable'):
      own = field[place // 5]
      cost = 1 if own in opened else 1 + rows[own] * 5 / 4
      if scores.flat[place] > -np.inf and size + cost <= budget:
        kept.flat[place] = True
        opened.add(own)
        size += cost
    found = patterns.keep_largest(space, lambda: [scores], 1.0, budget)
    self.assertAlmostEqual(found.ep_total, size)
    for i, plan in enumerate(found.categorical):
      self.assertEqual(plan.num_values, kept[field == i].sum())
      if plan.num_values:
        bits = np.packbits(kept[field == i], axis=1)
        np.testing.assert_array_equal(found.arrays[f'f{i}.bits'], bits)

  def test_blocks_are_in_row_order(self):
    table = np.arange(12.0).reshape(6, 2)
    for entries in (1, 4, 100):
      old, patterns._BLOCK_ENTRIES = patterns._BLOCK_ENTRIES, entries
      try:
        blocks = list(patterns.rows(table))
      finally:
        patterns._BLOCK_ENTRIES = old
      np.testing.assert_array_equal(
        np.concatenate([b for _, b in blocks]), table
      )
      for start, block in blocks:
        np.testing.assert_array_equal(table[start : start + len(block)], block)


if __name__ == '__main__':
  absltest.main()
