"""Raw files in, tables of typed columns out, block by block.

Memory holds one block of text and its columns, however long the file. A block
is parsed whole by Arrow; only where that fails are its lines looked at one by
one, to name the bad ones or to keep them out.
"""

from collections.abc import Callable, Iterator, Mapping
import dataclasses
import io
import os
import re
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from jax_autorec import errors
from jax_autorec.data import source as source_lib

BLOCK_BYTES = 8 * 2**20
_PIECE_BYTES = 2**16
_INT32_MAX = 2**31 - 1
_FLOAT32_MAX = float(np.finfo(np.float32).max)
_COMPRESSIONS = {'.gz': 'gzip', '.zst': 'zstd'}
_BOM = b'\xef\xbb\xbf'
_NUMBER = re.compile(
  r'\s*[+-]?((\d+\.?\d*|\.\d+)(e[+-]?\d+)?|inf(inity)?|nan)\s*',
  re.ASCII | re.IGNORECASE,
)
_INTEGER = re.compile(r'-?\d{1,19}', re.ASCII)
_BLANK_LINES = re.compile(rb'(?:[ \t\r]*\n)*')
_QUOTED = re.compile(r'"(?:[^"]|"")*"')


@dataclasses.dataclass(frozen=True)
class BadRow:
  """A row that cannot be read.

  Attributes:
    path: its file.
    line: 1-based line, header included; 1-based row of a Parquet file, 0-based
      row of a table in memory.
    reason: column and what was expected.
    text: the raw line.
    unit: 'line' or 'row'.
  """

  path: str
  line: int
  reason: str
  text: str
  unit: str = 'line'

  def __str__(self) -> str:
    shown = self.text if len(self.text) <= 80 else self.text[:77] + '...'
    return f'{self.path}, {self.unit} {self.line}: {self.reason} Got: {shown!r}'


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


def _text_blocks(
  path: str, block_bytes: int
) -> Iterator[tuple[bytes, int, int]]:
  """Whole lines of a file: (block, its first line, bytes read so far)."""
  try:
    raw = _Counted(path)
  except FileNotFoundError as error:
    raise errors.DataError(f'{path} does not exist.') from error
  except OSError as error:
    raise errors.DataError(f'Cannot read {path}: {error.strerror}.') from error
  stream = raw
  for suffix, compression in _COMPRESSIONS.items():
    if path.endswith(suffix):
      stream = pa.CompressedInputStream(raw, compression)
  line, rest, at_end = 1, b'', False
  with raw, stream:
    while not at_end:
      pieces, size = [rest], 0
      while not at_end and size < block_bytes:
        try:
          # Few bytes at a time: what a cut off file still has is counted.
          pieces.append(stream.read(min(_PIECE_BYTES, block_bytes)))
        except OSError as error:
          line += sum(piece.count(b'\n') for piece in pieces)
          raise errors.DataError(
            f'{path} is damaged or cut off after about line {line}: {error}. '
            'Fetch it again.'
          ) from error
        size += len(pieces[-1])
        at_end = not pieces[-1]
      data = b''.join(pieces)
      end = data.rfind(b'\n') + 1
      rest = data[end:]
      if end:
        yield data[:end], line, raw.position
        line += data.count(b'\n', 0, end)
    if rest:
      yield rest + b'\n', line, raw.position


def text_blocks(path: str, block_bytes: int = BLOCK_BYTES) -> Iterator[bytes]:
  """Whole lines of a file, decompressed, block by block."""
  for data, _, _ in _text_blocks(path, block_bytes):
    yield data


def cells(line: str, delimiter: str, quoted: bool) -> list[str] | None:
  """A line's cells as Arrow reads them; None where a quote stays open.

  The csv module raises on long cells and on lone carriage returns, and takes
  an open quote for closed at the end of the line.
  """
  if not quoted or '"' not in line:
    return line.split(delimiter)
  found, place = [], 0
  while True:
    text = ''
    if line.startswith('"', place):
      match = _QUOTED.match(line, place)
      if match is None:
        return None
      text, place = match[0][1:-1].replace('""', '"'), match.end()
    end = line.find(delimiter, place)
    if end < 0:
      return [*found, text + line[place:]]
    found.append(text + line[place:end])
    place = end + len(delimiter)


