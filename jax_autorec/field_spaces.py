"""Opens choices about the fields of an architecture, and settles them.

`open_...` leaves something about rows, columns or widths to a search;
`with_...` gives the closed architecture that a search arrives at.
"""

from collections.abc import Mapping, Sequence
import dataclasses

import numpy as np

from jax_autorec import architecture as arch_lib
from jax_autorec import choices as choices_lib
from jax_autorec import errors
from jax_autorec import fields as fields_lib
from jax_autorec import schema as schema_lib


def open_dims(
  architecture: arch_lib.Architecture,
  dims: Sequence[int],
  *,
  tables: str = 'shared',
  transform: str = 'linear',
  transforms: str = 'field',
) -> arch_lib.Architecture:
  """Leaves the width of every categorical field to a search.

  Args:
    architecture: a closed one of equal widths; its width does not matter.
    dims: candidate widths, increasing.
    tables: 'shared': one row of the largest width per id, of which a candidate
      reads the first columns; 'separate': rows of its own.
    transform: 'linear' or 'zero_pad', how candidates meet at the largest.
    transforms: whether linear maps are those of a 'field' or 'shared', while
      widths are open: see `choices.MixedDims`.
  """
  choice = choices_lib.MixedDims(dims, tables, transform, transforms)
  return _open(architecture, choice)


def with_dims(
  architecture: arch_lib.Architecture, dims: Sequence[int]
) -> arch_lib.Architecture:
  """The architecture with widths settled; vectors meet at the widest candidate.

  Args:
    architecture: with an open choice of widths, or of columns.
    dims: one per categorical field, of the candidates; 0 for a field without
      vectors.

  Raises:
    ConfigError: for another number of widths, or one that is no candidate.
  """
  choice = architecture.choice
  names = [plan.name for plan in architecture.categorical]
  allowed = getattr(choice, 'dims', None) or range(1, choice.dim + 1)
  if len(dims) != len(names) or not set(dims) <= {0, *allowed}:
    raise errors.ConfigError(
      f'Widths are {np.asarray(dims).tolist()}; expected one for each of the '
      f'{len(names)} categorical fields, 0 or of {tuple(allowed)}.'
    )
  widths = dict(zip(names, dims))
  fields = []
  for plan in architecture.fields:
    dim = int(widths.get(plan.name, plan.dim))
    without = {} if dim else {'pieces': ()}
    fields.append(dataclasses.replace(plan, dim=max(dim, 1), **without))
  return dataclasses.replace(
    architecture,
    fields=tuple(fields),
    choice=None,
    width=choice.width,
    projection=choice.transform,
  )


def without_vectors(
  architecture: arch_lib.Architecture,
) -> arch_lib.Architecture:
  """The architecture without a row of any categorical field.

  Its `ep_total` is what nothing that is open about them can change: first-order
  weights, and all that makes vectors of numbers.

  Args:
    architecture: with an open choice.
  """
  fields = tuple(
    dataclasses.replace(plan, dim=1, pieces=())
    if plan.kind == 'categorical'
    else plan
    for plan in architecture.fields
  )
  return dataclasses.replace(
    architecture, fields=fields, choice=None, width=architecture.dim
  )


def dim_sizes(architecture: arch_lib.Architecture) -> tuple[float, np.ndarray]:
  """What widths come to: `ep_total` is a constant and a part of each field.

  Args:
    architecture: with an open choice of widths.

  Returns:
    The constant, and [F, N] the part of each field at each candidate.
  """
  dims = architecture.choice.dims
  count = len(architecture.categorical)
  size = lambda drawn: with_dims(architecture, drawn).ep_total
  # Fields at 0 have no vectors, and no map either.
  alone = lambda field, dim: [dim if i == field else 0 for i in range(count)]
  constant = size([0] * count)
  parts = [[size(alone(f, dim)) for dim in dims] for f in range(count)]
  return constant, np.array(parts) - constant


