"""Parts that know nothing of recommenders: normalisation, dropout, MLP."""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from jax_autorec.types import Array


def psum(value, axis_name: str | None):
  """Sum over replicas; the value itself where there are none."""
  return value if axis_name is None else lax.psum(value, axis_name)


class BatchNorm(nn.Module):
  """Batch normalisation over the first axis that does not see padding.

  Moments are sums over the live rows of all replicas divided by their count:
  a mean of the replicas' means would weigh a half-empty replica too much.
  The variance is the biased one, in the batch and in the running average
  (PyTorch keeps the unbiased one; at batch 4096 they differ by 0.02 %). It is
  the mean square less the squared mean: rounding swamps it where the mean is
  thousands of times the spread.

  Attributes:
    epsilon: added to the variance.
    momentum: weight of the old running average.
    affine: trained scale and offset.
    axis_name: replica axis; None except under `pmap`.
  """

  epsilon: float = 1e-5
  momentum: float = 0.9
  affine: bool = True
  axis_name: str | None = None

  @nn.compact
  def scale_and_offset(
    self,
    x: Array,
    mask: Array,
    *,
    train: bool,
    select: Callable[[Array], Array] = lambda moments: moments,
  ) -> tuple[Array, Array]:
    """What normalises x, as two vectors: x * scale + offset.

    Apart from `__call__`, for those who can apply them more cheaply.

    Args:
      x: [B, K].
      mask: bool [B], the live rows.
      train: whether to use the batch's moments, and to learn from them.
      select: maps moments [K] of x to those [P] of what is normalised.

    Returns:
      Scale and offset, [P].
    """
    moments = jax.ShapeDtypeStruct(x.shape[1:], x.dtype)
    width = jax.eval_shape(select, moments).shape[0]
    mean, var = self._running(width)
    if train:
      batch_mean, batch_var, count = self.moments(x, mask, select)
      self.learn(batch_mean, batch_var, count)
    else:
      batch_mean, batch_var = mean.value, var.value
    scale = lax.rsqrt(batch_var + self.epsilon)
    offset = -batch_mean * scale
    if self.affine:
      gamma = self.param('scale', nn.initializers.ones, (width,), jnp.float32)
      beta = self.param('bias', nn.initializers.zeros, (width,), jnp.float32)
      scale, offset = scale * gamma, offset * gamma + beta
    return scale, offset

  @nn.compact
  def stored(self, width: int) -> tuple[Array, Array]:
    """Running mean and variance, [width], for those who normalise in parts.

    With `moments` and `learn`, in place of a call. Without `affine`.
    """
    mean, var = self._running(width)
    return mean.value, var.value

  def learn(self, mean: Array, var: Array, count: Array) -> None:
    """Lets the running averages follow a batch of `count` live rows."""
    if self.is_initializing():
      return
    # A batch of padding alone has no moments to learn from.
    keep = jnp.where(count > 0, self.momentum, 1)
    for name, value in (('mean', mean), ('var', var)):
      old = self.get_variable('batch_stats', name)
      new = keep * old + (1 - keep) * value
      self.put_variable('batch_stats', name, new)

  def _running(self, width):
    mean = self.variable(
      'batch_stats', 'mean', jnp.zeros, (width,), jnp.float32
    )
    var = self.variable('batch_stats', 'var', jnp.ones, (width,), jnp.float32)
    return mean, var

  def moments(
    self,
    x: Array,
    mask: Array,
    select: Callable[[Array], Array] = lambda moments: moments,
  ) -> tuple[Array, Array, Array]:
    """Mean and variance of the live rows of all replicas; their number."""
    live = mask.astype(x.dtype)
    count = psum(live.sum(), self.axis_name)
    divisor = jnp.maximum(count, 1)
    # The two reductions below are the fastest pair on CPU: a matrix-vector
    # product for the sum, a fused loop for the squares.
    mean = select(psum(live @ x, self.axis_name)) / divisor
    squares = (x * x * live[:, None]).sum(0)
    square = select(psum(squares, self.axis_name)) / divisor
    return mean, jnp.maximum(square - mean * mean, 0), count

  def __call__(self, x: Array, mask: Array, *, train: bool) -> Array:
    """Normalises x [B, K]; mask bool [B] marks live rows."""
    scale, offset = self.scale_and_offset(x, mask, train=train)
    return x * scale[None, :] + offset[None, :]


def hash_bits(seed: Array, rows: Array, num_columns: int) -> Array:
  """Pseudo-random uint32 [B, num_columns] keyed by (seed, row, column).

  Counter-based (the finaliser of MurmurHash3, applied twice), so a row's bits
  do not depend on which device holds it, and a fused loop makes them: on CPU
  many times faster than threefry, which would cost more than the layer.

  Args:
    seed: uint32 [2].
    rows: uint32 [B], row numbers in the global batch.
    num_columns: static.
  """

  def mix(h):
    h = (h ^ (h >> 16)) * jnp.uint32(0x85EBCA6B)
    h = (h ^ (h >> 13)) * jnp.uint32(0xC2B2AE35)
    return h ^ (h >> 16)

  row_hash = mix(rows * jnp.uint32(0x9E3779B1) + seed[0])[:, None]
  columns = jnp.arange(num_columns, dtype=jnp.uint32)
  column_hash = mix(columns * jnp.uint32(0x85EBCA77) + seed[1])[None, :]
  return mix(row_hash + column_hash)


