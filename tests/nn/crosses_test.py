"""Interactions of rising order against float64 loops, and identities."""

import itertools

from absl.testing import absltest, parameterized
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jax_autorec import fields as fields_lib
from jax_autorec import interactions as plans
from jax_autorec.nn import crosses, interactions, products

_ROWS, _FIELDS, _DIM = 4, 5, 3
_PLANS = tuple(
  fields_lib.FieldPlan(f'f{i}', 'categorical', _DIM, vocab_size=2)
  for i in range(_FIELDS)
)
_ORDER = np.array([3, 0, 4, 2, 1])  # Of the fields, another one.


class _Alone(nn.Module):
  """One interaction, whose parameters have a scope of its name."""

  plan: plans.Interaction

  @nn.compact
  def __call__(self, views, mask, *, train=False):
    return interactions.build(self.plan, _PLANS)(views, mask, train=train)


def _vectors(seed=0):
  return np.random.default_rng(seed).normal(size=(_ROWS, _FIELDS, _DIM))


def _params(plan, views, seed=1):
  """Random, away from special points; without the scope of the name."""
  rng = np.random.default_rng(seed)
  init = lambda v: _Alone(plan).init(jax.random.key(0), v, np.ones(_ROWS, bool))
  shapes = jax.eval_shape(init, views)['params'][plan.name]
  return jax.tree.map(lambda x: 0.5 * rng.normal(size=x.shape), shapes)


def _run(plan, views, params):
  with jax.enable_x64(True):
    variables = {'params': {plan.name: jax.tree.map(jnp.asarray, params)}}
    mask = np.ones(_ROWS, bool)
    return np.asarray(jax.jit(_Alone(plan).apply)(variables, views, mask))


def _blocks(array, axis, width=_DIM):
  """With the blocks of fields along an axis in the other order."""
  shape = array.shape
  apart = (*shape[:axis], _FIELDS, width, *shape[axis + 1 :])
  return np.take(array.reshape(apart), _ORDER, axis).reshape(shape)


def _polynomial(plan, vectors, params):
  del params
  total = np.zeros((_ROWS, _DIM))
  for fields in itertools.combinations(range(_FIELDS), plan.order):
    total += np.prod([vectors[:, i] for i in fields], 0)
  return total.sum(1) if plan.to == 'logit' else total


def _cross(plan, vectors, params):
  first = x = vectors.reshape(_ROWS, -1)
  for i in range(plan.layers):
    kernel, bias = params[f'kernel_{i}'], params[f'bias_{i}']
    if plan.weights == 'vector':
      x = np.stack(
        [f * (r @ kernel[:, 0]) + bias + r for f, r in zip(first, x)]
      )
    else:
      x = first * (x @ kernel + bias) + x
  return x


def _compressed(plan, vectors, params):
  x, pooled = vectors, []
  for i, size in enumerate(plan.sizes):
    kernel = params[f'kernel_{i}'].reshape(x.shape[1], _FIELDS, size)
    layer = np.zeros((_ROWS, size, _DIM))
    for h, a, b in np.ndindex(size, x.shape[1], _FIELDS):
      layer[:, h] += kernel[a, b, h] * x[:, a] * vectors[:, b]
    x = layer + params[f'bias_{i}'][:, None]
    pooled.append(x.sum(2))
  pooled = np.concatenate(pooled, 1)
  if plan.to != 'logit':
    return pooled
  return pooled @ params['output']['kernel'][:, 0] + params['output']['bias']


_CASES = {
  **{
    f'order_{k}': (_polynomial, plans.Polynomial('p', k)) for k in (2, 3, 4, 5)
  },
  'pooling': (_polynomial, plans.Polynomial('p', to='head')),
  'cross': (_cross, plans.Cross(weights='vector', layers=2)),
  'cross_v2': (_cross, plans.Cross(layers=2)),
  'cin': (_compressed, plans.Compressed(sizes=(4, 3))),
  'cin_to_head': (_compressed, plans.Compressed(sizes=(2,), to='head')),
}


