"""One device, a mesh and pmap run the same steps."""

from absl.testing import absltest, parameterized
import jax
import numpy as np

from jax_autorec import errors, quantization, spaces
from jax_autorec import schema as schema_lib
from jax_autorec.nn import model as model_lib
from jax_autorec.train import parallel, settings, state, steps
from jax_autorec.types import Batch

_SCHEMA = schema_lib.Schema(
  (
    schema_lib.Field('a', vocab_size=11),
    schema_lib.Field('b', vocab_size=6, max_length=2),
    schema_lib.Field('c', 'numeric'),
  )
)


def _batches(count, rows=16, live=13, seed=0):
  """Batches [count, rows, ...] with padding, duplicates and weights."""
  rng = np.random.default_rng(seed)
  shape = (count, rows)
  ids = np.stack(
    [
      rng.integers(0, 11, shape),
      rng.integers(0, 6, shape),
      rng.integers(-1, 6, shape),
    ],
    -1,
  )
  mask = np.broadcast_to(np.arange(rows) < live, shape)
  return Batch(
    ids=ids.astype(np.int32),
    numeric=rng.normal(size=(*shape, 1)).astype(np.float32),
    missing=rng.random((*shape, 1)) < 0.2,
    labels=(rng.random(shape) < 0.4).astype(np.float32),
    weights=np.where(mask, rng.uniform(0.5, 2, shape), 0).astype(np.float32),
    mask=mask,
  )


def _meaningful(params):
  """Without the offsets before a norm: Adam blows up their rounding noise."""
  params = dict(params)
  if 'mlp' in params:
    params['mlp'] = {
      name: layer
      if name == 'output' or 'bias' not in layer or name.startswith('norm')
      else {'kernel': layer['kernel']}
      for name, layer in params['mlp'].items()
    }
  return params


def _init(mode, kind=None):
  architecture = spaces.build(
    'deepfm', _SCHEMA, dim=4, hidden=(5,), norm='batch', dropout=0.4
  )
  if kind:
    architecture = quantization.quantize(
      architecture, kind, 2, [(0.5, 4), (0.5, 2)], fields=('a', 'b')
    )
  options = settings.Settings(
    table_optimizer='adam', batch_size=16, parallel=mode, learning_rate=0.01
  )
  model = model_lib.build(architecture, axis_name=parallel.axis_name(mode))
  optimizer = settings.make_optimizer(options, architecture)
  fresh, _ = state.init(
    model, optimizer, state.example_batch(_SCHEMA), jax.random.key(1), 0.5
  )
  step = steps.make_train_step(model, optimizer)
  return fresh, parallel.compile_steps(step, mode)


def _run(mode, batches, kind=None):
  """State and losses in float64, where sums agree in any order."""
  with jax.enable_x64(True):
    widen = lambda x: (
      x.astype(np.float64) if jax.dtypes.issubdtype(x.dtype, np.floating) else x
    )
    fresh, program = _init(mode, kind)
    placed = program.place(jax.tree.map(widen, fresh))
    got, metrics = program.run(placed, jax.tree.map(widen, batches))
    for leaf in jax.tree.leaves(placed):
      assert leaf.is_deleted(), 'not donated'
    return program.fetch(got), metrics


class ParallelTest(parameterized.TestCase):
  @parameterized.parameters(
    ('jit',), ('pmap',), ('jit', 'vq'), ('pmap', 'vq'), ('pmap', 'sx')
  )
  def test_eight_devices_agree_with_one(self, mode, kind=None):
    """Of their two rows each, one device has half and two have padding alone.

    Weights differ from row to row, BatchNorm and dropout see the whole batch,
    and so do the moments of quantisers and what they add to the loss.
    """
    batches = _batches(3, live=11)
    expected, expected_metrics = _run('none', batches, kind)
    got, metrics = _run(mode, batches, kind)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-8)
    jax.tree.map(close, metrics, expected_metrics)
    jax.tree.map(
      close,
      (_meaningful(got.params), got.tables, got.batch_stats),
      (_meaningful(expected.params), expected.tables, expected.batch_stats),
    )
    self.assertLen(jax.tree.leaves(got.tables)[0].devices(), 1)

  def test_batch_that_does_not_divide(self):
    many = parallel.compile_steps(lambda state, batch: (state, {}), 'pmap')
    batches = _batches(1, rows=12)
    with self.assertRaisesRegex(
      errors.ConfigError, '12 rows does not divide among 8'
    ):
      many.run(many.place(np.float32(0)), batches)

  def test_unknown_mode_lists_the_known(self):
    with self.assertRaisesRegex(errors.ConfigError, 'none, jit, pmap'):
      parallel.compile_steps(lambda state, batch: (state, {}), 'pmpa')

  def test_steps_per_dispatch_change_no_bit(self):
    batches = _batches(3)
    fresh, program = _init('none')
    whole, whole_metrics = program.run(fresh, batches)
    parts, losses = _init('none')[0], []
    for i in range(3):
      part = Batch(*(leaf[i : i + 1] for leaf in batches))
      parts, metrics = program.run(parts, part)
      losses.extend(metrics['loss'])
    np.testing.assert_array_equal(whole_metrics['loss'], losses)
    for a, b in zip(*map(jax.tree.leaves, (whole, parts))):
      if jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key):
        a, b = jax.random.key_data(a), jax.random.key_data(b)
      np.testing.assert_array_equal(a, b)


if __name__ == '__main__':
  absltest.main()
