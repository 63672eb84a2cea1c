"""Runs over a stream: stopped, killed, settled and refused."""

import functools

from absl.testing import absltest
import jax
import numpy as np
import optax
import pytest

from jax_autorec import data as data_lib
from jax_autorec import errors, field_spaces, search, spaces, streaming
from jax_autorec import schema as schema_lib
from jax_autorec.data import batches as batches_lib
from jax_autorec.data import dataset as dataset_lib
from jax_autorec.nn import model as model_lib
from jax_autorec.search import online
from jax_autorec.train import models as models_lib
from jax_autorec.train import settings as settings_lib

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


def _schema():
  return schema_lib.Schema(
    (
      schema_lib.Field('user', vocab_size=30),
      schema_lib.Field('item', vocab_size=12),
    )
  )


def _stream():
  rng = np.random.default_rng(0)
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


def _space(name):
  how, _ = _METHODS[name]
  closed = spaces.rater(_schema(), dim=_DIMS[-1], width=_DIMS[-1], hidden=(8,))
  return field_spaces.open_rows(closed, _DIMS, how) if how else closed


def _run(name, workdir=None, loss='square', num_steps=None, **options):
  return streaming.run_stream(
    _space(name),
    _METHODS[name][1](),
    _stream(),
    _settings(**options),
    loss=loss,
    num_steps=num_steps,
    seed=1,
    workdir=workdir,
  )


@functools.cache
def _done(name):
  return _run(name)


def _tools(name):
  space = _space(name)
  optimizer = settings_lib.make_optimizer(_settings(), space)
  return online.tools(model_lib.build(space), optimizer, 'square')


class StreamTest(absltest.TestCase):
  def test_a_run_stops_at_any_moment_and_goes_on(self):
    """What is settled then has the sizes of then."""
    workdir = self.create_tempdir().full_path
    done, before = _done('esapn'), None
    for num_steps in (4, 7, 13):
      found = _run('esapn', workdir=workdir, num_steps=num_steps)
      rows = min(20 * num_steps, _ROWS)
      np.testing.assert_array_equal(found.logits, done.logits[:rows])
      self.assertEqual(int(found.state.train.step), num_steps)
      model = streaming.settle(found, _settings())
      sizes = np.concatenate(
        [np.asarray(found.state.own[name]['size']) for name in ('user', 'item')]
      )
      entries = np.array(_DIMS)[sizes].sum()
      self.assertEqual(model.architecture.embedding_params, entries)
      self.assertEqual(sum(x.size for x in model.tables.values()), entries)
      # It predicts what the state then does.
      batch = batches_lib.Batches(_stream().train, 20, shuffle=False)
      standing = online.make_predict(_tools('esapn'), found.online)
      np.testing.assert_allclose(
        models_lib.predictions(model, _stream().train, 20)[:20],
        standing(found.state, batch.batch(0, 0)),
        rtol=1e-4,
        atol=1e-5,
      )
      if before is not None:
        self.assertTrue(np.all(sizes >= before) and np.any(sizes > before))
      before = sizes
      scored = streaming.prequential(_stream().train, found.logits, 'square')
      self.assertGreater(scored['accuracy'], 0)
    with self.assertRaisesRegex(errors.CheckpointError, '13 steps'):
      _run('esapn', workdir=workdir, num_steps=4)
    for num_steps in (0, 14):
      with self.assertRaisesRegex(errors.ConfigError, 'expected 1 to 13'):
        _run('esapn', num_steps=num_steps)

  def test_a_killed_run_ends_with_the_same_bits(self):
    self._check_killed('esapn')

  @pytest.mark.slow
  def test_other_killed_runs_end_with_the_same_bits(self):
    for name in _METHODS:
      self._check_killed(name)

  def _check_killed(self, name):
    workdir = self.create_tempdir().full_path
    chunk = batches_lib.Batches.chunk

    def dies(source, start, count):
      if start >= 8:
        raise KeyboardInterrupt
      return chunk(source, start, count)

    options = {'save_seconds': 0}
    batches_lib.Batches.chunk = dies
    try:
      with self.assertRaises(KeyboardInterrupt):
        _run(name, workdir=workdir, **options)
    finally:
      batches_lib.Batches.chunk = chunk
    again, done = _run(name, workdir=workdir, **options), _done(name)
    np.testing.assert_array_equal(again.logits, done.logits)
    same = lambda x, y: np.testing.assert_array_equal(
      *(
        jax.random.key_data(z)
        if jax.dtypes.issubdtype(z.dtype, jax.dtypes.prng_key)
        else z
        for z in (x, y)
      )
    )
    jax.tree.map(same, again.state, done.state)

  def test_slips_are_refused(self):
    with self.assertRaisesRegex(errors.ConfigError, 'square, log'):
      _run('fixed', loss='hinge')
    with self.assertRaisesRegex(errors.ConfigError, 'pmap'):
      _run('fixed', parallel='pmap')
    with self.assertRaisesRegex(errors.ConfigError, 'mixes all widths'):
      streaming.settle(_done('row_darts'))
    with self.assertRaisesRegex(errors.ConfigError, "how='grow'"):
      streaming.run_stream(
        _space('row_darts'), _METHODS['esapn'][1](), _stream(), _settings()
      )
    data = data_lib.load('planted', num_rows=1000)
    with self.assertRaisesRegex(errors.ConfigError, 'nobody'):
      data_lib.stream(data, ['field_0', 'nobody'])


if __name__ == '__main__':
  absltest.main()
