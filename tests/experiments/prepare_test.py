import gzip
import os
import pathlib
import subprocess
import sys

from absl.testing import absltest
import numpy as np

from jax_autorec import data as data_lib

_ROOT = pathlib.Path(__file__).parents[2]


def _prepare(*arguments, cwd=None):
  return subprocess.run(
    [sys.executable, '-m', 'experiments.prepare', *arguments],
    capture_output=True,
    text=True,
    cwd=cwd,
    env=os.environ | {'PYTHONPATH': str(_ROOT), 'JAX_PLATFORMS': 'cpu'},
  )


def _criteo(count, bad=()):
  rng = np.random.default_rng(0)
  lines = []
  for _ in range(count):
    cells = [str(rng.integers(2))]
    cells += [
      '' if rng.random() < 0.3 else f'{rng.integers(99)}' for _ in range(13)
    ]
    cells += [f'{rng.integers(2**32) % 50:08x}' for _ in range(26)]
    lines.append('\t'.join(cells))
  for place, line in bad:
    lines[place] = line
  return '\n'.join(lines) + '\n'


class PrepareTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.root = pathlib.Path(self.create_tempdir().full_path)

  def test_what_is_prepared_is_found_without_its_source(self):
    raw = self.root / 'clicks.tsv.gz'
    bad = [(7, '1\t2\t3'), (60, _criteo(1).replace(_criteo(1)[0], '5', 1)[:-1])]
    raw.write_bytes(gzip.compress(_criteo(400, bad).encode()))
    arguments = (
      '--dataset=criteo',
      f'--source={raw}',
      f'--data_dir={self.root}/data',
      '--option=min_count=2',
    )
    refused = _prepare(*arguments)
    self.assertEqual(refused.returncode, 1)
    self.assertIn(
      f'Error: {raw}, line 8: 3 columns; expected 40.', refused.stderr
    )
    self.assertNotIn('Traceback', refused.stderr)
    done = _prepare(*arguments, '--bad_rows=quarantine')
    self.assertEqual(done.returncode, 0, done.stderr)
    self.assertIn('400 read = 398 kept + 2 quarantined', done.stdout)
    self.assertIn('I13: categorical, ', done.stdout)
    raw.unlink()
    data = data_lib.load(
      'criteo', f'{self.root}/data', bad_rows='quarantine', min_count=2
    )
    self.assertEqual(data.counts['kept'], 398)
    kept_out = pathlib.Path(data.directory) / 'quarantine.jsonl'
    self.assertIn(str(kept_out), done.stdout)
    self.assertLen(kept_out.read_text().splitlines(), 2)

  def test_a_table_of_ones_own(self):
    rng = np.random.default_rng(0)
    rows = [
      f'{rng.choice(["yes", "no"])},{rng.choice(["a", "b"])},{rng.normal()}'
      for _ in range(300)
    ]
    (self.root / 'own.csv').write_text('bought,shop,price\n' + '\n'.join(rows))
    inferred = _prepare('--infer=own.csv', cwd=self.root)
    self.assertIn('--dataset=own.toml', inferred.stdout)
    schema = self.root / 'own.toml'
    schema.write_text(schema.read_text().replace('"log"', '"minmax"'))
    done = _prepare('--dataset=own.toml', cwd=self.root)
    self.assertEqual(done.returncode, 0, done.stderr)
    self.assertIn('300 read = 300 kept + 0 quarantined', done.stdout)
    data = data_lib.load(str(schema))
    self.assertEqual(
      (data.train.numeric.min(), data.train.numeric.max()), (0, 1)
    )

  def test_mistakes_end_with_one_message(self):
    for arguments, message in [
      ((), 'Give --dataset=NAME or --infer=FILE'),
      (('--dataset=planted', 'more'), 'Unknown arguments: more'),
      (('--dataset=planted', '--option=seed'), 'expected KEY=VALUE'),
    ]:
      done = _prepare(*arguments)
      self.assertEqual(done.returncode, 1)
      self.assertIn('Error: ', done.stderr)
      self.assertIn(message, done.stderr)
      self.assertNotIn('Traceback', done.stderr)


if __name__ == '__main__':
  absltest.main()
