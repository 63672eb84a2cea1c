import itertools

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from jax_autorec.nn import products


def _vectors(batch_size=5, num_fields=6, dim=3, seed=0):
  rng = np.random.default_rng(seed)
  return rng.normal(size=(batch_size, num_fields, dim))


def _pairs(num_fields, count=None, seed=0):
  pairs = np.array(list(itertools.combinations(range(num_fields), 2)))
  if count is None:
    return pairs
  rng = np.random.default_rng(seed)
  return pairs[np.sort(rng.choice(len(pairs), count, replace=False))]


def _triples(num_fields, count=None):
  triples = np.array(list(itertools.combinations(range(num_fields), 3)))
  if count is None:
    return triples
  rng = np.random.default_rng(2)
  return triples[np.sort(rng.choice(len(triples), count, replace=False))]


def _loop_products(vectors, terms):
  """Plain float64 loops."""
  out = np.zeros((len(vectors), len(terms)))
  for b, row in enumerate(vectors):
    for t, term in enumerate(terms):
      product = np.ones(vectors.shape[2])
      for field in term:
        product = product * row[field]
      out[b, t] = product.sum()
  return out


class ProductsTest(parameterized.TestCase):
  def test_fm_sum_is_the_sum_of_all_pairs(self):
    vectors = _vectors()
    expected = _loop_products(vectors, _pairs(6)).sum(1)
    got = products.fm_sum(jnp.asarray(vectors, jnp.float32))
    np.testing.assert_allclose(got, expected, rtol=1e-5)

  @parameterized.parameters((6, None), (6, 1), (12, 2), (12, 30), (9, 7))
  def test_pair_products_and_their_gradient(self, num_fields, count):
    vectors = _vectors(num_fields=num_fields)
    pairs = _pairs(num_fields, count)
    weights = np.random.default_rng(1).normal(size=(5, len(pairs)))
    with jax.enable_x64(True):

      def weighed(e):
        values = products.pair_products(e, pairs)
        return (values * weights).sum(), values

      grad, got = jax.grad(weighed, has_aux=True)(jnp.asarray(vectors))
    np.testing.assert_allclose(got, _loop_products(vectors, pairs), rtol=1e-12)
    expected = np.zeros_like(vectors)
    for p, (i, j) in enumerate(pairs):
      expected[:, i] += weights[:, p, None] * vectors[:, j]
      expected[:, j] += weights[:, p, None] * vectors[:, i]
    np.testing.assert_allclose(grad, expected, rtol=1e-10, atol=1e-12)

  def test_gradient_of_pair_products_can_be_differentiated(self):
    vectors, pairs = _vectors(2, 4, 2), _pairs(4)
    with jax.enable_x64(True):
      square = lambda e: (products.pair_products(e, pairs) ** 2).sum()
      plain = lambda e: sum(
        ((e[:, i] * e[:, j]).sum(-1) ** 2).sum() for i, j in pairs
      )
      expected = jax.hessian(plain)(jnp.asarray(vectors))
      for order in (jax.jacfwd, jax.jacrev):
        for inner in (jax.jacfwd, jax.jacrev):
          got = order(inner(square))(jnp.asarray(vectors))
          np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-9)

  @parameterized.parameters(
    *itertools.product((2,), (True, False), ('__call__', 'total')),
    (3, True, 'total'),
  )
  def test_gradient_of_gates_can_be_differentiated_forward(
    self, order, normalize, method
  ):
    """By the vectors, which it does not differentiate: second-order search."""
    vectors = _vectors(6, 4, 2)
    mask = np.arange(6) < 5
    terms = _pairs(4) if order == 2 else _triples(4)
    module = products.Products(
      terms=tuple(map(tuple, terms.tolist())), normalize=normalize
    )

    def gate_grad(e):
      def value(gate):
        variables = {'params': {'gate': gate}}
        out, _ = module.apply(
          variables,
          e,
          mask,
          train=True,
          method=method,
          mutable=['batch_stats'],
        )
        return (mask * out.reshape(6, -1).sum(1) ** 2).sum()

      return jax.grad(value)(jnp.linspace(0.1, 1, len(terms)))

    with jax.enable_x64(True):
      x = jnp.asarray(vectors)
      along = jnp.asarray(_vectors(6, 4, 2)[::-1].copy())
      _, got = jax.jvp(gate_grad, (x,), (along,))
      step = 1e-6
      expected = gate_grad(x + step * along) - gate_grad(x - step * along)
    np.testing.assert_allclose(got, expected / (2 * step), rtol=1e-6, atol=1e-7)

  @parameterized.parameters((10, None), (10, 3), (10, 50), (39, 30))
  def test_triple_products_and_their_gradient(self, num_fields, count):
    vectors = _vectors(num_fields=num_fields)
    triples = _triples(num_fields, count)
    weights = np.random.default_rng(1).normal(size=(5, len(triples)))
    with jax.enable_x64(True):

      @jax.jit
      def weighed(e):
        values = products.triple_products(e, triples)
        return (values * weights).sum(), values

      x = jnp.asarray(vectors)
      grad, got = jax.grad(weighed, has_aux=True)(x)
    np.testing.assert_allclose(got, _loop_products(vectors, triples), rtol=1e-9)
    expected = np.zeros_like(vectors)
    for t, term in enumerate(triples):
      for field in term:
        i, j = (f for f in term if f != field)
        product = vectors[:, i] * vectors[:, j]
        expected[:, field] += weights[:, t, None] * product
    np.testing.assert_allclose(grad, expected, rtol=1e-9, atol=1e-11)

  def test_all_triples_of_39_fields_need_little_memory(self):
    """Per example, while their gated sum is trained."""
    module = products.Products(tuple(map(tuple, _triples(39).tolist())))
    batch_size, dim = 64, 16
    x = jax.ShapeDtypeStruct((batch_size, 39, dim), jnp.float32)
    mask = np.ones(batch_size, bool)
    variables = jax.eval_shape(
      lambda x: module.init(jax.random.key(0), x, mask, train=True), x
    )

    def loss(variables, x):
      total, _ = module.apply(
        variables,
        x,
        mask,
        train=True,
        method='total',
        mutable=['batch_stats'],
      )
      return jnp.tanh(total).sum()

    grad = jax.jit(jax.grad(loss, argnums=(0, 1), allow_int=True))
    used = grad.lower(variables, x).compile().memory_analysis()
    constant = 4 * len(module.terms) * 12 + 4 * 37 * 39**2 * 12
    per_example = (used.temp_size_in_bytes - constant) / batch_size
    # Of [T, D] an example would take 585 kB, of [T] 37 kB.
    self.assertLess(per_example, 37e3)


