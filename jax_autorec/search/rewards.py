"""What policies are learnt from: a value of a batch, higher is better."""

from jax import lax
import jax.numpy as jnp

from jax_autorec.types import Array, Batch


def auc(logits: Array, batch: Batch) -> Array:
  """Area under the ROC curve of a batch; a tie counts half.

  `metrics.auc` inside a compiled step, in float32. Of a batch it is noisy: give
  it 4096 rows or more, or take the loss instead.

  Args:
    logits: [B].
    batch: labels, weights and mask; padding does not count.

  Returns:
    [], the weighted share of pairs in the right order, in [0, 1]; 0.5 where all
    rows are of one class.
  """
  logits = lax.stop_gradient(logits)
  order = jnp.argsort(logits)
  scores = logits[order]
  weights = (batch.weights * batch.mask)[order]
  positive = weights * batch.labels[order]
  negative = weights - positive
  below = jnp.cumsum(negative)
  # Every row of a tie sees the sums before its first and after its last row.
  places = jnp.arange(len(scores))
  differs = scores[1:] != scores[:-1]
  edge = jnp.ones(1, bool)
  is_first = jnp.concatenate([edge, differs])
  is_last = jnp.concatenate([differs, edge])
  first = lax.cummax(jnp.where(is_first, places, 0))
  last = lax.cummin(jnp.where(is_last, places, len(scores)), reverse=True)
  before = (below - negative)[first]
  right = jnp.sum(positive * (before + below[last]) / 2)
  total = positive.sum() * negative.sum()
  return jnp.where(total > 0, right / jnp.where(total > 0, total, 1), 0.5)


# None: minus the log loss of each example.
REWARDS = {'auc': auc, 'ce': None}
