"""From raw files to an encoded store, in one pass over the text.

Rows are first written with provisional codes; once all are read, splits are
settled, ids fitted on the train split, and the codes rewritten. Text is parsed
once, and no step holds the rows in memory (a split by time holds 16 bytes per
row, for the sort).
"""

from collections.abc import Callable
import hashlib
import json
import os
import pathlib
import shutil
from typing import Any

from absl import logging
import numpy as np
import pyarrow as pa

from jax_autorec import errors
from jax_autorec import schema as schema_lib
from jax_autorec.data import dataset as dataset_lib
from jax_autorec.data import encode, readers, store, transforms
from jax_autorec.data import source as source_lib

Progress = Callable[[int, int, int], None]  # rows, bytes, bytes in all.

_SPLITS = ('train', 'valid', 'test')
_ROWS = 2**18  # Rows per rewriting step.
_SAMPLE = 10**6  # Rows that numeric maps are fitted on, at most.


class _Provisional:
  """Rows with provisional codes, in files of a scratch directory."""

  def __init__(self, directory: pathlib.Path, source: source_lib.Source):
    self.source = source
    self.categorical = [c for c in source.columns if c.kind == 'categorical']
    self.numeric = [c for c in source.columns if c.kind == 'numeric']
    self.interners = {c.name: encode.Interner() for c in self.categorical}
    self.groups = encode.Interner()
    self.rows = 0
    self._widths = {
      'codes': ('<i4', sum(c.max_length for c in self.categorical)),
      'numeric': ('<f4', len(self.numeric)),
      'labels': ('<f4', 1),
      'parts': ('|u1', 1),
    }
    for name, dtype in (('weight', '<f4'), ('group', '<i4'), ('time', '<f8')):
      if getattr(source, name):
        self._widths[name] = dtype, 1
    self._directory = directory
    self._files = {name: open(directory / name, 'wb') for name in self._widths}

  def append(self, table: pa.Table, part: int) -> None:
    """Adds a block's rows; `part` says which files they come from."""
    source, count = self.source, len(table)
    codes = [self._codes(column, table) for column in self.categorical]
    columns = {
      'codes': np.concatenate(codes, 1) if codes else np.zeros((count, 0)),
      'numeric': np.stack([table[c.name].to_numpy() for c in self.numeric], 1)
      if self.numeric
      else np.zeros((count, 0)),
      'labels': _labels(source, table),
      'parts': np.full(count, part),
    }
    if source.weight:
      columns['weight'] = table[source.weight].to_numpy()
    if source.time:
      columns['time'] = table[source.time].to_numpy()
    if source.group:
      columns['group'] = self.groups.codes(table[source.group])
    for name, values in columns.items():
      values = np.ascontiguousarray(values, self._widths[name][0])
      values.tofile(self._files[name])
    self.rows += count

  def _codes(self, column, table):
    interner, values = self.interners[column.name], table[column.name]
    if column.separator is None:
      return interner.codes(values)[:, None]
    flat, places = encode.split_cells(values, column)
    codes = interner.codes(flat)
    codes = np.append(codes, np.array([encode.PAD, encode.MISSING], np.int32))
    return codes[places]

  def open(self) -> dict[str, np.ndarray]:
    """The files as memory-mapped arrays, [rows, width] or [rows]."""
    arrays = {}
    for name, (dtype, width) in self._widths.items():
      self._files[name].close()
      shape = (self.rows, width)
      if 0 in shape:
        arrays[name] = np.zeros(shape, dtype)
      else:
        arrays[name] = np.memmap(
          self._directory / name, dtype, 'r', shape=shape
        )
      if name not in ('codes', 'numeric'):
        arrays[name] = arrays[name][:, 0]
    return arrays

  def close(self) -> None:
    for file in self._files.values():
      try:
        file.close()
      except OSError:
        pass  # A full disk fails on what is still buffered.


def _labels(source, table):
  label = table[source.label]
  if source.label_positive is not None:
    return np.isin(
      np.array(label.to_pylist(), object).astype(str), source.label_positive
    )
  values = label.to_numpy()
  if source.label_threshold is not None:
    return values >= source.label_threshold
  return values


