"""Interactions of all pairs of fields, each pair with weights of its own.

In shapes: B batch, F fields, D common width, P = F (F - 1) / 2 pairs i < j in
the order of `itertools.combinations`. No module loops over pairs: weights of
pairs are laid out as one [F, F] matrix, zero from its diagonal down, or
both sides of all pairs are gathered at once.
"""

from collections.abc import Mapping, Sequence
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jax_autorec import interactions as plans
from jax_autorec.fields import FieldPlan
from jax_autorec.nn import blocks
from jax_autorec.types import Array

_XAVIER = nn.initializers.xavier_normal()


def _upper(weights: Array, num_fields: int) -> Array:
  """Weights of pairs [P, ...] as a matrix, zeros elsewhere: [F, F, ...]."""
  left, right = np.triu_indices(num_fields, 1)
  rest = weights.shape[1:]
  flat = jnp.zeros((num_fields**2, *rest), weights.dtype)
  places = left * num_fields + right
  flat = flat.at[places].set(weights, unique_indices=True)
  return flat.reshape(num_fields, num_fields, *rest)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _take(places: tuple[int, ...], vectors: Array) -> Array:
  """Vectors of some fields: [B, F, D] -> [B, len(places), D]."""
  return vectors[:, np.array(places, np.int32)]


@_take.defjvp
def _take_jvp(places, primals, tangents):
  # The same as a matrix product, so that its transpose is one too: a gather's
  # is a scatter, which adds element by element on CPU.
  (vectors,), (tangent,) = primals, tangents
  chosen = np.eye(vectors.shape[1], dtype=vectors.dtype)[list(places)]
  taken = jnp.einsum(
    'pf,bfd->bpd', chosen, tangent, precision=jax.lax.Precision.HIGHEST
  )
  return _take(places, vectors), taken


def sides(left: Array, right: Array) -> tuple[Array, Array]:
  """Both sides of all pairs: left, right [B, F, D] -> [B, P, D] twice."""
  first, second = np.triu_indices(left.shape[1], 1)
  return (
    _take(tuple(first.tolist()), left),
    _take(tuple(second.tolist()), right),
  )


class FieldAware(nn.Module):
  """Field-aware products; see `interactions.FieldAware`.

  Attributes:
    plan: of the interaction.
    fields: of the architecture.
    axis_name: replica axis; None except under `pmap`.
  """

  plan: plans.FieldAware
  fields: Sequence[FieldPlan]
  axis_name: str | None = None

  def __call__(
    self, views: Mapping[str, Array], mask: Array, *, train: bool
  ) -> Array:
    """Views 'field_aware' [B, F, (F - 1) * D] -> [B]."""
    del mask, train
    vectors = views['field_aware']
    batch_size, count, width = vectors.shape
    dim = width // (count - 1)
    # Row by row, a matrix without its diagonal is F - 1 stretches of F entries,
    # each followed by a diagonal entry; the first stands before all.
    apart = vectors.reshape(batch_size, count - 1, count, dim)
    apart = jnp.pad(apart, ((0, 0), (0, 0), (0, 1), (0, 0)))
    flat = apart.reshape(batch_size, count**2 - 1, dim)
    square = jnp.pad(flat, ((0, 0), (1, 0), (0, 0)))
    square = square.reshape(batch_size, count, count, dim)
    return 0.5 * (square * square.swapaxes(1, 2)).sum((1, 2, 3))


