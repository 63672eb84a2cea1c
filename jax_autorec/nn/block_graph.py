"""Graphs of blocks: the search space of AutoCTR (Song et al., KDD 2020).

What flows between blocks is a vector per row, 'flat', [B, K], or several of the
common width, [B, n, D]: those of fields and of attention. A block that wants
vectors brings all its flat inputs together into one more of them, by one
linear map; a block that wants a flat input lays vectors side by side.
"""

from collections.abc import Mapping, Sequence
import itertools
import math

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from jax_autorec.interactions import Block
from jax_autorec.nn import products
from jax_autorec.types import Array

_INIT = nn.initializers.xavier_normal()


def _flat(inputs: Sequence[Array]) -> Array:
  """Joins [B, K] and [B, n, D] to [B, K']."""
  parts = [x.reshape(len(x), math.prod(x.shape[1:])) for x in inputs]
  return parts[0] if len(parts) == 1 else jnp.concatenate(parts, 1)


def _vectors(inputs: Sequence[Array], dim: int) -> Array:
  """Joins them to [B, n, D]; called in a module, whose map 'project' is."""
  parts = [x for x in inputs if x.ndim == 3]
  flat = [x for x in inputs if x.ndim == 2]
  if flat:
    project = nn.Dense(dim, kernel_init=_INIT, name='project')
    parts.insert(0, project(_flat(flat))[:, None])
  return parts[0] if len(parts) == 1 else jnp.concatenate(parts, 1)


class Hidden(nn.Module):
  """One linear layer and relu: inputs -> [B, width].

  Attributes:
    width: of the layer.
  """

  width: int

  @nn.compact
  def __call__(self, inputs: Sequence[Array]) -> Array:
    return nn.relu(nn.Dense(self.width, kernel_init=_INIT)(_flat(inputs)))


class FactorizationMachine(nn.Module):
  """A trained weight per input, and the sum of all products: -> [B, 1].

  Attributes:
    dim: common width of vectors.
  """

  dim: int

  @nn.compact
  def __call__(self, inputs: Sequence[Array]) -> Array:
    linear = nn.Dense(1, use_bias=False, kernel_init=_INIT, name='first_order')
    first = linear(_flat(inputs))
    return first + products.fm_sum(_vectors(inputs, self.dim))[:, None]


class DotProducts(nn.Module):
  """Inner products of all pairs, then all squares: -> [B, n (n + 1) / 2].

  The triangle of the Gram matrix. The official code takes as many entries from
  the matrix's start instead: of 27 vectors it has 91 pairs twice and lacks 91
  others.

  Attributes:
    dim: common width of vectors.
  """

  dim: int

  @nn.compact
  def __call__(self, inputs: Sequence[Array]) -> Array:
    vectors = _vectors(inputs, self.dim)
    squares = jnp.square(vectors).sum(-1)
    pairs = list(itertools.combinations(range(vectors.shape[1]), 2))
    if not pairs:
      return squares
    found = products.pair_products(vectors, np.array(pairs))
    return jnp.concatenate([found, squares], 1)


class Cross(nn.Module):
  """A layer of CrossNet, x (w . x) + b + x: -> [B, K] (Wang et al., 2017)."""

  @nn.compact
  def __call__(self, inputs: Sequence[Array]) -> Array:
    x = _flat(inputs)
    scale = nn.Dense(1, use_bias=False, kernel_init=_INIT, name='scale')(x)
    bias = self.param('bias', nn.initializers.zeros, (x.shape[1],), x.dtype)
    return x * scale + bias[None] + x


class Attention(nn.Module):
  """Self-attention of one head (AutoInt: Song et al., 2019): -> [B, n, D].

  relu(softmax(Q K^T / sqrt(D)) V + R). One head as wide as the vectors, so that
  what comes out is of the common width; AutoInt's heads are wider.

  Attributes:
    dim: common width of vectors.
  """

  dim: int

  @nn.compact
  def __call__(self, inputs: Sequence[Array]) -> Array:
    vectors = _vectors(inputs, self.dim)
    query, key, value, residual = (
      nn.Dense(self.dim, use_bias=False, kernel_init=_INIT, name=name)(vectors)
      for name in ('query', 'key', 'value', 'residual')
    )
    scores = jnp.einsum('bid,bjd->bij', query, key) / self.dim**0.5
    mixed = jnp.einsum('bij,bjd->bid', nn.softmax(scores), value)
    return nn.relu(mixed + residual)


_MODULES = {
  'fm': FactorizationMachine,
  'dp': DotProducts,
  'attention': Attention,
}


def _module(block: Block, dim: int, name: str) -> nn.Module:
  if block.type == 'mlp':
    return Hidden(block.width, name=name)
  if block.type == 'cross':
    return Cross(name=name)
  return _MODULES[block.type](dim, name=name)


class BlockGraph(nn.Module):
  """Runs the blocks and joins what none of them reads.

  Attributes:
    blocks: in an order in which each reads earlier ones alone.
    ends: groups and blocks that are the output, in order.
    dim: common width of vectors; that of `groups` goes before it.
  """

  blocks: tuple[Block, ...]
  ends: tuple[str | int, ...]
  dim: int = 16

  @nn.compact
  def __call__(self, groups: Mapping[str, Array]) -> Array:
    """Maps groups of fields to the output.

    Args:
      groups: 'values' [B, N] of numeric fields, 'vectors' [B, F, D] of
        categorical ones; those that there are.

    Returns:
      [B, K].
    """
    known: dict[str | int, Array] = dict(groups)
    dim = groups['vectors'].shape[-1] if 'vectors' in groups else self.dim
    for number, block in enumerate(self.blocks):
      inputs = [known[one] for one in block.inputs]
      known[number] = _module(block, dim, f'block_{number}')(inputs)
    return _flat([known[one] for one in self.ends])
