"""Encoded sets on disk: flat arrays of rows, mapped into memory when opened.

One directory per set. Arrays lie row after row in little-endian files; a
manifest, written last and renamed into place with the directory, says how many
rows, bytes and which checksum each has.
"""

from collections.abc import Mapping
import dataclasses
import glob
import hashlib
import json
import os
import pathlib
import platform
import shutil
from typing import Any
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jax_autorec import errors
from jax_autorec import schema as schema_lib
from jax_autorec.data import dataset as dataset_lib
from jax_autorec.data import encode
from jax_autorec.data import source as source_lib
from jax_autorec.data import vocabulary as vocabulary_lib

VERSION = 3
_DTYPES = {
  'ids': '<i4',
  'numeric': '<f4',
  'missing': '|b1',
  'labels': '<f4',
  'weights': '<f4',
  'groups': '<i8',
  'times': '<f8',
}
_CHECK_BYTES = 2**24  # Per read while a checksum is made.
_FULL_CHECK = 2**29  # Larger files are checked by size and their two ends.


def _checksum(path: pathlib.Path, size: int) -> list[int]:
  """CRC-32 of a file's blocks: of all, or of the first and last if large."""
  places = range(0, size, _CHECK_BYTES)
  if size > _FULL_CHECK:
    places = [0, places[-1]]
  sums = []
  with open(path, 'rb') as file:
    for place in places:
      file.seek(place)
      sums.append(zlib.crc32(file.read(_CHECK_BYTES)))
  return sums


def is_read_only(directory: pathlib.Path) -> bool:
  """Whether a directory is marked read-only; root could write there still."""
  return directory.exists() and not directory.stat().st_mode & 0o222


def _sync(path: pathlib.Path) -> None:
  with open(path, 'rb+') as file:
    os.fsync(file.fileno())


def _is_alive(process: str) -> bool:
  """Whether a process of this machine runs; True for what is no number."""
  try:
    os.kill(int(process), 0)
  except ProcessLookupError:
    return False
  except (PermissionError, ValueError):
    pass
  return True


def _stamp(directory: pathlib.Path) -> int | None:
  """Which store lies in a directory, or None for no store."""
  try:
    return (directory / 'manifest.json').stat().st_mtime_ns
  except OSError:
    return None


class Writer:
  """Fills a store's files; `finish` puts it into place, whole."""

  def __init__(self, target: pathlib.Path):
    """Makes a temporary directory beside the target.

    Raises:
      DataError: where it cannot be made.
    """
    self.target = target
    mine = f'.{target.name}.{platform.node()}-'
    self.directory = target.with_name(f'{mine}{os.getpid()}')
    self._files: dict[tuple[str, str], Any] = {}
    self._before = _stamp(target)
    self.rows = dict.fromkeys(('train', 'valid', 'test'), 0)
    try:
      for path in target.parent.glob(f'{glob.escape(mine)}*'):
        if not _is_alive(path.name.removeprefix(mine).split('.')[0]):
          shutil.rmtree(path, ignore_errors=True)  # Its process was killed.
      shutil.rmtree(self.directory, ignore_errors=True)
      self.directory.mkdir(parents=True)
    except OSError as error:
      raise errors.DataError(
        f'Cannot make {self.directory}: {error.strerror}.'
      ) from error

  def append(self, split: str, **columns: np.ndarray | None) -> None:
    """Appends rows to a split."""
    for name, values in columns.items():
      if values is None:
        continue
      key = split, name
      if key not in self._files:
        path = self.directory / f'{split}.{name}'
        self._files[key] = open(path, 'wb')
      values = np.ascontiguousarray(values, _DTYPES[name])
      values.tofile(self._files[key])
    self.rows[split] += len(columns['labels'])

  def finish(
    self, manifest: Mapping[str, Any], encoder: encode.Encoder
  ) -> None:
    """Writes vocabularies and manifest, and moves the store into place."""
    for file in self._files.values():
      file.flush()
      os.fsync(file.fileno())
      file.close()
    vocabularies = self.directory / 'vocabulary'
    vocabularies.mkdir()
    reserved = pa.nulls(schema_lib.FIRST_VALUE_ID, pa.large_string())
    for i, (name, vocabulary) in enumerate(encoder.vocabularies.items()):
      table = pa.table(
        {
          'value': pa.chunked_array([reserved, vocabulary.values]),
          'count': pa.array(vocabulary.frequencies, pa.int64()),
        },
        metadata={'field': name},
      )
      pq.write_table(table, vocabularies / f'{i:04d}.parquet')
    (self.directory / 'numeric.json').write_text(
      json.dumps(
        {k: dataclasses.asdict(v) for k, v in encoder.numeric.items()}
      ),
      'utf-8',
    )
    files = {}
    for path in sorted(self.directory.rglob('*')):
      if path.is_file():
        size = path.stat().st_size
        files[str(path.relative_to(self.directory))] = {
          'bytes': size,
          'crc32': _checksum(path, size),
        }
        _sync(path)
    contents = hashlib.sha256(json.dumps(files).encode()).hexdigest()
    manifest = {
      'version': VERSION,
      'fingerprint': contents,
      **manifest,
      'schema': encoder.schema.to_dict(),
      'rows': self.rows,
      'files': files,
    }
    manifest['sha256'] = _digest(manifest)
    path = self.directory / 'manifest.json'
    path.write_text(json.dumps(manifest, indent=1) + '\n', 'utf-8')
    _sync(path)
    old = self.directory.with_name(f'{self.directory.name}.old')
    if _stamp(self.target) not in (None, self._before):
      # Another process was faster and may read its store by now: where that
      # holds the same, it is not taken from under it.
      theirs = read_manifest(self.target)
      if theirs is not None and theirs['files'] == files:
        self.abandon()
        return
    try:
      if self.target.exists():
        os.replace(self.target, old)
      os.replace(self.directory, self.target)
    except OSError:
      # Another process was faster: its store is as good as this one.
      if not (self.target / 'manifest.json').exists():
        raise
      self.abandon()
    shutil.rmtree(old, ignore_errors=True)

  def abandon(self) -> None:
    """Removes everything written."""
    for file in self._files.values():
      try:
        file.close()
      except OSError:
        pass  # A full disk fails on what is still buffered.
    shutil.rmtree(self.directory, ignore_errors=True)


