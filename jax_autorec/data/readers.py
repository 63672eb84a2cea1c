"""Raw files in, tables of typed columns out, block by block.

Memory holds one block of text and its columns, however long the file.
"""

from collections.abc import Callable, Iterator
import dataclasses
import os

import pyarrow as pa

from jax_autorec import errors
from jax_autorec.data import checks, columns, parquet
from jax_autorec.data import lines as lines_lib
from jax_autorec.data import source as source_lib
from jax_autorec.data import text as text_lib


@dataclasses.dataclass(frozen=True)
class Block:
  """Parsed rows of one block.

  Attributes:
    table: columns by name; numeric ones float64, others strings or integers.
    bad: rows that were kept out.
    bytes_read: bytes of the file (compressed) read so far.
  """

  table: pa.Table
  bad: list[checks.BadRow]
  bytes_read: int


def read(
  source: source_lib.Source,
  path: str,
  *,
  derive: Callable[[pa.Table], pa.Table] | None = None,
  block_bytes: int = text_lib.BLOCK_BYTES,
) -> Iterator[Block]:
  """Parsed blocks of one file.

  Args:
    source: what the file holds.
    path: the file; .gz and .zst are decompressed.
    derive: makes further columns of a block's.
    block_bytes: text in memory at a time.

  Raises:
    DataError: for a missing, empty, truncated or undecodable file. Bad rows
      do not raise: they come with their block.
  """
  if source.format == 'parquet':
    blocks = parquet.read(source, path)
  else:
    blocks = lines_lib.read(source, path, block_bytes)
  empty, unit = True, 'row' if source.format == 'parquet' else 'line'
  for block in blocks:
    empty = False
    table, bad = block.table, block.bad
    if len(table):
      if derive is not None:
        table = derive(table)
        columns.check_names(source, path, table.column_names)
      table = columns.fill_defaults(source, table)
      table, reasons = checks.checked(source, table, wrong=block.wrong)
      bad = bad + [
        checks.BadRow(
          path, int(block.lines[row]), reason, block.text(row), unit
        )
        for row, reason in reasons
      ]
    yield Block(table, sorted(bad, key=lambda row: row.line), block.position)
  if empty:
    what = 'has no rows' if os.path.getsize(path) else 'is empty'
    raise errors.DataError(f'{path} {what}.')
