"""From raw rows to an encoded store, in one pass over the text.

Rows are first written with provisional codes; once all are read, splits are
settled, ids fitted on the train split, and the codes rewritten. Text is parsed
once. Memory holds the distinct values and a few blocks, never all rows.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
import hashlib
import json
import os
import pathlib
import shutil
from typing import Any

from absl import logging
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jax_autorec import errors
from jax_autorec import schema as schema_lib
from jax_autorec.data import arrow, encode, readers, store, transforms
from jax_autorec.data import dataset as dataset_lib
from jax_autorec.data import source as source_lib
from jax_autorec.data import text as text_lib
from jax_autorec.data import vocabulary as vocabulary_lib

Progress = Callable[[float, float], None]
"""Called with rows done, and the share of all the work that is done.

Every row is gone over twice, so a row that is only read counts in part.
"""

_SPLITS = ('train', 'valid', 'test')
_NONE = 255  # No split.
_ROWS = 2**16  # Rows per step after reading.
_SAMPLE = 5 * 10**5  # Rows that numeric maps are fitted on, at most.
_READING = 0.6  # Share of the work, about.


def ahead(items: Iterator[Any]) -> Iterator[Any]:
  """The same items (none of them None), the next one made in a thread."""
  with futures.ThreadPoolExecutor(1) as pool:
    following = pool.submit(next, items, None)
    while (item := following.result()) is not None:
      following = pool.submit(next, items, None)
      yield item


class _Provisional:
  """Rows with provisional codes, in files of a scratch directory."""

  def __init__(self, directory: pathlib.Path, source: source_lib.Source):
    self.source = source
    self.categorical = [c for c in source.columns if c.kind == 'categorical']
    self.numeric = [c for c in source.columns if c.kind == 'numeric']
    self.interners = {
      c.name: vocabulary_lib.Interner() for c in self.categorical
    }
    self.groups = vocabulary_lib.Interner()
    # Where each column's codes lie.
    self.slots: dict[str, slice] = {}
    width = 0
    for column in self.categorical:
      self.slots[column.name] = slice(width, width := width + column.max_length)
    self.rows = self.positives = 0
    self._pool = futures.ThreadPoolExecutor(2)
    self._widths = {
      'codes': ('<i4', width),
      'numeric': ('<f8', len(self.numeric)),
      'labels': ('<f4', 1),
      'parts': ('|u1', 1),
    }
    for name, dtype in (('weight', '<f4'), ('group', '<i4'), ('time', '<f8')):
      if getattr(source, name):
        self._widths[name] = dtype, 1
    self.directory = directory
    self._files = {name: open(directory / name, 'wb') for name in self._widths}

  def append(self, table: pa.Table, part: int) -> None:
    """Adds a block's rows; `part` says which files they come from."""
    source, count = self.source, len(table)
    codes = np.empty((count, self._widths['codes'][1]), np.int32)
    # NumPy lets go of the interpreter while it looks texts up.
    found = self._pool.map(lambda c: self._codes(c, table), self.categorical)
    for slots, values in zip(self.slots.values(), found):
      codes[:, slots] = values
    numeric = np.empty((count, len(self.numeric)))
    for i, column in enumerate(self.numeric):
      numeric[:, i] = table[column.name].to_numpy()
    labels = _labels(source, table)
    self.positives += int(np.count_nonzero(labels))
    columns = {
      'codes': codes,
      'numeric': numeric,
      'labels': labels,
      'parts': np.full(count, part),
    }
    if source.weight:
      columns['weight'] = table[source.weight].to_numpy()
    if source.time:
      columns['time'] = table[source.time].to_numpy()
    if source.group:
      columns['group'] = self.groups.codes(table[source.group])
    for name, values in columns.items():
      self._write(name, values)
    self.rows += count

  def _write(self, name, values):
    np.ascontiguousarray(values, self._widths[name][0]).tofile(
      self._files[name]
    )

  def _codes(self, column, table):
    interner, values = self.interners[column.name], table[column.name]
    if column.max_length == 1:
      return interner.codes(values)[:, None]
    flat, places = encode.split_cells(values, column)
    codes = interner.codes(flat)
    reserved = [vocabulary_lib.PAD, vocabulary_lib.MISSING]
    return np.append(codes, np.array(reserved, np.int32))[places]

  def add_column(self, name: str, values: Iterable[np.ndarray]) -> None:
    """Writes one byte for every row, chunk by chunk."""
    self._widths[name] = '|u1', 1
    with open(self.directory / name, 'wb') as file:
      for chunk in values:
        np.ascontiguousarray(chunk, np.uint8).tofile(file)

  def chunks(self, *names: str) -> Iterator[dict[str, np.ndarray]]:
    """Runs of rows as arrays [rows, width], or [rows] of single values."""
    names = names or tuple(self._widths)
    for start in range(0, self.rows, _ROWS):
      count = min(_ROWS, self.rows - start)
      chunk = {}
      for name in names:
        dtype, width = self._widths[name]
        # Read, not mapped: what is mapped counts as this process's memory.
        values = np.fromfile(
          self.directory / name,
          dtype,
          count * width,
          offset=start * width * np.dtype(dtype).itemsize,
        )
        is_table = name in ('codes', 'numeric')
        chunk[name] = values.reshape(count, width) if is_table else values
      yield chunk

  def close(self) -> None:
    self._pool.shutdown()
    for file in self._files.values():
      try:
        file.close()
      except OSError:
        pass  # A full disk fails on what is still buffered.


