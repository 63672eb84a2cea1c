"""Encoded data as everything above the data layer sees it."""

from collections.abc import Mapping
import dataclasses
from typing import Any

import numpy as np

from jax_autorec import errors
from jax_autorec import schema as schema_lib


@dataclasses.dataclass(frozen=True)
class Split:
  """Encoded rows: plain arrays, held in memory or memory-mapped.

  R rows, C id columns, N numeric fields (see `types.Batch`).

  Attributes:
    ids: int32 [R, C].
    numeric: float32 [R, N], 0 where missing.
    missing: bool [R, N].
    labels: float32 [R], 0 or 1.
    weights: float32 [R], or None where every row weighs 1.
    groups: int64 [R], the group that a row belongs to, or None.
    times: float64 [R], or None.
  """

  ids: np.ndarray
  numeric: np.ndarray
  missing: np.ndarray
  labels: np.ndarray
  weights: np.ndarray | None = None
  groups: np.ndarray | None = None
  times: np.ndarray | None = None

  def __post_init__(self):
    lengths = {
      field.name: len(getattr(self, field.name))
      for field in dataclasses.fields(self)
      if getattr(self, field.name) is not None
    }
    if len(set(lengths.values())) > 1:
      raise errors.DataError(f'Columns of unequal length: {lengths}.')

  @property
  def num_rows(self) -> int:
    return len(self.labels)

  def head(self, num_rows: int) -> 'Split':
    """The first rows, as views."""
    return self._part(slice(num_rows))

  def tail(self, first: int) -> 'Split':
    """The rows from `first` on, as views."""
    return self._part(slice(first, None))

  def sample(self, num_rows: int, seed: int) -> 'Split':
    """So many rows drawn evenly, in their order; all where there are no more.

    Args:
      num_rows: at most; 0 for all.
      seed: of the draw.
    """
    if not num_rows or num_rows >= self.num_rows:
      return self
    rng = np.random.default_rng(seed)
    return self._part(np.sort(rng.choice(self.num_rows, num_rows, False)))

  def _part(self, rows):
    return Split(
      **{
        field.name: value[rows] if value is not None else None
        for field in dataclasses.fields(self)
        for value in [getattr(self, field.name)]
      }
    )


@dataclasses.dataclass(frozen=True)
class Dataset:
  """Three encoded splits and what is known about them.

  Attributes:
    name: the name it was asked for by.
    schema: fitted schema: vocabulary sizes are set.
    train: rows that weights are fitted on.
    valid: rows that choices are made on.
    test: rows that only `evaluate` reads, once.
    frequencies: field name -> int64 [vocab_size], train counts per id.
    counts: rows 'read', 'kept' and 'quarantined', over all splits.
    fingerprint: identifies the raw input and the settings of the encoding.
    directory: of the store that it lies in, for `store.read_encoder`; None for
      what is in memory alone.
    truth: what a generator knows: 'test' -> Bayes-optimal 'auc', 'logloss';
      'pairs' -> the planted pairs, by name; more where its docstring says so
      (`planted.generate`, `planted_fields.generate`). Empty for real data.
    scales: numeric field -> how its raw values were scaled, an
      `encode.NumericMap`; a field without one was not.
  """

  name: str
  schema: schema_lib.Schema
  train: Split
  valid: Split
  test: Split
  frequencies: Mapping[str, np.ndarray]
  counts: Mapping[str, int]
  fingerprint: str = ''
  directory: str | None = None
  truth: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  scales: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  def sample(self, train: int, valid: int, seed: int) -> 'Dataset':
    """So many rows of these splits, drawn evenly; see `Split.sample`."""
    return dataclasses.replace(
      self,
      train=self.train.sample(train, seed),
      valid=self.valid.sample(valid, seed),
    )

  def head(self, num_rows: int) -> 'Dataset':
    """The first rows of every split; counts stay those of the whole."""
    return dataclasses.replace(
      self,
      train=self.train.head(num_rows),
      valid=self.valid.head(num_rows),
      test=self.test.head(num_rows),
    )