class Dropout(nn.Module):
  """Inverted dropout whose mask depends on the global row alone.

  Attributes:
    rate: share of units dropped, in [0, 1).
    axis_name: replica axis; None except under `pmap`.
  """

  rate: float
  axis_name: str | None = None

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> Array:
    """Drops units of x [B, K] in training."""
    if not train or self.rate == 0:
      return x
    batch_size, width = x.shape
    rows = jnp.arange(batch_size, dtype=jnp.uint32)
    if self.axis_name is not None:
      first = lax.axis_index(self.axis_name) * batch_size
      rows = rows + first.astype(jnp.uint32)
    seed = jax.random.bits(self.make_rng('dropout'), (2,), jnp.uint32)
    keep = hash_bits(seed, rows, width) >= jnp.uint32(self.rate * 2**32)
    return jnp.where(keep, x / (1 - self.rate), 0)


class MLP(nn.Module):
  """Hidden layers of linear, norm, activation, dropout; a linear output.

  Attributes:
    hidden: widths; without any, the output is linear in the inputs.
    norm: 'none', 'batch' or 'layer'.
    dropout: share of hidden units dropped in training.
    activation: 'relu' or 'tanh'.
    norm_inputs: batch normalisation of the inputs.
    axis_name: replica axis; None except under `pmap`.
    outputs: None for a logit; a number of outputs; 0 for the last hidden layer
      in their place.
    candidates: of open widths, per hidden layer, increasing up to its own. A
      unit is multiplied by the weight, in 'arch' ('hidden_0' [K], ...), of the
      candidates that have it: narrower layers are the first units of wider
      ones, so all cost one product of matrices (the channel masks of FBNetV2,
      Wan et al., CVPR 2020).
  """

  hidden: Sequence[int]
  norm: str = 'none'
  dropout: float = 0.0
  activation: str = 'relu'
  norm_inputs: bool = False
  axis_name: str | None = None
  outputs: int | None = None
  candidates: Sequence[Sequence[int]] = ()

  @nn.compact
  def __call__(
    self,
    inputs: Array | Sequence[Array],
    mask: Array,
    *,
    train: bool,
    beside: Sequence[Array] = (),
  ) -> Array:
    """Maps inputs to logits.

    Args:
      inputs: [B, K], or several that are joined.
      mask: bool [B], the live rows.
      train: batch statistics and dropout.
      beside: [B, K'] each, inputs of the output layer beside the last hidden
        layer.

    Returns:
      A logit [B], or [B, outputs], or the last hidden layer.
    """
    inputs = inputs if isinstance(inputs, list | tuple) else [inputs]
    if not self.hidden:
      inputs, beside = [*inputs, *beside], ()
    x = jnp.concatenate(inputs, 1)
    init = nn.initializers.xavier_normal()
    activation = {'relu': nn.relu, 'tanh': jnp.tanh}[self.activation]
    if self.norm_inputs:
      x = BatchNorm(axis_name=self.axis_name, name='norm_inputs')(
        x, mask, train=train
      )
    for i, width in enumerate(self.hidden):
      x = nn.Dense(width, kernel_init=init, name=f'dense_{i}')(x)
      if self.norm == 'batch':
        x = BatchNorm(axis_name=self.axis_name, name=f'norm_{i}')(
          x, mask, train=train
        )
      elif self.norm == 'layer':
        x = nn.LayerNorm(epsilon=1e-5, name=f'norm_{i}')(x)
      x = activation(x)
      if self.candidates:
        x = x * self._shares(i)[None, :]
      x = Dropout(self.dropout, self.axis_name, name=f'dropout_{i}')(
        x, train=train
      )
    x = jnp.concatenate([x, *beside], 1)
    if self.outputs == 0:
      return x
    x = nn.Dense(self.outputs or 1, kernel_init=init, name='output')(x)
    return x[:, 0] if self.outputs is None else x

  def _shares(self, layer):
    """What every unit of a layer is multiplied by, [width]."""
    own = np.array(self.candidates[layer])
    weights = self.variable(
      'arch',
      f'hidden_{layer}',
      jnp.full,
      own.shape,
      1 / len(own),
      jnp.float32,
    )
    has_unit = np.arange(own[-1]) < own[:, None]
    return weights.value @ has_unit.astype(np.float32)


class FrequencyNet(nn.Module):
  """What to do with an id, from how often it was seen and other features.

  The controller of ESAPN and AutoEmb: an embedding of the frequency, beside
  further inputs, through one hidden layer. Differences from the published
  code: frequencies share an embedding by quarters of an octave, so that what
  is learnt of 100 holds at 101; and layer normalisation, so that an id's
  decision depends on that id alone, in training and after it.

  Attributes:
    outputs: number of logits, equal for all inputs at the start.
    hidden: width of the hidden layer.
    width: of the embedding of frequencies.
  """

  outputs: int
  hidden: int = 512
  width: int = 32

  @nn.compact
  def __call__(self, counts: Array, inputs: Array) -> Array:
    """Counts integers [B], inputs [B, K] -> logits [B, outputs]."""
    bucket = jnp.floor(4 * jnp.log2(1 + counts.astype(jnp.float32)))
    x = nn.Embed(128, self.width, name='frequency')(bucket.astype(jnp.int32))
    x = jnp.concatenate([nn.LayerNorm(name='norm_0')(x), inputs], 1)
    x = nn.Dense(self.hidden, name='dense')(x)
    x = jnp.tanh(nn.LayerNorm(name='norm_1')(x))
    zeros = nn.initializers.zeros
    return nn.Dense(self.outputs, kernel_init=zeros, name='output')(x)
