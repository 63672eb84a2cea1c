"""From raw values to ids and numbers, as fitted on the train split."""

from collections.abc import Mapping
import dataclasses
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jax_autorec import errors
from jax_autorec import schema as schema_lib
from jax_autorec.data import source as source_lib

MISSING, PAD = -1, -2  # Provisional codes of what is no value.


class Interner:
  """Gives every distinct value of a column a provisional code, as they come.

  Its memory grows with the number of distinct values alone: about 150 bytes
  for a short text.
  """

  def __init__(self):
    self._codes: dict[Any, int] = {}

  def __len__(self) -> int:
    return len(self._codes)

  def codes(self, column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Codes int32 [R] of a block's column; `MISSING` for nulls."""
    if isinstance(column, pa.ChunkedArray):
      column = column.combine_chunks()
    encoded = column.dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
      encoded = encoded.combine_chunks()
    known = self._codes
    table = np.fromiter(
      (known.setdefault(v, len(known)) for v in encoded.dictionary.to_pylist()),
      np.int32,
      len(encoded.dictionary),
    )
    places = pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False)
    # Place -1 reads the last entry: the code of a missing cell.
    return np.append(table, np.int32(MISSING))[places]

  def values(self) -> list[str]:
    """Values as text, in order of their codes."""
    return [str(value) for value in self._codes]


def split_cells(column: pa.ChunkedArray, spec: source_lib.Column) -> np.ndarray:
  """Where the values of multi-valued cells go: (flat values, [R, L] places).

  Returns:
    The flat values as an Arrow array; int64 [R, L], places in them, `PAD` for
    no value and `MISSING` in the first column of an empty cell.
  """
  lists = pc.split_pattern(column.combine_chunks(), spec.separator)
  lists = (
    lists.combine_chunks() if isinstance(lists, pa.ChunkedArray) else lists
  )
  lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy()
  starts = np.cumsum(lengths) - lengths
  slots = np.arange(spec.max_length)
  places = np.where(
    slots < lengths[:, None], starts[:, None] + slots, np.int64(PAD)
  )
  places[lengths == 0, 0] = MISSING
  return lists.flatten(), places


@dataclasses.dataclass(frozen=True)
class Vocabulary:
  """The ids of one categorical field.

  Attributes:
    values: raw values by id, from the first value id on.
    frequencies: int64 [vocab_size], train counts; reserved ids first.
  """

  values: tuple[str, ...]
  frequencies: np.ndarray

  @property
  def size(self) -> int:
    return schema_lib.FIRST_VALUE_ID + len(self.values)


def fit_vocabulary(
  values: list[str], counts: np.ndarray, num_missing: int, min_count: int
) -> tuple[Vocabulary, np.ndarray]:
  """Ids by falling train count; equal counts by value.

  Args:
    values: distinct values by provisional code.
    counts: int64, how often the train split has each.
    num_missing: empty cells of the train split.
    min_count: rarer values are unknown; values the train split lacks always.

  Returns:
    The vocabulary; int32, provisional code -> id, with two more entries at the
    end that `PAD` and `MISSING` read as negative places.
  """
  first = schema_lib.FIRST_VALUE_ID
  kept = np.flatnonzero(counts >= max(min_count, 1))
  order = sorted(kept.tolist(), key=lambda code: (-counts[code], values[code]))
  ids = np.full(len(values) + 2, schema_lib.UNKNOWN_ID, np.int32)
  ids[order] = np.arange(first, first + len(order), dtype=np.int32)
  ids[PAD], ids[MISSING] = -1, schema_lib.MISSING_ID
  unknown = int(counts.sum() - counts[kept].sum())
  frequencies = np.r_[[num_missing, unknown], counts[order]].astype(np.int64)
  return Vocabulary(tuple(values[c] for c in order), frequencies), ids


@dataclasses.dataclass(frozen=True)
class NumericMap:
  """How one numeric column is scaled or cut into bins.

  Attributes:
    kind: a scaler's or a discretisation's name.
    edges: inner bin edges, or quantiles; increasing.
    center: subtracted.
    scale: divided by, after.
  """

  kind: str
  edges: tuple[float, ...] = ()
  center: float = 0.0
  scale: float = 1.0

  def scaled(self, values: np.ndarray) -> np.ndarray:
    """Scaled values float32; NaN stays."""
    values = values.astype(np.float64)
    if self.kind == 'log':
      values = np.sign(values) * np.log1p(np.abs(values))
    if self.kind == 'quantile':
      share = np.searchsorted(self.edges, values) / max(len(self.edges), 1)
      values = np.where(np.isnan(values), np.nan, share)
    return ((values - self.center) / self.scale).astype(np.float32)

  def bins(self, values: np.ndarray) -> np.ndarray:
    """Bin numbers int64; `MISSING` for NaN."""
    live = np.where(np.isnan(values), 0, values).astype(np.float64)
    if self.kind == 'log_square':
      with np.errstate(invalid='ignore', divide='ignore'):
        found = np.where(live > 2, np.floor(np.log(live) ** 2), np.trunc(live))
    else:
      found = np.searchsorted(self.edges, live, side='right')
    return np.where(np.isnan(values), MISSING, found).astype(np.int64)