def prepare(
  source: source_lib.Source,
  root: str | os.PathLike[str],
  *,
  bad_rows: str = 'raise',
  progress: Progress | None = None,
) -> pathlib.Path:
  """Encodes raw files into a store under `root`, unless it is there already.

  Args:
    source: what the files hold.
    root: directory of stores.
    bad_rows: 'raise' stops at the first; 'quarantine' keeps them out, writes
      them to quarantine.jsonl in the store and counts them.
    progress: called with rows, bytes and bytes in all after each block.

  Returns:
    The store's directory.

  Raises:
    DataError: for bad rows, missing, empty or damaged files, a damaged store
      or a disk that cannot be written.
  """
  if bad_rows not in ('raise', 'quarantine'):
    raise errors.DataError(
      f'bad_rows is {bad_rows!r}; expected "raise" or "quarantine".'
    )
  settings = json.dumps(
    [source.settings(), bad_rows, store.VERSION], sort_keys=True, default=str
  )
  digest = hashlib.sha256(settings.encode()).hexdigest()
  target = pathlib.Path(root) / f'{source.name}-{digest[:12]}'
  paths = _paths(source)
  manifest = store.read_manifest(target)
  if manifest is not None:
    if _same_inputs(manifest['inputs'], paths):
      return target
    logging.info('%s: the raw data has changed, encoding it anew.', source.name)
  writer = store.Writer(target)
  scratch = writer.directory / 'provisional'
  try:
    scratch.mkdir()
    rows = _Provisional(scratch, source)
    try:
      counts = _read_all(source, rows, writer.directory, bad_rows, progress)
    finally:
      rows.close()
    encoder = _rewrite(source, rows, writer)
    shutil.rmtree(scratch)
    inputs = {path: _identity(path) for path in paths}
    hashes = sorted(entry['sha256'] for entry in inputs.values())
    fingerprint = hashlib.sha256(''.join([digest, *hashes]).encode())
    writer.finish(
      {
        'name': source.name,
        'fingerprint': fingerprint.hexdigest(),
        'inputs': inputs,
        'counts': counts,
        'settings': json.loads(settings)[0],
      },
      encoder,
    )
  except OSError as error:
    writer.abandon()
    raise errors.DataError(
      f'Cannot write {target}: {error.strerror or error}. Free some space or '
      'give another --data_dir; nothing was left behind.'
    ) from error
  except BaseException:
    writer.abandon()
    raise
  return target


def load(
  source: source_lib.Source, root: str | os.PathLike[str], **options
) -> dataset_lib.Dataset:
  """The encoded set of a source; prepared first if need be (see `prepare`)."""
  return store.open_store(prepare(source, root, **options), source.name)


def _paths(source) -> list[str]:
  paths = [path for found in source.files.values() for path in found]
  paths += [*source.side_files, *source.rows.values()]
  for path in paths:
    if not os.path.exists(path):
      raise errors.DataError(f'{path} does not exist.')
  return paths


def _identity(path: str) -> dict[str, Any]:
  digest = hashlib.sha256()
  with open(path, 'rb') as file:
    while data := file.read(2**22):
      digest.update(data)
  stat = os.stat(path)
  return {
    'bytes': stat.st_size,
    'modified': stat.st_mtime_ns,
    'sha256': digest.hexdigest(),
  }


def _same_inputs(known: dict[str, Any], paths: list[str]) -> bool:
  """Whether files are those that were encoded: by time stamp, or content."""
  by_name = {os.path.basename(path): entry for path, entry in known.items()}
  if sorted(by_name) != sorted({os.path.basename(path) for path in paths}):
    return False
  for path in paths:
    entry, stat = by_name[os.path.basename(path)], os.stat(path)
    if entry['bytes'] != stat.st_size:
      return False
    if entry['modified'] != stat.st_mtime_ns:
      if entry['sha256'] != _identity(path)['sha256']:
        return False
  return True


