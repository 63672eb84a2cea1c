"""Base models whose products may be open; LR and Wide & Deep have none."""

from collections.abc import Sequence

from jax_autorec import architecture as arch_lib
from jax_autorec import errors, interactions
from jax_autorec import schema as schema_lib
from jax_autorec.spaces import parts

PAIRS = ('fm', 'all', 'open')


def _pair_terms(fields, pairs, to):
  """Interactions for the `pairs` argument of the factories below."""
  if pairs == 'fm' and to == 'logit':
    return (interactions.FactorizationMachine(),)
  if pairs == 'fm':
    return (interactions.Products('pairs', parts.all_terms(fields, 2), to=to),)
  terms, gates = _terms_and_gates(fields, pairs, 2, 'pairs')
  return (
    interactions.Products('pairs', terms, normalize=True, gates=gates, to=to),
  )


def _triple_terms(fields, triples, to):
  if triples is None:
    return ()
  terms, gates = _terms_and_gates(fields, triples, 3, 'triples')
  return (
    interactions.Products('triples', terms, normalize=True, gates=gates, to=to),
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
  return parts.all_terms(fields, order), gates


def lr(
  schema: schema_lib.Schema,
  *,
  pooling: str = 'mean',
  numeric: parts.Numeric = None,
) -> arch_lib.Architecture:
  """Logistic regression: one weight per id.

  Args:
    schema: fitted schema.
    pooling: of multi-valued fields, 'mean' or 'sum' over a row's values.
    numeric: of numeric fields; no vector is read here, so that of those with
      vectors (AutoDis, field embedding) the weight of the value alone is left.
  """
  fields = parts.field_plans(schema, 1, pooling, numeric)
  return arch_lib.Architecture(fields, (), arch_lib.HeadPlan())


def fm(
  schema: schema_lib.Schema,
  *,
  dim: int = 10,
  pooling: str = 'mean',
  numeric: parts.Numeric = None,
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
  fields = parts.field_plans(schema, dim, pooling, numeric)
  plans = _pair_terms(fields, pairs, 'logit')
  plans += _triple_terms(fields, triples, 'logit')
  return arch_lib.Architecture(fields, plans, arch_lib.HeadPlan())


def wide_deep(
  schema: schema_lib.Schema,
  *,
  dim: int = 10,
  pooling: str = 'mean',
  numeric: parts.Numeric = None,
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
    parts.field_plans(schema, dim, pooling, numeric),
    (),
    arch_lib.HeadPlan(hidden=hidden, norm=norm, dropout=dropout),
  )


def deepfm(
  schema: schema_lib.Schema,
  *,
  dim: int = 10,
  pooling: str = 'mean',
  numeric: parts.Numeric = None,
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
  fields = parts.field_plans(schema, dim, pooling, numeric)
  plans = _pair_terms(fields, pairs, 'logit')
  plans += _triple_terms(fields, triples, 'logit')
  return arch_lib.Architecture(
    fields,
    plans,
    arch_lib.HeadPlan(hidden=hidden, norm=norm, dropout=dropout),
  )


def ipnn(
  schema: schema_lib.Schema,
  *,
  dim: int = 10,
  pooling: str = 'mean',
  numeric: parts.Numeric = None,
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
  fields = parts.field_plans(schema, dim, pooling, numeric)
  plans = _pair_terms(fields, pairs, 'head')
  plans += _triple_terms(fields, triples, 'head')
  return arch_lib.Architecture(
    fields,
    plans,
    arch_lib.HeadPlan(
      first_order=False, hidden=hidden, norm=norm, dropout=dropout
    ),
  )
