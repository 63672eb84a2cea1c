"""Raw files in, tables of typed columns out, block by block.

Memory holds one block of text and its columns, however long the file. A block
is parsed whole by Arrow; only where that fails are its lines looked at one by
one, to name the bad ones or to keep them out.
"""

from collections.abc import Callable, Iterator
import csv
import dataclasses
import gzip
import io
import os
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from jax_autorec import errors
from jax_autorec.data import source as source_lib

BLOCK_BYTES = 8 * 2**20
_INT32_MAX = 2**31 - 1


@dataclasses.dataclass(frozen=True)
class BadRow:
  """A row that cannot be read.

  Attributes:
    path: its file.
    line: 1-based line, header included (row, in a Parquet file).
    reason: column and what was expected.
    text: the raw line.
  """

  path: str
  line: int
  reason: str
  text: str

  def __str__(self) -> str:
    shown = self.text if len(self.text) <= 80 else self.text[:77] + '...'
    return f'{self.path}, line {self.line}: {self.reason} Got: {shown!r}'


@dataclasses.dataclass(frozen=True)
class Block:
  """Parsed rows of one block.

  Attributes:
    table: columns by name; numeric ones float64, others strings or integers.
    bad: rows that were kept out.
    bytes_read: bytes of the file (compressed) read so far.
  """

  table: pa.Table
  bad: list[BadRow]
  bytes_read: int


class _Counted(io.RawIOBase):
  """A raw file that knows how far it has been read."""

  def __init__(self, path):
    self._file = open(path, 'rb')
    self.position = 0

  def readable(self):
    return True

  def readinto(self, buffer):
    count = self._file.readinto(buffer)
    self.position += count
    return count

  def close(self):
    self._file.close()
    super().close()


def _open(path: str) -> tuple[io.BufferedIOBase, _Counted]:
  try:
    raw = _Counted(path)
  except FileNotFoundError as error:
    raise errors.DataError(f'{path} does not exist.') from error
  except OSError as error:
    raise errors.DataError(f'Cannot read {path}: {error.strerror}.') from error
  if path.endswith('.gz'):
    return gzip.GzipFile(fileobj=io.BufferedReader(raw, 2**20)), raw
  if path.endswith('.zst'):
    import zstandard  # Imported late: few files need it.

    reader = zstandard.ZstdDecompressor().stream_reader(
      raw, read_across_frames=True
    )
    return reader, raw
  return io.BufferedReader(raw, 2**20), raw


def _text_blocks(
  path: str, block_bytes: int
) -> Iterator[tuple[bytes, int, int]]:
  """Whole lines of a file: (block, its first line, bytes read so far)."""
  stream, raw = _open(path)
  line, rest = 1, b''
  try:
    with raw, stream:
      while True:
        data = stream.read(block_bytes)
        if not data:
          break
        data = rest + data
        end = data.rfind(b'\n') + 1
        rest = data[end:]
        if end:
          yield data[:end], line, raw.position
          line += data.count(b'\n', 0, end)
      if rest:
        yield rest + b'\n', line, raw.position
  except (EOFError, zlib.error, gzip.BadGzipFile) as error:
    raise errors.DataError(
      f'{path} is damaged or cut off after line {line}: {error}. Fetch it '
      'again.'
    ) from error
  except Exception as error:
    if type(error).__name__ == 'ZstdError':
      raise errors.DataError(
        f'{path} is damaged or cut off after line {line}: {error}.'
      ) from error
    raise


def text_blocks(path: str, block_bytes: int = BLOCK_BYTES) -> Iterator[bytes]:
  """Whole lines of a file, decompressed, block by block."""
  for data, _, _ in _text_blocks(path, block_bytes):
    yield data


