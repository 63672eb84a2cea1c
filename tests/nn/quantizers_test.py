"""Codebooks against loops over values, groups and centroids in float64."""

import functools

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from jax_autorec import fields as fields_lib
from jax_autorec.nn import quantizers

_ROWS = 40


def _plans(kind='vq', tiers=None, shared=False, groups=2, dim=6, tags=2):
  """Fields 'user' and 'tags' with vocabularies of 12 and 9."""
  fields = []
  for name, vocab, length in (('user', 12, 1), ('tags', 9, tags)):
    own = tiers or ((1.0, 8),)
    stops = [round(share * vocab) for share, _ in own]
    quantizer = fields_lib.Quantizer(
      kind,
      groups,
      tuple(fields_lib.Tier(s, k) for s, (_, k) in zip(stops, own)),
      shared,
    )
    fields.append(
      fields_lib.FieldPlan(
        name,
        'categorical',
        dim,
        vocab_size=vocab,
        max_length=length,
        quantizer=quantizer,
      )
    )
  return tuple(fields)


def _inputs(seed=0, dim=6):
  """Queries [B, 3, D] and ids [B, 3]: some rows and values are padding."""
  rng = np.random.default_rng(seed)
  ids = rng.integers(0, [12, 9, 9], (_ROWS, 3)).astype(np.int32)
  ids[:, 2] = np.where(rng.random(_ROWS) < 0.5, -1, ids[:, 2])
  ids[-5:] = -1
  tables = [rng.normal(size=(size, dim)) for size in (12, 9)]
  rows = np.stack([tables[f][ids[:, c]] for c, f in enumerate((0, 1, 1))], 1)
  return np.where(ids[..., None] >= 0, rows, 7.0), ids


@functools.partial(jax.jit, static_argnums=0)
def _init(module, rows, ids):
  return module.init(jax.random.key(0), rows, ids, train=False)


@functools.partial(jax.jit, static_argnums=0)
def _evaluate(module, variables, rows, ids):
  return module.apply(variables, rows, ids, train=False)


def _variables(module, rows, ids, seed=1):
  variables = _init(module, rows, ids)
  rng = np.random.default_rng(seed)
  draw = lambda x: jnp.asarray(rng.normal(size=x.shape))
  wide = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), variables)
  return wide | {'params': jax.tree.map(draw, variables['params'])}


def _allowed(plan, i, k):
  start = 0
  for tier in plan.quantizer.tiers:
    if start <= i < tier.stop:
      return k < tier.centroids
    start = tier.stop
  return False


def _oracle(plans, params, rows, ids, moments=None, soft=False):
  """Vectors, codes, moments and (VQ) the added loss; slow and plain.

  With `soft` centroids are mixed by softmax(scores), what 'sx' differentiates.
  """
  plan = plans[0].quantizer
  groups, size = plan.groups, plan.centroids
  width = plans[0].dim // groups
  owners = np.repeat([0, 1], [p.max_length for p in plans])
  books = {k: np.asarray(v, np.float64) for k, v in params.items()}
  out = np.zeros(rows.shape)
  codes = np.full((*ids.shape, groups), -1)
  means, variances = np.zeros((2, size)), np.ones((2, size))
  added = 0.0
  for f, field in enumerate(plans):
    places = [
      (b, c)
      for b in range(len(ids))
      for c in np.flatnonzero(owners == f)
      if ids[b, c] >= 0
    ]
    scores = np.zeros((len(places), groups, size))
    for n, (b, c) in enumerate(places):
      for g in range(groups):
        query = rows[b, c, g * width : (g + 1) * width]
        for k in range(size):
          book = 0 if plan.shared else g
          if plan.kind == 'sx':
            scores[n, g, k] = query @ books['keys'][f, book, k]
          else:
            scores[n, g, k] = -(
              (query - books['values'][f, book, k]) ** 2
            ).sum()
    for k in range(size):
      own = [
        n for n, (b, c) in enumerate(places) if _allowed(field, ids[b, c], k)
      ]
      if moments is not None:
        means[f, k], variances[f, k] = moments[0][f, k], moments[1][f, k]
      elif own:
        means[f, k] = scores[own, :, k].mean()
        variances[f, k] = scores[own, :, k].var()
    squares = []
    for n, (b, c) in enumerate(places):
      for g in range(groups):
        ok = [k for k in range(size) if _allowed(field, ids[b, c], k)]
        normal = (scores[n, g] - means[f]) / np.sqrt(
          variances[f] + 1e-10 * means[f] ** 2
        )
        best = ok[int(np.argmax(normal[ok]))]
        book = 0 if plan.shared else g
        codes[b, c, g] = best
        values = books['values'][f, book]
        columns = slice(g * width, (g + 1) * width)
        if soft:
          weights = np.exp(normal[ok] - normal[ok].max())
          out[b, c, columns] = weights / weights.sum() @ values[ok]
        else:
          out[b, c, columns] = values[best]
        squares.append(((values[best] - rows[b, c, columns]) ** 2).mean())
    added += np.mean(squares)
  return out, codes, (means, variances), added


