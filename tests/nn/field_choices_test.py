"""Open field vectors against every candidate's own path, in float64."""

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from jax_autorec import errors
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


class RowMaskTest(absltest.TestCase):
  def _module(self):
    fields = [
      fields_lib.FieldPlan(n, 'categorical', 4, vocab_size=9, max_length=length)
      for n, length in zip(_NAMES, (1, 3, 1))
    ]
    return field_choices.build(fields_lib.RowMask(4), fields, None, 'fields')

  def test_rows_above_and_columns_before(self):
    module, rng = self._module(), np.random.default_rng(0)
    values = rng.normal(size=(20, 5, 4)).astype(np.float32)
    threshold = np.array([2.0, 3.0, 4.0], np.float32)
    variables = {'arch': {'threshold': threshold}}
    got = module.apply(
      variables, values, np.zeros((20, 5), np.int32), method='values'
    )
    norms = np.abs(values).sum(-1)
    kept = norms > threshold[[0, 1, 1, 1, 2]]
    self.assertBetween(kept.mean(), 0.2, 0.8)
    np.testing.assert_array_equal(got, values * kept[..., None])
    pooled = rng.normal(size=(20, 3, 4)).astype(np.float32)
    length = rng.integers(1, 5, (20, 3)).astype(np.int32)
    got = module.apply(
      {'arch': {'length': length}}, pooled, np.ones(20, bool), train=True
    )
    expected = pooled * (np.arange(4) < length[..., None])
    np.testing.assert_array_equal(got, expected)

  def test_the_slope_of_a_step(self):
    places = np.array([-1.5, -0.7, -0.3, 0.0, 0.1, 0.39, 0.41, 0.99, 1.01])
    slopes = jax.vmap(jax.grad(field_choices.step))(jnp.float32(places))
    expected = [0, 0.4, 0.8, 2, 1.6, 0.44, 0.4, 0.4, 0]
    np.testing.assert_allclose(slopes, expected, rtol=1e-5)
    steps = field_choices.step(jnp.float32(places))
    np.testing.assert_array_equal(steps, places > 0)

  def test_rows_and_thresholds_feel_the_step(self):
    """A row below its threshold can come back."""
    module = self._module()
    values = jnp.full((1, 5, 4), 0.2)  # A norm of .8.

    def total(values, threshold):
      return module.apply(
        {'arch': {'threshold': threshold}},
        values,
        np.zeros((1, 5), np.int32),
        method='values',
      ).sum()

    grads, slope = jax.grad(total, (0, 1))(values, jnp.array([1.0, 1.5, 9.0]))
    # x = -.2: 2 - .8 = 1.2, times the row's sum of .8; x = -.7: .4.
    np.testing.assert_allclose(grads[0, 0], [0.96] * 4, rtol=1e-4)
    np.testing.assert_allclose(slope, [-0.96, -3 * 0.32, 0], rtol=1e-4)


