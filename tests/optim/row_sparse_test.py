import collections
import doctest
import functools
import warnings

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


def _follow(optimizer, table, all_ids, all_grads):
  """The table after updates as a training makes them: jitted and donated."""
  step = jax.jit(
    functools.partial(row_sparse.update, optimizer), donate_argnums=(0, 1, 2)
  )
  table = jnp.array(table)
  state, slots = optimizer.init(table), row_sparse.init_slots(len(table))
  for ids, grads in zip(all_ids, all_grads):
    donated = table
    table, state, slots = step(
      table, state, slots, jnp.asarray(ids), jnp.asarray(grads)
    )
    assert donated.is_deleted()
  return table


def _follow_dense(tx, table, all_ids, all_grads):
  state, update = tx.init(table), jax.jit(tx.update)
  for ids, grads in zip(all_ids, all_grads):
    updates, state = update(jnp.asarray(_dense(grads, ids)), state, table)
    table = optax.apply_updates(table, updates)
  return table


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
    start = np.random.default_rng(1).normal(size=(_ROWS, _DIM))
    with jax.enable_x64(True):
      table = _follow(sparse, start, *_batches())
      expected = _follow_dense(dense, jnp.asarray(start), *_batches())
      self.assertEqual(table.dtype, jnp.float64)
    np.testing.assert_allclose(table, expected, rtol=1e-12, atol=1e-14)

  @parameterized.named_parameters(
    ('adam', row_sparse.adam(0.1), optax.adam(0.1)),
    (
      'adam_schedule',
      row_sparse.adam(optax.exponential_decay(0.1, 1, 0.5), b1=0.5, b2=0.7),
      optax.adam(optax.exponential_decay(0.1, 1, 0.5), b1=0.5, b2=0.7),
    ),
    *(
      (
        f'{name}_weight_decay',
        getattr(row_sparse, name)(0.1, weight_decay=0.3),
        optax.chain(optax.add_decayed_weights(0.3), dense),
      )
      for name, dense in (
        ('sgd', optax.sgd(0.1)),
        ('adagrad', optax.adagrad(0.1)),
        ('rowwise_adagrad', _rowwise_adagrad(0.1, 0.1, 1e-7)),
        ('adam', optax.adam(0.1)),
      )
    ),
  )
  def test_equals_dense_optax_where_every_row_is_touched(self, sparse, dense):
    """Also where a rule moves rows without gradient, as decay and Adam do."""
    rng = np.random.default_rng(2)
    start = rng.normal(size=(_ROWS, _DIM))
    twice = np.repeat(np.arange(_ROWS), 2)
    ids = [rng.permutation(twice) for _ in range(4)]
    grads = rng.normal(size=(4, len(twice), _DIM))
    with jax.enable_x64(True):
      table = _follow(sparse, start, ids, grads)
      expected = _follow_dense(dense, jnp.asarray(start), ids, grads)
    np.testing.assert_allclose(table, expected, rtol=1e-11, atol=1e-13)

  def test_lazy_adam_against_a_loop_over_rows(self):
    """Moments of absent rows stand still; bias counts all updates."""
    all_ids, all_grads = _batches(seed=3)
    optimizer = row_sparse.adam(0.1, b1=0.8, b2=0.9, eps=1e-3)
    start = np.random.default_rng(1).normal(size=(_ROWS, _DIM))
    expected = start.copy()
    mean, square = np.zeros_like(start), np.zeros_like(start)
    for step, (ids, grads) in enumerate(zip(all_ids, all_grads), 1):
      full = _dense(grads, ids)
      for row in set(ids.tolist()):
        mean[row] = 0.8 * mean[row] + 0.2 * full[row]
        square[row] = 0.9 * square[row] + 0.1 * full[row] ** 2
        expected[row] -= (
          0.1
          * (mean[row] / (1 - 0.8**step))
          / (np.sqrt(square[row] / (1 - 0.9**step)) + 1e-3)
        )
    with jax.enable_x64(True):
      table = _follow(optimizer, start, all_ids, all_grads)
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
    reset = row_sparse.reset_rows(state, initial, jnp.array([2, 5, -4]))
    np.testing.assert_allclose(
      reset.moments['sum_of_squares'], [0.25, 1.25, 0.25, 0.25, 0.25]
    )

  @parameterized.parameters('sgd', 'adagrad', 'rowwise_adagrad', 'adam')
  def test_a_batch_without_ids(self, name):
    optimizer, table = getattr(row_sparse, name)(0.1), jnp.ones((5, 2))
    new, state, _ = row_sparse.update(
      optimizer,
      table,
      optimizer.init(table),
      row_sparse.init_slots(5),
      jnp.zeros((0, 3), jnp.int32),
      jnp.zeros((0, 3, 2)),
    )
    np.testing.assert_array_equal(new, table)
    self.assertEqual(state.count, 1)

  @parameterized.product(
    rule=[
      _RULES['sgd'],
      _RULES['adagrad'],
      (row_sparse.adam(0.1), optax.adam(0.1)),
    ],
    grads=(jnp.bfloat16, jnp.float32),
  )
  def test_half_width_tables_train(self, rule, grads):
    sparse, dense = rule
    table = jnp.ones((2, 3), jnp.bfloat16)
    expected, dense_state = table, dense.init(table)
    state, slots = sparse.init(table), row_sparse.init_slots(2)
    with warnings.catch_warnings():
      warnings.simplefilter('error')  # Of values that do not fit their place.
      for _ in range(3):
        table, state, slots = row_sparse.update(
          sparse, table, state, slots, jnp.arange(2), jnp.ones((2, 3), grads)
        )
    for _ in range(3):
      updates, dense_state = dense.update(
        jnp.ones_like(expected), dense_state, expected
      )
      expected = optax.apply_updates(expected, updates)
    self.assertEqual(table.dtype, jnp.bfloat16)
    np.testing.assert_allclose(
      np.asarray(table, np.float32), np.asarray(expected, np.float32), rtol=0.01
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


class UpdateTest(parameterized.TestCase):
  def test_ids_out_of_range_change_nothing(self):
    """Nor do they wrap around, from the end or from 32 bits."""
    low, high = np.iinfo(np.int32).min, np.iinfo(np.int32).max
    ids = np.array([low, -1, 10, high, 9, 0, 9])
    grads = np.random.default_rng(0).normal(size=(7, 2)).astype(np.float32)
    start = np.ones((10, 2), np.float32)
    new = _follow(row_sparse.sgd(1.0), start, [ids], [grads])
    expected = start.copy()
    expected[0] -= grads[5]
    expected[9] -= grads[4] + grads[6]
    np.testing.assert_allclose(new, expected, rtol=1e-6)
    np.testing.assert_array_equal(new[1:9], start[1:9])

  def test_long_ids_do_not_wrap(self):
    with jax.enable_x64(True):
      ids = jnp.array([2**32 + 3, 5], jnp.int64)
      new = _follow(
        row_sparse.sgd(1.0), np.ones((10, 2)), [ids], [np.ones((2, 2))]
      )
    np.testing.assert_array_equal(
      np.flatnonzero(np.asarray(new)[:, 0] != 1), [5]
    )

  def test_narrow_ids_reach_a_long_table(self):
    """300 rows: more than an id of 8 bits can count."""
    ids = jnp.array([200, 7, 200], jnp.uint8)
    new = _follow(
      row_sparse.sgd(1.0), np.zeros((300, 1)), [ids], [np.ones((3, 1))]
    )
    expected = np.zeros((300, 1))
    expected[7], expected[200] = -1, -2
    np.testing.assert_array_equal(new, expected)

  def test_batches_of_ids_in_any_shape(self):
    ids, grads = (x[0] for x in _batches())
    start = np.ones((_ROWS, _DIM))
    flat = _follow(row_sparse.adagrad(0.1), start, [ids], [grads])
    folded = _follow(
      row_sparse.adagrad(0.1),
      start,
      [ids.reshape(8, 5)],
      [grads.reshape(8, 5, _DIM)],
    )
    np.testing.assert_array_equal(flat, folded)

  def test_more_distinct_ids_than_capacity_lose_whole_rows(self):
    """Never a wrong row: what fits is exact, the rest waits."""
    ids = jnp.array([4, 2, 2, 8, 4, 6])
    grads = jnp.arange(1.0, 7)[:, None]
    slots = row_sparse.init_slots(9)
    full = np.array([0, 0, 5, 0, 6, 0, 6, 0, 4.0])
    for capacity in (1, 3, 4):
      new, _, slots = row_sparse.update(
        row_sparse.sgd(1.0),
        jnp.zeros((9, 1)),
        row_sparse.sgd(1.0).init(jnp.zeros((9, 1))),
        slots,
        ids,
        grads,
        capacity,
      )
      updated = np.flatnonzero(new)
      self.assertLen(updated, capacity)
      np.testing.assert_array_equal(-new[updated, 0], full[updated])

  @parameterized.parameters(
    (dict(ids=np.array([1.0, 2.0])), 'float'),
    (dict(slots=np.zeros(7, np.int32)), 'shape'),
    (dict(row_grads=np.zeros((2, 3), np.float32)), 'shape'),
  )
  def test_wrong_arguments(self, wrong, message):
    table = jnp.zeros((8, 4))
    right = dict(
      slots=row_sparse.init_slots(8),
      ids=np.array([1, 2]),
      row_grads=np.zeros((2, 4), np.float32),
    )
    optimizer = row_sparse.sgd(0.1)
    state = optimizer.init(table)
    with self.assertRaisesRegex(AssertionError, message):
      row_sparse.update(optimizer, table, state, **(right | wrong))


class CostTest(parameterized.TestCase):
  @parameterized.parameters('sgd', 'adagrad', 'rowwise_adagrad', 'adam')
  def test_a_step_costs_what_its_rows_cost(self, name):
    """Scatters alone have a table's length; temporaries do not know it."""
    optimizer = getattr(row_sparse, name)(0.1, weight_decay=0.1)

    def arguments(num_rows):
      table = jax.ShapeDtypeStruct((num_rows, 16), jnp.float32)
      return (
        table,
        jax.eval_shape(optimizer.init, table),
        jax.ShapeDtypeStruct((num_rows,), jnp.int32),
        jax.ShapeDtypeStruct((64,), jnp.int32),
        jax.ShapeDtypeStruct((64, 16), jnp.float32),
      )

    update = functools.partial(row_sparse.update, optimizer)
    program = jax.make_jaxpr(update)(*arguments(1003))
    written = collections.Counter(
      equation.primitive.name
      for equation in program.eqns
      if any(out.aval.shape[:1] == (1003,) for out in equation.outvars)
    )
    moments = len(optimizer.init(jnp.zeros((1, 1))).moments)
    self.assertEqual(written, {'scatter': 1 + moments, 'scatter-add': 1})

    def compiled(num_rows):
      step = jax.jit(update, donate_argnums=(0, 1, 2))
      return step.lower(*arguments(num_rows)).compile()

    small, large = compiled(1003), compiled(1_000_003)
    self.assertNotRegex(large.as_text(), r'\[1000003[^\]]*\]\S* copy\(')
    self.assertEqual(
      small.memory_analysis().temp_size_in_bytes,
      large.memory_analysis().temp_size_in_bytes,
    )


class DocumentationTest(absltest.TestCase):
  def test_example_runs(self):
    result = doctest.testmod(row_sparse)
    self.assertEqual((result.failed, result.attempted > 0), (0, True))


if __name__ == '__main__':
  absltest.main()
