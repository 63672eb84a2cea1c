"""Vectors out of codebooks: product quantisation that is learnt end to end."""

from collections.abc import Sequence
import functools
import operator

import flax.linen as nn
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from jax_autorec import fields as fields_lib
from jax_autorec.nn import blocks
from jax_autorec.types import Array

INIT_STD = 1e-4  # As of tables.
LOSSES = 'losses'  # Collection of what modules add to the training loss.
_UNROLLED = 64  # Centroids in one kernel.
_TINY = 1e-30


def _zeros(shape: Sequence[int]) -> Array:
  return jnp.zeros(shape, jnp.float32)


@jax.custom_jvp
def _straight_through(chosen: Array, shares: Array, values: Array) -> Array:
  """`chosen` [B, C, G, W], with the gradient of shares x values as well.

  Shares [B, C, G, K] weigh values [C, G, K, W], which get no gradient here.
  """
  del shares, values
  return chosen


@_straight_through.defjvp
def _straight_through_jvp(primals, tangents):
  chosen, shares, values = primals
  through = jnp.einsum('bcgk,cgkw->bcgw', tangents[1], values)
  return _straight_through(chosen, shares, values), tangents[0] + through


class Codebooks(nn.Module):
  """DPQ-SX, DPQ-VQ (Chen et al., ICML 2020, arXiv:1908.09756) and MGQE.

  A query is cut into G groups of neighbouring columns. In each, the K
  centroids of the field are scored, scores are normalised over the batch, per
  centroid and without scale or offset, and the centroid of the highest score
  (the first of equals) takes the place of the query. Because of the
  normalisation it is not always the nearest: one that is near to few queries
  wins more of them than by distance. That does not keep all in use evenly, see
  `embeddings.usage_entropy`.

  'sx': score <q, key>; output (onehot + p - sg(p)) values with
  p = softmax(scores), so that the gradient reaches queries and keys through p.
  'vq': score -|q - c|^2; output q + sg(c - q), so that the query takes the
  gradient of its centroid; centroids follow by mean((c - sg(q))^2) over the
  live values and columns of a field, added to the loss with weight 1.

  Tiers (MGQE, Kang et al., WWW 2020, arXiv:2002.08530) let a range of ids
  choose among the first centroids only. A centroid's scores are normalised
  over the values that may choose it.

  Differences from the authors' code: each field has codebooks of its own; the
  variance is bounded from below by 1e-10 of the squared mean in place of 1e-3,
  thousands of times the variance of scores of vectors of size 1e-4; running
  moments forget in tens of steps, not hundreds.

  Collections: 'params': 'values' and, of 'sx', 'keys' [F, G or 1, K, D / G];
  'batch_stats': 'mean', 'var' [F, K] of scores; 'usage' [F, G, K], the share
  of recent values that chose each centroid; 'losses' (sown in training). When
  packed, 'values' alone.

  Attributes:
    plans: quantised fields F of one `Quantizer.stack`.
    axis_name: replica axis; None except under `pmap`.
    momentum: weight of the old running moments and shares.
  """

  plans: tuple[fields_lib.FieldPlan, ...]
  axis_name: str | None = None
  momentum: float = 0.9

  def setup(self):
    plan = self.plans[0].quantizer
    width = self.plans[0].dim // plan.groups
    books = 1 if plan.shared else plan.groups
    shape = (len(self.plans), books, plan.centroids, width)
    init = nn.initializers.normal(INIT_STD)
    self.values = self.param('values', init, shape, jnp.float32)
    if plan.packed:
      return
    if plan.kind == 'sx':
      self.keys = self.param('keys', init, shape, jnp.float32)
    scores = (len(self.plans), plan.centroids)
    self.mean = self.variable('batch_stats', 'mean', _zeros, scores)
    self.var = self.variable(
      'batch_stats', 'var', jnp.ones, scores, jnp.float32
    )
    shares = (len(self.plans), plan.groups, plan.centroids)
    self.usage = self.variable('batch_stats', 'usage', _zeros, shares)

  @property
  def _owners(self) -> np.ndarray:
    """The field of each id column."""
    lengths = [plan.max_length for plan in self.plans]
    return np.repeat(np.arange(len(lengths)), lengths)

  def __call__(self, rows: Array, ids: Array, *, train: bool) -> Array:
    """Vectors in place of queries.

    Args:
      rows: queries [B, C, D], C the id columns of all fields.
      ids: int32 [B, C]; -1 for padding, of which vectors are zeros.
      train: whether to use the batch's moments, and to learn.

    Returns:
      [B, C, D]; always rows of the codebooks.
    """
    owners, live = self._owners, ids >= 0
    queries = self._grouped(rows)
    if not train:
      codes, _ = self._choose(queries, ids, owners, train=False)
      return self.decode(codes, ids)
    codes, scores = self._choose(queries, ids, owners, train=True)
    chosen = self._chosen(codes, owners)
    if self.plans[0].quantizer.kind == 'sx':
      values = lax.stop_gradient(self._by_column(self.values, owners))
      vectors = _straight_through(chosen, nn.softmax(scores), values)
    else:
      # q + (c - q) is not exactly c; this is.
      vectors = lax.stop_gradient(chosen) + (
        queries - lax.stop_gradient(queries)
      )
      self._pull(chosen, queries, live, owners)
    if not self.is_initializing():
      self._count(codes, live, owners)
    vectors = jnp.where(live[..., None, None], vectors, 0)
    return vectors.reshape(rows.shape)

  def encode(self, rows: Array, ids: Array, field: int) -> Array:
    """Codes int32 [N, G] of queries [N, D] of one field, for ids int32 [N].

    Those that an evaluation chooses: scores are normalised by running moments.
    """
    queries = self._grouped(rows[:, None])
    owners = np.array([field])
    codes, _ = self._choose(queries, ids[:, None], owners, train=False)
    return codes[:, 0]

  def decode(self, codes: Array, ids: Array) -> Array:
    """Vectors [B, C, D] of codes [B, C, G]; zeros where ids [B, C] are -1."""
    chosen = self._chosen(codes, self._owners)
    vectors = jnp.where((ids >= 0)[..., None, None], chosen, 0)
    vectors = vectors.reshape(*codes.shape[:2], -1)
    # What follows is then compiled alike, whether codes were stored or found.
    return lax.optimization_barrier(vectors)

  def _grouped(self, rows):
    groups = self.plans[0].quantizer.groups
    return rows.reshape(*rows.shape[:2], groups, -1)

  def _by_column(self, books, owners):
    """Codebooks [F, G or 1, K, W] of each column: [C, G, K, W]."""
    groups = self.plans[0].quantizer.groups
    if len(owners) != len(books) or list(owners) != list(range(len(books))):
      books = books[owners]
    return jnp.broadcast_to(books, (len(books), groups, *books.shape[2:]))

  def _chosen(self, codes, owners):
    """Values of codes [B, C, G]: [B, C, G, W]."""
    plan = self.plans[0].quantizer
    groups = np.arange(1 if plan.shared else plan.groups)
    return self.values[owners[None, :, None], groups[None, None], codes]

  def _choose(self, queries, ids, owners, train):
    """Codes [B, C, G]; normalised scores [B, C, G, K], for 'sx' in training."""
    plan = self.plans[0].quantizer
    is_soft = plan.kind == 'sx' and train
    books = self.keys if plan.kind == 'sx' else self.values
    books = self._by_column(books, owners)
    if not is_soft:
      queries, books = lax.stop_gradient((queries, books))
    mean, var = self._moments(queries, books, ids, owners, train)
    scale = lax.rsqrt(var + 1e-10 * jnp.square(mean) + _TINY)
    limits = self._limits
    is_tiered = (limits < limits[:, :1]).any()

    def score(queries, books, mean, scale, limit):
      """Columns of queries and books apart; the rest of a score's shape."""
      # Term by term: with so few columns it is faster than a product of
      # matrices and |q|^2 - 2 <q, c> + |c|^2, and all batch sizes round alike.
      terms = [
        query * book if plan.kind == 'sx' else -jnp.square(query - book)
        for query, book in zip(queries, books)
      ]
      scores = (functools.reduce(operator.add, terms) - mean) * scale
      if is_tiered:
        scores = jnp.where(ids[:, :, None, None] < limit, scores, -jnp.inf)
      return scores

    columns = lambda array: jnp.moveaxis(array, -1, 0)
    centroids = plan.centroids
    if is_soft:
      scores = score(
        columns(queries[..., None, :]),
        columns(books[None]),
        mean[owners][None, :, None],
        scale[owners][None, :, None],
        limits[owners][None, :, None],
      )
      codes = jnp.argmax(lax.stop_gradient(scores), -1).astype(jnp.int32)
      return codes, scores
    # One centroid after another: a maximum over the last axis of scores of all
    # centroids takes five times as long.
    by_centroid = (
      jnp.moveaxis(books, 2, 0)[:, None],
      mean[owners].T[:, None, :, None],
      scale[owners].T[:, None, :, None],
      jnp.asarray(limits[owners].T)[:, None, :, None],
      jnp.arange(centroids, dtype=jnp.int32),
    )
    apart = columns(queries)

    def compare(best, block):
      for n in range(len(block[-1])):
        books, mean, scale, limit, number = (array[n] for array in block)
        limit = limit[..., None]
        scores = score(
          apart[..., None],
          columns(books)[..., None],
          mean[..., None],
          scale[..., None],
          limit,
        )[..., 0]
        is_better = scores > best[0]
        best = (
          jnp.where(is_better, scores, best[0]),
          jnp.where(is_better, number, best[1]),
        )
      return best, None

    shape = queries.shape[:-1]
    best = jnp.full(shape, -jnp.inf), jnp.zeros(shape, jnp.int32)
    size = min(centroids, _UNROLLED)
    blocks_of = lambda a: a.reshape(centroids // size, size, *a.shape[1:])
    (_, codes), _ = lax.scan(
      compare, best, jax.tree.map(blocks_of, by_centroid)
    )
    return codes, None

  @property
  def _limits(self) -> np.ndarray:
    """Below which ids a centroid may be chosen: int32 [F, K]."""
    limits = np.zeros(
      (len(self.plans), self.plans[0].quantizer.centroids), np.int32
    )
    for limit, plan in zip(limits, self.plans):
      for tier in plan.quantizer.tiers:
        limit[: tier.centroids] = tier.stop
    return limits

  def _moments(self, queries, books, ids, owners, train):
    """Of scores, per field and centroid: mean and variance [F, K].

    A score is linear in the features (q, |q|^2) of a query, so its moments
    follow from theirs, and are not taken of B C G K numbers.
    """
    if not train:
      return self.mean.value, self.var.value
    plan, limits = self.plans[0].quantizer, self._limits
    first = np.flatnonzero(np.diff(owners, prepend=-1))
    books = books[first]
    # Centroids of one range of ids share their features' moments.
    stops, places = np.unique(limits, axis=1, return_inverse=True)
    places = places.reshape(-1)
    weights = (ids >= 0)[..., None] & (ids[..., None] < stops[owners][None])
    weights = weights.astype(queries.dtype)
    total = functools.partial(self._total, owners=owners)
    count = total(weights.sum(0))
    divisor = jnp.maximum(count, 1)[:, :, None, None]
    # Around the mean of all, or squares would swamp the spread. The last of
    # the ranges has every id.
    whole = jnp.einsum('bc,bcgw->cgw', weights[..., -1], queries)
    centre = total(whole) / divisor[:, -1]
    queries = queries - centre[owners][None]
    if plan.kind == 'sx':
      features, slopes = queries, books
      offsets = (books * centre[:, :, None]).sum(-1)
    else:
      square = jnp.square(queries).sum(-1, keepdims=True)
      features = jnp.concatenate([queries, square], -1)
      books = books - centre[:, :, None]
      slopes = jnp.pad(2 * books, ((0, 0),) * 3 + ((0, 1),), constant_values=-1)
      offsets = -jnp.square(books).sum(-1)
    mean = total(jnp.einsum('bct,bcgx->ctgx', weights, features)) / divisor
    square = jnp.einsum('bct,bcgx,bcgy->ctgxy', weights, features, features)
    covariance = total(square) / divisor[..., None]
    covariance = covariance - mean[..., None] * mean[..., None, :]
    mean, covariance = mean[:, places], covariance[:, places]
    by_group = jnp.einsum('fgkx,fkgx->fgk', slopes, mean) + offsets
    var = jnp.einsum('fgkx,fkgxy,fgky->fgk', slopes, covariance, slopes)
    # Over groups as well: within them, and between their means.
    var = jnp.maximum(var.mean(1), 0) + by_group.var(1)
    mean, count = by_group.mean(1), count[:, places]
    if not self.is_initializing():
      keep = self.momentum
      for running, new in ((self.mean, mean), (self.var, var)):
        new = keep * running.value + (1 - keep) * lax.stop_gradient(new)
        # No value of a tier in the batch: nothing is learnt of it.
        running.value = jnp.where(count > 0, new, running.value)
    return mean, var

  def _total(self, by_column, owners):
    """Sums over the columns of a field and replicas: [C, ...] -> [F, ...]."""
    if len(owners) > len(self.plans):
      starts = np.flatnonzero(np.diff(owners, prepend=-1))
      ends = [*starts[1:], len(owners)]
      by_column = jnp.stack(
        [by_column[a:b].sum(0) for a, b in zip(starts, ends)]
      )
    return blocks.psum(by_column, self.axis_name)

  def _pull(self, chosen, queries, live, owners):
    """Sows the loss that draws centroids to their queries."""
    squares = jnp.square(chosen - lax.stop_gradient(queries)).mean((2, 3))
    count = self._total(live.sum(0).astype(squares.dtype), owners)
    weights = live / jnp.maximum(count, 1)[owners][None]
    # This replica's part of the sum over fields of means.
    self.sow(LOSSES, 'pull', jnp.sum(squares * weights))

  def _count(self, codes, live, owners):
    """Keeps track of how often each centroid is chosen."""
    plan = self.plans[0].quantizer
    groups = np.arange(plan.groups)
    share = _zeros(self.usage.value.shape)
    ones = jnp.broadcast_to(live[..., None], codes.shape).astype(share.dtype)
    share = share.at[owners[None, :, None], groups[None, None], codes].add(ones)
    share = blocks.psum(share, self.axis_name)
    share = share / jnp.maximum(share.sum(-1, keepdims=True), 1)
    keep = self.momentum
    self.usage.value = keep * self.usage.value + (1 - keep) * share


def entropy(counts: np.ndarray) -> float:
  """How evenly centroids are used, from 0 (one alone) to 1 (all alike).

  Args:
    counts: [G, K], how often each was chosen; not all zero.

  Returns:
    Mean over groups of the entropy of their shares, over log K.
  """
  counts = np.asarray(counts, np.float64)
  shares = counts / counts.sum(-1, keepdims=True)
  logs = np.log(np.where(shares > 0, shares, 1))
  return float(-(shares * logs).sum(-1).mean() / np.log(counts.shape[-1]))


def write_codes(codes: np.ndarray, bits: int) -> np.ndarray:
  """Codes int [N, G] of so many bits -> uint8 [ceil(N G bits / 8)]."""
  shifts = np.arange(bits - 1, -1, -1)
  digits = (np.asarray(codes)[..., None] >> shifts) & 1
  return np.packbits(digits.astype(np.uint8).reshape(-1))


def read_codes(packed: Array, plan: fields_lib.Quantizer, ids: Array) -> Array:
  """Codes of ids, out of the bits of these alone.

  Args:
    packed: uint8 [plan.code_bytes], see `Quantizer`.
    plan: its groups and tiers.
    ids: int32 [...]; what is read for -1 means nothing.

  Returns:
    int32 [..., G].
  """
  starts, first_bytes, tier_bits = [0], [0], []
  for tier in plan.tiers:
    tier_bits.append(tier.bits)
    size = (tier.stop - starts[-1]) * plan.groups * tier.bits
    first_bytes.append(first_bytes[-1] + -(-size // 8))
    starts.append(tier.stop)
  table = np.array([starts[:-1], first_bytes[:-1], tier_bits], np.int32)
  ids = jnp.maximum(ids, 0)
  places = sum([ids >= stop for stop in starts[1:-1]], jnp.zeros_like(ids))
  start, first, bits = (jnp.asarray(row)[places][..., None] for row in table)
  row, per_row = ids[..., None] - start, bits * plan.groups
  # In whole bytes and the bits beyond: the number of bits could overflow.
  groups = np.arange(plan.groups, dtype=np.int32)
  groups = groups.reshape((1,) * (row.ndim - 1) + (-1,))
  beyond = row * (per_row % 8) + bits * groups
  place = first + row * (per_row // 8) + beyond // 8
  length = -(-(7 + max(tier_bits)) // 8)
  window = jnp.zeros(place.shape, jnp.int32)
  for i in range(length):
    byte = packed.at[place + i].get(mode='clip').astype(jnp.int32)
    window = window | (byte << (8 * (length - 1 - i)))
  return (window >> (8 * length - beyond % 8 - bits)) & ((1 << bits) - 1)


def encode_field(
  module: Codebooks, variables, table: Array, field: int, block: int = 2**16
) -> tuple[np.ndarray, float]:
  """The packed codes of a field's whole vocabulary.

  Args:
    module: not packed.
    variables: its own.
    table: queries, the field's rows [V, D] in the order of ids.
    field: its place among the module's.
    block: ids at a time; a multiple of 8, so that blocks end with a byte.

  Returns:
    uint8 [code_bytes], see `Quantizer`; the `entropy` over the vocabulary.
  """
  plan = module.plans[field].quantizer
  encode = jax.jit(
    lambda variables, rows, ids: module.apply(
      variables, rows, ids, field, method='encode'
    )
  )
  parts, start = [], 0
  counts = np.zeros((plan.groups, plan.centroids), np.int64)
  for tier in plan.tiers:
    for first in range(start, tier.stop, block):
      stop = min(first + block, tier.stop)
      ids = np.arange(first, stop, dtype=np.int32)
      codes = np.asarray(encode(variables, table[first:stop], ids))
      parts.append(write_codes(codes, tier.bits))
      for group, own in enumerate(codes.T):
        counts[group] += np.bincount(own, minlength=plan.centroids)
    start = tier.stop
  return np.concatenate(parts), entropy(counts)
