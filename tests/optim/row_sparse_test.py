import doctest

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jax_autorec.optim import row_sparse

_ROWS, _DIM, _LOOKUPS = 50, 3, 40


def _batches(steps=5, seed=0):
  """Ids with many duplicates, among them the first and the last row."""
  rng = np.random.default_rng(seed)
  ids = rng.integers(0, 20, (steps, _LOOKUPS)) * 2
  ids[:, 0], ids[:, 1], ids[:, 2] = 0, _ROWS - 1, _ROWS - 1
  return ids, rng.normal(size=(steps, _LOOKUPS, _DIM))


def _dense(grads, ids):
  full = np.zeros((_ROWS, _DIM))
  np.add.at(full, ids, grads)
  return full


def _rowwise_adagrad(rate, initial, eps):
  """Dense twin of `row_sparse.rowwise_adagrad`."""

  def init(table):
    return jnp.full((len(table), 1), initial, table.dtype)

  def update(grads, total, params=None):
    total = total + jnp.square(grads).mean(1, keepdims=True)
    return -rate * grads / jnp.sqrt(total + eps), total

  return optax.GradientTransformation(init, update)


_RULES = {
  'sgd': (row_sparse.sgd(0.3), optax.sgd(0.3)),
  'adagrad': (
    row_sparse.adagrad(0.3, initial_accumulator=0.2),
    optax.adagrad(0.3, initial_accumulator_value=0.2, eps=1e-7),
  ),
  'rowwise_adagrad': (
    row_sparse.rowwise_adagrad(0.3, initial_accumulator=0.2, eps=1e-3),
    _rowwise_adagrad(0.3, 0.2, 1e-3),
  ),
  'schedule': (
    row_sparse.sgd(optax.linear_schedule(0.3, 0.1, 4)),
    optax.sgd(optax.linear_schedule(0.3, 0.1, 4)),
  ),
}


class RuleTest(parameterized.TestCase):
  @parameterized.named_parameters(
    (name, *rule) for name, rule in _RULES.items()
  )
  def test_equals_dense_optax_over_steps(self, sparse, dense):
    all_ids, all_grads = _batches()
    with jax.enable_x64(True):
      table = expected = jnp.asarray(
        np.random.default_rng(1).normal(size=(_ROWS, _DIM))
      )
      state, dense_state = sparse.init(table), dense.init(table)
      slots = row_sparse.init_slots(_ROWS)
      for ids, grads in zip(all_ids, all_grads):
        table, state, slots = row_sparse.update(
          sparse, table, state, slots, jnp.asarray(ids), jnp.asarray(grads)
        )
        updates, dense_state = dense.update(
          jnp.asarray(_dense(grads, ids)), dense_state, expected
        )
        expected = optax.apply_updates(expected, updates)
      self.assertEqual(table.dtype, jnp.float64)
    np.testing.assert_allclose(table, expected, rtol=1e-12, atol=1e-14)

  def test_lazy_adam_equals_dense_adam_where_every_row_is_touched(self):
    rng = np.random.default_rng(2)
    sparse, dense = row_sparse.adam(0.1), optax.adam(0.1)
    with jax.enable_x64(True):
      table = expected = jnp.asarray(rng.normal(size=(_ROWS, _DIM)))
      state, dense_state = sparse.init(table), dense.init(table)
      slots = row_sparse.init_slots(_ROWS)
      for _ in range(4):
        ids = rng.permutation(np.repeat(np.arange(_ROWS), 2))
        grads = rng.normal(size=(len(ids), _DIM))
        table, state, slots = row_sparse.update(
          sparse, table, state, slots, jnp.asarray(ids), jnp.asarray(grads)
        )
        updates, dense_state = dense.update(
          jnp.asarray(_dense(grads, ids)), dense_state
        )
        expected = optax.apply_updates(expected, updates)
    np.testing.assert_allclose(table, expected, rtol=1e-11)

  def test_lazy_adam_against_a_loop_over_rows(self):
    """Moments of absent rows stand still; bias counts all updates."""
    all_ids, all_grads = _batches(seed=3)
    optimizer = row_sparse.adam(0.1, b1=0.8, b2=0.9, eps=1e-3)
    start = np.random.default_rng(1).normal(size=(_ROWS, _DIM))
    expected = start.copy()
    mean, square = np.zeros_like(start), np.zeros_like(start)
    with jax.enable_x64(True):
      table, slots = jnp.asarray(start), row_sparse.init_slots(_ROWS)
      state = optimizer.init(table)
      for step, (ids, grads) in enumerate(zip(all_ids, all_grads), 1):
        table, state, slots = row_sparse.update(
          optimizer, table, state, slots, jnp.asarray(ids), jnp.asarray(grads)
        )
        full = _dense(grads, ids)
        for row in set(ids.tolist()):
          mean[row] = 0.8 * mean[row] + 0.2 * full[row]
          square[row] = 0.9 * square[row] + 0.1 * full[row] ** 2
          expected[row] -= (
            0.1
            * (mean[row] / (1 - 0.8**step))
            / (np.sqrt(square[row] / (1 - 0.9**step)) + 1e-3)
          )
    np.testing.assert_allclose(table, expected, rtol=1e-12)

  @parameterized.parameters('sgd', 'adagrad', 'rowwise_adagrad', 'adam')
  def test_untouched_rows_keep_every_bit(self, name):
    ids, grads = (x[0] for x in _batches())
    optimizer = getattr(row_sparse, name)(0.1, weight_decay=0.5)
    table = jax.random.normal(jax.random.key(0), (_ROWS, _DIM))
    state = optimizer.init(table)
    new, new_state, _ = row_sparse.update(
      optimizer,
      table,
      state,
      row_sparse.init_slots(_ROWS),
      jnp.asarray(ids),
      jnp.asarray(grads, jnp.float32),
    )
    absent = np.setdiff1d(np.arange(_ROWS), ids)
    np.testing.assert_array_equal(new[absent], table[absent])
    for key, moment in new_state.moments.items():
      np.testing.assert_array_equal(moment[absent], state.moments[key][absent])
    self.assertTrue(np.all(np.any(new[ids] != table[ids], axis=1)))

  def test_weight_decay_is_of_touched_rows_once_each(self):
    ids = jnp.array([4, 4, 7])
    table = jnp.arange(30.0).reshape(10, 3) + 1
    new, _, _ = row_sparse.update(
      row_sparse.sgd(0.1, weight_decay=0.5),
      table,
      row_sparse.sgd(0.1).init(table),
      row_sparse.init_slots(10),
      ids,
      jnp.zeros((3, 3)),
    )
    expected = np.array(table)
    expected[[4, 7]] *= 1 - 0.1 * 0.5
    np.testing.assert_allclose(new, expected, rtol=1e-6)

  def test_mask_freezes_elements_and_their_moments(self):
    optimizer = row_sparse.adam(0.1)
    table = jnp.ones((6, 2))
    mask = jnp.array([[True, False], [True, True]])
    new, state = optimizer.apply(
      table,
      optimizer.init(table),
      jnp.array([1, 3]),
      jnp.full((2, 2), 2.0),
      mask=mask,
    )
    self.assertEqual(new[1, 1], 1.0)
    self.assertEqual(state.moments['mean'][1, 1], 0.0)
    self.assertLess(new[1, 0], 1.0)
    self.assertLess(new[3, 1], 1.0)

  def test_reset_rows(self):
    optimizer = row_sparse.rowwise_adagrad(0.1, initial_accumulator=0.25)
    table = jnp.ones((5, 2))
    initial = optimizer.init(table)
    _, state = optimizer.apply(
      table, initial, jnp.array([1, 2]), jnp.ones((2, 2))
    )
    reset = row_sparse.reset_rows(state, initial, jnp.array([2, 5]))
    np.testing.assert_allclose(
      reset.moments['sum_of_squares'], [0.25, 1.25, 0.25, 0.25, 0.25]
    )


