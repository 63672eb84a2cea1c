from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jax_autorec import errors, optim


def _soft(x, threshold):
  return np.sign(x) * np.maximum(np.abs(x) - threshold, 0)


class GrdaTest(parameterized.TestCase):
  @parameterized.parameters((1.0, 0.01, 0.8), (0.3, 0.2, 0.6))
  def test_closed_form_at_constant_rate(self, rate, c, mu):
    """alpha_t = S(alpha_0 - rate * sum g, c rate^(1/2+mu) t^mu)."""
    rng = np.random.default_rng(0)
    start = rng.normal(size=8)
    grads = rng.normal(size=(30, 8)) * 0.1
    tx = optim.grda(rate, c, mu)
    with jax.enable_x64(True):
      params = jnp.asarray(start)
      state = tx.init(params)
      step = jax.jit(tx.update)
      for t, grad in enumerate(grads, 1):
        updates, state = step(jnp.asarray(grad), state, params)
        params = optax.apply_updates(params, updates)
        expected = _soft(
          start - rate * grads[:t].sum(0), c * rate ** (0.5 + mu) * t**mu
        )
        np.testing.assert_allclose(params, expected, rtol=1e-10, atol=1e-13)
        # Exact zeros, not small numbers.
        np.testing.assert_array_equal(params == 0, expected == 0)

  def test_decayed_rate_adds_up_thresholds(self):
    schedule = lambda t: 0.5 / (1 + t)
    tx = optim.grda(schedule, 0.1, 0.7)
    grads = np.random.default_rng(1).normal(size=(6, 3))
    start = np.array([0.6, -0.2, 1.5])
    total, threshold = start.copy(), 0.0
    with jax.enable_x64(True):
      params = jnp.asarray(start)
      state = tx.init(params)
      for t, grad in enumerate(grads):
        updates, state = tx.update(jnp.asarray(grad), state, params)
        params = optax.apply_updates(params, updates)
        rate = 0.5 / (1 + t)
        threshold += 0.1 * rate**1.2 * ((t + 1) ** 0.7 - t**0.7)
        total -= rate * grad
        np.testing.assert_allclose(params, _soft(total, threshold), rtol=1e-9)

  def test_a_gate_without_gradient_dies_when_the_formula_says(self):
    rate, mu, steps, ratio = 1.0, 0.8, 100, 2.0
    c = optim.grda_c(ratio, 0.6, rate, mu, steps)
    # The threshold ends at ratio * start, so it passes the start at
    # steps / ratio^(1/mu).
    death = int(np.ceil(steps / ratio ** (1 / mu)))
    tx = optim.grda(rate, c, mu)
    params, state = jnp.array([0.6]), None
    state = tx.init(params)
    alive = []
    for _ in range(steps):
      updates, state = tx.update(jnp.zeros(1), state, params)
      params = optax.apply_updates(params, updates)
      alive.append(bool(params[0] != 0))
    self.assertEqual(sum(alive), death - 1)
    self.assertFalse(any(alive[death - 1 :]))

  def test_without_c_it_is_sgd(self):
    tx, sgd = optim.grda(0.3, 0.0, 0.8), optax.sgd(0.3)
    a = b = {'gate': jnp.array([0.6, -1.0])}
    state, sgd_state = tx.init(a), sgd.init(b)
    for seed in range(4):
      grad = {'gate': jax.random.normal(jax.random.key(seed), (2,))}
      updates, state = tx.update(grad, state, a)
      a = optax.apply_updates(a, updates)
      updates, sgd_state = sgd.update(grad, sgd_state, b)
      b = optax.apply_updates(b, updates)
    np.testing.assert_allclose(a['gate'], b['gate'], rtol=1e-5)

  def test_enough_gradient_revives_a_dead_gate(self):
    tx = optim.grda(1.0, 0.5, 0.8)
    params = jnp.array([0.1])
    state = tx.init(params)
    seen = []
    for grad in [0.0, 0.0, -3.0]:
      updates, state = tx.update(jnp.array([grad]), state, params)
      params = optax.apply_updates(params, updates)
      seen.append(float(params[0]))
    self.assertEqual(seen[:2], [0.0, 0.0])
    np.testing.assert_allclose(seen[2], 3.1 - 0.5 * 3**0.8, rtol=1e-5)

  @parameterized.parameters('weights', 'gate')
  def test_beside_another_optimiser(self, other):
    """Inside jit, gates and state donated; also where it has no gates."""
    params = {'gate': jnp.array([0.1, 5.0]), 'weights': jnp.array([0.1, 5.0])}
    labels = {name: 'sgd' if name == other else 'grda' for name in params}
    if other == 'gate':
      labels['weights'] = 'sgd'
    tx = optax.partition(
      {'grda': optim.grda(0.5, 0.4, 0.8), 'sgd': optax.sgd(1.0)}, labels
    )

    def step(params, state):
      updates, state = tx.update(params, state, params)
      return optax.apply_updates(params, updates), state

    new, _ = jax.jit(step, donate_argnums=(0, 1))(params, tx.init(params))
    np.testing.assert_array_equal(new['weights'], [0.0, 0.0])
    threshold = 0.4 * 0.5**1.3
    gates = [0.0, 2.5 - threshold] if other == 'weights' else [0.0, 0.0]
    np.testing.assert_allclose(new['gate'], gates, rtol=1e-6)
    self.assertEqual(new['gate'][0], 0)

  @parameterized.parameters(
    (1, -0.1, 0.8),
    (1, float('nan'), 0.8),
    (1, 0.1, 0.0),
    (1, 0.1, 1.0),
    (-1, 0.1, 0.8),
    (float('inf'), 0.1, 0.8),
  )
  def test_values_out_of_range(self, rate, c, mu):
    with self.assertRaisesRegex(errors.ConfigError, 'expected a rate'):
      optim.grda(rate, c, mu)

  @parameterized.parameters(
    (-1, 0.6, 1, 0.8, 9),
    (float('nan'), 0.6, 1, 0.8, 9),
    (2, 0, 1, 0.8, 9),
    (2, 0.6, 0, 0.8, 9),
    (2, 0.6, 1, 1.5, 9),
    (2, 0.6, 1, 0.8, 0),
  )
  def test_no_c_for_values_out_of_range(self, *values):
    with self.assertRaisesRegex(errors.ConfigError, f'ratio {values[0]}'):
      optim.grda_c(*values)


if __name__ == '__main__':
  absltest.main()
