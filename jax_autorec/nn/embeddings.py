"""Field embeddings in fused tables: ids in, named views of vectors out.

A step differentiates the loss with respect to gathered rows, never a table.
So looking rows up (`flatten_ids`, `lookup`) is separate from what a model
makes of them (`FieldEmbeddings`), and a model accepts rows in place of tables.
"""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jax_autorec import architecture as arch_lib
from jax_autorec import rows as rows_lib
from jax_autorec import schema as schema_lib
from jax_autorec.nn import initializers
from jax_autorec.types import Array, Batch

INIT_STD = 1e-4  # The BARS protocol's.


def _columns(
  architecture: arch_lib.Architecture, fields: tuple[str, ...]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Of some fields: id columns [C]; row offsets and vocabularies [1, C]."""
  columns, offsets, sizes = [], [], []
  column, offset = 0, 0
  for plan in architecture.categorical:
    if plan.name in fields:
      columns += range(column, column + plan.max_length)
      offsets += [offset] * plan.max_length
      sizes += [plan.vocab_size] * plan.max_length
      offset += plan.vocab_size
    column += plan.max_length
  return (
    np.array(columns, np.int32),
    np.array(offsets, np.int32)[None],
    np.array(sizes, np.int32)[None],
  )


def spaces(architecture: arch_lib.Architecture) -> dict[str, str]:
  """Table name -> name of the id space that indexes it."""
  return {table.name: table.space for table in architecture.tables}


def capacities(
  architecture: arch_lib.Architecture, batch_size: int
) -> dict[str, int]:
  """Id space -> the most distinct rows that a batch can touch."""
  result = {}
  for table in architecture.tables:
    plans = {plan.name: plan for plan in architecture.categorical}
    result[table.space] = sum(
      min(batch_size * plans[name].max_length, plans[name].vocab_size)
      for name in table.fields
    )
  return result


def flatten_ids(
  architecture: arch_lib.Architecture, batch: Batch
) -> dict[str, Array]:
  """Row numbers in the fused tables, per id space.

  Pads of multi-valued fields and whole padding rows get the number of rows,
  which look-ups fill with zeros and updates drop. An id beyond its vocabulary
  becomes the unknown id.

  Args:
    architecture: names the tables.
    batch: B rows; ids int32 [B, C], mask bool [B].

  Returns:
    Space -> int32 [B, C_s].
  """
  flat = {}
  for table in architecture.tables:
    if table.space in flat:
      continue
    columns, offsets, sizes = _columns(architecture, table.fields)
    ids = batch.ids
    if len(columns) < ids.shape[1]:
      ids = ids[:, columns]
    unknown = np.minimum(schema_lib.UNKNOWN_ID, sizes - 1)
    known = jnp.where(ids < sizes, ids, unknown) + offsets
    live = (ids >= 0) & batch.mask[:, None]
    flat[table.space] = jnp.where(live, known, table.num_rows)
  return flat


def lookup(
  tables: Mapping[str, Array],
  flat_ids: Mapping[str, Array],
  architecture: arch_lib.Architecture,
) -> dict[str, Array]:
  """Rows of every table: table name -> [B, C_s, D]; zeros for padding."""
  return {
    table.name: rows_lib.gather(tables[table.name], flat_ids[table.space])
    for table in architecture.tables
  }


def init_tables(
  architecture: arch_lib.Architecture, key: Array, stddev: float = INIT_STD
) -> dict[str, Array]:
  """Fresh tables, N(0, stddev), one after another and each in place."""
  init = jax.jit(
    initializers.normal_by_blocks(stddev), static_argnames=('shape',)
  )
  return {
    table.name: init(
      jax.random.fold_in(key, i), shape=(table.num_rows, table.dim)
    )
    for i, table in enumerate(architecture.tables)
  }


def _pool(
  rows: Array, ids: Array, plans: list[arch_lib.FieldPlan], num_rows: int
) -> Array:
  """One vector per field: rows [B, C, D], ids [B, C] -> [B, F, D]."""
  if all(plan.max_length == 1 for plan in plans):
    return rows
  pooled, start = [], 0
  for plan in plans:
    end = start + plan.max_length
    total = rows[:, start:end].sum(1, keepdims=True)
    if plan.pooling == 'mean':
      count = (ids[:, start:end] < num_rows).sum(1)[:, None, None]
      total = total / jnp.maximum(count, 1).astype(rows.dtype)
    pooled.append(total)
    start = end
  return jnp.concatenate(pooled, 1)


def _in_field_order(parts: list[tuple[Array, int, str]]) -> Array:
  """Joins groups into [B, F, D] without needless copies.

  Args:
    parts: per field: its group [B, F_g, D], its place there, the group's name.
  """
  groups, starts, total = {}, {}, 0
  for group, _, name in parts:
    if name not in groups:
      groups[name], starts[name] = group, total
      total += group.shape[1]
  order = [starts[name] + place for _, place, name in parts]
  joined = list(groups.values())
  joined = joined[0] if len(joined) == 1 else jnp.concatenate(joined, 1)
  if order == list(range(total)):
    return joined
  return joined[:, np.array(order)]


class FieldEmbeddings(nn.Module):
  """Turns a batch into the views that an architecture reads.

  Numeric fields follow the categorical ones; a numeric field's vector is its
  value times a trained vector, or a trained vector of its own where the value
  is missing (BARS has no such vector and takes 0).

  Attributes:
    architecture: its fields and tables.
  """

  architecture: arch_lib.Architecture

  @nn.compact
  def __call__(
    self, batch: Batch, rows: Mapping[str, Array] | None = None
  ) -> dict[str, Array]:
    """Views of a batch of B rows.

    Args:
      batch: the rows.
      rows: gathered rows, as of `lookup`, in place of the module's tables.

    Returns:
      'main', 'order3': [B, F, D]; 'first_order': [B, F]; those that exist.
    """
    architecture = self.architecture
    flat_ids = flatten_ids(architecture, batch)
    if rows is None:
      tables = {
        table.name: self.param(
          table.name,
          initializers.normal_by_blocks(INIT_STD),
          (table.num_rows, table.dim),
          jnp.float32,
        )
        for table in architecture.tables
      }
      rows = lookup(tables, flat_ids, architecture)
    views = {}
    for view in architecture.views:
      parts = self._categorical(view, flat_ids, rows)
      if architecture.numeric:
        parts.update(self._numeric(view, batch))
      vectors = _in_field_order([parts[f.name] for f in architecture.fields])
      views[view] = vectors[..., 0] if view == 'first_order' else vectors
    return views

  def _categorical(self, view, flat_ids, rows):
    """Field name -> (group [B, F_g, D], its place there, name of the group)."""
    parts = {}
    plans = {plan.name: plan for plan in self.architecture.categorical}
    for table in self.architecture.tables:
      if table.view != view:
        continue
      group = [plans[name] for name in table.fields]
      pooled = _pool(
        rows[table.name], flat_ids[table.space], group, table.num_rows
      )
      projected = self._project(pooled, table.dim, view, table.name)
      for i, name in enumerate(table.fields):
        parts[name] = (projected, i, table.name)
    return parts

  def _numeric(self, view, batch):
    """The same for numeric fields, grouped by width."""
    parts = {}
    numeric = self.architecture.numeric
    dims = [1 if view == 'first_order' else plan.dim for plan in numeric]
    for dim in sorted(set(dims)):
      places = [i for i, d in enumerate(dims) if d == dim]
      name = f'{view}_numeric_dim_{dim}'
      shape = (len(places), dim)
      init = nn.initializers.normal(INIT_STD)
      slope = self.param(name, init, shape, jnp.float32)
      absent = self.param(f'{name}_missing', init, shape, jnp.float32)
      values = batch.numeric[:, places, None]
      missing = batch.missing[:, places, None]
      vectors = jnp.where(missing, absent[None], values * slope[None])
      projected = self._project(vectors, dim, view, name)
      for i, place in enumerate(places):
        parts[numeric[place].name] = (projected, i, name)
    return parts

  def _project(self, vectors, dim, view, name):
    """Brings a group [B, F_g, d] to the common width."""
    target = 1 if view == 'first_order' else self.architecture.dim
    if dim == target:
      return vectors
    if self.architecture.projection == 'zero_pad':
      return jnp.pad(vectors, ((0, 0), (0, 0), (0, target - dim)))
    kernel = self.param(
      f'{name}_projection',
      nn.initializers.xavier_normal(in_axis=1, out_axis=2, batch_axis=0),
      (vectors.shape[1], dim, target),
      jnp.float32,
    )
    return jnp.einsum('bfd,fdk->bfk', vectors, kernel)
