"""Interactions made of MLPs against float64 loops, and identities."""

import dataclasses
import itertools

from absl.testing import absltest, parameterized
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jax_autorec import fields as fields_lib
from jax_autorec import interactions as plans
from jax_autorec.nn import interactions

_ROWS, _FIELDS, _DIM = 4, 5, 3
_PLANS = tuple(
  fields_lib.FieldPlan(f'f{i}', 'categorical', _DIM, vocab_size=2)
  for i in range(_FIELDS)
)
_ORDER = np.array([3, 0, 4, 2, 1])  # Of the fields, another one.


class _Alone(nn.Module):
  """One interaction, whose parameters have a scope of its name."""

  plan: plans.Interaction
  fields: tuple[fields_lib.FieldPlan, ...] = _PLANS

  @nn.compact
  def __call__(self, views, mask, *, train=False):
    return interactions.build(self.plan, self.fields)(views, mask, train=train)


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


def _dense(x, layer):
  return x @ layer['kernel'] + layer.get('bias', 0)


def _layer_norm(x, layer):
  mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
  return (x - mean) / np.sqrt(var + 1e-5) * layer['scale'] + layer['bias']


def _mlp(x, params, output=True):
  for i in range(sum(name.startswith('dense') for name in params)):
    x = np.maximum(_dense(x, params[f'dense_{i}']), 0)
  return _dense(x, params['output']) if output else x


def _mask_blocks(plan, views, params):
  vectors = views['main']
  flat = first = vectors.reshape(_ROWS, -1)
  if plan.norm_vectors:
    first = _layer_norm(vectors, params['norm']).reshape(_ROWS, -1)
  outputs, x = [], first
  for i in range(len(plan.sizes)):
    mask = np.maximum(_dense(flat, params[f'mask_{i}']), 0)
    mask = _dense(mask, params[f'mask_output_{i}'])
    x = _dense(
      (first if plan.mode == 'parallel' else x) * mask, params[f'dense_{i}']
    )
    if plan.layer_norm:
      x = _layer_norm(x, params[f'norm_{i}'])
    x = np.maximum(x, 0)
    outputs.append(x)
  return x if plan.mode == 'serial' else np.concatenate(outputs, 1)


def _two_towers(plan, views, params):
  flat = views['main'].reshape(_ROWS, -1)
  outputs = []
  for i in range(2):
    gated = flat
    if plan.gate_hidden is not None:
      context = params.get(f'context_{i}')
      if plan.contexts[i]:
        context = views[f'towers_context_{i}'].reshape(_ROWS, -1)
      gate = _mlp(context, params[f'gate_{i}'])
      gated = flat * 2 / (1 + np.exp(-gate))
    outputs.append(_mlp(gated, params[f'tower_{i}'], output=False))
  first, second = outputs
  total = _dense(first, params['output_0']) + _dense(second, params['output_1'])
  total, heads = total[:, 0], plan.heads
  a, b = first.shape[1] // heads, second.shape[1] // heads
  kernel = params['products'].reshape(heads, a, b)
  for h, i, j in np.ndindex(heads, a, b):
    total += kernel[h, i, j] * first[:, h * a + i] * second[:, h * b + j]
  return total


def _numbers_and_vectors(plan, views, params):
  vectors, beside = views['main'], []
  if 'values' in views:
    numbers = np.maximum(_mlp(views['values'], params['bottom']), 0)
    vectors = np.concatenate([vectors, numbers[:, None]], 1)
    beside = [numbers]
  if plan.product == 'cat':
    return vectors.reshape(_ROWS, -1)
  pairs = itertools.combinations(range(vectors.shape[1]), 2)
  dots = [(vectors[:, i] * vectors[:, j]).sum(1) for i, j in pairs]
  return np.concatenate([np.stack(dots, 1), *beside], 1)


_CASES = {
  'serial': (_mask_blocks, plans.MaskBlocks(mode='serial', sizes=(4, 2))),
  'parallel': (
    _mask_blocks,
    plans.MaskBlocks(sizes=(4, 2), reduction=0.5, norm_vectors=True),
  ),
  'no_norm': (_mask_blocks, plans.MaskBlocks(sizes=(4,), layer_norm=False)),
  'towers': (
    _two_towers,
    plans.TwoTowers(hidden=((6, 4), (2,)), heads=2, gate_hidden=(3,)),
  ),
  'towers_with_contexts': (
    _two_towers,
    plans.TwoTowers(
      hidden=((4,), (2,)), gate_hidden=(3, 2), contexts=(('f1', 'f3'), ())
    ),
  ),
  'towers_without_gates': (
    _two_towers,
    plans.TwoTowers(hidden=((4,), (2,)), gate_hidden=None),
  ),
  'dot': (_numbers_and_vectors, plans.NumbersAndVectors()),
  'cat': (_numbers_and_vectors, plans.NumbersAndVectors(product='cat')),
}


