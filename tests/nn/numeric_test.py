"""Numeric embeddings against the formulas, in float64 and field by field."""

import dataclasses

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from jax_autorec import errors, numeric, spaces
from jax_autorec import schema as schema_lib
from jax_autorec.nn import embeddings
from jax_autorec.nn import numeric as numeric_nn
from jax_autorec.train import state as state_lib

_FIELDS, _BUCKETS, _DIM, _ROWS = 3, 5, 4, 40


def _quantiles(seed=0, buckets=_BUCKETS):
  rng = np.random.default_rng(seed)
  return np.sort(rng.normal(size=(_FIELDS, buckets + 1)), 1).astype(np.float32)


def _statistics(seed=1):
  rng = np.random.default_rng(seed)
  return rng.uniform(size=(_FIELDS, 17)).astype(np.float32)


def _module(**options):
  plan = numeric.AutoDis(**{'buckets': _BUCKETS, **options})
  return numeric_nn.AutoDis(
    plan, _DIM, _quantiles(buckets=plan.buckets), _statistics()
  )


def _cells(seed=2):
  rng = np.random.default_rng(seed)
  values = rng.normal(size=(_ROWS, _FIELDS)).astype(np.float32)
  missing = rng.random(values.shape) < 0.2
  return np.where(missing, 7, values).astype(np.float32), missing


def _random(module, seed=3):
  rng = np.random.default_rng(seed)
  params = module.init(jax.random.key(0), *_cells())['params']
  return jax.tree.map(
    lambda x: jnp.asarray(rng.normal(size=x.shape), jnp.float32), params
  )


def _leaky(x):
  return np.where(x > 0, x, 0.01 * x)


def _softmax(x):
  x = np.exp(x - x.max())
  return x / x.sum()


def _oracle(module, params, values, missing):
  """[B, N, D] and weights [B, N, H], one value at a time."""
  plan = module.plan
  p = jax.tree.map(lambda x: np.asarray(x, np.float64), dict(params))
  zeros = np.zeros((_FIELDS, plan.buckets))
  bias, mix_bias = p.get('bias', zeros), p.get('mix_bias', zeros)
  vectors = np.zeros((_ROWS, _FIELDS, _DIM))
  weights = np.zeros((_ROWS, _FIELDS, plan.buckets))
  for j in range(_FIELDS):
    if plan.form == 'B':
      eye = np.eye(plan.buckets)
      mix = p['mix'][j] + (0.8 if plan.skip is None else plan.skip) * eye
      if plan.use_bias:
        # In units of what would move a score by 1 / H of the temperature.
        quantiles = np.asarray(module.quantiles, np.float64)
        lines = numeric_nn.Lines(quantiles, plan.temperature)
        reach = np.abs(lines.slopes[j]) * np.ptp(quantiles[j])
        reach = np.maximum(reach, plan.temperature) * plan.buckets
        mix = eye + p['mix'][j] * (plan.temperature / reach)[None]
    for row in range(_ROWS):
      x = 0.0 if missing[row, j] else float(values[row, j])
      s = p['weight'][j] * x + bias[j]
      if plan.form == 'B':
        h = _leaky(s)
        s = mix @ h + mix_bias[j]
      tau = plan.temperature
      if plan.adaptive:
        inputs = np.append(np.float64(module.statistics[j]), x)
        raw = _leaky(inputs @ p['temperature_in']) @ p['temperature_out']
        spread = plan.temperature_spread
        tau = tau - spread + 2 * spread / (1 + np.exp(-raw[0]))
      weights[row, j] = _softmax(s / tau)
      order = np.argsort(-weights[row, j], kind='stable')
      if plan.aggregation == 'average':
        vectors[row, j] = weights[row, j] @ p['meta'][j]
      elif plan.aggregation == 'max':
        vectors[row, j] = p['meta'][j][order[0]]
      else:
        vectors[row, j] = p['meta'][j][order[: plan.top_k]].sum(0)
      if missing[row, j]:
        vectors[row, j] = p['missing'][j]
  return vectors, weights


