from absl.testing import absltest, parameterized
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jax_autorec.nn import blocks

_B, _K = 12, 5


def _x(seed=0):
  return np.random.default_rng(seed).normal(2, 3, (_B, _K)).astype(np.float32)


class BatchNormTest(parameterized.TestCase):
  def test_moments_are_those_of_live_rows(self):
    x, mask = _x(), np.arange(_B) < 9
    norm = blocks.BatchNorm(epsilon=1e-3, momentum=0.8)
    variables = norm.init(jax.random.key(0), x, mask, train=False)
    got, updated = norm.apply(
      variables, x, mask, train=True, mutable=['batch_stats']
    )
    live = x[:9].astype(np.float64)
    expected = (live - live.mean(0)) / np.sqrt(live.var(0) + 1e-3)
    np.testing.assert_allclose(got[:9], expected, rtol=1e-4, atol=1e-5)
    stats = updated['batch_stats']
    np.testing.assert_allclose(stats['mean'], 0.2 * live.mean(0), rtol=1e-5)
    np.testing.assert_allclose(stats['var'], 0.8 + 0.2 * live.var(0), rtol=1e-4)

  def test_padding_changes_no_bit_of_live_rows(self):
    x, mask = _x(), np.arange(_B) < 9
    other = x.copy()
    other[9:] = 1e3
    norm = blocks.BatchNorm()
    variables = norm.init(jax.random.key(0), x, mask, train=False)

    def run(values):
      return norm.apply(
        variables, values, mask, train=True, mutable=['batch_stats']
      )

    (a, a_stats), (b, b_stats) = run(x), run(other)
    np.testing.assert_array_equal(a[:9], b[:9])
    jax.tree.map(np.testing.assert_array_equal, a_stats, b_stats)

  def test_evaluation_uses_running_averages(self):
    x = _x()
    norm = blocks.BatchNorm(affine=False)
    stats = {'mean': jnp.arange(5.0), 'var': jnp.arange(1.0, 6)}
    got = norm.apply({'batch_stats': stats}, x, np.zeros(_B, bool), train=False)
    np.testing.assert_allclose(
      got, (x - np.arange(5)) / np.sqrt(np.arange(1, 6) + 1e-5), rtol=1e-5
    )

  def test_replicas_share_moments(self):
    """Uneven padding over 4 replicas equals one batch."""
    x, mask = _x(), np.arange(_B) < 7
    alone = blocks.BatchNorm()
    shared = blocks.BatchNorm(axis_name='replicas')
    variables = alone.init(jax.random.key(0), x, mask, train=False)
    expected, _ = alone.apply(
      variables, x, mask, train=True, mutable=['batch_stats']
    )
    split = lambda a: a.reshape(4, 3, *a.shape[1:])
    got, stats = jax.vmap(
      lambda a, m: shared.apply(
        variables, a, m, train=True, mutable=['batch_stats']
      ),
      axis_name='replicas',
    )(split(x), split(mask))
    np.testing.assert_allclose(
      got.reshape(_B, _K)[:7], expected[:7], rtol=1e-4, atol=1e-5
    )
    means = stats['batch_stats']['mean']
    np.testing.assert_array_equal(means, np.broadcast_to(means[0], (4, _K)))


class DropoutTest(parameterized.TestCase):
  @parameterized.parameters(0.1, 0.5, 0.8)
  def test_rate_and_scale(self, rate):
    x = jnp.ones((400, 100))
    dropout = blocks.Dropout(rate)
    got = dropout.apply({}, x, train=True, rngs={'dropout': jax.random.key(0)})
    kept = np.asarray(got) != 0
    # Six standard deviations of a binomial share.
    bound = 6 * np.sqrt(rate * (1 - rate) / x.size)
    self.assertAlmostEqual(kept.mean(), 1 - rate, delta=bound)
    np.testing.assert_allclose(got[kept], 1 / (1 - rate), rtol=1e-6)
    # Rows and columns are dropped independently of one another.
    self.assertLess(kept.mean(0).std(), 3 * np.sqrt(rate * (1 - rate) / 400))
    self.assertLess(kept.mean(1).std(), 3 * np.sqrt(rate * (1 - rate) / 100))

  def test_mask_depends_on_key_and_global_row(self):
    x = jnp.ones((8, 6))

    def run(key, values, axis_name=None):
      return blocks.Dropout(0.5, axis_name).apply(
        {}, values, train=True, rngs={'dropout': key}
      )

    first = run(jax.random.key(0), x)
    self.assertFalse(np.array_equal(first, run(jax.random.key(1), x)))
    np.testing.assert_array_equal(first[:5], run(jax.random.key(0), x[:5]))
    split = jax.vmap(
      lambda values: run(jax.random.key(0), values, 'replicas'),
      axis_name='replicas',
    )(x.reshape(4, 2, 6))
    np.testing.assert_array_equal(split.reshape(8, 6), first)

  def test_layers_drop_different_units(self):
    class TwoLayers(nn.Module):
      @nn.compact
      def __call__(self, x):
        return [blocks.Dropout(0.5)(x, train=True) for _ in range(2)]

    first, second = TwoLayers().apply(
      {}, jnp.ones((50, 40)), rngs={'dropout': jax.random.key(0)}
    )
    # Independent halves agree on half of the units: 6 standard deviations.
    share = np.mean((np.asarray(first) > 0) == (np.asarray(second) > 0))
    self.assertAlmostEqual(share, 0.5, delta=6 * np.sqrt(0.25 / 2000))

  def test_evaluation_drops_nothing(self):
    x = _x()
    np.testing.assert_array_equal(
      blocks.Dropout(0.9).apply({}, x, train=False), x
    )


