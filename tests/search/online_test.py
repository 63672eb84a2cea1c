"""What every method that follows a stream must keep to."""

import functools

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jax_autorec import field_spaces, search, spaces, streaming
from jax_autorec import schema as schema_lib
from jax_autorec.data import batches as batches_lib
from jax_autorec.data import dataset as dataset_lib
from jax_autorec.nn import model as model_lib
from jax_autorec.search import online
from jax_autorec.train import parallel
from jax_autorec.train import settings as settings_lib
from jax_autorec.train import state as state_lib

_DIMS = (2, 4, 8)
_ROWS = 250  # The last of 13 batches is padded.

# Name -> (what is open about rows, method).
_METHODS = {
  'fixed': (None, search.fixed),
  'esapn': (
    'grow',
    lambda: search.esapn(optax.adam(1e-2), explore=0.3, hidden=8),
  ),
  'esapn_as_published': (
    'grow',
    lambda: search.esapn(
      optax.adam(1e-2),
      reward='grown',
      base='last',
      price=0.0,
      explore=0.3,
      hidden=8,
    ),
  ),
  'row_darts': ('mix', lambda: search.row_darts(1e-2)),
  'autoemb_stream': (
    'mix',
    lambda: search.autoemb_stream(optax.adam(1e-2), hidden=8),
  ),
}


def _schema(users=30, items=12):
  return schema_lib.Schema(
    (
      schema_lib.Field('user', vocab_size=users),
      schema_lib.Field('item', vocab_size=items),
    )
  )


def _stream(seed=0):
  rng = np.random.default_rng(seed)
  ids = np.minimum(rng.geometric(0.1, (_ROWS, 2)), [29, 11]).astype(np.int32)
  labels = (ids.sum(1) % 3 == 0).astype(np.float32)
  rows = dataset_lib.Split(
    ids, np.zeros((_ROWS, 0), np.float32), np.zeros((_ROWS, 0), bool), labels
  )
  counts = {'user': np.bincount(ids[:, 0]), 'item': np.bincount(ids[:, 1])}
  return dataset_lib.Dataset(
    'stream', _schema(), rows, rows.head(0), rows.head(0), counts, {}, 'x'
  )


def _settings(**options):
  options = {'batch_size': 20, 'steps_per_dispatch': 3} | options
  return settings_lib.Settings(learning_rate=1e-2, table_std=0.3, **options)


def _space(name, schema=None):
  how, _ = _METHODS[name]
  schema = schema or _schema()
  closed = spaces.rater(schema, dim=_DIMS[-1], width=_DIMS[-1], hidden=(8,))
  return field_spaces.open_rows(closed, _DIMS, how) if how else closed


def _run(name, stream=None, loss='square', **options):
  return streaming.run_stream(
    _space(name),
    _METHODS[name][1](),
    stream or _stream(),
    _settings(**options),
    loss=loss,
    seed=1,
  )


@functools.cache
def _done(name):
  return _run(name)


def _parts(name, schema=None):
  """Method, tools and a step of it, compiled for one batch."""
  space, method = _space(name, schema), _METHODS[name][1]()
  settings = _settings()
  optimizer = settings_lib.make_optimizer(settings, space)
  tools = online.tools(model_lib.build(space), optimizer, 'square')
  return method, tools, online.make_step(tools, method, 'square')


