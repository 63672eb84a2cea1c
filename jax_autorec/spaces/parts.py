"""What base models have in common."""

from collections.abc import Mapping, Sequence
import itertools

from jax_autorec import architecture as arch_lib
from jax_autorec import errors, interactions
from jax_autorec import fields as fields_lib
from jax_autorec import numeric as numeric_lib
from jax_autorec import schema as schema_lib

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
  names = [plan.name for plan in fields_lib.with_vectors(fields)]
  if len(names) < order:
    raise errors.ConfigError(
      f'Products of order {order} need {order} fields, got {len(names)}.'
    )
  return tuple(itertools.combinations(names, order))


def model(
  schema: schema_lib.Schema,
  dim: int,
  pooling: str,
  numeric: Numeric,
  plans: Sequence[interactions.Interaction],
  head: arch_lib.HeadPlan,
) -> arch_lib.Architecture:
  """Every field at one width, some interactions and a head."""
  fields = field_plans(schema, dim, pooling, numeric)
  return arch_lib.Architecture(fields, tuple(plans), head)


def mlp(
  hidden: Sequence[int], norm: str, dropout: float, **options: bool
) -> arch_lib.HeadPlan:
  """A head with an MLP."""
  return arch_lib.HeadPlan(hidden=hidden, norm=norm, dropout=dropout, **options)
