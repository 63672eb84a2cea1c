"""Products of field vectors: all pairs, chosen pairs or triples."""

import dataclasses
from typing import ClassVar

from jax_autorec import errors, fields
from jax_autorec.interactions import base

GATES = ('none', 'weights', 'open')


@dataclasses.dataclass(frozen=True)
class FactorizationMachine(base.Interaction):
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
class Products(base.Interaction):
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
    fields.check(self.to, base.TARGETS, f'Target of products {self.name!r}')
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
    return (base.MAIN if self.order == 2 else base.View(f'order{self.order}'),)

  def check(self, plans):
    base.check_terms(f'products {self.name!r}', self.terms, plans)


def has_open_gates(plan: base.Interaction) -> bool:
  """Whether a plan is one of products whose gates a search decides on."""
  return isinstance(plan, Products) and plan.is_open
