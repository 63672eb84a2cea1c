"""Flax modules; none knows that it is searched."""

from jax_autorec.nn import (
  attention,
  block_graph,
  blocks,
  crosses,
  embeddings,
  field_choices,
  groups,
  initializers,
  interactions,
  model,
  numeric,
  pairs,
  products,
  quantizers,
  row_chains,
  towers,
)

__all__ = [
  'attention',
  'block_graph',
  'blocks',
  'crosses',
  'embeddings',
  'field_choices',
  'groups',
  'initializers',
  'interactions',
  'model',
  'numeric',
  'pairs',
  'products',
  'quantizers',
  'row_chains',
  'towers',
]
