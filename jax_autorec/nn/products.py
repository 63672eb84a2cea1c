"""Products of field vectors: sums of all pairs, chosen pairs and triples."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jax_autorec.nn import blocks
from jax_autorec.types import Array

# How many times dearer than an entry of a Gram matrix a pair is whose sides are
# gathered first (measured on CPU, forward and backward together).
_DIRECT_COST = 50


def fm_sum(vectors: Array) -> Array:
  """Sum of all pairwise inner products: vectors [B, F, D] -> [B]."""
  square_of_sum = jnp.square(vectors.sum(1))
  sum_of_squares = jnp.square(vectors).sum(1)
  return 0.5 * (square_of_sum - sum_of_squares).sum(1)


def _used_fields(
  vectors: Array, pairs: np.ndarray
) -> tuple[Array, np.ndarray, np.ndarray]:
  """Vectors of the fields of some pair alone, and the pairs' places there."""
  used, places = np.unique(pairs, return_inverse=True)
  if len(used) < vectors.shape[1]:
    vectors = vectors[:, used]
  left, right = places.reshape(pairs.shape).T
  return vectors, left, right


def _are_few(pairs: np.ndarray) -> bool:
  return _DIRECT_COST * len(pairs) < len(np.unique(pairs)) ** 2


def pair_products(vectors: Array, pairs: np.ndarray) -> Array:
  """Inner products of chosen pairs: vectors [B, F, D], pairs [P, 2] -> [B, P].

  Only fields of some pair take part. Unless the pairs are very few, they are
  read off one Gram matrix of those fields: gathering both sides of every pair
  first costs more than the whole matrix, several times the rest of a step
  where there are many.
  """
  vectors, left, right = _used_fields(vectors, pairs)
  if _are_few(pairs):
    return (vectors[:, left] * vectors[:, right]).sum(-1)
  return _gram_entries(tuple(zip(left.tolist(), right.tolist())), vectors)


def _gram(vectors: Array) -> Array:
  """Gram matrices, flat: vectors [B, F, D] -> [B, F * F]."""
  # Swapped explicitly, the second operand takes XLA's fast path on CPU, three
  # times faster than contracting both last axes.
  gram = jnp.einsum('bid,bdj->bij', vectors, vectors.swapaxes(1, 2))
  return gram.reshape(len(vectors), vectors.shape[1] ** 2)


def _tangent_products(vectors: Array, tangents: Array) -> Array:
  """<d e_i, e_j> of all (i, j): [B, F, D] twice -> [B, F, F].

  Reverse mode runs the transpose alone, so it is that which is written to take
  XLA's fast path; what stands here runs in forward mode (second-order search).
  """
  return jnp.einsum('bid,bjd->bij', tangents, vectors)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _gram_entries(pairs: tuple[tuple[int, int], ...], vectors: Array) -> Array:
  """Entries of the Gram matrix: vectors [B, F, D] -> [B, P]."""
  num_fields = vectors.shape[1]
  return _gram(vectors)[:, np.array([i * num_fields + j for i, j in pairs])]


@_gram_entries.defjvp
def _gram_entries_jvp(pairs, primals, tangents):
  # d z_ij = <d e_i, e_j> + <d e_j, e_i>, added up from the matrix of all. The
  # transpose, which reverse mode runs, lays the cotangents out as a symmetric
  # matrix by one gather, and one product does the rest: the plain rule would
  # scatter and multiply twice, at five times the cost.
  (vectors,), (tangent,) = primals, tangents
  batch_size, num_fields, _ = vectors.shape
  place = np.full((num_fields, num_fields), len(pairs))
  for p, (i, j) in enumerate(pairs):
    place[i, j] = place[j, i] = p
  products = _tangent_products(vectors, tangent)
  flat = products.reshape(batch_size, num_fields**2)
  sums = jnp.zeros((batch_size, len(pairs) + 1), flat.dtype)
  sums = sums.at[:, place.reshape(-1)].add(flat, mode='promise_in_bounds')
  return _gram_entries(pairs, vectors), sums[:, :-1]


@jax.custom_jvp
def _symmetric_gram(vectors: Array) -> Array:
  """`_gram`, for callers that treat entries (i, j) and (j, i) alike.

  Half of the derivative, doubled, is enough then.
  """
  return _gram(vectors)