class AutoDisTest(parameterized.TestCase):
  @parameterized.product(
    form=('A', 'B'), use_bias=(True, False), adaptive=(True, False)
  )
  def test_against_the_formulas(self, **options):
    module = _module(temperature=0.7, **options)
    params, cells = _random(module), _cells()
    got = module.apply({'params': params}, *cells)
    weights = module.apply({'params': params}, cells[0], method='weights')
    vectors, expected = _oracle(module, params, *cells)
    np.testing.assert_allclose(got, vectors, rtol=2e-4, atol=2e-5)
    live = ~cells[1]
    np.testing.assert_allclose(
      np.asarray(weights)[live], expected[live], rtol=2e-4, atol=2e-5
    )
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-5)

  @parameterized.parameters('max', 'top_k')
  def test_hard_aggregations_against_the_formulas(self, aggregation):
    module = _module(aggregation=aggregation, top_k=2, use_bias=False)
    params, cells = _random(module), _cells()
    got = module.apply({'params': params}, *cells)
    vectors, _ = _oracle(module, params, *cells)
    np.testing.assert_allclose(got, vectors, rtol=2e-4, atol=2e-5)

  @parameterized.parameters('max', 'top_k')
  def test_hard_aggregations_have_the_gradient_of_the_average(self, kind):
    """In scores; the vectors that were taken get all of theirs."""
    hard = _module(aggregation=kind, top_k=2, form='A', temperature=1.0)
    soft = _module(form='A', temperature=1.0)
    params, cells = _random(hard), _cells()
    slope = jnp.asarray(_cells(5)[0][:, :, None] * np.ones(_DIM, np.float32))

    def total(module, params):
      return (module.apply({'params': params}, *cells) * slope).sum()

    grads = jax.grad(total, 1)(hard, params)
    expected = jax.grad(total, 1)(soft, params)
    for name in ('weight', 'bias'):
      np.testing.assert_allclose(
        grads[name], expected[name], rtol=1e-4, atol=1e-5
      )
      self.assertGreater(np.abs(grads[name]).max(), 1e-2)
    weights = hard.apply({'params': params}, cells[0], method='weights')
    order = np.argsort(-np.asarray(weights), 2, 'stable')
    taken = np.zeros(weights.shape)
    count = 2 if kind == 'top_k' else 1
    np.put_along_axis(taken, order[:, :, :count], 1.0, 2)
    taken *= ~cells[1][:, :, None]
    meta = np.einsum('bnh,bnd->nhd', taken, np.float64(slope))
    np.testing.assert_allclose(grads['meta'], meta, rtol=1e-4, atol=1e-4)

  @parameterized.parameters('A', 'B')
  def test_without_offsets_one_bucket_leads_on_a_whole_half_axis(self, form):
    """The published map is homogeneous: s(t x) = t s(x) for t > 0."""
    module = _module(form=form, use_bias=False)
    params = _random(module)
    rng = np.random.default_rng(0)
    x = np.abs(rng.normal(size=(_ROWS, _FIELDS))).astype(np.float32)
    for sign in (1, -1):
      scores = module.apply({'params': params}, sign * x, method='scores')
      twice = module.apply({'params': params}, sign * 2 * x, method='scores')
      np.testing.assert_allclose(twice, 2 * scores, rtol=1e-4, atol=1e-5)
      leaders = np.asarray(scores).argmax(-1)
      self.assertTrue((leaders == leaders[:1]).all())
    even = module.apply({'params': params}, 0 * x, method='weights')
    np.testing.assert_allclose(even, 1 / _BUCKETS, rtol=1e-5)
    # With offsets, the same parameters have leaders that change.
    biased = _module(form=form)
    scores = biased.apply({'params': _random(biased)}, 3 * x, method='scores')
    leaders = np.asarray(scores).argmax(-1)
    self.assertFalse((leaders == leaders[:1]).all())

  @parameterized.parameters(
    dict(form='A'), dict(form='B'), dict(form='B', temperature=1e-3)
  )
  def test_buckets_start_between_quantiles(self, **options):
    module = _module(buckets=8, **options)
    quantiles = np.asarray(module.quantiles, np.float64)
    variables = module.init(jax.random.key(0), *_cells())
    inner = quantiles[:, 1:-1]
    at = module.apply(variables, inner.T.astype('f4'), method='scores')
    top = np.sort(np.asarray(at, np.float64), -1)
    scale = np.abs(np.asarray(at)).max()
    np.testing.assert_allclose(top[..., -1], top[..., -2], atol=2e-5 * scale)
    middles = (quantiles[:, 1:] + quantiles[:, :-1]) / 2
    scores = module.apply(variables, middles.T.astype('f4'), method='scores')
    expected = np.repeat(np.arange(8)[:, None], _FIELDS, 1)
    np.testing.assert_array_equal(np.asarray(scores).argmax(-1), expected)

  def test_limits(self):
    params = _random(_module())
    values, missing = _cells()
    missing = np.zeros_like(missing)
    apply = lambda **o: _module(**o).apply({'params': params}, values, missing)
    meta = np.asarray(params['meta'])
    # Hot: the mean of all vectors; cold: the largest alone.
    hot = apply(temperature=1e6, form='A')
    expected = np.broadcast_to(meta.mean(1), hot.shape)
    np.testing.assert_allclose(hot, expected, rtol=1e-3, atol=1e-4)
    cold = apply(temperature=1e-5, form='A')
    np.testing.assert_allclose(
      cold, apply(aggregation='max', form='A'), rtol=1e-3, atol=1e-3
    )
    # In the convex hull of the vectors.
    mixed = np.asarray(apply())
    self.assertTrue((mixed <= meta.max(1) + 1e-5).all())
    self.assertTrue((mixed >= meta.min(1) - 1e-5).all())

  def test_one_bucket_is_a_constant(self):
    module = _module(buckets=1)
    vectors = module.apply({'params': _random(module)}, *_cells())
    live = ~_cells()[1]
    for field in range(_FIELDS):
      own = np.asarray(vectors)[live[:, field], field]
      np.testing.assert_allclose(own, own[:1].repeat(len(own), 0), rtol=1e-6)

  def test_the_order_of_buckets_does_not_matter(self):
    module = _module(use_bias=False)
    params, cells = _random(module), _cells()
    order = np.random.default_rng(0).permutation(_BUCKETS)
    moved = {
      **params,
      'meta': params['meta'][:, order],
      'weight': params['weight'][:, order],
      'mix': params['mix'][:, order][:, :, order],
    }
    np.testing.assert_allclose(
      module.apply({'params': moved}, *cells),
      module.apply({'params': params}, *cells),
      rtol=1e-4,
      atol=1e-5,
    )

  @parameterized.parameters(
    dict(form='A', use_bias=False),
    dict(form='A'),
    dict(form='B', use_bias=False),
    dict(form='B'),
    dict(form='B', adaptive=True, temperature_hidden=6),
  )
  def test_parameters_are_counted(self, **options):
    module = _module(**options)
    params = module.init(jax.random.key(0), *_cells())['params']
    held = sum(x.size for x in jax.tree.leaves(params))
    plan = module.plan
    counted = _FIELDS * plan.num_params(_DIM) + plan.num_shared_params
    self.assertEqual(held, counted)

  def test_published_counts(self):
    """H d + H and H d + H + H^2, and a missing vector."""
    for form, count in (('A', 40 + 10), ('B', 40 + 10 + 100)):
      plan = numeric.AutoDis(buckets=10, form=form, use_bias=False)
      self.assertEqual(plan.num_params(4), count + 4)


