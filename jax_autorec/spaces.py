"""Known models as architectures, closed or with open choices."""

from collections.abc import Sequence
import dataclasses
import difflib
import itertools

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
    transforms: whether linear maps are those of a 'field' or 'shared'.
  """
  choice = fields_lib.MixedDims(dims, tables, transform, transforms)
  return _open(architecture, choice)


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


def open_rows(architecture: arch_lib.Architecture) -> arch_lib.Architecture:
  """Leaves it to a search which rows are kept, and a width per field.

  Args:
    architecture: a closed one of equal widths.
  """
  return _open(architecture, fields_lib.RowMask(architecture.dim))


def with_rows(
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
    dims: one per categorical field; 0 for a field without vectors.
  """
  widths = dict(zip([plan.name for plan in architecture.categorical], dims))
  fields = []
  for plan in architecture.fields:
    dim = int(widths.get(plan.name, plan.dim))
    without = {} if dim else {'pieces': ()}
    fields.append(dataclasses.replace(plan, dim=max(dim, 1), **without))
  choice = architecture.choice
  return dataclasses.replace(
    architecture,
    fields=tuple(fields),
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


MODELS = {
  'lr': lr,
  'fm': fm,
  'wide_deep': wide_deep,
  'deepfm': deepfm,
  'ipnn': ipnn,
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
