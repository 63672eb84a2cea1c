"""Interactions within groups of fields."""

from collections.abc import Callable
import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jax_autorec.nn import blocks
from jax_autorec.types import Array

_PART = 2**20  # Entries [B, D, N] that are made at a time.


def power_difference(
  vectors: Array, weights: Array, order: int, compensation: float = 1.0
) -> Array:
  """Sum_d [(sum_i w_i e_i)^p - c sum_i (w_i e_i)^p], p the order, c the factor.

  For p = 2 and c = 1 twice the sum of the pairs; no factorial is divided by.

  Args:
    vectors: [B, F, D].
    weights: [F, N], of each field in each group.
    order: at least 2.
    compensation: c.

  Returns:
    [B, N].
  """
  powers = (_sums(vectors, weights) ** order).sum(1)
  if not compensation:
    return powers
  # Summed over entries first: no array [B, D, N] of its own.
  own = (vectors**order).sum(2) @ weights**order
  return powers - compensation * own


def elementary(vectors: Array, weights: Array, order: int) -> Array:
  """Sum_d of the products of p different w_i e_i, over all sets of p.

  By Newton's identities, from sums of powers 1 to p.

  Args:
    vectors: [B, F, D].
    weights: [F, N], of each field in each group.
    order: p, at least 1.

  Returns:
    [B, N].
  """
  # k e_k = sum_j (-1)^(j - 1) e_(k - j) p_j, from e_0 = 1.
  sums = [_sums(vectors**k, weights**k) for k in range(1, order)]
  polynomials = []
  for k in range(1, order):
    total = sums[k - 1] if k % 2 else -sums[k - 1]
    for j in range(1, k):
      term = polynomials[k - j - 1] * sums[j - 1]
      total = total + term if j % 2 else total - term
    polynomials.append(total / k)
  # Of the last only the sum over entries is needed.
  total = (vectors**order).sum(2) @ weights**order
  total = total if order % 2 else -total
  for j in range(1, order):
    term = (polynomials[order - j - 1] * sums[j - 1]).sum(1)
    total = total + term if j % 2 else total - term
  return total / order


def _sums(vectors: Array, weights: Array) -> Array:
  """Weighted sums of fields: [B, F, D], [F, N] -> [B, D, N]."""
  batch_size, num_fields, dim = vectors.shape
  # As one plain matrix product: on CPU the einsum takes nearly twice as long.
  rows = vectors.swapaxes(1, 2).reshape(batch_size * dim, num_fields)
  return (rows @ weights).reshape(batch_size, dim, weights.shape[1])


def by_rows(
  form: Callable[[Array, Array], Array], vectors: Array, weights: Array
) -> Array:
  """A form of [B, F, D] and [F, N], so many rows at a time: [B, N].

  The arrays [B, D, N] that it makes on the way stay within a cache, and the
  backward pass makes them again: on CPU a third of the time.
  """
  batch_size, num_fields, dim = vectors.shape
  parts = max(1, -(-batch_size * dim * weights.shape[1] // _PART))
  rows = batch_size // parts
  if rows in (0, batch_size):
    return form(vectors, weights)
  whole = rows * parts
  run = jax.checkpoint(lambda part: form(part, weights))
  out = jax.lax.map(
    run, vectors[:whole].reshape(parts, rows, num_fields, dim)
  ).reshape(whole, weights.shape[1])
  if whole == batch_size:
    return out
  return jnp.concatenate([out, run(vectors[whole:])])


class Groups(nn.Module):
  """Interactions of one order within groups (AutoGroup, SIGIR 2020).

  The official code (in Vega) takes the members' own powers of all fields,
  members or not, and at order 1 as well; here as the formula has it, of members
  alone, and from order 2 on.

  Attributes:
    order: p, at least 1.
    num_fields: F, of the vectors.
    members: field indices of every group; or a number of groups, while what
      each field has to do with each is read of the collection 'arch'.
    form: 'power' or 'elementary'.
    compensation: of 'power'.
    normalize: batch normalisation of the vectors, without scale or offset.
    axis_name: replica axis; None except under `pmap`.
  """

  order: int
  num_fields: int
  members: tuple[tuple[int, ...], ...] | int
  form: str = 'power'
  compensation: float = 1.0
  normalize: bool = True
  axis_name: str | None = None

  @nn.compact
  def __call__(self, vectors: Array, mask: Array, *, train: bool) -> Array:
    """Maps vectors [B, F, D] to [B, N], at order 1 to [B, D * N]; mask [B]."""
    weights = self._weights()
    batch_size, num_fields, dim = vectors.shape
    if self.normalize:
      flat = blocks.BatchNorm(
        affine=False, axis_name=self.axis_name, name='norm'
      )(vectors.reshape(batch_size, num_fields * dim), mask, train=train)
      vectors = flat.reshape(vectors.shape)
    if self.order == 1:
      sums = _sums(vectors, weights)
      return sums.reshape(batch_size, math.prod(sums.shape[1:]))
    if self.form == 'elementary':
      form = functools.partial(elementary, order=self.order)
    else:
      form = functools.partial(
        power_difference, order=self.order, compensation=self.compensation
      )
    return by_rows(form, vectors, weights)

  def _weights(self):
    """What each field weighs in each group: [F, N], zeros for no member."""
    is_open = isinstance(self.members, int)
    shape = self.num_fields, self.members if is_open else len(self.members)
    init = nn.initializers.xavier_uniform()
    if is_open:
      weights = self.param('weights', init, shape, jnp.float32)
      member = self.variable('arch', 'member', jnp.ones, shape, jnp.float32)
      return weights * member.value
    groups = [group for group, own in enumerate(self.members) for _ in own]
    places = (
      np.array([i for own in self.members for i in own]),
      np.array(groups),
    )
    # Those of members alone are trained, and start as in the whole matrix.
    weights = self.param(
      'weights', lambda key: init(key, shape, jnp.float32)[places]
    )
    zeros = jnp.zeros(shape, weights.dtype)
    return zeros.at[places].set(weights, unique_indices=True)
