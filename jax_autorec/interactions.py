"""Explicit interactions of fields, as plain data.

A plan says what it reads of the fields (`views`) and where its output goes
(`to`); the module of its kind (`nn.interactions`) makes the output. A new
interaction is a plan here, a module there and a line in both registries.
"""

from collections.abc import Sequence
import dataclasses
from typing import ClassVar

from jax_autorec import errors, fields
from jax_autorec.fields import FieldPlan

GATES = ('none', 'weights', 'open')
TARGETS = ('logit', 'head', 'output')
FORMS = ('power', 'elementary')
VIEWS = ('vectors', 'weights', 'values')


@dataclasses.dataclass(frozen=True)
class View:
  """What is read of the fields: vectors, weights or the values themselves.

  Views of one name have the same tables, whoever reads them.

  Attributes:
    name: of the view; names of its tables begin with it.
    kind: 'vectors': [B, F, copies * D], D the common width; 'weights': a number
      per field, [B, F]; 'values': those of the numeric fields, [B, N], 0 where
      missing. Vectors and weights have tables of their own.
    copies: vectors per field, side by side in one row of a table.
    fields: names of the fields that it is made of, in field order; None for
      all (of 'values', all numeric ones).
  """

  name: str
  kind: str = 'vectors'
  copies: int = 1
  fields: tuple[str, ...] | None = None

  def __post_init__(self):
    fields.check(self.kind, VIEWS, f'Kind of view {self.name!r}')

  def has(self, field: str) -> bool:
    """Whether a field takes part."""
    return self.fields is None or field in self.fields


MAIN = View('main')  # What most models call embeddings.
FIRST_ORDER = View('first_order', 'weights')
VALUES = View('values', 'values')


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


@dataclasses.dataclass(frozen=True)
class FactorizationMachine(Interaction):
  """All pairwise inner products, summed in O(fields x dim).

  (Rendle, ICDM 2010): sum over i < j of <e_i, e_j>, no gates, no
  normalisation.
  """

  kind: ClassVar[str] = 'fm'
  name: str = 'fm'
  to: str = 'logit'

  def __post_init__(self):
    fields.check(self.to, ('logit',), 'Target of the factorization machine')


@dataclasses.dataclass(frozen=True)
class Products(Interaction):
  """Products of chosen pairs or triples of fields.

  Attributes:
    terms: tuples of field names in field order, all of one length: 2 for
      inner products, 3 for sum_d e_i e_j e_k over a table of their own.
    normalize: batch normalisation of every product, without scale or offset.
    gates: 'none'; 'weights': one trained factor per product; 'open': factors
      that a search decides on.
    to: 'logit': products are summed into the logit; 'head': they are inputs
      of the MLP.
    gate_init: where gates start.
    initial_gates: per term, where its gate starts instead (kept from a
      search); empty for `gate_init`.
  """

  kind: ClassVar[str] = 'products'
  name: str
  terms: tuple[tuple[str, ...], ...]
  normalize: bool = False
  gates: str = 'none'
  to: str = 'logit'
  gate_init: float = 0.6
  initial_gates: tuple[float, ...] = ()

  def __post_init__(self):
    object.__setattr__(self, 'terms', tuple(tuple(t) for t in self.terms))
    object.__setattr__(self, 'initial_gates', tuple(self.initial_gates))
    fields.check(self.gates, GATES, f'Gates of products {self.name!r}')
    fields.check(self.to, TARGETS, f'Target of products {self.name!r}')
    lengths = {len(term) for term in self.terms}
    if lengths - {2, 3} or len(lengths) != 1:
      raise errors.ConfigError(
        f'Products {self.name!r} have terms of {sorted(lengths)} fields; '
        'expected at least one term, all pairs or all triples.'
      )
    if len(set(self.terms)) < len(self.terms):
      raise errors.ConfigError(f'Products {self.name!r} repeat a term.')
    if self.initial_gates and len(self.initial_gates) != len(self.terms):
      raise errors.ConfigError(
        f'Products {self.name!r} have {len(self.initial_gates)} initial gates '
        f'for {len(self.terms)} terms.'
      )

  @property
  def order(self) -> int:
    return len(self.terms[0])

  @property
  def is_open(self) -> bool:
    return self.gates == 'open'

  def views(self, plans):
    del plans
    return (MAIN if self.order == 2 else View(f'order{self.order}'),)

  def check(self, plans):
    check_terms(f'products {self.name!r}', self.terms, plans)