@functools.partial(jax.jit, static_argnums=0)
def _train(module, variables, rows, ids):
  return module.apply(
    variables, rows, ids, train=True, mutable=['batch_stats', 'losses']
  )


_CASES = [
  dict(kind=kind, shared=shared, tiers=tiers)
  for kind in fields_lib.QUANTIZERS
  for shared in (False, True)
  for tiers in (None, ((0.4, 8), (1.0, 2)))
]


class CodebooksTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))

  @parameterized.parameters(*_CASES)
  def test_training_against_loops(self, **options):
    plans, (rows, ids) = _plans(**options), _inputs()
    module = quantizers.Codebooks(plans)
    variables = _variables(module, rows, ids)
    got, updated = _train(module, variables, rows, ids)
    params = variables['params']
    expected, codes, (mean, var), added = _oracle(plans, params, rows, ids)
    np.testing.assert_array_equal(got, expected)
    stats = updated['batch_stats']
    np.testing.assert_allclose(stats['mean'], 0.1 * mean, rtol=1e-9)
    np.testing.assert_allclose(stats['var'], 0.9 + 0.1 * var, rtol=1e-9)
    for f, owner in enumerate(([0], [1, 2])):
      counts = np.zeros((2, 8))
      for g in range(2):
        own = codes[:, owner, g]
        counts[g] = np.bincount(own[own >= 0], minlength=8)
      shares = 0.1 * counts / counts.sum(1, keepdims=True)
      np.testing.assert_allclose(stats['usage'][f], shares, rtol=1e-6)
    if options['kind'] == 'vq':
      (pull,) = updated['losses']['pull']
      np.testing.assert_allclose(pull, added, rtol=1e-10)
    else:
      self.assertNotIn('losses', updated)

  @parameterized.parameters(*_CASES)
  def test_evaluation_against_loops(self, **options):
    """With running moments: other codes than those of the batch, or nearest."""
    plans, (rows, ids) = _plans(**options), _inputs()
    module = quantizers.Codebooks(plans)
    variables = _variables(module, rows, ids)
    rng = np.random.default_rng(3)
    stats = dict(variables['batch_stats'])
    shape = stats['mean'].shape
    stats['mean'] = jnp.asarray(rng.normal(-4, 2, shape))
    stats['var'] = jnp.asarray(rng.uniform(1, 30, shape))
    variables['batch_stats'] = stats
    got = _evaluate(module, variables, rows, ids)
    params = variables['params']
    expected, codes, *_ = _oracle(
      plans, params, rows, ids, (stats['mean'], stats['var'])
    )
    np.testing.assert_array_equal(got, expected)
    _, batch_codes, *_ = _oracle(plans, params, rows, ids)
    plain = np.zeros(shape), np.ones(shape)
    _, nearest, *_ = _oracle(plans, params, rows, ids, plain)
    for other in (batch_codes, nearest):
      self.assertGreater(np.mean(codes != other), 0.02)

  @parameterized.parameters(False, True)
  def test_gradients_of_vq(self, shared):
    """Of queries: that of the output. Of values: the pull of their queries."""
    plans, (rows, ids) = _plans('vq', shared=shared), _inputs()
    module = quantizers.Codebooks(plans)
    variables = _variables(module, rows, ids)
    weights = np.random.default_rng(5).normal(size=rows.shape)

    def loss(params, rows):
      out, updated = _train(module, variables | {'params': params}, rows, ids)
      return (weights * out).sum() + updated['losses']['pull'][0]

    params, row_grads = jax.jit(jax.grad(loss, (0, 1)))(
      variables['params'], rows
    )
    live = (ids >= 0)[..., None]
    np.testing.assert_array_equal(row_grads, np.where(live, weights, 0))
    values = np.asarray(variables['params']['values'])
    _, codes, *_ = _oracle(plans, variables['params'], rows, ids)
    expected = np.zeros(values.shape)
    for f, columns in enumerate(([0], [1, 2])):
      entries = 6 * np.sum(ids[:, columns] >= 0)
      for b in range(len(ids)):
        for c in columns:
          for g in range(2) if ids[b, c] >= 0 else ():
            k, book = codes[b, c, g], 0 if shared else g
            gap = values[f, book, k] - rows[b, c, 3 * g : 3 * g + 3]
            expected[f, book, k] += 2 * gap / entries
    np.testing.assert_allclose(params['values'], expected, atol=1e-14)

  @parameterized.parameters(
    dict(),
    dict(shared=True),
    dict(tiers=((0.4, 8), (1.0, 2))),
  )
  def test_gradients_of_sx(self, **options):
    """Of values: of the chosen. Of the rest: through p, moments included."""
    plans, (rows, ids) = _plans('sx', **options), _inputs()
    module = quantizers.Codebooks(plans)
    variables = _variables(module, rows, ids)
    rng = np.random.default_rng(5)
    weights = np.where((ids >= 0)[..., None], rng.normal(size=rows.shape), 0)

    def loss(params, rows):
      out, _ = _train(module, variables | {'params': params}, rows, ids)
      return (weights * out).sum()

    params = variables['params']
    grads, row_grads = jax.jit(jax.grad(loss, (0, 1)))(params, rows)
    _, codes, *_ = _oracle(plans, params, rows, ids)
    expected = np.zeros(params['values'].shape)
    for f, columns in enumerate(([0], [1, 2])):
      for b, c, g in np.ndindex(len(ids), 3, 2):
        if c in columns and ids[b, c] >= 0:
          book = 0 if options.get('shared') else g
          own = weights[b, c, 3 * g : 3 * g + 3]
          expected[f, book, codes[b, c, g]] += own
    np.testing.assert_allclose(grads['values'], expected, atol=1e-12)

    def mixed(keys, rows):
      now = {'keys': keys, 'values': params['values']}
      return (weights * _oracle(plans, now, rows, ids, soft=True)[0]).sum()

    keys, step = np.asarray(params['keys']), 1e-6
    directions = rng.normal(size=(4, keys.size + rows.size))
    for direction in directions:
      to_keys = direction[: keys.size].reshape(keys.shape)
      to_rows = direction[keys.size :].reshape(rows.shape)
      numeric = (
        mixed(keys + step * to_keys, rows + step * to_rows)
        - mixed(keys - step * to_keys, rows - step * to_rows)
      ) / (2 * step)
      exact = (grads['keys'] * to_keys).sum() + (row_grads * to_rows).sum()
      np.testing.assert_allclose(exact, numeric, rtol=1e-6)

  def test_equal_tiers_are_no_tiers(self):
    """MGQE with the head's centroids for all is DPQ, bit for bit."""
    rows, ids = _inputs()
    plain = quantizers.Codebooks(_plans(tiers=((1.0, 8),)))
    tiered = quantizers.Codebooks(_plans(tiers=((0.4, 8), (1.0, 8))))
    variables = _variables(plain, rows, ids)
    jax.tree.map(
      np.testing.assert_array_equal,
      _train(plain, variables, rows, ids),
      _train(tiered, variables, rows, ids),
    )

  def test_padding_changes_nothing(self):
    rows, ids = _inputs()
    for kind in fields_lib.QUANTIZERS:
      module = quantizers.Codebooks(_plans(kind))
      variables = _variables(module, rows, ids)
      other = np.where((ids >= 0)[..., None], rows, -1e3)
      got, expected = (_train(module, variables, x, ids) for x in (other, rows))
      jax.tree.map(np.testing.assert_array_equal, got, expected)
      self.assertTrue(np.all(np.asarray(got[0])[ids < 0] == 0))

  def test_queries_of_any_size_are_told_apart(self):
    """As small as the BARS protocol's they would drown in the usual bound."""
    plans, (rows, ids) = _plans('vq'), _inputs()
    module = quantizers.Codebooks(plans)
    variables = _variables(module, rows, ids)
    small = jax.tree.map(lambda x: 1e-4 * x, variables['params'])
    expected, _ = _train(module, variables, rows, ids)
    got, _ = _train(module, variables | {'params': small}, 1e-4 * rows, ids)
    np.testing.assert_allclose(got, 1e-4 * expected, rtol=1e-12)

  def test_enough_centroids_fit_any_table(self):
    """One group, as many centroids as rows, from a start near the rows."""
    rng = np.random.default_rng(2)
    table = rng.normal(size=(8, 4))
    field = fields_lib.FieldPlan(
      'f',
      'categorical',
      4,
      vocab_size=8,
      quantizer=fields_lib.Quantizer('vq', 1, (fields_lib.Tier(8, 8),)),
    )
    module = quantizers.Codebooks((field,))
    ids = np.arange(8, dtype=np.int32)[:, None]
    rows = table[:, None]
    variables = _init(module, rows, ids)
    variables = jax.tree.map(lambda x: x.astype(jnp.float64), variables)
    start = table[rng.permutation(8)] + 0.2 * rng.normal(size=(8, 4))
    variables['params'] = {'values': jnp.asarray(start)[None, None]}

    @jax.jit
    def step(variables):
      def loss(params):
        _, updated = _train(module, variables | {'params': params}, rows, ids)
        return updated['losses']['pull'][0], updated['batch_stats']

      grads, stats = jax.grad(loss, has_aux=True)(variables['params'])
      moved = jax.tree.map(lambda w, g: w - 8.0 * g, variables['params'], grads)
      return {'params': moved, 'batch_stats': stats}

    for _ in range(100):
      variables = step(variables)
    out = _evaluate(module, variables, rows, ids)
    np.testing.assert_allclose(out, rows, atol=1e-6)
    usage = variables['batch_stats']['usage'][0]
    self.assertAlmostEqual(quantizers.entropy(usage), 1.0)


