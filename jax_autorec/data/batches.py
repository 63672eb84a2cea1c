"""Batches that follow from (seed, epoch, step) alone: nothing to save."""

from collections.abc import Iterator

import numpy as np

from jax_autorec import errors
from jax_autorec.data import dataset as dataset_lib
from jax_autorec.types import Batch

_BLOCK_ROWS = 1024


class Batches:
  """Random access to the batches of a split.

  Every row comes once per epoch, in an order of its own in each. A split no
  larger than a window is permuted outright: any order is equally likely. In a
  larger one blocks of 1024 neighbouring rows are dealt at random into windows,
  and rows permuted within each: it is read in runs, and memory holds the
  order of one window and of the blocks (8 bytes per row of a window, 1/128
  byte per row of the split). Two rows of a block then always share a window;
  all else is as random as a permutation.

  The order follows from (seed, epoch) alone, by NumPy's PCG64: blocks from the
  seed (seed, epoch, 0), window w from (seed, epoch, w + 1). Step s takes the
  places from s * batch_size * process_count on, each process a run of
  batch_size of them. So (seed, epoch, step) say what a batch holds, and
  training resumes at any step without any state of the reader.

  Attributes:
    batch_size: rows per batch, of this process.
    steps_per_epoch: batches per epoch, the same for all processes.
  """

  def __init__(
    self,
    split: dataset_lib.Split,
    batch_size: int,
    *,
    seed: int = 0,
    shuffle: bool = True,
    process_index: int = 0,
    process_count: int = 1,
    window_rows: int = 2**20,
  ):
    """Opens a split.

    Args:
      split: R rows.
      batch_size: rows per batch, of this process.
      seed: of the order of rows, at least 0.
      shuffle: False keeps the rows' own order, for evaluation.
      process_index: which of `process_count` disjoint parts to read.
      process_count: number of parts.
      window_rows: rows that are shuffled together.

    Raises:
      DataError: for an empty split.
      ConfigError: for sizes out of range.
    """
    if split.num_rows == 0:
      raise errors.DataError('A split without rows has no batches.')
    if batch_size < 1 or window_rows < _BLOCK_ROWS or seed < 0:
      raise errors.ConfigError(
        f'Batches got batch_size {batch_size}, window_rows {window_rows} and '
        f'seed {seed}; expected at least 1, {_BLOCK_ROWS} and 0.'
      )
    if not 0 <= process_index < process_count:
      raise errors.ConfigError(
        f'Process {process_index} of {process_count} does not exist.'
      )
    self.batch_size = batch_size
    self._split = split
    self._seed = seed
    self._shuffle = shuffle
    self._process = process_index, process_count
    self._window = window_rows // _BLOCK_ROWS * _BLOCK_ROWS
    self._order_key: tuple[int, int] | None = None
    self._order = np.zeros(0, np.int64)
    self._blocks_key: int | None = None
    self._blocks = np.zeros(0, np.int64)
    per_step = batch_size * process_count
    self.steps_per_epoch = -(-split.num_rows // per_step)

  def rows(self, epoch: int, step: int) -> np.ndarray:
    """Row numbers int64 [batch_size] of a batch; -1 for padding."""
    if not 0 <= step < self.steps_per_epoch:
      raise errors.ConfigError(
        f'Step {step} is not in an epoch of {self.steps_per_epoch} steps.'
      )
    index, count = self._process
    # Steps deal the epoch's order in runs: all processes' batches of a step
    # are neighbours there, so every process has as many steps.
    start = (step * count + index) * self.batch_size
    end = min(start + self.batch_size, self._split.num_rows)
    rows = np.full(self.batch_size, -1, np.int64)
    place = start
    while place < end:
      window = place // self._window if self._shuffle else 0
      if self._shuffle:
        last = min(end, (window + 1) * self._window)
        order = self._window_order(epoch, window)
        first = window * self._window
        rows[place - start : last - start] = order[place - first : last - first]
      else:
        last = end
        rows[: last - start] = np.arange(place, last)
      place = last
    return rows

  def _window_order(self, epoch: int, window: int) -> np.ndarray:
    """Row numbers of one window of an epoch, in their order."""
    if self._order_key == (epoch, window):
      return self._order
    num_rows = self._split.num_rows
    size = min(self._window, num_rows - window * self._window)
    rng = np.random.default_rng((self._seed, epoch, window + 1))
    if num_rows <= self._window:
      order = rng.permutation(num_rows)
    else:
      order = rng.permutation(self._dealt(epoch, window * self._window, size))
    self._order_key, self._order = (epoch, window), order
    return order

  def _dealt(self, epoch: int, first: int, size: int) -> np.ndarray:
    """Row numbers at some places when the epoch's blocks lie in their order."""
    num_rows = self._split.num_rows
    num_blocks = -(-num_rows // _BLOCK_ROWS)
    if self._blocks_key != epoch:
      rng = np.random.default_rng((self._seed, epoch, 0))
      self._blocks_key, self._blocks = epoch, rng.permutation(num_blocks)
    places = np.arange(first, first + size)
    # The last block may be short; what lies behind it moves up.
    short = num_blocks * _BLOCK_ROWS - num_rows
    last = int(np.flatnonzero(self._blocks == num_blocks - 1)[0])
    places[places >= (last + 1) * _BLOCK_ROWS - short] += short
    starts = self._blocks[places // _BLOCK_ROWS] * _BLOCK_ROWS
    return starts + places % _BLOCK_ROWS

  def batch(self, epoch: int, step: int) -> Batch:
    """One batch of numpy arrays, padded to `batch_size` and masked."""
    return self._stack([self.rows(epoch, step)], single=True)

  def chunk(self, start: int, count: int) -> Batch:
    """Batches of `count` steps from step `start` on, counted over epochs.

    Returns:
      A batch whose leaves have a leading axis of `count` steps.
    """
    rows = [
      self.rows(*divmod(step, self.steps_per_epoch))
      for step in range(start, start + count)
    ]
    return self._stack(rows, single=False)

  def _stack(self, rows: list[np.ndarray], single: bool) -> Batch:
    split = self._split
    taken = np.concatenate(rows)
    live = taken >= 0
    taken = np.where(live, taken, 0)
    lead = (self.batch_size,) if single else (len(rows), self.batch_size)

    def take(array, fill):
      values = np.take(array, taken, axis=0)
      if not live.all():
        values[~live] = fill
      return values.reshape(lead + values.shape[1:])

    ones = np.ones(len(taken), np.float32)
    weights = ones if split.weights is None else split.weights[taken]
    weights = np.where(live, weights, 0).astype(np.float32)
    return Batch(
      ids=take(split.ids, 0),
      numeric=take(split.numeric, 0),
      missing=take(split.missing, True).astype(bool, copy=False),
      labels=take(split.labels, 0),
      weights=weights.reshape(lead),
      mask=live.reshape(lead),
    )


def in_order(split: dataset_lib.Split, batch_size: int) -> Iterator[Batch]:
  """All rows of a split, in their order and batches; the last is padded."""
  source = Batches(split, batch_size, shuffle=False)
  return (source.batch(0, step) for step in range(source.steps_per_epoch))
