"""Open field vectors against every candidate's own path, in float64."""

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from jax_autorec import fields as fields_lib
from jax_autorec.nn import field_choices

_NAMES = ('a', 'b', 'c')
_LIVE = 30
_MASK = np.arange(37) < _LIVE


def _module(**options):
  plan = fields_lib.MixedDims((2, 3, 5), **options)
  fields = [
    fields_lib.FieldPlan(name, 'categorical', plan.table_dim, vocab_size=9)
    for name in _NAMES
  ]
  return plan, field_choices.build(plan, fields, None, 'fields')


def _variables(module, rows, seed=0):
  rng = np.random.default_rng(seed)
  variables = module.init(jax.random.key(seed), rows, _MASK, train=False)
  weights = rng.dirichlet(np.ones(3), len(_NAMES)).astype(np.float32)
  return variables | {'arch': {'weights': jnp.asarray(weights)}}


def _rows(width, seed=1):
  rng = np.random.default_rng(seed)
  mixed = rng.normal(size=(37, 3, width)) @ rng.normal(size=(width, width))
  return (mixed + rng.normal(size=(1, 3, width))).astype(np.float32)


def _candidates(plan, variables, rows, epsilon=1e-5):
  """[N, live, F, D]: lookup, map, normalise, one candidate after another."""
  params = jax.tree.map(
    lambda x: np.asarray(x, np.float64), variables.get('params', {})
  )
  rows = rows[:_LIVE].astype(np.float64)
  out = np.zeros((3, *rows.shape[:2], plan.width))
  for n, (dim, start) in enumerate(zip(plan.dims, plan.first_columns)):
    for field in range(len(_NAMES)):
      own = rows[:, field, start : start + dim]
      if plan.transform == 'linear':
        kernel = params[f'kernel_{dim}']
        kernel = kernel[field] if plan.transforms == 'field' else kernel
        # The offset that the paper adds makes no difference.
        own = own @ kernel + 0.7
      own = (own - own.mean(0)) / np.sqrt(own.var(0) + epsilon)
      out[n, :, field, : own.shape[1]] = own
  return out


_OPTIONS = [
  dict(tables=tables, transform=transform, transforms=transforms)
  for tables in fields_lib.TABLES
  for transform, transforms in (
    ('linear', 'field'),
    ('linear', 'shared'),
    ('zero_pad', 'field'),
  )
]


class MixedDimsTest(parameterized.TestCase):
  @parameterized.parameters(*_OPTIONS)
  def test_the_one_map_equals_the_sum_over_candidates(self, **options):
    plan, module = _module(**options)
    rows = _rows(plan.table_dim)
    variables = _variables(module, rows)
    got, _ = module.apply(
      variables, rows, _MASK, train=True, mutable=['batch_stats']
    )
    weights = np.asarray(variables['arch']['weights'], np.float64)
    paths = _candidates(plan, variables, rows)
    expected = np.einsum('fn,nbfd->bfd', weights, paths)
    np.testing.assert_allclose(got[:_LIVE], expected, rtol=2e-4, atol=2e-5)

  @parameterized.parameters(*_OPTIONS)
  def test_one_hot_weights_are_that_candidate(self, **options):
    plan, module = _module(**options)
    rows = _rows(plan.table_dim)
    variables = _variables(module, rows)
    paths = _candidates(plan, variables, rows)
    for n in range(3):
      variables['arch'] = {'weights': jnp.eye(3)[jnp.full(3, n)]}
      got, _ = module.apply(
        variables, rows, _MASK, train=True, mutable=['batch_stats']
      )
      np.testing.assert_allclose(got[:_LIVE], paths[n], rtol=2e-4, atol=2e-5)

  def test_the_scale_of_rows_does_not_matter(self):
    plan, module = _module()
    rows = 40 * _rows(plan.table_dim)
    variables = _variables(module, rows)
    apply = lambda x: module.apply(
      variables, x, _MASK, train=True, mutable=['batch_stats']
    )[0]
    np.testing.assert_allclose(
      apply(rows)[:_LIVE], apply(3 * rows)[:_LIVE], atol=1e-4
    )

  def test_gradients_of_prefixes_of_a_shared_row(self):
    """Every candidate reaches the first columns, the widest alone the last."""
    plan, module = _module(transform='zero_pad')
    rows = _rows(plan.table_dim)
    variables = _variables(module, rows)

    def loss(rows, weights):
      out, _ = module.apply(
        variables | {'arch': {'weights': weights}},
        rows,
        _MASK,
        train=True,
        mutable=['batch_stats'],
      )
      return jnp.sin(out).sum()

    for n, dim in enumerate(plan.dims):
      one_hot = jnp.eye(3)[jnp.full(3, n)]
      grads = np.abs(jax.grad(loss)(rows, one_hot)).sum((0, 1))
      self.assertTrue(np.all(grads[:dim] > 0))
      self.assertTrue(np.all(grads[dim:] == 0))

  def test_padding_is_neither_read_nor_normalised_by(self):
    plan, module = _module()
    rows = _rows(plan.table_dim)
    variables = _variables(module, rows)
    other = rows.copy()
    other[_LIVE:] = 1e3
    outs = [
      module.apply(x_vars, x, _MASK, train=True, mutable=['batch_stats'])
      for x_vars, x in ((variables, rows), (variables, other))
    ]
    np.testing.assert_allclose(
      outs[0][0][:_LIVE], outs[1][0][:_LIVE], atol=1e-6
    )
    jax.tree.map(np.testing.assert_array_equal, outs[0][1], outs[1][1])

  def test_running_moments_serve_an_evaluation(self):
    plan, module = _module()
    rows = _rows(plan.table_dim)
    variables = _variables(module, rows)
    trained = variables
    for _ in range(200):
      out, stats = module.apply(
        trained, rows, _MASK, train=True, mutable=['batch_stats']
      )
      trained = trained | stats
    evaluated = module.apply(trained, rows, _MASK, train=False)
    np.testing.assert_allclose(
      evaluated[:_LIVE], out[:_LIVE], rtol=1e-3, atol=1e-4
    )


