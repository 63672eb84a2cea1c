"""Sparse tables: the exact largest entries, and the model that holds them."""

import functools

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from jax_autorec import errors, spaces
from jax_autorec import schema as schema_lib
from jax_autorec.nn import embeddings
from jax_autorec.nn import model as model_lib
from jax_autorec.search import patterns
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
  return spaces.open_columns(spaces.fm(_SCHEMA, dim=_DIM))


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
    tables = embeddings.init_tables(found, jax.random.key(0), 0.1)
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

  def test_a_budget_that_holds_nothing(self):
    take = functools.partial(
      patterns.keep_largest, _space(), lambda: [self._scores()], 1.0
    )
    with self.assertRaisesRegex(errors.ConfigError, 'holds no entry'):
      take(300)
    with self.assertRaisesRegex(errors.ConfigError, 'No entry'):
      patterns.with_bits(_space(), np.zeros((sum(_SIZES), 2), np.uint8))
    for density, budget in ((0.0, None), (1.5, None), (0.5, 0)):
      with self.assertRaises(errors.ConfigError):
        patterns.check_budget(density, budget)

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
