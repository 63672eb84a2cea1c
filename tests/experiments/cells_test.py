import fcntl
import json
import os
import pathlib
from unittest import mock

from absl.testing import absltest, parameterized
import numpy as np

from experiments import cells
from experiments import known as known_lib
from experiments import settings as settings_lib
from experiments.configs import (
  autofis_table,
  base_table,
  embedding_table,
  interaction_table,
  joint_table,
)
from jax_autorec import errors

_TABLE = {
  'rows': {
    f'{model}+fde{dim}': {
      'config': 'fde.py:planted,tiny',
      'set': {'model': model, 'search.dims': (dim,), 'controls': ()},
      'method': f'FDE({dim})',
    }
    for model in ('fm', 'deepfm')
    for dim in (2, 4)
  },
  'seeds': (1, 2),
}


_METRICS = {'auc': 0.8, 'logloss': 0.4}
_REPORT = {
  'dataset': 'planted',
  'model': 'fm',
  'tiny': True,
  'test': _METRICS,
  'valid': _METRICS,
  'controls': {},
}


def _finish(cell, seconds=100.0, **changes):
  """Leaves the files of a run that ended."""
  cell.workdir.mkdir(parents=True, exist_ok=True)
  config = cell.row.read()
  config.seed = cell.seed
  text = json.dumps(settings_lib.resolve(config), default=list)
  (cell.workdir / 'config.json').write_text(text)
  report = _REPORT | {'seconds': {'retrain': seconds}} | changes
  cell.report.write_text(json.dumps(report))