_DIMS = (2, 3, 5)


def _growing(seed=0):
  """Rows of two fields at all sizes, and their module's parameters."""
  rng = np.random.default_rng(seed)
  plan = fields_lib.GrowingRows(_DIMS)
  fields = [
    fields_lib.FieldPlan(name, 'categorical', 5, vocab_size=9) for name in 'ab'
  ]
  module = field_choices.build(plan, fields, None, 'fields')
  rows = rng.normal(size=(12, 2, 5)).astype(np.float32)
  sizes = rng.integers(0, 3, (12, 2)).astype(np.int32)
  mask = np.ones(12, bool)
  params = module.init(jax.random.key(1), rows, mask, train=False)['params']
  params = jax.tree.map(
    lambda x: jnp.asarray(rng.normal(size=x.shape), jnp.float32), params
  )
  apply = lambda params, rows, sizes: module.apply(
    {'params': params, 'arch': {'size': sizes}}, rows, mask, train=True
  )
  return params, rows, sizes, apply


def _explicit(params, row, size, field):
  """The chain for one row, map by map, in float64."""
  vector = np.asarray(row, np.float64)[: _DIMS[size]]
  for k in range(size, len(_DIMS) - 1):
    kernel = np.asarray(params[f'kernel_{k}'][field], np.float64)
    vector = vector @ kernel + np.asarray(params[f'offset_{k}'][field])
  return vector


class GrowingRowsTest(parameterized.TestCase):
  def test_the_chain_is_the_product_of_its_maps(self):
    params, rows, sizes, apply = _growing()
    got = apply(params, rows, sizes)
    for b in range(12):
      for field in range(2):
        size = sizes[b, field]
        expected = _explicit(params, rows[b, field], size, field)
        np.testing.assert_allclose(got[b, field], expected, rtol=1e-4)
        kernel, offset = field_choices.chain(params, _DIMS, field)[size]
        composed = rows[b, field, : _DIMS[size]] @ kernel + offset
        np.testing.assert_allclose(composed, expected, rtol=1e-6)

  def test_growing_changes_no_vector(self):
    params, rows, sizes, apply = _growing()
    grows = (np.arange(24).reshape(12, 2) % 3 > 0) & (sizes < 2)
    grown = field_choices.grow(params, _DIMS, rows, sizes, grows)
    before = apply(params, rows, sizes)
    after = apply(params, grown, sizes + grows)
    scale = np.abs(before).max()
    np.testing.assert_allclose(after / scale, before / scale, atol=1e-6)
    # Rows that do not grow keep their bits, and grown ones what lies beyond.
    np.testing.assert_array_equal(grown[~grows], rows[~grows])
    beyond = np.array(_DIMS)[(sizes + grows)[grows]]
    for row, old, start in zip(grown[grows], rows[grows], beyond):
      np.testing.assert_array_equal(row[start:], old[start:])

  def test_only_the_live_part_of_a_row_gets_gradients(self):
    params, rows, sizes, apply = _growing()
    loss = lambda rows: jnp.sin(apply(params, rows, sizes)).sum()
    grads = np.asarray(jax.grad(loss)(rows))
    live = np.arange(5) < np.array(_DIMS)[sizes][..., None]
    self.assertTrue(np.all(grads[live] != 0))
    self.assertTrue(np.all(grads[~live] == 0))

  def test_narrowed_is_the_nearest_that_a_smaller_size_makes(self):
    params, rows, sizes, apply = _growing()
    vectors = np.asarray(apply(params, rows, sizes), np.float64)
    got = field_choices.narrowed(params, _DIMS, vectors, sizes)
    for b in range(12):
      for field in range(2):
        size, vector = sizes[b, field], vectors[b, field]
        expected = vector
        if size:
          kernel, offset = field_choices.chain(params, _DIMS, field)[size - 1]
          solved = np.linalg.lstsq(kernel.T, vector - offset, rcond=None)[0]
          expected = solved @ kernel + offset
        error = np.abs(got[b, field] - expected).max()
        self.assertLess(error, 2e-3 * np.abs(vector).max())
    # A row that has only just grown is what the smaller size makes.
    grows = sizes < 2
    grown = field_choices.grow(params, _DIMS, rows, sizes, grows)
    same = field_choices.narrowed(
      params, _DIMS, apply(params, grown, sizes + grows), sizes + grows
    )
    error = np.abs(same - vectors)[grows].max()
    self.assertLess(error, 2e-3 * np.abs(vectors).max())