class UniqueTest(absltest.TestCase):
  def test_against_numpy_with_ids_out_of_range(self):
    rng = np.random.default_rng(0)
    slots = row_sparse.init_slots(30)
    for _ in range(5):  # Slots are never cleared: stale ones must not matter.
      ids = rng.integers(-3, 34, 60)
      slots, rows = row_sparse.unique(slots, jnp.asarray(ids), 60)
      inside = (ids >= 0) & (ids < 30)
      distinct = np.unique(ids[inside])
      got = np.asarray(rows.ids)
      np.testing.assert_array_equal(np.sort(got[: len(distinct)]), distinct)
      np.testing.assert_array_equal(got[len(distinct) :], 30)
      inverse = np.asarray(rows.inverse)
      np.testing.assert_array_equal(got[inverse[inside]], ids[inside])
      np.testing.assert_array_equal(inverse[~inside], 60)

  def test_join_finds_common_rows_alone(self):
    slots = row_sparse.init_slots(30)
    slots, _ = row_sparse.unique(slots, jnp.arange(25, 30), 5)  # Stale ones.
    slots, rows = row_sparse.unique(slots, jnp.array([3, 9, 3, 12]), 4)
    others = np.array([9, 4, 12, 26, 30, -1, 3])
    slots, places = row_sparse.join(slots, rows, jnp.asarray(others))
    common = np.isin(others, [3, 9, 12])
    np.testing.assert_array_equal(
      np.asarray(rows.ids)[np.asarray(places)[common]], others[common]
    )
    np.testing.assert_array_equal(np.asarray(places)[~common], 4)


class CostTest(parameterized.TestCase):
  @parameterized.parameters('sgd', 'adagrad', 'rowwise_adagrad', 'adam')
  def test_compiled_update_makes_no_second_table(self, name):
    """With donation the update is in place, and temporaries know no R."""

    def temporaries(num_rows):
      optimizer = getattr(row_sparse, name)(0.1)

      def step(table, state, slots, ids, grads):
        return row_sparse.update(optimizer, table, state, slots, ids, grads)

      table = jax.ShapeDtypeStruct((num_rows, 16), jnp.float32)
      args = (
        table,
        jax.eval_shape(optimizer.init, table),
        jax.ShapeDtypeStruct((num_rows,), jnp.int32),
        jax.ShapeDtypeStruct((64,), jnp.int32),
        jax.ShapeDtypeStruct((64, 16), jnp.float32),
      )
      compiled = jax.jit(step, donate_argnums=(0, 1, 2)).lower(*args).compile()
      self.assertNotRegex(
        compiled.as_text(), rf'f32\[{num_rows},16\]\S* copy\('
      )
      return compiled.memory_analysis().temp_size_in_bytes

    self.assertEqual(temporaries(10_000), temporaries(1_000_000))


class DocumentationTest(absltest.TestCase):
  def test_example_runs(self):
    result = doctest.testmod(row_sparse)
    self.assertEqual((result.failed, result.attempted > 0), (0, True))


if __name__ == '__main__':
  absltest.main()
