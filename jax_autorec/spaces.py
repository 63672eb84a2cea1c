"""Known models as architectures, closed or with open choices."""

from collections.abc import Mapping, Sequence
import dataclasses
import difflib
import itertools
import math

import numpy as np

from jax_autorec import architecture as arch_lib
from jax_autorec import errors
from jax_autorec import fields as fields_lib
from jax_autorec import schema as schema_lib

PAIRS = ('fm', 'all', 'open')


def field_plans(
  schema: schema_lib.Schema, dim: int, pooling: str = 'mean'
) -> tuple[arch_lib.FieldPlan, ...]:
  """Every field of a schema at one width, categorical fields first."""
  return tuple(
    arch_lib.FieldPlan(
      name=field.name,
      kind=field.kind,
      dim=dim,
      vocab_size=field.vocab_size,
      max_length=field.max_length,
      pooling=pooling,
    )
    for field in schema.categorical + schema.numeric
  )


def all_terms(
  fields: Sequence[arch_lib.FieldPlan], order: int
) -> tuple[tuple[str, ...], ...]:
  """All combinations of `order` field names, in combination order."""
  names = [plan.name for plan in fields]
  if len(names) < order:
    raise errors.ConfigError(
      f'Products of order {order} need {order} fields, got {len(names)}.'
    )
  return tuple(itertools.combinations(names, order))


def _pair_terms(fields, pairs, to):
  """Interactions for the `pairs` argument of the factories below."""
  if pairs == 'fm' and to == 'logit':
    return (arch_lib.FactorizationMachine(),)
  if pairs == 'fm':
    return (arch_lib.Products('pairs', all_terms(fields, 2), to=to),)
  terms, gates = _terms_and_gates(fields, pairs, 2, 'pairs')
  return (
    arch_lib.Products('pairs', terms, normalize=True, gates=gates, to=to),
  )


def _triple_terms(fields, triples, to):
  if triples is None:
    return ()
  terms, gates = _terms_and_gates(fields, triples, 3, 'triples')
  return (
    arch_lib.Products('triples', terms, normalize=True, gates=gates, to=to),
  )


