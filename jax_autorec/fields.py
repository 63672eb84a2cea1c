"""How a field becomes vectors: whole tables, pieces of tables, open choices.

A closed plan of a categorical field says which of its ids own which rows, of
which width (`Piece`). What cannot be said in plain values (a permutation of
ids, the pattern of a sparse table) lies in `Architecture.arrays`.
"""

from collections.abc import Sequence
import dataclasses
from typing import Any, ClassVar

from jax_autorec import errors
from jax_autorec import schema as schema_lib

POOLINGS = ('sum', 'mean')
COMBINES = ('sum', 'product')
TABLES = ('shared', 'separate')
TRANSFORMS = ('linear', 'zero_pad')
SHARINGS = ('field', 'shared')


def check(value: Any, allowed: Sequence[Any], what: str) -> None:
  """Refuses a value that is not one of the allowed."""
  if value not in allowed:
    raise errors.ConfigError(
      f'{what} is {value!r}; expected one of {", ".join(map(repr, allowed))}.'
    )


@dataclasses.dataclass(frozen=True)
class Piece:
  """A range of a field's ids that own rows of one width.

  Id i, start <= i < stop, reads row ((i - start) // divide) % modulo of the
  piece (no remainder is taken where modulo is 0); other ids read zeros.

  Attributes:
    start: first id.
    stop: the id after the last.
    dim: row width, at least 1.
    column: where its columns begin among those of the field, for
      'zero_pad'; a linear projection maps them to all columns.
    divide: so many neighbouring ids share a row.
    modulo: ids that are equal modulo it share a row; 0 for none.
  """

  start: int
  stop: int
  dim: int
  column: int = 0
  divide: int = 1
  modulo: int = 0

  def __post_init__(self):
    if not 0 <= self.start < self.stop or self.dim < 1:
      raise errors.ConfigError(
        f'A piece of ids {self.start} to {self.stop} of width {self.dim}; '
        'expected 0 <= start < stop and a width of at least 1.'
      )
    if self.divide < 1 or self.modulo < 0 or self.column < 0:
      raise errors.ConfigError(
        f'A piece has divide {self.divide}, modulo {self.modulo} and column '
        f'{self.column}; expected at least 1, 0 and 0.'
      )

  @property
  def num_rows(self) -> int:
    rows = -(-(self.stop - self.start) // self.divide)
    return min(rows, self.modulo) if self.modulo else rows


@dataclasses.dataclass(frozen=True)
class FieldPlan:
  """How one input field becomes vectors.

  Attributes:
    name: the field's name.
    kind: 'categorical' or 'numeric'.
    dim: width of its vectors, at least 1.
    vocab_size: number of ids; 0 for a numeric field.
    max_length: values per row; several are pooled.
    pooling: 'sum' or 'mean' over the values of a multi-valued field.
    pieces: which ids own which rows; None for a row of `dim` per id, and none
      at all for a field whose vectors are zero.
    combine: how an id's rows in several pieces become one vector: 'sum' or
      'product' (of pieces of one width).
    remap: whether ids are permuted before pieces apply, by the array
      '{name}.remap' int32 [vocab_size].
    num_values: entries that are stored of a sparse table [vocab_size, dim]; 0
      for a dense one. Row i holds the columns that are set in the bits
      '{name}.bits' uint8 [vocab_size, ceil(dim / 8)], most significant first,
      from entry '{name}.starts' int32 [vocab_size] on.
  """

  name: str
  kind: str
  dim: int
  vocab_size: int = 0
  max_length: int = 1
  pooling: str = 'mean'
  pieces: tuple[Piece, ...] | None = None
  combine: str = 'sum'
  remap: bool = False
  num_values: int = 0

  def __post_init__(self):
    check(self.kind, schema_lib.KINDS, f'Kind of field {self.name!r}')
    check(self.pooling, POOLINGS, f'Pooling of field {self.name!r}')
    check(self.combine, COMBINES, f'Combination of field {self.name!r}')
    if not isinstance(self.dim, int) or self.dim < 1:
      raise errors.ConfigError(
        f'Dim of field {self.name!r} is {self.dim!r}; expected an integer of '
        'at least 1.'
      )
    if self.kind == 'categorical' and self.vocab_size < 1:
      raise errors.ConfigError(
        f'Field {self.name!r} has a vocabulary of {self.vocab_size}; build '
        'the architecture from a fitted schema.'
      )
    if self.pieces is not None:
      self._check_pieces()
    if self.num_values and (self.pieces is not None or self.remap):
      raise errors.ConfigError(
        f'Field {self.name!r} is sparse and has pieces or a permutation; '
        'expected one of them.'
      )

  def _check_pieces(self):
    pieces = tuple(
      Piece(**piece) if isinstance(piece, dict) else piece
      for piece in self.pieces
    )
    object.__setattr__(self, 'pieces', pieces)
    for piece in pieces:
      beyond = piece.column + piece.dim > self.dim
      if piece.stop > self.vocab_size or beyond:
        raise errors.ConfigError(
          f'A piece of field {self.name!r} has ids up to {piece.stop} and '
          f'columns up to {piece.column + piece.dim}; the field has '
          f'{self.vocab_size} ids and width {self.dim}.'
        )
    shapes = {(piece.dim, piece.column) for piece in pieces}
    if self.combine == 'product' and len(shapes) != 1:
      raise errors.ConfigError(
        f'Field {self.name!r} multiplies pieces of unequal columns: '
        f'{sorted(shapes)}.'
      )

  @property
  def all_pieces(self) -> tuple[Piece, ...]:
    """The pieces, with the one that None stands for."""
    if self.pieces is None:
      return (Piece(0, self.vocab_size, self.dim),)
    return self.pieces


@dataclasses.dataclass(frozen=True)
class Part:
  """What one field has in one table.

  Attributes:
    field: its plan.
    piece: which ids read which rows; None for a sparse field, whose ids read
      as many entries as its vectors have columns.
  """

  field: FieldPlan
  piece: Piece | None

  @property
  def num_rows(self) -> int:
    return self.piece.num_rows if self.piece else self.field.num_values

  @property
  def num_columns(self) -> int:
    """Id columns of a batch."""
    per_value = 1 if self.piece else self.field.dim
    return per_value * self.field.max_length

  @property
  def is_whole(self) -> bool:
    """Whether every id reads the row of its own number."""
    piece = self.piece
    return (
      piece is not None
      and (piece.start, piece.stop) == (0, self.field.vocab_size)
      and (piece.divide, piece.modulo) == (1, 0)
    )

  @property
  def key(self) -> str:
    """Says which ids read which rows; the width does not matter."""
    name, piece = self.field.name.replace('+', '++'), self.piece
    if self.is_whole:
      return name
    if piece is None:
      return f'{name}[sparse]'
    return f'{name}[{piece.start}:{piece.stop}//{piece.divide}%{piece.modulo}]'


@dataclasses.dataclass(frozen=True)
class TablePlan:
  """One fused embedding table: the rows of several fields, one under another.

  Attributes:
    name: key of the table among the parameters.
    view: what is made of its rows: 'main', 'order3' or 'first_order'.
    dim: row width.
    parts: whose rows they are, in row order.
    mean: what fresh rows are spread around: 1 for factors of a product.
  """

  name: str
  view: str
  dim: int
  parts: tuple[Part, ...]
  mean: float = 0.0

  @property
  def num_rows(self) -> int:
    return sum(part.num_rows for part in self.parts)

  @property
  def space(self) -> str:
    """Names the ids that index it: tables of the same parts share them."""
    return '+'.join(part.key for part in self.parts)


def _check_dims(dims: Sequence[int]) -> None:
  increasing = list(dims) == sorted(set(dims))
  if len(dims) < 2 or min(dims) < 1 or not increasing:
    raise errors.ConfigError(
      f'Candidate dims are {dims}; expected at least two, increasing, of at '
      'least 1.'
    )


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
      fields share them ('shared').
  """

  kind: ClassVar[str] = 'mixed_dims'
  dims: tuple[int, ...]
  tables: str = 'shared'
  transform: str = 'linear'
  transforms: str = 'field'

  def __post_init__(self):
    object.__setattr__(self, 'dims', tuple(self.dims))
    _check_dims(self.dims)
    check(self.tables, TABLES, 'Tables of mixed dims')
    check(self.transform, TRANSFORMS, 'Transform of mixed dims')
    check(self.transforms, SHARINGS, 'Transforms of mixed dims')

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


FieldChoice = MixedDims | GrowingRows | MixedRows | MixedBuckets
_CHOICES = (MixedDims, GrowingRows, MixedRows, MixedBuckets)
CHOICES = {cls.kind: cls for cls in _CHOICES}