class EntropyTest(absltest.TestCase):
  def test_is_the_mean_share_of_its_bound(self):
    self.assertEqual(quantizers.entropy(np.array([[7, 0, 0, 0]])), 0)
    self.assertAlmostEqual(quantizers.entropy(np.full((3, 4), 5)), 1)
    # Half a bit of two, and one bit of two.
    counts = np.array([[2, 2, 0, 0], [1, 1, 1, 1]])
    self.assertAlmostEqual(quantizers.entropy(counts), 0.75)


class CodesTest(parameterized.TestCase):
  @parameterized.parameters(
    # Tiers, groups: codes that straddle two and three bytes among them.
    (((23, 8),), 3),
    (((7, 256), (50, 4)), 4),
    (((5, 4096), (11, 512), (40, 2)), 5),
    (((9, 65536),), 1),
  )
  def test_bits_come_back(self, tiers, groups):
    plan = fields_lib.Quantizer(
      'vq', groups, tuple(fields_lib.Tier(*tier) for tier in tiers)
    )
    rng, parts, expected, start, bits = np.random.default_rng(0), [], [], 0, 0
    for tier in plan.tiers:
      codes = rng.integers(0, tier.centroids, (tier.stop - start, groups))
      codes[0], codes[-1] = tier.centroids - 1, 0
      parts.append(quantizers.write_codes(codes, tier.bits))
      expected.append(codes)
      bits += 8 * -(-codes.size * int(np.log2(tier.centroids)) // 8)
      start = tier.stop
    packed = np.concatenate(parts)
    self.assertEqual(packed.dtype, np.uint8)
    self.assertLen(packed, plan.code_bytes)
    self.assertEqual(8 * plan.code_bytes, bits)
    ids = rng.permutation(start).astype(np.int32)
    read = jax.jit(functools.partial(quantizers.read_codes, plan=plan))
    got = read(jnp.asarray(packed), ids=ids)
    np.testing.assert_array_equal(got, np.concatenate(expected)[ids])

  def test_bits_beyond_the_range_of_int32(self):
    """4e8 ids of 8 bits: the number of the last bit is above 2^31."""
    stop = 400_000_000
    plan = fields_lib.Quantizer('vq', 2, (fields_lib.Tier(stop, 16),))
    packed = np.zeros(plan.code_bytes, np.uint8)
    packed[-2:] = 0x5A, 0x3C
    ids = np.array([0, stop - 2, stop - 1], np.int32)
    got = quantizers.read_codes(packed.view(_Lazy), plan, ids)
    np.testing.assert_array_equal(got, [[0, 0], [5, 10], [3, 12]])


class _Lazy(np.ndarray):
  """Bytes that are looked up on the host: a device copy would be large."""

  @property
  def at(self):
    return _At(self)


class _At:
  def __init__(self, array):
    self._array = array

  def __getitem__(self, index):
    array = self._array

    class Get:
      def get(self, mode):
        del mode
        places = np.minimum(np.asarray(index), len(array) - 1)
        return jnp.asarray(np.asarray(array)[places])

    return Get()


if __name__ == '__main__':
  absltest.main()