class SoftThresholdTest(parameterized.TestCase):
  def _module(self, granularity, row_scale=1.0):
    plan = fields_lib.SoftThreshold(4, granularity, row_scale=row_scale)
    fields = [
      fields_lib.FieldPlan(n, 'categorical', 4, vocab_size=9, max_length=length)
      for n, length in zip(_NAMES, (1, 3, 1))
    ]
    module = field_choices.build(plan, fields, None, 'fields')
    return plan, module

  @parameterized.parameters(*fields_lib.GRANULARITIES)
  def test_closed_form(self, granularity):
    plan, module = self._module(granularity, row_scale=3.0)
    rng = np.random.default_rng(0)
    values = rng.normal(size=(20, 5, 4)).astype(np.float32)
    values[:3] = 0
    s = rng.normal(size=plan.shape(3)).astype(np.float32)
    own = None
    if plan.row_dim:
      own = rng.normal(size=(20, 5, plan.row_dim)).astype(np.float32)
    got = module.apply(
      {'arch': {'threshold': s}},
      values,
      np.zeros((20, 5), np.int32),
      own,
      method='values',
    )
    zeros = 0
    for row in range(20):
      for column, field in enumerate((0, 1, 1, 1, 2)):
        for d in range(4):
          one = float(s[field % len(s), d % s.shape[1]])
          if own is not None:
            one += 3.0 * float(own[row, column, d % plan.row_dim])
          value = float(values[row, column, d])
          left = max(abs(value) - 1 / (1 + np.exp(-one)), 0)
          zeros += left == 0
          self.assertAlmostEqual(
            float(got[row, column, d]), np.sign(value) * left, places=5
          )
    self.assertBetween(zeros, 100, 300)

  def test_an_entry_within_its_threshold_takes_no_gradient(self):
    _, module = self._module('global')
    values = jnp.array([0.3, -0.3, 0.7, -0.7]).reshape(1, 1, 4)
    values = jnp.tile(values, (1, 5, 1))

    def total(values, s):
      out = module.apply(
        {'arch': {'threshold': s}},
        values,
        np.zeros((1, 5), np.int32),
        method='values',
      )
      return (out * jnp.array([[[1.0, 2.0, 3.0, 4.0]]])).sum()

    s = jnp.zeros((1, 1))  # A threshold of .5.
    grads, slope = jax.grad(total, (0, 1))(values, s)
    np.testing.assert_array_equal(grads[0, 0], [0, 0, 3, 4])
    # sigmoid'(0) = 1/4; each of five columns loses 3 and gains 4.
    self.assertAlmostEqual(float(slope[0, 0]), 5 * (4 - 3) / 4, places=5)
    # Where the authors start, s has no gradient at all in float32.
    for start, is_zero in ((-150.0, True), (-10.0, False)):
      slope = jax.grad(total, 1)(values, jnp.full((1, 1), start))
      self.assertEqual(float(slope[0, 0]) == 0, is_zero)

  def test_no_threshold_is_the_identity(self):
    _, module = self._module('field_dim')
    values = np.random.default_rng(0).normal(size=(9, 5, 4)).astype(np.float32)
    got = module.apply(
      {'arch': {'threshold': np.full((3, 4), -np.inf, np.float32)}},
      values,
      np.zeros((9, 5), np.int32),
      method='values',
    )
    np.testing.assert_array_equal(got, values)

  def test_senseless_plans(self):
    with self.assertRaisesRegex(errors.ConfigError, 'Granularity'):
      fields_lib.SoftThreshold(4, 'row')
    with self.assertRaisesRegex(errors.ConfigError, 'scale'):
      fields_lib.SoftThreshold(4, row_scale=0.0)


class ColumnMaskTest(absltest.TestCase):
  def _module(self, starts, lengths=(1, 3, 1)):
    plan = fields_lib.ColumnMask(4, starts)
    fields = [
      fields_lib.FieldPlan(n, 'categorical', 4, vocab_size=9, max_length=length)
      for n, length in zip(_NAMES, lengths)
    ]
    return field_choices.build(plan, fields, None, 'fields')

  def test_every_id_takes_the_factors_of_its_group(self):
    starts = ((0, 2, 5), (0, 4), (0,))
    module = self._module(starts)
    rng = np.random.default_rng(0)
    ids = rng.integers(-1, 9, (20, 5)).astype(np.int32)
    values = rng.normal(size=(20, 5, 4)).astype(np.float32)
    values[ids < 0] = 0
    mask = rng.uniform(size=(6, 4)).astype(np.float32)
    got = module.apply({'arch': {'mask': mask}}, values, ids, method='values')
    for row in range(20):
      for column, field in enumerate((0, 1, 1, 1, 2)):
        own = sum(start <= ids[row, column] for start in starts[field]) - 1
        group = sum(map(len, starts[:field])) + max(own, 0)
        np.testing.assert_array_equal(
          got[row, column], values[row, column] * mask[group]
        )
    # The pooled vectors are not masked again.
    pooled = rng.normal(size=(20, 3, 4)).astype(np.float32)
    again = module.apply(
      {'arch': {'mask': mask}}, pooled, np.ones(20, bool), train=True
    )
    np.testing.assert_array_equal(again, pooled)

  def test_one_group_per_field_is_taken_once(self):
    module = self._module(((0,),) * 3)
    rng = np.random.default_rng(0)
    mask = rng.uniform(size=(3, 4)).astype(np.float32)
    variables = {'arch': {'mask': mask}}
    values = rng.normal(size=(20, 5, 4)).astype(np.float32)
    ids = np.zeros((20, 5), np.int32)
    same = module.apply(variables, values, ids, method='values')
    np.testing.assert_array_equal(same, values)
    pooled = rng.normal(size=(20, 3, 4)).astype(np.float32)
    got = module.apply(variables, pooled, np.ones(20, bool), train=False)
    np.testing.assert_array_equal(got, pooled * mask[None])

  def test_groups_must_begin_with_the_first_id(self):
    for starts in (((1, 4),), ((0, 4, 4),), ((),)):
      with self.assertRaisesRegex(errors.ConfigError, 'Groups of ids'):
        fields_lib.ColumnMask(4, starts)
    with self.assertRaisesRegex(errors.ConfigError, 'width of a column mask'):
      fields_lib.ColumnMask(0, ((0,),))


if __name__ == '__main__':
  absltest.main()
