"""Flax modules; none knows that it is searched."""

from jax_autorec.nn import (
  block_graph,
  blocks,
  embeddings,
  field_choices,
  initializers,
  interactions,
  model,
  products,
  quantizers,
  row_chains,
)

__all__ = [
  'block_graph',
  'blocks',
  'embeddings',
  'field_choices',
  'initializers',
  'interactions',
  'model',
  'products',
  'quantizers',
  'row_chains',
]
