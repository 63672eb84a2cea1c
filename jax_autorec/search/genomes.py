"""Graphs of blocks as genomes: drawn, mutated, compared, encoded.

A genome says of each of its blocks what it is and what it reads; blocks that
read nothing are dead. Genomes are compared as graphs (`canonical`).
"""

from collections.abc import Mapping, Sequence
import dataclasses
import functools
import itertools
from typing import Any, NamedTuple

import numpy as np

from jax_autorec import errors, interactions
from jax_autorec import fields as fields_lib
from jax_autorec.interactions import Block

MOST_BLOCKS = 16


class Gene(NamedTuple):
  """One block of a genome; each attribute is a token.

  Attributes:
    type: of the block.
    values: whether it reads the numbers of numeric fields.
    vectors: whether it reads the vectors of categorical fields.
    skips: of every block of the genome, whether it reads it; of earlier ones
      alone.
    width: of an 'mlp'; idle for others.
  """

  type: str
  values: bool
  vectors: bool
  skips: tuple[bool, ...]
  width: int


Genome = tuple[Gene, ...]
Blocks = tuple[Block, ...]


@dataclasses.dataclass(frozen=True)
class Tokens:
  """What the tokens of a genome can be; the defaults are the paper's.

  Attributes:
    num_blocks: of a genome.
    types: of blocks; 'cross' and 'attention' are not in the paper's searches.
    widths: of an 'mlp'.
    groups: what there is to read of the fields.
  """

  num_blocks: int = 7
  types: tuple[str, ...] = ('mlp', 'fm', 'dp')
  widths: tuple[int, ...] = (32, 64, 128, 256, 512, 1024)
  groups: tuple[str, ...] = interactions.GROUPS

  def __post_init__(self):
    for name in ('types', 'widths', 'groups'):
      value = tuple(getattr(self, name))
      object.__setattr__(self, name, value)
      errors.expect(
        len(value) > 0 and len(set(value)) == len(value),
        name,
        value,
        'one or more, each once',
      )
    for one in self.types:
      fields_lib.check(one, interactions.BLOCKS, 'Type of a block')
    for one in self.groups:
      fields_lib.check(one, interactions.GROUPS, 'Group of fields')
    for one in self.widths:
      errors.expect(one >= 1, 'Width of a block', one, 'at least 1')
    errors.expect(
      1 <= self.num_blocks <= MOST_BLOCKS,
      'num_blocks',
      self.num_blocks,
      f'1 to {MOST_BLOCKS}',
    )


def draw(tokens: Tokens, rng: np.random.Generator) -> Genome:
  """A genome: even types and widths, every input with a chance of a half."""
  return tuple(
    Gene(
      type=tokens.types[rng.integers(len(tokens.types))],
      values=bool(rng.integers(2)) and 'values' in tokens.groups,
      vectors=bool(rng.integers(2)) and 'vectors' in tokens.groups,
      skips=_skips(tokens, number, rng),
      width=tokens.widths[rng.integers(len(tokens.widths))],
    )
    for number in range(tokens.num_blocks)
  )


def _skips(tokens, number, rng):
  bits = rng.integers(0, 2, tokens.num_blocks).astype(bool).tolist()
  return tuple(bit and other < number for other, bit in enumerate(bits))


def mutate(
  genome: Genome, tokens: Tokens, rng: np.random.Generator
) -> Genome | None:
  """The genome with one token of one block changed.

  Block and token are drawn evenly. The skips of a block are one token, drawn
  anew as a whole.

  Args:
    genome: the parent.
    tokens: what they can be.
    rng: of the draws.

  Returns:
    The mutant; None where no token can be another.
  """
  number = int(rng.integers(len(genome)))
  gene = genome[number]
  choices = {
    'type': len(tokens.types) > 1,
    **{group: group in tokens.groups for group in interactions.GROUPS},
    'skips': number > 0,
    'width': len(tokens.widths) > 1,
  }
  free = [token for token, is_free in choices.items() if is_free]
  if not free:
    return None
  token = free[rng.integers(len(free))]
  old = new = getattr(gene, token)
  while new == old:
    if token == 'skips':
      new = _skips(tokens, number, rng)
    elif token in interactions.GROUPS:
      new = not old
    else:
      known = tokens.types if token == 'type' else tokens.widths
      new = known[rng.integers(len(known))]
  changed = gene._replace(**{token: new})
  return (*genome[:number], changed, *genome[number + 1 :])


