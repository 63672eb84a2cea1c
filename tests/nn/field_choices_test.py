"""Open field vectors against every candidate's own path, in float64."""

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from jax_autorec import choices as choices_lib
from jax_autorec import field_spaces, spaces
from jax_autorec import fields as fields_lib
from jax_autorec import schema as schema_lib
from jax_autorec.nn import embeddings, field_choices, lookups
from jax_autorec.nn import model as model_lib
from jax_autorec.types import Batch

_NAMES = ('a', 'b', 'c')
_LIVE = 30
_MASK = np.arange(37) < _LIVE


def _module(axis_name=None, **options):
  plan = choices_lib.MixedDims((2, 3, 5), **options)
  fields = [
    fields_lib.FieldPlan(name, 'categorical', plan.table_dim, vocab_size=9)
    for name in _NAMES
  ]
  return plan, field_choices.build(plan, fields, axis_name, 'fields')


def _variables(module, rows, seed=0):
  rng = np.random.default_rng(seed)
  variables = module.init(jax.random.key(seed), rows, _MASK, train=False)
  weights = rng.dirichlet(np.ones(3), len(_NAMES)).astype(np.float32)
  params = {**variables['params'], 'scale': jnp.array([0.5, 1.5, 2.0])}
  arch = {'weights': jnp.asarray(weights)}
  return variables | {'params': params, 'arch': arch}


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
      out[n, :, field, : own.shape[1]] = params['scale'][field] * own
  return out