class OnlineTest(parameterized.TestCase):
  @parameterized.parameters(*_METHODS)
  def test_predictions_are_those_before_the_rows_were_learnt_from(self, name):
    """Recomputed one by one, rows alone, from the state before each batch."""
    stream = _stream()
    method, tools, step = _parts(name)
    state = online.init(
      tools,
      method,
      state_lib.example_batch(stream.schema),
      260,
      jax.random.key(1),
      0.3,
    )
    step, predict = jax.jit(step), jax.jit(online.make_predict(tools, method))
    source = batches_lib.Batches(stream.train, 20, shuffle=False)
    previous = source.batch(0, 0)
    previous = previous._replace(mask=np.zeros(20, bool))
    offline, losses = [], []
    for number in range(13):
      batch = source.batch(0, number)
      # What a row is predicted as does not hang on its neighbours.
      alone = jax.tree.map(lambda x: np.roll(x, 7, 0), batch)
      offline.append(np.roll(predict(state, alone), -7))
      state, metrics = step(state, (batch, previous))
      losses.append(float(metrics['loss']))
      previous = batch
    offline = np.concatenate(offline)[:_ROWS].astype(np.float64)
    done = _done(name)
    np.testing.assert_allclose(done.logits, offline, rtol=2e-4, atol=2e-5)
    labels = stream.train.labels
    errors_ = (1 / (1 + np.exp(-offline)) - labels) ** 2
    found = streaming.prequential(stream.train, done.logits, 'square')
    self.assertAlmostEqual(found['loss'], errors_.mean(), places=5)
    right = (offline > 0) == (labels == 1)
    self.assertAlmostEqual(found['accuracy'], right.mean())
    self.assertAlmostEqual(losses[3], errors_[60:80].mean(), places=5)

  @parameterized.parameters('esapn', 'autoemb_stream')
  def test_labels_do_not_reach_the_predictions_of_their_batch(self, name):
    """Nor those of any later batch."""
    stream = _stream()
    labels = stream.train.labels.copy()
    labels[120:] = 1 - labels[120:]
    turned = dataset_lib.Split(
      stream.train.ids, stream.train.numeric, stream.train.missing, labels
    )
    other = _run(
      name,
      _stream().__class__(
        **{**vars(stream), 'train': turned, 'fingerprint': 'y'}
      ),
    )
    done = _done(name)
    np.testing.assert_array_equal(done.logits[:140], other.logits[:140])
    self.assertTrue(np.any(done.logits[140:] != other.logits[140:]))

  @parameterized.parameters('esapn', 'row_darts', 'autoemb_stream')
  def test_a_step_does_not_grow_with_the_vocabulary(self, name):
    """Neither scratch memory nor work, nor a copy of what is kept per id."""

    def compiled(users):
      schema = _schema(users)
      method, tools, step = _parts(name, schema)
      batch = state_lib.example_batch(schema, 20)
      init = lambda: online.init(tools, method, batch, 400, jax.random.key(0))
      state = jax.eval_shape(init)
      program = parallel.compile_steps(step)
      batches = jax.tree.map(lambda x: x[None], (batch, batch))
      return program.run.lower(state, batches).compile()

    small, large = compiled(1000), compiled(100_003)
    memory = [c.memory_analysis().temp_size_in_bytes for c in (small, large)]
    self.assertEqual(*memory)
    flops = [c.cost_analysis()['flops'] for c in (small, large)]
    self.assertLess(flops[1], 1.01 * flops[0])
    copies = [
      line
      for line in large.as_text().splitlines()
      if ' copy(' in line and '[1000' in line.split(' copy(')[0]
    ]
    self.assertEmpty(copies)

  def test_devices_agree(self):
    """The batch split over eight devices."""
    one, other = (
      _run('esapn', batch_size=24, parallel=mode) for mode in ('none', 'jit')
    )
    np.testing.assert_allclose(one.logits[:24], other.logits[:24], atol=1e-5)
    # Offsets before a normalisation have no gradient but rounding, of which
    # Adam makes whole steps.
    np.testing.assert_allclose(one.logits, other.logits, atol=0.05)
    for name, own in one.state.own.items():
      for kept in ('size', 'count'):
        np.testing.assert_array_equal(own[kept], other.state.own[name][kept])
      np.testing.assert_allclose(
        own['losses'], other.state.own[name]['losses'], atol=0.02
      )

  def test_losses(self):
    logits, labels = jnp.array([0.3, -2.0]), jnp.array([1.0, 0.0])
    chance = 1 / (1 + np.exp(-np.asarray(logits, np.float64)))
    found = online.LOSSES['square'](logits, labels)
    np.testing.assert_allclose(found, (chance - labels) ** 2, rtol=1e-5)
    found = online.LOSSES['log'](logits, labels)
    expected = -np.log([chance[0], 1 - chance[1]])
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    done = _run('fixed', loss='log')
    self.assertNotAlmostEqual(done.logits[-1], _done('fixed').logits[-1])


class HistoryTest(parameterized.TestCase):
  def test_against_a_list_per_id(self):
    """Duplicates in a batch all count, in their order (published: one)."""
    rng = np.random.default_rng(0)
    history, counts = jnp.zeros((6, 3)), jnp.zeros((6,), jnp.int32)
    kept = [[] for _ in range(6)]
    step = jax.jit(online.pushed)
    for _ in range(5):
      ids = rng.integers(-1, 6, 11).astype(np.int32)
      values = rng.normal(size=11).astype(np.float32)
      history, counts = step(history, counts, ids, values)
      for i, value in zip(ids, values):
        if i >= 0:
          kept[i].append(value)
      for i in range(6):
        self.assertEqual(counts[i], len(kept[i]))
        expected = np.zeros(3, np.float32)
        for n, value in enumerate(kept[i]):
          expected[n % 3] = value
        np.testing.assert_array_equal(history[i], expected)


if __name__ == '__main__':
  absltest.main()
