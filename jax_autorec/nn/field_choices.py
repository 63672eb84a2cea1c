"""Field vectors while something about them is open.

A module here maps the rows that tables hold to field vectors, for a choice
that it reads from the collection 'arch' (`fields/...`). It never draws,
anneals or takes an argmax.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from jax_autorec import fields as fields_lib
from jax_autorec.nn import blocks
from jax_autorec.types import Array


class FieldChoice(nn.Module):
  """What the modules of open choices have in common.

  Attributes:
    plan: the open choice.
    fields: the categorical fields F.
    axis_name: replica axis; None except under `pmap`.
  """

  plan: fields_lib.FieldChoice
  fields: tuple[fields_lib.FieldPlan, ...]
  axis_name: str | None = None

  def values(
    self, values: Array, ids: Array, own: Array | None = None
  ) -> Array:
    """What is done to single values, before a field's values are pooled.

    Args:
      values: rows [B, C, R]; zeros for padding.
      ids: int32 [B, C], the ids they are of; -1 for padding.
      own: [B, C, plan.row_dim], what is open about these rows alone, if
        anything is.
    """
    del ids, own
    return values

  @property
  def column_fields(self) -> np.ndarray:
    """The field int [C] of every id column."""
    lengths = [plan.max_length for plan in self.fields]
    return np.repeat(np.arange(len(lengths)), lengths)

  def __call__(self, vectors: Array, mask: Array, *, train: bool) -> Array:
    """Pooled rows [B, F, R], mask [B] -> field vectors [B, F, D]."""
    raise NotImplementedError


class MixedDims(FieldChoice):
  """A weighted sum of candidate widths (AutoDim, arXiv:2006.14827).

  Candidate n maps its columns x of a row to the common width, z = x W, and
  normalises z over the batch without scale or offset; the field's vector is
  sum_n weights_n h_n. Each candidate's moments of z follow from the mean and
  the covariance of the rows, so the sum is one linear map of the centred row,
  made of all candidates': the cost of one candidate, not of all. An offset of
  the map would have no effect under the normalisation, so there is none.

  With 'zero_pad' columns are normalised and the missing ones are zeros; then
  inner products lose the columns beyond the narrower of two fields.

  In training moments are those of the batch; running ones, for evaluation, are
  kept of the rows, and not of each candidate.

  Collections: 'arch': 'weights' [F, N]; 'params': 'kernel' [F, sum of dims, D]
  or [sum of dims, D]; 'batch_stats': 'mean' [F, R], 'covariance' [F, R, R].

  Attributes:
    epsilon: added to variances.
    momentum: weight of the old running moments.
  """

  epsilon: float = 1e-5
  momentum: float = 0.9

  def setup(self):
    plan, num_fields = self.plan, len(self.fields)
    shape = (num_fields, len(plan.dims))
    self.weights = self.variable(
      'arch', 'weights', jnp.full, shape, 1 / shape[1], jnp.float32
    )
    if plan.transform == 'linear':
      # Each candidate's map is drawn as if it were alone.
      lead = (num_fields,) if plan.transforms == 'field' else ()
      init = nn.initializers.xavier_normal(
        in_axis=-2, out_axis=-1, batch_axis=tuple(range(len(lead)))
      )
      self.kernels = [
        self.param(f'kernel_{dim}', init, (*lead, dim, plan.width), jnp.float32)
        for dim in plan.dims
      ]
    width = plan.table_dim
    self.mean = self.variable(
      'batch_stats', 'mean', jnp.zeros, (num_fields, width), jnp.float32
    )
    self.covariance = self.variable(
      'batch_stats', 'covariance', self._unit, num_fields, width
    )

  @staticmethod
  def _unit(num_fields, width):
    return jnp.tile(jnp.eye(width, dtype=jnp.float32)[None], (num_fields, 1, 1))

  def __call__(self, vectors: Array, mask: Array, *, train: bool) -> Array:
    """Pooled rows [B, F, R], mask [B] -> field vectors [B, F, D]."""
    mean, covariance = self._moments(vectors, mask, train)
    centred = vectors - mean[None]
    if self.plan.transform == 'zero_pad':
      return self._padded(centred, covariance)
    return jnp.einsum('bfr,frk->bfk', centred, self._map(covariance))

  def _moments(self, vectors, mask, train):
    """Of the rows: means [F, R], covariances [F, R, R]."""
    if not train:
      return self.mean.value, self.covariance.value
    live = mask.astype(vectors.dtype)
    count = jnp.maximum(blocks.psum(live.sum(), self.axis_name), 1)
    total = jnp.einsum('b,bfr->fr', live, vectors)
    mean = blocks.psum(total, self.axis_name) / count
    centred = (vectors - mean[None]) * live[:, None, None]
    squares = jnp.einsum('bfr,bfs->frs', centred, centred)
    covariance = blocks.psum(squares, self.axis_name) / count
    if not self.is_initializing():
      keep = self.momentum
      for running, new in ((self.mean, mean), (self.covariance, covariance)):
        new = lax.stop_gradient(new)
        running.value = keep * running.value + (1 - keep) * new
    return mean, covariance

  def _map(self, covariance):
    """All candidates as one linear map of a centred row: [F, R, D]."""
    plan, total = self.plan, 0.0
    places = zip(plan.dims, plan.first_columns, self.kernels)
    for n, (dim, start, kernel) in enumerate(places):
      if plan.transforms == 'shared':
        kernel = jnp.broadcast_to(kernel, (len(self.fields), *kernel.shape))
      own = covariance[:, start : start + dim, start : start + dim]
      variance = jnp.einsum('fdk,fde,fek->fk', kernel, own, kernel)
      scale = lax.rsqrt(variance + self.epsilon)
      scaled = kernel * (self.weights.value[:, n, None] * scale)[:, None]
      after = plan.table_dim - start - dim
      total = total + jnp.pad(scaled, ((0, 0), (start, after), (0, 0)))
    return total

  def _padded(self, centred, covariance):
    plan, total = self.plan, 0.0
    variance = jnp.diagonal(covariance, axis1=1, axis2=2)
    normal = centred * lax.rsqrt(variance + self.epsilon)[None]
    for n, (dim, start) in enumerate(zip(plan.dims, plan.first_columns)):
      own = normal[..., start : start + dim]
      own = own * self.weights.value[None, :, n, None]
      total = total + jnp.pad(own, ((0, 0), (0, 0), (0, plan.width - dim)))
    return total


class ColumnMask(FieldChoice):
  """Factors of the columns of groups of ids: e~ = mask_group(id) * e_id.

  Collection 'arch': 'mask' [G, D], the groups of the first field first.
  """

  def setup(self):
    shape = (self.plan.num_groups, self.plan.dim)
    self.mask = self.variable(
      'arch', 'mask', jnp.ones, shape, jnp.float32
    ).value

  @property
  def _is_whole(self):
    return self.plan.num_groups == len(self.fields)

  def values(
    self, values: Array, ids: Array, own: Array | None = None
  ) -> Array:
    """Rows [B, C, D] of ids int32 [B, C], each times its group's factors."""
    del own
    if self._is_whole:
      return values  # One group per field: pooled vectors are fewer.
    return values * self.mask[self.groups(ids)]

  def groups(self, ids: Array) -> Array:
    """The group int32 [B, C] of every id."""
    starts = self.plan.starts
    most = max(len(own) for own in starts)
    firsts, offsets, offset = [], [], 0
    for plan, own in zip(self.fields, starts):
      later = [*own[1:], *[np.iinfo(np.int32).max] * (most - len(own))]
      firsts += [later] * plan.max_length
      offsets += [offset] * plan.max_length
      offset += len(own)
    firsts, offsets = np.array(firsts, np.int32), np.array(offsets, np.int32)
    passed = ids[..., None] >= firsts[None]
    return offsets[None] + passed.sum(-1, dtype=jnp.int32)

  def __call__(self, vectors: Array, mask: Array, *, train: bool) -> Array:
    """Pooled rows [B, F, D], mask [B] -> field vectors [B, F, D]."""
    del mask, train
    return vectors * self.mask[None] if self._is_whole else vectors


