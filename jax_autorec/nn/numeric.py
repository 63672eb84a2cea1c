"""What becomes of numbers: soft buckets, powers, a bottom MLP, intervals.

Every module serves all fields of one kind at once: N fields, B rows, H
buckets, D columns.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jax_autorec import numeric as numeric_lib
from jax_autorec.types import Array

INIT_STD = 1e-4  # Of vectors, as of those of ids.
_SKIP = 0.8  # Factor of h in form B, TorchEasyRec's.
VECTORS = ('meta', 'missing')  # Parameters of `AutoDis` that are vectors.

# Over the distance between crossing points a transition goes from 12 to 88 %.
_SHARPNESS = 4.0


class Lines:
  """Scores that start as lines, each the highest between two quantiles.

  Bucket k starts as a x + b with rising slopes, such that neighbours cross at
  the quantiles, the steeper against each other the closer crossings are. What
  all buckets share, a softmax does not see: slopes and offsets are centred.

  Attributes:
    slopes: [N, H].
    offsets: [N, H].
    kinks: [N, H]: what brings the values of slopes * x to 0 at that end of the
      train values where they are the least. So LeakyReLU is the identity on
      all of them, and its kinks start where they can move in.
  """

  def __init__(self, quantiles: np.ndarray, temperature: float):
    """Lines for the quantiles [N, H + 1] of `numeric.AutoDis.arrays`."""
    quantiles = np.asarray(quantiles, np.float64)
    low, high = quantiles[:, :1], quantiles[:, -1:]
    points = quantiles[:, 1:-1]
    # float32 may have made two of them one.
    least = 1e-6 * np.maximum(high - low, np.abs(quantiles).max(1)[:, None])
    gaps = np.maximum((quantiles[:, 2:] - quantiles[:, :-2]) / 2, least)
    turns = _SHARPNESS * temperature / gaps
    start = np.zeros_like(low)
    centred = lambda x: x - x.mean(1, keepdims=True)
    self.slopes = centred(np.cumsum(np.append(start, turns, 1), 1))
    self.offsets = centred(np.cumsum(np.append(start, -turns * points, 1), 1))
    self.kinks = -self.slopes * np.where(self.slopes > 0, low, high)


class AutoDis(nn.Module):
  """Soft buckets of numbers and their vectors (Guo et al., KDD 2021).

  See `jax_autorec.numeric.AutoDis` for the formulas. Differences from what is
  published: offsets, by default, with scores that start from quantiles; a
  vector of its own for a missing value, which is otherwise a 0; and
  straight-through gradients for 'max' and 'top_k', which had none. With offsets
  form B starts with W + skip I = I, so that its scores start as form A's, and W
  is trained in small units (`square_map`); else
  weights start as in the authors' code (A: U(-.01, .01)) or in TorchEasyRec (B:
  N(0, 2 / (1 + H)) and N(0, 1 / H), variances).

  Attributes:
    plan: options.
    dim: D.
    quantiles: [N, H + 1] of the train split; read where there are offsets.
    statistics: [N, 17], read where the temperature is adaptive.
  """

  plan: numeric_lib.AutoDis
  dim: int
  quantiles: np.ndarray
  statistics: np.ndarray | None = None

  def setup(self):
    plan, num_fields = self.plan, len(self.quantiles)
    shape = (num_fields, plan.buckets)
    vectors = nn.initializers.normal(INIT_STD)
    self.meta = self.param('meta', vectors, (*shape, self.dim), jnp.float32)
    self.missing = self.param(
      'missing', vectors, (num_fields, self.dim), jnp.float32
    )
    starts = self._starts()
    get = lambda name, *shape: self.param(
      name, starts[name], (num_fields, plan.buckets, *shape), jnp.float32
    )
    self.weight = get('weight')
    if plan.use_bias:
      self.bias = get('bias')
    if plan.form == 'B':
      self.mix = get('mix', plan.buckets)
      if plan.use_bias:
        self.mix_bias = get('mix_bias')
    if plan.adaptive:
      xavier = nn.initializers.xavier_normal()
      inputs = numeric_lib.NUM_STATISTICS + 1
      self.temperature_in = self.param(
        'temperature_in', xavier, (inputs, plan.temperature_hidden), jnp.float32
      )
      self.temperature_out = self.param(
        'temperature_out', xavier, (plan.temperature_hidden, 1), jnp.float32
      )

  def _starts(self):
    plan = self.plan
    if not plan.use_bias:
      small = lambda key, shape, dtype: jax.random.uniform(
        key, shape, dtype, -0.01, 0.01
      )
      normal = nn.initializers.normal
      mix = normal(plan.buckets**-0.5)
      first = (
        small if plan.form == 'A' else normal((2 / (1 + plan.buckets)) ** 0.5)
      )
      return {'weight': first, 'mix': mix}
    lines = Lines(self.quantiles, plan.temperature)
    given = lambda x: (
      lambda key, shape, dtype: jnp.asarray(np.broadcast_to(x, shape), dtype)
    )
    if plan.form == 'A':
      return {'weight': given(lines.slopes), 'bias': given(lines.offsets)}
    return {
      'weight': given(lines.slopes),
      'bias': given(lines.kinks),
      'mix': nn.initializers.zeros,
      'mix_bias': given(lines.offsets - lines.kinks),
    }

  def scores(self, values: Array) -> Array:
    """Values [B, N] -> scores [B, N, H], before the temperature."""
    scores = values[:, :, None] * self.weight[None]
    if self.plan.use_bias:
      scores = scores + self.bias[None]
    if self.plan.form == 'A':
      return scores
    hidden = nn.leaky_relu(scores)
    mixed = jnp.einsum('nij,bnj->bni', self.square_map(), hidden)
    return mixed + self.mix_bias[None] if self.plan.use_bias else mixed

  def square_map(self) -> Array:
    """W + skip I of form B: [N, H, H], from hidden to scores.

    Without offsets W is the parameter 'mix'. With them the whole is I plus
    'mix' in units of 1 / H of a temperature over what a hidden unit reaches on
    the train values. Lines that are to cross twenty times are steep, and a step
    of Adam on a plain W would throw all crossings about.
    """
    eye = np.eye(self.plan.buckets, dtype=np.float32)[None]
    if not self.plan.use_bias:
      skip = _SKIP if self.plan.skip is None else self.plan.skip
      return self.mix + skip * eye
    return eye + self.mix * self._units()[:, None]

  def _units(self):
    quantiles = np.asarray(self.quantiles, np.float64)
    lines = Lines(quantiles, self.plan.temperature)
    span = quantiles[:, -1:] - quantiles[:, :1]
    # A line may be level.
    reach = np.maximum(np.abs(lines.slopes) * span, self.plan.temperature)
    units = self.plan.temperature / (self.plan.buckets * reach)
    return units.astype(np.float32)

  def temperatures(self, values: Array) -> Array:
    """Values [B, N] -> temperatures [B, N]."""
    plan = self.plan
    if not plan.adaptive:
      return jnp.full(values.shape, plan.temperature, jnp.float32)
    # W1 [n ; x] in two parts: one is the same for all rows.
    known = jnp.asarray(self.statistics) @ self.temperature_in[:-1]
    slope = self.temperature_in[-1]
    hidden = known[None] + values[:, :, None] * slope[None, None]
    raw = (nn.leaky_relu(hidden) @ self.temperature_out)[..., 0]
    return plan.temperature + plan.temperature_spread * (
      2 * nn.sigmoid(raw) - 1
    )

  def weights(self, values: Array) -> Array:
    """Values [B, N] -> weights of the soft buckets [B, N, H], of sum 1."""
    scores = self.scores(values)
    return nn.softmax(scores / self.temperatures(values)[:, :, None])

  def __call__(self, values: Array, missing: Array) -> Array:
    """Vectors [B, N, D] of values [B, N], some of them missing, bool [B, N]."""
    weights = self.weights(jnp.where(missing, 0, values))
    if self.plan.aggregation != 'average':
      count = self.plan.top_k if self.plan.aggregation == 'top_k' else 1
      _, largest = jax.lax.top_k(weights, count)
      chosen = jax.nn.one_hot(largest, self.plan.buckets).sum(-2)
      # Forward the chosen ones; backward as if it were the weights.
      weights = weights + jax.lax.stop_gradient(chosen - weights)
    vectors = jnp.einsum('nhd,bnh->bnd', self.meta, weights)
    return jnp.where(missing[:, :, None], self.missing[None], vectors)


class Powers(nn.Module):
  """x', its square and its root, for x' the share of train values below x.

  (Covington et al., RecSys 2016.) A missing value has three trained inputs.

  Attributes:
    grid: [N, G], rising values of the train split.
    shares: [N, G], the shares of values below them.
  """

  grid: np.ndarray
  shares: np.ndarray

  @nn.compact
  def __call__(self, values: Array, missing: Array) -> Array:
    """Inputs [B, N * 3] of values [B, N], some missing, bool [B, N]."""
    shape = (len(self.grid), numeric_lib.NUM_POWERS)
    absent = self.param(
      'missing', nn.initializers.constant(0.5), shape, jnp.float32
    )
    interpolate = jax.vmap(jnp.interp, (1, 0, 0), 1)
    share = interpolate(
      values, jnp.asarray(self.grid), jnp.asarray(self.shares)
    )
    powers = jnp.stack([share, share**2, jnp.sqrt(share)], 2)
    powers = jnp.where(missing[:, :, None], absent[None], powers)
    return powers.reshape(len(values), -1)


class BottomMLP(nn.Module):
  """Layers with ReLU over all numbers (Naumov et al., arXiv:1906.00091).

  A missing value is replaced by a trained one, which starts at 0.

  Attributes:
    hidden: widths; the last is K.
  """

  hidden: Sequence[int]

  @nn.compact
  def __call__(self, values: Array, missing: Array) -> Array:
    """Outputs [B, K] of values [B, N], some missing, bool [B, N]."""
    absent = self.param(
      'missing', nn.initializers.zeros, (values.shape[1],), jnp.float32
    )
    x = jnp.where(missing, absent[None], values)
    init = nn.initializers.xavier_normal()
    for i, width in enumerate(self.hidden):
      x = nn.relu(nn.Dense(width, kernel_init=init, name=f'dense_{i}')(x))
    return x


def interval_ids(
  values: Array,
  missing: Array,
  edges: Sequence[np.ndarray],
  buckets: Sequence[np.ndarray],
) -> Array:
  """Bucket ids int32 [B, N] of values [B, N]; 0 for missing ones, bool [B, N].

  Args:
    values: of N fields.
    missing: where there is none.
    edges: per field, rising: interval i has i edges at or below its values.
    buckets: per field, the ids of its intervals.
  """
  most = max(map(len, edges))
  padded = [np.append(e, [np.inf] * (most - len(e))) for e in edges]
  places = values[:, :, None] >= np.array(padded, np.float32)[None]
  # An infinite value is in the last interval all the same.
  last = np.array([[len(e) for e in edges]], np.int32)
  places = jnp.minimum(places.sum(-1, dtype=jnp.int32), last)
  starts = np.cumsum([0, *map(len, buckets)])[:-1].astype(np.int32)
  ids = jnp.asarray(np.concatenate(buckets), jnp.int32)[places + starts[None]]
  return jnp.where(missing, 0, ids)
