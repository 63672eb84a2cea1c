"""Lines of text parsed into rows: delimited ones, libsvm and libffm.

A block is parsed whole by Arrow; only where that fails are its lines looked at
one by one, to name the bad ones or to keep them out.
"""

from collections.abc import Iterator
import dataclasses
import re

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

from jax_autorec import errors
from jax_autorec.data import arrow, checks, columns
from jax_autorec.data import source as source_lib
from jax_autorec.data import text as text_lib

_DELIMITER = '\x1f'  # In place of one of several bytes.
_QUOTE = '"'
_BOM = b'\xef\xbb\xbf'
_INTEGER = re.compile(r'-?\d{1,19}', re.ASCII)
_BLANK_LINES = re.compile(rb'(?:[ \t\r]*\n)*')
_QUOTED = re.compile(r'"(?:[^"]|"")*"')


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


class _Lines:
  """How the lines of one source become columns."""

  def __init__(self, source: source_lib.Source, names: list[str], path: str):
    self.source, self.names, self.path = source, names, path
    # A derived column is made of others, which must be read for it.
    used = names if source.derive else columns.used_names(source)
    self.used = [name for name in names if name in used]
    numeric = columns.numeric_names(source)
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
      data, delimiter = self._one_byte_delimiter(data), _DELIMITER
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

  def _one_byte_delimiter(self, data):
    """The block with `_DELIMITER`, which is all that Arrow takes."""
    source = self.source
    wide = source.delimiter.encode(source.encoding)
    if not (source.quoted and b'"' in data):
      return data.replace(wide, _DELIMITER.encode())
    lines = []
    for line in data.split(b'\n'):
      text = line.decode(source.encoding, 'surrogateescape')
      found = cells(text, source.delimiter, '"' in text)
      if found is None:  # Arrow says what is wrong with it.
        found = text.split(source.delimiter)
      elif '"' in text:  # Within quotes a delimiter is none.
        found = [f'"{cell.replace(_QUOTE, 2 * _QUOTE)}"' for cell in found]
      text = _DELIMITER.join(found)
      lines.append(text.encode(source.encoding, 'surrogateescape'))
    return b'\n'.join(lines)

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
      if name in self.numeric and not arrow.is_number(cell):
        expected = checks.expected_of(source, name)
        return f'column {name!r} is {cell!r}; expected {expected}.'
      if name in self.integer and not _is_integer(cell):
        return f'column {name!r} is {cell!r}; expected an integer.'
      if name.startswith('#value:') and cell != '1':
        return f'the value of {name[7:]!r} is {cell!r}; expected 1.'
    return None


def _is_integer(cell: str) -> bool:
  return _INTEGER.fullmatch(cell) is not None and abs(int(cell)) < 2**63


def read(
  source: source_lib.Source, path: str, block_bytes: int
) -> Iterator[checks.Parsed]:
  """Rows of a text file, block by block (see `readers.read`)."""
  names = list(source.header) if source.header else None
  if source.format in ('libsvm', 'libffm'):
    names = [source.label]
    for column in source.columns:
      extra = ['#field'] if source.format == 'libffm' else []
      names += [f'{e}:{column.name}' for e in extra]
      names += [column.name, f'#value:{column.name}']
  parser, comment = None, (source.comment or '').encode(source.encoding)
  for data, first, position in text_lib.numbered_blocks(path, block_bytes):
    if first == 1:
      data = data.removeprefix(_BOM)
    if b'\r' in data:
      data = data.replace(b'\r\n', b'\n')
    while names is None and data:
      start = _BLANK_LINES.match(data).end()
      first += data.count(b'\n', 0, start)
      head, _, data = data[start:].partition(b'\n')
      if head and not (comment and head.startswith(comment)):
        names = _header(source, path, first, head)
      first += bool(head)
    if names is None:
      continue
    if parser is None:
      if not source.derive:  # Derived columns are not there yet.
        columns.check_names(source, path, names)
      parser = _Lines(source, names, path)
    if not data:
      continue
    yield _parse_block(parser, data, first, position)


def _header(source, path, number, head):
  try:
    text = head.decode(source.encoding)
  except UnicodeDecodeError as error:
    raise errors.DataError(
      f'{path}, line {number}: not {source.encoding} text; `encoding` says '
      'what a file is in. Convert it to utf-8 where letters have two bytes '
      'each.'
    ) from error
  if '\r' in text:
    raise errors.DataError(
      f'{path}, line {number}: a carriage return; expected lines that end in '
      '\\n or \\r\\n.'
    )
  names = cells(text, source.delimiter, source.quoted)
  if names is None:
    raise errors.DataError(
      f'{path}, line {number}: a quote that is not closed; expected a header '
      'of one line.'
    )
  return [name.strip() for name in names]


def _parse_block(parser, data, first, position) -> checks.Parsed:
  source = parser.source
  encoding = source.encoding
  comment = (source.comment or '').encode(encoding)
  if parser.is_sparse:
    data = data.replace(b' \n', b'\n')  # As some tools end their lines.
  # What could make up for a row that is not where its line is.
  is_plain = b'\r' not in data and not (
    comment and (data.startswith(comment) or b'\n' + comment in data)
  )
  try:
    table = parser.parse(data) if is_plain else None
    if table is not None and len(table) == data.count(b'\n'):
      text = lambda row: data.split(b'\n')[row].decode(encoding, 'replace')
      numbers = first + np.arange(len(table))
      return _stripped(
        checks.Parsed(table, numbers, text, [], position), parser
      )
  except pa.ArrowInvalid:
    pass
  # Some line is bad, or no row: look at each.
  good, numbers, bad = [], [], []

  def keep_out(number, raw, reason):
    text = raw.decode(encoding, 'replace')
    bad.append(checks.BadRow(parser.path, number, reason, text))

  for number, raw in enumerate(data.split(b'\n')[:-1], first):
    if not raw.strip() and len(parser.names) > 1:
      continue  # A blank line is no row, at the end of a file or anywhere.
    if comment and raw.startswith(comment):
      continue
    try:
      reason = parser.reason(raw.decode(encoding))
    except UnicodeDecodeError:
      reason = f'not {encoding} text; `encoding` says what a file is in.'
    if reason is None:
      good.append(raw)
      numbers.append(number)
    else:
      keep_out(number, raw, reason)
  tables, others = parser.parse_each(good) if good else ([], [])
  for place, reason in reversed(others):
    keep_out(numbers.pop(place), good.pop(place), reason)
  text = lambda row: good[row].decode(encoding, 'replace')
  table = pa.concat_tables(tables) if tables else pa.table({})
  parsed = checks.Parsed(table, np.array(numbers, int), text, bad, position)
  return _stripped(parsed, parser) if tables else parsed


def _stripped(parsed, parser):
  if not parser.source.strip:
    return parsed
  table, wrong = columns.typed(parser.source, parsed.table)
  return dataclasses.replace(parsed, table=table, wrong=wrong)