def read_manifest(directory: pathlib.Path) -> dict[str, Any] | None:
  """A store's manifest, or None where there is no store.

  Raises:
    DataError: for a manifest that is not as it was written.
  """
  path = directory / 'manifest.json'
  if not path.exists():
    return None
  try:
    manifest = json.loads(path.read_text('utf-8'))
  except (OSError, ValueError) as error:
    raise _damaged(directory, f'manifest.json: {error}') from error
  if not isinstance(manifest, dict):
    raise _damaged(directory, 'manifest.json holds no table')
  if manifest.get('version') != VERSION:
    raise _damaged(directory, f'version {manifest.get("version")}')
  if manifest.pop('sha256', None) != _digest(manifest):
    raise _damaged(directory, 'manifest.json has another checksum')
  return manifest


def _digest(manifest: Mapping[str, Any]) -> str:
  text = json.dumps(manifest, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()


def _damaged(directory, what):
  return errors.DataError(
    f'The encoded set in {directory} is damaged ({what}). Delete that '
    'directory: the next run encodes the raw data again.'
  )


def _checked_manifest(directory, only: tuple[str, ...] | str = ''):
  """The manifest of a store whose files (of some folder) are as written."""
  manifest = read_manifest(directory)
  if manifest is None:
    raise errors.DataError(f'{directory} holds no encoded set.')
  for file, expected in manifest['files'].items():
    if not file.startswith(only):
      continue
    path = directory / file
    size = path.stat().st_size if path.exists() else -1
    if size != expected['bytes']:
      raise _damaged(
        directory, f'{file} has {size} bytes, expected {expected["bytes"]}'
      )
    if _checksum(path, size) != expected['crc32']:
      raise _damaged(directory, f'{file} has another checksum')
  return manifest


def open_store(
  directory: str | os.PathLike[str], name: str | None = None
) -> dataset_lib.Dataset:
  """Opens a store, after checking that its files are what was written.

  Args:
    directory: of the store.
    name: of the data set; None for the one it was made for.

  Raises:
    DataError: for a damaged, truncated or outdated store.
  """
  directory = pathlib.Path(directory)
  manifest = _checked_manifest(directory)
  schema = schema_lib.Schema.from_dict(manifest['schema'])
  widths = {'ids': schema.num_id_columns}
  widths['numeric'] = widths['missing'] = len(schema.numeric)
  splits = {}
  for split, rows in manifest['rows'].items():
    columns = {}
    for column, dtype in _DTYPES.items():
      path = directory / f'{split}.{column}'
      shape = (rows, widths[column]) if column in widths else (rows,)
      if not path.exists():
        columns[column] = None
      elif 0 in shape:
        columns[column] = np.zeros(shape, dtype)
      else:
        columns[column] = np.memmap(path, dtype, 'r', shape=shape)
    for column in ('ids', 'numeric', 'missing', 'labels'):
      if columns[column] is None:
        columns[column] = np.zeros(
          (rows, widths.get(column, 0)), _DTYPES[column]
        )
        if column == 'labels':
          columns[column] = np.zeros((rows,), _DTYPES[column])
    splits[split] = dataset_lib.Split(**columns)
  frequencies = {
    table.schema.metadata[b'field'].decode(): table['count'].to_numpy()
    for table in _vocabulary_tables(directory, ['count'])
  }
  return dataset_lib.Dataset(
    name=name or manifest['name'],
    schema=schema,
    **splits,
    frequencies=frequencies,
    counts=manifest['counts'],
    fingerprint=manifest['fingerprint'],
    directory=str(directory),
    scales={
      name: scale
      for name, scale in _numeric_maps(directory).items()
      if schema.field(name).kind == 'numeric'
    },
  )


def _numeric_maps(directory):
  maps = json.loads((directory / 'numeric.json').read_text('utf-8'))
  return {
    name: encode.NumericMap(**(values | {'edges': tuple(values['edges'])}))
    for name, values in maps.items()
  }


def _vocabulary_tables(directory, columns):
  for path in sorted((directory / 'vocabulary').glob('*.parquet')):
    yield pq.read_table(path, columns=columns)


def read_encoder(directory: str | os.PathLike[str]) -> encode.Encoder:
  """The encoder that a store was made with, for new rows.

  Args:
    directory: of the store (`Dataset.directory`).

  Raises:
    DataError: where there is no store, or its vocabularies are damaged.
  """
  directory = pathlib.Path(directory)
  manifest = _checked_manifest(directory, ('vocabulary/', 'numeric.json'))
  vocabularies = {}
  for table in _vocabulary_tables(directory, ['value', 'count']):
    values = table['value'].combine_chunks()[schema_lib.FIRST_VALUE_ID :]
    name = table.schema.metadata[b'field'].decode()
    vocabularies[name] = vocabulary_lib.Vocabulary(
      pc.cast(values, pa.large_string()), table['count'].to_numpy()
    )
  return encode.Encoder(
    source_lib.from_settings(manifest['source']),
    schema_lib.Schema.from_dict(manifest['schema']),
    vocabularies,
    _numeric_maps(directory),
  )
