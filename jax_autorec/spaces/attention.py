"""Base models with self-attention over fields."""

from collections.abc import Sequence

from jax_autorec import architecture as arch_lib
from jax_autorec import interactions
from jax_autorec import schema as schema_lib
from jax_autorec.spaces import parts


def autoint(
  schema: schema_lib.Schema,
  *,
  dim: int = 10,
  pooling: str = 'mean',
  numeric: parts.Numeric = None,
  layers: int = 6,
  heads: int = 4,
  size: int = 128,
  scale: bool = False,
  layer_norm: bool = False,
  wide: bool = False,
  dropout: float = 0.0,
) -> arch_lib.Architecture:
  """Self-attention over fields (AutoInt; Song et al., CIKM 2019).

  Args:
    schema: fitted schema.
    dim: embedding width.
    pooling: of multi-valued fields, 'mean' or 'sum' over a row's values.
    numeric: how numbers become vectors, see `jax_autorec.numeric`: one for all
      numeric fields, or by name.
    layers: of attention.
    heads: of each layer.
    size: width of a field after a layer, all heads together.
    scale: whether scores are divided by the root of a head's width.
    layer_norm: whether layers end with layer normalisation, before relu.
    wide: whether there are first-order weights.
    dropout: of attention's weights and outputs.
  """
  plan = interactions.SelfAttention(
    layers=layers,
    heads=heads,
    size=size,
    scale=scale,
    layer_norm=layer_norm,
    dropout=dropout,
  )
  head = arch_lib.HeadPlan(first_order=wide)
  return parts.model(schema, dim, pooling, numeric, [plan], head)


def autoint_plus(
  schema: schema_lib.Schema,
  *,
  dim: int = 10,
  pooling: str = 'mean',
  numeric: parts.Numeric = None,
  layers: int = 5,
  heads: int = 4,
  size: int = 128,
  scale: bool = True,
  layer_norm: bool = True,
  wide: bool = False,
  hidden: Sequence[int] = (400, 400, 400),
  norm: str = 'batch',
  dropout: float = 0.1,
) -> arch_lib.Architecture:
  """AutoInt+: self-attention beside an MLP (Song et al., CIKM 2019).

  Args:
    schema: fitted schema.
    dim: embedding width.
    pooling: of multi-valued fields, 'mean' or 'sum' over a row's values.
    numeric: how numbers become vectors, see `jax_autorec.numeric`: one for all
      numeric fields, or by name.
    layers: of attention.
    heads: of each layer.
    size: width of a field after a layer, all heads together.
    scale: whether scores are divided by the root of a head's width.
    layer_norm: whether layers end with layer normalisation, before relu.
    wide: whether there are first-order weights.
    hidden: widths of the MLP's hidden layers.
    norm: 'none', 'batch' or 'layer', before each activation.
    dropout: share of hidden units, and of attention's weights and outputs, that
      training drops, in [0, 1).
  """
  plan = interactions.SelfAttention(
    layers=layers,
    heads=heads,
    size=size,
    scale=scale,
    layer_norm=layer_norm,
    dropout=dropout,
  )
  head = parts.mlp(hidden, norm, dropout, first_order=wide)
  return parts.model(schema, dim, pooling, numeric, [plan], head)
