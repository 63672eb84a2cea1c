"""Flax modules; none knows that it is searched."""

from jax_autorec.nn import (
  blocks,
  embeddings,
  field_choices,
  groups,
  initializers,
  interactions,
  model,
  products,
  quantizers,
  row_chains,
)

__all__ = [
  'blocks',
  'embeddings',
  'field_choices',
  'groups',
  'initializers',
  'interactions',
  'model',
  'products',
  'quantizers',
  'row_chains',
]