@dataclasses.dataclass(frozen=True)
class Groups(Interaction):
  """Interactions of one order within groups of fields.

  (AutoGroup, Liu et al., SIGIR 2020.) A group is the weighted sum g of its
  members' vectors. At order 1 it is the output itself; above, the sum over the
  entries of a polynomial of that order in them, one number per group.

  Attributes:
    name: also of the view: every plan has tables of its own.
    order: p, at least 1.
    groups: the members of each group, in field order; empty while they are
      open.
    num_open: number of groups whose members a search decides on; 0 for none.
    copies: width of the vectors, in common widths.
    form: 'power': g^p less `compensation` times the members' own powers; for
      p > 2 that holds mixed powers too, such as x^2 y. 'elementary': the sum of
      the products of p different members alone.
    compensation: of 'power' at orders above 1; 1 as on the slides, .01 in the
      authors' code.
    normalize: batch normalisation of the vectors, without scale or offset.
    to: 'head' or 'output'.
  """

  kind: ClassVar[str] = 'groups'
  name: str
  order: int
  groups: tuple[tuple[str, ...], ...] = ()
  num_open: int = 0
  copies: int = 1
  form: str = 'power'
  compensation: float = 1.0
  normalize: bool = True
  to: str = 'head'

  def __post_init__(self):
    object.__setattr__(self, 'groups', tuple(tuple(g) for g in self.groups))
    what = f'of groups {self.name!r}'
    fields.check(self.form, FORMS, f'Form {what}')
    fields.check(self.to, TARGETS[1:], f'Target {what}')
    errors.expect(self.order >= 1, f'order {what}', self.order, 'at least 1')
    errors.expect(self.copies >= 1, f'copies {what}', self.copies, 'at least 1')
    errors.expect(
      0 <= self.compensation <= 1,
      f'compensation {what}',
      self.compensation,
      '0 to 1',
    )
    if bool(self.groups) == (self.num_open > 0) or self.num_open < 0:
      raise errors.ConfigError(
        f'Groups {self.name!r} have {len(self.groups)} sets of members and '
        f'{self.num_open} open groups; expected some of the one or the other.'
      )

  @property
  def is_open(self) -> bool:
    return self.num_open > 0

  @property
  def least(self) -> int:
    """Members of the smallest group whose output is not always 0."""
    if self.form == 'elementary' or self.order == 1:
      return self.order
    return 2 if self.compensation == 1 else 1

  def with_groups(self, groups: Sequence[Sequence[str]]) -> 'Groups | None':
    """Closed, without the groups that are too small; None without any."""
    groups = tuple(tuple(g) for g in groups if len(g) >= self.least)
    if not groups:
      return None
    return dataclasses.replace(self, groups=groups, num_open=0)

  def members(self, plans: Sequence[FieldPlan]) -> tuple[str, ...]:
    """Fields that are in some group, or may be, in field order."""
    names = tuple(plan.name for plan in plans)
    if self.is_open:
      return names
    return tuple(n for n in names if any(n in group for group in self.groups))

  def views(self, plans):
    members = self.members(plans)
    whole = len(members) == len(plans)
    whose = None if whole else members
    return (View(self.name, copies=self.copies, fields=whose),)

  def check(self, plans):
    check_terms(f'groups {self.name!r}', self.groups, plans)


def check_terms(
  what: str, terms: Sequence[Sequence[str]], plans: Sequence[FieldPlan]
) -> None:
  """Refuses terms of unknown fields, or not in field order."""
  index = {plan.name: place for place, plan in enumerate(plans)}
  for term in terms:
    unknown = [name for name in term if name not in index]
    if unknown:
      raise errors.ConfigError(
        f'{what.capitalize()} name fields {unknown} that are not among '
        f'{list(index)}.'
      )
    places = [index[name] for name in term]
    if places != sorted(set(places)):
      raise errors.ConfigError(
        f'Term {tuple(term)} of {what} is not in field order.'
      )


KINDS = {cls.kind: cls for cls in (FactorizationMachine, Products, Groups)}