class InputsTest(parameterized.TestCase):
  def test_powers_of_the_share_below(self):
    grid = np.array([[0, 1, 2, 4, 4]], np.float32)
    shares = np.array([[0, 0.25, 0.5, 1, 1]], np.float32)
    module = numeric_nn.Powers(grid, shares)
    values = np.array([[-3], [0.5], [3], [4], [9], [1]], np.float32)
    missing = np.array([[False]] * 5 + [[True]])
    params = {'missing': jnp.array([[5.0, 6.0, 7.0]])}
    got = module.apply({'params': params}, values, missing)
    share = np.array([0, 0.125, 0.75, 1, 1])
    expected = np.stack([share, share**2, share**0.5], 1)
    np.testing.assert_allclose(got[:5], expected, rtol=1e-6)
    np.testing.assert_allclose(got[5], [5, 6, 7])

  def test_powers_can_be_differentiated_in_parameters(self):
    """At a share of 0 the root has no slope."""
    module = numeric_nn.Powers(*(np.array([[0.0, 1.0]], np.float32),) * 2)
    cells = np.array([[0.0]], np.float32), np.array([[False]])
    params = module.init(jax.random.key(0), *cells)
    total = lambda params: module.apply(params, *cells).sum()
    grads = jax.tree.leaves(jax.grad(total)(params))
    self.assertTrue(np.isfinite(grads[0]).all())

  def test_bottom_mlp_against_loops(self):
    module = numeric_nn.BottomMLP((6, 2))
    values, missing = _cells()
    params = _random(module)
    got = module.apply({'params': params}, values, missing)
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), dict(params))
    x = np.where(missing, p['missing'], values.astype(np.float64))
    for layer in ('dense_0', 'dense_1'):
      x = np.maximum(x @ p[layer]['kernel'] + p[layer]['bias'], 0)
    np.testing.assert_allclose(got, x, rtol=1e-4, atol=1e-5)
    plan = numeric.BottomMLP((6, 2))
    held = sum(x.size for x in jax.tree.leaves(params))
    counted = _FIELDS * plan.num_params(0) + plan.num_shared_params
    self.assertEqual(held, counted)

  def test_interval_ids_against_loops(self):
    rng = np.random.default_rng(0)
    edges = [np.sort(rng.normal(size=n)).astype('f4') for n in (0, 3, 7)]
    buckets = [rng.integers(1, 9, n + 1) for n in (0, 3, 7)]
    values, missing = _cells()
    values[0] = [
      np.inf,
      edges[1][1],
      edges[2][0],
    ]  # An edge is in its interval.
    missing[0] = False
    got = numeric_nn.interval_ids(values, missing, edges, buckets)
    for j in range(_FIELDS):
      for row in range(_ROWS):
        place = sum(edge <= values[row, j] for edge in edges[j])
        expected = 0 if missing[row, j] else buckets[j][place]
        self.assertEqual(got[row, j], expected)


