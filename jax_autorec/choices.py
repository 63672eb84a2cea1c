"""What can be open about the vectors of categorical fields.

Plain data: `field_spaces` opens a choice and settles it, and the module of its
name in `nn.field_choices` makes field vectors while it is open.
"""

import dataclasses
from typing import ClassVar

from jax_autorec import errors, fields

TABLES = ('shared', 'separate')
TRANSFORMS = ('linear', 'zero_pad')
SHARINGS = ('field', 'shared')
BLOCK_MODES = ('single', 'multi')
BLOCK_COMBINES = ('project', 'concatenate')
GRANULARITIES = (
  'global',
  'dim',
  'field',
  'field_dim',
  'feature',
  'feature_dim',
)
ROW_CHOICE = 'row_choice'  # Table, and view, of what is open about single rows.


@dataclasses.dataclass(frozen=True)
class MixedDims:
  """Open: every categorical field chooses one of several widths.

  Candidate n reads `dims[n]` columns of a row and is brought to the largest
  width; the model sees a weighted sum of the candidates.

  Attributes:
    dims: candidate widths, increasing.
    tables: 'shared': one row of the largest width, of which a candidate reads
      the first columns; 'separate': columns of its own for each candidate.
    transform: 'linear': a linear map to the largest width, then batch
      normalisation; 'zero_pad': batch normalisation, then zeros.
    transforms: whether each field has linear maps of its own ('field') or all
      fields share them ('shared'), in the search. Once widths are settled each
      field has a map of its own in any case, without an offset, and none where
      its width is the largest.
  """

  kind: ClassVar[str] = 'mixed_dims'
  dims: tuple[int, ...]
  tables: str = 'shared'
  transform: str = 'linear'
  transforms: str = 'field'

  def __post_init__(self):
    object.__setattr__(self, 'dims', tuple(self.dims))
    _check_dims(self.dims)
    fields.check(self.tables, TABLES, 'Tables of mixed dims')
    fields.check(self.transform, TRANSFORMS, 'Transform of mixed dims')
    fields.check(self.transforms, SHARINGS, 'Transforms of mixed dims')

  @property
  def width(self) -> int:
    """Width of what the model sees."""
    return self.dims[-1]

  @property
  def table_dim(self) -> int:
    """Width of the rows of the tables."""
    return self.dims[-1] if self.tables == 'shared' else sum(self.dims)

  @property
  def first_columns(self) -> tuple[int, ...]:
    """Where each candidate's columns begin in a row."""
    if self.tables == 'shared':
      return (0,) * len(self.dims)
    return tuple(sum(self.dims[:n]) for n in range(len(self.dims)))


@dataclasses.dataclass(frozen=True)
class Blocks:
  """Open: every categorical field keeps some blocks of its table.

  (Joglekar et al., KDD 2020.) A table [vocab_size, width], ids by falling
  frequency, is cut into blocks. Of each block of columns a field keeps the
  rows of its first so many blocks of rows, or none.

  Attributes:
    rows: per categorical field, the id after the last of each of its blocks
      of rows, increasing; the last is the vocabulary's size. Fields may have
      different numbers of them.
    columns: widths of the blocks of columns; their sum is the width.
    mode: 'single': as many rows of each of the first so many blocks of columns
      (single-size embedding); 'multi': rows of each block of columns for
      itself (multi-size embedding).
    prefix: of 'multi': whether a block of columns keeps no more rows than the
      one before it. Else an id can have later columns without earlier ones.
    combine: 'project': the field's vector is the sum of linear maps of the
      blocks of columns, without offset; 'concatenate': the blocks side by
      side, zeros where one is not kept.
    shared_row: whether the ids that a kept block of columns has no rows of
      read one row there that they share, in place of zeros.
  """

  kind: ClassVar[str] = 'blocks'
  rows: tuple[tuple[int, ...], ...]
  columns: tuple[int, ...]
  mode: str = 'multi'
  prefix: bool = False
  combine: str = 'project'
  shared_row: bool = False

  def __post_init__(self):
    rows = tuple(tuple(int(end) for end in ends) for ends in self.rows)
    object.__setattr__(self, 'rows', rows)
    object.__setattr__(self, 'columns', tuple(self.columns))
    fields.check(self.mode, BLOCK_MODES, 'Mode of blocks')
    fields.check(self.combine, BLOCK_COMBINES, 'Combination of blocks')
    if not self.columns or min(self.columns) < 1:
      raise errors.ConfigError(
        f'Blocks of columns are {self.columns}; expected widths of at least 1.'
      )
    for ends in rows:
      if not ends or ends[0] < 1 or list(ends) != sorted(set(ends)):
        raise errors.ConfigError(
          f'Blocks of rows end at {ends}; expected increasing ids.'
        )

  @property
  def width(self) -> int:
    """Width of what the model sees."""
    return sum(self.columns)

  @property
  def table_dim(self) -> int:
    """Width of the rows of the tables."""
    return self.width

  @property
  def first_columns(self) -> tuple[int, ...]:
    """Where each block of columns begins in a row."""
    return tuple(sum(self.columns[:t]) for t in range(len(self.columns)))

  @property
  def is_projected(self) -> bool:
    """Whether blocks are mapped: a single one has the right width already."""
    return self.combine == 'project' and len(self.columns) > 1

  def entries(self, field: int, column: int, kept: int) -> int:
    """What a field's block of columns takes with its first `kept` rows.

    The entries of its rows, its linear map and its shared row (which is kept
    as the map gives it); nothing without rows.
    """
    if not kept:
      return 0
    dim, is_cut = self.columns[column], kept < self.rows[field][-1]
    extra = self.is_projected * dim * self.width
    if self.shared_row and is_cut:
      extra += self.width if self.is_projected else dim
    return kept * dim + extra

  @property
  def all_entries(self) -> int:
    """What all blocks of all fields take."""
    return sum(
      self.entries(field, column, ends[-1])
      for field, ends in enumerate(self.rows)
      for column in range(len(self.columns))
    )


