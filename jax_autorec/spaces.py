"""Base models by name, as architectures whose products may be open."""

from collections.abc import Mapping, Sequence
import difflib
import itertools

from jax_autorec import architecture as arch_lib
from jax_autorec import errors
from jax_autorec import numeric as numeric_lib
from jax_autorec import schema as schema_lib

PAIRS = ('fm', 'all', 'open')

# An embedding for all numeric fields, or by name for some; a trained vector
# times the value for the others.
Numeric = numeric_lib.Embedding | Mapping[str, numeric_lib.Embedding] | None


def field_plans(
  schema: schema_lib.Schema,
  dim: int,
  pooling: str = 'mean',
  numeric: Numeric = None,
) -> tuple[arch_lib.FieldPlan, ...]:
  """Every field of a schema at one width, categorical fields first.

  Raises:
    ConfigError: for the numeric embedding of a field that is not numeric.
  """
  names = [field.name for field in schema.numeric]
  if not isinstance(numeric, Mapping):
    numeric = dict.fromkeys(names, numeric)
  unknown = [name for name in numeric if name not in names]
  if unknown:
    raise errors.ConfigError(
      f'A numeric embedding is given for {unknown[0]!r}; the numeric fields '
      f'are: {", ".join(names) or "none"}.'
    )
  return tuple(
    arch_lib.FieldPlan(
      name=field.name,
      kind=field.kind,
      dim=dim,
      vocab_size=field.vocab_size,
      max_length=field.max_length,
      pooling=pooling,
      numeric=numeric.get(field.name),
    )
    for field in schema.categorical + schema.numeric
  )


def all_terms(
  fields: Sequence[arch_lib.FieldPlan], order: int
) -> tuple[tuple[str, ...], ...]:
  """All combinations of `order` names of fields with vectors, in order."""
  names = [plan.name for plan in fields if plan.has_vectors]
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


def lr(
  schema: schema_lib.Schema,
  *,
  pooling: str = 'mean',
  numeric: Numeric = None,
) -> arch_lib.Architecture:
  """Logistic regression: one weight per id.

  Args:
    schema: fitted schema.
    pooling: of multi-valued fields, 'mean' or 'sum' over a row's values.
    numeric: of numeric fields; no vector is read here, so that of those with
      vectors (AutoDis, field embedding) the weight of the value alone is left.
  """
  fields = field_plans(schema, 1, pooling, numeric)
  return arch_lib.Architecture(fields, (), arch_lib.HeadPlan())


def fm(
  schema: schema_lib.Schema,
  *,
  dim: int = 10,
  pooling: str = 'mean',
  numeric: Numeric = None,
  pairs: str | Sequence[tuple[str, str]] = 'fm',
  triples: str | Sequence[tuple[str, str, str]] | None = None,
) -> arch_lib.Architecture:
  """Factorization machine; AutoFM with `pairs='open'`.

  Args:
    schema: fitted schema.
    dim: embedding width.
    pooling: of multi-valued fields, 'mean' or 'sum' over a row's values.
    numeric: how numbers become vectors, see `jax_autorec.numeric`: one for all
      numeric fields, or by name.
    pairs: 'fm': the plain sum of all inner products; 'all': all pairs,
      normalised and with trained gates; 'open': the same with gates to be
      searched; or the pairs to keep, normalised and gated.
    triples: None, 'all', 'open' or a sequence, for products of order 3.
  """
  fields = field_plans(schema, dim, pooling, numeric)
  interactions = _pair_terms(fields, pairs, 'logit')
  interactions += _triple_terms(fields, triples, 'logit')
  return arch_lib.Architecture(fields, interactions, arch_lib.HeadPlan())


def wide_deep(
  schema: schema_lib.Schema,
  *,
  dim: int = 10,
  pooling: str = 'mean',
  numeric: Numeric = None,
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
    numeric: how numbers become vectors, see `jax_autorec.numeric`: one for all
      numeric fields, or by name.
    hidden: widths of the MLP's hidden layers.
    norm: 'none', 'batch' or 'layer', before each activation.
    dropout: share of hidden units that training drops, in [0, 1).
  """
  return arch_lib.Architecture(
    field_plans(schema, dim, pooling, numeric),
    (),
    arch_lib.HeadPlan(hidden=hidden, norm=norm, dropout=dropout),
  )


def deepfm(
  schema: schema_lib.Schema,
  *,
  dim: int = 10,
  pooling: str = 'mean',
  numeric: Numeric = None,
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
    numeric: how numbers become vectors, see `jax_autorec.numeric`: one for all
      numeric fields, or by name.
    pairs: as of `fm`.
    triples: as of `fm`.
    hidden: widths of the MLP's hidden layers.
    norm: 'none', 'batch' or 'layer', before each activation.
    dropout: share of hidden units that training drops, in [0, 1).
  """
  fields = field_plans(schema, dim, pooling, numeric)
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
  numeric: Numeric = None,
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
    numeric: how numbers become vectors, see `jax_autorec.numeric`: one for all
      numeric fields, or by name.
    pairs: as of `fm`, but 'fm' gives every plain product to the MLP.
    triples: as of `fm`.
    hidden: widths of the MLP's hidden layers.
    norm: 'none', 'batch' or 'layer', before each activation.
    dropout: share of hidden units that training drops, in [0, 1).
  """
  fields = field_plans(schema, dim, pooling, numeric)
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
  numeric: Numeric = None,
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
    numeric: how numbers become vectors, see `jax_autorec.numeric`: one for all
      numeric fields, or by name.
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
    field_plans(schema, dim, pooling, numeric),
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
