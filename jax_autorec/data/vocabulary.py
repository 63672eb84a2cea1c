"""Distinct values of a column: found as they come, numbered by frequency."""

import dataclasses
import functools

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jax_autorec import schema as schema_lib

MISSING, PAD = -1, -2  # Codes of what is no value.

_ABSENT = -1
_FULL = 0.6  # Share of slots in use at which their number doubles.
_MIX = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD6E8FEB86659FD93)
_TAILS = np.array([(1 << 8 * n) - 1 for n in range(8)] + [2**64 - 1], np.uint64)


@dataclasses.dataclass(frozen=True)
class _Texts:
  """Byte strings, one after the other.

  Attributes:
    windows: uint8 [bytes, 8], the eight bytes from every place on.
    starts: int64 [N].
    lengths: int64 [N], in bytes.
  """

  windows: np.ndarray
  starts: np.ndarray
  lengths: np.ndarray

  @classmethod
  def of(cls, array: pa.Array) -> '_Texts':
    data, offsets = _buffers(array)
    padded = np.zeros(len(data) + 8, np.uint8)
    padded[: len(data)] = data
    return cls(_windows(padded), offsets[:-1], np.diff(offsets))

  def words(self, rows: np.ndarray, number: int) -> np.ndarray:
    """The `number`-th eight bytes uint64 of some texts, 0 beyond the end."""
    words = self.windows[self.starts[rows] + 8 * number].view('<u8')[:, 0]
    left = np.clip(self.lengths[rows] - 8 * number, 0, 8)
    return words & _TAILS[left]

  def hashes(self) -> np.ndarray:
    """64-bit hashes, as int64 of at least 0."""
    hashed = self.lengths.astype(np.uint64) * _MIX[1]
    rows, number = np.arange(len(self.starts)), 0
    while len(rows):
      mixed = (hashed[rows] ^ self.words(rows, number)) * _MIX[0]
      mixed = (mixed ^ (mixed >> np.uint64(29))) * _MIX[1]
      hashed[rows] = mixed ^ (mixed >> np.uint64(32))
      number += 1
      rows = rows[self.lengths[rows] > 8 * number]
    return (hashed >> np.uint64(1)).astype(np.int64)


def _buffers(array: pa.Array) -> tuple[np.ndarray, np.ndarray]:
  """Bytes of an array of texts; int64 [N + 1], where each starts in them."""
  _, offsets, data = array.buffers()
  kind = np.int64 if pa.types.is_large_string(array.type) else np.int32
  places = np.frombuffer(offsets, kind)
  places = places[array.offset : array.offset + len(array) + 1]
  places = places.astype(np.int64)
  empty = np.zeros(0, np.uint8)
  data = empty if data is None else np.frombuffer(data, np.uint8)
  return data[places[0] : places[-1]], places - places[0]


def _windows(data: np.ndarray) -> np.ndarray:
  return np.lib.stride_tricks.sliding_window_view(data, 8)