class SoftThreshold(FieldChoice):
  """Shrunk entries: sign(v) relu(|v| - sigmoid(s)) (PEP, arXiv:2101.07577).

  An entry within its threshold is zero and takes no gradient. Collection
  'arch': 'threshold', s, [F or 1, D or 1].
  """

  def setup(self):
    self.threshold = self.variable(
      'arch',
      'threshold',
      jnp.full,
      self.plan.shape(len(self.fields)),
      self.plan.initial,
      jnp.float32,
    ).value

  def values(
    self, values: Array, ids: Array, own: Array | None = None
  ) -> Array:
    """Rows [B, C, D], and what their ids add to s [B, C, 1 or D]."""
    del ids
    threshold = self.threshold
    if len(threshold) > 1:
      threshold = threshold[self.column_fields]
    threshold = threshold[None]
    if own is not None:
      threshold = threshold + self.plan.row_scale * own
    threshold = jnp.broadcast_to(jax.nn.sigmoid(threshold), values.shape)
    return jnp.sign(values) * jax.nn.relu(jnp.abs(values) - threshold)

  def __call__(self, vectors: Array, mask: Array, *, train: bool) -> Array:
    """Pooled rows [B, F, D] -> field vectors, the same."""
    del mask, train
    return vectors


@jax.custom_jvp
def step(x: Array) -> Array:
  """1 where x > 0, else 0; its slope is that of a long-tailed surrogate.

  2 - 4 |x| up to .4, .4 up to 1, 0 beyond (Lyu et al., OptEmbed, section 3).
  """
  return (x > 0).astype(x.dtype)


