"""The road from a space to test metrics, in memory and through a workdir."""

import dataclasses
import functools
import json
import pathlib
from unittest import mock

from absl.testing import absltest, parameterized
import jax
import numpy as np

from jax_autorec import errors, metrics, optim, pipeline, search, spaces
from jax_autorec.data import batches, planted
from jax_autorec.train import settings as settings_lib

_STEPS = 24  # Three epochs of eight.
_SETTINGS = settings_lib.Settings(
  epochs=6,
  batch_size=200,
  learning_rate=0.05,
  table_std=0.1,
  patience=2,
  steps_per_dispatch=4,
  save_seconds=0.0,
)
# Fast enough to overfit before it ends.
_RETRAIN = dataclasses.replace(_SETTINGS, learning_rate=0.3)


@functools.cache
def _data():
  return planted.generate(
    num_rows=2000, num_fields=4, num_pairs=2, num_numeric=1, max_values=20
  )


def _turned(split):
  return dataclasses.replace(split, labels=1 - split.labels)


def _road(data, workdir=None):
  """Architecture, model and what was found."""
  c = optim.grda_c(1.1, 0.6, 1.0, 0.8, _STEPS)
  found = pipeline.run_search(
    spaces.deepfm(data.schema, dim=4, pairs='open', hidden=(6,)),
    {'interactions': search.autofis(optim.grda(1.0, c, 0.8))},
    data,
    _SETTINGS,
    num_steps=_STEPS,
    workdir=workdir,
  )
  architecture = pipeline.derive(found)
  model = pipeline.retrain(
    architecture, data, _RETRAIN, seed=1, workdir=workdir
  )
  return architecture, model, found


@functools.cache
def _expected():
  return _road(_data())


def _assert_same_model(test, model, expected):
  test.assertEqual(model.architecture, expected.architecture)
  test.assertEqual(model.valid, expected.valid)
  test.assertEqual(model.info['best_step'], expected.info['best_step'])
  jax.tree.map(
    np.testing.assert_array_equal,
    (model.params, model.tables, model.batch_stats),
    (expected.params, expected.tables, expected.batch_stats),
  )


class _Killed(BaseException):
  pass


def _kill_after(count):
  """Ends the process's work, in effect, when so many chunks were read."""
  chunk, calls = batches.Batches.chunk, iter(range(count))

  def killing(self, start, size):
    if next(calls, None) is None:
      raise _Killed
    return chunk(self, start, size)

  return mock.patch.object(batches.Batches, 'chunk', killing)


class RoadTest(parameterized.TestCase):
  def test_validation_chooses_and_the_test_split_does_not_exist(self):
    _, expected, _ = _expected()
    data = _data()
    _assert_same_model(
      self, _road(dataclasses.replace(data, test=None))[1], expected
    )
    auc = pipeline.evaluate(expected, data.test)['auc']
    turned = pipeline.evaluate(expected, _turned(data.test))['auc']
    self.assertAlmostEqual(turned, 1 - auc, places=12)
    other = pipeline.retrain(
      expected.architecture,
      dataclasses.replace(data, valid=_turned(data.valid)),
      _RETRAIN,
      seed=1,
    )
    self.assertNotEqual(other.info['best_step'], expected.info['best_step'])

  def test_model_is_that_of_its_best_evaluation(self):
    _, model, _ = _expected()
    valid = pipeline.evaluate(model, _data().valid, 77)
    self.assertAlmostEqual(valid['auc'], model.valid['auc'], places=9)
    self.assertAlmostEqual(valid['logloss'], model.valid['logloss'], places=6)
    self.assertLess(model.info['best_step'], model.info['steps'])
    self.assertGreater(model.info['examples_per_second'], 0)

  def test_predictions_are_in_row_order_whatever_the_batch(self):
    _, model, _ = _expected()
    variables = (model.params, model.tables, model.batch_stats)
    split = _data().test
    logits = [
      pipeline.predict(model.architecture, variables, split, size)
      for size in (64, 200)
    ]
    self.assertEqual(logits[0].shape, (200,))
    np.testing.assert_allclose(*logits, rtol=1e-4, atol=1e-5)
    self.assertAlmostEqual(
      pipeline.evaluate(model, split)['auc'],
      metrics.auc(split.labels, logits[1]),
    )

  @parameterized.parameters(3, 10)
  def test_killed_anywhere_the_same_calls_end_with_the_same_bits(self, count):
    """Chunks 1 to 6 are the search's, the others those of retraining."""
    workdir = self.create_tempdir().full_path
    with _kill_after(count), self.assertRaises(_Killed):
      _road(_data(), workdir)
    architecture, model, found = _road(_data(), workdir)
    expected_architecture, expected, expected_found = _expected()
    self.assertEqual(architecture, expected_architecture)
    jax.tree.map(
      np.testing.assert_array_equal, found.state.arch, expected_found.state.arch
    )
    _assert_same_model(self, model, expected)
    lines = (pathlib.Path(workdir) / 'metrics.jsonl').read_text().splitlines()
    rows = [(x['stage'], x['step']) for x in map(json.loads, lines)]
    steps = range(8, model.info['steps'] + 1, 8)
    self.assertEqual(
      rows,
      [('search', step) for step in range(0, 25, 4)]
      + [('retrain', step) for step in steps],
    )

  def test_workdir_of_another_run_is_refused(self):
    workdir, data = self.create_tempdir().full_path, _data()
    architecture = spaces.lr(data.schema)
    short = dataclasses.replace(_SETTINGS, epochs=1)
    pipeline.retrain(architecture, data, short, workdir=workdir)
    changed = dataclasses.replace(short, learning_rate=0.1)
    with self.assertRaisesRegex(
      errors.CheckpointError, 'differs in learning_rate, seed'
    ):
      pipeline.retrain(architecture, data, changed, seed=5, workdir=workdir)
    smaller = data.head(400)
    with self.assertRaisesRegex(errors.CheckpointError, 'differs in data'):
      pipeline.retrain(architecture, smaller, short, workdir=workdir)
    # More epochs are a continuation.
    longer = dataclasses.replace(short, epochs=2, parallel='none')
    model = pipeline.retrain(architecture, data, longer, workdir=workdir)
    whole = pipeline.retrain(architecture, data, longer)
    _assert_same_model(self, model, whole)

  def test_open_architecture_is_not_retrained(self):
    space = spaces.fm(_data().schema, pairs='open')
    with self.assertRaisesRegex(errors.ConfigError, 'derive it first'):
      pipeline.retrain(space, _data(), _SETTINGS)

  def test_search_of_no_steps(self):
    space = spaces.fm(_data().schema, pairs='open')
    with self.assertRaisesRegex(errors.ConfigError, '0 steps'):
      pipeline.run_search(space, {}, _data(), _SETTINGS, num_steps=0)

  def test_sizes_count_every_scalar(self):
    _, model, _ = _expected()
    tables = sum(
      field.vocab_size * (4 + 1) for field in _data().schema.categorical
    )
    kept = len(model.architecture.interactions[0].terms)
    # Numeric vectors and their missing twins, gates, MLP of 5 x 4 -> 6 -> 1
    # with a norm.
    others = 2 * (4 + 1) + kept + (20 * 6 + 6) + 2 * 6 + (6 + 1)
    self.assertEqual(model.total_params, tables + others)
    self.assertEqual(pipeline.array_bytes(model.tables), 4 * tables)


if __name__ == '__main__':
  absltest.main()
