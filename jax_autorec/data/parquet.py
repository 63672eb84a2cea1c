"""Parquet files read into rows, batch by batch."""

from collections.abc import Iterator
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jax_autorec import errors
from jax_autorec.data import checks, columns
from jax_autorec.data import source as source_lib


def read(source: source_lib.Source, path: str) -> Iterator[checks.Parsed]:
  """Rows of a Parquet file, batch by batch (see `readers.read`)."""
  try:
    file = pq.ParquetFile(path)
  except FileNotFoundError as error:
    raise errors.DataError(f'{path} does not exist.') from error
  except (pa.ArrowInvalid, OSError) as error:
    raise errors.DataError(f'{path} is not Parquet: {error}.') from error
  names = file.schema_arrow.names
  if not source.derive:
    columns.check_names(source, path, names)
  size, done = os.path.getsize(path), 0
  used = names
  if not source.derive:
    used = [name for name in names if name in columns.used_names(source)]
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
    table, wrong = columns.typed(source, raw)
    first = done + 1
    done += len(raw)
    position = size * done // max(file.metadata.num_rows, 1)
    text = lambda row, raw=raw: str(raw.slice(row, 1).to_pylist()[0])
    lines = first + np.arange(len(raw))
    yield checks.Parsed(table, lines, text, [], position, wrong)
