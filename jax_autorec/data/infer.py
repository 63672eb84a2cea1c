"""A first schema file for a person's own table, to be looked over."""

import csv
import json
import os
import pathlib

from jax_autorec import errors
from jax_autorec.data import readers

_SAMPLE_ROWS = 20_000
_LABELS = ('label', 'click', 'clicked', 'target', 'y', 'action', 'rating')
_POSITIVE = ('1', '1.0', 'yes', 'y', 'true', 't', 'click', 'clicked')
_MISSING = ('', 'NA', 'N/A', 'NaN', 'nan', 'null', 'NULL', '?', '\\N')


def schema_path(path: str | os.PathLike[str]) -> pathlib.Path:
  """Where the schema file of a raw file goes: beside it."""
  path = pathlib.Path(path)
  stem = path.name
  for suffix in ('.gz', '.zst', '.csv', '.tsv', '.txt', '.parquet'):
    stem = stem.removesuffix(suffix)
  return path.with_name(stem + '.toml')


def write_schema_file(path: str | os.PathLike[str]) -> pathlib.Path:
  """Looks at a file's first rows and writes a schema file beside it.

  Raises:
    DataError: for a file that cannot be read, or where one is there already.
  """
  target = schema_path(path)
  if target.exists():
    raise errors.DataError(f'{target} exists already: edit or delete it.')
  path = str(path)
  if path.endswith('.parquet'):
    names, rows = _parquet(path)
    head = ['format = "parquet"']
  else:
    names, rows, head = _delimited(path)
  label, declared = _guess_label(names, rows)
  columns = [
    _column(name, [row[i] for row in rows])
    for i, name in enumerate(names)
    if name != label
  ]
  lines = [
    '# How to read a table; see jax_autorec/data/README.md for all keys.',
    f'# Guessed from the first {len(rows)} rows: look every line over.',
    declared,
    'missing = [' + ', '.join(json.dumps(m) for m in _MISSING) + ']',
    'min_count = 1  # rarer values share the unknown id',
    *head,
    '',
    '[files]  # or train = ..., valid = ..., test = ...',
    f'all = {json.dumps(os.path.basename(path))}',
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


def _parquet(path):
  import pyarrow as pa
  import pyarrow.parquet as pq

  try:
    table = next(pq.ParquetFile(path).iter_batches(_SAMPLE_ROWS), None)
  except (OSError, pa.ArrowInvalid) as error:
    raise errors.DataError(f'{path} is not Parquet: {error}.') from error
  if table is None:
    raise errors.DataError(f'{path} is empty.')
  columns = [
    ['' if v is None else str(v) for v in column.to_pylist()]
    for column in table.columns
  ]
  return table.schema.names, list(zip(*columns))


def _delimited(path):
  data = b''
  for block in readers.text_blocks(path):
    data = block
    break
  if not data:
    raise errors.DataError(f'{path} is empty.')
  lines = data.decode('utf-8', 'replace').splitlines()[: _SAMPLE_ROWS + 1]
  delimiter = max(',\t;|', key=lambda d: min(l.count(d) for l in lines[:50]))
  rows = list(csv.reader(lines, delimiter=delimiter))
  head = [f'delimiter = {json.dumps(delimiter)}']
  first = rows[0]
  has_header = not any(_is_number(cell) for cell in first) and all(first)
  if has_header:
    names, rows = [cell.strip() for cell in first], rows[1:]
  else:
    names = ['label'] + [f'column_{i}' for i in range(1, len(first))]
    listed = ', '.join(json.dumps(name) for name in names)
    head.append(f'header = [{listed}]  # the file has no header line')
  rows = [row for row in rows if len(row) == len(names)]
  if not rows:
    raise errors.DataError(f'{path} has no rows under its header.')
  return names, rows, head


def _is_number(cell: str) -> bool:
  try:
    float(cell)
  except ValueError:
    return False
  return True


def _guess_label(names, rows):
  """The likely label column, and the line or two that declare it."""
  distinct = [
    sorted({row[i] for row in rows} - set(_MISSING)) for i in range(len(names))
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
  declared = f'label = {json.dumps(names[found])}'
  values = distinct[found]
  if not set(values) <= {'0', '1'}:
    positive = [x for x in values if x.lower() in _POSITIVE]
    if len(values) == 2 and positive:
      declared += f'\nlabel_positive = [{json.dumps(positive[-1])}]'
    elif all(_is_number(x) for x in values):
      middle = sorted(map(float, values))[len(values) // 2]
      declared += f'\nlabel_threshold = {middle}  # A GUESS: from where on 1?'
    else:
      declared += '  # A GUESS: no column looks like 0 and 1'
      declared += '\n# label_positive = ["yes"]  # what means 1'
  return names[found], declared


def _column(name, cells):
  """One [[columns]] entry: numeric if its values are many and all numbers."""
  values = [cell for cell in cells if cell not in _MISSING]
  distinct = set(values)
  decimal = any('.' in value or 'e' in value.lower() for value in distinct)
  numbers = bool(values) and all(_is_number(value) for value in distinct)
  # Whole numbers that are nearly all different, or few, are ids more often
  # than quantities.
  several = 20 < len(distinct) < 0.5 * len(values)
  numeric = numbers and (decimal or several)
  lines = ['', '[[columns]]', f'name = {json.dumps(name)}']
  note = f'  # {len(distinct)} distinct of {len(values)}'
  if not numeric and len(distinct) > 0.9 * len(values) and len(values) > 50:
    note += ': tells rows apart, not what they have in common; leave it out?'
  if numeric:
    lines.append(f'kind = "numeric"{note}')
    lines.append('scaler = "log"  # or discretize = "equal_frequency"')
  else:
    lines.append(f'kind = "categorical"{note}')
  return '\n'.join(lines) + '\n'