_OPTIONS = [
  dict(tables=tables, transform=transform, transforms=transforms)
  for tables in choices_lib.TABLES
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

  @parameterized.parameters(*_OPTIONS)
  def test_rows_of_a_batch_see_several_draws(self, **options):
    """37 rows of 4 draws: ten each, and seven; the moments are of all."""
    plan, module = _module(**options)
    rows = _rows(plan.table_dim)
    variables = _variables(module, rows)
    draws = np.random.default_rng(3).dirichlet(np.ones(3), (4, 3))
    variables['arch'] = {'weights': jnp.asarray(draws, jnp.float32)}
    got, _ = module.apply(
      variables, rows, _MASK, train=True, mutable=['batch_stats']
    )
    self.assertEqual(got.shape, (37, 3, plan.width))
    paths = _candidates(plan, variables, rows)
    seen = draws[np.arange(_LIVE) // 10]
    expected = np.einsum('bfn,nbfd->bfd', seen, paths)
    np.testing.assert_allclose(got[:_LIVE], expected, rtol=2e-4, atol=2e-5)

  @parameterized.product(
    num_draws=(1, 3, 5, 8, 16, 24, 40), transform=('linear', 'zero_pad')
  )
  def test_draws_go_by_rows_of_the_global_batch(self, num_draws, transform):
    """24 rows, three of each of eight replicas: the place of a row decides."""
    plan, module = _module(transform=transform)
    rows = _rows(plan.table_dim)[:24]
    variables = _variables(module, _rows(plan.table_dim))
    draws = np.random.default_rng(3).dirichlet(np.ones(3), (num_draws, 3))
    variables['arch'] = {'weights': jnp.asarray(draws, jnp.float32)}
    mask = np.arange(24) < 20

    def apply(module):
      def loss(rows, weights, mask):
        out, _ = module.apply(
          variables | {'arch': {'weights': weights}},
          rows,
          mask,
          train=True,
          mutable=['batch_stats'],
        )
        return jnp.sin(out).sum(), out

      return jax.value_and_grad(loss, (0, 1), has_aux=True)

    weights = variables['arch']['weights']
    (_, out), (by_row, by_draw) = apply(module)(rows, weights, mask)
    _, replica = _module('data', transform=transform)
    split = lambda x: x.reshape(8, 3, *x.shape[1:])
    (_, outs), (by_rows, by_draws) = jax.pmap(
      apply(replica), 'data', in_axes=(0, None, 0)
    )(split(rows), weights, split(mask))
    for got, expected in (
      (outs, split(out)),
      (by_rows, split(by_row)),
      (by_draws.sum(0), by_draw),
    ):
      np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)

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

  @parameterized.parameters('linear', 'zero_pad')
  def test_gradients_of_prefixes_of_a_shared_row(self, transform):
    """Every candidate reaches the first columns, the widest alone the last."""
    plan, module = _module(transform=transform)
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

  def test_zeros_lose_the_tail_of_an_inner_product(self):
    """Of the wider of two vectors, what is beyond the narrower; no more."""
    plan, module = _module(transform='zero_pad')
    rows = _rows(plan.table_dim)
    variables = _variables(module, rows)

    def vectors(*places):
      variables['arch'] = {'weights': jnp.eye(3)[jnp.array(places)]}
      out, _ = module.apply(
        variables, rows, _MASK, train=True, mutable=['batch_stats']
      )
      return np.asarray(out, np.float64)[:_LIVE]

    wide, mixed = vectors(2, 2, 2), vectors(2, 0, 1)
    for other, dim in ((1, 2), (2, 3)):
      tail = (wide[:, 0, dim:] * wide[:, other, dim:]).sum(1)
      self.assertGreater(np.abs(tail).min(), 1e-4)
      lost = (wide[:, 0] * (wide[:, other] - mixed[:, other])).sum(1)
      np.testing.assert_allclose(lost, tail, rtol=1e-5, atol=1e-6)

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
    return field_choices.build(choices_lib.RowMask(4), fields, None, 'fields')

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
    plan = choices_lib.SoftThreshold(4, granularity, row_scale=row_scale)
    fields = [
      fields_lib.FieldPlan(n, 'categorical', 4, vocab_size=9, max_length=length)
      for n, length in zip(_NAMES, (1, 3, 1))
    ]
    module = field_choices.build(plan, fields, None, 'fields')
    return plan, module

  @parameterized.parameters(*choices_lib.GRANULARITIES)
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


class ColumnMaskTest(absltest.TestCase):
  def _module(self, starts, lengths=(1, 3, 1)):
    plan = choices_lib.ColumnMask(4, starts)
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


_SCHEMA = schema_lib.Schema(
  (
    schema_lib.Field('a', vocab_size=9),
    schema_lib.Field('b', vocab_size=7, max_length=3),
    schema_lib.Field('c', vocab_size=4),
    schema_lib.Field('x', 'numeric'),
  )
)
_KEPT = ((9, 5, 9), (4, 0, 7), (0, 0, 0))


def _batch(rows=23, seed=0):
  rng = np.random.default_rng(seed)
  ids = np.stack([rng.integers(0, n, rows) for n in (9, 7, 7, 7, 4)], 1)
  ids[:, 2:4] = np.where(rng.random((rows, 2)) < 0.4, -1, ids[:, 2:4])
  return Batch(
    ids=ids.astype(np.int32),
    numeric=rng.normal(size=(rows, 1)).astype(np.float32),
    missing=np.zeros((rows, 1), bool),
    labels=np.zeros(rows, np.float32),
    weights=np.ones(rows, np.float32),
    mask=np.arange(rows) < rows - 2,
  )


def _supernet(**options):
  """A model of open blocks, with weights and a choice."""
  space = field_spaces.open_blocks(
    spaces.fm(_SCHEMA, dim=6), (0.3, 0.3, 0.4), (2, 1, 3), **options
  )
  model = model_lib.build(space)
  variables = model.init(jax.random.key(0), _batch())
  drawn = lambda path, x: jax.random.normal(
    jax.random.key(len(str(path))), x.shape, x.dtype
  )
  params = jax.tree_util.tree_map_with_path(drawn, variables['params'])
  arch = {'fields': {'kept': jnp.array(_KEPT, jnp.int32)}}
  return space, model, {'params': params, 'arch': arch}


def _closed_params(space, closed, params):
  """Weights of the closed model, cut out of the supernet's."""
  index = {plan.name: i for i, plan in enumerate(space.categorical)}
  first = np.cumsum([0] + [plan.vocab_size for plan in space.categorical])
  own, fields = params['embeddings'], params.get('fields', {})
  (table,) = [t for t in space.tables if t.view == 'main']
  tables, result = own[table.name], dict(own)
  del result[table.name]
  blocks = list(zip(space.choice.first_columns, space.choice.columns))

  def rows(part):
    field, piece = index[part.field.name], part.piece
    columns = slice(piece.column, piece.column + piece.dim)
    if piece.divide == 1:
      ids = slice(first[field] + piece.start, first[field] + piece.stop)
      return tables[ids, columns]
    if not space.choice.is_projected:
      return fields['shared_row'][field, None, columns]
    # Pieces follow one another: the one before is of the block's rows.
    before = part.field.pieces[part.field.pieces.index(piece) - 1]
    place = blocks.index((before.column, before.dim))
    columns = slice(before.column, before.column + before.dim)
    kernel = fields[f'kernel_{place}'][field]
    return (fields['shared_row'][field, columns] @ kernel)[None]

  for plan in closed.tables:
    if plan.view != 'main':
      continue
    result[plan.name] = jnp.concatenate([rows(part) for part in plan.parts])
    if space.choice.is_projected and plan.dim < closed.dim:
      kernels = [
        fields[f'kernel_{blocks.index((p.piece.column, p.piece.dim))}'][
          index[p.field.name]
        ]
        for p in plan.parts
      ]
      name = f'{plan.name}{embeddings.PROJECTION}'
      result[name] = jnp.stack(kernels)
  return {'embeddings': result, 'bias': params['bias']}


_BLOCKS = [
  dict(combine=combine, shared_row=shared_row)
  for combine in choices_lib.BLOCK_COMBINES
  for shared_row in (False, True)
]


class BlocksTest(parameterized.TestCase):
  @parameterized.parameters(*_BLOCKS)
  def test_the_closed_model_with_the_same_weights_is_the_same(self, **options):
    space, model, variables = _supernet(**options)
    closed = field_spaces.with_blocks(space, _KEPT)
    params = _closed_params(space, closed, variables['params'])
    expected = model.apply(variables, _batch())
    got = model_lib.build(closed).apply({'params': params}, _batch())
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)
    self.assertGreater(np.std(expected), 0.5)
    # And it is all that a fresh one has.
    fresh = model_lib.build(closed).init(jax.random.key(0), _batch())
    shapes = lambda tree: jax.tree.map(jnp.shape, tree)
    self.assertEqual(shapes(fresh['params']), shapes(params))

  @parameterized.parameters(*_BLOCKS)
  def test_the_mask_element_by_element(self, **options):
    """Also of the gradient, which is exactly zero outside."""
    _, model, variables = _supernet(**options)
    batch = _batch()
    flat = lookups.flatten_ids(model.architecture, batch)
    params = dict(variables['params']['embeddings'])
    rows = lookups.lookup(params, flat, model.architecture)
    _, asked = model.apply(
      variables, batch, rows=rows, mutable=[embeddings.ROW_MASKS]
    )
    mask = asked[embeddings.ROW_MASKS]['embeddings']['main_dim_6']
    field_of_value, block_of_column = (0, 1, 1, 1, 2), (0, 0, 1, 2, 2, 2)
    for b, row in enumerate(batch.ids):
      for value, id_ in enumerate(row):
        for column, block in enumerate(block_of_column):
          is_on = id_ < _KEPT[field_of_value[value]][block]
          if batch.mask[b]:
            self.assertEqual(mask[b, value, column], is_on)

    def loss(main):
      out = model.apply(variables, batch, rows=rows | {'main_dim_6': main})
      return jnp.sin(out).sum()

    grads = np.asarray(jax.grad(loss)(rows['main_dim_6']))
    live = mask & ((batch.ids >= 0) & batch.mask[:, None])[:, :, None]
    self.assertTrue(np.all(grads[~mask] == 0))
    self.assertTrue(np.all(grads[live] != 0))

  def test_one_block_of_columns_needs_no_map(self):
    space = field_spaces.open_blocks(
      spaces.fm(_SCHEMA, dim=6), (0.5, 0.5), (6,)
    )
    variables = model_lib.build(space).init(jax.random.key(0), _batch())
    self.assertNotIn('fields', variables['params'])
    closed = field_spaces.with_blocks(space, [[9], [7], [4]])
    self.assertEqual(closed.projection_params, 0)