def fit_numeric(spec: source_lib.Column, sample: np.ndarray) -> NumericMap:
  """Fits a scaler or bins on train values, missing ones left out.

  Args:
    spec: the column.
    sample: float [S], train values: all of them, or an even sample of a large
      split.
  """
  kind = spec.scaler if spec.discretize == 'none' else spec.discretize
  sample = sample[~np.isnan(sample)].astype(np.float64)
  if kind in ('none', 'log_square') or not len(sample):
    return NumericMap(kind)
  if kind == 'equal_width':
    edges = np.linspace(sample.min(), sample.max(), spec.bins + 1)[1:-1]
    return NumericMap(kind, tuple(edges))
  if kind in ('equal_frequency', 'quantile'):
    count = spec.bins if kind == 'equal_frequency' else 1000
    shares = np.linspace(0, 1, count + 1)[1:-1]
    edges = np.unique(np.quantile(sample, shares))
    return NumericMap(kind, tuple(edges.tolist()))
  if kind == 'log':
    sample = np.sign(sample) * np.log1p(np.abs(sample))
  center, scale = {
    'minmax': (sample.min(), np.ptp(sample)),
    'max': (0.0, np.abs(sample).max()),
  }.get(kind, (sample.mean(), sample.std()))
  return NumericMap(kind, (), float(center), float(scale) or 1.0)


@dataclasses.dataclass(frozen=True)
class Encoder:
  """Everything that encodes a raw row, as fitted; serves new rows as well.

  Attributes:
    source: the declaration it was fitted for.
    schema: fitted schema.
    vocabularies: by categorical field.
    numeric: by numeric column, discretised ones included.
  """

  source: source_lib.Source
  schema: schema_lib.Schema
  vocabularies: Mapping[str, Vocabulary]
  numeric: Mapping[str, NumericMap]

  def encode(
    self, arrays: Mapping[str, Any]
  ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Raw columns of new rows -> ids, numeric, missing (see `Batch`).

    A value that the train split lacks gets the unknown id.

    Args:
      arrays: column -> [R] raw values; the label is not needed.

    Raises:
      DataError: for a missing column, unequal lengths or a non-number.
    """
    names = [column.name for column in self.source.columns]
    absent = [name for name in names if name not in arrays]
    if absent:
      raise errors.DataError(
        f'Rows to encode lack columns {absent}; expected {names}.'
      )
    lengths = {name: len(arrays[name]) for name in names}
    if len(set(lengths.values())) > 1:
      raise errors.DataError(f'Columns of unequal length: {lengths}.')
    ids, numeric = [], []
    for column in self.source.columns:
      raw = arrays[column.name]
      if column.kind == 'numeric':
        values = _numbers(column, raw)
        if column.encoded_kind == 'numeric':
          numeric.append(self.numeric[column.name].scaled(values))
          continue
        bins = self.numeric[column.name].bins(values)
        texts = [None if b == MISSING else str(b) for b in bins]
      else:
        texts = [_text(value, self.source, column) for value in raw]
      ids.append(self._ids(column, texts))
    count = next(iter(lengths.values()))
    ids = np.concatenate(ids, 1) if ids else np.zeros((count, 0), np.int32)
    if not numeric:
      return ids, np.zeros((count, 0), np.float32), np.zeros((count, 0), bool)
    stacked = np.stack(numeric, 1)
    return ids, np.nan_to_num(stacked, nan=0.0), np.isnan(stacked)

  def _ids(self, column, texts):
    vocabulary = self.vocabularies[column.name]
    places = {
      value: schema_lib.FIRST_VALUE_ID + i
      for i, value in enumerate(vocabulary.values)
    }
    out = np.full((len(texts), column.max_length), -1, np.int32)
    for row, text in enumerate(texts):
      if text is None:
        out[row, 0] = schema_lib.MISSING_ID
        continue
      cells = text.split(column.separator) if column.separator else [text]
      for slot, cell in enumerate(cells[: column.max_length]):
        out[row, slot] = places.get(cell, schema_lib.UNKNOWN_ID)
    return out


def _text(value, source, column):
  """A raw cell as text; None where it is empty and has no default."""
  empty = value is None or (isinstance(value, float) and np.isnan(value))
  text = None if empty else str(value)
  if text is None or text in source.missing:
    return None if column.default is None else str(column.default)
  return text


def _numbers(column, raw):
  default = np.nan if column.default is None else float(column.default)
  try:
    return np.array(
      [default if v is None or v == '' else float(v) for v in raw], np.float64
    )
  except (TypeError, ValueError) as error:
    raise errors.DataError(
      f'Column {column.name!r}: {error}; expected numbers.'
    ) from error
