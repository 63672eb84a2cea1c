"""Generalised regularised dual averaging: gates that reach exact zero.

Chao et al., arXiv:1909.07597 (gRDA), in the form that AutoFIS uses (Liu et
al., KDD 2020, official `grda_tensorflow.py`).
"""

from collections.abc import Callable
import math
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from jax_autorec import errors
from jax_autorec.types import Array, PyTree


class GrdaState(NamedTuple):
  """State of `grda`.

  Attributes:
    count: int32 [], steps done.
    threshold: float [], the soft threshold L.
    accumulator: initial parameters minus the summed steps, v.
  """

  count: Array
  threshold: Array
  accumulator: PyTree


def grda(
  learning_rate: float | Callable[[Array], Array], c: float, mu: float
) -> optax.GradientTransformation:
  """gRDA as an optax transformation.

  Per step t = 0, 1, ... with gradient g and rate gamma:

    L <- L + c gamma^(1/2 + mu) ((t + 1)^mu - t^mu)
    v <- v + (parameters if t = 0) - gamma g
    parameters <- sign(v) max(|v| - L, 0)

  For a constant rate this is soft-thresholding of parameters_0 - gamma sum(g)
  at c gamma^(1/2 + mu) t^mu. It must be the last of a chain: decay, clipping
  or averaging after it would undo the zeros.

  Args:
    learning_rate: gamma, at least 0, or a schedule of the steps done.
    c: height of the threshold, at least 0; 0 is plain gradient descent.
    mu: growth of the threshold, in (0, 1); AutoFIS uses 0.51 to 0.8.

  Raises:
    ConfigError: for a number out of range.
  """
  rate = 0.0 if callable(learning_rate) else learning_rate
  if not (0 <= c < math.inf and 0 < mu < 1 and 0 <= rate < math.inf):
    raise errors.ConfigError(
      f'GRDA got learning rate {learning_rate}, c {c} and mu {mu}; expected '
      'a rate of at least 0, c >= 0 and 0 < mu < 1.'
    )

  def init(params):
    # No leaves where another optimiser has them all (`optax.partition`).
    leaves = jax.tree.leaves(params)
    dtype = jnp.result_type(*leaves) if leaves else jnp.float32
    # A copy: an accumulator that aliases the gates could not be donated.
    return GrdaState(
      jnp.zeros((), jnp.int32),
      jnp.zeros((), dtype),
      jax.tree.map(jnp.copy, params),
    )

  def update(grads, state, params):
    if params is None:
      raise errors.ConfigError('GRDA needs the parameters in `update`.')
    chex.assert_trees_all_equal_shapes(grads, params)
    count, dtype = state.count, state.threshold.dtype
    gamma = learning_rate(count) if callable(learning_rate) else learning_rate
    gamma = jnp.asarray(gamma, dtype)
    t = count.astype(dtype)
    growth = (t + 1) ** mu - t**mu
    threshold = state.threshold + c * gamma ** (0.5 + mu) * growth
    accumulator = jax.tree.map(
      lambda v, g: v - gamma * g, state.accumulator, grads
    )
    updates = jax.tree.map(
      # Where the new value is zero the update is exactly -parameter, so that
      # the sum is exactly zero.
      lambda v, p: jnp.sign(v) * jnp.maximum(jnp.abs(v) - threshold, 0) - p,
      accumulator,
      params,
    )
    return updates, GrdaState(count + 1, threshold, accumulator)

  return optax.GradientTransformation(init, update)


def grda_c(
  ratio: float, initial: float, learning_rate: float, mu: float, steps: int
) -> float:
  """The c whose threshold ends at `ratio` times where the gates start.

  c = ratio * initial / (gamma^(1/2 + mu) steps^mu). A paper's c belongs to its
  number of steps: with that of Avazu's 16,000 no gate of a run of 1,000 steps
  could close.

  Args:
    ratio: final threshold over initial gate, at least 0; 4 is robust on
      planted data, 1.2 prunes little.
    initial: where the gates start, above 0.
    learning_rate: gamma, constant, above 0.
    mu: growth of the threshold, in (0, 1).
    steps: length of the search, at least 1.

  Raises:
    ConfigError: for a value out of range.
  """
  is_sane = ratio >= 0 and initial > 0 and learning_rate > 0 and steps >= 1
  if not is_sane or not 0 < mu < 1:
    raise errors.ConfigError(
      f'GRDA got ratio {ratio}, initial gate {initial}, learning rate '
      f'{learning_rate}, mu {mu} and {steps} steps; expected a ratio of at '
      'least 0, a gate and a rate above 0, 0 < mu < 1 and at least 1 step.'
    )
  return ratio * initial / (learning_rate ** (0.5 + mu) * steps**mu)
