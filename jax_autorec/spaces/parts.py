"""What base models have in common."""

from collections.abc import Sequence
import itertools

from jax_autorec import architecture as arch_lib
from jax_autorec import errors, interactions
from jax_autorec import schema as schema_lib


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


def model(
  schema: schema_lib.Schema,
  dim: int,
  pooling: str,
  plans: Sequence[interactions.Interaction],
  head: arch_lib.HeadPlan,
) -> arch_lib.Architecture:
  """Every field at one width, some interactions and a head."""
  fields = field_plans(schema, dim, pooling)
  return arch_lib.Architecture(fields, tuple(plans), head)


def mlp(
  hidden: Sequence[int], norm: str, dropout: float, **options: bool
) -> arch_lib.HeadPlan:
  """A head with an MLP."""
  return arch_lib.HeadPlan(hidden=hidden, norm=norm, dropout=dropout, **options)
