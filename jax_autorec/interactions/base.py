"""What every interaction of fields has, as plain data.

A plan says what it reads of the fields (`views`) and where its output goes
(`to`); the module of its kind (`nn.interactions`) makes the output. A new
interaction is a plan here, a module of its kind in `nn` and a line in both
registries.
"""

from collections.abc import Sequence
import dataclasses
from typing import ClassVar

from jax_autorec import errors, fields
from jax_autorec.fields import FieldPlan

TARGETS = ('logit', 'head', 'output')
VIEWS = ('vectors', 'weights', 'values', 'numbers')
NORMS = ('none', 'batch', 'layer')


@dataclasses.dataclass(frozen=True)
class View:
  """What is read of the fields: vectors, weights or the values themselves.

  Views of one name have the same tables, whoever reads them.

  Attributes:
    name: of the view; names of its tables begin with it.
    kind: 'vectors': [B, F, copies * D], D the common width, of fields that have
      vectors; 'weights': a number per field, [B, F]; 'values': those of the
      numeric fields, [B, N], 0 where missing; 'numbers': what stands for the
      numeric fields without vectors, [B, K]. Vectors and weights have tables of
      their own.
    copies: vectors per field, side by side in one row of a table.
    fields: names of the fields that it is made of, in field order; None for
      all that its kind admits.
  """

  name: str
  kind: str = 'vectors'
  copies: int = 1
  fields: tuple[str, ...] | None = None

  def __post_init__(self):
    fields.check(self.kind, VIEWS, f'Kind of view {self.name!r}')

  def has(self, field: str) -> bool:
    """Whether a field takes part, if the kind of the view admits it."""
    return self.fields is None or field in self.fields

  def of(self, plans: Sequence[FieldPlan]) -> tuple[FieldPlan, ...]:
    """Which fields of an architecture it is made of, in field order."""
    admits = {
      'vectors': lambda plan: plan.has_vectors,
      'weights': lambda plan: True,
      'values': lambda plan: plan.kind == 'numeric',
      'numbers': lambda plan: not plan.has_vectors,
    }[self.kind]
    return tuple(p for p in plans if admits(p) and self.has(p.name))


MAIN = View('main')  # What most models call embeddings.
FIRST_ORDER = View('first_order', 'weights')
VALUES = View('values', 'values')
NUMBERS = View('numbers', 'numbers')


def join(first: View, second: View) -> View:
  """One view for two readers of the same name.

  Raises:
    ConfigError: where they differ in more than in the fields.
  """
  whose = None
  if first.fields is not None and second.fields is not None:
    whose = first.fields + tuple(
      name for name in second.fields if name not in first.fields
    )
  joined = dataclasses.replace(first, fields=whose)
  if joined != dataclasses.replace(second, fields=whose):
    raise errors.ConfigError(
      f'View {first.name!r} is read as {first} and as {second}; expected one '
      'kind and one number of copies.'
    )
  return joined


class Interaction:
  """What every plan of an interaction has.

  Attributes:
    kind: name of the plan and of its module.
    name: of the interaction among those of an architecture; scope of its
      parameters.
    to: where the output goes. 'logit': [B], added to the logit; 'head':
      [B, K], inputs of the MLP; 'output': [B, K], inputs of the output layer,
      beside the MLP's last hidden layer if there is one.
  """

  kind: ClassVar[str]
  name: str
  to: str

  def views(self, plans: Sequence[FieldPlan]) -> tuple[View, ...]:
    """What it reads, given the fields of the architecture."""
    del plans
    return (MAIN,)

  def check(self, plans: Sequence[FieldPlan]) -> None:
    """Raises a ConfigError unless it suits the fields of an architecture."""

  @property
  def is_open(self) -> bool:
    """Whether a search has anything to decide about it."""
    return False

  @property
  def has_offset(self) -> bool:
    """Whether its output [B] to the logit brings a trained offset along."""
    return False


def check_terms(
  what: str, terms: Sequence[Sequence[str]], plans: Sequence[FieldPlan]
) -> None:
  """Refuses terms of fields that have no vectors, or not in field order."""
  known = fields.with_vectors(plans)
  index = {plan.name: place for place, plan in enumerate(known)}
  for term in terms:
    unknown = [name for name in term if name not in index]
    if unknown:
      raise errors.ConfigError(
        f'{what[:1].upper()}{what[1:]} name fields {unknown} that are not '
        f'among {list(index)}.'
      )
    places = [index[name] for name in term]
    if places != sorted(set(places)):
      raise errors.ConfigError(
        f'Term {tuple(term)} of {what} is not in field order.'
      )


def check_target(plan, *targets):
  """Refuses a target that the interaction cannot have."""
  fields.check(plan.to, targets, f'Target of {plan.name!r}')


def check_two_fields(plan, plans):
  """Refuses an architecture of fewer than two fields that have vectors."""
  count = len(fields.with_vectors(plans))
  if count < 2:
    raise errors.ConfigError(
      f'Interaction {plan.name!r} is one of pairs, and there is {count} field '
      'that has vectors.'
    )


def check_sizes(plan, what, sizes):
  """Refuses sizes unless there are some, all of at least 1."""
  if not sizes or min(sizes) < 1:
    raise errors.ConfigError(
      f'{what!r} of {plan.name!r} is {sizes}; expected at least one, each 1 or '
      'more.'
    )


def check_divides(plan, heads, sizes):
  """Refuses heads that do not divide widths."""
  if heads < 1 or any(size < 1 or size % heads for size in sizes):
    raise errors.ConfigError(
      f'{plan.name!r} has {heads} heads for widths of {sizes}; expected '
      'multiples of the heads.'
    )


def check_dropout(plan, dropout):
  """Refuses a dropout outside [0, 1)."""
  if not 0 <= dropout < 1:
    raise errors.ConfigError(
      f'Dropout of {plan.name!r} is {dropout}; expected 0 <= dropout < 1.'
    )
