"""Rows with provisional codes, on disk until their ids are fitted."""

from collections.abc import Iterable, Iterator
from concurrent import futures
import pathlib

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jax_autorec.data import arrow, encode
from jax_autorec.data import source as source_lib
from jax_autorec.data import vocabulary as vocabulary_lib

ROWS = 2**16  # Rows per step after reading.


class Provisional:
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
    for start in range(0, self.rows, ROWS):
      count = min(ROWS, self.rows - start)
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
