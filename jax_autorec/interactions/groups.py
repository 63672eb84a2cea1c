"""Interactions within groups of fields, as AutoGroup searches them."""

from collections.abc import Sequence
import dataclasses
from typing import ClassVar

from jax_autorec import errors, fields
from jax_autorec.fields import FieldPlan
from jax_autorec.interactions import base

FORMS = ('power', 'elementary')


@dataclasses.dataclass(frozen=True)
class Groups(base.Interaction):
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
    fields.check(self.to, base.TARGETS[1:], f'Target {what}')
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
    names = tuple(plan.name for plan in fields.with_vectors(plans))
    if self.is_open:
      return names
    return tuple(n for n in names if any(n in group for group in self.groups))

  def views(self, plans):
    members = self.members(plans)
    whole = len(members) == len(fields.with_vectors(plans))
    whose = None if whole else members
    return (base.View(self.name, copies=self.copies, fields=whose),)

  def check(self, plans):
    base.check_terms(f'groups {self.name!r}', self.groups, plans)