def _read_all(source, rows, directory, bad_rows, progress):
  """Reads every file; returns how many rows were read, kept, quarantined."""
  total = sum(
    os.path.getsize(path) for found in source.files.values() for path in found
  )
  derive = transforms.make(source) if source.derive else None
  done_bytes = quarantined = read = 0
  quarantine = None
  try:
    for split, found in source.files.items():
      part = ('all', *_SPLITS).index(split)
      for path in found:
        for block in readers.read(source, path, derive=derive):
          if block.bad and bad_rows == 'raise':
            raise errors.DataError(
              f'{block.bad[0]} (bad_rows="quarantine" keeps such rows out.)'
            )
          if block.bad:
            if quarantine is None:
              quarantine = open(
                directory / 'quarantine.jsonl', 'w', encoding='utf-8'
              )
            for bad in block.bad:
              line = {
                'file': os.path.basename(bad.path),
                'line': bad.line,
                'reason': bad.reason,
                'text': bad.text,
              }
              quarantine.write(json.dumps(line) + '\n')
          read += len(block.table) + len(block.bad)
          quarantined += len(block.bad)
          if len(block.table):
            rows.append(block.table, part)
          if progress:
            progress(read, done_bytes + block.bytes_read, total)
        done_bytes += os.path.getsize(path)
  finally:
    if quarantine is not None:
      quarantine.close()
  if read != rows.rows + quarantined:
    raise AssertionError(f'{read} != {rows.rows} + {quarantined} rows.')
  if quarantined:
    logging.warning(
      '%s: %d of %d rows are quarantined.', source.name, quarantined, read
    )
  if not rows.rows:
    raise errors.DataError(f'{source.name}: no row could be kept.')
  return {'read': read, 'kept': rows.rows, 'quarantined': quarantined}


def _settle_splits(source, arrays) -> tuple[np.ndarray, np.ndarray | None]:
  """Split number of every row; the order to write rows in, if not their own."""
  parts = arrays['parts']
  splits = np.where(parts == 0, 0, parts - 1).astype(np.uint8)
  rule = source.split
  rng = np.random.default_rng(rule.seed)
  order = None
  if 'all' in source.files and source.rows:
    splits[:] = 255
    for split, path in source.rows.items():
      numbers = _row_numbers(path, len(splits))
      splits[numbers] = _SPLITS.index(split)
    if (splits == 255).any():
      raise errors.DataError(
        f'{source.name}: {int((splits == 255).sum())} rows are in no split.'
      )
  elif 'all' in source.files and rule.kind == 'time':
    order = np.argsort(arrays['time'], kind='stable')
    train = round(len(order) * (1 - rule.valid - rule.test))
    valid = round(len(order) * (1 - rule.test))
    splits[order[train:valid]] = 1
    splits[order[valid:]] = 2
  elif 'all' in source.files:
    for start in range(0, len(splits), _ROWS):
      drawn = rng.random(len(splits[start : start + _ROWS]))
      chosen = np.where(drawn < rule.valid, 1, 0)
      chosen[drawn >= 1 - rule.test] = 2
      splits[start : start + _ROWS] = chosen
  if 'valid' not in source.files and not (splits == 1).any():
    train = np.flatnonzero(splits == 0)
    drawn = rng.random(len(train)) < rule.valid
    splits[train[drawn]] = 1
  for number, split in enumerate(_SPLITS):
    if not (splits == number).any():
      raise errors.DataError(f'{source.name}: the {split} split has no rows.')
  return splits, order


def _row_numbers(path, total):
  import gzip

  opener = gzip.open if path.endswith('.gz') else open
  try:
    with opener(path, 'rt') as file:
      numbers = np.loadtxt(file, np.int64, ndmin=1)
  except ValueError as error:
    raise errors.DataError(f'{path}: {error}; expected row numbers.') from error
  if len(numbers) and not 0 <= numbers.min() <= numbers.max() < total:
    raise errors.DataError(f'{path} names rows beyond the {total} that exist.')
  return numbers


