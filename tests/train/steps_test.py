"""The training step against dense autodiff and optax in float64."""

import dataclasses

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jax_autorec import schema as schema_lib
from jax_autorec import spaces
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


def _take(batches, i):
  return Batch(*(leaf[i] for leaf in batches))


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


def _make(model_name='deepfm', **options):
  architecture = spaces.build(model_name, _SCHEMA, dim=3, **options)
  options = settings.Settings(
    learning_rate=0.05,
    table_optimizer='sgd',
    batch_size=16,
    embedding_l2=0.0,
    clip_norm=0.7,
  )
  model = model_lib.build(architecture)
  optimizer = settings.make_optimizer(options, architecture)
  fresh, _ = state.init(
    model, optimizer, state.example_batch(_SCHEMA), jax.random.key(0), 0.5
  )
  return model, optimizer, fresh


class StepTest(parameterized.TestCase):
  @parameterized.parameters('fm', 'deepfm', 'ipnn')
  def test_equals_dense_autodiff_over_steps(self, name):
    mlp = {} if name == 'fm' else dict(hidden=(5,), norm='batch', dropout=0.0)
    model, optimizer, fresh = _make(name, **mlp)
    # Clipping sees both trees at once, so tables and weights share a norm.
    dense_tx = optimizer.dense
    batches = _batches(4)
    step = jax.jit(steps.make_train_step(model, optimizer))
    current = fresh
    tables, params = fresh.tables, fresh.params
    stats, opt = fresh.batch_stats, dense_tx.init(fresh.params)
    for i in range(4):
      batch = _take(batches, i)
      current, metrics = step(current, batch)

      def loss(params, tables, batch=batch, stats=stats):
        merged = {
          **params,
          'embeddings': {**params.get('embeddings', {}), **tables},
        }
        logits, updated = model.apply(
          {'params': merged, 'batch_stats': stats},
          batch,
          train=True,
          mutable=['batch_stats'],
        )
        losses = optax.sigmoid_binary_cross_entropy(logits, batch.labels)
        live = batch.weights * batch.mask
        return jnp.sum(losses * live) / live.sum(), updated

      (value, updated), grads = jax.value_and_grad(
        loss, argnums=(0, 1), has_aux=True
      )(params, tables)
      norm = optax.global_norm(grads)
      grads = jax.tree.map(lambda g, n=norm: g * jnp.minimum(1, 0.7 / n), grads)
      updates, opt = dense_tx.update(grads[0], opt, params)
      params = optax.apply_updates(params, updates)
      tables = jax.tree.map(lambda t, g: t - 0.05 * g, tables, grads[1])
      stats = updated.get('batch_stats', {})
      np.testing.assert_allclose(metrics['loss'], value, rtol=1e-5)
      np.testing.assert_allclose(metrics['grad_norm'], norm, rtol=1e-4)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-5)
    jax.tree.map(close, current.tables, tables)
    jax.tree.map(close, _meaningful(current.params), _meaningful(params))
    self.assertEqual(int(current.step), 4)

  def test_padding_changes_no_bit(self):
    model, optimizer, fresh = _make(hidden=(5,), norm='batch', dropout=0.3)
    batch = _take(_batches(1), 0)
    other = Batch(*(leaf.copy() for leaf in batch))
    other.ids[13:], other.numeric[13:], other.labels[13:] = 4, 9.0, 1.0
    step = jax.jit(steps.make_train_step(model, optimizer))
    first, second = step(fresh, batch), step(fresh, other)
    as_data = lambda x: (
      jax.random.key_data(x)
      if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
      else x
    )
    jax.tree.map(
      lambda a, b: np.testing.assert_array_equal(as_data(a), as_data(b)),
      first,
      second,
    )

  def test_a_batch_of_padding_alone_is_harmless(self):
    model, optimizer, fresh = _make(hidden=(5,), norm='batch')
    batch = _take(_batches(1, live=0), 0)
    new, metrics = jax.jit(steps.make_train_step(model, optimizer))(
      fresh, batch
    )
    self.assertEqual(float(metrics['loss']), 0.0)
    for leaf in jax.tree.leaves((new.params, new.tables, new.batch_stats)):
      self.assertTrue(np.all(np.isfinite(leaf)))
    jax.tree.map(np.testing.assert_array_equal, new.tables, fresh.tables)

  def test_cost_knows_nothing_of_the_vocabulary(self):
    """Temporaries and arithmetic are equal at 1e4 and 1e6 rows."""

    def cost(vocab):
      schema = schema_lib.Schema(
        tuple(schema_lib.Field(f'f{i}', vocab_size=vocab) for i in range(3))
      )
      architecture = spaces.build('fm', schema, dim=8)
      options = settings.Settings(table_optimizer='adam', batch_size=32)
      model = model_lib.build(architecture)
      optimizer = settings.make_optimizer(options, architecture)
      example = state.example_batch(schema, 32)
      fresh = jax.eval_shape(
        lambda: state.init(model, optimizer, example, jax.random.key(0))[0]
      )
      program = jax.jit(
        steps.make_train_step(model, optimizer), donate_argnums=0
      )
      compiled = program.lower(fresh, example).compile()
      self.assertNotRegex(
        compiled.as_text(), rf'f32\[{3 * vocab},8\]\S* copy\('
      )
      analysis = compiled.memory_analysis()
      return analysis.temp_size_in_bytes, compiled.cost_analysis()['flops']

    self.assertEqual(cost(10_000), cost(1_000_000))


