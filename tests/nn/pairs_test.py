"""Interactions of pairs against float64 loops, and their identities."""

import itertools

from absl.testing import absltest, parameterized
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jax_autorec import fields as fields_lib
from jax_autorec import interactions as plans
from jax_autorec.nn import interactions, pairs, products

_ROWS, _FIELDS, _DIM = 4, 5, 3
_PAIRS = list(itertools.combinations(range(_FIELDS), 2))
_PLANS = tuple(
  fields_lib.FieldPlan(f'f{i}', 'categorical', _DIM, vocab_size=2)
  for i in range(_FIELDS)
)


class _Alone(nn.Module):
  """One interaction, whose parameters have a scope of its name."""

  plan: plans.Interaction

  @nn.compact
  def __call__(self, views, mask, *, train=False):
    return interactions.build(self.plan, _PLANS)(views, mask, train=train)


def _views(plan, seed=0):
  rng = np.random.default_rng(seed)
  return {
    view.name: rng.normal(size=(_ROWS, _FIELDS, view.copies * _DIM))
    for view in plan.views(_PLANS)
  }


def _params(plan, views, seed=1):
  """Random, away from special points; without the scope of the name."""
  rng = np.random.default_rng(seed)
  init = lambda v: _Alone(plan).init(jax.random.key(0), v, np.ones(_ROWS, bool))
  shapes = jax.eval_shape(init, views).get('params', {})
  return jax.tree.map(
    lambda x: rng.normal(size=x.shape), dict(shapes).get(plan.name, {})
  )


def _run(plan, views, params):
  with jax.enable_x64(True):
    variables = {'params': {plan.name: jax.tree.map(jnp.asarray, params)}}
    mask = np.ones(_ROWS, bool)
    return np.asarray(jax.jit(_Alone(plan).apply)(variables, views, mask))


def _field_aware(plan, views, params):
  del plan, params
  vectors = views['field_aware'].reshape(_ROWS, _FIELDS, _FIELDS - 1, _DIM)
  total = 0
  for i, j in _PAIRS:  # Of field i, vector j - 1 is for field j > i.
    total = total + (vectors[:, i, j - 1] * vectors[:, j, i]).sum(1)
  return total


def _field_weighted(plan, views, params):
  vectors = views['main']
  total = 0
  for p, (i, j) in enumerate(_PAIRS):
    inner = (vectors[:, i] * vectors[:, j]).sum(1)
    total = total + params['weights'][p, 0] * inner
  if plan.linear == 'felv':
    total = total + (vectors * views['linear']).sum((1, 2))
  if plan.linear == 'filv':
    total = total + vectors.reshape(_ROWS, -1) @ params['linear'][:, 0]
  return total


def _field_matrixed(plan, views, params):
  vectors, total = views['main'], 0
  for p, (i, j) in enumerate(_PAIRS):
    matrix = params['matrices'][p]
    if plan.matrices == 'vectorized':
      matrix = np.diag(matrix)
    total = total + ((vectors[:, i] @ matrix) * vectors[:, j]).sum(1)
  return total


def _attentional_pooling(plan, views, params):
  vectors = views['main']
  products = np.stack([vectors[:, i] * vectors[:, j] for i, j in _PAIRS], 1)
  if not plan.attention:
    return products.sum((1, 2))
  layer = params['attention']
  hidden = np.maximum(products @ layer['kernel'] + layer['bias'], 0)
  scores = np.exp(hidden @ params['scores']['kernel'])
  weights = scores / scores.sum(1, keepdims=True)
  return ((weights * products).sum(1) @ params['output']['kernel'])[:, 0]


def _bilinear(plan, views, params):
  vectors, outputs = views['main'], []
  variants = [vectors]
  if plan.reduction:
    hidden = np.maximum(vectors.mean(2) @ params['squeeze']['kernel'], 0)
    scale = np.maximum(hidden @ params['excite']['kernel'], 0)
    variants.append(vectors * scale[:, :, None])
  for own in variants:
    for p, (i, j) in enumerate(_PAIRS):
      matrices = params['matrices']
      place = {'all': (), 'each': (i,), 'pair': (p,)}[plan.matrices]
      outputs.append((own[:, i] @ matrices[place]) * own[:, j])
  return np.concatenate(outputs, 1)


_CASES = {
  'ffm': (_field_aware, plans.FieldAware()),
  'fwfm': (_field_weighted, plans.FieldWeighted()),
  'fwfm_felv': (_field_weighted, plans.FieldWeighted(linear='felv')),
  'fwfm_filv': (_field_weighted, plans.FieldWeighted(linear='filv')),
  'fmfm': (_field_matrixed, plans.FieldMatrixed()),
  'fmfm_diagonal': (
    _field_matrixed,
    plans.FieldMatrixed(matrices='vectorized'),
  ),
  'afm': (_attentional_pooling, plans.AttentionalPooling(size=4)),
  'afm_plain': (
    _attentional_pooling,
    plans.AttentionalPooling(attention=False),
  ),
  'bilinear_all': (_bilinear, plans.Bilinear()),
  'bilinear_each': (_bilinear, plans.Bilinear(matrices='each', reduction=0)),
  'bilinear_pair': (_bilinear, plans.Bilinear(matrices='pair', reduction=9.0)),
}


