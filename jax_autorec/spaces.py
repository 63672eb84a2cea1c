"""Known models as architectures, closed or with open choices."""

from collections.abc import Sequence
import difflib
import itertools

from jax_autorec import architecture as arch_lib
from jax_autorec import errors
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


def lr(schema: schema_lib.Schema) -> arch_lib.Architecture:
  """Logistic regression: one weight per id."""
  return arch_lib.Architecture(
    field_plans(schema, dim=1), (), arch_lib.HeadPlan(first_order=True)
  )


def fm(
  schema: schema_lib.Schema,
  *,
  dim: int = 10,
  pairs: str | Sequence[tuple[str, str]] = 'fm',
  triples: str | Sequence[tuple[str, str, str]] | None = None,
) -> arch_lib.Architecture:
  """Factorization machine; AutoFM with `pairs='open'`.

  Args:
    schema: fitted schema.
    dim: embedding width.
    pairs: 'fm': the plain sum of all inner products; 'all': all pairs,
      normalised and with trained gates; 'open': the same with gates to be
      searched; or the pairs to keep, normalised and gated.
    triples: None, 'all', 'open' or a sequence, for products of order 3.
  """
  fields = field_plans(schema, dim)
  interactions = _pair_terms(fields, pairs, 'logit')
  interactions += _triple_terms(fields, triples, 'logit')
  return arch_lib.Architecture(fields, interactions, arch_lib.HeadPlan())


def _mlp_head(hidden, norm, dropout, first_order):
  return arch_lib.HeadPlan(
    first_order=first_order, hidden=tuple(hidden), norm=norm, dropout=dropout
  )


def wide_deep(
  schema, *, dim=10, hidden=(400, 400, 400), norm='batch', dropout=0.2
) -> arch_lib.Architecture:
  """Wide & Deep without hand-made crosses: first order + MLP."""
  return arch_lib.Architecture(
    field_plans(schema, dim), (), _mlp_head(hidden, norm, dropout, True)
  )


def deepfm(
  schema,
  *,
  dim=10,
  pairs='fm',
  triples=None,
  hidden=(400, 400, 400),
  norm='batch',
  dropout=0.2,
) -> arch_lib.Architecture:
  """DeepFM (Guo et al., IJCAI 2017); AutoDeepFM with `pairs='open'`."""
  fields = field_plans(schema, dim)
  interactions = _pair_terms(fields, pairs, 'logit')
  interactions += _triple_terms(fields, triples, 'logit')
  return arch_lib.Architecture(
    fields, interactions, _mlp_head(hidden, norm, dropout, True)
  )


def ipnn(
  schema,
  *,
  dim=10,
  pairs='fm',
  triples=None,
  hidden=(400, 400, 400),
  norm='none',
  dropout=0.3,
) -> arch_lib.Architecture:
  """Inner-product network (Qu et al., ICDM 2016): products feed the MLP."""
  fields = field_plans(schema, dim)
  interactions = _pair_terms(fields, pairs, 'head')
  interactions += _triple_terms(fields, triples, 'head')
  return arch_lib.Architecture(
    fields, interactions, _mlp_head(hidden, norm, dropout, False)
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
