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
VIEWS = ('vectors', 'weights', 'values')
BLOCKS = ('mlp', 'fm', 'dp', 'cross', 'attention')
GROUPS = ('values', 'vectors')  # What blocks can read of the fields.


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
class Block:
  """A node of a `BlockGraph`.

  Attributes:
    type: 'mlp', one hidden layer; 'fm', a factorization machine; 'dp', the
      products of all pairs of vectors, squares included; 'cross', a layer of
      CrossNet; 'attention', a layer of self-attention.
    inputs: what it reads: 'values' (all numeric fields' numbers), 'vectors'
      (all categorical fields' vectors), numbers of earlier blocks.
    width: of an 'mlp'; 0 for all others.
  """

  type: str
  inputs: tuple[str | int, ...]
  width: int = 0

  def __post_init__(self):
    object.__setattr__(self, 'inputs', tuple(self.inputs))
    fields.check(self.type, BLOCKS, 'Type of a block')
    if not self.inputs or len(set(self.inputs)) < len(self.inputs):
      raise errors.ConfigError(
        f'A block of type {self.type!r} reads {self.inputs}; expected one '
        'input or more, each once.'
      )
    if (self.type == 'mlp') != (self.width > 0):
      raise errors.ConfigError(
        f'A block of type {self.type!r} has width {self.width}; expected at '
        "least 1 for 'mlp', and 0 for all others."
      )


@dataclasses.dataclass(frozen=True)
class BlockGraph(Interaction):
  """A directed graph of blocks (AutoCTR: Song et al., KDD 2020).

  The output is everything that no block reads, side by side: last blocks, and
  the values or vectors of the fields where they are left over.

  Attributes:
    blocks: in an order in which each reads earlier ones alone.
  """

  kind: ClassVar[str] = 'blocks'
  blocks: tuple[Block, ...]
  name: str = 'blocks'
  to: str = 'output'

  def __post_init__(self):
    blocks = tuple(
      Block(**block) if isinstance(block, dict) else block
      for block in self.blocks
    )
    object.__setattr__(self, 'blocks', blocks)
    fields.check(self.to, ('head', 'output'), 'Target of a graph of blocks')
    for number, block in enumerate(blocks):
      for read in block.inputs:
        if read not in GROUPS and read not in range(number):
          raise errors.ConfigError(
            f'Block {number} of {self.name!r} reads {read!r}; expected '
            f'{", ".join(map(repr, GROUPS))} or an earlier block.'
          )

  def groups(self, plans: Sequence[FieldPlan]) -> tuple[str, ...]:
    """What there is to read, of some fields."""
    kinds = {plan.kind for plan in plans}
    known = {'values': 'numeric', 'vectors': 'categorical'}
    return tuple(group for group in GROUPS if known[group] in kinds)

  def ends(self, plans: Sequence[FieldPlan]) -> tuple[str | int, ...]:
    """What no block reads: the parts of the output, in order."""
    read = {one for block in self.blocks for one in block.inputs}
    known = (*self.groups(plans), *range(len(self.blocks)))
    return tuple(one for one in known if one not in read)

  def views(self, plans):
    found = self.groups(plans)
    names = [plan.name for plan in plans if plan.kind == 'categorical']
    whose = None if len(names) == len(plans) else tuple(names)
    vectors = dataclasses.replace(MAIN, fields=whose)
    views = {'vectors': vectors, 'values': VALUES}
    return tuple(view for kind, view in views.items() if kind in found)

  def check(self, plans):
    found = self.groups(plans)
    for number, block in enumerate(self.blocks):
      absent = [one for one in block.inputs if one in GROUPS]
      absent = [one for one in absent if one not in found]
      if absent:
        raise errors.ConfigError(
          f'Block {number} of {self.name!r} reads {absent[0]!r}, but there is '
          'no field of that kind.'
        )


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


KINDS = {cls.kind: cls for cls in (FactorizationMachine, Products, BlockGraph)}