class FieldWeighted(nn.Module):
  """Products with a weight per pair; see `interactions.FieldWeighted`.

  Attributes:
    plan: of the interaction.
    fields: of the architecture.
    axis_name: replica axis; None except under `pmap`.
  """

  plan: plans.FieldWeighted
  fields: Sequence[FieldPlan]
  axis_name: str | None = None

  @nn.compact
  def __call__(
    self, views: Mapping[str, Array], mask: Array, *, train: bool
  ) -> Array:
    """Views 'main' [B, F, D], 'linear' the same if read -> [B]."""
    del mask, train
    vectors = views['main']
    _, count, dim = vectors.shape
    weights = self.param('weights', _XAVIER, (count * (count - 1) // 2, 1))
    matrix = _upper(weights[:, 0], count)
    total = jnp.einsum('bfd,fg->bgd', vectors, matrix) * vectors
    if self.plan.linear == 'felv':
      total = total + vectors * views['linear']
    if self.plan.linear == 'filv':
      linear = self.param('linear', _XAVIER, (count * dim, 1))
      total = total + vectors * linear.reshape(1, count, dim)
    return total.sum((1, 2))


class FieldMatrixed(nn.Module):
  """Products through a matrix per pair; see `interactions.FieldMatrixed`.

  Full matrices are blocks of one [F * D, F * D], zero from its diagonal down:
  twice the arithmetic of P small products, and many times faster as one.

  Attributes:
    plan: of the interaction.
    fields: of the architecture.
    axis_name: replica axis; None except under `pmap`.
  """

  plan: plans.FieldMatrixed
  fields: Sequence[FieldPlan]
  axis_name: str | None = None

  @nn.compact
  def __call__(
    self, views: Mapping[str, Array], mask: Array, *, train: bool
  ) -> Array:
    """View 'main' [B, F, D] -> [B]."""
    del mask, train
    vectors = views['main']
    batch_size, count, dim = vectors.shape
    num_pairs = count * (count - 1) // 2
    if self.plan.matrices == 'vectorized':
      diagonals = self.param('matrices', _XAVIER, (num_pairs, dim))
      matrix = _upper(diagonals, count)
      total = jnp.einsum('bfd,fgd->bgd', vectors, matrix) * vectors
      return total.sum((1, 2))
    # The reference code draws [P, D, D] as a convolution's kernel, at a
    # smaller scale the more pairs there are; here each is a matrix.
    init = nn.initializers.xavier_normal(in_axis=1, out_axis=2, batch_axis=0)
    matrices = self.param('matrices', init, (num_pairs, dim, dim))
    matrix = _upper(matrices, count).swapaxes(1, 2)
    flat = vectors.reshape(batch_size, count * dim)
    return ((flat @ matrix.reshape(count * dim, count * dim)) * flat).sum(1)


class AttentionalPooling(nn.Module):
  """Products pooled by attention; see `interactions.AttentionalPooling`.

  Attributes:
    plan: of the interaction.
    fields: of the architecture.
    axis_name: replica axis; None except under `pmap`.
  """

  plan: plans.AttentionalPooling
  fields: Sequence[FieldPlan]
  axis_name: str | None = None

  @nn.compact
  def __call__(
    self, views: Mapping[str, Array], mask: Array, *, train: bool
  ) -> Array:
    """View 'main' [B, F, D] -> [B]."""
    del mask
    plan, vectors = self.plan, views['main']
    left, right = sides(vectors, vectors)
    products = left * right
    if not plan.attention:
      return products.sum((1, 2))
    dense = functools.partial(nn.Dense, kernel_init=_XAVIER)
    hidden = nn.relu(dense(plan.size, name='attention')(products))
    scores = dense(1, use_bias=False, name='scores')(hidden)[..., 0]
    weights = nn.softmax(scores)
    dropout = lambda name: blocks.Dropout(
      plan.dropout, self.axis_name, name=name
    )
    weights = dropout('dropout_weights')(weights, train=train)
    pooled = jnp.einsum('bp,bpd->bd', weights, products)
    pooled = dropout('dropout_pooled')(pooled, train=train)
    return dense(1, use_bias=False, name='output')(pooled)[:, 0]


class Bilinear(nn.Module):
  """Bilinear products of all pairs; see `interactions.Bilinear`.

  Attributes:
    plan: of the interaction.
    fields: of the architecture.
    axis_name: replica axis; None except under `pmap`.
  """

  plan: plans.Bilinear
  fields: Sequence[FieldPlan]
  axis_name: str | None = None

  @nn.compact
  def __call__(
    self, views: Mapping[str, Array], mask: Array, *, train: bool
  ) -> Array:
    """View 'main' [B, F, D] -> [B, 2 * P * D], plain vectors' first."""
    del mask, train
    plan, vectors = self.plan, views['main']
    batch_size, count, dim = vectors.shape
    num_pairs = count * (count - 1) // 2
    shape = {'all': (), 'each': (count,), 'pair': (num_pairs,)}[plan.matrices]
    init = nn.initializers.xavier_normal(batch_axis=tuple(range(len(shape))))
    matrices = self.param('matrices', init, (*shape, dim, dim))
    variants = [vectors]
    if plan.reduction:
      hidden = max(1, int(count / plan.reduction))
      dense = functools.partial(nn.Dense, use_bias=False, kernel_init=_XAVIER)
      scale = nn.relu(dense(hidden, name='squeeze')(vectors.mean(2)))
      scale = nn.relu(dense(count, name='excite')(scale))
      variants.append(vectors * scale[..., None])
    outputs = []
    for own in variants:
      if plan.matrices == 'pair':
        left, right = sides(own, own)
        left = jnp.einsum('bpd,pde->bpe', left, matrices)
      else:
        mapped = 'bfd,de->bfe' if plan.matrices == 'all' else 'bfd,fde->bfe'
        left, right = sides(jnp.einsum(mapped, own, matrices), own)
      outputs.append((left * right).reshape(batch_size, num_pairs * dim))
    return jnp.concatenate(outputs, 1)