class MixedRowsTest(parameterized.TestCase):
  def test_mixes_candidates_row_by_row(self):
    rng = np.random.default_rng(0)
    plan = choices_lib.MixedRows((2, 3))
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
  @parameterized.parameters('mean', 'sum')
  def test_equal_weights_are_those_of_whole_fields(self, pooling):
    """Against `MixedDims`, through a model with a field of several values."""
    closed, dims = spaces.fm(_SCHEMA, dim=3, pooling=pooling), (1, 3)
    counts = {
      plan.name: [0, 0, *range(plan.vocab_size - 2, 0, -1)]
      for plan in closed.categorical
    }
    weights, outs = jnp.array([0.3, 0.7]), []
    for space in (
      field_spaces.open_dims(closed, dims, tables='separate'),
      field_spaces.open_buckets(closed, dims, counts),
    ):
      model = model_lib.build(space)
      variables = model.init(jax.random.key(0), _batch(), train=True)
      drawn = lambda path, x: jax.random.normal(
        jax.random.key(len(str(path))), x.shape, x.dtype
      )
      own = jax.tree_util.tree_map_with_path(drawn, variables['params'])
      shape = variables['arch']['fields']['weights'].shape
      arch = {'fields': {'weights': jnp.broadcast_to(weights, shape)}}
      out, _ = model.apply(
        variables | {'params': own, 'arch': arch},
        _batch(),
        train=True,
        mutable=['batch_stats'],
      )
      # A row without any value is of no bucket, but is centred in the other.
      outs.append(np.asarray(out)[_batch().ids[:, 1:4].max(1) >= 0])
    self.assertGreater(np.std(outs[0]), 0.5)
    np.testing.assert_allclose(*outs, rtol=1e-3, atol=1e-3)

  def test_mixes_values_by_their_bucket_before_they_are_pooled(self):
    """Against every value and candidate alone, a field of two values too."""
    rng = np.random.default_rng(0)
    dims, starts = (1, 3), ((0, 2, 5), (0,))
    plan = choices_lib.MixedBuckets(dims, starts)
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
    scale = np.array([0.5, 2.0], np.float32)
    variables['params']['scale'] = jnp.asarray(scale)
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
    expected *= scale[None, :, None]
    np.testing.assert_allclose(got[:_LIVE], expected[:_LIVE], atol=1e-4)


if __name__ == '__main__':
  absltest.main()