_SCHEMA = schema_lib.Schema(
  (
    schema_lib.Field('user', vocab_size=5),
    schema_lib.Field('price', 'numeric'),
    schema_lib.Field('age', 'numeric'),
    schema_lib.Field('hours', 'numeric'),
  )
)


class FieldEmbeddingsTest(absltest.TestCase):
  def test_an_unfitted_field_says_what_is_missing(self):
    space = spaces.fm(_SCHEMA, dim=4, numeric=numeric.AutoDis(buckets=3))
    module = embeddings.FieldEmbeddings(space)
    with self.assertRaisesRegex(errors.ConfigError, "'price.quantiles'.*fit"):
      module.init(jax.random.key(0), state_lib.example_batch(_SCHEMA))

  def test_the_place_of_a_field_does_not_matter(self):
    """Fields in another order, with their parameters, give equal vectors."""
    rng = np.random.default_rng(0)
    plan = numeric.AutoDis(buckets=3)
    names = ['price', 'age', 'hours']
    kinds = {'price': plan, 'age': numeric.EqualWidth(2), 'hours': plan}
    arrays = {
      'price.quantiles': np.array([-1, 0, 1, 2], np.float32),
      'hours.quantiles': np.array([-2, -1, 1, 3], np.float32),
      'age.edges': np.array([0.0], np.float32),
      'age.buckets': np.array([1, 2], np.int32),
    }

    def build(order):
      fields = [_SCHEMA.field(name) for name in ('user', *order)]
      schema = schema_lib.Schema(tuple(fields))
      space = spaces.fm(schema, dim=4, numeric=kinds)
      plans = [
        dataclasses.replace(p, vocab_size=3) if p.name == 'age' else p
        for p in space.fields
      ]
      return dataclasses.replace(space, fields=tuple(plans), arrays=arrays)

    def vectors(order, params):
      space = build(order)
      batch = state_lib.example_batch(_SCHEMA, 6)
      places = [names.index(name) for name in order]
      batch = batch._replace(
        numeric=values[:, places], missing=missing[:, places]
      )
      module = embeddings.FieldEmbeddings(space)
      if params is None:
        params = module.init(jax.random.key(0), batch)['params']
        params = jax.tree.map(
          lambda x: jnp.asarray(rng.normal(size=x.shape), jnp.float32), params
        )
      views = module.apply({'params': params}, batch)
      index = space.field_index
      places = [index[name] for name in ('user', *names)]
      return params, views['main'][:, places], views['first_order'][:, places]

    values = rng.normal(size=(6, 3)).astype(np.float32)
    missing = rng.random((6, 3)) < 0.3
    params, *expected = vectors(names, None)
    flip = lambda tree: jax.tree.map(lambda x: x[::-1], tree)
    params = {
      name: flip(tree) if 'autodis' in name or 'numeric' in name else tree
      for name, tree in params.items()
    }
    _, *got = vectors(names[::-1], params)
    for one, other in zip(got, expected):
      np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


if __name__ == '__main__':
  absltest.main()
