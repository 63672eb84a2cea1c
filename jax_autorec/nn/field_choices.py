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

from jax_autorec import choices as choices_lib
from jax_autorec import fields as fields_lib
from jax_autorec.nn import blocks, row_chains
from jax_autorec.types import Array


class FieldChoice(nn.Module):
  """What the modules of open choices have in common.

  Attributes:
    plan: the open choice.
    fields: the categorical fields F.
    axis_name: replica axis; None except under `pmap`.
  """

  plan: choices_lib.FieldChoice
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

  def mask(self, ids: Array) -> Array | None:
    """Which elements of rows are not switched off: bool [B, C, R].

    The others must have no part in `values`; they, and the moments that an
    optimiser keeps of them, then stay as they are. None where all are on.

    Args:
      ids: int32 [B, C]; -1 for padding.
    """
    del ids
    return None

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

  A field's vector is scaled by a trained number, which starts at D^-1/2:
  vectors of one candidate then have a mean square length of 1, and their inner
  products a variance of 1 / D. (Not in the paper. A factorization machine
  cannot scale its products otherwise: with 8 fields and a width of 16 its
  logits start with a deviation of 20, and it learns nothing of planted data.)
  All candidates share it, so they stay comparable.

  In training moments are those of the batch; running ones, for evaluation, are
  kept of the rows, and not of each candidate.

  Collections: 'arch': 'weights' [F, N], or [S, F, N]: S draws, each of which
  as many rows of the global batch see; 'params': 'scale' [F], per candidate
  'kernel_{dim}' [F, dim, D] or [dim, D]; 'batch_stats': 'mean' [F, R],
  'covariance' [F, R, R].

  Attributes:
    epsilon: added to variances.
    momentum: weight of the old running moments.
  """

  epsilon: float = 1e-5
  momentum: float = 0.9

  def _weights_shape(self):
    return (len(self.fields), len(self.plan.dims))

  def setup(self):
    plan, num_fields = self.plan, len(self.fields)
    shape = self._weights_shape()
    self.weights = self.variable(
      'arch', 'weights', jnp.full, shape, 1 / shape[-1], jnp.float32
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
    self.scale = self.param(
      'scale',
      nn.initializers.constant(plan.width**-0.5),
      (num_fields,),
      jnp.float32,
    )
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
    # Fields first: products of matrices then find each field's rows together.
    rows = jnp.swapaxes(vectors, 0, 1)
    centred, _, covariance = self._moments(rows, mask, train)
    batch_size, draws, first = rows.shape[1], self.weights.value, 0
    if draws.ndim == 3:
      # As many rows of every draw; the moments are those of all rows.
      centred, draws, first = _grouped(centred, draws, self.axis_name)
    else:
      centred, draws = centred[:, None], draws[None]
    draws = jnp.swapaxes(draws, 0, 1)
    if self.plan.transform == 'zero_pad':
      total = self._padded(centred, covariance, draws)
    else:
      total = jnp.matmul(centred, self._map(covariance, draws))
    total = self.scale[:, None, None] * total.reshape(
      (len(rows), -1, self.plan.width)
    )
    total = lax.dynamic_slice_in_dim(total, first, batch_size, 1)
    return jnp.swapaxes(total, 0, 1)

  def _moments(self, rows, mask, train):
    """Of rows [F, B, R]: centred, zeros where masked; mean, covariance.

    Of candidates with columns of their own no covariance is needed, and 0 is
    what stands there.
    """
    live = mask.astype(rows.dtype)[None, :, None]
    if not train:
      centred = (rows - self.mean.value[:, None]) * live
      return centred, self.mean.value, self.covariance.value
    count = blocks.psum(live.sum(), self.axis_name)
    divisor = jnp.maximum(count, 1)
    mean = blocks.psum((live * rows).sum(1), self.axis_name) / divisor
    centred = (rows - mean[:, None]) * live
    parts = [centred]
    if self.plan.tables == 'separate':
      parts = jnp.split(centred, self.plan.first_columns[1:], axis=-1)
    squares = jax.vmap(jax.scipy.linalg.block_diag)(
      *(jnp.einsum('fbr,fbs->frs', part, part) for part in parts)
    )
    covariance = blocks.psum(squares, self.axis_name) / divisor
    if not self.is_initializing():
      # A batch of padding alone has no moments to learn from.
      keep = jnp.where(count > 0, self.momentum, 1)
      for running, new in ((self.mean, mean), (self.covariance, covariance)):
        new = lax.stop_gradient(new)
        running.value = keep * running.value + (1 - keep) * new
    return centred, mean, covariance

  def _map(self, covariance, draws):
    """All candidates as one linear map per draw [F, S, N]: [F, S, R, D]."""
    plan, total = self.plan, 0.0
    for n, dim, start, scaled in self._scaled(covariance):
      weighted = scaled[:, None] * draws[:, :, n, None, None]
      after = plan.table_dim - start - dim
      ends = ((0, 0), (0, 0), (start, after), (0, 0))
      total = total + jnp.pad(weighted, ends)
    return total

  def _scaled(self, covariance):
    """Per candidate: place, dim, first column, map whose outputs have var 1."""
    plan = self.plan
    places = zip(plan.dims, plan.first_columns, self.kernels)
    for n, (dim, start, kernel) in enumerate(places):
      if plan.transforms == 'shared':
        kernel = jnp.broadcast_to(kernel, (len(self.fields), *kernel.shape))
      own = covariance[:, start : start + dim, start : start + dim]
      variance = jnp.einsum('fdk,fde,fek->fk', kernel, own, kernel)
      scale = lax.rsqrt(variance + self.epsilon)
      yield n, dim, start, kernel * scale[:, None]

  def _padded(self, centred, covariance, draws):
    plan, total = self.plan, 0.0
    variance = jnp.diagonal(covariance, axis1=1, axis2=2)
    normal = centred * lax.rsqrt(variance + self.epsilon)[:, None, None]
    for n, (dim, start) in enumerate(zip(plan.dims, plan.first_columns)):
      own = normal[..., start : start + dim] * draws[:, :, n, None, None]
      ends = ((0, 0), (0, 0), (0, 0), (0, plan.width - dim))
      total = total + jnp.pad(own, ends)
    return total


def _grouped(
  rows: Array, draws: Array, axis_name: str | None
) -> tuple[Array, Array, Array | int]:
  """Rows side by side with those that see the same draw.

  Row i of the global batch sees draw i // ceil(B / S), whichever replica holds
  it; a replica's rows begin and end anywhere among those of a draw.

  Args:
    rows: [F, B, R], this replica's.
    draws: [S, F, N].
    axis_name: replica axis; None where the batch is whole.

  Returns:
    [F, G, ceil(B / S), R], zeros where there are no rows; [G, F, N], the draws
    of these groups; the place of the first row, within the first group.
  """
  num_fields, count, width = rows.shape
  each = -(-count * blocks.psum(1, axis_name) // len(draws))
  if axis_name is None:
    num_groups, place = len(draws), 0
    rows = jnp.pad(rows, ((0, 0), (0, num_groups * each - count), (0, 0)))
  else:
    # So many at most, from any place on.
    num_groups = (count + each - 2) // each + 1
    first = lax.axis_index(axis_name) * count
    group, place = first // each, first % each
    empty = jnp.zeros((num_fields, num_groups * each, width), rows.dtype)
    rows = lax.dynamic_update_slice_in_dim(empty, rows, place, 1)
    draws = draws.take(group + np.arange(num_groups), axis=0, mode='clip')
  return rows.reshape(num_fields, num_groups, each, width), draws, place


class Blocks(FieldChoice):
  """Blocks of a table, switched on and off (NIS, arXiv:1907.04471).

  Column block t of an id's row is read where the id is below `kept[field, t]`,
  since ids come by falling frequency. The others read zeros, or a row that
  they share where the field keeps any rows of that block.

  Collections: 'arch': 'kept' int32 [F, T], rows of each block of columns;
  'params': 'kernel_{t}' [F, columns[t], D] where blocks are projected;
  'shared_row' [F, R] where the plan has one.
  """

  def setup(self):
    plan, num_fields = self.plan, len(self.fields)
    columns = np.array(plan.columns)
    self.block_of_column = np.repeat(np.arange(len(columns)), columns)
    self.field_of_value = np.repeat(
      np.arange(num_fields), [field.max_length for field in self.fields]
    )
    self.kept = self.variable('arch', 'kept', self._everything)
    # As those of pieces: `embeddings.FieldEmbeddings` maps the derived ones.
    init = nn.initializers.xavier_normal(in_axis=1, out_axis=2, batch_axis=0)
    self.kernels = [
      self.param(f'kernel_{t}', init, (num_fields, dim, plan.width))
      for t, dim in enumerate(plan.columns)
      if plan.is_projected
    ]
    if plan.shared_row:
      self.shared_row = self.param(
        'shared_row', nn.initializers.zeros, (num_fields, plan.width)
      )

  def _everything(self):
    sizes = [[ends[-1]] * len(self.plan.columns) for ends in self.plan.rows]
    return jnp.array(sizes, jnp.int32)

  def mask(self, ids: Array) -> Array:
    """Which elements of the rows of ids [B, C] are kept: bool [B, C, R]."""
    kept = self.kept.value[self.field_of_value][None]
    return (ids[:, :, None] < kept)[:, :, self.block_of_column]

  def values(
    self, values: Array, ids: Array, own: Array | None = None
  ) -> Array:
    """Rows [B, C, R] of ids [B, C], with what is not kept replaced."""
    del own
    other = jnp.zeros((), values.dtype)
    if self.plan.shared_row:
      is_kept = (self.kept.value > 0)[:, self.block_of_column]
      other = jnp.where(is_kept, self.shared_row, 0)[self.field_of_value][None]
    # Padding lies below any bound and reads the zeros of its row.
    return jnp.where(self.mask(ids), values, other)

  def __call__(self, vectors: Array, mask: Array, *, train: bool) -> Array:
    """Pooled rows [B, F, R], mask [B] -> field vectors [B, F, D]."""
    del mask, train
    if not self.kernels:
      return vectors
    kernel = jnp.concatenate(self.kernels, 1)
    return jnp.einsum('bfr,frd->bfd', vectors, kernel)


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


class GrowingRows(FieldChoice):
  """Rows of many widths, brought to the largest by a chain (ESAPN).

  Liu et al., SIGIR 2020, section 3.1: e_{k+1} = e_k W_k + b_k. A row at size k
  is its first dims[k] entries, mapped by W_k ... W_{n-2}. The entries beyond
  get no gradient.

  Collections: 'arch': 'size' int32 [B, F], places in `dims`; 'params':
  'kernel_{k}' [F, dims[k], dims[k + 1]], 'offset_{k}' [F, dims[k + 1]].
  """

  @nn.compact
  def __call__(self, vectors: Array, mask: Array, *, train: bool) -> Array:
    """Rows [B, F, R], mask [B] -> field vectors [B, F, R]."""
    del mask, train
    dims, num_fields = self.plan.dims, len(self.fields)
    size = self.variable('arch', 'size', _zeros, vectors.shape[:2])
    init = nn.initializers.lecun_normal(in_axis=1, out_axis=2, batch_axis=0)
    params = {}
    for k, shape in enumerate(zip(dims[:-1], dims[1:])):
      params[f'kernel_{k}'] = self.param(
        f'kernel_{k}', init, (num_fields, *shape)
      )
      params[f'offset_{k}'] = self.param(
        f'offset_{k}', nn.initializers.zeros, (num_fields, shape[1])
      )
    return row_chains.widen(params, dims, vectors, size.value)


def _zeros(shape):
  return jnp.zeros(shape, jnp.int32)


class MixedRows(FieldChoice):
  """A sum of candidate widths, weighted row by row (AutoEmb's mixture).

  Zhao et al., arXiv:2002.11252: v = sum_n w_n tanh(BN(e_n W_n + b_n)). All
  candidates of a field share the scale and offset of the normalisation, but
  not its moments: the published code takes moments of each candidate in
  training, and a blend of all in its running averages.

  Collections: 'arch': 'weights' [B, F, N]; 'params': 'kernel_{n}'
  [F, dims[n], R], 'scale' and 'offset' [F, R] (b_n has no effect before BN);
  'batch_stats'.
  """

  @nn.compact
  def __call__(self, vectors: Array, mask: Array, *, train: bool) -> Array:
    """Rows [B, F, sum of dims], mask [B] -> field vectors [B, F, R]."""
    dims, width = self.plan.dims, self.plan.width
    batch_size, num_fields = vectors.shape[:2]
    shape = (batch_size, num_fields, len(dims))
    weights = self.variable(
      'arch', 'weights', jnp.full, shape, 1 / len(dims), jnp.float32
    )
    init = nn.initializers.lecun_normal(in_axis=1, out_axis=2, batch_axis=0)
    flat = (num_fields, width)
    scale = self.param('scale', nn.initializers.ones, flat)[None]
    offset = self.param('offset', nn.initializers.zeros, flat)[None]
    total, start = 0.0, 0
    for n, dim in enumerate(dims):
      own = vectors[..., start : start + dim]
      kernel = self.param(f'kernel_{n}', init, (num_fields, dim, width))
      mapped = jnp.einsum('bfd,fdk->bfk', own, kernel)
      normal = blocks.BatchNorm(
        affine=False, axis_name=self.axis_name, name=f'norm_{n}'
      )(mapped.reshape(batch_size, -1), mask, train=train)
      normal = normal.reshape(mapped.shape) * scale + offset
      total = total + weights.value[..., n, None] * jnp.tanh(normal)
      start += dim
    return total


class MixedBuckets(MixedDims):
  """A weighted sum of candidate widths, by bucket of frequency (AutoEmb).

  As `MixedDims` with the weights of every value's bucket. Without the tanh of
  AutoEmb's own mixture: base models take inner products of vectors, and the
  closed model has none either.

  Collections: as of `MixedDims`, but 'weights' [F, K, N], K the most buckets
  of a field.
  """

  def _weights_shape(self):
    most = max(len(own) for own in self.plan.starts)
    return (len(self.fields), most, len(self.plan.dims))

  def values(
    self, values: Array, ids: Array, own: Array | None = None
  ) -> Array:
    """Rows [B, C, R] -> [B, C, 2 R + N]: as they are, weighted, the weights.

    [B, C, R + N], without the weighted, where no field has several values.
    """
    del own
    plan, weights = self.plan, []
    column = 0
    for place, (field, starts) in enumerate(zip(self.fields, plan.starts)):
      column_ids = ids[:, column : column + field.max_length]
      starts = np.array(starts, np.int32)
      bucket = jnp.searchsorted(starts, column_ids, side='right') - 1
      taken = jnp.take(self.weights.value[place], bucket, axis=0, mode='clip')
      weights.append(taken * (column_ids >= 0)[..., None])
      column += field.max_length
    weights = jnp.concatenate(weights, 1)
    if not self._has_several:
      return jnp.concatenate([values, weights], 2)
    return jnp.concatenate([values, self._spread(weights) * values, weights], 2)

  @property
  def _has_several(self) -> bool:
    return any(field.max_length > 1 for field in self.fields)

  def _spread(self, weights):
    """Weights [..., N] of candidates for each of their columns: [..., R]."""
    dims = self.plan.dims
    # A product of matrices, not `jnp.repeat`: its gradient is a scatter.
    return weights @ np.repeat(np.eye(len(dims), dtype=np.float32), dims, 1)

  def __call__(self, vectors: Array, mask: Array, *, train: bool) -> Array:
    """What `values` gives, pooled; mask [B] -> field vectors [B, F, D]."""
    width, num_sizes = self.plan.table_dim, len(self.plan.dims)
    vectors = jnp.swapaxes(vectors, 0, 1)
    rows, weights = vectors[..., :width], vectors[..., -num_sizes:]
    # Of pooled rows: a sum over values has as much of the mean as one has.
    total = weights.sum(-1, keepdims=True)
    weights = weights / jnp.where(total > 0, total, 1)
    spread = self._spread(weights)
    weighted = spread * rows
    if self._has_several:
      weighted = vectors[..., width:-num_sizes]
    _, mean, covariance = self._moments(rows, mask, train)
    kernel = jnp.concatenate(
      [scaled for *_, scaled in self._scaled(covariance)], 1
    )
    kernel = self.scale[:, None, None] * kernel
    out = jnp.matmul(weighted - spread * mean[:, None], kernel)
    return jnp.swapaxes(out, 0, 1)


_MODULES = {
  'mixed_dims': MixedDims,
  'blocks': Blocks,
  'column_mask': ColumnMask,
  'soft_threshold': SoftThreshold,
  'row_mask': RowMask,
  'growing_rows': GrowingRows,
  'mixed_rows': MixedRows,
  'mixed_buckets': MixedBuckets,
}


def build(
  plan: choices_lib.FieldChoice,
  fields: Sequence[fields_lib.FieldPlan],
  axis_name: str | None,
  name: str,
) -> FieldChoice:
  """The module of an open choice."""
  return _MODULES[plan.kind](plan, tuple(fields), axis_name, name=name)
