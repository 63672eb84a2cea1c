"""Self-attention over the fields of a row."""

import dataclasses
from typing import ClassVar

from jax_autorec.interactions import base


@dataclasses.dataclass(frozen=True)
class SelfAttention(base.Interaction):
  """Layers of self-attention over fields (AutoInt; Song et al., CIKM 2019).

  relu(norm(attention + x W)); W is left out where widths are equal, as in the
  BARS benchmark; the paper has it in every layer.

  Attributes:
    layers: how many.
    heads: of each layer.
    size: width of a field after a layer, all heads together.
    scale: whether scores are divided by the root of a head's width.
    layer_norm: whether a layer ends with layer normalisation, before relu.
    dropout: share of attention's weights, and of its output, that training
      drops.
    to: 'logit': through a linear map with an offset; else [B, F * size].
  """

  kind: ClassVar[str] = 'self_attention'
  name: str = 'attention'
  layers: int = 2
  heads: int = 2
  size: int = 32
  scale: bool = True
  layer_norm: bool = False
  dropout: float = 0.0
  to: str = 'logit'

  def __post_init__(self):
    base.check_target(self, *base.TARGETS)
    base.check_sizes(self, 'layers', [self.layers])
    base.check_sizes(self, 'heads', [self.heads])
    base.check_divides(self, self.heads, [self.size])
    base.check_dropout(self, self.dropout)

  @property
  def has_offset(self):
    return self.to == 'logit'
