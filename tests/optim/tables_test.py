from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jax_autorec import errors
from jax_autorec.optim import row_sparse, tables

_SPACES = {'wide': 'a', 'narrow': 'a', 'other': 'b'}


def _setup():
  keys = jax.random.split(jax.random.key(0), 5)
  values = {
    'wide': jax.random.normal(keys[0], (12, 4)),
    'narrow': jax.random.normal(keys[1], (12, 1)),
    'other': jax.random.normal(keys[2], (7, 4)),
  }
  # 12, 7 and -1 are out of range.
  ids = {'a': jnp.array([3, 3, 11, 12, 0]), 'b': jnp.array([6, -1, 6, 7])}
  grads = {
    'wide': jax.random.normal(keys[3], (5, 4)),
    'narrow': jnp.arange(1.0, 6)[:, None],
    'other': jax.random.normal(keys[4], (4, 4)),
  }
  return values, ids, grads


def _run(optimizer, steps=3, factor=1.0):
  values, ids, grads = _setup()
  state = optimizer.init(values)
  for _ in range(steps):
    state, summed = optimizer.reduce(state, values, ids, grads)
    summed = tables.scale(summed, factor)
    values, state = optimizer.update(values, state, summed, jnp.float32(0.5))
  return values


class TablesTest(parameterized.TestCase):
  @parameterized.parameters(
    (row_sparse.sgd(0.2), optax.sgd(0.2), 0.3),
    (row_sparse.adagrad(0.2), optax.adagrad(0.2), 1.0),
    (row_sparse.adagrad(0.2), optax.adagrad(0.2), 0.3),
  )
  def test_sparse_and_dense_agree(self, rule, tx, factor):
    """Id spaces are shared, ids out of range dropped, factors apply."""
    sparse = _run(
      tables.row_sparse(rule, _SPACES, {'a': 3, 'b': 1}), factor=factor
    )
    dense = _run(tables.dense(tx, _SPACES), factor=factor)
    start = _setup()[0]
    for name in _SPACES:
      np.testing.assert_allclose(sparse[name], dense[name], rtol=1e-5)
      self.assertFalse(np.allclose(sparse[name], start[name]))

  def test_norm_of_reduced_gradients_is_the_dense_norm(self):
    values, ids, grads = _setup()
    optimizer = tables.row_sparse(row_sparse.sgd(0.2), _SPACES)
    _, summed = optimizer.reduce(optimizer.init(values), values, ids, grads)
    full = np.zeros((13, 4))
    np.add.at(full, ids['a'], grads['wide'])
    np.testing.assert_allclose(
      np.linalg.norm(tables.values(summed)['wide']),
      np.linalg.norm(full[:12]),
      rtol=1e-5,
    )

  def test_each_table_decays_by_its_own_l2(self):
    values, ids, grads = _setup()
    optimizer = tables.dense(optax.sgd(1.0), _SPACES, {'wide': 0.5})
    state = optimizer.init(values)
    zero = jax.tree.map(jnp.zeros_like, grads)
    _, summed = optimizer.reduce(state, values, ids, zero)
    new, _ = optimizer.update(values, state, summed, jnp.float32(1))
    np.testing.assert_allclose(new['wide'], 0.5 * values['wide'], rtol=1e-6)
    np.testing.assert_array_equal(new['other'], values['other'])

  @parameterized.parameters('sgd', 'adagrad', 'rowwise_adagrad', 'adam')
  def test_an_element_moves_where_one_of_its_look_ups_is_on(self, name):
    """The others, decay or not, and their moments keep every bit."""
    values, ids, grads = _setup()
    rule = getattr(row_sparse, name)(0.2, weight_decay=0.3)
    optimizer = tables.row_sparse(rule, _SPACES, {'a': 3, 'b': 1})
    # Past momentum would move elements that have no gradient.
    state, summed = optimizer.reduce(optimizer.init(values), values, ids, grads)
    values, state = optimizer.update(values, state, summed, 1.0)
    off = np.zeros((5, 4), bool)
    on = off.copy()
    on[1, 0] = on[0, 1] = True  # Row 3, by its second and first look-up.
    on[4, 2] = True  # Row 0.
    on[3, 3] = True  # Out of range.
    state, summed = optimizer.reduce(state, values, ids, grads, {'wide': on})
    moved, new = optimizer.update(values, state, tables.scale(summed, 0.5), 1.0)
    expected = np.zeros((12, 4), bool)
    expected[[3, 3, 0], [0, 1, 2]] = True
    np.testing.assert_array_equal(moved['wide'] != values['wide'], expected)
    for key, moment in new.tables['wide'].moments.items():
      changed = np.asarray(moment != state.tables['wide'].moments[key])
      wanted = expected if changed.ndim == 2 else expected.any(1)
      np.testing.assert_array_equal(changed, wanted)
    # A table without a mask moves as ever.
    touched = np.asarray(moved['narrow'] != values['narrow'])[:, 0]
    np.testing.assert_array_equal(np.flatnonzero(touched), [0, 3, 11])

  def test_a_dense_optimizer_takes_no_masks(self):
    values, ids, grads = _setup()
    optimizer = tables.dense(optax.sgd(1.0), _SPACES)
    masks = {'wide': np.ones((5, 4), bool)}
    with self.assertRaisesRegex(errors.ConfigError, "wide.*'adam'"):
      optimizer.reduce(optimizer.init(values), values, ids, grads, masks)

  def test_rules_by_table(self):
    rules = {
      'wide': row_sparse.sgd(0.0),
      'narrow': row_sparse.sgd(1.0),
      'other': row_sparse.sgd(0.0),
    }
    values, start = _run(tables.row_sparse(rules, _SPACES)), _setup()[0]
    np.testing.assert_array_equal(values['wide'], start['wide'])
    self.assertFalse(np.allclose(values['narrow'], start['narrow']))


if __name__ == '__main__':
  absltest.main()
