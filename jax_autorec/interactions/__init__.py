"""Explicit interactions of fields, as plain data."""

from jax_autorec.interactions.attention import SelfAttention
from jax_autorec.interactions.base import (
  FIRST_ORDER,
  MAIN,
  NORMS,
  NUMBERS,
  TARGETS,
  VALUES,
  Interaction,
  View,
  join,
)
from jax_autorec.interactions.crosses import (
  Compressed,
  Cross,
  Polynomial,
)
from jax_autorec.interactions.graphs import BLOCKS, GROUPS, Block, BlockGraph
from jax_autorec.interactions.groups import Groups
from jax_autorec.interactions.pairs import (
  AttentionalPooling,
  Bilinear,
  FieldAware,
  FieldMatrixed,
  FieldWeighted,
)
from jax_autorec.interactions.products import (
  FactorizationMachine,
  Products,
  has_open_gates,
)
from jax_autorec.interactions.towers import (
  MaskBlocks,
  NumbersAndVectors,
  TwoTowers,
)

KINDS: dict[str, type[Interaction]] = {
  cls.kind: cls
  for cls in (
    FactorizationMachine,
    Products,
    FieldAware,
    FieldWeighted,
    FieldMatrixed,
    AttentionalPooling,
    Bilinear,
    Polynomial,
    Cross,
    Compressed,
    SelfAttention,
    MaskBlocks,
    TwoTowers,
    NumbersAndVectors,
    BlockGraph,
    Groups,
  )
}

__all__ = [
  'BLOCKS',
  'FIRST_ORDER',
  'GROUPS',
  'KINDS',
  'MAIN',
  'NORMS',
  'NUMBERS',
  'TARGETS',
  'VALUES',
  'AttentionalPooling',
  'Bilinear',
  'Block',
  'BlockGraph',
  'Compressed',
  'Cross',
  'FactorizationMachine',
  'FieldAware',
  'FieldMatrixed',
  'FieldWeighted',
  'Groups',
  'Interaction',
  'MaskBlocks',
  'NumbersAndVectors',
  'Polynomial',
  'Products',
  'SelfAttention',
  'TwoTowers',
  'View',
  'has_open_gates',
  'join',
]
