"""The road from a space to test metrics, in memory and through a workdir."""

import dataclasses
import functools
import json
import pathlib
from unittest import mock

from absl.testing import absltest, parameterized
import jax
import numpy as np

from jax_autorec import errors, optim, pipeline, search, sizes, spaces
from jax_autorec.data import batches, planted
from jax_autorec.interactions import Block
from jax_autorec.search.autoctr import constant, with_blocks
from jax_autorec.train import models as models_lib
from jax_autorec.train import retraining
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
  model = retraining.retrain(
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
    auc = models_lib.evaluate(expected, data.test)['auc']
    turned = models_lib.evaluate(expected, _turned(data.test))['auc']
    self.assertAlmostEqual(turned, 1 - auc, places=12)
    other = retraining.retrain(
      expected.architecture,
      dataclasses.replace(data, valid=_turned(data.valid)),
      _RETRAIN,
      seed=1,
    )
    self.assertNotEqual(other.info['best_step'], expected.info['best_step'])

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

  def test_search_of_no_steps(self):
    space = spaces.fm(_data().schema, pairs='open')
    with self.assertRaisesRegex(errors.ConfigError, '0 steps'):
      pipeline.run_search(space, {}, _data(), _SETTINGS, num_steps=0)


class PopulationTest(absltest.TestCase):
  def test_stopped_and_continued_ends_with_the_same_trials(self):
    data = planted.generate(
      num_rows=1500, num_fields=3, num_pairs=2, max_values=30
    )
    model = spaces.fm(data.schema, dim=6)
    proposals = [
      ({'alpha': alpha}, sizes.mixed_dims(model, alpha, threshold=0))
      for alpha in (0.0, 1e-9, 0.9)
    ]
    settings = settings_lib.Settings(
      epochs=2, batch_size=300, learning_rate=0.02, table_std=0.1
    )
    run = lambda **options: pipeline.run_population(
      search.each(proposals), data, settings, seed=1, **options
    )
    expected = run()
    workdir = self.create_tempdir().full_path
    retrain, calls = retraining.retrain, []

    def stop(*arguments, **options):
      calls.append(options['stage'])
      if len(calls) == 2:
        raise KeyboardInterrupt
      return retrain(*arguments, **options)

    with mock.patch.object(retraining, 'retrain', stop):
      with self.assertRaises(KeyboardInterrupt):
        run(workdir=workdir)
      # Neither the first trial again, nor a test split that has changed.
      data.test.labels[:] = 1 - data.test.labels
      found = run(workdir=workdir)
    self.assertEqual(calls, ['trial 1', 'trial 2', 'trial 2'])
    self.assertEqual(found.architecture, expected.architecture)
    for one, other in zip(found.trials, expected.trials, strict=True):
      one, other = json.loads(json.dumps([one, other]))
      self.assertEqual(one | {'seconds': 0}, other | {'seconds': 0})
    aucs = [trial['valid']['auc'] for trial in found.trials]
    best = found.trials[int(np.argmax(aucs))]
    self.assertEqual(
      json.loads(json.dumps(found.architecture.to_dict())),
      json.loads(json.dumps(best['architecture'])),
    )
    self.assertEqual([t['alpha'] for t in found.trials], [0.0, 0.9])
    self.assertEqual(
      [t['ep_total'] for t in found.trials],
      [proposals[n][1].ep_total for n in (0, 2)],
    )

  def test_a_proposal_that_diverges_has_no_score_and_others_go_on(self):
    data = _data()
    fields = spaces.field_plans(data.schema, 4)
    # Squares of squares of squares, ...
    deep = [Block('dp', ['values'])] + [Block('dp', [n]) for n in range(7)]
    proposals = [deep, [Block('fm', ['vectors'])]]
    settings = dataclasses.replace(_SETTINGS, epochs=1, batch_size=400)

    def ask(scored):
      if len(scored) == 2:
        return None
      return with_blocks(fields, proposals[len(scored)])

    derive = lambda scored: min(scored, key=lambda one: one.loss).architecture
    population = search.Population(ask, derive, complexity=True)
    with self.assertRaisesRegex(errors.TrainingError, 'trial 1: loss of step'):
      pipeline.run_population(population, data, settings)
    bears = population._replace(bears_divergence=True)
    workdir = self.create_tempdir().full_path
    found = pipeline.run_population(bears, data, settings, workdir=workdir)
    self.assertEqual(found.architecture, with_blocks(fields, proposals[1]))
    diverged, other = found.trials
    self.assertEqual(diverged['valid'], {})
    self.assertRegex(diverged['diverged'], 'loss of step 0 .* is (inf|nan)')
    self.assertNotIn('diverged', other)
    self.assertGreater(other['flops'], 0)
    # From the file; no training again.
    with mock.patch.object(retraining, 'retrain'):
      again = pipeline.run_population(bears, data, settings, workdir=workdir)
    self.assertEqual(again.trials, found.trials)


def _evolve(workdir=None, **options):
  data = _data()
  population = search.autoctr(
    spaces.field_plans(data.schema, 4),
    trials=3,
    population=2,
    num_blocks=2,
    widths=(4,),
    hash_size=8,
    ranker=constant,
    **options,
  )
  settings = dataclasses.replace(
    _SETTINGS, epochs=2, batch_size=400, table_std=0.01, patience=1
  )
  return pipeline.run_population(
    population, data, settings, seed=1, workdir=workdir
  )


@functools.cache
def _evolved():
  return _evolve()


class EvolutionTest(parameterized.TestCase):
  """AutoCTR's search, whose trials start from tables of before."""

  # Chunks 1 to 2 are those of the start, and two more of every trial.
  @parameterized.parameters(1, 5)
  def test_killed_within_a_training_it_ends_with_the_same_graph(self, count):
    workdir = self.create_tempdir().full_path
    with _kill_after(count), self.assertRaises(_Killed):
      _evolve(workdir)
    found, expected = _evolve(workdir), _evolved()
    self.assertEqual(found.architecture, expected.architecture)
    self.assertLen(found.trials, 3)
    for one, other in zip(found.trials, expected.trials, strict=True):
      one, other = json.loads(json.dumps([one, other]))
      self.assertEqual(one | {'seconds': 0}, other | {'seconds': 0})
    self.assertFalse(list((pathlib.Path(workdir) / 'checkpoints').iterdir()))
    # Finished, it is read again.
    with mock.patch.object(retraining, 'retrain'):
      again = _evolve(workdir)
    self.assertEqual(again.architecture, expected.architecture)
    with self.assertRaisesRegex(errors.CheckpointError, 'another search'):
      _evolve(workdir, warm_start=False)

  def test_what_is_known_of_trials(self):
    found = _evolved()
    self.assertEqual(found.info['metric'], 'logloss')
    self.assertIn('auc', found.info['start']['valid'])
    for trial in found.trials:
      self.assertBetween(trial['valid']['logloss_error'], 1e-4, 0.1)
      self.assertIn('initial/main_dim_4', trial['architecture']['arrays'])
    losses = [trial['valid']['logloss'] for trial in found.trials]
    best = found.trials[int(np.argmin(losses))]
    self.assertEqual(
      json.loads(json.dumps(found.architecture.to_dict()['interactions'])),
      best['architecture']['interactions'],
    )
    # The result starts afresh, with all its rows.
    self.assertEqual(found.architecture.arrays, {})
    sizes = [field.vocab_size for field in _data().schema.categorical]
    self.assertGreater(max(sizes), 8)
    self.assertEqual(found.architecture.embedding_params, 4 * sum(sizes))


if __name__ == '__main__':
  absltest.main()
