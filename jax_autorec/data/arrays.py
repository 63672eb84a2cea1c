"""Tables in memory: dicts of arrays, DataFrames, Arrow tables."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from jax_autorec import errors
from jax_autorec.data import checks, columns
from jax_autorec.data import source as source_lib


def _as_array(values: Any) -> pa.Array:
  """An Arrow array; NaN and NaT mean an empty cell, as in pandas."""
  if isinstance(values, pa.Array | pa.ChunkedArray):
    return values
  if hasattr(values, '__jax_array__') or hasattr(values, 'addressable_shards'):
    values = np.asarray(values)  # A JAX array, which Arrow does not know.
  return pa.array(values, from_pandas=True)


def as_table(rows: Any, what: str) -> pa.Table:
  """An Arrow table of a dict of arrays, a DataFrame or an Arrow table.

  Raises:
    DataError: for unequal lengths or what is no table.
  """
  try:
    if isinstance(rows, pa.Table):
      return rows
    if isinstance(rows, Mapping):
      return pa.table({k: _as_array(v) for k, v in rows.items()})
    if hasattr(rows, '__arrow_c_stream__'):
      return pa.table(rows)
    return pa.Table.from_pandas(rows, preserve_index=False)
  except (pa.ArrowException, TypeError, ValueError, AttributeError) as e:
    raise errors.DataError(
      f'{what}: {e}; expected a dict of arrays of one length, a DataFrame or '
      'an Arrow table.'
    ) from e


def from_arrays(
  source: source_lib.Source, rows: Any, *, labelled: bool = True
) -> tuple[pa.Table, list[checks.BadRow]]:
  """Rows in memory as a block's table.

  Args:
    source: what the columns hold.
    rows: a dict of arrays or lists, an Arrow table, or a DataFrame of pandas,
      polars or any library that exports Arrow data.
    labelled: whether the label, weight, group and time are there.

  Returns:
    The good rows; the bad ones, numbered from 0.

  Raises:
    DataError: for a missing column, unequal lengths or what is no table.
  """
  raw = as_table(rows, source.name)
  columns.check_names(source, source.name, raw.column_names, labelled)
  used = columns.used_names(source, labelled)
  raw = raw.select([name for name in raw.column_names if name in used])
  table, wrong = columns.typed(source, raw, labelled)
  table = columns.fill_defaults(source, table)
  checked, bad = checks.checked(source, table, labelled, wrong)
  return checked, [
    checks.BadRow(
      source.name, row, reason, str(raw.slice(row, 1).to_pylist()[0]), 'row'
    )
    for row, reason in bad
  ]