def _views(plan):
  return {
    view.name: _vectors(i)[:, : len(view.fields or _PLANS)]
    for i, view in enumerate(plan.views(_PLANS))
  }


class TowersTest(parameterized.TestCase):
  @parameterized.named_parameters(
    (name, *case) for name, case in _CASES.items()
  )
  def test_against_loops(self, reference, plan):
    views = _views(plan)
    params = {}
    if not isinstance(plan, plans.NumbersAndVectors):
      params = _params(plan, views)
    np.testing.assert_allclose(
      _run(plan, views, params), reference(plan, views, params), rtol=1e-9
    )

  @parameterized.parameters('dot', 'cat')
  def test_numbers_become_a_vector(self, product):
    plan = plans.NumbersAndVectors(product=product, hidden=(4,))
    numeric = tuple(fields_lib.FieldPlan(n, 'numeric', _DIM) for n in 'xy')
    ids = tuple(field.name for field in _PLANS)
    views = plan.views(_PLANS + numeric)
    self.assertEqual(
      views, (dataclasses.replace(plans.MAIN, fields=ids), plans.VALUES)
    )
    values = np.random.default_rng(3).normal(size=(_ROWS, 2))
    views = {'main': _vectors(), 'values': values}
    params = _params(plan, views)
    got = _run(plan, views, params)
    expected = _numbers_and_vectors(plan, views, params)
    np.testing.assert_allclose(got, expected, rtol=1e-9)
    self.assertEqual(got.shape[1], 15 + 3 if product == 'dot' else 6 * 3)
    # Vectors of numeric fields, which another interaction reads, are left out.
    views['main'] = np.concatenate([_vectors(), _vectors(4)[:, :2]], 1)
    with jax.enable_x64(True):
      variables = {'params': {plan.name: jax.tree.map(jnp.asarray, params)}}
      module = _Alone(plan, _PLANS + numeric)
      again = module.apply(variables, views, np.ones(_ROWS, bool))
    np.testing.assert_allclose(again, expected, rtol=1e-9)

  def test_a_context_starts_without_effect(self):
    plan = plans.TwoTowers(hidden=((4,), (2,)), gate_hidden=(3,))
    views = _views(plan)
    init = _Alone(plan).init(jax.random.key(0), views, np.ones(_ROWS, bool))
    params = jax.tree.map(np.asarray, init['params'][plan.name])
    plain = dataclasses.replace(plan, gate_hidden=None)
    np.testing.assert_allclose(
      _run(plan, views, params), _run(plain, views, params), rtol=1e-9
    )

  @parameterized.named_parameters(
    ('serial', _CASES['serial'][1]),
    ('parallel', _CASES['parallel'][1]),
    ('towers', _CASES['towers'][1]),
    ('cat', _CASES['cat'][1]),
  )
  def test_field_order_does_not_matter(self, plan):
    views = _views(plan)
    params = {} if plan.kind == 'numbers_and_vectors' else _params(plan, views)
    expected = _run(plan, views, params)
    if plan.kind == 'numbers_and_vectors':
      expected = _blocks(expected, 1)
    wide = _FIELDS * _DIM
    moved = {}
    for name, layer in params.items():
      if not isinstance(layer, dict):
        moved[name] = layer
        continue
      inner = layer if name.startswith(('tower', 'gate')) else {name: layer}
      done = {}
      for key, own in inner.items():
        done[key] = {}
        for kind, value in own.items():
          if value.shape == (_FIELDS, _DIM):
            value = value[_ORDER]
          for axis, size in enumerate(value.shape):
            value = _blocks(value, axis) if size == wide else value
          done[key][kind] = value
      moved[name] = done if inner is layer else done[name]
    got = _run(plan, {'main': views['main'][:, _ORDER]}, moved)
    np.testing.assert_allclose(got, expected, rtol=1e-9)

  def test_heads_divide_both_towers(self):
    with self.assertRaisesRegex(ValueError, '3 heads'):
      plans.TwoTowers(hidden=((6,), (4,)), heads=3)


if __name__ == '__main__':
  absltest.main()
