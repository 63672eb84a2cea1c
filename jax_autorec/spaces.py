"""Known models as architectures, closed or with open choices."""

from collections.abc import Mapping, Sequence
import dataclasses
import difflib
import itertools

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
    transforms: whether linear maps are those of a 'field' or 'shared'.
  """
  choice = fields_lib.MixedDims(dims, tables, transform, transforms)
  return _open(architecture, choice)


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
    counts, own = frequencies[plan.name], [0]
    if plan.vocab_size >= min_vocab:
      octaves = [int(count).bit_length() for count in counts]
      first = schema_lib.FIRST_VALUE_ID
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
    architecture: with an open choice of widths.
    dims: one per categorical field.
  """
  widths = dict(zip([plan.name for plan in architecture.categorical], dims))
  fields = tuple(
    dataclasses.replace(plan, dim=int(widths.get(plan.name, plan.dim)))
    for plan in architecture.fields
  )
  choice = architecture.choice
  return dataclasses.replace(
    architecture,
    fields=fields,
    choice=None,
    width=choice.width,
    projection=choice.transform,
  )


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
