"""Flax modules; none knows that it is searched."""

from jax_autorec.nn import (
  blocks,
  embeddings,
  field_choices,
  initializers,
  interactions,
  model,
  numeric,
  quantizers,
  row_chains,
)

__all__ = [
  'blocks',
  'embeddings',
  'field_choices',
  'initializers',
  'interactions',
  'model',
  'numeric',
  'quantizers',
  'row_chains',
]
