"""A first schema file for a person's own table, to be looked over."""

import json
import os
import pathlib
import re

import pyarrow as pa
import pyarrow.compute as pc

from jax_autorec import errors
from jax_autorec.data import arrow, store
from jax_autorec.data import lines as lines_lib
from jax_autorec.data import text as text_lib

_SAMPLE_ROWS = 20_000
_LABELS = ('label', 'click', 'clicked', 'target', 'y', 'action', 'rating')
_POSITIVE = ('1', '1.0', 'yes', 'y', 'true', 't', 'click', 'clicked')
_DELIMITERS = (',', '\t', ';', '|', '::')
_ID_NAME = re.compile(
  r'^(user|item|movie|ad|zip)$|(^|[^A-Za-z])(id|code)$|[a-z]I[dD]$|ID$|^id$',
)
_MISSING = ('', 'NA', 'N/A', 'NaN', 'nan', 'null', 'NULL', '?', '\\N')


def schema_path(path: str | os.PathLike[str]) -> pathlib.Path:
  """Where the schema file of a raw file goes.

  Beside it; in the working directory where its own is marked read-only.
  """
  path = pathlib.Path(path)
  if store.is_read_only(path.absolute().parent):
    path = pathlib.Path(path.name)
  stem = path.name
  for suffix in ('.gz', '.zst', '.csv', '.tsv', '.txt', '.parquet'):
    stem = stem.removesuffix(suffix)
  return path.with_name(stem + '.toml')


def write_schema_file(path: str | os.PathLike[str]) -> pathlib.Path:
  """Looks at a file's first rows and writes a schema file (`schema_path`).

  Raises:
    DataError: for a file that cannot be read, or where one is there already.
  """
  target = schema_path(path)
  if target.exists():
    raise errors.DataError(f'{target} exists already: edit or delete it.')
  path = str(path)
  is_beside = target.absolute().parent == pathlib.Path(path).absolute().parent
  named = os.path.basename(path) if is_beside else os.path.abspath(path)
  if path.endswith('.parquet'):
    names, rows = _parquet(path)
    head = ['format = "parquet"']
  else:
    names, rows, head = _delimited(path)
  twice = sorted({name for name in names if names.count(name) > 1} - {''})
  if twice:
    raise errors.DataError(
      f'{path} has several columns {twice[0]!r}; expected distinct names. '
      'Rename them in its header.'
    )
  if len(names) < 2:
    raise errors.DataError(
      f'{path} has the one column {names[0]!r}; expected a label and inputs, '
      f'parted by one of {", ".join(map(repr, _DELIMITERS))}.'
    )
  label, declared = _guess_label(names, rows)
  columns = [
    _column(name, [row[i] for row in rows])
    for i, name in enumerate(names)
    if name not in (label, '')  # The index of a DataFrame has no name.
  ]
  lines = [
    '# How to read a table; see jax_autorec/data/README.md for all keys.',
    f'# Guessed from the first {len(rows)} rows: look every line over.',
    declared,
    'missing = [' + ', '.join(_text(m) for m in _MISSING) + ']',
    'min_count = 1  # rarer values share the unknown id',
    *head,
    '',
    '[files]  # or train = ..., valid = ..., test = ...',
    f'all = {_text(named)}',
    '',
    '[split]',
    'kind = "ratio"  # or "time", with time = "COLUMN" above',
    'valid = 0.1',
    'test = 0.1',
    'seed = 0',
  ]
  text = '\n'.join(lines) + '\n' + ''.join(columns)
  try:
    target.write_text(text, 'utf-8')
  except OSError as error:
    raise errors.DataError(
      f'Cannot write {target}: {error.strerror}.'
    ) from error
  return target


def _text(value: str) -> str:
  """A TOML string; json's escapes of emoji are none of TOML's."""
  return json.dumps(value, ensure_ascii=False).replace('\x7f', '\\u007f')


def _parquet(path):
  import pyarrow.parquet as pq

  try:
    table = next(pq.ParquetFile(path).iter_batches(_SAMPLE_ROWS), None)
  except FileNotFoundError as error:
    raise errors.DataError(f'{path} does not exist.') from error
  except (OSError, pa.ArrowException) as error:
    raise errors.DataError(f'{path} is not Parquet: {error}.') from error
  if table is None:
    raise errors.DataError(f'{path} has no rows.')
  names = table.schema.names
  return names, list(zip(*map(_cells, names, table.columns)))


def _cells(name, column):
  """A column's cells: texts as the reader makes them, or lists of values."""
  try:
    column = arrow.plain(pa.chunked_array([column]))
    if arrow.has_lists(column):
      return [values or [] for values in column.to_pylist()]
    texts = pc.cast(column, pa.string())
  except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
    raise errors.DataError(
      f'Column {name!r} is {column.type}: {error}; leave it out of the file.'
    ) from error
  return pc.fill_null(texts, '').to_pylist()