class CrossesTest(parameterized.TestCase):
  @parameterized.named_parameters(
    (name, *case) for name, case in _CASES.items()
  )
  def test_against_loops(self, reference, plan):
    vectors = _vectors()
    views, params = {'main': vectors}, {}
    if not isinstance(plan, plans.Polynomial):
      params = _params(plan, views)
    np.testing.assert_allclose(
      _run(plan, views, params), reference(plan, vectors, params), rtol=1e-9
    )

  def test_polynomial_of_a_table_of_its_own(self):
    plan = plans.Polynomial('p', 3, own_table=True)
    got = _run(plan, {'order3': _vectors(1), 'main': _vectors()}, {})
    expected = _polynomial(plan, _vectors(1), {})
    np.testing.assert_allclose(got, expected, rtol=1e-9)

  def test_order_2_and_its_pooling_are_a_factorization_machine(self):
    vectors = _vectors()
    with jax.enable_x64(True):
      expected = products.fm_sum(jnp.asarray(vectors))
    got = _run(plans.Polynomial('p'), {'main': vectors}, {})
    np.testing.assert_allclose(got, expected, rtol=1e-9)
    # NFM, of which the MLP is a sum.
    pooled = _run(plans.Polynomial('p', to='head'), {'main': vectors}, {})
    np.testing.assert_allclose(pooled.sum(1), expected, rtol=1e-9)

  def test_more_orders_than_fields(self):
    vectors = jnp.float32(_vectors()[:, :2])
    found = crosses.elementary_symmetric(vectors, 3)
    np.testing.assert_allclose(found, np.zeros((_ROWS, _DIM)), atol=1e-6)

  def test_cross_layers_without_offset_scale_their_input(self):
    """By a polynomial of it: here of degree 2 in how far it is stretched."""
    plan, vectors = plans.Cross(weights='vector', layers=2), _vectors()
    params = _params(plan, {'main': vectors})
    params |= {f'bias_{i}': np.zeros(_FIELDS * _DIM) for i in range(2)}
    first, second = params['kernel_0'][:, 0], params['kernel_1'][:, 0]
    for stretch in (1.0, -0.7, 2.0):
      flat = stretch * vectors.reshape(_ROWS, -1)
      scale = 1 + flat @ first
      scale = scale * (1 + flat @ second)
      got = _run(plan, {'main': stretch * vectors}, params)
      np.testing.assert_allclose(got, flat * scale[:, None], rtol=1e-9)

  def test_matrices_of_equal_columns_are_vectors(self):
    vectors = _vectors()
    old = plans.Cross(weights='vector', layers=3)
    params = _params(old, {'main': vectors})
    params |= {f'bias_{i}': np.zeros(_FIELDS * _DIM) for i in range(3)}
    equal = {
      name: np.tile(value, (1, len(value))) if 'kernel' in name else value
      for name, value in params.items()
    }
    np.testing.assert_allclose(
      _run(plans.Cross(layers=3), {'main': vectors}, equal),
      _run(old, {'main': vectors}, params),
      rtol=1e-9,
    )

  def test_compressed_layer_of_ones_squares_the_sum(self):
    plan, vectors = plans.Compressed(sizes=(1,), to='head'), _vectors()
    params = {'kernel_0': np.ones((_FIELDS**2, 1)), 'bias_0': np.zeros(1)}
    expected = (vectors.sum(1) ** 2).sum(1)
    got = _run(plan, {'main': vectors}, params)[:, 0]
    np.testing.assert_allclose(got, expected, rtol=1e-9)

  @parameterized.named_parameters(
    ('polynomial', plans.Polynomial('p', 3, to='head')),
    ('cross', plans.Cross(weights='vector', layers=2)),
    ('cross_v2', plans.Cross(layers=2)),
    ('cin', plans.Compressed(sizes=(4, 3))),
  )
  def test_field_order_does_not_matter(self, plan):
    vectors = _vectors()
    params = (
      {} if plan.kind == 'polynomial' else _params(plan, {'main': vectors})
    )
    expected = _run(plan, {'main': vectors}, params)
    moved = dict(params)
    if plan.kind == 'cross':
      for name, value in params.items():
        moved[name] = _blocks(value, 0)
        if value.shape == (_FIELDS * _DIM,) * 2:
          moved[name] = _blocks(moved[name], 1)
      expected = _blocks(expected, 1)
    elif plan.kind == 'compressed':
      first = params['kernel_0'].reshape(_FIELDS, _FIELDS, 4)
      first = first[_ORDER][:, _ORDER].reshape(-1, 4)
      second = params['kernel_1'].reshape(4, _FIELDS, 3)
      second = second[:, _ORDER].reshape(-1, 3)
      moved |= {'kernel_0': first, 'kernel_1': second}
    got = _run(plan, {'main': vectors[:, _ORDER]}, moved)
    np.testing.assert_allclose(got, expected, rtol=1e-9)


if __name__ == '__main__':
  absltest.main()
