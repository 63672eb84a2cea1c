"""Data sets out of arrays and DataFrames."""

from collections.abc import Iterator, Sequence
import dataclasses
import os
import pathlib
import tempfile
from typing import Any

import numpy as np
import pyarrow as pa

from jax_autorec import errors
from jax_autorec.data import arrays, ingest, readers, store
from jax_autorec.data import dataset as dataset_lib
from jax_autorec.data import source as source_lib

_ROWS = 2**16  # Rows encoded at a time.


def from_arrays(
  train: Any,
  valid: Any = None,
  test: Any = None,
  *,
  columns: Sequence[source_lib.Column | str] | None = None,
  directory: str | os.PathLike[str] | None = None,
  bad_rows: str = 'raise',
  name: str = 'arrays',
  **options: Any,
) -> dataset_lib.Dataset:
  """Encodes tables in memory: dicts of arrays, DataFrames, Arrow tables.

  Any DataFrame that exports Arrow data will do (pandas, polars and others).

  >>> from jax_autorec import data
  >>> clicks = data.from_arrays(
  ...   {'label': [0, 1] * 50, 'city': ['Rome', 'Oslo'] * 50},
  ...   columns=[data.Column('city', min_count=2)],
  ... )
  >>> clicks.schema.field('city').vocab_size
  4

  Args:
    train: rows to train on; all rows, where `test` is None.
    valid: rows to choose by; None cuts them from `train` by seed.
    test: rows to evaluate on; None splits `train` as `split` says.
    columns: inputs, in order; a name alone is a column of the kind that its
      type suggests: floating point is numeric, all else categorical. None
      takes every column but label, weight, group and time.
    directory: where the encoded set goes, to be served from or opened again
      (`open_store`); None keeps it in memory alone.
    bad_rows: 'raise' or 'quarantine' (see `ingest.prepare`).
    name: of the data set.
    **options: further attributes of `Source`: label, weight, group, time,
      split, min_count, missing, ...

  Raises:
    DataError: for a missing column, unequal lengths, a bad row, an unknown
      option, or a validation split without a test split.
  """
  if valid is not None and test is None:
    raise errors.DataError(
      'from_arrays got a validation split but no test split; give both, or '
      'neither to have `train` split.'
    )
  if train is None:
    raise errors.DataError('from_arrays got no rows to train on: None.')
  tables = {'all' if test is None else 'train': train}
  tables |= {'valid': valid, 'test': test}
  tables = {
    split: arrays.as_table(rows, f'{name}, {split}')
    for split, rows in tables.items()
    if rows is not None
  }
  names = next(iter(tables.values())).schema
  reserved = {options.get('label', 'label')}
  reserved |= {options.get(key) for key in ('weight', 'group', 'time')}
  if columns is None:
    columns = [n for n in names.names if n not in reserved]
  files = {split: (split,) for split in tables}
  known = {field.name for field in dataclasses.fields(source_lib.Source)}
  unknown = sorted(set(options) - (known - {'name', 'files', 'columns'}))
  if unknown:
    raise errors.DataError(
      f'from_arrays has no option {unknown[0]!r}.'
      + source_lib.nearest(unknown[0], known)
    )
  source = source_lib.Source(
    name, files, tuple(_column(c, names) for c in columns), **options
  )
  if directory is not None:
    target = pathlib.Path(directory)
    ingest.build(source, _blocks(source, tables), target, bad_rows)
    return store.open_store(target, name)
  with tempfile.TemporaryDirectory() as scratch:
    target = pathlib.Path(scratch) / 'store'
    ingest.build(source, _blocks(source, tables), target, bad_rows)
    data = store.open_store(target, name)
    return dataclasses.replace(
      data,
      directory=None,
      **{s: _copied(getattr(data, s)) for s in ('train', 'valid', 'test')},
    )


def _column(column, names):
  if isinstance(column, source_lib.Column):
    return column
  place = names.get_field_index(column)
  is_number = place >= 0 and pa.types.is_floating(names.field(place).type)
  return source_lib.Column(column, 'numeric' if is_number else 'categorical')


def _blocks(source, tables) -> Iterator[tuple[str, readers.Block, float]]:
  total, done = max(sum(map(len, tables.values())), 1), 0
  for split, table in tables.items():
    for start in range(0, max(len(table), 1), _ROWS):
      part = table.slice(start, _ROWS)
      good, bad = arrays.from_arrays(source, part)
      bad = [
        dataclasses.replace(
          row, path=f'{source.name}, {split}', line=row.line + start
        )
        for row in bad
      ]
      done += len(part)
      yield split, readers.Block(good, bad, 0), done / total


def _copied(split):
  values = {
    field.name: getattr(split, field.name)
    for field in dataclasses.fields(split)
  }
  return dataset_lib.Split(
    **{k: None if v is None else np.array(v) for k, v in values.items()}
  )