class Interner:
  """Gives every distinct text of a column a code, as they come.

  A hash table of arrays, since a dict of Python's takes six times the memory.
  It grows with the distinct values alone: per value its text, 8 bytes of
  offset and 7 to 13 of slots.
  """

  def __init__(self):
    self._size = 0
    self._slots = np.full(2**10, _ABSENT, np.int32)
    self._bytes = np.zeros(2**12, np.uint8)
    self._offsets = np.zeros(2**8, np.int64)

  def __len__(self) -> int:
    return self._size

  def codes(self, column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Codes int32 [R] of texts or integers; `MISSING` for nulls."""
    return self._codes(column, add=True)

  def find(self, column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """As `codes`, but len(self) for a text that has no code."""
    return self._codes(column, add=False)

  def values(self) -> pa.Array:
    """Texts in order of their codes; valid until the next `codes`."""
    return pa.LargeStringArray.from_buffers(
      self._size,
      pa.py_buffer(self._offsets[: self._size + 1]),
      pa.py_buffer(self._bytes[: self._offsets[self._size]]),
    )

  def _codes(self, column, add):
    if isinstance(column, pa.ChunkedArray):
      column = column.combine_chunks()
    encoded = column.dictionary_encode()
    dictionary = encoded.dictionary
    if not pa.types.is_large_string(dictionary.type):
      dictionary = pc.cast(dictionary, pa.string())
    table = self._look_up(dictionary, add)
    places = pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False)
    # Place -1 reads the last entry: the code of a missing cell.
    return np.append(table, np.int32(MISSING))[places]

  def _look_up(self, dictionary, add):
    """Codes of distinct texts: all probe their slots at once, in rounds."""
    texts = _Texts.of(dictionary)
    count = len(dictionary)
    if add and self._size + count > _FULL * len(self._slots):
      self._grow(self._size + count)
    last = len(self._slots) - 1
    places = texts.hashes() & last
    codes = np.full(count, self._size, np.int32)
    pending = np.arange(count)
    while len(pending):
      held = self._slots[places[pending]]
      is_taken = held != _ABSENT
      taken, held = pending[is_taken], held[is_taken]
      same = self._equal(held, texts, taken)
      codes[taken[same]] = held[same]
      moving = taken[~same]
      places[moving] = (places[moving] + 1) & last
      free = pending[~is_taken]
      if not add:
        pending = moving
        continue
      # Several can want one slot: the last to write its mark has it.
      marks = (_ABSENT - 1 - free).astype(np.int32)
      self._slots[places[free]] = marks
      has_won = self._slots[places[free]] == marks
      winners = free[has_won]
      new = np.arange(self._size, self._size + len(winners), dtype=np.int32)
      self._slots[places[winners]] = codes[winners] = new
      self._append(dictionary.take(pa.array(winners)))
      pending = np.concatenate([moving, free[~has_won]])
    return codes

  def _equal(self, codes, texts, rows):
    """Whether known texts [N] are the same as some of others."""
    starts = self._offsets[codes]
    mine = _Texts(
      _windows(self._bytes), starts, self._offsets[codes + 1] - starts
    )
    same = mine.lengths == texts.lengths[rows]
    left, number = np.flatnonzero(same), 0
    while len(left):
      equal = mine.words(left, number) == texts.words(rows[left], number)
      same[left[~equal]] = False
      number += 1
      left = left[equal & (mine.lengths[left] > 8 * number)]
    return same

  def _append(self, array):
    data, offsets = _buffers(array)
    start, size = self._offsets[self._size], self._size + len(array)
    self._bytes = _enlarged(self._bytes, start + len(data) + 8)
    self._offsets = _enlarged(self._offsets, size + 1)
    self._bytes[start : start + len(data)] = data
    self._offsets[self._size + 1 : size + 1] = start + offsets[1:]
    self._size = size

  def _grow(self, size):
    """Makes slots for `size` texts and deals those there are anew."""
    slots = len(self._slots)
    while size > _FULL * slots:
      slots *= 2
    self._slots = np.full(slots, _ABSENT, np.int32)
    for start in range(0, self._size, 2**16):
      codes = np.arange(start, min(start + 2**16, self._size), dtype=np.int32)
      offsets = self._offsets[start : start + len(codes) + 1]
      texts = _Texts(_windows(self._bytes), offsets[:-1], np.diff(offsets))
      places = texts.hashes() & (slots - 1)
      pending = np.arange(len(codes))
      while len(pending):
        at = places[pending]
        free = self._slots[at] == _ABSENT
        self._slots[at[free]] = codes[pending[free]]
        pending = pending[self._slots[at] != codes[pending]]
        places[pending] = (places[pending] + 1) & (slots - 1)


def _enlarged(array, size):
  if size > len(array):
    # In place: no moment has both the old and the new one.
    array.resize(max(size, len(array) * 5 // 4), refcheck=False)
  return array


@dataclasses.dataclass(frozen=True)
class Vocabulary:
  """The ids of one categorical field.

  Attributes:
    values: texts by id, from the first value id on; an Arrow array.
    frequencies: int64 [vocab_size], train counts; reserved ids first.
  """

  values: pa.Array
  frequencies: np.ndarray

  @property
  def size(self) -> int:
    return schema_lib.FIRST_VALUE_ID + len(self.values)

  @functools.cached_property
  def _known(self) -> tuple[Interner, np.ndarray]:
    interner = Interner()
    first = schema_lib.FIRST_VALUE_ID
    ids = np.full(len(self.values) + 2, schema_lib.UNKNOWN_ID, np.int32)
    ids[interner.codes(self.values)] = np.arange(first, self.size)
    ids[MISSING] = schema_lib.MISSING_ID
    return interner, ids

  def ids(self, column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Ids int32 [R] of texts: reserved ones for nulls and unknown texts."""
    interner, ids = self._known
    return ids[interner.find(column)]


def fit_vocabulary(
  values: pa.Array, counts: np.ndarray, num_missing: int, min_count: int
) -> tuple[Vocabulary, np.ndarray]:
  """Ids by falling train count; equal counts by value.

  Args:
    values: distinct texts by provisional code.
    counts: int64, how often the train split has each.
    num_missing: empty cells of the train split.
    min_count: rarer values are unknown; values the train split lacks always.

  Returns:
    The vocabulary; int32, provisional code -> id, with two more entries at the
    end that `PAD` and `MISSING` read as negative places.
  """
  first = schema_lib.FIRST_VALUE_ID
  kept = np.flatnonzero(counts >= max(min_count, 1))
  table = pa.table(
    {'count': counts[kept], 'value': values.take(pa.array(kept))}
  )
  places = pc.sort_indices(
    table, [('count', 'descending'), ('value', 'ascending')]
  )
  ids = np.full(len(values) + 2, schema_lib.UNKNOWN_ID, np.int32)
  ids[kept[places]] = np.arange(first, first + len(kept), dtype=np.int32)
  ids[PAD], ids[MISSING] = -1, schema_lib.MISSING_ID
  table = table.take(places).combine_chunks()
  unknown = int(counts.sum()) - pc.sum(table['count'], min_count=0).as_py()
  frequencies = np.concatenate([[num_missing, unknown], table['count']])
  chunks = table['value'].chunks
  texts = chunks[0] if chunks else pa.array([], pa.large_string())
  return Vocabulary(texts, frequencies.astype(np.int64)), ids
