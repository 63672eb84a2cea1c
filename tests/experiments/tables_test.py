"""Tables over seeds, grids and benchmarks, by their commands."""

import csv
import dataclasses
import fcntl
import json
import pathlib
import subprocess
import sys

from absl.testing import absltest, parameterized
import numpy as np

from experiments import cells as cells_lib
from experiments import cli, tables
from experiments import settings as settings_lib

_ROOT = pathlib.Path(__file__).parent.parent.parent

_TABLE = """
from ml_collections import config_dict

def get_config(argument='x'):
  tiny = 'autofis.py:planted,tiny'
  rows = {
    'fm': {'config': tiny, 'set': {'model': 'fm', 'data.max_rows': 3000}},
    'typo': {'config': tiny, 'set': {'model': 'fmm'}},
  }
  return config_dict.ConfigDict(
    {'rows': rows, 'seeds': (1, 2)}, convert_dict=False)
"""

_WIDTHS = """
from ml_collections import config_dict

def _row(config, label, **values):
  model = label.split('+')[0]
  values = {'model': model, 'label': label, 'data.max_rows': 3000, **values}
  method = label.split('+')[1]
  config = f'{config}.py:planted,tiny'
  return {label: {'config': config, 'set': values, 'method': method}}

def get_config(argument='x'):
  rows = {
    **_row('autodim', 'fm+autodim', controls=()),
    **_row('none', 'fm+none'),
    **_row('fde', 'fm+fde4', **{'search.dims': (4,)}),
    **_row('fde', 'deepfm+fde4', **{'search.dims': (4,)}),
  }
  return config_dict.ConfigDict(
    {'rows': rows, 'seeds': (1, 2), 'reference': 'fde4'}, convert_dict=False)
"""


_STATES = """
from ml_collections import config_dict

def get_config(argument='x'):
  rows = {
    name: {'config': 'fde.py:planted,tiny', 'set': {'model': 'fm'}}
    for name in ('good', 'old', 'cut', 'runs')
  }
  return config_dict.ConfigDict(
    {'rows': rows, 'seeds': (1,)}, convert_dict=False)
"""


def _run(module, *arguments):
  return subprocess.run(
    [sys.executable, '-m', f'experiments.{module}', *arguments],
    cwd=_ROOT,
    capture_output=True,
    text=True,
    check=False,
  )


def _csv(path):
  with open(path, encoding='utf-8') as file:
    return list(csv.DictReader(file))


def _report(auc, size=100, **more):
  metrics = {'auc': auc, 'logloss': 1 - auc}
  return {
    'dataset': 'frappe',
    'model': 'fm',
    'tiny': False,
    'test': metrics,
    'valid': metrics,
    'embedding_params': size + 7,
    'first_order_params': 7,
    'ep_total': size + 17,
    'total_params': size + 18,
    'bytes': {'model': 4 * size},
    'seconds': {'search': 2.0, 'retrain': 3.0},
    'controls': {},
  } | more


def _finish(cell, report):
  """Leaves the files of a run that ended."""
  cell.workdir.mkdir(parents=True, exist_ok=True)
  config = cell.row.read()
  config.seed = cell.seed
  text = json.dumps(settings_lib.resolve(config), default=list)
  (cell.workdir / 'config.json').write_text(text)
  cell.report.write_text(json.dumps(report))