class MixedRowsTest(parameterized.TestCase):
  def test_mixes_candidates_row_by_row(self):
    rng = np.random.default_rng(0)
    plan = fields_lib.MixedRows((2, 3))
    fields = [
      fields_lib.FieldPlan(name, 'categorical', 5, vocab_size=9)
      for name in 'ab'
    ]
    module = field_choices.build(plan, fields, None, 'fields')
    rows = rng.normal(size=(37, 2, 5)).astype(np.float32)
    weights = rng.dirichlet(np.ones(2), (37, 2)).astype(np.float32)
    variables = module.init(jax.random.key(0), rows, _MASK, train=False)
    variables |= {'arch': {'weights': weights}}
    params = variables['params']
    params['scale'] = params['scale'] * 1.7
    params['offset'] = params['offset'] + 0.3
    got, _ = module.apply(
      variables, rows, _MASK, train=True, mutable=['batch_stats']
    )
    expected = np.zeros((_LIVE, 2, 3))
    for n, part in enumerate((slice(0, 2), slice(2, 5))):
      for field in range(2):
        kernel = np.asarray(params[f'kernel_{n}'][field], np.float64)
        z = rows[:_LIVE, field, part] @ kernel
        z = (z - z.mean(0)) / np.sqrt(z.var(0) + 1e-5)
        mixed = weights[:_LIVE, field, n, None] * np.tanh(1.7 * z + 0.3)
        expected[:, field] += mixed
    np.testing.assert_allclose(got[:_LIVE], expected, rtol=1e-4, atol=1e-5)


class MixedBucketsTest(parameterized.TestCase):
  def test_mixes_values_by_their_bucket_before_they_are_pooled(self):
    """Against every value and candidate alone, a field of two values too."""
    rng = np.random.default_rng(0)
    dims, starts = (1, 3), ((0, 2, 5), (0,))
    plan = fields_lib.MixedBuckets(dims, starts)
    fields = [
      fields_lib.FieldPlan('a', 'categorical', 4, vocab_size=9, max_length=2),
      fields_lib.FieldPlan('b', 'categorical', 4, vocab_size=9),
    ]
    module = field_choices.build(plan, fields, None, 'fields')
    ids = rng.integers(0, 9, (37, 3)).astype(np.int32)
    ids[::3, 1] = -1
    tables = rng.normal(size=(2, 9, 4))
    owner = np.array([0, 0, 1])
    rows = np.where((ids >= 0)[..., None], tables[owner[None], ids], 0)
    rows = rows.astype(np.float32)
    weights = rng.dirichlet(np.ones(2), (2, 3)).astype(np.float32)
    pool = lambda x: np.stack(
      [x[:, :2].sum(1) / (ids[:, :2] >= 0).sum(1)[:, None], x[:, 2]], 1
    )
    variables = module.init(
      jax.random.key(0), np.zeros((37, 2, 10), np.float32), _MASK, train=False
    )
    variables |= {'arch': {'weights': weights}}
    values = module.apply(variables, rows, ids, method='values')
    got, _ = module.apply(
      variables,
      pool(np.asarray(values)).astype(np.float32),
      _MASK,
      train=True,
      mutable=['batch_stats'],
    )
    bucket = np.stack(
      [
        np.searchsorted(starts[f], ids[:, c], 'right') - 1
        for c, f in enumerate(owner)
      ],
      1,
    )
    expected, start = np.zeros((37, 2, 3)), 0
    for n, dim in enumerate(dims):
      own = rows[..., start : start + dim].astype(np.float64)
      kernels = np.asarray(variables['params'][f'kernel_{dim}'], np.float64)
      z = np.einsum('bcd,cdk->bck', own, kernels[owner])
      pooled = pool(z)[:_LIVE]
      mean, std = pooled.mean(0), np.sqrt(pooled.var(0) + 1e-5)
      normal = (z - mean[owner]) / std[owner]
      live = (ids >= 0)[..., None]
      expected += pool(live * weights[owner, bucket][..., n, None] * normal)
      start += dim
    np.testing.assert_allclose(got[:_LIVE], expected[:_LIVE], atol=1e-4)


if __name__ == '__main__':
  absltest.main()
