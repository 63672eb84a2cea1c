"""Interactions of rising order: polynomials, cross layers, CIN.

In shapes: B batch, F fields, D common width.
"""

from collections.abc import Mapping, Sequence

import flax.linen as nn
import jax.numpy as jnp

from jax_autorec import interactions as plans
from jax_autorec.fields import FieldPlan
from jax_autorec.types import Array

_XAVIER = nn.initializers.xavier_normal()


def elementary_symmetric(vectors: Array, order: int) -> Array:
  """Products of all sets of `order` vectors, summed: [B, F, D] -> [B, D].

  By Newton's identities from the sums of powers p_k: e_k = (1 / k) sum over
  i = 1 ... k of (-1)^(i - 1) e_(k - i) p_i. Terms cancel, so that small sums
  of many large products lose digits.
  """
  sums, power = [], vectors
  for _ in range(order):
    sums.append(power.sum(1))
    power = power * vectors
  found = [jnp.ones_like(sums[0])]
  for k in range(1, order + 1):
    signed = [
      (-1.0) ** (i - 1) * found[k - i] * sums[i - 1] for i in range(1, k + 1)
    ]
    found.append(sum(signed) / k)
  return found[order]


class Polynomial(nn.Module):
  """Symmetric polynomial of the fields; see `interactions.Polynomial`.

  Attributes:
    plan: of the interaction.
    fields: of the architecture.
    axis_name: replica axis; None except under `pmap`.
  """

  plan: plans.Polynomial
  fields: Sequence[FieldPlan]
  axis_name: str | None = None

  def __call__(
    self, views: Mapping[str, Array], mask: Array, *, train: bool
  ) -> Array:
    """The plan's view [B, F, D] -> [B] to the logit, else [B, D]."""
    del mask, train
    (view,) = self.plan.views(self.fields)
    found = elementary_symmetric(views[view.name], self.plan.order)
    return found.sum(1) if self.plan.to == 'logit' else found


class Cross(nn.Module):
  """Cross layers; see `interactions.Cross`.

  Attributes:
    plan: of the interaction.
    fields: of the architecture.
    axis_name: replica axis; None except under `pmap`.
  """

  plan: plans.Cross
  fields: Sequence[FieldPlan]
  axis_name: str | None = None

  @nn.compact
  def __call__(
    self, views: Mapping[str, Array], mask: Array, *, train: bool
  ) -> Array:
    """View 'main' [B, F, D] -> [B, F * D]."""
    del mask, train
    batch_size, count, dim = views['main'].shape
    width = count * dim
    first = x = views['main'].reshape(batch_size, width)
    for i in range(self.plan.layers):
      zeros = nn.initializers.zeros
      bias = self.param(f'bias_{i}', zeros, (width,), jnp.float32)[None]
      if self.plan.weights == 'vector':
        kernel = self.param(f'kernel_{i}', _XAVIER, (width, 1), jnp.float32)
        x = first * (x @ kernel) + bias + x
      else:
        kernel = self.param(f'kernel_{i}', _XAVIER, (width, width), jnp.float32)
        x = first * (x @ kernel + bias) + x
    return x


class Compressed(nn.Module):
  """Compressed interaction network; see `interactions.Compressed`.

  Attributes:
    plan: of the interaction.
    fields: of the architecture.
    axis_name: replica axis; None except under `pmap`.
  """

  plan: plans.Compressed
  fields: Sequence[FieldPlan]
  axis_name: str | None = None

  @nn.compact
  def __call__(
    self, views: Mapping[str, Array], mask: Array, *, train: bool
  ) -> Array:
    """View 'main' [B, F, D] -> [B] to the logit, else [B, sum of sizes]."""
    del mask, train
    first = x = views['main']
    batch_size, count, dim = first.shape
    # A convolution's kernel by the reference code's default, U(+-1 / sqrt(K));
    # its offsets start at 0 here, as all others do.
    init = nn.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform')
    pooled = []
    for i, size in enumerate(self.plan.sizes):
      inputs = x.shape[1] * count
      kernel = self.param(f'kernel_{i}', init, (inputs, size), jnp.float32)
      zeros = nn.initializers.zeros
      bias = self.param(f'bias_{i}', zeros, (size,), jnp.float32)
      products = x[:, :, None] * first[:, None]
      products = products.reshape(batch_size, inputs, dim)
      x = jnp.einsum('bkd,kh->bhd', products, kernel) + bias[None, :, None]
      pooled.append(x.sum(2))
    pooled = jnp.concatenate(pooled, 1)
    if self.plan.to != 'logit':
      return pooled
    return nn.Dense(1, kernel_init=_XAVIER, name='output')(pooled)[:, 0]
