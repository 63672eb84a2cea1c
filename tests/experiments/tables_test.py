"""Tables over seeds, grids and benchmarks, by their commands."""

import csv
import json
import pathlib
import subprocess
import sys

from absl.testing import absltest

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


def _run(module, *arguments):
  return subprocess.run(
    [sys.executable, '-m', f'experiments.{module}', *arguments],
    cwd=_ROOT,
    capture_output=True,
    text=True,
    check=False,
  )


class CompareTest(absltest.TestCase):
  def test_a_failed_cell_stops_no_other_and_finished_ones_stay(self):
    root = pathlib.Path(self.create_tempdir().full_path)
    (root / 'table.py').write_text(_TABLE)
    arguments = f'--config={root}/table.py', f'--workdir={root}/out'
    done = _run('compare', *arguments, '--jobs=2')
    self.assertEqual(done.returncode, 1, done.stderr)
    self.assertIn('2 of 4 cells failed', done.stderr)
    table = (root / 'out' / 'table.md').read_text()
    self.assertIn('Failed: typo, seed 1: status 1', table)
    self.assertIn("'fmm'", table)
    with open(root / 'out' / 'cells.csv', encoding='utf-8') as file:
      lines = list(csv.DictReader(file))
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
    again = _run('compare', *arguments, '--dry_run')
    self.assertEqual(again.stdout.count('done: '), 2)
    self.assertEqual(again.stdout.count('to do: '), 2)


class TuneTest(absltest.TestCase):
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