class SummaryTest(absltest.TestCase):
  """From reports that stand in for runs."""

  def setUp(self):
    super().setUp()
    self.workdir = pathlib.Path(self.create_tempdir())
    methods = {
      'fm+fde8': ('FDE(8)', 'uniform'),
      'fm+fde2': ('FDE(2)', 'uniform'),
      'fm+x': ('X', ''),
      'fm+y': ('Y', ''),
    }
    self.rows = cells_lib.rows(
      {
        'rows': {
          name: {
            'config': 'fde.py:planted,tiny',
            'set': {'model': 'fm'},
            'method': method,
            'role': role,
          }
          for name, (method, role) in methods.items()
        }
      }
    )
    self.reports = {
      ('fm+fde8', 1): _report(0.81, 800),
      ('fm+fde8', 2): _report(0.83, 800),
      ('fm+fde2', 1): _report(0.78, 200),
      ('fm+fde2', 2): _report(0.801, 200),
      ('fm+x', 1): _report(0.82, 300),
      ('fm+x', 2): _report(0.841, 500),
    }

  def _summary(self, seeds=(1, 2)):
    for cell in self._cells(seeds):
      if (cell.row.name, cell.seed) in self.reports:
        _finish(cell, self.reports[cell.row.name, cell.seed])
    return tables.summarize(self._cells(seeds), 'FDE(8)')

  def _cells(self, seeds):
    return cells_lib.make(self.rows, seeds, self.workdir)

  def test_figures_are_means_over_seeds(self):
    summary = self._summary()
    (group,) = summary['groups']
    self.assertEqual(group['name'], 'frappe, fm')
    headings, rows = tables.figures(group)
    lines = {row[0]: dict(zip(headings, row)) for row in rows}
    self.assertEqual(list(lines), ['FDE(8)', 'FDE(2)', 'X'])
    line = lines['X']
    self.assertEqual(line['test AUC'], '0.83050 ± 0.01485')
    self.assertEqual(line['vectors'], '400 ± 141')
    self.assertEqual(line['embedding parameters in all'], '417 ± 141')
    self.assertEqual(lines['FDE(8)']['vectors'], '800')
    self.assertEqual(line['bytes'], '1,600')
    self.assertEqual((line['search, s'], line['training, s']), ('2.0', '3.0'))
    # Nothing is larger and no better.
    front = [name for name, row in lines.items() if row['Pareto front']]
    self.assertEqual(front, ['FDE(2)', 'X'])
    # Columns of other kinds of tables are left out.
    self.assertNotIn('gap closed', headings)
    self.assertEqual([p['size'] for p in group['points']], [810, 210, 410])

  def test_what_was_published_stands_beside_what_was_found(self):
    self.rows[2] = dataclasses.replace(self.rows[2], published=0.8, least=0.79)
    for key, report in self.reports.items():
      self.reports[key] = report | {'examples_per_second': 1e5 * key[1]}
    (group,) = self._summary()['groups']
    headings, rows = tables.figures(group)
    lines = {row[0]: dict(zip(headings, row)) for row in rows}
    line = lines['X']
    self.assertEqual(line['published AUC'], '0.8000')
    self.assertEqual(line['to reach'], '0.7900')
    self.assertEqual(line['examples/s'], '150,000')
    self.assertEqual(lines['FDE(2)']['to reach'], '')

  def test_differences_are_against_the_named_the_best_and_the_larger(self):
    (group,) = self._summary()['groups']
    families = {title: rows for title, _, rows in tables.families(group)}
    self.assertEqual(
      list(families),
      [
        'Against FDE(8)',
        'Against the best single width, FDE(8)',
        'Against the best control at equal or larger size, FDE(8)',
      ],
    )
    for rows in families.values():
      self.assertEqual([row[0] for row in rows], ['FDE(2)', 'X'])
      self.assertEqual(rows[1][2], '+0.01050')

  def test_what_is_missing_is_listed_with_its_reason(self):
    failed = self._cells([1])[3]
    failed.workdir.mkdir(parents=True)
    (failed.workdir / 'failed.txt').write_text('out of memory')
    summary = self._summary((1, 2, 3))
    self.assertEqual((summary['done'], summary['of']), (6, 12))
    text = tables.markdown(summary)
    self.assertIn('- Failed: fm+y, seed 1: out of memory\n', text)
    self.assertIn('- fm+y, seeds 2, 3: not run yet\n', text)
    self.assertIn('- fm+fde8; fm+fde2; fm+x, seed 3: not run yet\n', text)

  def test_subsets_add_up(self):
    full, self.reports = self.reports, {}
    for key in sorted(full, key=lambda key: key[1]):
      self.reports[key] = full[key]
      summary = self._summary()
      self.assertEqual(summary['done'], len(self.reports))
    self.assertLen(summary['groups'][0]['differences'], 6)

  def test_means_are_over_the_same_seeds(self):
    # Seed 2 is easier, and X lacks it; seeds 3 and 4 are of one row each.
    self.reports = {
      ('fm+fde8', 1): _report(0.80, 800),
      ('fm+fde8', 2): _report(0.90, 800),
      ('fm+fde2', 1): _report(0.78, 200),
      ('fm+fde2', 2): _report(0.88, 200),
      ('fm+fde2', 4): _report(0.10, 200),
      ('fm+y', 1): _report(0.81, 900),
      ('fm+y', 2): _report(0.91, 900),
      ('fm+x', 1): _report(0.79, 100),
      ('fm+x', 3): _report(0.99, 100),
    }
    (group,) = self._summary((1, 2, 3, 4))['groups']
    headings, rows = tables.figures(group)
    lines = {row[0]: dict(zip(headings, row)) for row in rows}
    self.assertStartsWith(lines['FDE(2)']['test AUC'], '0.83000 ')
    self.assertEqual(lines['FDE(2)']['seeds'], '2')
    self.assertStartsWith(lines['X']['test AUC'], '0.89000 ')
    self.assertEqual(lines['X']['seeds'], '2, incomplete')
    # It would be at the top of the plot.
    self.assertEqual(
      [p['name'] for p in group['points']], ['FDE(8)', 'FDE(2)', 'Y']
    )
    self.assertEqual(lines['X']['Pareto front'], '')
    self.assertEqual(lines['Y']['Pareto front'], 'yes')
    self.assertIn('incomplete', tables.NOTES[0])

  def test_rows_without_a_common_seed_are_all_incomplete(self):
    self.reports = {
      ('fm+fde8', 1): _report(0.80, 800),
      ('fm+fde2', 2): _report(0.88, 200),
      ('fm+x', 3): _report(0.79, 100),
    }
    (group,) = self._summary((1, 2, 3))['groups']
    self.assertEmpty(group['points'])
    self.assertEmpty(group['front'])
    self.assertFalse(any(line['complete'] for line in group['figures']))

  def test_relative_improvement_is_of_auc_above_a_half_by_seed(self):
    self.reports = {
      ('fm+fde8', 1): _report(0.80, 800),
      ('fm+fde8', 2): _report(0.90, 800),
      ('fm+x', 1): _report(0.83, 100),
      ('fm+x', 2): _report(0.90, 100),
    }
    summary = self._summary()
    headings, rows = tables.figures(summary['groups'][0])
    lines = {row[0]: dict(zip(headings, row)) for row in rows}
    # 10 % more than .3, nothing more than .4.
    self.assertEqual(lines['X']['relative improvement, %'], '5.00')
    self.assertEqual(lines['FDE(8)']['relative improvement, %'], '0.00')

  def test_cells_of_several_versions_of_the_code_are_told_of(self):
    self.reports = {
      ('fm+fde8', 1): _report(0.80, 800) | {'versions': {'code': 'a'}},
      ('fm+x', 1): _report(0.83, 100) | {'versions': {'code': 'a'}},
    }
    self.assertNotIn('versions of this code', tables.markdown(self._summary()))
    self.reports['fm+x', 1]['versions'] = {'code': 'b'}
    self.assertIn('2 versions of this code', tables.markdown(self._summary()))

  def test_members_of_groups_are_no_products(self):
    self.reports = {('fm+x', 1): _report(0.83, 100)}
    search = {'kept': 9, 'of': 30, 'kept_of': 'memberships'}
    self.reports['fm+x', 1]['search'] = search
    headings, rows = tables.figures(self._summary()['groups'][0])
    (line,) = [dict(zip(headings, row)) for row in rows]
    self.assertStartsWith(line['memberships kept'], '9.0')
    self.assertNotIn('products kept', line)

  def test_uncorrected_p_values_are_in_brackets(self):
    (group,) = self._summary()['groups']
    for _, headings, rows in tables.families(group):
      lines = {row[0]: dict(zip(headings, row)) for row in rows}
      self.assertRegex(lines['FDE(2)']['p, seeds'], r'^\(.*\)$')
      self.assertRegex(lines['X']['p, seeds'], r'^[0-9.e-]+$')
      self.assertEqual(lines['FDE(2)']['verdict'], 'control')

  def test_nothing_finished_is_a_table_of_gaps(self):
    self.reports = {}
    summary = self._summary()
    self.assertEmpty(summary['groups'])
    self.assertIn('0 of 8 cells', tables.markdown(summary))

  def test_files(self):
    tables.write_csv(self.workdir, self._summary())
    lines = _csv(self.workdir / 'figures.csv')
    (line,) = (x for x in lines if x['method'] == 'X')
    self.assertAlmostEqual(float(line['auc_mean']), (0.82 + 0.841) / 2)
    self.assertAlmostEqual(
      float(line['auc_std']), np.std([0.82, 0.841], ddof=1)
    )
    self.assertLen(_csv(self.workdir / 'cells.csv'), 6)
    lines = _csv(self.workdir / 'differences.csv')
    verdicts = {x['method']: x['verdict'] for x in lines}
    self.assertEqual(verdicts, {'FDE(2)': 'control', 'X': 'better'})
    self.assertLen(lines, 6)

  def test_cells_have_sizes_before_and_after(self):
    held = {'tables': 40, 'optimizer': 80, 'file': 150}
    sizes = {
      'trained': {'ep_total': 12.5, 'bytes': held},
      'derived': {'ep_total': 5.0, 'bytes': held | {'optimizer': 0}},
    }
    self.reports['fm+x', 1]['sizes'] = sizes
    tables.write_csv(self.workdir, self._summary())
    lines = _csv(self.workdir / 'cells.csv')
    (line,) = (x for x in lines if (x['row'], x['seed']) == ('fm+x', '1'))
    self.assertEqual(line['searched_ep_total'], '')
    self.assertEqual(line['trained_ep_total'], '12.5')
    self.assertEqual(line['derived_ep_total'], '5.0')
    self.assertEqual(line['trained_optimizer_bytes'], '80')
    self.assertEqual(line['derived_optimizer_bytes'], '0')
    self.assertEqual(line['derived_file_bytes'], '150')

  def test_streams_have_columns_and_a_note_of_their_own(self):
    self.assertNotIn('whole stream', tables.markdown(self._summary()))
    for report in self.reports.values():
      report['before_last_quarter'] = report.pop('valid')
      report['stream'] = {'loss': 0.21, 'accuracy': 0.66}
    summary = self._summary()
    headings, rows = tables.figures(summary['groups'][0])
    line = dict(zip(headings, rows[0]))
    self.assertEqual(line['loss, whole stream'], '0.21000 ± 0.00000')
    self.assertEqual(line['valid AUC'], '0.82000')
    self.assertIn('its last quarter', tables.markdown(summary))

  def test_models_of_one_run_are_compared_within_it(self):
    control = {
      'test': {'auc': 0.8, 'logloss': 0.5},
      'valid': {'auc': 0.8},
      'embedding_params': 60,
      'first_order_params': 7,
      'ep_total': 60,
      'total_params': 61,
      'seconds': 1.0,
    }
    for report in self.reports.values():
      report['controls'] = {'base': control}
      report['search'] = {'kept': 3, 'of': 10}
    summary = self._summary()
    headings, rows = tables.within(summary)
    self.assertEqual([row[:2] for row in rows][0], ['fm+fde8', 'base'])
    self.assertEqual(rows[0][2], '+0.02000')
    headings, rows = tables.figures(summary['groups'][0])
    self.assertEqual(headings[:3], ['method', 'model', 'seeds'])
    lines = [dict(zip(headings, row)) for row in rows]
    self.assertEqual(lines[0]['products kept'], '3.0 ± 0.0 of 10')
    self.assertEqual(lines[1]['products kept'], '')