def open_columns(
  architecture: arch_lib.Architecture, num_groups: int = 1
) -> arch_lib.Architecture:
  """Gives every column of every field, or of groups of its ids, a factor.

  Args:
    architecture: a closed one of equal widths.
    num_groups: groups of ids of a field, of equal size, in the order of its
      ids: that of their frequency; a field of fewer ids has as many groups.
  """
  if num_groups < 1:
    raise errors.ConfigError(f'{num_groups} groups; expected at least 1.')
  starts = []
  for plan in architecture.categorical:
    count = min(num_groups, plan.vocab_size)
    starts.append([plan.vocab_size * i // count for i in range(count)])
  choice = choices_lib.ColumnMask(architecture.dim, starts)
  return _open(architecture, choice)


def open_blocks(
  architecture: arch_lib.Architecture,
  rows: Sequence[float],
  columns: Sequence[int],
  *,
  frequencies: Mapping[str, np.ndarray] | None = None,
  mode: str = 'multi',
  prefix: bool = False,
  combine: str = 'project',
  shared_row: bool = False,
) -> arch_lib.Architecture:
  """Leaves it to a search which blocks every categorical table keeps.

  Args:
    architecture: a closed one of equal widths; its width does not matter.
    rows: shares of the blocks of rows, most frequent ids first; they sum to 1.
      Of a field with few values some are empty, and left out. The reserved ids
      (missing, unknown) belong to the first block.
    columns: widths of the blocks of columns.
    frequencies: field name -> train counts per id [vocab_size]: shares are of
      occurrences. None: shares are of the values.
    mode: see `choices.Blocks`.
    prefix: see `choices.Blocks`.
    combine: see `choices.Blocks`.
    shared_row: see `choices.Blocks`.

  Raises:
    ConfigError: for shares that are not above 0 or do not sum to 1, or counts
      that are not those of the fields.
  """
  if not rows or min(rows) <= 0 or not np.isclose(sum(rows), 1):
    raise errors.ConfigError(
      f'Shares of the blocks of rows are {tuple(rows)}; expected numbers above '
      '0 that sum to 1.'
    )
  ends = tuple(
    _row_ends(plan, rows, _counts(plan, frequencies))
    for plan in architecture.categorical
  )
  choice = choices_lib.Blocks(ends, columns, mode, prefix, combine, shared_row)
  return _open(architecture, choice)


def _row_ends(plan, shares, counts):
  """The id after the last of each block of rows of a field."""
  first = schema_lib.FIRST_VALUE_ID
  num_values = plan.vocab_size - first
  if num_values < 2:
    return (plan.vocab_size,)
  seen = np.cumsum(counts[first:], dtype=np.float64)
  # Sums of shares that should meet a count exactly miss it by rounding.
  wanted = np.cumsum(shares)[:-1] * seen[-1] * (1 - 1e-9)
  inner = first + 1 + np.searchsorted(seen, wanted)
  return tuple(np.unique([*inner, plan.vocab_size]).tolist())


def with_blocks(
  architecture: arch_lib.Architecture, kept: Sequence[Sequence[int]]
) -> arch_lib.Architecture:
  """The architecture with its blocks settled: each is a table of its own.

  Side by side, blocks of columns with equal rows are one.

  Args:
    architecture: with open blocks.
    kept: [F][T], how many rows each categorical field keeps of each block of
      columns.
  """
  choice = architecture.choice
  pieces = {
    plan.name: _kept_pieces(choice, plan.vocab_size, own)
    for plan, own in zip(architecture.categorical, kept, strict=True)
  }
  fields = tuple(
    dataclasses.replace(plan, pieces=pieces.get(plan.name))
    for plan in architecture.fields
  )
  return dataclasses.replace(
    architecture,
    fields=fields,
    choice=None,
    width=choice.width,
    projection='linear' if choice.is_projected else 'zero_pad',
  )


def _kept_pieces(choice, vocab_size, kept):
  """Pieces of a field that keeps `kept` rows of its blocks of columns."""
  blocks: list[tuple[int, int, int]] = []
  for first, dim, rows in zip(choice.first_columns, choice.columns, kept):
    if blocks and blocks[-1][2] == rows and not choice.is_projected:
      first, dim = blocks[-1][0], blocks.pop()[1] + dim
    blocks.append((first, dim, int(rows)))
  pieces = []
  for first, dim, rows in blocks:
    if not rows:
      continue
    pieces.append(fields_lib.Piece(0, rows, dim, first))
    if choice.shared_row and rows < vocab_size:
      if choice.is_projected:
        # Its map would be larger than what the map makes of it.
        first, dim = 0, choice.width
      rest = vocab_size - rows
      pieces.append(fields_lib.Piece(rows, vocab_size, dim, first, rest))
  return tuple(pieces)


def open_thresholds(
  architecture: arch_lib.Architecture,
  *,
  granularity: str = 'field_dim',
  initial: float = -10.0,
  row_scale: float = 1.0,
) -> arch_lib.Architecture:
  """Shrinks the entries of all tables of vectors by thresholds.

  Args:
    architecture: a closed one of equal widths.
    granularity: what has a threshold of its own, see `choices.SoftThreshold`.
    initial: where their s starts.
    row_scale: speed of thresholds of single ids, over that of tables.
  """
  choice = choices_lib.SoftThreshold(
    architecture.dim, granularity, initial, row_scale
  )
  return _open(architecture, choice)


def open_row_mask(architecture: arch_lib.Architecture) -> arch_lib.Architecture:
  """Leaves it to a search which rows are kept, and a width per field.

  Args:
    architecture: a closed one of equal widths.
  """
  return _open(architecture, choices_lib.RowMask(architecture.dim))


def with_row_mask(
  architecture: arch_lib.Architecture,
  kept: Sequence[np.ndarray],
  dims: Sequence[int],
) -> arch_lib.Architecture:
  """The architecture with rows and widths settled.

  Ids whose rows are kept are permuted to the front of their field; the others
  read zeros. A field of which every row is kept needs no permutation.

  Args:
    architecture: with an open choice of rows.
    kept: per categorical field bool [vocab_size].
    dims: one per categorical field, at least 1.
  """
  choices = {
    plan.name: (np.asarray(own), int(dim))
    for plan, own, dim in zip(architecture.categorical, kept, dims)
  }
  fields, arrays = [], {}
  for plan in architecture.fields:
    if plan.name in choices:
      own, dim = choices[plan.name]
      count = int(own.sum())
      if count == 0:
        plan = dataclasses.replace(plan, dim=1, pieces=())
      elif count == len(own):
        plan = dataclasses.replace(plan, dim=dim)
      else:
        order = np.empty(len(own), np.int32)
        order[own] = np.arange(count)
        order[~own] = np.arange(count, len(own))
        arrays[f'{plan.name}.remap'] = order
        piece = fields_lib.Piece(0, count, dim)
        plan = dataclasses.replace(plan, dim=dim, pieces=(piece,), remap=True)
    fields.append(plan)
  choice = architecture.choice
  return dataclasses.replace(
    architecture,
    fields=tuple(fields),
    choice=None,
    width=choice.width,
    projection=choice.transform,
    arrays={**architecture.kept_arrays, **arrays},
  )


def open_rows(
  architecture: arch_lib.Architecture, dims: Sequence[int], how: str = 'grow'
) -> arch_lib.Architecture:
  """Leaves the width of every id, or its mixture of widths, to a search.

  Args:
    architecture: a closed one of equal widths, whose vectors are squashed.
    dims: candidate widths, increasing.
    how: 'grow': one row per id whose live part grows (ESAPN); 'mix': columns
      of each candidate's own, mixed row by row (AutoEmb, DARTS), squashed
      before they are mixed.
  """
  fields_lib.check(how, ('grow', 'mix'), 'What is open about rows')
  if not architecture.squash or architecture.is_open:
    raise errors.ConfigError(
      'Rows of open widths need a closed model whose vectors are squashed, as '
      "the base model 'rater' has them."
    )
  if how == 'grow':
    return _open(architecture, choices_lib.GrowingRows(dims))
  opened = _open(architecture, choices_lib.MixedRows(dims))
  return dataclasses.replace(opened, squash=False)


def open_buckets(
  architecture: arch_lib.Architecture,
  dims: Sequence[int],
  frequencies: Mapping[str, Sequence[int]],
  min_vocab: int = 0,
) -> arch_lib.Architecture:
  """Leaves the width of ids of like frequency to a search (AutoEmb).

  A bucket holds the ids whose counts share an octave. The two reserved ids
  are with the most frequent values.

  Args:
    architecture: a closed one of equal widths; its width does not matter.
    dims: candidate widths, increasing.
    frequencies: field -> train counts per id.
    min_vocab: fields of fewer ids have one bucket, that is, one width.
  """
  starts = []
  for plan in architecture.categorical:
    counts, own = _counts(plan, frequencies), [0]
    first = schema_lib.FIRST_VALUE_ID
    if plan.vocab_size >= min_vocab:
      octaves = [int(count).bit_length() for count in counts]
      own += [
        i
        for i in range(first + 1, len(octaves))
        if octaves[i] != octaves[i - 1]
      ]
    starts.append(tuple(own))
  return _open(architecture, choices_lib.MixedBuckets(dims, tuple(starts)))


def with_buckets(
  architecture: arch_lib.Architecture, dims: Sequence[Sequence[int]]
) -> arch_lib.Architecture:
  """The architecture with the widths of buckets settled.

  Args:
    architecture: with open buckets.
    dims: per categorical field, a width for each of its buckets. Neighbours of
      one width become one piece.
  """
  choice, closed = architecture.choice, {}
  given, buckets = [len(d) for d in dims], [len(s) for s in choice.starts]
  if given != buckets:
    raise errors.ConfigError(
      f'Widths of {given} buckets by field; expected one of each of {buckets}.'
    )
  for plan, starts, own in zip(architecture.categorical, choice.starts, dims):
    pieces: list[fields_lib.Piece] = []
    for start, stop, dim in zip(starts, (*starts[1:], plan.vocab_size), own):
      if pieces and pieces[-1].dim == dim:
        start = pieces.pop().start
      pieces.append(fields_lib.Piece(start, stop, int(dim)))
    closed[plan.name] = dataclasses.replace(
      plan, dim=choice.width, pieces=tuple(pieces)
    )
  return dataclasses.replace(
    architecture,
    fields=tuple(closed.get(plan.name, plan) for plan in architecture.fields),
    choice=None,
    width=choice.width,
    projection='linear',
  )


def _counts(plan, frequencies):
  """The train counts of a field's ids; even ones where none are given."""
  if frequencies is None:
    return np.ones(plan.vocab_size)
  return fields_lib.check_counts(plan, frequencies.get(plan.name, ()))


def _open(architecture, choice):
  """The architecture with something open about its categorical fields."""
  fields = tuple(
    dataclasses.replace(
      plan,
      dim=choice.table_dim if plan.kind == 'categorical' else choice.width,
    )
    for plan in architecture.fields
  )
  return dataclasses.replace(architecture, fields=fields, choice=choice)
