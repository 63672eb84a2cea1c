"""Self-attention over the fields of a row."""

from collections.abc import Mapping, Sequence
import functools
import math

import flax.linen as nn
import jax.numpy as jnp

from jax_autorec import interactions as plans
from jax_autorec.fields import FieldPlan
from jax_autorec.nn import blocks
from jax_autorec.types import Array


class SelfAttention(nn.Module):
  """Layers of multi-head self-attention; see `interactions.SelfAttention`.

  In shapes: B batch, F fields, D common width, S size, H heads.

  Attributes:
    plan: of the interaction.
    fields: of the architecture.
    axis_name: replica axis; None except under `pmap`.
  """

  plan: plans.SelfAttention
  fields: Sequence[FieldPlan]
  axis_name: str | None = None

  @nn.compact
  def __call__(
    self, views: Mapping[str, Array], mask: Array, *, train: bool
  ) -> Array:
    """View 'main' [B, F, D] -> [B] to the logit, else [B, F * S]."""
    del mask
    x = views['main']
    for i in range(self.plan.layers):
      x = self._layer(i, x, train)
    flat = x.reshape(x.shape[0], x.shape[1] * x.shape[2])
    if self.plan.to != 'logit':
      return flat
    init = nn.initializers.xavier_normal()
    return nn.Dense(1, kernel_init=init, name='output')(flat)[:, 0]

  def _layer(self, i, x, train):
    """One layer: [B, F, D] -> [B, F, S]."""
    plan, (batch_size, count, dim) = self.plan, x.shape
    dense = functools.partial(
      nn.Dense,
      plan.size,
      use_bias=False,
      kernel_init=nn.initializers.xavier_normal(),
    )
    dropout = lambda x, name: blocks.Dropout(
      plan.dropout, self.axis_name, name=f'{name}_{i}'
    )(x.reshape(batch_size, math.prod(x.shape[1:])), train=train).reshape(
      x.shape
    )
    query, key, value = (
      dense(name=f'{name}_{i}')(x).reshape(
        batch_size, count, plan.heads, plan.size // plan.heads
      )
      for name in ('query', 'key', 'value')
    )
    scores = jnp.einsum('bfha,bgha->bhfg', query, key)
    if plan.scale:
      scores = scores / (plan.size // plan.heads) ** 0.5
    weights = dropout(nn.softmax(scores), 'dropout_weights')
    out = jnp.einsum('bhfg,bgha->bfha', weights, value)
    out = dropout(out.reshape(batch_size, count, plan.size), 'dropout')
    rest = x if dim == plan.size else dense(name=f'residual_{i}')(x)
    out = out + rest
    if plan.layer_norm:
      out = nn.LayerNorm(epsilon=1e-5, name=f'norm_{i}')(out)
    return nn.relu(out)