def _init(mode):
  architecture = spaces.build(
    'deepfm', _SCHEMA, dim=3, hidden=(5,), norm='batch', dropout=0.4
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


class ParallelTest(parameterized.TestCase):
  @parameterized.parameters('jit', 'pmap')
  def test_eight_devices_agree_with_one(self, mode):
    batches = _batches(3, live=11)
    fresh, one = _init('none')
    expected, expected_metrics = one.run(one.place(fresh), batches)
    fresh, many = _init(mode)
    got, metrics = many.run(many.place(fresh), batches)
    got = many.fetch(got)
    np.testing.assert_allclose(
      metrics['loss'], expected_metrics['loss'], rtol=1e-5
    )
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)
    jax.tree.map(
      close,
      (_meaningful(got.params), got.tables),
      (_meaningful(expected.params), expected.tables),
    )

  def test_batch_that_does_not_divide(self):
    fresh, many = _init('pmap')
    batches = _batches(1, rows=12)
    with self.assertRaisesRegex(Exception, '12 rows does not divide among 8'):
      many.run(many.place(fresh), batches)

  def test_steps_per_dispatch_change_no_bit(self):
    batches = _batches(6)
    fresh, program = _init('none')
    whole, _ = program.run(fresh, batches)
    fresh, program = _init('none')
    parts = fresh
    for start, end in ((0, 1), (1, 4), (4, 6)):
      part = Batch(*(leaf[start:end] for leaf in batches))
      parts, _ = program.run(parts, part)
    jax.tree.map(
      np.testing.assert_array_equal,
      (whole.params, whole.tables),
      (parts.params, parts.tables),
    )


class SettingsTest(parameterized.TestCase):
  @parameterized.parameters(
    (dict(epochs=0), 'epochs is 0'),
    (dict(learning_rate=0.0), 'learning_rate is 0.0'),
    (dict(table_optimizer='adm'), 'rowwise_adagrad'),
    (dict(parallel='pmp'), 'pmap'),
  )
  def test_bad_settings(self, options, message):
    with self.assertRaisesRegex(Exception, message):
      settings.Settings(**options)

  @parameterized.parameters('dense_adam', 'sgd')
  def test_l2_of_vectors_and_first_order_weights(self, table_optimizer):
    architecture = spaces.build('fm', _SCHEMA, dim=3)
    options = settings.Settings(
      table_optimizer=table_optimizer,
      embedding_l2=0.5,
      first_order_l2=0.0,
      clip_norm=None,
    )
    optimizer = settings.make_optimizer(options, architecture)
    tables = {
      t.name: jnp.full((t.num_rows, t.dim), 2.0) for t in architecture.tables
    }
    ids = {t.space: jnp.arange(t.num_rows) for t in architecture.tables}
    zero = jax.tree.map(jnp.zeros_like, tables)
    opt = optimizer.tables.init(tables)
    opt, grads = optimizer.tables.reduce(opt, tables, ids, zero)
    new, _ = optimizer.tables.update(tables, opt, grads, jnp.float32(1))
    for table in architecture.tables:
      moved = not np.array_equal(new[table.name], tables[table.name])
      self.assertEqual(moved, table.view == 'main')

  def test_round_trip(self):
    options = settings.Settings(epochs=3, clip_norm=None)
    self.assertEqual(settings.Settings(**options.to_dict()), options)
    self.assertEqual(
      dataclasses.replace(options, epochs=4).to_dict()['epochs'], 4
    )


if __name__ == '__main__':
  absltest.main()
