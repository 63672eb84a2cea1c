from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from jax_autorec import metrics
from jax_autorec.search import rewards
from jax_autorec.types import Batch


def _batch(labels, weights, mask):
  empty = np.zeros((len(labels), 0), np.float32)
  return Batch(empty, empty, empty, labels, weights, mask)


class AucTest(parameterized.TestCase):
  @parameterized.parameters(0, 1, 2)
  def test_equals_the_host_metric_with_ties_weights_and_padding(self, seed):
    rng = np.random.default_rng(seed)
    # Few levels, so that most rows are in ties, also the first and last.
    logits = rng.integers(-3, 4, 200).astype(np.float32)
    labels = (rng.random(200) < 0.2 + 0.05 * logits).astype(np.float32)
    weights = rng.uniform(0, 3, 200).astype(np.float32)
    mask = rng.random(200) < 0.9
    got = jax.jit(rewards.auc)(logits, _batch(labels, weights, mask))
    expected = metrics.auc(labels, logits, weights * mask)
    self.assertAlmostEqual(float(got), expected, places=5)

  def test_distinct_scores(self):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=4096).astype(np.float32)
    labels = (rng.random(4096) < 0.1).astype(np.float32)
    ones = np.ones(4096, np.float32)
    got = rewards.auc(logits, _batch(labels, ones, ones > 0))
    self.assertAlmostEqual(float(got), metrics.auc(labels, logits), places=6)

  def test_one_class_says_nothing(self):
    ones = np.ones(5, np.float32)
    batch = _batch(ones, ones, ones > 0)
    self.assertEqual(rewards.auc(np.arange(5.0), batch), 0.5)

  def test_no_gradient_passes(self):
    rng = np.random.default_rng(0)
    labels = (rng.random(9) < 0.5).astype(np.float32)
    batch = _batch(labels, np.ones(9, np.float32), np.ones(9, bool))
    grads = jax.grad(rewards.auc)(jnp.arange(9.0), batch)
    np.testing.assert_array_equal(grads, np.zeros(9))


if __name__ == '__main__':
  absltest.main()
