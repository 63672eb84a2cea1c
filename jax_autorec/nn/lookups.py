"""From ids to rows of fused tables.

A step differentiates the loss with respect to gathered rows, never a table, so
looking rows up is separate from what a model makes of them (`nn.embeddings`).
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jax_autorec import architecture as arch_lib
from jax_autorec import errors
from jax_autorec import fields as fields_lib
from jax_autorec import rows as rows_lib
from jax_autorec import schema as schema_lib
from jax_autorec.nn import initializers
from jax_autorec.nn import numeric as numeric_nn
from jax_autorec.types import Array, Batch

INIT_STD = 1e-4  # The BARS protocol's.


class _Columns(NamedTuple):
  """The id columns of a table, static: each array has one entry per column.

  Attributes:
    places: columns of `looked_up_ids`; of a sparse field once per entry of a
      row.
    offsets: where a column's rows begin in the table.
    vocab_sizes, starts, stops, divides, modulos: of its field and piece.
  """

  places: np.ndarray
  offsets: np.ndarray
  vocab_sizes: np.ndarray
  starts: np.ndarray
  stops: np.ndarray
  divides: np.ndarray
  modulos: np.ndarray


def first_columns(architecture: arch_lib.Architecture) -> dict[str, int]:
  """Field name -> its first column of `Batch.ids`, and of buckets beyond."""
  columns, column = {}, 0
  for plan in (*architecture.categorical, *architecture.bucketed):
    columns[plan.name] = column
    column += plan.max_length
  return columns


def _columns(
  architecture: arch_lib.Architecture, parts: Sequence[fields_lib.Part]
) -> _Columns:
  first = first_columns(architecture)
  columns, offset = [], 0
  for part in parts:
    plan, piece = part.field, part.piece
    places = np.arange(first[plan.name], first[plan.name] + plan.max_length)
    places = np.repeat(places, part.num_columns // plan.max_length)
    start, stop, divide, modulo = 0, plan.vocab_size, 1, 0
    if piece is not None:
      start, stop = piece.start, piece.stop
      divide, modulo = piece.divide, piece.modulo
    values = (offset, plan.vocab_size, start, stop, divide, modulo)
    columns += [(place, *values) for place in places]
    offset += part.num_rows
  return _Columns(*np.array(columns, np.int32).T)


def spaces(architecture: arch_lib.Architecture) -> dict[str, str]:
  """Table name -> name of the id space that indexes it."""
  return {table.name: table.space for table in architecture.tables}


def capacities(
  architecture: arch_lib.Architecture, batch_size: int
) -> dict[str, int]:
  """Id space -> the most distinct rows that a batch can touch."""
  return {
    table.space: sum(
      min(batch_size * part.num_columns, part.num_rows) for part in table.parts
    )
    for table in architecture.tables
  }


def known_ids(
  architecture: arch_lib.Architecture,
  batch: Batch,
  constants: Mapping[str, Array] | None = None,
) -> Array:
  """Ids int32 [B, C] as rows are looked up by: -1 for padding.

  An id beyond its vocabulary becomes the unknown id; ids of fields with a
  permutation are permuted.

  Args:
    architecture: names the fields.
    batch: B rows; ids int32 [B, C], mask bool [B].
    constants: of `Architecture.constants`.
  """
  sizes, columns, column = [], [], 0
  for plan in architecture.categorical:
    sizes += [plan.vocab_size] * plan.max_length
    if plan.remap:
      columns.append((plan.name, column, column + plan.max_length))
    column += plan.max_length
  sizes = np.array(sizes, np.int32)[None]
  unknown = np.minimum(schema_lib.UNKNOWN_ID, sizes - 1)
  ids = jnp.where(batch.ids < sizes, batch.ids, unknown)
  for name, start, end in columns:
    order = constant(constants, f'{name}.remap')
    remapped = order.at[ids[:, start:end]].get(mode='fill', fill_value=-1)
    ids = ids.at[:, start:end].set(
      jnp.where(ids[:, start:end] >= 0, remapped, -1)
    )
  return jnp.where(batch.mask[:, None], ids, -1)


def constant(constants: Mapping[str, Array] | None, name: str) -> Array:
  """The array of a name.

  Raises:
    ConfigError: where there is none.
  """
  if constants is None or name not in constants:
    raise errors.ConfigError(
      f'The architecture needs the array {name!r}; there are: '
      f'{", ".join(constants or ()) or "none"}. Load it from its directory, '
      "and give a model its arrays in the collection 'constants'."
    )
  return constants[name]


def fitted_array(
  architecture: arch_lib.Architecture, plan: fields_lib.FieldPlan, name: str
) -> np.ndarray:
  """An array that a field's numeric embedding was fitted by.

  A part of the program, since it is small, and initial values follow from it.

  Raises:
    ConfigError: where it was not fitted.
  """
  array = architecture.arrays.get(f'{plan.name}.{name}')
  if array is None:
    raise errors.ConfigError(
      f'Numeric field {plan.name!r} ({plan.numeric.title}) is not fitted: it '
      f"needs the array '{plan.name}.{name}'. Call numeric_spaces.fit("
      'architecture, data.train, data.scales), or load the architecture from '
      'its directory.'
    )
  return np.asarray(array)


def bucket_ids(architecture: arch_lib.Architecture, batch: Batch) -> Array:
  """Ids int32 [B, N] of the numeric fields of intervals; -1 for padding rows.

  Args:
    architecture: names them.
    batch: B rows.
  """
  plans = architecture.bucketed
  numbers = [plan.name for plan in architecture.numeric]
  places = np.array([numbers.index(plan.name) for plan in plans])
  arrays = lambda name: [fitted_array(architecture, p, name) for p in plans]
  ids = numeric_nn.interval_ids(
    batch.numeric[:, places],
    batch.missing[:, places],
    arrays('edges'),
    arrays('buckets'),
  )
  return jnp.where(batch.mask[:, None], ids, -1)


def looked_up_ids(
  architecture: arch_lib.Architecture,
  batch: Batch,
  constants: Mapping[str, Array] | None = None,
) -> Array:
  """All ids that have rows, int32 [B, C + N]: `known_ids`, `bucket_ids`."""
  ids = known_ids(architecture, batch, constants)
  if architecture.bucketed:
    ids = jnp.concatenate([ids, bucket_ids(architecture, batch)], 1)
  return ids


def flatten_ids(
  architecture: arch_lib.Architecture,
  batch: Batch,
  constants: Mapping[str, Array] | None = None,
) -> dict[str, Array]:
  """Row numbers in the fused tables, per id space.

  Pads of multi-valued fields, whole padding rows and ids that have no row in
  a table get its number of rows, which look-ups fill with zeros and updates
  drop. An id beyond its vocabulary becomes the unknown id.

  Args:
    architecture: names the tables.
    batch: B rows; ids int32 [B, C], mask bool [B].
    constants: of `Architecture.constants`, if it has any.

  Returns:
    Space -> int32 [B, C_s].
  """
  ids = looked_up_ids(architecture, batch, constants)
  flat = {}
  for table in architecture.tables:
    if table.space in flat:
      continue
    columns = _columns(architecture, table.parts)
    table_ids = ids
    if list(columns.places) != list(range(ids.shape[1])):
      table_ids = ids[:, columns.places]
    columns = _Columns(*(values[None] for values in columns))
    live = table_ids >= 0
    if any(part.piece is None for part in table.parts):
      rows, live = _sparse_entries(architecture, table, ids, constants)
    elif all(part.is_whole for part in table.parts):
      rows = table_ids
    else:
      live = (table_ids >= columns.starts) & (table_ids < columns.stops)
      rows = (table_ids - columns.starts) // columns.divides
      if columns.modulos.any():
        rows = jnp.where(
          columns.modulos > 0, rows % np.maximum(columns.modulos, 1), rows
        )
    flat[table.space] = jnp.where(live, rows + columns.offsets, table.num_rows)
  return flat


def _sparse_entries(architecture, table, ids, constants):
  """Entry numbers of sparse rows, and which columns have one: [B, C_s]."""
  first = first_columns(architecture)
  entries, is_set = [], []
  for part in table.parts:
    plan = part.field
    own = ids[:, first[plan.name] : first[plan.name] + plan.max_length]
    starts = constant(constants, f'{plan.name}.starts')
    patterns = constant(constants, f'{plan.name}.bits')
    safe = jnp.maximum(own, 0)
    bits = jnp.unpackbits(patterns[safe], axis=-1)[..., : plan.dim]
    bits = bits.astype(jnp.int32) * (own >= 0)[..., None]
    place = starts[safe][..., None] + jnp.cumsum(bits, -1) - 1
    entries.append(place.reshape(len(ids), -1))
    is_set.append((bits > 0).reshape(len(ids), -1))
  return jnp.concatenate(entries, 1), jnp.concatenate(is_set, 1)


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
  """Fresh tables, one after another and each in place.

  Entries are N(0, stddev), around 1 for factors of products, or what the
  architecture brings along ('initial/{table}').
  """
  init = jax.jit(
    initializers.normal_by_blocks(stddev), static_argnames=('shape',)
  )
  tables = {}
  for i, table in enumerate(architecture.tables):
    initial = architecture.arrays.get(f'{arch_lib.INITIAL}{table.name}')
    shape = (table.num_rows, table.dim)
    if initial is None:
      values = init(jax.random.fold_in(key, i), shape=shape)
      tables[table.name] = values + table.mean if table.mean else values
    elif initial.shape == shape:
      tables[table.name] = jnp.array(initial, jnp.float32)
    else:
      raise errors.ConfigError(
        f'Table {table.name!r} starts from an array {list(initial.shape)}; '
        f'expected {list(shape)}.'
      )
  return tables