@step.defjvp
def _step_jvp(primals, tangents):
  (x,), (dx,) = primals, tangents
  size = jnp.abs(x)
  slope = jnp.where(size <= 0.4, 2 - 4 * size, jnp.where(size <= 1, 0.4, 0))
  return step(x), slope.astype(x.dtype) * dx


class RowMask(FieldChoice):
  """Rows above a threshold, and their first columns (OptEmbed).

  Collection 'arch': 'threshold' [F], of the L1 norm of rows; 'length' int32
  [B, F], or [1, F], columns that are read.
  """

  @nn.compact
  def __call__(self, vectors: Array, mask: Array, *, train: bool) -> Array:
    """Pooled rows [B, F, D] -> their first columns, zeros behind."""
    del mask, train
    dim, shape = self.plan.dim, vectors.shape[:2]
    length = self.variable('arch', 'length', jnp.full, shape, dim, jnp.int32)
    columns = jnp.arange(dim, dtype=jnp.int32)[None, None]
    is_read = columns < length.value[..., None]
    return vectors * is_read.astype(vectors.dtype)

  @nn.compact
  def values(
    self, values: Array, ids: Array, own: Array | None = None
  ) -> Array:
    """Rows [B, C, D] that are above their field's threshold."""
    del ids, own
    shape = (len(self.fields),)
    threshold = self.variable(
      'arch', 'threshold', jnp.zeros, shape, jnp.float32
    ).value[self.column_fields]
    return values * step(jnp.abs(values).sum(-1) - threshold[None])[..., None]


_MODULES = {
  'row_mask': RowMask,
  'mixed_dims': MixedDims,
  'column_mask': ColumnMask,
  'soft_threshold': SoftThreshold,
}


def build(
  plan: fields_lib.FieldChoice,
  fields: Sequence[fields_lib.FieldPlan],
  axis_name: str | None,
  name: str,
) -> FieldChoice:
  """The module of an open choice."""
  return _MODULES[plan.kind](plan, tuple(fields), axis_name, name=name)