@functools.lru_cache(maxsize=2**16)
def canonical(genome: Genome) -> Blocks:
  """The graph of a genome: equal for genomes that make the same model.

  Without blocks that read nothing (of the live), and in an order that follows
  from the graph alone: by depth, then by what a block is, reads and is read by;
  of orders that these leave open, that of the least description.
  """
  live: dict[int, Block] = {}
  for number, gene in enumerate(genome):
    inputs = [one for one in interactions.GROUPS if getattr(gene, one)]
    inputs += [n for n in live if gene.skips[n]]
    if inputs:
      width = gene.width if gene.type == 'mlp' else 0
      live[number] = Block(gene.type, tuple(inputs), width)
  return _least(live)


def _least(blocks: Mapping[int, Block]) -> Blocks:
  """Blocks, by any increasing numbers, in their canonical order."""
  reads = {n: {i for i in b.inputs if i in blocks} for n, b in blocks.items()}
  read_by = {n: {m for m in blocks if n in reads[m]} for n in blocks}
  depth: dict[int, int] = {}
  for n in blocks:
    depth[n] = 1 + max((depth[i] for i in reads[n]), default=-1)
  colours = _ranks(
    {
      n: (
        depth[n],
        b.type,
        b.width,
        *(g in b.inputs for g in interactions.GROUPS),
      )
      for n, b in blocks.items()
    }
  )
  for _ in blocks:  # Blocks differ if anything that they are joined to does.
    around = {
      n: [sorted(colours[i] for i in joined[n]) for joined in (reads, read_by)]
      for n in blocks
    }
    colours = _ranks({n: (colours[n], *map(tuple, around[n])) for n in blocks})
  ties = [
    [n for n in blocks if colours[n] == colour]
    for colour in sorted(set(colours.values()))
  ]

  def orders(tie):
    # Twins can be exchanged for one another: one order is enough.
    if len({(frozenset(reads[n]), frozenset(read_by[n])) for n in tie}) == 1:
      return [tie]
    return itertools.permutations(tie)

  def described(order):
    place = {n: i for i, n in enumerate(order)}
    return tuple(
      Block(
        blocks[n].type,
        (
          *(g for g in interactions.GROUPS if g in blocks[n].inputs),
          *sorted(place[i] for i in reads[n]),
        ),
        blocks[n].width,
      )
      for n in order
    )

  found = (
    described(tuple(itertools.chain(*parts)))
    for parts in itertools.product(*map(orders, ties))
  )
  return min(found, key=lambda own: [tuple(map(str, b.inputs)) for b in own])


def _ranks(keys: Mapping[int, Any]) -> dict[int, int]:
  order = sorted(set(keys.values()))
  return {n: order.index(key) for n, key in keys.items()}


def encode(genome: Genome, tokens: Tokens) -> np.ndarray:
  """What the ranker sees of a genome: float [blocks * (types + blocks + 3)].

  Per block the type, one-hot; both groups; the skips; the number of its width.
  """
  return np.array(
    [
      value
      for gene in genome
      for value in (
        *(gene.type == one for one in tokens.types),
        gene.values,
        gene.vectors,
        *gene.skips,
        tokens.widths.index(gene.width),
      )
    ],
    np.float64,
  )


def describe(blocks: Sequence[Block]) -> str:
  """A graph in a line: '0 fm(vectors); 1 mlp64(values, 0)'."""
  return '; '.join(
    f'{number} {block.type}{block.width or ""}'
    f'({", ".join(map(str, block.inputs))})'
    for number, block in enumerate(blocks)
  )