def _terms_and_gates(fields, asked, order, argument):
  """Terms of an order and what becomes of their gates."""
  if not isinstance(asked, str):
    return tuple(tuple(term) for term in asked), 'weights'
  gates = {'all': 'weights', 'open': 'open'}.get(asked)
  if gates is None:
    words = PAIRS if order == 2 else PAIRS[1:]
    raise errors.ConfigError(
      f'{argument} is {asked!r}; expected {", ".join(map(repr, words))} or a '
      f'sequence of tuples of {order} field names.'
    )
  return all_terms(fields, order), gates


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
      widths are open: see `fields.MixedDims`.
  """
  choice = fields_lib.MixedDims(dims, tables, transform, transforms)
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
    mode: see `fields.Blocks`.
    prefix: see `fields.Blocks`.
    combine: see `fields.Blocks`.
    shared_row: see `fields.Blocks`.

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
  choice = fields_lib.Blocks(ends, columns, mode, prefix, combine, shared_row)
  return _open(architecture, choice)


def _counts(plan, frequencies):
  """The train counts of a field's ids; even ones where none are given."""
  if frequencies is None:
    return np.ones(plan.vocab_size)
  return fields_lib.check_counts(plan, frequencies.get(plan.name, ()))


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
  choice = fields_lib.ColumnMask(architecture.dim, starts)
  return _open(architecture, choice)


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
    granularity: what has a threshold of its own, see `fields.SoftThreshold`.
    initial: where their s starts.
    row_scale: speed of thresholds of single ids, over that of tables.
  """
  choice = fields_lib.SoftThreshold(
    architecture.dim, granularity, initial, row_scale
  )
  return _open(architecture, choice)


def open_row_mask(architecture: arch_lib.Architecture) -> arch_lib.Architecture:
  """Leaves it to a search which rows are kept, and a width per field.

  Args:
    architecture: a closed one of equal widths.
  """
  return _open(architecture, fields_lib.RowMask(architecture.dim))


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
    arrays=arrays,
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
    return _open(architecture, fields_lib.GrowingRows(dims))
  opened = _open(architecture, fields_lib.MixedRows(dims))
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
  return _open(architecture, fields_lib.MixedBuckets(dims, tuple(starts)))


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


def quantize(
  architecture: arch_lib.Architecture,
  kind: str,
  groups: int,
  tiers: Sequence[tuple[float, int]],
  *,
  shared: bool = False,
  fields: Sequence[str] | None = None,
) -> arch_lib.Architecture:
  """Makes the vectors of categorical fields of codebooks.

  Ids have to be numbered by falling frequency in the train split, as those of
  data sets are, where there is more than one tier.

  Args:
    architecture: closed, of plain rows.
    kind: 'sx' or 'vq', see `fields.Quantizer`.
    groups: codes per id; they divide the width of the vectors.
    tiers: (share of ids, centroids), most frequent ids first; shares add up to
      1. One for DPQ, several for MGQE.
    shared: whether all groups of a field have one codebook.
    fields: whose vectors; None for those whose codes and codebook take less
      room than their rows, while the others keep plain rows.

  Raises:
    ConfigError: for an unknown kind, groups that do not divide the width,
      shares that do not add up, or where no field would be smaller.
  """
  found = _quantized(architecture, kind, groups, tiers, shared, fields)
  if all(plan.quantizer is None for plan in found.fields):
    centroids = [size for _, size in tiers]
    raise errors.ConfigError(
      f'No field takes less room with {groups} codes of {centroids} centroids '
      'than with plain rows: give fewer, or name the fields.'
    )
  return found


def _quantized(architecture, kind, groups, tiers, shared, fields=None):
  """`quantize`, though no field may be smaller."""
  shares = [share for share, _ in tiers]
  if not tiers or min(shares) <= 0 or abs(sum(shares) - 1) > 1e-6:
    raise errors.ConfigError(
      f'Tiers have the shares {shares}; expected positive ones that add up '
      'to 1.'
    )
  if groups < 1:
    raise errors.ConfigError(
      f'Vectors have {groups} codes each; expected at least 1.'
    )
  plans = []
  for plan in architecture.fields:
    if plan.kind == 'categorical' and (fields is None or plan.name in fields):
      quantizer = fields_lib.Quantizer(
        kind, groups, _stops(plan.vocab_size, tiers), shared, packed=True
      )
      size = quantizer.code_bytes / 4 + quantizer.codebook_params(plan.dim)
      if fields is not None or size < plan.vocab_size * plan.dim:
        quantizer = dataclasses.replace(quantizer, packed=False)
        plan = dataclasses.replace(plan, quantizer=quantizer)
    plans.append(plan)
  return dataclasses.replace(architecture, fields=tuple(plans))


def _stops(vocab_size, tiers):
  """Shares of ids, rounded up, as ranges; empty ones are left out."""
  stops, total = [], 0.0
  for share, centroids in tiers:
    total += share
    # A share such as .1 + .2 is a little more than it says.
    stop = min(vocab_size, math.ceil(total * vocab_size - 1e-6))
    stop = vocab_size if len(stops) + 1 == len(tiers) else stop
    stops.append((stop, centroids))
  starts = [0] + [stop for stop, _ in stops]
  return tuple(
    fields_lib.Tier(stop, centroids)
    for start, (stop, centroids) in zip(starts, stops)
    if stop > start
  )


def quantize_within(
  architecture: arch_lib.Architecture,
  kind: str,
  groups: int,
  shares: Sequence[float],
  max_params: float,
  *,
  shared: bool = False,
) -> arch_lib.Architecture:
  """The largest `quantize` of a budget: chooses the centroids of every tier.

  Args:
    architecture: closed, of plain rows.
    kind: 'sx' or 'vq'.
    groups: codes per id.
    shares: of ids, per tier, most frequent first.
    max_params: bound on `ep_total` of the packed model, in float32 entries. All
      fields get the largest numbers that it holds, which are powers of two;
      then single fields, the largest first, get larger ones as long as any fit.
    shared: whether all groups of a field have one codebook.

  Raises:
    ConfigError: as of `quantize`, and where nothing is small enough; says what
      is needed.
  """
  # With the fewest centroids: refuses what would be refused with any.
  quantize(
    architecture, kind, groups, [(share, 2) for share in shares], shared=shared
  )
  largest = max(plan.vocab_size for plan in architecture.categorical)
  sizes = [2**n for n in range(16, 0, -1) if 2**n < 2 * largest]
  options = []
  for centroids in itertools.combinations_with_replacement(sizes, len(shares)):
    tiers = list(zip(shares, centroids))
    found = _quantized(architecture, kind, groups, tiers, shared)
    # With many centroids it may be that no field is smaller.
    if any(plan.quantizer for plan in found.fields):
      options.append(found)
  size = lambda found: found.packed.ep_total
  fitting = [found for found in options if size(found) <= max_params]
  if not fitting:
    raise errors.ConfigError(
      f'A budget of {max_params} entries; the smallest model with {groups} '
      f'codes per id has {min(map(size, options))}: raise the budget, or give '
      'fewer groups.'
    )
  best = max(fitting, key=size)
  places = [i for i, plan in enumerate(best.fields) if plan.quantizer]
  for place in sorted(places, key=lambda i: -best.fields[i].vocab_size):
    for option in options:
      fields = list(best.fields)
      fields[place] = option.fields[place]
      found = dataclasses.replace(best, fields=tuple(fields))
      if fields[place].quantizer and size(best) < size(found) <= max_params:
        best = found
  return best


def lr(
  schema: schema_lib.Schema, *, pooling: str = 'mean'
) -> arch_lib.Architecture:
  """Logistic regression: one weight per id.

  Args:
    schema: fitted schema.
    pooling: of multi-valued fields, 'mean' or 'sum' over a row's values.
  """
  fields = field_plans(schema, 1, pooling)
  return arch_lib.Architecture(fields, (), arch_lib.HeadPlan())


def fm(
  schema: schema_lib.Schema,
  *,
  dim: int = 10,
  pooling: str = 'mean',
  pairs: str | Sequence[tuple[str, str]] = 'fm',
  triples: str | Sequence[tuple[str, str, str]] | None = None,
) -> arch_lib.Architecture:
  """Factorization machine; AutoFM with `pairs='open'`.

  Args:
    schema: fitted schema.
    dim: embedding width.
    pooling: of multi-valued fields, 'mean' or 'sum' over a row's values.
    pairs: 'fm': the plain sum of all inner products; 'all': all pairs,
      normalised and with trained gates; 'open': the same with gates to be
      searched; or the pairs to keep, normalised and gated.
    triples: None, 'all', 'open' or a sequence, for products of order 3.
  """
  fields = field_plans(schema, dim, pooling)
  interactions = _pair_terms(fields, pairs, 'logit')
  interactions += _triple_terms(fields, triples, 'logit')
  return arch_lib.Architecture(fields, interactions, arch_lib.HeadPlan())


def wide_deep(
  schema: schema_lib.Schema,
  *,
  dim: int = 10,
  pooling: str = 'mean',
  hidden: Sequence[int] = (400, 400, 400),
  norm: str = 'batch',
  dropout: float = 0.2,
) -> arch_lib.Architecture:
  """Wide & Deep without hand-made crosses: first order + MLP.

  (Cheng et al., DLRS 2016.)

  Args:
    schema: fitted schema.
    dim: embedding width.
    pooling: of multi-valued fields, 'mean' or 'sum' over a row's values.
    hidden: widths of the MLP's hidden layers.
    norm: 'none', 'batch' or 'layer', before each activation.
    dropout: share of hidden units that training drops, in [0, 1).
  """
  return arch_lib.Architecture(
    field_plans(schema, dim, pooling),
    (),
    arch_lib.HeadPlan(hidden=hidden, norm=norm, dropout=dropout),
  )


def deepfm(
  schema: schema_lib.Schema,
  *,
  dim: int = 10,
  pooling: str = 'mean',
  pairs: str | Sequence[tuple[str, str]] = 'fm',
  triples: str | Sequence[tuple[str, str, str]] | None = None,
  hidden: Sequence[int] = (400, 400, 400),
  norm: str = 'batch',
  dropout: float = 0.2,
) -> arch_lib.Architecture:
  """DeepFM (Guo et al., IJCAI 2017); AutoDeepFM with `pairs='open'`.

  Args:
    schema: fitted schema.
    dim: embedding width.
    pooling: of multi-valued fields, 'mean' or 'sum' over a row's values.
    pairs: as of `fm`.
    triples: as of `fm`.
    hidden: widths of the MLP's hidden layers.
    norm: 'none', 'batch' or 'layer', before each activation.
    dropout: share of hidden units that training drops, in [0, 1).
  """
  fields = field_plans(schema, dim, pooling)
  interactions = _pair_terms(fields, pairs, 'logit')
  interactions += _triple_terms(fields, triples, 'logit')
  return arch_lib.Architecture(
    fields,
    interactions,
    arch_lib.HeadPlan(hidden=hidden, norm=norm, dropout=dropout),
  )


def ipnn(
  schema: schema_lib.Schema,
  *,
  dim: int = 10,
  pooling: str = 'mean',
  pairs: str | Sequence[tuple[str, str]] = 'fm',
  triples: str | Sequence[tuple[str, str, str]] | None = None,
  hidden: Sequence[int] = (400, 400, 400),
  norm: str = 'none',
  dropout: float = 0.3,
) -> arch_lib.Architecture:
  """Inner-product network (Qu et al., ICDM 2016): products feed the MLP.

  Args:
    schema: fitted schema.
    dim: embedding width.
    pooling: of multi-valued fields, 'mean' or 'sum' over a row's values.
    pairs: as of `fm`, but 'fm' gives every plain product to the MLP.
    triples: as of `fm`.
    hidden: widths of the MLP's hidden layers.
    norm: 'none', 'batch' or 'layer', before each activation.
    dropout: share of hidden units that training drops, in [0, 1).
  """
  fields = field_plans(schema, dim, pooling)
  interactions = _pair_terms(fields, pairs, 'head')
  interactions += _triple_terms(fields, triples, 'head')
  return arch_lib.Architecture(
    fields,
    interactions,
    arch_lib.HeadPlan(
      first_order=False, hidden=hidden, norm=norm, dropout=dropout
    ),
  )


def rater(
  schema: schema_lib.Schema,
  *,
  dim: int = 128,
  width: int | None = None,
  pooling: str = 'mean',
  hidden: Sequence[int] = (512,),
  norm: str = 'batch',
  dropout: float = 0.0,
) -> arch_lib.Architecture:
  """The recommender of ESAPN (Liu et al., SIGIR 2020): an MLP on entities.

  Rows are brought to a common width, normalised and squashed; their
  concatenation is normalised and goes through hidden layers with tanh. No
  first order.

  Args:
    schema: fitted schema; in the paper, of a user and an item alone.
    dim: embedding width.
    width: common width, at least `dim`; None for `dim`.
    pooling: of multi-valued fields, 'mean' or 'sum' over a row's values.
    hidden: widths of the hidden layers.
    norm: 'none', 'batch' or 'layer', before each activation.
    dropout: share of hidden units that training drops, in [0, 1).
  """
  head = arch_lib.HeadPlan(
    first_order=False,
    hidden=hidden,
    norm=norm,
    dropout=dropout,
    activation='tanh',
    norm_inputs=True,
  )
  return arch_lib.Architecture(
    field_plans(schema, dim, pooling),
    (),
    head,
    projection='affine',
    width=width or dim,
    squash=True,
  )


MODELS = {
  'lr': lr,
  'fm': fm,
  'wide_deep': wide_deep,
  'deepfm': deepfm,
  'ipnn': ipnn,
  'rater': rater,
}


def build(
  name: str, schema: schema_lib.Schema, **options
) -> arch_lib.Architecture:
  """The architecture of a model by name, for a fitted schema.

  Raises:
    ConfigError: for an unknown name; lists the known and the nearest.
  """
  if name not in MODELS:
    near = difflib.get_close_matches(name, MODELS, 1)
    hint = f' Did you mean {near[0]!r}?' if near else ''
    raise errors.ConfigError(
      f'No model {name!r}; the models are: {", ".join(MODELS)}.{hint}'
    )
  return MODELS[name](schema, **options)