@dataclasses.dataclass(frozen=True)
class ColumnMask:
  """Open: every column of a group of ids has a factor.

  Attributes:
    dim: width of rows and field vectors.
    starts: per categorical field the first ids of its groups, increasing from
      0; a field that is not divided has the one group (0,).
  """

  kind: ClassVar[str] = 'column_mask'
  transform: ClassVar[str] = 'linear'
  dim: int
  starts: tuple[tuple[int, ...], ...]

  def __post_init__(self):
    starts = tuple(tuple(own) for own in self.starts)
    object.__setattr__(self, 'starts', starts)
    _check_dim(self.dim, 'a column mask')
    for own in starts:
      if not own or own[0] != 0 or list(own) != sorted(set(own)):
        raise errors.ConfigError(
          f'Groups of ids start at {own}; expected increasing ids from 0 on.'
        )

  @property
  def width(self) -> int:
    """Width of what the model sees."""
    return self.dim

  @property
  def table_dim(self) -> int:
    """Width of the rows of the tables."""
    return self.dim

  @property
  def num_groups(self) -> int:
    """Of all fields together."""
    return sum(len(own) for own in self.starts)


@dataclasses.dataclass(frozen=True)
class SoftThreshold:
  """Open: entries shrink towards zero by a threshold, sigmoid(s).

  Attributes:
    dim: width of rows and field vectors.
    granularity: what has an s of its own: 'global' nothing, 'dim' a column,
      'field' a field, 'field_dim' a column of a field, 'feature' an id,
      'feature_dim' an entry. Those of ids are kept in a table beside that of
      their vectors, as what is added to the global s.
    initial: where s starts.
    row_scale: of the entries of that table: an id's own part moves at so many
      times the learning rate of tables.
  """

  kind: ClassVar[str] = 'soft_threshold'
  dim: int
  granularity: str = 'field_dim'
  initial: float = -10.0
  row_scale: float = 1.0

  def __post_init__(self):
    _check_dim(self.dim, 'a soft threshold')
    fields.check(self.granularity, GRANULARITIES, 'Granularity of thresholds')
    if not self.row_scale > 0:
      raise errors.ConfigError(
        f'The scale of thresholds of ids is {self.row_scale}; expected more '
        'than 0.'
      )

  @property
  def width(self) -> int:
    """Width of what the model sees."""
    return self.dim

  @property
  def table_dim(self) -> int:
    """Width of the rows of the tables."""
    return self.dim

  @property
  def row_dim(self) -> int:
    """Columns of the table of what is open about single rows; 0 for none."""
    return {'feature': 1, 'feature_dim': self.dim}.get(self.granularity, 0)

  def shape(self, num_fields: int) -> tuple[int, int]:
    """Of the thresholds that are not of single ids: [F or 1, D or 1]."""
    by_field = self.granularity in ('field', 'field_dim')
    by_dim = self.granularity in ('dim', 'field_dim')
    return num_fields if by_field else 1, self.dim if by_dim else 1