class CompareTest(parameterized.TestCase):
  def test_a_failed_cell_stops_no_other_and_finished_ones_stay(self):
    root = pathlib.Path(self.create_tempdir().full_path)
    (root / 'table.py').write_text(_TABLE)
    arguments = f'--config={root}/table.py', f'--workdir={root}/out'
    done = _run('compare', *arguments, '--jobs=2')
    self.assertEqual(done.returncode, 1, done.stderr)
    self.assertIn('2 of 4 cells failed', done.stderr)
    table = (root / 'out' / 'table.md').read_text()
    self.assertIn('Failed: typo, seeds 1, 2: status 1', table)
    self.assertIn("'fmm'", table)
    lines = _csv(root / 'out' / 'cells.csv')
    self.assertLen(lines, 2 * 5)  # The result and four controls, two seeds.
    for seed in (1, 2):
      path = root / 'out' / 'cells' / 'fm' / f'seed_{seed}' / 'report.json'
      report = json.loads(path.read_text())
      (line,) = (
        x for x in lines if x['model'] == 'result' and x['seed'] == str(seed)
      )
      self.assertEqual(float(line['auc']), report['test']['auc'])
    # Mean of both seeds, as a person would compute it.
    values = [float(x['auc']) for x in lines if x['model'] == 'lr']
    self.assertIn(f'{sum(values) / 2:.5f} ±', table)
    page = (root / 'out' / 'compare.html').read_text()
    self.assertIn(f'{sum(values) / 2:.5f} ±', page)
    again = _run('compare', *arguments, '--dry_run')
    self.assertEqual(again.stdout.count('done, took '), 2)
    self.assertEqual(again.stdout.count('to do (failed: status 1'), 2)
    self.assertIn('2 cells scaled from other rows', again.stdout)
    command = [sys.executable, '-m', 'experiments.compare', *arguments]
    pipes = {'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE}
    with subprocess.Popen(
      [*command, '--dry_run'], cwd=_ROOT, text=True, **pipes
    ) as closed:
      closed.stdout.close()  # As `| head` does.
      self.assertNotIn('Traceback', closed.stderr.read())
    self.assertEqual(closed.returncode, 1)
    # What the cells took is that of a part of them, too.
    part = _run('compare', *arguments, '--rows=fm', '--seeds=2')
    self.assertEqual(part.returncode, 0, part.stderr)
    self.assertEqual((root / 'out' / 'table.md').read_text(), table)

  def test_hours_of_a_table_that_nothing_is_done_of(self):
    root = self.create_tempdir().full_path
    table = 'experiments/configs/embedding_table.py:movielens_1m'
    arguments = f'--config={table}', f'--workdir={root}', '--dry_run'
    dry = _run('compare', *arguments, '--rows=fm+fde*,fm+nis', '--seeds=1')
    lines = dry.stdout.splitlines()
    self.assertLen(lines, 7)
    for line in lines[:-1]:
      self.assertRegex(line, r'^to do, some 0\.0\d h: ')
    self.assertRegex(
      lines[-1], r'6 of 6 cells to do; some 0\.\d\d h of training, as it took'
    )

  def test_states_are_told_apart(self):
    root = pathlib.Path(self.create_tempdir().full_path)
    (root / 'table.py').write_text(_STATES)
    arguments = f'--config={root}/table.py', f'--workdir={root}/out'
    config = cli.read_config(f'{root}/table.py').to_dict()
    found = cells_lib.make(cells_lib.rows(config), [1], root / 'out')
    for cell, auc in zip(found[:3], (0.8, 0.7, float('nan'))):
      _finish(cell, _report(auc))
    path = found[1].workdir / 'config.json'
    path.write_text(path.read_text().replace('"seed": 1', '"seed": 5'))
    found[3].workdir.mkdir(parents=True)
    with open(found[3].workdir / 'log.txt', 'w') as log:
      fcntl.flock(log, fcntl.LOCK_EX)
      dry = _run('compare', *arguments, '--dry_run')
      done = _run('compare', *arguments)
    lines = dry.stdout.splitlines()
    self.assertStartsWith(lines[0], 'done, took ')
    for line, state in zip(lines[1:], ('outdated: ', 'damaged: ', 'running')):
      self.assertStartsWith(line, f'left alone ({state}')
    self.assertEqual(
      lines[4],
      '0 of 4 cells to do; left alone: 1 outdated, 1 damaged, 1 running.',
    )
    self.assertEqual(done.returncode, 1)
    for part in (
      '1 of 4 cells are outdated',
      '1 of 4 cells are damaged',
      '1 of 4 cells are run by another command',
    ):
      self.assertIn(part, done.stderr)
    self.assertNotIn('failed', done.stderr)
    table = (root / 'out' / 'table.md').read_text()
    self.assertIn('- cut, seed 1: damaged: report.json (test AUC of', table)
    self.assertIn(f'delete {found[2].workdir} to run it again', table)
    self.assertIn('- runs, seed 1: running now', table)
    page = (root / 'out' / 'compare.html').read_text()
    self.assertIn('cells damaged', page)
    self.assertNotIn('cells failed', page)

  @parameterized.parameters('2021,2021', '-1')
  def test_senseless_seeds_are_refused(self, seeds):
    config = '--config=experiments/configs/embedding_table.py:frappe'
    done = _run('compare', config, '--workdir=nowhere', f'--seeds={seeds}')
    self.assertEqual(done.returncode, 1)
    self.assertIn(f'--seeds is {seeds!r}; expected whole', done.stderr)

  def test_a_config_of_one_run_is_no_table(self):
    config = '--config=experiments/configs/fde.py:planted'
    done = _run('compare', config, '--workdir=nowhere')
    self.assertEqual(done.returncode, 1)
    self.assertIn('experiments.run', done.stderr)


class TuneTest(parameterized.TestCase):
  @parameterized.parameters(
    ('learning_rates', 'abc'), ('l2', ''), ('dropout', '1')
  )
  def test_a_grid_that_is_none_is_refused(self, flag, value):
    done = _run('tune', f'--{flag}={value}')
    self.assertEqual(done.returncode, 1)
    self.assertIn(f'--{flag} is {value!r}; expected numbers', done.stderr)

  def test_same_grid_for_all_chosen_on_validation_and_resumed(self):
    output = pathlib.Path(self.create_tempdir().full_path) / 'tuned.json'
    arguments = (
      '--config=experiments/configs/autofis.py:planted,tiny',
      '--config.data.max_rows=3000',
      '--models=lr,fm+autofis',
      '--learning_rates=1e-3,1e-2',
      f'--output={output}',
    )
    done = _run('tune', *arguments, '--l2=1e-4')
    self.assertEqual(done.returncode, 0, done.stderr)
    first = json.loads(output.read_text())
    done = _run('tune', *arguments, '--l2=1e-4,1e-1')
    self.assertEqual(done.returncode, 0, done.stderr)
    result = json.loads(output.read_text())
    for model, cells in result['cells'].items():
      self.assertLen(cells, 4)
      self.assertEqual(cells[:2], first['cells'][model])  # Not trained again.
      best = max(cells, key=lambda cell: cell['valid_auc'])
      for key, value in result['chosen'][model].items():
        self.assertEqual(value, best[key])
    self.assertCountEqual(result['cells'], ['lr', 'fm+autofis'])

  def test_rows_of_a_table_under_their_labels(self):
    root = pathlib.Path(self.create_tempdir().full_path)
    (root / 'table.py').write_text(_WIDTHS)
    output = root / 'tuned.json'
    arguments = (
      f'--config={root}/table.py',
      '--learning_rates=1e-2',
      f'--output={output}',
    )
    done = _run('tune', *arguments, '--l2=1e-4', '--rows=fm+*')
    # A row without a config stops no other.
    self.assertEqual(done.returncode, 1, done.stderr)
    self.assertIn('1 rows were not tuned: fm+none: No config', done.stderr)
    first = json.loads(output.read_text())
    self.assertCountEqual(first['chosen'], ['fm+fde4', 'fm+autodim'])
    # The search started from what was chosen for the reference.
    self.assertEqual(
      first['searched'], {'fm+autodim': first['chosen']['fm+fde4']}
    )
    after = _run('tune', *arguments, '--l2=1e-4,1e-1', '--dry_run')
    self.assertIn('fm+autodim: 1 of 2 cells to do', after.stdout)
    self.assertIn('deepfm+fde4: 4 of 4 cells to do', after.stdout)
    self.assertIn(', scaled from other rows', after.stdout)
    self.assertIn('searches of 1 rows', after.stdout)
    self.assertEqual(json.loads(output.read_text()), first)

  def test_a_smoke_run_tunes_nothing_for_others(self):
    done = _run(
      'tune', '--config=experiments/configs/base.py:planted,tiny', '--models=lr'
    )
    self.assertEqual(done.returncode, 1)
    self.assertIn('--output', done.stderr)

  def test_what_a_method_derives_needs_its_config(self):
    done = _run(
      'tune',
      '--config=experiments/configs/base.py:planted',
      '--models=fm+autofis',
    )
    self.assertEqual(done.returncode, 1)
    self.assertIn('configs/autofis.py:DATA', done.stderr)


class BenchmarkTest(absltest.TestCase):
  def test_lines_and_ratios(self):
    done = _run(
      'benchmark',
      '--cases=mlp_only,row_sparse',
      '--vocab=2e3,1e4',
      '--rounds=1',
      '--steps=1',
    )
    self.assertEqual(done.returncode, 0, done.stderr)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    self.assertEqual(
      [(line['case'], line['vocab']) for line in lines],
      [('mlp_only', 0), ('row_sparse', 2000), ('row_sparse', 10_000)],
    )
    for line in lines:
      self.assertAlmostEqual(
        line['ratio'], line['ms_per_step'] / line['base_ms'], delta=0.01
      )
      self.assertGreater(line['peak_bytes'], 10**8)

  def test_unknown_case(self):
    done = _run('benchmark', '--cases=row_spars')
    self.assertEqual(done.returncode, 1)
    self.assertIn('row_sparse', done.stderr)


if __name__ == '__main__':
  absltest.main()
