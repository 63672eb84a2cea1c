"""Self-attention over fields against float64 loops, and its heads."""

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


def _attention(plan, vectors, params):
  x, width = vectors, plan.size // plan.heads
  for i in range(plan.layers):
    query, key, value = (
      x @ params[f'{name}_{i}']['kernel'] for name in ('query', 'key', 'value')
    )
    out = np.zeros((_ROWS, _FIELDS, plan.size))
    for row, head in np.ndindex(_ROWS, plan.heads):
      own = slice(head * width, (head + 1) * width)
      scores = query[row, :, own] @ key[row, :, own].T
      scores = np.exp(scores / np.sqrt(width) if plan.scale else scores)
      scores = scores / scores.sum(1, keepdims=True)
      out[row, :, own] = scores @ value[row, :, own]
    rest = x
    if x.shape[2] != plan.size:
      rest = x @ params[f'residual_{i}']['kernel']
    x = out + rest
    if plan.layer_norm:
      norm = params[f'norm_{i}']
      mean, var = x.mean(2, keepdims=True), x.var(2, keepdims=True)
      x = (x - mean) / np.sqrt(var + 1e-5) * norm['scale'] + norm['bias']
    x = np.maximum(x, 0)
  flat = x.reshape(_ROWS, -1)
  if plan.to != 'logit':
    return flat
  return flat @ params['output']['kernel'][:, 0] + params['output']['bias']


class SelfAttentionTest(parameterized.TestCase):
  @parameterized.parameters(
    dict(),
    dict(heads=1, scale=False),
    dict(layer_norm=True, to='head'),
    dict(layers=3, size=_DIM, heads=3),
  )
  def test_against_loops(self, **options):
    plan = plans.SelfAttention(**{'layers': 2, 'size': 8, 'heads': 2} | options)
    vectors = _vectors()
    params = _params(plan, {'main': vectors})
    has_map = [f'residual_{i}' in params for i in range(plan.layers)]
    self.assertEqual(has_map, [plan.size != _DIM] + [False] * (plan.layers - 1))
    np.testing.assert_allclose(
      _run(plan, {'main': vectors}, params),
      _attention(plan, vectors, params),
      rtol=1e-7,
    )

  def test_a_head_makes_a_slice_of_the_output(self):
    """Heads that are split without a transpose mix fields instead."""
    plan = plans.SelfAttention(layers=1, heads=2, size=8, to='head')
    views = {'main': _vectors()}
    params = _params(plan, views)
    # Without what goes past attention, and far from where relu cuts.
    params['residual_0'] = {'kernel': np.zeros((_DIM, 8))}
    value = np.abs(params['value_0']['kernel'])
    views = {'main': np.abs(views['main'])}
    full = _run(plan, views, params | {'value_0': {'kernel': value}})
    for head in range(2):
      own = slice(4 * head, 4 * head + 4)
      without = value.copy()
      without[:, own] = 0
      got = _run(plan, views, params | {'value_0': {'kernel': without}})
      got = got.reshape(_ROWS, _FIELDS, 8)
      expected = full.reshape(_ROWS, _FIELDS, 8).copy()
      self.assertGreater(expected.min(), 0)
      expected[:, :, own] = 0
      np.testing.assert_allclose(got, expected, rtol=1e-9)

  def test_field_order_does_not_matter(self):
    plan = plans.SelfAttention(layers=2, heads=2, size=8, layer_norm=True)
    vectors = _vectors()
    params = _params(plan, {'main': vectors})
    output = params['output']
    moved = output | {'kernel': _blocks(output['kernel'], 0, 8)}
    np.testing.assert_allclose(
      _run(plan, {'main': vectors[:, _ORDER]}, params | {'output': moved}),
      _run(plan, {'main': vectors}, params),
      rtol=1e-9,
    )

  def test_dropout_acts_in_training_alone(self):
    plan = plans.SelfAttention(layers=1, heads=2, size=8, dropout=0.5)
    views = {'main': jnp.float32(_vectors())}
    params = jax.tree.map(jnp.float32, _params(plan, views))
    run = lambda train, key: _Alone(plan).apply(
      {'params': {plan.name: params}},
      views,
      np.ones(_ROWS, bool),
      train=train,
      rngs={'dropout': jax.random.key(key)},
    )
    self.assertFalse(np.allclose(run(True, 0), run(True, 1)))
    np.testing.assert_array_equal(run(False, 0), run(False, 1))


if __name__ == '__main__':
  absltest.main()
