"""Keeping the largest entries of a table: an unstructured, sparse one.

What is kept has no shape: every row holds columns of its own. The derived
field stores the values that are kept, a bit for every entry of the table and,
for every row, where its values begin (`fields.FieldPlan.num_values`); these
bits and starts, 4 + dim / 8 bytes per id, count in `Architecture.ep_total`.

Tables are read in blocks of rows, each pass once; nothing of a table's size is
made but its bits.
"""

from collections.abc import Callable, Iterable, Iterator
import dataclasses

import numpy as np

from jax_autorec import architecture as arch_lib
from jax_autorec import errors, field_spaces, sizes
from jax_autorec.types import Array

_BLOCK_ENTRIES = 2**22

Blocks = Callable[[], Iterable[np.ndarray]]


def rows(table: Array) -> Iterator[tuple[int, np.ndarray]]:
  """First row and rows, on the host, of the blocks of a table [R, D]."""
  step = max(1, _BLOCK_ENTRIES // table.shape[1])
  for start in range(0, len(table), step):
    yield start, np.asarray(table[start : start + step])


def main_table(architecture: arch_lib.Architecture) -> str:
  """Name of the table of vectors of an architecture with an open choice."""
  return architecture.main_table.name


def largest(scores: Blocks, count: int) -> list[np.ndarray]:
  """The so many largest of all scores, exactly; of equal ones the first.

  Args:
    scores: gives the blocks, float32 [R_i, D], as often as it is called; -inf
      is never taken.
    count: how many to take.

  Returns:
    For every block bits uint8 [R_i, ceil(D / 8)], the most significant first.
  """
  # The bits of floats, read as integers, have the order of the floats. Half of
  # them are counted in a pass, so a count takes little memory.
  high, low = np.zeros(2**16, np.int64), np.zeros(2**16, np.int64)
  for block in scores():
    high += np.bincount(_ordered(block) >> 16, minlength=2**16)
  high[: int(_ordered(np.float32([-np.inf]))[0]) >> 16] = 0
  upper, above = _place(high, count)
  for block in scores():
    keys = _ordered(block)
    low += np.bincount(keys[keys >> 16 == upper] & 0xFFFF, minlength=2**16)
  lower, above_too = _place(low, count - above)
  threshold = max(upper << 16 | lower, _ordered(np.float32([-np.inf]))[0])
  ties = count - above - above_too
  kept = []
  for block in scores():
    keys = _ordered(block)
    equal = (keys == threshold) & (block.reshape(-1) > -np.inf)
    equal &= np.cumsum(equal) <= ties
    ties -= int(equal.sum())
    is_kept = (keys > threshold) | equal
    kept.append(np.packbits(is_kept.reshape(block.shape), axis=1))
  return kept


def _ordered(values):
  """float32 -> int64 [N] of the same order, 0 to 2^32."""
  bits = np.ascontiguousarray(values, np.float32).reshape(-1).view(np.uint32)
  bits = bits.astype(np.int64)
  return np.where(bits >> 31, 0xFFFFFFFF - bits, bits | 0x80000000)


def _place(counts, wanted):
  """The highest bin that `wanted` entries reach down to; how many are above."""
  from_above = np.cumsum(counts[::-1])[::-1]
  reached = np.flatnonzero(from_above >= wanted)
  place = int(reached[-1]) if len(reached) else 0
  return place, int(from_above[place] - counts[place])


def check(density: float, max_params: float | None) -> None:
  """Refuses a density or a budget out of range."""
  if not 0 < density <= 1:
    raise errors.ConfigError(
      f'The density is {density}; expected 0 < density <= 1.'
    )
  sizes.budget(max_params)


def check_space(space: arch_lib.Architecture, max_params: float | None) -> None:
  """Refuses a budget that holds no entry of any field.

  Args:
    space: with an open choice.
    max_params: the most that `ep_total` may be; None for no budget.
  """
  if max_params is None:
    return
  vocabularies = [plan.vocab_size for plan in space.categorical]
  bits = np.zeros((sum(vocabularies), -(-space.dim // 8)), np.uint8)
  smallest = int(np.argmin(vocabularies))
  bits[sum(vocabularies[:smallest]), 0] = 128
  sizes.check_budget(
    with_bits(space, bits), max_params, 'leave out fields of many ids'
  )


def is_reached(
  space: arch_lib.Architecture,
  counts: np.ndarray,
  density: float,
  max_params: float | None,
) -> bool:
  """Whether so many entries are no more than a model may keep.

  Args:
    space: with an open choice.
    counts: integers [F], entries by categorical field.
    density: share of the entries, where `max_params` is None.
    max_params: the most that `ep_total` may be.
  """
  if max_params is None:
    return int(counts.sum()) <= _share(space, density)
  index = _index_entries(space)[np.asarray(counts) > 0].sum()
  others = field_spaces.without_vectors(space).ep_total
  return others + index + counts.sum() <= max_params


def _share(space, density):
  entries = sum(plan.vocab_size for plan in space.categorical) * space.dim
  return max(1, round(density * entries))


def _index_entries(space):
  """The bits and starts of each field, in float32 entries: [F]."""
  vocabularies = np.array([plan.vocab_size for plan in space.categorical])
  return vocabularies * (-(-space.dim // 8) + 4) / 4


def by_field(
  space: arch_lib.Architecture, blocks: Iterable[np.ndarray]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """Blocks of rows, with the place of the field of each of their rows."""
  ends, start = np.cumsum([p.vocab_size for p in space.categorical]), 0
  for block in blocks:
    places = np.arange(start, start + len(block))
    yield np.searchsorted(ends, places, 'right'), block
    start += len(block)


def keep_largest(
  space: arch_lib.Architecture,
  scores: Blocks,
  density: float,
  max_params: float | None = None,
  initial: Array | None = None,
) -> arch_lib.Architecture:
  """The closed architecture of the entries of the largest scores.

  Under a budget entries are taken by falling score until it is full. The first
  one of a field brings the bits and starts of the whole field along; where
  these do not fit any more, the field is left out and others go on. So the
  budget is full, but where all that is left is fields it cannot open.

  Args:
    space: with an open choice, and one table of vectors [R, D].
    scores: blocks of rows of that table, see `largest`.
    density: share of the entries that is kept.
    max_params: budget of `ep_total` in its place.
    initial: [R, D], what the entries that are kept start from; None for fresh
      ones.

  Raises:
    ConfigError: where nothing is kept.
  """
  check_space(space, max_params)
  if max_params is None:
    bits = largest(scores, _share(space, density))
    return with_bits(space, np.concatenate(bits), initial)
  # What is not chosen of: first-order weights, and all that numbers need.
  left = max_params - field_spaces.without_vectors(space).ep_total
  opened = _opened(space, scores, left)
  index = _index_entries(space)[opened].sum()

  def allowed():
    for fields, block in by_field(space, scores()):
      yield np.where(opened[fields][:, None], block, np.float32(-np.inf))

  count = int(left - index)
  return with_bits(space, np.concatenate(largest(allowed, count)), initial)


def _opened(space, scores, left):
  """Which fields a budget holds the index of, at their first entry: [F].

  `left` of it are for entries and indices.
  """
  index = _index_entries(space)
  count = len(index)

  def places():
    """Fields [R_i] and the order of all entries, the last first: [R_i, D]."""
    for fields, block in by_field(space, scores()):
      keys = _ordered(block).reshape(block.shape) * count
      keys += count - 1 - fields[:, None]
      yield fields, np.where(block > -np.inf, keys, -1)

  first = np.full(count, -1, np.int64)
  for fields, keys in places():
    np.maximum.at(first, fields, keys.max(1))
  ordered = np.sort(first)
  # [F, F + 1]: entries of a field that come before so many fields' first.
  before = np.zeros((count, count + 1), np.int64)
  for fields, keys in places():
    behind = np.searchsorted(ordered, keys)
    where = fields[:, None] * (count + 1) + behind
    where = where[keys >= 0]
    before += np.bincount(where, minlength=before.size).reshape(before.shape)
  opened = np.zeros(count, bool)
  for field in np.argsort(-first, kind='stable'):
    if first[field] < 0:
      break
    rank = np.searchsorted(ordered, first[field])
    taken = before[opened, rank + 1 :].sum() + index[opened].sum()
    opened[field] = taken + index[field] + 1 <= left
  return opened


def with_bits(
  space: arch_lib.Architecture, bits: np.ndarray, initial: Array | None = None
) -> arch_lib.Architecture:
  """The closed architecture that holds the entries whose bits are set.

  Args:
    space: with an open choice, and one table of vectors [R, D].
    bits: uint8 [R, ceil(D / 8)], the most significant first.
    initial: see `keep_largest`.

  Raises:
    ConfigError: where no bit is set.
  """
  arrays, fields, values, first = {}, [], [], 0
  counts = np.bitwise_count(bits).sum(1, dtype=np.int64)
  for plan in space.fields:
    if plan.kind == 'numeric':
      fields.append(plan)
      continue
    last = first + plan.vocab_size
    total = int(counts[first:last].sum())
    if total:
      arrays[f'{plan.name}.bits'] = bits[first:last]
      ends = np.cumsum(counts[first:last])
      starts = (ends - counts[first:last]).astype(np.int32)
      arrays[f'{plan.name}.starts'] = starts
      fields.append(dataclasses.replace(plan, num_values=total))
      if initial is not None:
        values += _entries(initial, bits, first, last)
    else:
      fields.append(dataclasses.replace(plan, dim=1, pieces=()))
    first = last
  if not arrays:
    raise errors.ConfigError(
      'No entry of any table is kept: raise the density or the budget, or '
      'search fewer steps.'
    )
  if initial is not None:
    name = f'{arch_lib.INITIAL}main_sparse'
    arrays[name] = np.concatenate(values)[:, None]
  return dataclasses.replace(
    space,
    fields=tuple(fields),
    choice=None,
    width=space.dim,
    arrays={**space.kept_arrays, **arrays},
  )


def _entries(table, bits, first, last):
  """The kept entries of some rows, a block at a time."""
  dim = table.shape[1]
  step = max(1, _BLOCK_ENTRIES // dim)
  for start in range(first, last, step):
    end = min(start + step, last)
    kept = np.unpackbits(bits[start:end], axis=1, count=dim).astype(bool)
    yield np.asarray(table[start:end])[kept]