class PairsTest(parameterized.TestCase):
  @parameterized.named_parameters(
    (name, *case) for name, case in _CASES.items()
  )
  def test_against_loops(self, reference, plan):
    views = _views(plan)
    params = _params(plan, views)
    np.testing.assert_allclose(
      _run(plan, views, params), reference(plan, views, params), rtol=1e-9
    )

  def test_factorization_machines_as_special_cases(self):
    main = _views(plans.FieldWeighted())['main']
    views = {'main': main, 'field_aware': np.tile(main, (1, 1, _FIELDS - 1))}
    ones = np.ones((len(_PAIRS), 1))
    same = np.tile(np.eye(_DIM), (len(_PAIRS), 1, 1))
    with jax.enable_x64(True):
      expected = products.fm_sum(jnp.asarray(main))
    for plan, params in (
      (plans.FieldAware(), {}),
      (plans.FieldWeighted(), {'weights': ones}),
      (plans.FieldMatrixed(), {'matrices': same}),
      (
        plans.FieldMatrixed(matrices='vectorized'),
        {'matrices': np.tile(ones, _DIM)},
      ),
      (plans.AttentionalPooling(attention=False), {}),
    ):
      got = _run(plan, views, params)
      np.testing.assert_allclose(got, expected, rtol=1e-9, err_msg=plan)

  @parameterized.named_parameters(
    ('ffm', plans.FieldAware()),
    ('fwfm', plans.FieldWeighted(linear='filv')),
    ('fmfm', plans.FieldMatrixed()),
    ('fmfm_diagonal', plans.FieldMatrixed(matrices='vectorized')),
    ('afm', plans.AttentionalPooling(size=4)),
  )
  def test_field_order_does_not_matter(self, plan):
    """FiBiNET's does: its matrices are for the left side of a pair."""
    order = np.array([3, 0, 4, 2, 1])
    views = _views(plan)
    params = _params(plan, views)
    moved = dict(views)
    if 'main' in views:
      moved['main'] = views['main'][:, order]
    if 'field_aware' in views:
      vectors = views['field_aware'].reshape(_ROWS, _FIELDS, -1, _DIM)
      square = np.zeros((_ROWS, _FIELDS, _FIELDS, _DIM))
      others = ~np.eye(_FIELDS, dtype=bool)
      square[:, others] = vectors.reshape(_ROWS, -1, _DIM)
      vectors = square[:, order][:, :, order][:, others]
      moved['field_aware'] = vectors.reshape(_ROWS, _FIELDS, -1)
    moved_params = dict(params)
    for name in params.keys() & {'weights', 'matrices'}:
      values = []
      for i, j in _PAIRS:
        first, second = sorted((order[i], order[j]))
        value = params[name][_PAIRS.index((first, second))]
        is_turned = order[i] > order[j] and value.shape == (_DIM, _DIM)
        values.append(value.T if is_turned else value)
      moved_params[name] = np.stack(values)
    if 'linear' in params:
      linear = params['linear'].reshape(_FIELDS, _DIM)
      moved_params['linear'] = linear[order].reshape(-1, 1)
    np.testing.assert_allclose(
      _run(plan, moved, moved_params), _run(plan, views, params), rtol=1e-9
    )

  def test_sides_and_their_derivatives(self):
    vectors = _views(plans.FieldWeighted())['main']
    weights = np.random.default_rng(2).normal(size=(_ROWS, 10, _DIM))
    left, right = np.array(_PAIRS).T

    def total(x, taken):
      first, second = taken(x)
      return (first * second * second * weights).sum()

    gather = lambda x: (x[:, left], x[:, right])
    with jax.enable_x64(True):
      x = jnp.asarray(vectors)
      for derive in (jax.grad, lambda f: jax.jacfwd(jax.grad(f))):
        np.testing.assert_allclose(
          derive(lambda x: total(x, lambda x: pairs.sides(x, x)))(x),
          derive(lambda x: total(x, gather))(x),
          rtol=1e-9,
          atol=1e-12,
        )

  def test_dropout_of_attention_acts_in_training_alone(self):
    plan = plans.AttentionalPooling(size=4, dropout=0.5)
    views = _views(plan)
    variables = {'params': {plan.name: _params(plan, views)}}
    run = lambda key: _Alone(plan).apply(
      jax.tree.map(jnp.float32, variables),
      jax.tree.map(jnp.float32, views),
      np.ones(_ROWS, bool),
      train=True,
      rngs={'dropout': jax.random.key(key)},
    )
    self.assertFalse(np.allclose(run(0), run(1)))


if __name__ == '__main__':
  absltest.main()