def _rewrite(source, rows, writer) -> encode.Encoder:
  """Fits on the train split and writes the final files."""
  arrays = rows.open()
  splits, order = _settle_splits(source, arrays)
  train_rows = np.flatnonzero(splits == 0)
  vocabularies, maps, widths = {}, {}, []
  place = 0
  for column in rows.categorical:
    interner = rows.interners[column.name]
    counts = np.zeros(len(interner), np.int64)
    missing = 0
    slots = slice(place, place + column.max_length)
    for start in range(0, len(train_rows), _ROWS):
      codes = arrays['codes'][train_rows[start : start + _ROWS], slots]
      missing += int((codes == encode.MISSING).sum())
      counts += np.bincount(codes[codes >= 0], minlength=len(counts))
    min_count = column.min_count or source.min_count
    vocabularies[column.name], ids = encode.fit_vocabulary(
      interner.values(), counts, missing, min_count
    )
    widths.append((slots, ids))
    place += column.max_length
  step = -(-len(train_rows) // _SAMPLE)
  sample = arrays['numeric'][train_rows[::step]]
  numeric, binned = {}, []
  for i, column in enumerate(rows.numeric):
    numeric[column.name] = encode.fit_numeric(column, sample[:, i])
    if column.encoded_kind == 'categorical':
      vocabulary, first, ids = _fit_bins(
        numeric[column.name],
        arrays['numeric'][:, i],
        train_rows,
        column.min_count or source.min_count,
      )
      vocabularies[column.name] = vocabulary
      binned.append((i, numeric[column.name], first, ids))
    else:
      maps[i] = numeric[column.name]
  encoder = encode.Encoder(
    source, _schema(source, vocabularies), vocabularies, numeric
  )
  # Ids lie in the order of the schema's categorical fields.
  names = [c.name for c in rows.categorical]
  names += [rows.numeric[i].name for i, *_ in binned]
  makers = [
    *(
      lambda chunk, s=s, ids=ids: ids[chunk['codes'][:, s]] for s, ids in widths
    ),
    *(
      lambda chunk, i=i, m=m, first=first, ids=ids: _bin_ids(
        m.bins(chunk['numeric'][:, i]), first, ids
      )[:, None]
      for i, m, first, ids in binned
    ),
  ]
  by_name = dict(zip(names, makers))
  fields = [by_name[field.name] for field in encoder.schema.categorical]
  for start in range(0, rows.rows, _ROWS):
    where = slice(start, start + _ROWS)
    taken = where if order is None else order[where]
    chunk = {name: np.asarray(array[taken]) for name, array in arrays.items()}
    ids = [make(chunk) for make in fields]
    scaled = [m.scaled(chunk['numeric'][:, i]) for i, m in maps.items()]
    count = len(chunk['labels'])
    numbers = (
      np.stack(scaled, 1) if scaled else np.zeros((count, 0), np.float32)
    )
    final = {
      'ids': np.concatenate(ids, 1) if ids else np.zeros((count, 0), np.int32),
      'numeric': np.nan_to_num(numbers, nan=0.0),
      'missing': np.isnan(numbers),
      'labels': chunk['labels'],
      'weights': chunk.get('weight'),
      'groups': chunk.get('group'),
      'times': chunk.get('time'),
    }
    for number, split in enumerate(_SPLITS):
      live = splits[taken] == number
      if live.any():
        writer.append(
          split,
          **{k: v if v is None else v[live] for k, v in final.items()},
        )
  return encoder


def _schema(source, vocabularies) -> schema_lib.Schema:
  return schema_lib.Schema(
    tuple(
      schema_lib.Field(
        column.name,
        column.encoded_kind,
        vocabularies[column.name].size
        if column.encoded_kind == 'categorical'
        else 0,
        column.max_length,
        column.default,
      )
      for column in source.columns
    ),
    source.label,
    source.weight,
    source.group,
    source.time,
  )


def _fit_bins(numeric_map, values, train_rows, min_count):
  """Vocabulary of bins; the lowest bin; bin - lowest -> id."""
  lowest, highest = 0, 0
  for start in range(0, len(values), _ROWS):
    bins = numeric_map.bins(np.asarray(values[start : start + _ROWS]))
    live = bins[~np.isnan(values[start : start + _ROWS])]
    if len(live):
      lowest, highest = min(lowest, live.min()), max(highest, live.max())
  counts = np.zeros(highest - lowest + 1, np.int64)
  missing = 0
  for start in range(0, len(train_rows), _ROWS):
    chunk = np.asarray(values[train_rows[start : start + _ROWS]])
    bins = numeric_map.bins(chunk)
    live = ~np.isnan(chunk)
    missing += int((~live).sum())
    counts += np.bincount(bins[live] - lowest, minlength=len(counts))
  texts = [str(lowest + i) for i in range(len(counts))]
  vocabulary, ids = encode.fit_vocabulary(texts, counts, missing, min_count)
  return vocabulary, lowest, ids


def _bin_ids(bins, lowest, ids):
  return ids[bins - lowest]