@_symmetric_gram.defjvp
def _symmetric_gram_jvp(primals, tangents):
  (vectors,), (tangent,) = primals, tangents
  products = 2 * _tangent_products(vectors, tangent)
  return _symmetric_gram(vectors), products.reshape(
    len(vectors), vectors.shape[1] ** 2
  )


def triple_products(vectors: Array, triples: np.ndarray) -> Array:
  """Sum_d e_i e_j e_k: vectors [B, F, D], triples [T, 3] -> [B, T].

  Products of the distinct leading pairs are made once, then one matrix product
  with all fields gives every triple they lead.
  """
  pairs, place = np.unique(triples[:, :2], axis=0, return_inverse=True)
  place = place.reshape(-1)
  leading = vectors[:, pairs[:, 0]] * vectors[:, pairs[:, 1]]
  if 4 * len(triples) < len(pairs) * vectors.shape[1]:
    return jnp.einsum(
      'btd,btd->bt', leading[:, place], vectors[:, triples[:, 2]]
    )
  table = jnp.einsum('bpd,bkd->bpk', leading, vectors)
  flat = table.reshape(len(vectors), len(pairs) * vectors.shape[1])
  return flat[:, place * vectors.shape[1] + triples[:, 2]]


class Products(nn.Module):
  """Products of field pairs or triples (AutoFIS, arXiv:2003.11235).

  Products are normalised without scale or offset, so a gate alone sets the
  size of its product and gates can be compared.

  Attributes:
    terms: field indices, increasing: (i, j) or (i, j, k), in gate order.
    normalize: batch normalisation, epsilon 1e-3, running average .99 (the
      official code's values).
    gates: None, 'params' or, while they are searched, 'arch'.
    gate_init: initial gates, one for all or [P].
    axis_name: replica axis; None except under `pmap`.
  """

  terms: tuple[tuple[int, ...], ...]
  normalize: bool = True
  gates: str | None = 'params'
  gate_init: float | tuple[float, ...] = 0.6
  axis_name: str | None = None

  @nn.compact
  def __call__(self, vectors: Array, mask: Array, *, train: bool) -> Array:
    """Maps vectors [B, F, D] to products [B, P]; mask bool [B]."""
    terms = np.array(self.terms)
    make = pair_products if terms.shape[1] == 2 else triple_products
    products = make(vectors, terms)
    if self.normalize:
      products = self._norm()(products, mask, train=train)
    gate = self._gate()
    return products if gate is None else products * gate[None, :]

  @nn.compact
  def total(self, vectors: Array, mask: Array, *, train: bool) -> Array:
    """The sum [B] of the same products.

    Normalisation and gates are linear, so they act on the sum's weights [F * F]
    and the products are never laid out one by one: with 741 pairs the search
    step takes 1.3 times a plain one instead of twice.
    """
    terms = np.array(self.terms)
    if terms.shape[1] != 2 or not self.normalize or _are_few(terms):
      return self(vectors, mask, train=train).sum(1)
    vectors, left, right = _used_fields(vectors, terms)
    num_fields = vectors.shape[1]
    gram = _symmetric_gram(vectors)
    upper, lower = left * num_fields + right, right * num_fields + left
    scale, offset = self._norm().scale_and_offset(
      gram,
      mask,
      train=train,
      select=lambda moments: 0.5 * (moments[upper] + moments[lower]),
    )
    gate = self._gate()
    if gate is not None:
      scale, offset = scale * gate, offset * gate
    weights = jnp.zeros((num_fields**2,), gram.dtype)
    weights = weights.at[upper].set(0.5 * scale, unique_indices=True)
    weights = weights.at[lower].set(0.5 * scale, unique_indices=True)
    return gram @ weights + offset.sum()

  def _norm(self):
    return blocks.BatchNorm(
      epsilon=1e-3,
      momentum=0.99,
      affine=False,
      axis_name=self.axis_name,
      name='norm',
    )

  def _gate(self):
    if self.gates is None:
      return None

    def init(*unused_key):
      gates = jnp.asarray(self.gate_init, jnp.float32)
      return jnp.broadcast_to(gates, (len(self.terms),))

    if self.gates == 'params':
      return self.param('gate', init)
    return self.variable(self.gates, 'gate', init).value