@dataclasses.dataclass(frozen=True)
class RowMask:
  """Open: which rows are worth keeping, and how many columns of a field.

  A row is kept while its L1 norm is above its field's threshold; of what is
  kept a field reads the first columns.

  Attributes:
    dim: width of rows and field vectors.
  """

  kind: ClassVar[str] = 'row_mask'
  transform: ClassVar[str] = 'zero_pad'
  dim: int

  def __post_init__(self):
    _check_dim(self.dim, 'a row mask')

  @property
  def width(self) -> int:
    """Width of what the model sees."""
    return self.dim

  @property
  def table_dim(self) -> int:
    """Width of the rows of the tables."""
    return self.dim


@dataclasses.dataclass(frozen=True)
class GrowingRows:
  """Open: every id has a width of its own, which can only grow.

  A row of the largest width is kept per id, of which the first `dims[k]`
  entries are live at size k. A chain of affine maps, dims[k] to dims[k + 1],
  one chain per field, brings them to the largest width.

  Attributes:
    dims: candidate widths, increasing.
  """

  kind: ClassVar[str] = 'growing_rows'
  dims: tuple[int, ...]

  def __post_init__(self):
    object.__setattr__(self, 'dims', tuple(self.dims))
    _check_dims(self.dims)

  @property
  def width(self) -> int:
    """Width of what the model sees."""
    return self.dims[-1]

  @property
  def table_dim(self) -> int:
    """Width of the rows of the tables."""
    return self.dims[-1]


@dataclasses.dataclass(frozen=True)
class MixedRows:
  """Open: every id mixes candidate widths by weights of its own.

  Each candidate has columns of its own and a map to the largest width.

  Attributes:
    dims: candidate widths, increasing.
  """

  kind: ClassVar[str] = 'mixed_rows'
  dims: tuple[int, ...]

  def __post_init__(self):
    object.__setattr__(self, 'dims', tuple(self.dims))
    _check_dims(self.dims)

  @property
  def width(self) -> int:
    """Width of what the model sees."""
    return self.dims[-1]

  @property
  def table_dim(self) -> int:
    """Width of the rows of the tables."""
    return sum(self.dims)


@dataclasses.dataclass(frozen=True)
class MixedBuckets:
  """Open: ids of like frequency choose one of several widths together.

  Each candidate has columns of its own and a linear map to the largest width.

  Attributes:
    dims: candidate widths, increasing.
    starts: per categorical field, the first ids of its buckets, from 0 on.
  """

  kind: ClassVar[str] = 'mixed_buckets'
  dims: tuple[int, ...]
  starts: tuple[tuple[int, ...], ...]
  tables: ClassVar[str] = 'separate'
  transform: ClassVar[str] = 'linear'
  transforms: ClassVar[str] = 'field'

  def __post_init__(self):
    object.__setattr__(self, 'dims', tuple(self.dims))
    starts = tuple(tuple(own) for own in self.starts)
    object.__setattr__(self, 'starts', starts)
    _check_dims(self.dims)
    for own in starts:
      if not own or own[0] != 0 or list(own) != sorted(set(own)):
        raise errors.ConfigError(
          f'Buckets of a field start at the ids {own}; expected increasing '
          'ids, of which the first is 0.'
        )

  @property
  def width(self) -> int:
    """Width of what the model sees."""
    return self.dims[-1]

  @property
  def table_dim(self) -> int:
    """Width of the rows of the tables."""
    return sum(self.dims)

  @property
  def first_columns(self) -> tuple[int, ...]:
    """Where each candidate's columns begin in a row."""
    return tuple(sum(self.dims[:n]) for n in range(len(self.dims)))


def _check_dims(dims):
  increasing = list(dims) == sorted(set(dims))
  if len(dims) < 2 or min(dims) < 1 or not increasing:
    raise errors.ConfigError(
      f'Candidate dims are {dims}; expected at least two, increasing, of at '
      'least 1.'
    )


def _check_dim(dim, what):
  if not isinstance(dim, int) or dim < 1:
    raise errors.ConfigError(
      f'The width of {what} is {dim!r}; expected an integer of at least 1.'
    )


_CHOICES = (
  MixedDims,
  Blocks,
  ColumnMask,
  SoftThreshold,
  RowMask,
  GrowingRows,
  MixedRows,
  MixedBuckets,
)
FieldChoice = (
  MixedDims
  | Blocks
  | ColumnMask
  | SoftThreshold
  | RowMask
  | GrowingRows
  | MixedRows
  | MixedBuckets
)
CHOICES = {cls.kind: cls for cls in _CHOICES}
