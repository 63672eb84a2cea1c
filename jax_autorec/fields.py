"""How a field becomes vectors: whole tables, pieces of tables, codebooks.

A closed plan of a categorical field says which of its ids own which rows, of
which width (`Piece`). What cannot be said in plain values (a permutation of
ids, the pattern of a sparse table) lies in `Architecture.arrays`.
"""

from collections.abc import Sequence
import dataclasses
import itertools
from typing import Any

import numpy as np

from jax_autorec import errors
from jax_autorec import numeric as numeric_lib
from jax_autorec import schema as schema_lib

POOLINGS = ('sum', 'mean')
COMBINES = ('sum', 'product')
QUANTIZERS = ('sx', 'vq')
_MAX_CENTROIDS = 2**16


def check(value: Any, allowed: Sequence[Any], what: str) -> None:
  """Refuses a value that is not one of the allowed."""
  if value not in allowed:
    raise errors.ConfigError(
      f'{what} is {value!r}; expected one of {", ".join(map(repr, allowed))}.'
    )


def check_counts(plan: 'FieldPlan', counts: Any) -> np.ndarray:
  """The train counts [vocab_size] of a field's ids, if they are such.

  Args:
    plan: of the field.
    counts: what is given as its counts.

  Raises:
    ConfigError: unless there is one of every id, at least 0, and none larger
      than the one before it from the first value on (reserved ids lie first).
  """
  counts = np.asarray(counts)
  values = counts[schema_lib.FIRST_VALUE_ID :]
  if (
    counts.shape != (plan.vocab_size,)
    or not np.all(counts >= 0)
    or np.any(values[1:] > values[:-1])
  ):
    raise errors.ConfigError(
      f'Field {plan.name!r} has {counts.size} counts for {plan.vocab_size} '
      'ids; expected one of each, at least 0, falling from the first value on: '
      'give the frequencies of the data set that the architecture is for.'
    )
  return counts


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
class Tier:
  """A range of a field's ids whose codes have one width.

  Attributes:
    stop: the id after the last; the first is where the tier before it stops.
    centroids: its ids choose among so many, the first of the codebook: a power
      of two from 2 to 65536, so that no bit of a code is wasted.
  """

  stop: int
  centroids: int

  def __post_init__(self):
    size = self.centroids
    if not 2 <= size <= _MAX_CENTROIDS or size & (size - 1):
      raise errors.ConfigError(
        f'{size} centroids; expected a power of two from 2 to {_MAX_CENTROIDS}.'
      )

  @property
  def bits(self) -> int:
    """Bits of one code."""
    return self.centroids.bit_length() - 1