class _Lines:
  """How the lines of one source become columns."""

  def __init__(self, source: source_lib.Source, names: list[str], path: str):
    self.source, self.names, self.path = source, names, path
    numeric = {c.name for c in source.columns if c.kind == 'numeric'}
    numeric |= {source.time, source.weight}
    if source.label_positive is None:
      numeric.add(source.label)
    used = {column.name for column in source.columns}
    used |= {source.label, source.weight, source.group, source.time}
    self.numeric = [n for n in names if n in numeric]
    self.integer = []
    if source.format in ('libsvm', 'libffm'):
      self.integer = [c.name for c in source.columns]
    # A derived column is made of others, which must be read for it.
    self.used = names if source.derive else [n for n in names if n in used]

  def parse(self, data: bytes) -> pa.Table:
    """A block of good lines.

    Raises:
      pa.ArrowInvalid: where some line is bad.
    """
    source = self.source
    delimiter = source.delimiter
    if source.format != 'delimited':
      data = data.replace(b':', b' ')
      delimiter = ' '
    elif len(delimiter) > 1:
      data = data.replace(delimiter.encode(), b'\x1f')
      delimiter = '\x1f'
    types = dict.fromkeys(self.used, pa.string())
    types |= dict.fromkeys(self.integer, pa.int64())
    types |= {n: pa.float64() for n in self.numeric if n in self.used}
    if source.strip:
      types = dict.fromkeys(self.used, pa.string())
    table = pa_csv.read_csv(
      pa.BufferReader(data),
      read_options=pa_csv.ReadOptions(
        column_names=self.names,
        encoding=source.encoding,
        # One Arrow block per block of ours: Arrow's threads share columns.
        block_size=max(len(data) // 2 + 1, 2**16),
      ),
      parse_options=pa_csv.ParseOptions(
        delimiter=delimiter,
        quote_char='"' if source.quoted and delimiter != ' ' else False,
      ),
      convert_options=pa_csv.ConvertOptions(
        column_types=types,
        include_columns=self.used,
        null_values=list(source.missing),
        strings_can_be_null=True,
        quoted_strings_can_be_null=True,
      ),
    )
    if source.strip:
      table = self._strip(table)
    return table

  def _strip(self, table):
    missing = pa.array(list(self.source.missing), pa.string())
    columns = []
    for name in table.column_names:
      column = pc.utf8_trim_whitespace(table[name])
      column = pc.if_else(
        pc.is_in(column, value_set=missing),
        pa.scalar(None, pa.string()),
        column,
      )
      if name in self.numeric:
        column = pc.cast(column, pa.float64())
      columns.append(column)
    return pa.table(columns, names=table.column_names)

  def reason(self, line: str) -> str | None:
    """Why a line is bad, or None where it can be parsed."""
    source = self.source
    if source.format == 'delimited':
      if source.quoted and len(source.delimiter) == 1:
        cells = next(csv.reader([line], delimiter=source.delimiter), [''])
      else:
        cells = line.split(source.delimiter)
    else:
      cells = line.replace(':', ' ').split(' ')
    if len(cells) != len(self.names):
      return f'{len(cells)} columns; expected {len(self.names)}.'
    for name, cell in zip(self.names, cells):
      if source.strip:
        cell = cell.strip()
      if cell in source.missing or name not in self.used:
        continue
      if name in self.numeric and not _is_number(cell):
        return f'column {name!r} is {cell!r}; expected a number.'
      if name in self.integer and not _is_integer(cell):
        return f'column {name!r} is {cell!r}; expected an integer.'
    return None


def _is_number(cell: str) -> bool:
  try:
    float(cell)
  except ValueError:
    return False
  return '_' not in cell


def _is_integer(cell: str) -> bool:
  return cell.lstrip('-').isdigit() and abs(int(cell)) < 2**63


def _check_rows(
  source: source_lib.Source, table: pa.Table
) -> tuple[np.ndarray, Callable[[int], str]]:
  """Which parsed rows are bad by value, and why a given one is."""
  checks = []

  def add(name, bad, expected):
    bad = np.asarray(bad)
    if bad.any():
      checks.append((name, bad, expected))

  label = table[source.label]
  if source.label_positive is None:
    values = label.to_numpy()
    if source.label_threshold is None:
      add(source.label, ~((values == 0) | (values == 1)), 'a label, 0 or 1')
    else:
      add(source.label, ~np.isfinite(values), 'a number')
  else:
    add(source.label, label.is_null(), 'a label')
  for column in source.columns:
    if column.kind == 'numeric':
      values = table[column.name].to_numpy()
      add(column.name, np.isinf(values), 'a finite number')
    elif pa.types.is_integer(table[column.name].type):
      values = table[column.name].to_numpy()
      outside = ~((values >= 0) & (values <= _INT32_MAX))
      add(column.name, outside, f'an id from 0 to {_INT32_MAX}')
  if source.weight is not None:
    values = table[source.weight].to_numpy()
    good = np.isfinite(values) & (values > 0)
    add(source.weight, ~good, 'a weight above 0')
  if source.time is not None:
    add(source.time, ~np.isfinite(table[source.time].to_numpy()), 'a time')
  bad = np.zeros(len(table), bool)
  for _, found, _ in checks:
    bad |= found

  def reason(row):
    for name, found, expected in checks:
      if found[row]:
        value = table[name][row].as_py()
        shown = 'empty' if value is None else repr(value)
        return f'column {name!r} is {shown}; expected {expected}.'
    raise AssertionError('A row that is not bad has no reason.')

  return bad, reason


def read(
  source: source_lib.Source,
  path: str,
  *,
  derive: Callable[[pa.Table], pa.Table] | None = None,
  block_bytes: int = BLOCK_BYTES,
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
    blocks = _read_parquet(source, path)
  else:
    blocks = _read_text(source, path, block_bytes)
  empty = True
  for table, lines, texts, bad, position in blocks:
    empty = False
    if derive is not None and len(table):
      table = derive(table)
    table = _fill_defaults(source, table)
    if len(table):
      wrong, reason = _check_rows(source, table)
      if wrong.any():
        bad = bad + [
          BadRow(path, int(lines[row]), reason(row), texts(row))
          for row in np.flatnonzero(wrong)
        ]
        table = table.filter(pa.array(~wrong))
    yield Block(table, sorted(bad, key=lambda row: row.line), position)
  if empty:
    raise errors.DataError(f'{path} is empty.')


def _fill_defaults(source, table):
  for column in source.columns:
    if column.default is not None:
      place = table.column_names.index(column.name)
      filled = pc.fill_null(
        table[column.name],
        float(column.default)
        if column.kind == 'numeric'
        else str(column.default),
      )
      table = table.set_column(place, column.name, filled)
  return table


def _read_text(source, path, block_bytes):
  names = list(source.header) if source.header else None
  if source.format in ('libsvm', 'libffm'):
    names = [source.label]
    for column in source.columns:
      extra = ['#field'] if source.format == 'libffm' else []
      names += [f'{e}:{column.name}' for e in extra]
      names += [column.name, f'#value:{column.name}']
  lines_lib = None
  for data, first, position in _text_blocks(path, block_bytes):
    if names is None:
      head, data = data.split(b'\n', 1)
      names = _header(source, path, head)
      first += 1
    if lines_lib is None:
      _check_names(source, path, names)
      lines_lib = _Lines(source, names, path)
    if b'\r\n' in data[:1000]:
      data = data.replace(b'\r\n', b'\n')
    if not data:
      continue
    yield _parse_block(lines_lib, data, first, position)


def _header(source, path, head):
  text = head.decode(source.encoding).lstrip('\ufeff').rstrip('\r')
  names = next(csv.reader([text], delimiter=source.delimiter[0]), [])
  return [name.strip() for name in names]


def _check_names(source, path, names):
  if source.derive:
    return
  wanted = [column.name for column in source.columns]
  wanted += [
    n for n in (source.label, source.weight, source.group, source.time) if n
  ]
  for name in wanted:
    if name not in names:
      raise errors.DataError(
        f'{path} has no column {name!r}; its columns are: '
        f'{", ".join(names[:60])}.' + source_lib.nearest(name, names)
      )


def _parse_block(lines_lib, data, first, position):
  """(table, line of each row, text of a row, bad rows, position)."""
  try:
    table = lines_lib.parse(data)
    if len(table) == data.count(b'\n'):
      texts = lambda row: data.split(b'\n')[row].decode('utf-8', 'replace')
      return table, first + np.arange(len(table)), texts, [], position
  except pa.ArrowInvalid:
    pass
  # Some line is bad, or blank: look at each.
  encoding = lines_lib.source.encoding
  good, numbers, bad = [], [], []
  for number, raw in enumerate(data.split(b'\n')[:-1], first):
    if not raw.strip() and len(lines_lib.names) > 1:
      continue  # A blank line is no row, at the end of a file or anywhere.
    try:
      reason = lines_lib.reason(raw.decode(encoding))
    except UnicodeDecodeError:
      reason = f'not {encoding} text.'
    if reason is None:
      good.append(raw)
      numbers.append(number)
    else:
      text = raw.decode(encoding, 'replace')
      bad.append(BadRow(lines_lib.path, number, reason, text))
  if not good:
    return pa.table({}), np.zeros(0, int), None, bad, position
  try:
    table = lines_lib.parse(b'\n'.join(good) + b'\n')
  except pa.ArrowInvalid as error:
    raise errors.DataError(
      f'{lines_lib.path}, lines {numbers[0]} to {numbers[-1]}: {error}.'
    ) from error
  texts = lambda row: good[row].decode(encoding, 'replace')
  return table, np.array(numbers), texts, bad, position


def _read_parquet(source, path):
  import pyarrow.parquet as pq

  try:
    file = pq.ParquetFile(path)
  except FileNotFoundError as error:
    raise errors.DataError(f'{path} does not exist.') from error
  except (pa.ArrowInvalid, OSError) as error:
    raise errors.DataError(f'{path} is not Parquet: {error}.') from error
  names = file.schema_arrow.names
  _check_names(source, path, names)
  size, done = os.path.getsize(path), 0
  lines_lib = _Lines(source, names, path)
  for batch in file.iter_batches(2**16, columns=lines_lib.used):
    table = _typed(lines_lib, pa.Table.from_batches([batch]), path)
    first = done + 1
    done += len(table)
    position = size * done // max(file.metadata.num_rows, 1)
    texts = lambda row, table=table: str(table.slice(row, 1).to_pylist()[0])
    yield table, first + np.arange(len(table)), texts, [], position


def _typed(lines_lib, table, path):
  """Numeric columns as float64, others as strings (ids as they are)."""
  columns = []
  for name in table.column_names:
    column = table[name]
    try:
      if name in lines_lib.numeric:
        column = pc.cast(column, pa.float64(), safe=False)
      elif not pa.types.is_integer(column.type):
        column = pc.cast(column, pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
      raise errors.DataError(f'{path}, column {name!r}: {error}.') from error
    columns.append(column)
  return pa.table(columns, names=table.column_names)


def from_arrays(
  source: source_lib.Source, arrays: dict[str, np.ndarray]
) -> pa.Table:
  """Columns in memory (a dict of arrays or a DataFrame) as a block's table.

  Raises:
    DataError: for a missing column or a bad row.
  """
  try:
    table = pa.table({name: pa.array(arrays[name]) for name in list(arrays)})
  except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
    raise errors.DataError(f'{source.name}: {error}.') from error
  _check_names(source, source.name, table.column_names)
  lines_lib = _Lines(source, table.column_names, source.name)
  table = _typed(lines_lib, table.select(lines_lib.used), source.name)
  table = _fill_defaults(source, table)
  wrong, reason = _check_rows(source, table)
  if wrong.any():
    row = int(np.flatnonzero(wrong)[0])
    raise errors.DataError(f'{source.name}, row {row}: {reason(row)}')
  return table