def _as_typed(texts):
  """Texts, and what they are where a column holds numbers or truth values.

  A file of Parquet gives 'true' and '1' where a person writes "True" and "1.0".
  """
  known = {*texts}
  for text in texts:
    if text.lower() in ('true', 'false'):
      known.add(text.lower())
    elif arrow.is_number(text):
      known.add(pc.cast(pa.scalar(float(text)), pa.string()).as_py())
  return sorted(known)


def _labels(source, table):
  label = table[source.label]
  if source.label_positive is not None:
    texts = pc.cast(label, pa.string())
    positive = pa.array(_as_typed(source.label_positive), pa.string())
    return pc.is_in(texts, value_set=positive).to_numpy()
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
    progress: see `Progress`.

  Returns:
    The store's directory.

  Raises:
    DataError: for bad rows, missing, empty or damaged files, a damaged store
      or a disk that cannot be written.
  """
  digest = hashlib.sha256(
    json.dumps(
      [source.settings(), bad_rows, store.VERSION], sort_keys=True
    ).encode()
  ).hexdigest()
  target = pathlib.Path(root) / f'{source.name}-{digest[:12]}'
  paths = [path for found in source.files.values() for path in found]
  paths += [*source.side_files, *source.rows.values()]
  paths = [os.path.abspath(path) for path in paths]
  missing = [path for path in paths if not os.path.exists(path)]
  manifest = store.read_manifest(target)
  if missing and manifest is not None:
    if [entry['path'] for entry in manifest['inputs']] == paths:
      logging.info(
        '%s: %s is gone, its encoded rows are not', source.name, missing[0]
      )
      return target
  if missing:
    raise errors.DataError(f'{missing[0]} does not exist.')
  if manifest is not None:
    if _same_inputs(manifest['inputs'], paths):
      return target
    logging.info('%s: the raw data has changed, encoding it anew.', source.name)
  before = [os.stat(path) for path in paths]

  def finish():
    inputs = [_identity(path) for path in paths]
    for path, then, now in zip(paths, before, inputs):
      if (then.st_size, then.st_mtime_ns) != (now['bytes'], now['modified']):
        raise errors.DataError(f'{path} has changed while it was read.')
    hashes = [digest, *(entry['sha256'] for entry in inputs)]
    fingerprint = hashlib.sha256(''.join(hashes).encode()).hexdigest()
    return {'inputs': inputs, 'fingerprint': fingerprint}

  build(source, _file_blocks(source), target, bad_rows, progress, finish)
  return target


def build(
  source: source_lib.Source,
  blocks: Iterator[tuple[str, readers.Block, float]],
  target: pathlib.Path,
  bad_rows: str,
  progress: Progress | None = None,
  finish: Callable[[], dict[str, Any]] = dict,
) -> None:
  """Encodes blocks of rows into a store, whole or not at all.

  Args:
    source: what the columns hold.
    blocks: the split that the rows belong to ('all' for none), the rows, and
      the share of all rows that have come with them.
    target: the store's directory.
    bad_rows: see `prepare`.
    progress: see `Progress`.
    finish: makes further entries of the manifest, once all rows are read.

  Raises:
    DataError: for bad rows, splits without rows, or a disk that cannot be
      written; nothing is left behind then.
  """
  if bad_rows not in ('raise', 'quarantine'):
    raise errors.DataError(
      f'bad_rows is {bad_rows!r}; expected "raise" or "quarantine".'
    )
  writer = store.Writer(target)
  scratch = writer.directory / 'provisional'
  report = progress or (lambda rows, share: None)
  try:
    scratch.mkdir()
    rows = _Provisional(scratch, source)
    try:
      counts = _read_all(source, blocks, rows, writer, bad_rows, report)
      encoder = _rewrite(source, rows, writer, report)
    finally:
      rows.close()
    shutil.rmtree(scratch)
    settings = {'counts': counts, 'source': source.settings()}
    writer.finish({'name': source.name, **settings, **finish()}, encoder)
  except OSError as error:
    writer.abandon()
    raise errors.DataError(
      f'Cannot write {target}: {error.strerror or error}. Free some space or '
      'give another directory; nothing was left behind.'
    ) from error
  except BaseException:
    writer.abandon()
    raise


def load(
  source: source_lib.Source, root: str | os.PathLike[str], **options
) -> dataset_lib.Dataset:
  """The encoded set of a source; prepared first if need be (see `prepare`)."""
  return store.open_store(prepare(source, root, **options), source.name)


def _identity(path: str) -> dict[str, Any]:
  digest = hashlib.sha256()
  with open(path, 'rb') as file:
    while data := file.read(2**22):
      digest.update(data)
  stat = os.stat(path)
  return {
    'path': path,
    'bytes': stat.st_size,
    'modified': stat.st_mtime_ns,
    'sha256': digest.hexdigest(),
  }


def _same_inputs(known: list[dict[str, Any]], paths: list[str]) -> bool:
  """Whether files are those that were encoded: by time stamp, or content."""
  if len(known) != len(paths):
    return False
  for path, entry in zip(paths, known):
    stat = os.stat(path)
    if entry['bytes'] != stat.st_size:
      return False
    if entry['modified'] != stat.st_mtime_ns:
      if entry['sha256'] != _identity(path)['sha256']:
        return False
  return True


def _file_blocks(source):
  """Blocks of all files, with the share of bytes that are read."""
  sizes = {
    path: os.path.getsize(path)
    for found in source.files.values()
    for path in found
  }
  total, done = max(sum(sizes.values()), 1), 0
  derive = transforms.make(source) if source.derive else None
  for split, found in source.files.items():
    for path in found:
      for block in readers.read(source, path, derive=derive):
        yield split, block, (done + block.bytes_read) / total
      done += sizes[path]


def _read_all(source, blocks, rows, writer, bad_rows, report):
  """Reads every block; returns how many rows were read, kept, quarantined."""
  quarantined = read = 0
  quarantine = first_bad = None
  try:
    for split, block, share in ahead(blocks):
      if block.bad and bad_rows == 'raise':
        raise errors.DataError(
          f'{block.bad[0]} (bad_rows="quarantine" keeps such rows out.)'
        )
      if block.bad and source.rows:
        raise errors.DataError(
          f'{block.bad[0]} ({source.name} is split by row numbers, which would '
          'not hold without this row.)'
        )
      if block.bad and quarantine is None:
        quarantine = open(
          writer.directory / 'quarantine.jsonl', 'w', encoding='utf-8'
        )
      first_bad = first_bad or next(iter(block.bad), None)
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
        rows.append(block.table, ('all', *_SPLITS).index(split))
      report(read * _READING, share * _READING)
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
    raise errors.DataError(
      f'{source.name}: no row could be kept, of {read}.'
      + (f' The first of them: {first_bad}' if first_bad else '')
    )
  if source.label_positive is not None and not rows.positives:
    raise errors.DataError(
      f'{source.name}: no row has a {source.label!r} among label_positive, '
      f'{list(source.label_positive)}; expected raw values that mean 1.'
    )
  return {'read': read, 'kept': rows.rows, 'quarantined': quarantined}


def _splits(source, rows) -> Iterator[np.ndarray]:
  """Split numbers of all rows, chunk by chunk."""
  rule, is_whole = source.split, 'all' in source.files
  rng = np.random.default_rng(rule.seed)
  has_valid = 'valid' in (source.rows or source.files)
  if is_whole and source.rows:
    named = _named_rows(source, rows)
  elif is_whole and rule.kind != 'ratio':
    shares = 1 - rule.valid - rule.test, 1 - rule.test
    bounds = [round(rows.rows * share) for share in shares]
    if rule.by_time:
      bounds = [_Boundary(rows, rank) for rank in bounds]
  start = 0
  for chunk in rows.chunks('parts', *(['time'] if source.time else [])):
    count = len(chunk['parts'])
    if not is_whole:
      splits = chunk['parts'] - 1
    elif source.rows:
      splits = np.array(named[start : start + count])
    elif rule.by_time:
      splits = sum(bound.is_beyond(chunk['time']) for bound in bounds)
    elif rule.kind == 'order':
      splits = np.searchsorted(
        bounds, np.arange(start, start + count), side='right'
      )
    else:
      drawn = rng.random(count)
      splits = np.where(drawn < rule.valid, 1, 0)
      splits[drawn >= 1 - rule.test] = 2
    if not has_valid and (source.rows or not is_whole):
      train = np.flatnonzero(splits == 0)
      splits[train[rng.random(len(train)) < rule.valid]] = 1
    start += count
    yield splits


class _Boundary:
  """Parts rows after those of a rank by time; equal times by their order."""

  def __init__(self, rows: _Provisional, rank: int):
    # The time of that rank, found 16 bits at a time.
    low, self._left = np.uint64(0), rank
    for shift in (48, 32, 16, 0):
      counts = np.zeros(2**16 + 1, np.int64)
      for chunk in rows.chunks('time'):
        keys = _ordered_bits(chunk['time']) - low
        digits = np.minimum(keys >> np.uint64(shift), np.uint64(2**16))
        # What lies below has wrapped around to the top.
        counts += np.bincount(digits.astype(np.int64), minlength=2**16 + 1)
      ends = np.cumsum(counts[:-1])
      digit = int(np.searchsorted(ends, self._left, side='right'))
      digit = min(digit, 2**16 - 1)
      self._left -= int(ends[digit] - counts[digit])
      low += np.uint64(digit << shift)
    self._key = low

  def is_beyond(self, times: np.ndarray) -> np.ndarray:
    """0 or 1 for each of the next rows, in their order."""
    keys = _ordered_bits(times)
    beyond = keys > self._key
    ties = np.flatnonzero(keys == self._key)
    beyond[ties[self._left :]] = True
    self._left -= min(self._left, len(ties))
    return beyond.astype(np.uint8)


def _ordered_bits(times):
  """Float64 as uint64 in the same order."""
  bits = (times + 0.0).view(np.int64)  # No negative zero.
  bits = bits ^ ((bits >> 63) & np.int64(2**63 - 1))
  return bits.view(np.uint64) ^ np.uint64(2**63)


def _named_rows(source, rows):
  """Split numbers by the files of row numbers, on disk."""
  named = np.memmap(rows.directory / 'named', np.uint8, 'w+', shape=rows.rows)
  named[:] = _NONE
  for split, path in source.rows.items():
    for data in text_lib.blocks(path):
      try:
        numbers = np.array(data.split(), np.int64)
      except ValueError as error:
        raise errors.DataError(f'{path}: {error}; expected row numbers.') from (
          error
        )
      if len(numbers) and not 0 <= numbers.min() <= numbers.max() < rows.rows:
        raise errors.DataError(
          f'{path} names rows beyond the {rows.rows} that exist.'
        )
      named[numbers] = _SPLITS.index(split)
  lost = sum(
    int((named[start : start + _ROWS] == _NONE).sum())
    for start in range(0, rows.rows, _ROWS)
  )
  if lost:
    raise errors.DataError(f'{source.name}: {lost} rows are in no split.')
  return named


def _count(counts: np.ndarray, codes: np.ndarray) -> None:
  """Adds how often each code stands in `codes` [...]."""
  codes = codes[codes >= 0]
  if len(counts) < 4 * len(codes):
    counts += np.bincount(codes, minlength=len(counts))
  else:
    np.add.at(counts, codes, 1)


class _Fit:
  """Vocabularies and numeric maps, fitted on the train split.

  A stream has them of all rows: each is predicted before it is learnt from.
  """

  def __init__(self, source: source_lib.Source, rows: _Provisional):
    train = np.zeros(3, np.int64)
    for chunk in rows.chunks('splits'):
      train += np.bincount(chunk['splits'], minlength=3)
    for number, split in enumerate(_SPLITS):
      if not train[number]:
        raise errors.DataError(
          f'{source.name}: the {split} split has no rows, of '
          f'{int(train.sum())} in all; expected some in each. '
          + (
            'Give more rows, or larger shares in `split`.'
            if 'all' in source.files or split == 'valid'
            else f'Give files for {split}, or all rows as "all".'
          )
        )
    self._source, self._rows = source, rows
    self.vocabularies: dict[str, vocabulary_lib.Vocabulary] = {}
    self.numeric: dict[str, encode.NumericMap] = {}
    # Column -> ids by provisional code, or by place among the sorted bins.
    self.ids: dict[str, np.ndarray] = {}
    self.bins: dict[str, np.ndarray] = {}
    self._all_rows = source.split.kind == 'stream'
    count = train.sum() if self._all_rows else train[0]
    step = -(-int(count) // _SAMPLE)
    self._fit_numeric(self._count_codes(step))
    self._fit_bins()

  def _is_fitted(self, splits):
    return np.ones(len(splits), bool) if self._all_rows else splits == 0

  def _count_codes(self, step):
    """Fits vocabularies of texts; every `step`-th train row of numbers."""
    rows = self._rows
    counts = {
      name: np.zeros(len(interner), np.int64)
      for name, interner in rows.interners.items()
    }
    missing = dict.fromkeys(counts, 0)
    samples, seen = [], 0
    for chunk in rows.chunks('codes', 'numeric', 'splits'):
      train = np.flatnonzero(self._is_fitted(chunk['splits']))
      codes = chunk['codes'][train]
      for name, slots in rows.slots.items():
        found = codes[:, slots]
        missing[name] += int((found == vocabulary_lib.MISSING).sum())
        _count(counts[name], found)
      samples.append(chunk['numeric'][train[-seen % step :: step]])
      seen += len(train)
    for column in rows.categorical:
      self._fit_vocabulary(
        column,
        # Not needed any more: the largest part of all memory.
        rows.interners.pop(column.name).values(),
        counts.pop(column.name),
        missing[column.name],
      )
    return np.concatenate(samples)

  def _fit_vocabulary(self, column, values, counts, missing):
    vocabulary, self.ids[column.name] = vocabulary_lib.fit_vocabulary(
      values, counts, missing, column.min_count or self._source.min_count
    )
    self.vocabularies[column.name] = vocabulary

  def _fit_numeric(self, sample):
    for i, column in enumerate(self._rows.numeric):
      self.numeric[column.name] = encode.fit_numeric(column, sample[:, i])

  def _fit_bins(self):
    binned = [
      (i, column)
      for i, column in enumerate(self._rows.numeric)
      if column.encoded_kind == 'categorical'
    ]
    counts = {column.name: {} for _, column in binned}
    for chunk in self._rows.chunks('numeric', 'splits') if binned else ():
      train = chunk['numeric'][self._is_fitted(chunk['splits'])]
      for i, column in binned:
        bins = self.numeric[column.name].bins(train[:, i])
        known = counts[column.name]
        for value, count in zip(*map(list, np.unique_counts(bins))):
          known[value] = known.get(value, 0) + int(count)
    for _, column in binned:
      known = counts[column.name]
      missing = known.pop(encode.MISSING_BIN, 0)
      bins = np.array(sorted(known), np.int64)
      self._fit_vocabulary(
        column,
        pc.cast(encode.bin_texts(bins), pa.large_string()),
        np.array([known[b] for b in bins], np.int64),
        missing,
      )
      self.bins[column.name] = bins

  def bin_ids(self, name: str, values: np.ndarray) -> np.ndarray:
    """Ids int32 [R] of the bins that raw values fall into."""
    found, bins = self.numeric[name].bins(values), self.bins[name]
    ids = np.full(len(values), schema_lib.UNKNOWN_ID, np.int32)
    if len(bins):
      places = np.minimum(np.searchsorted(bins, found), len(bins) - 1)
      known = bins[places] == found
      ids[known] = self.ids[name][places[known]]
    ids[found == encode.MISSING_BIN] = schema_lib.MISSING_ID
    return ids

  def schema(self) -> schema_lib.Schema:
    """The schema with its vocabulary sizes."""
    source = self._source
    fields = tuple(
      schema_lib.Field(
        column.name,
        column.encoded_kind,
        self.vocabularies[column.name].size
        if column.encoded_kind == 'categorical'
        else 0,
        column.max_length,
        column.default,
      )
      for column in source.columns
    )
    return schema_lib.Schema(
      fields, source.label, source.weight, source.group, source.time
    )


def _rewrite(source, rows, writer, report) -> encode.Encoder:
  """Fits on the train split and writes the final files."""
  rows.close()
  rows.add_column('splits', _splits(source, rows))
  fit = _Fit(source, rows)
  encoder = encode.Encoder(source, fit.schema(), fit.vocabularies, fit.numeric)
  done = 0
  for splits, columns in ahead(_encoded(rows, fit, encoder.schema)):
    for number, split in enumerate(_SPLITS):
      live = np.flatnonzero(splits == number)
      if len(live):
        writer.append(split, **{k: v[live] for k, v in columns.items()})
    done += len(splits)
    share = _READING + (1 - _READING) * done / rows.rows
    report(rows.rows * share, share)
  return encoder


def _encoded(rows, fit, schema):
  """Split numbers and final columns, chunk by chunk."""
  places = {column.name: i for i, column in enumerate(rows.numeric)}
  for chunk in rows.chunks():
    count = len(chunk['labels'])
    ids = np.empty((count, schema.num_id_columns), np.int32)
    place = 0
    for field in schema.categorical:
      where = slice(place, place := place + field.max_length)
      if field.name in rows.slots:
        codes = chunk['codes'][:, rows.slots[field.name]]
        ids[:, where] = fit.ids[field.name][codes]
      else:
        values = chunk['numeric'][:, places[field.name]]
        ids[:, place - 1] = fit.bin_ids(field.name, values)
    numeric = np.empty((count, len(schema.numeric)), np.float32)
    for i, field in enumerate(schema.numeric):
      values = chunk['numeric'][:, places[field.name]]
      numeric[:, i] = fit.numeric[field.name].scaled(values)
    missing = np.isnan(numeric)
    numeric[missing] = 0
    columns = {
      'ids': ids,
      'numeric': numeric,
      'missing': missing,
      'labels': chunk['labels'],
    }
    for name in ('weight', 'group', 'time'):
      if name in chunk:
        columns[f'{name}s'] = chunk[name]
    yield chunk['splits'], columns
