"""The columns that a source is read for: their names and types."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jax_autorec import errors
from jax_autorec.data import arrow
from jax_autorec.data import source as source_lib


def used_names(source: source_lib.Source, labelled: bool = True) -> set[str]:
  """Columns that a source uses; label, weight, group and time if `labelled`."""
  used = {column.name for column in source.columns}
  if labelled:
    used |= {source.label, source.weight, source.group, source.time} - {None}
  return used


def numeric_names(source: source_lib.Source, labelled: bool = True) -> set[str]:
  """The used columns that must hold numbers."""
  names = {c.name for c in source.columns if c.kind == 'numeric'}
  if labelled:
    names |= {source.time, source.weight} - {None}
    if source.label_positive is None:
      names.add(source.label)
  return names


def check_names(
  source: source_lib.Source,
  what: str,
  names: list[str],
  labelled: bool = True,
) -> None:
  """Refuses a table that lacks a used column, or has it twice.

  Args:
    source: what the table holds.
    what: the table's file, or name.
    names: all its columns.
    labelled: whether the label, weight, group and time are among them.

  Raises:
    DataError: names the column.
  """
  for name in sorted(used_names(source, labelled)):
    if name not in names:
      raise errors.DataError(
        f'{what} has no column {name!r}; its columns are: '
        f'{", ".join(names[:60])}.' + source_lib.nearest(name, names)
      )
    if names.count(name) > 1:
      raise errors.DataError(f'{what} has several columns {name!r}.')


def typed(
  source: source_lib.Source, table: pa.Table, labelled: bool = True
) -> tuple[pa.Table, dict[str, np.ndarray]]:
  """Columns as readers give them: (table, numbers that are none).

  Returns:
    Numeric columns as float64, texts as strings, integers and lists as they
    are; column -> bool [R], for cells that are not the number they should be.
  """
  columns, wrong = {}, {}
  numeric = numeric_names(source, labelled)
  several = {c.name for c in source.columns if c.max_length > 1}
  is_sparse = source.format in ('libsvm', 'libffm')
  integer = {c.name for c in source.columns if is_sparse}
  for name in table.column_names:
    try:
      column = arrow.plain(table[name])
      if arrow.has_lists(column):
        if name not in several:
          raise errors.DataError(
            f'{source.name}: column {name!r} holds lists; expected a Column of '
            'it with max_length above 1.'
          )
      elif name in numeric:
        column, bad = _numbers(source, column)
        if bad.any():
          wrong[name] = bad
      elif name in integer:
        column = _integers(source, name, column)
      elif not pa.types.is_integer(column.type):
        column = _without_missing(source, pc.cast(column, pa.string()))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
      raise errors.DataError(
        f'{source.name}: column {name!r} is {table[name].type}: {error}.'
      ) from error
    columns[name] = column
  return pa.table(columns), wrong


def _integers(source, name, column):
  try:
    return pc.cast(column, pa.int64())
  except pa.ArrowInvalid as error:
    raise errors.DataError(
      f'{source.name}: column {name!r} is {column.type}: {error}; expected '
      f'integer ids, as {source.format} files have.'
    ) from error


def _without_missing(source, texts):
  """Texts, null where they mean an empty cell."""
  if source.strip:
    texts = pc.utf8_trim_whitespace(texts)
  empty = pc.is_in(texts, value_set=pa.array(source.missing, pa.string()))
  return pc.if_else(empty, pa.scalar(None, pa.string()), texts)


def _numbers(source, column):
  """Float64, seconds for moments; which cells are no numbers (null then)."""
  bad = np.zeros(len(column), bool)
  if pa.types.is_string(column.type):
    column = pc.utf8_trim_whitespace(_without_missing(source, column))
    try:
      return pc.cast(column, pa.float64()), bad
    except pa.ArrowInvalid:
      cells = column.to_pylist()
      bad = np.array([c is not None and not arrow.is_number(c) for c in cells])
      column = pc.if_else(pa.array(bad), pa.scalar(None, pa.string()), column)
  if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
    micro = pc.cast(pc.cast(column, pa.timestamp('us'), safe=False), pa.int64())
    return pc.divide(pc.cast(micro, pa.float64(), safe=False), 1e6), bad
  return pc.cast(column, pa.float64(), safe=False), bad


def fill_defaults(source: source_lib.Source, table: pa.Table) -> pa.Table:
  """The table with the defaults of columns in place of empty cells."""
  for column in source.columns:
    if column.default is None:
      continue
    place, values = table.column_names.index(column.name), table[column.name]
    if column.kind == 'numeric':
      default = float(column.default)
    elif arrow.has_lists(values):
      values = pc.cast(values, pa.list_(pa.string()))
      default = pa.scalar([str(column.default)], values.type)
    else:
      values = pc.cast(values, pa.string())
      default = str(column.default)
    filled = pc.fill_null(values, default)
    table = table.set_column(place, column.name, filled)
  return table