@dataclasses.dataclass(frozen=True)
class _Parsed:
  """A block's rows before their values are checked.

  Attributes:
    table: the rows.
    lines: line of each row.
    text: row -> the raw row.
    bad: lines that are no rows.
    position: bytes of the file read so far.
    wrong: column -> bool [R], cells that are not the number they should be.
  """

  table: pa.Table
  lines: np.ndarray
  text: Callable[[int], str]
  bad: list[BadRow]
  position: int
  wrong: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)


def _used_names(source: source_lib.Source, labelled: bool = True) -> set[str]:
  used = {column.name for column in source.columns}
  if labelled:
    used |= {source.label, source.weight, source.group, source.time} - {None}
  return used


def _numeric_names(
  source: source_lib.Source, labelled: bool = True
) -> set[str]:
  names = {c.name for c in source.columns if c.kind == 'numeric'}
  if labelled:
    names |= {source.time, source.weight} - {None}
    if source.label_positive is None:
      names.add(source.label)
  return names


class _Lines:
  """How the lines of one source become columns."""

  def __init__(self, source: source_lib.Source, names: list[str], path: str):
    self.source, self.names, self.path = source, names, path
    # A derived column is made of others, which must be read for it.
    used = names if source.derive else _used_names(source)
    self.used = [name for name in names if name in used]
    numeric = _numeric_names(source)
    self.numeric = [name for name in self.used if name in numeric]
    self.is_sparse = source.format in ('libsvm', 'libffm')
    self.integer = [c.name for c in source.columns if self.is_sparse]
    self.types = dict.fromkeys(self.used, pa.string())
    if not source.strip:
      self.types |= dict.fromkeys(self.numeric, pa.float64())
    self.types |= dict.fromkeys(self.integer, pa.int64())
    if not (source.derive or source.strip or self.is_sparse):
      # Arrow finds a block's distinct values as it parses, in its threads.
      encoded = pa.dictionary(pa.int32(), pa.string())
      self.types |= {
        c.name: encoded
        for c in source.columns
        if c.kind == 'categorical' and c.separator is None
      }

  def parse(self, data: bytes) -> pa.Table:
    """A block of good lines.

    Raises:
      pa.ArrowInvalid: where some line is bad.
    """
    source = self.source
    delimiter = source.delimiter
    if self.is_sparse:
      # Values are not read: a field is there, or it is not.
      ones = data.count(b':1 ') + data.count(b':1\n')
      if ones != data.count(b'\n') * len(source.columns):
        raise pa.ArrowInvalid('A value is not 1.')
      data = data.replace(b':', b' ')
      delimiter = ' '
    elif len(delimiter.encode(source.encoding)) > 1:
      data = data.replace(delimiter.encode(source.encoding), b'\x1f')
      delimiter = '\x1f'
    return pa_csv.read_csv(
      pa.BufferReader(data),
      read_options=pa_csv.ReadOptions(
        column_names=self.names,
        encoding=source.encoding,
        # One Arrow block per block of ours: Arrow's threads share columns.
        block_size=max(len(data) // 2 + 1, 2**16),
      ),
      parse_options=pa_csv.ParseOptions(
        delimiter=delimiter,
        quote_char='"' if source.quoted and not self.is_sparse else False,
      ),
      convert_options=pa_csv.ConvertOptions(
        column_types=self.types,
        include_columns=self.used,
        null_values=list(source.missing),
        strings_can_be_null=True,
        quoted_strings_can_be_null=True,
      ),
    )

  def parse_each(
    self, lines: list[bytes]
  ) -> tuple[list[pa.Table], list[tuple[int, str]]]:
    """Tables of the lines that Arrow can parse; places of others, with why."""
    reason = 'a quote or a line end inside the line; expected whole rows.'
    try:
      table = self.parse(b'\n'.join(lines) + b'\n')
      if len(table) == len(lines):
        return [table], []
    except pa.ArrowInvalid as error:
      reason = f'{error}.'
    if len(lines) == 1:
      return [], [(0, reason)]
    half = len(lines) // 2
    tables, bad = self.parse_each(lines[:half])
    more, others = self.parse_each(lines[half:])
    return tables + more, bad + [(half + i, why) for i, why in others]

  def reason(self, line: str) -> str | None:
    """Why a line is bad, or None where it looks as if it can be parsed."""
    source = self.source
    if '\r' in line:
      return r'a carriage return; expected lines that end in \n or \r\n.'
    if self.is_sparse:
      found = line.replace(':', ' ').split(' ')
    else:
      found = cells(line, source.delimiter, source.quoted)
    if found is None:
      return (
        'a quote that is not closed; expected it on the same line '
        '(`quoted = false`, if quotes mean nothing).'
      )
    if len(found) != len(self.names):
      return f'{len(found)} columns; expected {len(self.names)}.'
    for name, cell in zip(self.names, found):
      if source.strip:
        cell = cell.strip()
      unread = name not in self.used and not name.startswith('#value:')
      if cell in source.missing or unread:
        continue
      if name in self.numeric and not is_number(cell):
        return (
          f'column {name!r} is {cell!r}; expected {_expected(source, name)}.'
        )
      if name in self.integer and not _is_integer(cell):
        return f'column {name!r} is {cell!r}; expected an integer.'
      if name.startswith('#value:') and cell != '1':
        return f'the value of {name[7:]!r} is {cell!r}; expected 1.'
    return None


def _expected(source: source_lib.Source, name: str) -> str:
  if name == source.label and source.label_threshold is None:
    return 'a label, 0 or 1 (`label_positive` has other values that mean 1)'
  return 'a number (`missing` has the texts that mean an empty cell)'


def is_number(cell: str) -> bool:
  """Whether a text is a number, as Arrow reads one."""
  return _NUMBER.fullmatch(cell) is not None


def _is_integer(cell: str) -> bool:
  return _INTEGER.fullmatch(cell) is not None and abs(int(cell)) < 2**63


def _checked(
  source: source_lib.Source,
  table: pa.Table,
  labelled: bool = True,
  wrong: Mapping[str, np.ndarray] | None = None,
) -> tuple[pa.Table, list[tuple[int, str]]]:
  """The rows whose values are as they should be; the others, with why."""
  checks = [
    (name, bad, _expected(source, name)) for name, bad in (wrong or {}).items()
  ]

  def add(name, bad, expected):
    bad = np.asarray(bad)
    if bad.any():
      checks.append((name, bad, expected))

  if labelled:
    label = table[source.label]
    if source.label_positive is not None:
      add(source.label, label.is_null(), 'a label')
    elif source.label_threshold is not None:
      add(source.label, ~np.isfinite(label.to_numpy()), 'a number')
    else:
      values = label.to_numpy()
      add(source.label, ~((values == 0) | (values == 1)), 'a label, 0 or 1')
    if source.weight is not None:
      with np.errstate(over='ignore', under='ignore'):
        values = table[source.weight].to_numpy().astype(np.float32)
      add(
        source.weight, ~(np.isfinite(values) & (values > 0)), 'a weight above 0'
      )
    if source.time is not None:
      add(source.time, ~np.isfinite(table[source.time].to_numpy()), 'a time')
  for column in source.columns:
    if column.kind == 'numeric':
      values = table[column.name].to_numpy()
      add(column.name, np.isinf(values), 'a finite number')
      large = np.abs(values) > _FLOAT32_MAX
      add(column.name, large, f'a number within {_FLOAT32_MAX:.1e}')
    elif source.format in ('libsvm', 'libffm'):
      values = table[column.name].to_numpy()
      outside = ~((values >= 0) & (values <= _INT32_MAX))
      add(column.name, outside, f'an id from 0 to {_INT32_MAX}')
  bad = np.zeros(len(table), bool)
  for _, found, _ in checks:
    bad |= found
  reasons = []
  for row in np.flatnonzero(bad):
    name, _, expected = next(check for check in checks if check[1][row])
    value = table[name][row].as_py()
    # A cell that is no number was emptied to go on: the raw row shows it.
    if wrong and name in wrong:
      shown = 'no number'
    else:
      shown = 'empty' if value is None else repr(value)
    reasons.append(
      (int(row), f'column {name!r} is {shown}; expected {expected}.')
    )
  return table.filter(pa.array(~bad)) if reasons else table, reasons


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
  empty, unit = True, 'row' if source.format == 'parquet' else 'line'
  for block in blocks:
    empty = False
    table, bad = block.table, block.bad
    if len(table):
      if derive is not None:
        table = derive(table)
        _check_names(source, path, table.column_names)
      table = _fill_defaults(source, table)
      table, reasons = _checked(source, table, wrong=block.wrong)
      bad = bad + [
        BadRow(path, int(block.lines[row]), reason, block.text(row), unit)
        for row, reason in reasons
      ]
    yield Block(table, sorted(bad, key=lambda row: row.line), block.position)
  if empty:
    what = 'has no rows' if os.path.getsize(path) else 'is empty'
    raise errors.DataError(f'{path} {what}.')


def _fill_defaults(source, table):
  for column in source.columns:
    if column.default is None:
      continue
    place, values = table.column_names.index(column.name), table[column.name]
    if column.kind == 'numeric':
      default = float(column.default)
    elif has_lists(values):
      values = pc.cast(values, pa.list_(pa.string()))
      default = pa.scalar([str(column.default)], values.type)
    else:
      values = pc.cast(values, pa.string())
      default = str(column.default)
    filled = pc.fill_null(values, default)
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
    if first == 1:
      data = data.removeprefix(_BOM)
    if b'\r' in data:
      data = data.replace(b'\r\n', b'\n')
    if names is None:
      start = _BLANK_LINES.match(data).end()
      first += data.count(b'\n', 0, start)
      head, _, data = data[start:].partition(b'\n')
      if not head:
        continue
      names = _header(source, path, head)
      first += 1
    if lines_lib is None:
      if not source.derive:  # Derived columns are not there yet.
        _check_names(source, path, names)
      lines_lib = _Lines(source, names, path)
    if not data:
      continue
    yield _parse_block(lines_lib, data, first, position)


def _header(source, path, head):
  try:
    text = head.decode(source.encoding)
  except UnicodeDecodeError as error:
    raise errors.DataError(
      f'{path}, line 1: not {source.encoding} text; `encoding` says what a '
      'file is in. Convert it to utf-8 where letters have two bytes each.'
    ) from error
  if '\r' in text:
    raise errors.DataError(
      f'{path}, line 1: a carriage return; expected lines that end in \\n or '
      '\\r\\n.'
    )
  names = cells(text, source.delimiter, source.quoted)
  if names is None:
    raise errors.DataError(
      f'{path}, line 1: a quote that is not closed; expected a header of one '
      'line.'
    )
  return [name.strip() for name in names]


def _check_names(source, path, names, labelled=True):
  for name in sorted(_used_names(source, labelled)):
    if name not in names:
      raise errors.DataError(
        f'{path} has no column {name!r}; its columns are: '
        f'{", ".join(names[:60])}.' + source_lib.nearest(name, names)
      )
    if names.count(name) > 1:
      raise errors.DataError(f'{path} has several columns {name!r}.')


def _parse_block(lines_lib, data, first, position) -> _Parsed:
  source = lines_lib.source
  encoding, comment = source.encoding, (source.comment or '').encode()
  if lines_lib.is_sparse:
    data = data.replace(b' \n', b'\n')  # As some tools end their lines.
  # What could make up for a row that is not where its line is.
  is_plain = b'\r' not in data and not (
    comment and (data.startswith(comment) or b'\n' + comment in data)
  )
  try:
    table = lines_lib.parse(data) if is_plain else None
    if table is not None and len(table) == data.count(b'\n'):
      text = lambda row: data.split(b'\n')[row].decode(encoding, 'replace')
      numbers = first + np.arange(len(table))
      return _stripped(_Parsed(table, numbers, text, [], position), lines_lib)
  except pa.ArrowInvalid:
    pass
  # Some line is bad, or no row: look at each.
  good, numbers, bad = [], [], []

  def keep_out(number, raw, reason):
    text = raw.decode(encoding, 'replace')
    bad.append(BadRow(lines_lib.path, number, reason, text))

  for number, raw in enumerate(data.split(b'\n')[:-1], first):
    if not raw.strip() and len(lines_lib.names) > 1:
      continue  # A blank line is no row, at the end of a file or anywhere.
    if comment and raw.startswith(comment):
      continue
    try:
      reason = lines_lib.reason(raw.decode(encoding))
    except UnicodeDecodeError:
      reason = f'not {encoding} text; `encoding` says what a file is in.'
    if reason is None:
      good.append(raw)
      numbers.append(number)
    else:
      keep_out(number, raw, reason)
  tables, others = lines_lib.parse_each(good) if good else ([], [])
  for place, reason in reversed(others):
    keep_out(numbers.pop(place), good.pop(place), reason)
  text = lambda row: good[row].decode(encoding, 'replace')
  table = pa.concat_tables(tables) if tables else pa.table({})
  parsed = _Parsed(table, np.array(numbers, int), text, bad, position)
  return _stripped(parsed, lines_lib) if tables else parsed


def _stripped(parsed, lines_lib):
  if not lines_lib.source.strip:
    return parsed
  table, wrong = _typed(lines_lib.source, parsed.table)
  return dataclasses.replace(parsed, table=table, wrong=wrong)


def _read_parquet(source, path):
  import pyarrow.parquet as pq

  try:
    file = pq.ParquetFile(path)
  except FileNotFoundError as error:
    raise errors.DataError(f'{path} does not exist.') from error
  except (pa.ArrowInvalid, OSError) as error:
    raise errors.DataError(f'{path} is not Parquet: {error}.') from error
  names = file.schema_arrow.names
  if not source.derive:
    _check_names(source, path, names)
  size, done = os.path.getsize(path), 0
  used = names
  if not source.derive:
    used = [name for name in names if name in _used_names(source)]
  batches = file.iter_batches(2**16, columns=used)
  while True:
    try:
      batch = next(batches, None)
    except (pa.ArrowException, OSError) as error:
      raise errors.DataError(
        f'{path} is damaged after row {done}: {error}. Fetch it again.'
      ) from error
    if batch is None:
      return
    raw = pa.Table.from_batches([batch])
    table, wrong = _typed(source, raw)
    first = done + 1
    done += len(raw)
    position = size * done // max(file.metadata.num_rows, 1)
    text = lambda row, raw=raw: str(raw.slice(row, 1).to_pylist()[0])
    lines = first + np.arange(len(raw))
    yield _Parsed(table, lines, text, [], position, wrong)


def _typed(source, table, labelled=True):
  """Columns as `read` gives them: (table, numbers that are none).

  Returns:
    Numeric columns as float64, texts as strings, integers and lists as they
    are; column -> bool [R], for cells that are not the number they should be.
  """
  columns, wrong = {}, {}
  numeric = _numeric_names(source, labelled)
  several = {c.name for c in source.columns if c.max_length > 1}
  for name in table.column_names:
    try:
      column = plain(table[name])
      if has_lists(column):
        if name not in several:
          raise errors.DataError(
            f'{source.name}: column {name!r} holds lists; expected a Column of '
            'it with max_length above 1.'
          )
      elif name in numeric:
        column, bad = _numbers(source, column)
        if bad.any():
          wrong[name] = bad
      elif not pa.types.is_integer(column.type):
        column = _without_missing(source, pc.cast(column, pa.string()))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
      raise errors.DataError(
        f'{source.name}: column {name!r} is {table[name].type}: {error}.'
      ) from error
    columns[name] = column
  return pa.table(columns), wrong


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
      bad = np.array([c is not None and not is_number(c) for c in cells])
      column = pc.if_else(pa.array(bad), pa.scalar(None, pa.string()), column)
  if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
    micro = pc.cast(pc.cast(column, pa.timestamp('us'), safe=False), pa.int64())
    return pc.divide(pc.cast(micro, pa.float64(), safe=False), 1e6), bad
  return pc.cast(column, pa.float64(), safe=False), bad


def has_lists(column: pa.Array | pa.ChunkedArray) -> bool:
  """Whether the cells of a column are lists."""
  return pa.types.is_list(column.type) or pa.types.is_large_list(column.type)


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
) -> tuple[pa.Table, list[BadRow]]:
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
  _check_names(source, source.name, raw.column_names, labelled)
  used = _used_names(source, labelled)
  raw = raw.select([name for name in raw.column_names if name in used])
  table, wrong = _typed(source, raw, labelled)
  table = _fill_defaults(source, table)
  checked, bad = _checked(source, table, labelled, wrong)
  return checked, [
    BadRow(
      source.name, row, reason, str(raw.slice(row, 1).to_pylist()[0]), 'row'
    )
    for row, reason in bad
  ]
