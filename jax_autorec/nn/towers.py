"""Interactions made of MLPs: mask blocks, two towers, numbers beside vectors.

In shapes: B batch, F fields, D common width.
"""

from collections.abc import Mapping, Sequence
import functools
import itertools

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from jax_autorec import fields as fields_lib
from jax_autorec import interactions as plans
from jax_autorec.fields import FieldPlan
from jax_autorec.nn import blocks, products
from jax_autorec.types import Array

_XAVIER = nn.initializers.xavier_normal()


class MaskBlocks(nn.Module):
  """Layers with masked inputs; see `interactions.MaskBlocks`.

  Attributes:
    plan: of the interaction.
    fields: of the architecture.
    axis_name: replica axis; None except under `pmap`.
  """

  plan: plans.MaskBlocks
  fields: Sequence[FieldPlan]
  axis_name: str | None = None

  @nn.compact
  def __call__(
    self, views: Mapping[str, Array], mask: Array, *, train: bool
  ) -> Array:
    """View 'main' [B, F, D] -> [B, last size], or all sizes if parallel."""
    del mask
    plan, vectors = self.plan, views['main']
    batch_size, count, dim = vectors.shape
    flat = vectors.reshape(batch_size, count * dim)
    first = flat
    if plan.norm_vectors:
      # Moments of each vector, a scale and an offset of each field.
      norm = nn.LayerNorm(
        epsilon=1e-5, reduction_axes=-1, feature_axes=(-2, -1), name='norm'
      )
      first = norm(vectors).reshape(batch_size, count * dim)
    outputs, x = [], first
    for i, size in enumerate(plan.sizes):
      x = self._block(i, size, flat, x, train)
      outputs.append(x)
      x = x if plan.mode == 'serial' else first
    return outputs[-1] if plan.mode == 'serial' else jnp.concatenate(outputs, 1)

  def _block(self, i, size, flat, x, train):
    plan, width = self.plan, x.shape[1]
    dense = functools.partial(nn.Dense, kernel_init=_XAVIER)
    mask = nn.relu(dense(int(width * plan.reduction), name=f'mask_{i}')(flat))
    mask = dense(width, name=f'mask_output_{i}')(mask)
    x = dense(size, use_bias=False, name=f'dense_{i}')(mask * x)
    if plan.layer_norm:
      x = nn.LayerNorm(epsilon=1e-5, name=f'norm_{i}')(x)
    dropout = blocks.Dropout(plan.dropout, self.axis_name, name=f'dropout_{i}')
    return dropout(nn.relu(x), train=train)


class TwoTowers(nn.Module):
  """Two gated MLPs and their products; see `interactions.TwoTowers`.

  Attributes:
    plan: of the interaction.
    fields: of the architecture.
    axis_name: replica axis; None except under `pmap`.
  """

  plan: plans.TwoTowers
  fields: Sequence[FieldPlan]
  axis_name: str | None = None

  @nn.compact
  def __call__(
    self, views: Mapping[str, Array], mask: Array, *, train: bool
  ) -> Array:
    """View 'main' [B, F, D], and those of contexts [B, F', D] -> [B]."""
    plan, vectors = self.plan, views['main']
    batch_size, count, dim = vectors.shape
    flat = vectors.reshape(batch_size, count * dim)
    outputs = []
    for i in range(2):
      tower = blocks.MLP(
        plan.hidden[i],
        plan.norm,
        plan.dropout[i],
        axis_name=self.axis_name,
        outputs=0,
        name=f'tower_{i}',
      )
      gated = flat
      if plan.gate_hidden is not None:
        gated = flat * self._gate(i, views, mask, count * dim, dim)
      outputs.append(tower(gated, mask, train=train))
    dense = functools.partial(nn.Dense, 1, kernel_init=_XAVIER)
    logits = sum(
      dense(name=f'output_{i}')(x)[:, 0] for i, x in enumerate(outputs)
    )
    left, right = (
      x.reshape(batch_size, plan.heads, x.shape[1] // plan.heads)
      for x in outputs
    )
    shape = (plan.heads, left.shape[2], right.shape[2])
    kernel = self.param('products', _XAVIER, (np.prod(shape), 1), jnp.float32)
    mapped = jnp.einsum('bhi,hij->bhj', left, kernel.reshape(shape))
    return logits + (mapped * right).sum((1, 2))

  def _gate(self, i, views, mask, width, dim):
    """Factors of the flat vectors, [B, F * D] or, without context, of one."""
    name = self.plan.context_views[i]
    if self.plan.contexts[i]:
      _, count, _ = views[name].shape
      context = views[name].reshape(len(mask), count * dim)
    else:
      zeros = nn.initializers.zeros
      context = self.param(f'context_{i}', zeros, (1, dim), jnp.float32)
    gate = blocks.MLP(self.plan.gate_hidden, outputs=width, name=f'gate_{i}')
    # Neither normalisation nor dropout: the mask is not read.
    return 2 * nn.sigmoid(gate(context, mask, train=False))


def of_ids(vectors: Array, fields: Sequence[FieldPlan]) -> Array:
  """Vectors of categorical fields alone: 'main' [B, F, D] -> [B, C, D].

  It may have those of numeric fields, which others read.

  Args:
    vectors: the view.
    fields: of the architecture.
  """
  is_id = [f.kind == 'categorical' for f in fields_lib.with_vectors(fields)]
  if vectors.shape[1] < len(is_id) or all(is_id):
    return vectors
  return vectors[:, np.flatnonzero(is_id)]


class NumbersAndVectors(nn.Module):
  """DLRM's interaction; see `interactions.NumbersAndVectors`.

  Attributes:
    plan: of the interaction.
    fields: of the architecture.
    axis_name: replica axis; None except under `pmap`.
  """

  plan: plans.NumbersAndVectors
  fields: Sequence[FieldPlan]
  axis_name: str | None = None

  @nn.compact
  def __call__(
    self, views: Mapping[str, Array], mask: Array, *, train: bool
  ) -> Array:
    """Views 'main' [B, F, D], 'values' [B, N] if there are any -> [B, K].

    K is the number of pairs, and D where there are numbers; F * D and D for
    'cat'. 'main' may have numeric fields that others read; they are left out.
    """
    plan, vectors = self.plan, of_ids(views['main'], self.fields)
    batch_size, _, dim = vectors.shape
    beside = []
    if 'values' in views:
      bottom = blocks.MLP(
        plan.hidden,
        plan.norm,
        plan.dropout,
        axis_name=self.axis_name,
        outputs=dim,
        name='bottom',
      )
      numbers = nn.relu(bottom(views['values'], mask, train=train))
      beside = [numbers]
      vectors = jnp.concatenate([vectors, numbers[:, None]], 1)
    count = vectors.shape[1]
    if plan.product == 'cat':
      return vectors.reshape(batch_size, count * dim)
    pairs = np.array(list(itertools.combinations(range(count), 2)))
    dots = products.pair_products(vectors, pairs)
    return jnp.concatenate([dots, *beside], 1)
