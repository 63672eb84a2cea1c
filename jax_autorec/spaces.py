"""Known models as architectures, closed or with open choices."""

from collections.abc import Sequence
import dataclasses
import difflib
import itertools
import math

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
    ConfigError: where no field would be smaller.
  """
  shares = [share for share, _ in tiers]
  if not tiers or min(shares) <= 0 or abs(sum(shares) - 1) > 1e-6:
    raise errors.ConfigError(
      f'Tiers have the shares {shares}; expected positive ones that add up '
      'to 1.'
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
  if all(plan.quantizer is None for plan in plans):
    centroids = [size for _, size in tiers]
    raise errors.ConfigError(
      f'No field takes less room with {groups} codes of {centroids} centroids '
      'than with plain rows: give fewer, or name the fields.'
    )
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
    max_params: bound on `ep_total` of the packed model, in float32 entries. It
      is filled as far as powers of two allow: to nine tenths while codes are
      the larger part, less where doubling codebooks takes great steps, and
      not beyond the largest model that is smaller than plain rows.
    shared: whether all groups of a field have one codebook.

  Raises:
    ConfigError: where nothing is small enough; says what is needed.
  """
  largest = max(plan.vocab_size for plan in architecture.categorical)
  sizes = [2**n for n in range(16, 0, -1) if 2**n < 2 * largest]
  best, least = None, math.inf
  for centroids in itertools.combinations_with_replacement(sizes, len(shares)):
    tiers = list(zip(shares, centroids))
    try:
      found = quantize(architecture, kind, groups, tiers, shared=shared)
    except errors.ConfigError:
      continue  # No field is smaller with so many.
    size = found.packed.ep_total
    least = min(least, size)
    if size <= max_params and (best is None or size > best[0]):
      best = size, found
  if best is None:
    raise errors.ConfigError(
      f'A budget of {max_params} entries; the smallest model with {groups} '
      f'codes per id has {least}: raise the budget, or give fewer groups.'
    )
  return best[1]


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