class GatedProductsTest(parameterized.TestCase):
  def _module(self, pairs, **kwargs):
    rng = np.random.default_rng(3)
    return products.Products(
      terms=tuple(map(tuple, pairs.tolist())),
      gate_init=tuple(rng.normal(size=len(pairs)).tolist()),
      **kwargs,
    )

  @parameterized.parameters(
    *itertools.product((2,), (None, 1, 8), (True, False), (True, False)),
    (3, None, True, True),
    (3, 20, True, True),
    (3, 20, False, True),
  )
  def test_total_is_the_sum_and_learns_the_same(
    self, order, count, train, normalize
  ):
    # Statistics away from 0 and 1, and a padding row that must not count.
    vectors = 0.5 + _vectors(batch_size=40, num_fields=7)
    vectors[-1] = 1e3
    mask = np.arange(40) < 39
    pairs = _pairs(7, count) if order == 2 else _triples(7, count)
    module = self._module(pairs, normalize=normalize)
    with jax.enable_x64(True):
      x = jnp.asarray(vectors)
      variables = module.init(jax.random.key(0), x, mask, train=False)
      if normalize:
        stats = {
          'mean': jnp.linspace(0.1, 0.7, len(pairs)),
          'var': jnp.linspace(0.5, 2.5, len(pairs)),
        }
        variables = {**variables, 'batch_stats': {'norm': stats}}
      variables = jax.tree.map(lambda v: v.astype(jnp.float64), variables)
      weights = jnp.asarray(np.random.default_rng(5).normal(size=40) * mask)

      def run(variables, x, method):
        out, updates = module.apply(
          variables,
          x,
          mask,
          train=train,
          mutable=['batch_stats'],
          method=method,
        )
        total = out if out.ndim == 1 else out.sum(1)
        return (total * weights).sum(), (total, updates)

      results = {
        name: jax.jit(
          jax.value_and_grad(run, argnums=(0, 1), has_aux=True),
          static_argnums=2,
        )(variables, x, name)
        for name in ('total', '__call__')
      }
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-8),
      results['total'],
      results['__call__'],
    )

  def test_normalisation_is_that_of_the_live_rows(self):
    vectors = _vectors(batch_size=30, num_fields=5)
    mask = np.arange(30) < 21
    pairs = _pairs(5)
    values = _loop_products(vectors, pairs)
    mean, var = values[:21].mean(0), values[:21].var(0)
    module = self._module(pairs, normalize=True)
    expected = (values - mean) / np.sqrt(var + 1e-3)
    expected = expected * np.array(module.gate_init)
    with jax.enable_x64(True):
      x = jnp.asarray(vectors)
      variables = module.init(jax.random.key(0), x, mask, train=False)
      got, updates = module.apply(
        variables, x, mask, train=True, mutable=['batch_stats']
      )
      # Scaling all vectors changes nothing but for epsilon's share.
      scaled, _ = module.apply(
        variables, 30 * x, mask, train=True, mutable=['batch_stats']
      )
    np.testing.assert_allclose(got[:21], expected[:21], rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(scaled[:21], got[:21], rtol=2e-2, atol=2e-2)
    stats = updates['batch_stats']['norm']
    np.testing.assert_allclose(stats['mean'], 0.01 * mean, rtol=1e-5)
    np.testing.assert_allclose(stats['var'], 0.99 + 0.01 * var, rtol=1e-5)

  def test_serves_with_its_defaults(self):
    module = products.Products(terms=((0, 1), (0, 3)), normalize=False)
    vectors, mask = _vectors(), np.ones(5, bool)
    variables = module.init(jax.random.key(0), vectors, mask, train=False)
    np.testing.assert_allclose(
      module.apply(variables, vectors, mask, train=False),
      0.6 * _loop_products(vectors, module.terms),
      rtol=1e-5,
    )

  def test_search_adds_one_scalar_per_product(self):
    pairs = _pairs(6)
    module = self._module(pairs, gates='arch')
    x = jnp.asarray(_vectors(), jnp.float32)
    variables = module.init(jax.random.key(0), x, np.ones(5, bool), train=False)
    self.assertEqual(
      jax.tree.map(jnp.shape, variables['arch']), {'gate': (15,)}
    )
    self.assertNotIn('params', variables)


if __name__ == '__main__':
  absltest.main()
