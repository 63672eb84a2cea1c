"""From raw rows to an encoded store, in one pass over the text.

Rows are first written with provisional codes; once all are read, splits are
settled, ids fitted on the train split, and the codes rewritten. Text is parsed
once. Memory holds the distinct values and a few blocks, never all rows.
"""

from collections.abc import Callable, Iterator
from concurrent import futures
import hashlib
import json
import os
import pathlib
import shutil
from typing import Any

from absl import logging
import numpy as np

from jax_autorec import errors
from jax_autorec.data import dataset as dataset_lib
from jax_autorec.data import (
  encode,
  fitting,
  provisional,
  readers,
  splitting,
  store,
  transforms,
)
from jax_autorec.data import source as source_lib

Progress = Callable[[float, float], None]
"""Called with rows done, and the share of all the work that is done.

Every row is gone over twice, so a row that is only read counts in part.
"""

_READING = 0.6  # Share of the work, about.


def ahead(items: Iterator[Any]) -> Iterator[Any]:
  """The same items (none of them None), the next one made in a thread."""
  with futures.ThreadPoolExecutor(1) as pool:
    following = pool.submit(next, items, None)
    while (item := following.result()) is not None:
      following = pool.submit(next, items, None)
      yield item


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
      [source.settings(), bad_rows, store.VERSION, *_revisions(source)],
      sort_keys=True,
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
    rows = provisional.Provisional(scratch, source)
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


def _revisions(source):
  """What is read otherwise than stores of this version were, once."""
  wide = len(source.delimiter.encode(source.encoding)) > 1
  if source.quoted and wide:
    yield 'delimiters within quotes'
  if not (source.comment or '').isascii():
    yield 'comments in the encoding of the file'


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
        rows.append(block.table, ('all', *splitting.SPLITS).index(split))
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


def _rewrite(source, rows, writer, report) -> encode.Encoder:
  """Fits on the train split and writes the final files."""
  rows.close()
  rows.add_column('splits', splitting.split_numbers(source, rows))
  fit = fitting.Fit(source, rows)
  encoder = encode.Encoder(source, fit.schema(), fit.vocabularies, fit.numeric)
  done = 0
  for splits, columns in ahead(_encoded(rows, fit, encoder.schema)):
    for number, split in enumerate(splitting.SPLITS):
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
