from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from jax_autorec import rows


class RowsTest(parameterized.TestCase):
  @parameterized.parameters(1, 5)
  def test_gather_whatever_the_table_holds(self, dim):
    """The ordering of reads must never shift an id."""
    table = np.random.default_rng(0).normal(size=(20, dim))
    table[3], table[4], table[5] = np.inf, -np.inf, np.nan
    ids = np.array([[3, 4, 0], [19, 5, 20], [2, 2, 2**31 - 1]])
    got = jax.jit(rows.gather)(jnp.asarray(table, jnp.float32), ids)
    expected = np.concatenate([table, np.zeros((1, dim))])
    expected = expected[np.minimum(ids, 20)]
    np.testing.assert_allclose(got, expected, rtol=1e-6)

  def test_no_ids_no_rows(self):
    got = rows.gather(jnp.ones((6, 2)), jnp.zeros((0, 3), jnp.int32))
    self.assertEqual(got.shape, (0, 3, 2))

  def test_gradient_is_a_scatter(self):
    table, ids = jnp.ones((6, 2)), jnp.array([1, 1, 4, 6])
    weights = jnp.arange(1.0, 5)[:, None]
    grad = jax.grad(lambda t: (rows.gather(t, ids) * weights).sum())(table)
    np.testing.assert_array_equal(grad[:, 0], [0, 3, 0, 0, 3, 0])


if __name__ == '__main__':
  absltest.main()
