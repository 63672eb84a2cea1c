"""Products of field vectors: sums of all pairs, chosen pairs and triples."""

import functools
from typing import NamedTuple

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


@jax.custom_jvp
def _scaled_gram(vectors: Array, scale: Array) -> Array:
  """Sum_d s e_i e_j of all (i, j), as a matrix.

  For callers that treat (i, j) and (j, i) alike, as `_symmetric_gram`.

  Args:
    vectors: [B, F, D].
    scale: s, [B, D].

  Returns:
    [B, F * F].
  """
  scaled = vectors * scale[:, None]
  gram = jnp.einsum('bid,bdj->bij', scaled, vectors.swapaxes(1, 2))
  return gram.reshape(len(vectors), vectors.shape[1] ** 2)


@_scaled_gram.defjvp
def _scaled_gram_jvp(primals, tangents):
  (vectors, scale), (vectors_dot, scale_dot) = primals, tangents
  tangent = 2 * vectors_dot * scale[:, None] + vectors * scale_dot[:, None]
  products = _tangent_products(vectors, tangent)
  return _scaled_gram(vectors, scale), products.reshape(
    len(vectors), vectors.shape[1] ** 2
  )


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _upper(size: int, flat: Array) -> Array:
  """Entries above the diagonal of symmetric matrices: [B, N * N] -> [B, P]."""
  left, right = np.triu_indices(size, 1)
  return flat[:, left * size + right]


@_upper.defjvp
def _upper_jvp(size, primals, tangents):
  # As in `_gram_entries_jvp`: the transpose is one gather.
  (flat,), (tangent,) = primals, tangents
  left, right = np.triu_indices(size, 1)
  place = np.full((size, size), len(left))
  place[left, right] = place[right, left] = np.arange(len(left))
  sums = jnp.zeros((len(flat), len(left) + 1), flat.dtype)
  sums = sums.at[:, place.reshape(-1)].add(
    0.5 * tangent, mode='promise_in_bounds'
  )
  return _upper(size, flat), sums[:, :-1]


class _Tier(NamedTuple):
  """Triples of some leading fields.

  Every leading field gives one matrix of its products with all pairs of the
  fields that come later in the tier.

  Attributes:
    leads: int [L], leading fields.
    others: int [N], fields of the matrices.
    triples: int [T'], which triples these are.
    upper: int [T'], their places in the matrices [L, N, N], flat.
    lower: the same of their mirror images.
  """

  leads: np.ndarray
  others: np.ndarray
  triples: np.ndarray
  upper: np.ndarray
  lower: np.ndarray

  @property
  def size(self) -> int:
    return len(self.leads) * len(self.others) ** 2


def _tiers(triples: np.ndarray) -> list[_Tier]:
  """Three tiers: late leading fields have small matrices."""
  tiers = []
  for leads in np.array_split(np.unique(triples[:, 0]), 3):
    own = np.flatnonzero(np.isin(triples[:, 0], leads))
    if not len(own):
      continue
    others, places = np.unique(triples[own, 1:], return_inverse=True)
    places = places.reshape(-1, 2)
    shape = len(leads), len(others), len(others)
    lead = np.searchsorted(leads, triples[own, 0])
    upper = np.ravel_multi_index((lead, places[:, 0], places[:, 1]), shape)
    lower = np.ravel_multi_index((lead, places[:, 1], places[:, 0]), shape)
    tiers.append(_Tier(leads, others, own, upper, lower))
  return tiers


def _spread(tier: _Tier, values: Array, fill: float) -> Array:
  """Values [T'] of the triples in symmetric matrices, flat: [L, N * N]."""
  full = jnp.full(tier.size, fill, values.dtype)
  full = full.at[tier.upper].set(values, unique_indices=True)
  full = full.at[tier.lower].set(values, unique_indices=True)
  return full.reshape(len(tier.leads), -1)


def _mirrored(size: int, values: Array) -> Array:
  matrix = values.reshape(size, size)
  return (0.5 * (matrix + matrix.T)).reshape(-1)