class _Case(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.workdir = pathlib.Path(self.create_tempdir())
    self.rows = cells.rows(_TABLE)

  def make(self, seeds=(1, 2), rows=None):
    # New ones: a cell remembers whether it is outdated.
    return cells.make(rows or self.rows, seeds, self.workdir)


class TableTest(_Case):
  def test_every_row_with_one_seed_before_the_next(self):
    found = [(cell.row.name, cell.seed) for cell in self.make()]
    names = list(_TABLE['rows'])
    self.assertEqual(found, [(n, s) for s in (1, 2) for n in names])

  def test_rows_by_pattern(self):
    chosen = cells.choose(self.rows, ['fm+*', 'deepfm+fde4'])
    self.assertEqual(
      [row.name for row in chosen], ['fm+fde2', 'fm+fde4', 'deepfm+fde4']
    )
    self.assertEqual(cells.choose(self.rows, None), self.rows)
    with self.assertRaisesRegex(errors.ConfigError, "mean 'deepfm.fde4'"):
      cells.choose(self.rows, ['fm+*', 'deepfm+fde44'])

  def test_rows_of_one_directory_are_refused(self):
    rows = {name: {'config': 'fde.py:x', 'set': {}} for name in ('a b', 'a+b')}
    with self.assertRaisesRegex(errors.ConfigError, "'a b' and 'a.b' share"):
      cells.rows({'rows': rows})

  def test_seeds_of_other_commands_are_known(self):
    (cell,) = self.make([7], self.rows[1:2])
    _finish(cell)
    found = cells.known(self.rows, (1, 2), self.workdir)
    self.assertLen(found, 2 * 4 + 1)
    self.assertEqual([c for c in found if c.is_done], [cell])

  @parameterized.parameters(
    (autofis_table, 'frappe', 2, 5),
    (base_table, 'frappe', 48, 3),
    (interaction_table, 'frappe', 15, 5),
    (interaction_table, 'diabetes130', 15, 5),
    (joint_table, 'adult', 10, 5),
    (joint_table, 'criteo', 10, 5),
    (joint_table, 'planted_noise', 9, 10),
  )
  def test_other_tables_have_their_rows(self, module, name, rows, seeds):
    table = module.get_config(name).to_dict()
    found = cells.rows(table)
    self.assertLen(found, rows)
    self.assertLen(table['seeds'], seeds)
    for row in found:
      settings_lib.resolve(row.read())


class BaseTableTest(absltest.TestCase):
  def test_what_is_to_be_reached(self):
    found = cells.rows(base_table.get_config('frappe').to_dict())
    rows = {row.name: row for row in found}
    known = lambda name: (rows[name].published, rows[name].least)
    # A band; five seeds; the leaderboard alone; none.
    self.assertEqual(known('deepfm, draw 1'), (0.9842, 0.9825))
    self.assertEqual(known('xdeepfm, draw 0'), (0.9845, 0.9827))
    self.assertEqual(known('cin, draw 0'), (0.9782, 0.9757))
    self.assertEqual(known('masknet_serial, draw 0'), (None, None))


class EmbeddingTableTest(parameterized.TestCase):
  @parameterized.parameters(
    'movielens_1m', 'frappe', 'amazon_employee', 'criteo', 'frappe,tiny'
  )
  def test_rows_resolve(self, argument):
    table = embedding_table.get_config(argument).to_dict()
    rows = cells.rows(table)
    self.assertLen(table['seeds'], 5)
    # Where the seconds of AutoDim's search are known, RaS has a row at them.
    extra = 2 if argument == 'movielens_1m' else 0
    self.assertLen(rows, 3 * (14 if 'tiny' in argument else 16) + extra)
    models = {row.model for row in rows}
    self.assertEqual(models, {'fm', 'wide_deep', 'deepfm'})
    for model in models:
      methods = [row.method for row in rows if row.model == model]
      self.assertIn(table['reference'], methods)
      self.assertContainsSubset({'MDE', 'DPQ', 'NIS', 'AutoEmb'}, methods)
    found = 0
    for row in rows:
      if not (cells._CONFIGS / row.config.split(':')[0]).exists():
        continue
      values = settings_lib.resolve(row.read())
      found += 1
      self.assertEmpty(values['controls'])
      self.assertEqual(values['label'], row.name)
      self.assertEqual(values['model'], row.model)
      if argument == 'movielens_1m':
        self.assertEqual(values['data']['split'], 'ratio')
        if row.model != 'fm':
          options = values['model_options']
          self.assertEqual(
            [options[key] for key in ('hidden', 'norm', 'dropout')],
            [(128, 128), 'batch', 0.2],
          )
    self.assertGreaterEqual(found, 3 * 6)

  def test_widths_and_levels_are_set(self):
    rows = cells.rows(embedding_table.get_config('frappe').to_dict())
    read = {row.name: row.read() for row in rows if row.method.startswith('F')}
    self.assertEqual(read['fm+fde16'].search.dims, (16,))
    (ads,) = (row for row in rows if row.name == 'fm+ads')
    self.assertEqual(ads.read().search.split, 'train')

  def test_unknown_data(self):
    with self.assertRaisesRegex(errors.ConfigError, "mean 'frappe'"):
      embedding_table.get_config('frape')


class StateTest(_Case):
  def test_states(self):
    first, second, third, fourth = self.make([1])
    _finish(first)
    second.workdir.mkdir(parents=True)
    (second.workdir / 'failed.txt').write_text('no room')
    third.workdir.mkdir(parents=True)
    self.assertEqual(
      [c.missing for c in (first, second, third, fourth)],
      ['', 'failed: no room', 'not finished', 'not run yet'],
    )

  def test_a_run_of_other_settings_is_in_no_table(self):
    (cell,) = self.make([1], self.rows[:1])
    _finish(cell)
    path = cell.workdir / 'config.json'
    values = json.loads(path.read_text())
    values['train']['learning_rate'] = 0.5
    path.write_text(json.dumps(values))
    (cell,) = self.make([1], self.rows[:1])
    self.assertFalse(cell.is_done)
    self.assertEqual(cell.state, 'outdated')
    self.assertStartsWith(cell.missing, 'outdated: ')
    self.assertIn('train.learning_rate is 0.5, now 0.01', cell.missing)
    self.assertIn(f'delete {cell.workdir} to run it again', cell.missing)

  @parameterized.parameters(
    ('report.json', b''),
    ('report.json', b'[1]'),
    ('report.json', b'{"test": {"auc": 0.8}'),
    ('report.json', b'{"controls": {}, "dataset": "x"}'),
    ('report.json', b'{"controls": []}'),
    ('config.json', b''),
    ('config.json', b'{"seed": \xff'),
    ('predictions.npz', b''),
    ('predictions.npz', b'PK\x03\x04 cut off'),
  )
  def test_a_damaged_file_is_named_and_the_run_in_no_table(self, name, content):
    (cell,) = self.make([1], self.rows[:1])
    _finish(cell)
    (cell.workdir / name).write_bytes(content)
    self.assertEqual(cell.state, 'damaged')
    self.assertFalse(cell.is_done)
    self.assertStartsWith(cell.missing, f'damaged: {name} (')
    self.assertIn(f'delete {cell.workdir} to run it again', cell.missing)
    self.assertEmpty(cells.timed([cell]))

  def test_a_missing_config_and_bits_that_turned_are_damage_too(self):
    first, second, third = self.make([1], self.rows[:3])
    for cell in (first, second, third):
      _finish(cell)
    (first.workdir / 'config.json').unlink()
    self.assertIn('config.json', first.damaged)
    arrays = {'labels': np.ones(99), 'logits': np.ones(99), 'rows': 'x'}
    np.savez(second.workdir / 'predictions.npz', **arrays)
    np.savez(third.workdir / 'predictions.npz', **arrays)
    self.assertEqual(second.damaged, '')
    path = third.workdir / 'predictions.npz'
    content = bytearray(path.read_bytes())
    content[300] ^= 1
    path.write_bytes(content)
    self.assertIn('predictions.npz', third.damaged)

  @parameterized.parameters(
    ({'test': _METRICS | {'auc': np.nan}}, 'test AUC of the result is nan'),
    ({'valid': {'auc': np.inf}}, 'valid AUC of the result is inf'),
    ({'valid': {'auc': 'x'}}, 'must be real number'),
    (
      {'controls': {'lr': _REPORT | {'test': {'auc': 0.5, 'logloss': np.nan}}}},
      'test logloss of lr is nan',
    ),
    ({'valid': {}}, "without 'auc'"),
  )
  def test_metrics_that_are_no_numbers_are_damage(self, changes, expected):
    (cell,) = self.make([1], self.rows[:1])
    _finish(cell, **changes)
    self.assertEqual(cell.state, 'damaged')
    self.assertIn(f'report.json ({expected}', cell.missing)

  def test_an_empty_reason_is_still_a_failure(self):
    (cell,) = self.make([1], self.rows[:1])
    cell.workdir.mkdir(parents=True)
    for content in (b'', b'\n', b'cut \xe2\x82'):
      (cell.workdir / 'failed.txt').write_bytes(content)
      self.assertEqual(cell.state, 'failed')
      self.assertStartsWith(cell.missing, 'failed: ')
    self.assertIn('cut', cell.missing)

  def test_what_was_tuned_since_is_other_settings(self):
    (cell,) = self.make([1], self.rows[:1])
    _finish(cell)
    (self.workdir / 'planted.json').write_text(
      json.dumps({'chosen': {'fm+fde': {'embedding_l2': 9.0}}})
    )
    with mock.patch.object(known_lib, 'TUNED', self.workdir):
      (cell,) = self.make([1], self.rows[:1])
      self.assertIn('train.embedding_l2', cell.outdated)


class EstimateTest(_Case):
  def test_own_times_go_first(self):
    row, other = self.rows[:2]
    found = cells.estimate({row: [10.0, 20.0]}, [row, other])
    self.assertEqual(found[row], cells.Estimate(15.0, True))
    self.assertFalse(found[other].own)

  def test_nothing_is_known_of_nothing(self):
    found = cells.estimate({}, self.rows)
    self.assertEqual({e.seconds for e in found.values()}, {None})

  def test_other_rows_are_scaled_by_model_and_method(self):
    models, methods = {'fm': 1.0, 'deepfm': 7.0}, (1.0, 2.0, 5.0, 11.0)
    row = lambda model, i: cells.Row(f'{model}{i}', '', (), model, str(i))
    truth = {
      row(model, i): 60 * factor * time
      for model, factor in models.items()
      for i, time in enumerate(methods)
    }
    unknown = row('deepfm', 3)
    timed = {r: [t] for r, t in truth.items() if r != unknown}
    found = cells.estimate(timed, [unknown])[unknown]
    self.assertFalse(found.own)
    # Slightly shrunk towards the mean of all.
    self.assertAlmostEqual(np.log(found.seconds / truth[unknown]), 0, delta=0.3)
    # A method of which nothing is known still follows its base model.
    new = {m: row(m, 9) for m in models}
    found = cells.estimate(timed, new.values())
    ratio = found[new['deepfm']].seconds / found[new['fm']].seconds
    self.assertBetween(ratio, 5, 8)

  def test_seconds_are_those_of_all_attempts(self):
    (cell,) = self.make([1], self.rows[:1])
    _finish(cell, 30.0)
    self.assertEqual(cells.seconds(cell), 30.0)
    (cell.workdir / 'wall.txt').write_text('44.5\n')
    self.assertEqual(cells.timed([cell]), {cell.row: [44.5]})

  @parameterized.parameters('', '44', 'forty\n', 'nan\n')
  def test_a_damaged_time_is_left_out(self, text):
    (cell,) = self.make([1], self.rows[:1])
    _finish(cell, 30.0)
    (cell.workdir / 'wall.txt').write_text(text)
    with self.assertLogs(level='WARNING') as logs:
      self.assertEmpty(cells.timed([cell]))
    self.assertIn('wall.txt is damaged', logs.output[0])
    self.assertTrue(cell.is_done)


class EnvironmentTest(absltest.TestCase):
  def test_programs_are_shared_unless_a_person_says_where(self):
    clean = {k: v for k, v in os.environ.items() if not k.startswith('JAX_')}
    with mock.patch.dict(os.environ, clean, clear=True):
      place = cells.environment(pathlib.Path('x'))['JAX_COMPILATION_CACHE_DIR']
      self.assertTrue(pathlib.Path(place).is_absolute())
      self.assertEqual(
        place, cells.environment(pathlib.Path('x'))['JAX_COMPILATION_CACHE_DIR']
      )
    given = clean | {'JAX_COMPILATION_CACHE_DIR': 'mine'}
    with mock.patch.dict(os.environ, given, clear=True):
      self.assertEqual(cells.environment(pathlib.Path('x')), given)


class RunnerTest(_Case):
  def setUp(self):
    super().setUp()
    # In place of `experiments.run`: a process that does as its row says.
    script = self.workdir / 'stand_in.py'
    script.write_text(
      'import pathlib, sys\n'
      'place = pathlib.Path(sys.argv[1])\n'
      'with open(place / "count", "a") as file: file.write("x")\n'
      'if "fde4" in str(place):\n'
      '  sys.stdout.buffer.write(bytes([255, 10]))\n'
      '  sys.exit("a reason")\n'
      f'(place / "report.json").write_text({json.dumps(_REPORT)!r})\n'
      '(place / "config.json").write_text("{}")\n'
    )
    self.enter_context(
      mock.patch.object(
        cells.Cell, 'command', lambda cell, _: [str(script), cell.workdir]
      )
    )
    self.enter_context(mock.patch.object(cells.Cell, 'outdated', ''))
    self.runner = cells.Runner('data', self.workdir, 2)

  def _counts(self, seeds=(1, 2)):
    places = [cell.workdir / 'count' for cell in self.make(seeds)]
    return [len(p.read_text()) if p.exists() else 0 for p in places]

  def test_failed_cells_are_marked_and_run_again(self):
    failed = self.runner.run_all(self.make([1]))
    self.assertEqual(
      {cell.row.name for cell in failed}, {'fm+fde4', 'deepfm+fde4'}
    )
    self.assertEqual(set(failed.values()), {'status 1: a reason'})
    for cell in self.make([1]):
      expected = 'status 1: a reason' if cell in failed else None
      self.assertEqual(cell.failure, expected)
    self.assertEqual(self._counts(), [1] * 4 + [0] * 4)
    self.runner.run_all(self.make([1, 2]))
    # Finished ones once, failed ones again.
    self.assertEqual(self._counts(), [1, 2, 1, 2, 1, 1, 1, 1])

  def test_a_cell_that_runs_elsewhere_is_left_alone(self):
    (cell,) = self.make([1], self.rows[:1])
    cell.workdir.mkdir(parents=True)
    with open(cell.workdir / 'log.txt', 'a') as log:
      fcntl.flock(log, fcntl.LOCK_EX)
      with self.assertLogs(level='INFO') as logs:
        self.assertEmpty(self.runner.run_all([cell]))
      self.assertIn('another command is running it', '\n'.join(logs.output))
      self.assertEqual(cell.state, 'running')
      self.assertIsNone(cell.failure)
    self.assertEqual(cell.state, 'unfinished')
    self.assertEmpty(self.runner.run_all([cell]))
    self.assertEqual(cell.state, 'done')

  def test_what_a_person_has_to_see_to_is_left_alone(self):
    damaged, outdated = self.make([1], self.rows[:2])
    _finish(damaged, test={})
    _finish(outdated)
    with (
      mock.patch.object(cells.Cell, 'outdated', 'x is 1, now 2'),
      self.assertLogs(level='WARNING') as logs,
    ):
      self.assertEmpty(self.runner.run_all([damaged, outdated]))
    self.assertEqual(self._counts([1]), [0] * 4)
    self.assertIn('fm+fde2, seed 1: damaged: report.json', logs.output[0])
    self.assertIn('fm+fde4, seed 1: outdated: ', logs.output[1])

  def test_a_cell_tells_when_it_starts_and_when_it_ends(self):
    (cell,) = self.make([1], self.rows[:1])
    with self.assertLogs(level='INFO') as logs:
      self.runner.run_all([cell])
    told = [line.partition('fm+fde2')[2] for line in logs.output[1:]]
    self.assertStartsWith(told[0], ', seed 1: starts')
    self.assertStartsWith(told[1], ', seed 1: done; 1 of 1')

  def test_a_damaged_time_does_not_stop_the_next_attempt(self):
    (cell,) = self.make([1], self.rows[:1])
    cell.workdir.mkdir(parents=True)
    (cell.workdir / 'wall.txt').write_text('')
    self.assertEmpty(self.runner.run_all([cell]))
    self.assertGreater(cells.seconds(cell), 0)

  def test_an_interrupt_stops_all_and_marks_nothing(self):
    script = self.workdir / 'stand_in.py'
    script.write_text('import time\ntime.sleep(60)\n')
    with mock.patch.object(
      cells.concurrent.futures, 'wait', side_effect=KeyboardInterrupt
    ):
      with self.assertRaises(KeyboardInterrupt):
        self.runner.run_all(self.make())
    self.assertEqual({cell.failure for cell in self.make()}, {None})

  def test_processes_share_the_cores_out(self):
    cores = os.sched_getaffinity(0)
    self.assertEqual(cells.shares(1), [set()])
    self.assertEqual(cells.shares(len(cores) + 1), [set()] * (len(cores) + 1))
    with mock.patch.object(os, 'sched_getaffinity', lambda _: {3, 5, 6, 7, 9}):
      self.assertEqual(cells.shares(2), [{3, 5, 6}, {7, 9}])

  def test_jobs(self):
    with self.assertRaisesRegex(errors.ConfigError, 'jobs is 0'):
      cells.Runner('data', self.workdir, 0)


if __name__ == '__main__':
  absltest.main()
