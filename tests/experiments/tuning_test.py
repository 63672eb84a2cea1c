import json
import pathlib
from unittest import mock

from absl.testing import absltest, parameterized

from experiments import cells as cells_lib
from experiments import known as known_lib
from experiments import tuning
from jax_autorec import data as data_lib
from jax_autorec import errors, pipeline
from jax_autorec.train import retraining

_AXES = {
  'learning_rate': (1e-3, 1e-2),
  'embedding_l2': (1e-4, 1e-1),
  'dropout': (0.0, 0.3),
}


def _row(config='fde', **values):
  values = {'data.max_rows': 600, 'controls': (), **values}
  return cells_lib.Row('row', f'{config}.py:planted,tiny', (*values.items(),))


class _Case(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.data = data_lib.load('planted').head(600)
    # Nothing is known of the data.
    empty = pathlib.Path(self.create_tempdir())
    self.enter_context(mock.patch.object(known_lib, 'TUNED', empty))

  def target(self, start=(), workdir=None, **values):
    row = _row(**values)
    return tuning.of_row(row, self.data, _AXES, dict(start), workdir)


class RowTest(_Case):
  @parameterized.parameters(
    ({'model': 'fm'}, {'learning_rate', 'embedding_l2'}, 4),
    ({'model': 'deepfm'}, set(_AXES), 8),
    (
      {'model': 'deepfm', 'model_options.dropout': 0.2},
      {'learning_rate', 'embedding_l2'},
      4,
    ),
    ({'model': 'fm', 'train.learning_rate': 0.5}, {'embedding_l2'}, 2),
  )
  def test_what_a_row_sets_is_not_tuned(self, values, axes, size):
    target = self.target(**values)
    self.assertLen(target.grid, size)
    for cell in target.grid:
      self.assertEqual(set(cell), axes)

  def test_labels(self):
    self.assertEqual(self.target(model='fm', label='fm+fde8').label, 'fm+fde8')
    self.assertEqual(self.target(model='deepfm').label, 'deepfm+fde')

  def test_the_cell_decides_rate_decay_and_dropout(self):
    target = self.target(model='deepfm')
    seen = []
    trained = mock.Mock(valid={'auc': 0.7, 'logloss': 0.5})
    trained.info = {'best_step': 3, 'seconds': 1.234}

    def retrain(architecture, data, settings, **_):
      seen.append((architecture, settings))
      return trained

    cell = {'learning_rate': 0.5, 'embedding_l2': 0.25, 'dropout': 0.125}
    with mock.patch.object(retraining, 'retrain', retrain):
      done = tuning.train(target, cell, self.data)
    ((architecture, settings),) = seen
    self.assertEqual(settings.learning_rate, 0.5)
    self.assertEqual(settings.embedding_l2, 0.25)
    self.assertEqual(architecture.head.dropout, 0.125)
    self.assertEqual(done['seconds'], 1.23)
    self.assertEqual(done | cell, done)

  def test_a_search_runs_once_from_its_start(self):
    target = self.target(
      config='autodim', model='fm', start={'learning_rate': 0.03}
    )
    self.assertEqual(target.searched, {'learning_rate': 0.03})
    train = target.values['search']['train']
    self.assertEqual(train['learning_rate'], 0.03)
    with mock.patch.object(
      pipeline, 'run_search', wraps=pipeline.run_search
    ) as search:
      first = target.architecture(target.grid[0])
      second = target.architecture(target.grid[1])
    self.assertEqual(search.call_count, 1)
    self.assertEqual(first, second)
    self.assertFalse(first.is_open)
    # What was tuned of the row itself does not change its search.
    (known_lib.TUNED / 'planted.json').write_text(
      json.dumps({'chosen': {'fm+autodim': {'learning_rate': 9.0}}})
    )
    again = self.target(
      config='autodim', model='fm', start={'learning_rate': 0.03}
    )
    self.assertEqual(again.values, target.values)

  def test_a_row_without_a_search(self):
    target = self.target(model='fm', start={'learning_rate': 0.03})
    self.assertIsNone(target.searched)

  def test_a_training_that_diverges_is_a_result(self):
    target = self.target(model='fm')
    error = errors.TrainingError('loss is nan')
    with mock.patch.object(retraining, 'retrain', side_effect=error):
      done = tuning.train(target, target.grid[0], self.data)
    self.assertEqual(done, target.grid[0] | {'failed': 'loss is nan'})


class StoreTest(_Case):
  def setUp(self):
    super().setUp()
    self.path = pathlib.Path(self.create_tempdir()) / 'tuned.json'
    self.store = tuning.Store(self.path, {'name': 'planted', 'seed': 1})

  def test_the_best_of_what_did_not_fail_is_chosen(self):
    target = self.target(model='fm', label='a')
    aucs = [0.6, 0.8, None, 0.7]
    for i, (cell, auc) in enumerate(zip(target.grid, aucs)):
      self.assertLen(self.store.todo(target), 4 - i)
      value = {'failed': 'nan'} if auc is None else {'valid_auc': auc}
      self.store.add(target, cell | value)
    self.assertEmpty(self.store.todo(target))
    content = json.loads(self.path.read_text())
    self.assertEqual(content['chosen'], {'a': target.grid[1]})
    self.assertLen(content['cells']['a'], 4)

  def test_nothing_is_chosen_of_what_failed(self):
    target = self.target(model='fm', label='a')
    self.assertEqual(
      self.store.add(target, target.grid[0] | {'failed': 'nan'}), {}
    )
    self.assertEmpty(self.store.read()['chosen'])

  def test_two_commands_lose_nothing(self):
    other = tuning.Store(self.path, {'name': 'planted', 'seed': 1})
    targets = [self.target(model='fm', label=label) for label in 'ab']
    for cell in targets[0].grid:
      for store, target in zip((self.store, other), targets):
        store.add(target, cell | {'valid_auc': 0.5})
    content = self.store.read()
    self.assertEqual([len(content['cells'][x]) for x in 'ab'], [4, 4])

  def test_a_file_of_other_data_is_refused(self):
    target = self.target(model='fm')
    self.store.add(target, target.grid[0] | {'valid_auc': 0.5})
    tuning.Store(self.path, {'name': 'planted', 'seed': 2})
    with self.assertRaisesRegex(errors.ConfigError, '--output'):
      tuning.Store(self.path, {'name': 'planted', 'split': 'ratio'})


if __name__ == '__main__':
  absltest.main()
