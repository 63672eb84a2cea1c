"""From raw values to ids and numbers, as fitted on the train split."""

from collections.abc import Mapping
import dataclasses
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jax_autorec import errors
from jax_autorec import schema as schema_lib
from jax_autorec.data import arrays, arrow
from jax_autorec.data import source as source_lib
from jax_autorec.data import vocabulary as vocabulary_lib
from jax_autorec.data.vocabulary import MISSING, PAD

MISSING_BIN = np.iinfo(np.int64).min
_LAST_BIN = 2.0**62


def split_cells(
  column: pa.ChunkedArray, spec: source_lib.Column
) -> tuple[pa.Array, np.ndarray]:
  """Where the values of multi-valued cells go.

  Args:
    column: texts to be split at the column's separator, or lists.
    spec: the column.

  Returns:
    The flat values; int64 [R, max_length], places in them, `PAD` for no value
    and `MISSING` in the first column of an empty cell.
  """
  if isinstance(column, pa.ChunkedArray):
    column = column.combine_chunks()
  if not arrow.has_lists(column):
    if spec.separator is None:
      raise errors.DataError(
        f'Column {spec.name!r} has max_length {spec.max_length}, but its cells '
        f'are {column.type}; expected lists or a separator.'
      )
    column = pc.split_pattern(column, spec.separator)
  lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
  starts = np.cumsum(lengths, dtype=np.int64) - lengths
  slots = np.arange(spec.max_length)
  places = np.where(
    slots < lengths[:, None], starts[:, None] + slots, np.int64(PAD)
  )
  places[lengths == 0, 0] = MISSING
  return column.flatten(), places


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
    """Bin numbers int64; `MISSING_BIN` for NaN."""
    missing = np.isnan(values)
    live = np.where(missing, 0, values).astype(np.float64)
    if self.kind == 'log_square':
      large = live > 2
      live[large] = np.floor(np.log(live[large]) ** 2)
      found = np.clip(np.trunc(live), -_LAST_BIN, _LAST_BIN).astype(np.int64)
    else:
      found = np.searchsorted(self.edges, live, side='right')
    found[missing] = MISSING_BIN
    return found


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
  vocabularies: Mapping[str, vocabulary_lib.Vocabulary]
  numeric: Mapping[str, NumericMap]

  def encode(self, rows: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Raw rows -> ids, numeric, missing (see `types.Batch`).

    A value that the train split lacks gets the unknown id.

    Args:
      rows: a dict of arrays or a DataFrame with the columns of the source; the
        label is not needed, others are ignored. What a source derives from
        other columns (Avazu's weekday, say) must be there derived.

    Raises:
      DataError: for a missing column, unequal lengths or a cell that is no
        number; names column and row.
    """
    table, bad = arrays.from_arrays(self.source, rows, labelled=False)
    if bad:
      raise errors.DataError(str(bad[0]))
    return self.encode_table(table)

  def encode_table(
    self, table: pa.Table
  ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same for a table of typed columns, as readers make them."""
    by_name = {column.name: column for column in self.source.columns}
    ids = [np.zeros((len(table), 0), np.int32)]
    for field in self.schema.categorical:
      column, values = by_name[field.name], table[field.name]
      vocabulary = self.vocabularies[field.name]
      if column.kind == 'numeric':
        bins = self.numeric[field.name].bins(values.to_numpy())
        values = bin_texts(bins)
      if column.max_length == 1:
        ids.append(vocabulary.ids(values)[:, None])
        continue
      flat, places = split_cells(values, column)
      reserved = np.array([-1, schema_lib.MISSING_ID], np.int32)
      ids.append(np.append(vocabulary.ids(flat), reserved)[places])
    numeric = np.zeros((len(table), len(self.schema.numeric)), np.float32)
    for i, field in enumerate(self.schema.numeric):
      values = table[field.name].to_numpy()
      numeric[:, i] = self.numeric[field.name].scaled(values)
    missing = np.isnan(numeric)
    return np.concatenate(ids, 1), np.where(missing, 0, numeric), missing


def bin_texts(bins: np.ndarray) -> pa.Array:
  """Bin numbers as a vocabulary has them; null for `MISSING_BIN`."""
  known = pa.array(bins, pa.int64(), mask=bins == MISSING_BIN)
  return pc.cast(known, pa.string())