@dataclasses.dataclass(frozen=True)
class Quantizer:
  """Vectors out of codebooks: one centroid per group of columns.

  In training an id has a row like any other, the query, and the nearest
  centroids take its place (`nn.quantizers.Codebooks`). Packed, queries are
  gone: the array '{field}.codes' uint8 [code_bytes] holds, tier by tier, each
  from a whole byte on, the numbers of every id's centroids, first id and group
  first, most significant bit first.

  Attributes:
    kind: 'sx': queries are compared with keys, by their product, and replaced
      by values; 'vq': with the values themselves, by distance.
    groups: of equally many neighbouring columns, each with a code.
    tiers: by rising id, with no more centroids than the tier before.
    shared: whether all groups have one codebook.
    packed: whether codes have taken the place of queries.
  """

  kind: str
  groups: int
  tiers: tuple[Tier, ...]
  shared: bool = False
  packed: bool = False

  def __post_init__(self):
    check(self.kind, QUANTIZERS, 'Kind of a quantizer')
    tiers = tuple(
      Tier(**tier) if isinstance(tier, dict) else tier for tier in self.tiers
    )
    object.__setattr__(self, 'tiers', tiers)
    stops = [0] + [tier.stop for tier in tiers]
    sizes = [tier.centroids for tier in tiers]
    if (
      not tiers
      or stops != sorted(set(stops))
      or sizes != sorted(sizes, reverse=True)
    ):
      raise errors.ConfigError(
        f'Tiers stop at ids {stops[1:]} and have {sizes} centroids; expected '
        'at least one, with rising ids and no rise in centroids.'
      )

  @property
  def centroids(self) -> int:
    """Of a codebook."""
    return self.tiers[0].centroids

  @property
  def code_bytes(self) -> int:
    """Bytes of the packed codes."""
    total, start = 0, 0
    for tier in self.tiers:
      total += -(-(tier.stop - start) * self.groups * tier.bits // 8)
      start = tier.stop
    return total

  def codebook_params(self, dim: int) -> int:
    """Entries of the codebooks of vectors of width `dim`."""
    values = self.centroids * (dim // self.groups if self.shared else dim)
    return values * (2 if self.kind == 'sx' and not self.packed else 1)

  def stack(self, dim: int) -> str:
    """Names the codebooks: those of one shape lie in one array."""
    shared = '_shared' if self.shared else ''
    return f'{self.kind}_{self.groups}x{self.centroids}{shared}_dim_{dim}'


@dataclasses.dataclass(frozen=True)
class FieldPlan:
  """How one input field becomes vectors.

  Attributes:
    name: the field's name.
    kind: 'categorical' or 'numeric'.
    dim: width of its vectors, at least 1.
    vocab_size: number of ids; of a numeric field that of its buckets and of the
      missing value, once they are fitted, and else 0.
    max_length: values per row; several are pooled.
    pooling: 'sum' or 'mean' over the values of a multi-valued field.
    pieces: which ids own which rows; None for a row of `dim` per id, and none
      at all for a field whose vectors are zero.
    combine: how an id's rows in several pieces become one vector: 'sum' or
      'product' (of pieces of one width and one range; ranges do not overlap).
    remap: whether ids are permuted before pieces apply, by the array
      '{name}.remap' int32 [vocab_size].
    num_values: entries that are stored of a sparse table [vocab_size, dim]; 0
      for a dense one. Row i holds the columns that are set in the bits
      '{name}.bits' uint8 [vocab_size, ceil(dim / 8)], most significant first,
      from entry '{name}.starts' int32 [vocab_size] on.
    quantizer: how vectors are made of codebooks; None for plain rows. The
      first-order weights of ids are never quantised.
    numeric: of a numeric field, how its value becomes a vector: a trained
      vector times the value if nothing else is said.
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
  quantizer: Quantizer | None = None
  numeric: numeric_lib.Embedding | None = None

  def __post_init__(self):
    check(self.kind, schema_lib.KINDS, f'Kind of field {self.name!r}')
    self._set_numeric()
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
    if self.quantizer is not None:
      self._check_quantizer()

  def _set_numeric(self):
    numeric = self.numeric
    if isinstance(numeric, dict):
      numeric = numeric_lib.from_dict(numeric)
    if self.kind == 'numeric':
      numeric = numeric or numeric_lib.FieldEmbedding()
      if not isinstance(numeric, numeric_lib.Embedding):
        raise errors.ConfigError(
          f'Numeric embedding of field {self.name!r} is {numeric!r}; expected '
          'one of jax_autorec.numeric, as numeric.AutoDis().'
        )
    elif numeric is not None:
      raise errors.ConfigError(
        f'Categorical field {self.name!r} has a numeric embedding, '
        f'{numeric.title}; expected one for numeric fields alone.'
      )
    object.__setattr__(self, 'numeric', numeric)

  def _check_quantizer(self):
    if isinstance(self.quantizer, dict):
      object.__setattr__(self, 'quantizer', Quantizer(**self.quantizer))
    stop, groups = self.quantizer.tiers[-1].stop, self.quantizer.groups
    if stop != self.vocab_size or groups < 1 or self.dim % groups:
      raise errors.ConfigError(
        f'The quantizer of field {self.name!r} has {groups} groups and tiers '
        f'up to id {stop}; the field has width {self.dim}, which groups must '
        f'divide, and {self.vocab_size} ids.'
      )
    if self.num_values or self.pieces is not None or self.remap:
      raise errors.ConfigError(
        f'Field {self.name!r} is quantised and has pieces, a permutation or a '
        'sparse table; expected a whole row per id.'
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
    ranges = sorted({(piece.start, piece.stop) for piece in pieces})
    if self.combine == 'product' and any(
      stop > start for (_, stop), (start, _) in itertools.pairwise(ranges)
    ):
      raise errors.ConfigError(
        f'Field {self.name!r} multiplies pieces of ids {ranges}; expected '
        'equal ranges, or such as do not overlap.'
      )

  def to_dict(self) -> dict[str, Any]:
    """Its JSON values; a numeric field's plain vector goes without saying."""
    values = dataclasses.asdict(self)
    numeric = values.pop('numeric')
    if numeric is not None and self.numeric != numeric_lib.FieldEmbedding():
      values['numeric'] = self.numeric.to_dict()
    return values

  @property
  def has_vectors(self) -> bool:
    """Whether the field has vectors; if not, its number is a plain input."""
    return self.numeric is None or self.numeric.has_vectors

  @property
  def is_bucketed(self) -> bool:
    """Whether it is a numeric field of intervals, which have ids."""
    return self.numeric is not None and self.numeric.is_bucketed

  @property
  def index_bytes(self) -> int:
    """Bytes of its permutation, pattern, packed codes, edges or statistics."""
    if self.is_bucketed:
      # Edges, and the ids of the intervals between; of the two-to-one buckets
      # of LD an edge or two more.
      return 4 * max(2 * self.vocab_size - 3, 1)
    if self.numeric is not None:
      return 4 * self.numeric.num_constants
    if self.num_values:
      return self.vocab_size * (-(-self.dim // 8) + 4)
    if self.quantizer and self.quantizer.packed:
      return self.quantizer.code_bytes
    return 4 * self.vocab_size if self.remap else 0

  @property
  def codebook_params(self) -> int:
    """Entries of its codebooks."""
    return self.quantizer.codebook_params(self.dim) if self.quantizer else 0

  @property
  def all_pieces(self) -> tuple[Piece, ...]:
    """The pieces, with the one that None stands for."""
    if self.pieces is None:
      return (Piece(0, self.vocab_size, self.dim),)
    return self.pieces


def with_vectors(plans: Sequence[FieldPlan]) -> tuple[FieldPlan, ...]:
  """Those that have vectors: all but numeric ones without an embedding."""
  return tuple(plan for plan in plans if plan.has_vectors)


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
    view: name of the view that is made of its rows.
    dim: row width; that of all copies where a view has several vectors.
    parts: whose rows they are, in row order.
    mean: what fresh rows are spread around: 1 for factors of a product.
    codebooks: name of the codebooks that its rows are queries of, or ''.
  """

  name: str
  view: str
  dim: int
  parts: tuple[Part, ...]
  mean: float = 0.0
  codebooks: str = ''

  @property
  def num_rows(self) -> int:
    return sum(part.num_rows for part in self.parts)

  @property
  def of_buckets(self) -> bool:
    """Whether its rows are those of buckets of numeric fields."""
    return any(part.field.kind == 'numeric' for part in self.parts)

  @property
  def space(self) -> str:
    """Names the ids that index it: tables of the same parts share them."""
    return '+'.join(part.key for part in self.parts)