class MLPTest(absltest.TestCase):
  def test_tanh_after_normalised_inputs(self):
    x, mask = _x(), np.arange(_B) < 9
    mlp = blocks.MLP((4,), activation='tanh', norm_inputs=True)
    variables = mlp.init(jax.random.key(0), x, mask, train=False)
    got, _ = mlp.apply(variables, x, mask, train=True, mutable=['batch_stats'])
    live = x[:9].astype(np.float64)
    live = (live - live.mean(0)) / np.sqrt(live.var(0) + 1e-5)
    params = variables['params']
    hidden = np.tanh(live @ np.asarray(params['dense_0']['kernel']))
    expected = hidden @ np.asarray(params['output']['kernel'])
    np.testing.assert_allclose(got[:9], expected[:, 0], rtol=1e-4, atol=1e-5)

  def test_open_widths_are_mixtures_of_narrower_layers(self):
    """A width alone is a layer of its first units; shares are sums."""
    x, mask = _x(), np.arange(_B) < 9
    candidates = ((1, 3, 6), (2, 5))
    options = dict(norm='batch', activation='tanh')
    mlp = blocks.MLP((6, 5), candidates=candidates, **options)
    variables = mlp.init(jax.random.key(0), x, mask, train=False)
    params = variables['params']

    def run(first, second):
      arch = {'hidden_0': jnp.array(first), 'hidden_1': jnp.array(second)}
      got, _ = mlp.apply(
        variables | {'arch': arch},
        x,
        mask,
        train=True,
        mutable=['batch_stats'],
      )
      return got[:9]

    narrow = blocks.MLP((3, 2), **options)
    cut = jax.tree.map(jnp.array, params)
    widths = {'dense_0': 3, 'norm_0': 3, 'dense_1': 2, 'norm_1': 2}
    for name, width in widths.items():
      cut[name] = jax.tree.map(lambda w, k=width: w[..., :k], cut[name])
    for name, width in (('dense_1', 3), ('output', 2)):
      cut[name]['kernel'] = cut[name]['kernel'][:width]
    fresh = narrow.init(jax.random.key(0), x, mask, train=False)
    expected, _ = narrow.apply(
      fresh | {'params': cut}, x, mask, train=True, mutable=['batch_stats']
    )
    got = run([0.0, 1.0, 0.0], [1.0, 0.0])
    np.testing.assert_allclose(got, expected[:9], rtol=1e-5, atol=1e-6)
    # Linear in the weights of the last layer.
    mixed = run([0.2, 0.5, 0.3], [0.4, 0.6])
    parts = [run([0.2, 0.5, 0.3], one) for one in ([1.0, 0.0], [0.0, 1.0])]
    np.testing.assert_allclose(
      mixed, 0.4 * parts[0] + 0.6 * parts[1], rtol=1e-4, atol=1e-6
    )


class FrequencyNetTest(absltest.TestCase):
  def test_starts_equal_and_depends_on_an_id_alone(self):
    net = blocks.FrequencyNet(3, hidden=8)
    counts = jnp.array([0, 1, 100, 101, 2**31 - 1])
    inputs = jnp.ones((5, 2))
    variables = net.init(jax.random.key(0), counts, inputs)
    np.testing.assert_array_equal(net.apply(variables, counts, inputs), 0)
    kernel = variables['params']['output']['kernel']
    variables['params']['output']['kernel'] = jax.random.normal(
      jax.random.key(1), kernel.shape
    )
    every = net.apply(variables, counts, inputs)
    for i in range(5):
      alone = net.apply(variables, counts[i : i + 1], inputs[:1])
      np.testing.assert_allclose(every[i], alone[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(every[2], every[3])
    self.assertGreater(np.abs(every[1] - every[2]).max(), 1e-3)


if __name__ == '__main__':
  absltest.main()