def _delimited(path):
  data = b''
  for block in text_lib.blocks(path):
    data = block
    break
  if not data:
    raise errors.DataError(f'{path} is empty.')
  encoding = 'utf-8'
  try:
    text = data.decode('utf-8-sig')
  except UnicodeDecodeError:
    if b'\0' in data:
      raise errors.DataError(
        f'{path} is no text in utf-8; expected a table as text. Convert it '
        'first where letters have two bytes each.'
      ) from None
    encoding, text = 'latin-1', data.decode('latin-1')
  lines = [line for line in re.split(r'\r?\n', text) if line.strip()]
  lines = lines[: _SAMPLE_ROWS + 1]
  if not lines:
    raise errors.DataError(f'{path} has no rows.')
  delimiter = max(_DELIMITERS, key=lambda d: _num_cells(lines[:50], d))
  rows = [lines_lib.cells(line, delimiter, True) or [] for line in lines]
  head = [f'delimiter = {_text(delimiter)}']
  if encoding != 'utf-8':
    head.append(f'encoding = "{encoding}"  # A GUESS: it is not utf-8')
  first = [cell.strip() for cell in rows[0]]
  # The index of a DataFrame comes first, without a name.
  has_header = all(first[1:]) and not any(map(arrow.is_number, first))
  if has_header:
    names, rows = first, rows[1:]
  else:
    names = ['label'] + [f'column_{i}' for i in range(1, len(first))]
    listed = ', '.join(map(_text, names))
    head.append(f'header = [{listed}]  # the file has no header line')
  rows = [row for row in rows if len(row) == len(names)]
  if not rows:
    raise errors.DataError(
      f'{path} has no rows under its header of {len(names)} columns parted by '
      f'{delimiter!r}.'
    )
  return names, rows, head


def _num_cells(lines, delimiter):
  """How many cells nearly all lines have at least."""
  counts = sorted(len(lines_lib.cells(l, delimiter, True) or ()) for l in lines)
  return counts[len(counts) // 10]  # A cell of several lines spoils some.


def _guess_label(names, rows):
  """The likely label column, and the line or two that declare it."""
  distinct = [
    sorted({str(row[i]) for row in rows} - set(_MISSING))
    for i in range(len(names))
  ]
  lowered = [name.lower() for name in names]
  named = [lowered.index(name) for name in _LABELS if name in lowered]
  binary = [i for i, d in enumerate(distinct) if d == ['0', '1']]
  # Two words of which one says yes.
  worded = [
    i
    for i, d in enumerate(distinct)
    if len(d) == 2 and any(x.lower() in _POSITIVE for x in d)
  ]
  found = (named + binary + worded + [0])[0]
  declared = f'label = {_text(names[found])}'
  values = distinct[found]
  if not set(values) <= {'0', '1'}:
    positive = [x for x in values if x.lower() in _POSITIVE]
    if len(values) == 2 and positive:
      declared += f'\nlabel_positive = [{_text(positive[-1])}]'
    elif all(arrow.is_number(x) for x in values):
      middle = sorted(map(float, values))[len(values) // 2]
      declared += f'\nlabel_threshold = {middle}  # A GUESS: from where on 1?'
    else:
      declared += '  # A GUESS: no column looks like 0 and 1'
      declared += '\n# label_positive = ["yes"]  # what means 1'
  return names[found], declared


def _column(name, cells):
  """One [[columns]] entry: numeric if its values are many and all numbers."""
  lists = [cell for cell in cells if isinstance(cell, list)]
  if lists:
    longest = max(map(len, lists))
    return (
      f'\n[[columns]]\nname = {_text(name)}\n'
      f'max_length = {max(longest, 2)}  # values kept; the longest list of '
      f'{len(lists)} has {longest}\n'
    )
  values = [cell for cell in cells if cell not in _MISSING]
  distinct = set(values)
  decimal = any('.' in value or 'e' in value.lower() for value in distinct)
  numbers = bool(values) and all(arrow.is_number(value) for value in distinct)
  # Whole numbers that are nearly all different, or few, are ids more often
  # than quantities.
  several = 20 < len(distinct) < 0.5 * len(values)
  numeric = numbers and (decimal or several) and not _ID_NAME.search(name)
  lines = ['', '[[columns]]', f'name = {_text(name)}']
  note = f'  # {len(distinct)} distinct of {len(values)}'
  if not numeric and len(distinct) > 0.9 * len(values) and len(values) > 50:
    note += ': tells rows apart, not what they have in common; leave it out?'
  if numeric:
    lines.append(f'kind = "numeric"{note}')
    lines.append('scaler = "log"  # or discretize = "equal_frequency"')
  else:
    lines.append(f'kind = "categorical"{note}')
  return '\n'.join(lines) + '\n'
