"""Vocabularies and numeric maps, fitted on rows with provisional codes."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jax_autorec import errors
from jax_autorec import schema as schema_lib
from jax_autorec.data import encode, provisional, splitting
from jax_autorec.data import source as source_lib
from jax_autorec.data import vocabulary as vocabulary_lib

_SAMPLE = 5 * 10**5  # Rows that numeric maps are fitted on, at most.


def _count(counts: np.ndarray, codes: np.ndarray) -> None:
  """Adds how often each code stands in `codes` [...]."""
  codes = codes[codes >= 0]
  if len(counts) < 4 * len(codes):
    counts += np.bincount(codes, minlength=len(counts))
  else:
    np.add.at(counts, codes, 1)


class Fit:
  """Vocabularies and numeric maps, fitted on the train split.

  A stream has them of all rows: each is predicted before it is learnt from.
  """

  def __init__(self, source: source_lib.Source, rows: provisional.Provisional):
    train = np.zeros(3, np.int64)
    for chunk in rows.chunks('splits'):
      train += np.bincount(chunk['splits'], minlength=3)
    for number, split in enumerate(splitting.SPLITS):
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
