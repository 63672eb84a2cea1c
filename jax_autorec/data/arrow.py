"""Columns and numbers as Arrow has them, of whatever source."""

import re

import pyarrow as pa
import pyarrow.compute as pc

_NUMBER = re.compile(
  r'\s*[+-]?((\d+\.?\d*|\.\d+)(e[+-]?\d+)?|inf(inity)?|nan)\s*',
  re.ASCII | re.IGNORECASE,
)


def is_number(cell: str) -> bool:
  """Whether a text is a number, as Arrow reads one."""
  return _NUMBER.fullmatch(cell) is not None


def has_lists(column: pa.Array | pa.ChunkedArray) -> bool:
  """Whether the cells of a column are lists."""
  return pa.types.is_list(column.type) or pa.types.is_large_list(column.type)


def plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
  """Without dictionaries, views and NaN, which not all kernels read alike."""
  kind = column.type
  if pa.types.is_dictionary(kind):
    kind = kind.value_type
    chunks = [
      plain(pa.chunked_array([chunk.dictionary], kind))
      .combine_chunks()
      .take(chunk.indices)
      for chunk in column.chunks
    ]
    return pa.chunked_array(chunks, None if chunks else pa.string())
  if pa.types.is_string_view(kind) or pa.types.is_large_string(kind):
    return pc.cast(column, pa.string())
  if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
    return pc.cast(column, pa.string())
  if pa.types.is_fixed_size_list(kind):
    return pc.cast(column, pa.list_(kind.value_type))
  if pa.types.is_floating(kind):
    nan = pc.fill_null(pc.is_nan(column), False)
    return pc.if_else(nan, pa.scalar(None, kind), column)
  return column
