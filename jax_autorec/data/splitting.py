"""Which split each row falls into, once all rows are read."""

from collections.abc import Iterator

import numpy as np

from jax_autorec import errors
from jax_autorec.data import provisional
from jax_autorec.data import source as source_lib
from jax_autorec.data import text as text_lib

SPLITS = ('train', 'valid', 'test')  # By their numbers.
_NONE = 255  # No split.


def split_numbers(
  source: source_lib.Source, rows: provisional.Provisional
) -> Iterator[np.ndarray]:
  """Split numbers of all rows, chunk by chunk."""
  rule, is_whole = source.split, 'all' in source.files
  rng = np.random.default_rng(rule.seed)
  has_valid = 'valid' in (source.rows or source.files)
  if is_whole and source.rows:
    named = _named_rows(source, rows)
  elif is_whole and rule.kind != 'ratio':
    shares = 1 - rule.valid - rule.test, 1 - rule.test
    bounds = [round(rows.rows * share) for share in shares]
    if rule.by_time:
      bounds = [_Boundary(rows, rank) for rank in bounds]
  start = 0
  for chunk in rows.chunks('parts', *(['time'] if source.time else [])):
    count = len(chunk['parts'])
    if not is_whole:
      splits = chunk['parts'] - 1
    elif source.rows:
      splits = np.array(named[start : start + count])
    elif rule.by_time:
      splits = sum(bound.is_beyond(chunk['time']) for bound in bounds)
    elif rule.kind == 'order':
      splits = np.searchsorted(
        bounds, np.arange(start, start + count), side='right'
      )
    else:
      drawn = rng.random(count)
      splits = np.where(drawn < rule.valid, 1, 0)
      splits[drawn >= 1 - rule.test] = 2
    if not has_valid and (source.rows or not is_whole):
      train = np.flatnonzero(splits == 0)
      splits[train[rng.random(len(train)) < rule.valid]] = 1
    start += count
    yield splits


class _Boundary:
  """Parts rows after those of a rank by time; equal times by their order."""

  def __init__(self, rows: provisional.Provisional, rank: int):
    # The time of that rank, found 16 bits at a time.
    low, self._left = np.uint64(0), rank
    for shift in (48, 32, 16, 0):
      counts = np.zeros(2**16 + 1, np.int64)
      for chunk in rows.chunks('time'):
        keys = _ordered_bits(chunk['time']) - low
        digits = np.minimum(keys >> np.uint64(shift), np.uint64(2**16))
        # What lies below has wrapped around to the top.
        counts += np.bincount(digits.astype(np.int64), minlength=2**16 + 1)
      ends = np.cumsum(counts[:-1])
      digit = int(np.searchsorted(ends, self._left, side='right'))
      digit = min(digit, 2**16 - 1)
      self._left -= int(ends[digit] - counts[digit])
      low += np.uint64(digit << shift)
    self._key = low

  def is_beyond(self, times: np.ndarray) -> np.ndarray:
    """0 or 1 for each of the next rows, in their order."""
    keys = _ordered_bits(times)
    beyond = keys > self._key
    ties = np.flatnonzero(keys == self._key)
    beyond[ties[self._left :]] = True
    self._left -= min(self._left, len(ties))
    return beyond.astype(np.uint8)


def _ordered_bits(times):
  """Float64 as uint64 in the same order."""
  bits = (times + 0.0).view(np.int64)  # No negative zero.
  bits = bits ^ ((bits >> 63) & np.int64(2**63 - 1))
  return bits.view(np.uint64) ^ np.uint64(2**63)


def _named_rows(source, rows):
  """Split numbers by the files of row numbers, on disk."""
  named = np.memmap(rows.directory / 'named', np.uint8, 'w+', shape=rows.rows)
  named[:] = _NONE
  for split, path in source.rows.items():
    for data in text_lib.blocks(path):
      try:
        numbers = np.array(data.split(), np.int64)
      except ValueError as error:
        raise errors.DataError(f'{path}: {error}; expected row numbers.') from (
          error
        )
      if len(numbers) and not 0 <= numbers.min() <= numbers.max() < rows.rows:
        raise errors.DataError(
          f'{path} names rows beyond the {rows.rows} that exist.'
        )
      before = named[numbers]
      twice = (before != _NONE) & (before != SPLITS.index(split))
      if twice.any():
        place = np.argmax(twice)
        raise errors.DataError(
          f'{path} names row {numbers[place]}, which is also one of the '
          f'{SPLITS[before[place]]} split; expected each row in one file.'
        )
      named[numbers] = SPLITS.index(split)
  lost = sum(
    int((named[start : start + provisional.ROWS] == _NONE).sum())
    for start in range(0, rows.rows, provisional.ROWS)
  )
  if lost:
    raise errors.DataError(f'{source.name}: {lost} rows are in no split.')
  return named