def _triples_are_few(tiers: list[_Tier], count: int) -> bool:
  return _DIRECT_COST * count < sum(tier.size for tier in tiers)


def _direct_triples(vectors: Array, triples: np.ndarray) -> Array:
  first, second, third = triples.T
  return (vectors[:, first] * vectors[:, second] * vectors[:, third]).sum(-1)


def triple_products(vectors: Array, triples: np.ndarray) -> Array:
  """Sum_d e_i e_j e_k: vectors [B, F, D], triples [T, 3] -> [B, T].

  Unless they are very few, leading field by leading field: no [B, T, D] is
  laid out, in the backward pass either.
  """
  tiers = _tiers(triples)
  if _triples_are_few(tiers, len(triples)):
    return _direct_triples(vectors, triples)
  made = []
  for tier in tiers:
    others, size = vectors[:, tier.others], len(tier.others)

    def entries(lead, others=others, size=size):
      return _upper(size, _scaled_gram(others, lead))

    leads = vectors[:, tier.leads].swapaxes(0, 1)
    rows = jax.lax.map(jax.checkpoint(entries), leads)
    left, right = np.triu_indices(size, 1)
    column = np.zeros((size, size), int)
    column[left, right] = np.arange(len(left))
    lead, pair = np.divmod(tier.upper, size**2)
    width = len(tier.leads) * len(left)
    flat = rows.swapaxes(0, 1).reshape(len(vectors), width)
    made.append(flat[:, lead * len(left) + column.reshape(-1)[pair]])
  joined = made[0] if len(made) == 1 else jnp.concatenate(made, 1)
  order = np.argsort(np.concatenate([tier.triples for tier in tiers]))
  return joined if (order == np.arange(len(order))).all() else joined[:, order]


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
    step takes 1.3 times a plain one instead of twice. Triples are made and
    added up leading field by leading field: no [B, T] is ever in memory.
    """
    terms = np.array(self.terms)
    if terms.shape[1] == 3:
      return self._total_of_triples(vectors, mask, terms, train)
    if not self.normalize or _are_few(terms):
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

  def _total_of_triples(self, vectors, mask, triples, train):
    tiers = _tiers(triples)
    if not self.normalize or _triples_are_few(tiers, len(triples)):
      return self(vectors, mask, train=train).sum(1)
    norm, gate = self._norm(), self._gate()
    weights = jnp.ones(len(triples)) if gate is None else gate
    stored = norm.stored(len(triples))
    total, moments, count = 0.0, [], None
    for tier in tiers:
      others, size = vectors[:, tier.others], len(tier.others)
      # Twice each, halved: the derivative of a matrix takes mirror images to be
      # alike, and its entries are.
      spread = functools.partial(_spread, tier)

      @jax.checkpoint
      def run(lead, weights, mean, var, others=others, size=size):
        gram = _scaled_gram(others, lead)
        count = jnp.float32(0)
        if train:
          mean, var, count = norm.moments(
            gram, mask, functools.partial(_mirrored, size)
          )
        scale = weights * jax.lax.rsqrt(var + norm.epsilon)
        return gram @ scale - mean @ scale, mean, var, count

      def step(total, inputs, run=run):
        value, *seen = run(*inputs)
        return total + value, seen

      inputs = (
        vectors[:, tier.leads].swapaxes(0, 1),
        spread(0.5 * weights[tier.triples], 0),
        spread(stored[0][tier.triples], 0),
        spread(stored[1][tier.triples], 1),
      )
      start = jnp.zeros(len(vectors), vectors.dtype)
      value, (mean, var, counts) = jax.lax.scan(step, start, inputs)
      total, count = total + value, counts[0]
      moments.append([m.reshape(-1)[tier.upper] for m in (mean, var)])
    if train:
      order = np.argsort(np.concatenate([tier.triples for tier in tiers]))
      mean, var = (jnp.concatenate(parts)[order] for parts in zip(*moments))
      norm.learn(mean, var, count)
    return total

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
