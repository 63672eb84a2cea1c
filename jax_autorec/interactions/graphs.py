"""Graphs of blocks, as AutoCTR searches them."""

from collections.abc import Sequence
import dataclasses
from typing import ClassVar

from jax_autorec import errors, fields
from jax_autorec.fields import FieldPlan
from jax_autorec.interactions import base

BLOCKS = ('mlp', 'fm', 'dp', 'cross', 'attention')
GROUPS = ('values', 'vectors')  # What blocks can read of the fields.


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
class BlockGraph(base.Interaction):
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
    vectors = dataclasses.replace(base.MAIN, fields=whose)
    views = {'vectors': vectors, 'values': base.VALUES}
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
