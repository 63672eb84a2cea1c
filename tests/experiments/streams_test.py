"""A stream as a person runs it: the report, and that it adds up."""

import functools
import json
import os
import pathlib
import subprocess
import sys
import tempfile

from absl.testing import absltest
import numpy as np

from experiments import cells, stages, streams
from experiments import settings as settings_lib
from experiments.configs import esapn, esapn_table
from jax_autorec import architecture as arch_lib
from jax_autorec import errors, metrics

_ROOT = pathlib.Path(__file__).parents[2]


@functools.cache
def _workdir() -> pathlib.Path:
  return _run()


def _run(*arguments: str) -> pathlib.Path:
  workdir = pathlib.Path(tempfile.mkdtemp())
  environment = os.environ | {'JAX_PLATFORMS': 'cpu', 'PYTHONPATH': str(_ROOT)}
  done = subprocess.run(
    [
      sys.executable,
      '-m',
      'experiments.run',
      '--config=experiments/configs/esapn.py:planted,tiny',
      '--config.search.dims=(2,8)',
      '--config.data.max_rows=700',
      f'--workdir={workdir}',
      *arguments,
    ],
    cwd=_ROOT,
    env=environment,
    capture_output=True,
    text=True,
    check=False,
  )
  if done.returncode:
    raise AssertionError(done.stderr)
  return workdir


def _report():
  return json.loads((_workdir() / 'report.json').read_text('utf-8'))


class CutTest(absltest.TestCase):
  def test_max_rows_are_the_first_ratings_by_time(self):
    """And not the first in the files of each of three windows of time."""
    root = self.create_tempdir().full_path
    folder = pathlib.Path(root, 'ml-1m')
    folder.mkdir()
    times = np.random.default_rng(0).permutation(200) + 1000
    ratings = ''.join(
      f'{i % 9 + 1}::{i % 5 + 1}::{i % 5 + 1}::{time}\n'
      for i, time in enumerate(times)
    )
    (folder / 'ratings.dat').write_text(ratings)
    users = ''.join(f'{u}::F::25::3::12345\n' for u in range(1, 10))
    (folder / 'users.dat').write_text(users)
    movies = ''.join(f'{m}::Title (1990)::Drama\n' for m in range(1, 6))
    (folder / 'movies.dat').write_text(movies)
    os.environ['JAX_AUTOREC_CACHE'] = root
    self.addCleanup(os.environ.pop, 'JAX_AUTOREC_CACHE')
    config = esapn.get_config('movielens_1m')
    config.data.max_rows = 60
    values = settings_lib.resolve(config)
    data = stages.load_data(values, root)
    stream = streams._stream(values, data)
    np.testing.assert_array_equal(stream.train.times, np.arange(1000, 1060))


class StreamsTest(absltest.TestCase):
  def test_the_result_stands_beside_its_controls(self):
    report = _report()
    names = {'fixed 2', 'fixed 8', 'darts', 'autoemb'}
    self.assertEqual(set(report['controls']), names)
    for entry in (report, *report['controls'].values()):
      # Nothing is chosen before the last quarter: no validation split.
      self.assertNotIn('valid', entry)
      parts = ('before_last_quarter', 'test', 'stream')
      rows = [entry[part]['rows'] for part in parts]
      self.assertEqual(rows[0] + rows[1], rows[2])
      self.assertEqual(rows[2], report['splits']['stream'])
      self.assertEqual(rows[1], rows[2] // 4)
      loss = np.average(
        [entry[part]['loss'] for part in parts[:2]], weights=rows[:2]
      )
      self.assertAlmostEqual(entry['stream']['loss'], loss)

  def test_bytes_of_training_and_of_the_derived_model_are_apart(self):
    report = _report()
    sizes, found = report['sizes'], arch_lib.Architecture.load(_workdir())
    vocab = sum(field.vocab_size for field in found.fields)
    trained, derived = sizes['trained']['bytes'], sizes['derived']['bytes']
    self.assertEqual(trained['tables'], 4 * 8 * vocab)
    self.assertGreater(trained['method'], 4 * vocab)
    self.assertGreater(trained['file'], trained['tables'])
    self.assertEqual(derived['tables'], 4 * found.embedding_params)
    self.assertEqual(derived['index'], 4 * vocab)
    self.assertGreater(derived['file'], derived['tables'] + derived['index'])
    self.assertIn('while it trains', report['not_searched'])
    # It mixes all widths of each row to the end.
    mixed = report['controls']['darts']
    self.assertEqual(list(mixed['sizes']), ['trained'])
    self.assertNotIn('model', mixed['bytes'])
    self.assertGreater(mixed['ep_total'], mixed['embedding_params'] + vocab)
    fixed = report['controls']['fixed 2']
    self.assertEqual(fixed['first_order_params'], 0)
    fixed = fixed['sizes']['derived']['bytes']
    self.assertEqual(fixed['tables'], 4 * 2 * vocab)
    self.assertEqual(fixed['index'], 0)
    self.assertGreater(fixed['file'], fixed['tables'])

  def test_predictions_are_those_of_the_last_quarter(self):
    report = _report()
    with np.load(_workdir() / 'predictions.npz') as file:
      found = metrics.evaluate_logits(file['labels'], file['logits'])
      self.assertLen(str(file['rows']), 64)
    for key, value in found.items():
      self.assertAlmostEqual(value, report['test'][key], msg=key)

  def test_one_of_the_runs_alone_is_the_result(self):
    with self.assertRaisesRegex(AssertionError, "'fixed 3'; .* fixed 2, "):
      _run('--config.search.only=fixed 3')
    for name in ('fixed 2', 'darts'):
      workdir = _run(f'--config.search.only={name}')
      report = json.loads((workdir / 'report.json').read_text('utf-8'))
      self.assertEqual(report['method'], name)
      self.assertEmpty(report['controls'])
      self.assertEmpty(report['frequency'])
      beside = _report()['controls'][name]
      for entry in (report, beside):
        # Compressed: it hangs on how long steps took, too.
        del entry['sizes']['trained']['bytes']['file']
      for key in ('test', 'stream', 'sizes', 'total_params'):
        self.assertEqual(report[key], beside[key], key)
      self.assertTrue((workdir / 'predictions.npz').exists())
      page = (workdir / 'report.html').read_text('utf-8')
      self.assertIn(f'{name} on planted', page)

  def test_a_table_has_every_run(self):
    table = esapn_table.get_config('movielens_100k,tiny')
    rows = cells.rows(table.to_dict())
    self.assertEqual(
      [row.method for row in rows],
      ['ESAPN', 'Fixed(2)', 'Fixed(4)', 'Fixed(8)', 'DARTS', 'AutoEmb'],
    )
    self.assertEqual({row.model for row in rows}, {'rater'})
    for row in rows:
      self.assertEqual(row.read().search.only, row.name)
    with self.assertRaisesRegex(errors.ConfigError, 'tables are: movielens_1m'):
      esapn_table.get_config('frappe')

  def test_octaves_of_frequency_add_up(self):
    report, entries, came = _report(), 0, 0
    for octaves in report['frequency'].values():
      for lines in octaves.values():
        first = [line['from'] for line in lines]
        self.assertEqual(first, sorted(first))
      entries += sum(o['ids'] * o['width'] for o in octaves['widths'])
      came += sum(o['ids'] for o in octaves['widths'])
      # An id that comes for the first time is a row too.
      self.assertEqual(octaves['accuracies'][0]['from'], 0)
      rows = sum(o['rows'] for o in octaves['accuracies'])
      self.assertEqual(rows, report['stream']['rows'])
      accuracy = sum(o['rows'] * o['esapn'] for o in octaves['accuracies'])
      self.assertAlmostEqual(accuracy / rows, report['stream']['accuracy'])
    # All but the ids that never came, which stay at the smallest width.
    found = arch_lib.Architecture.load(_workdir())
    never = sum(f.vocab_size for f in found.fields) - came
    self.assertAlmostEqual(entries + 2 * never, found.embedding_params)

  def test_the_page_shows_width_and_accuracy_by_frequency(self):
    page = (_workdir() / 'report.html').read_text('utf-8')
    for entity in _report()['frequency']:
      self.assertIn(f'{entity}: by frequency', page)
    self.assertIn('Mean width of ids by how often they came', page)
    self.assertIn('bytes of tables, derived', page)
    self.assertIn('rows before the last quarter', page)

  def test_occurrence(self):
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 5, 40)
    expected = [int((ids[:i] == ids[i]).sum()) for i in range(40)]
    np.testing.assert_array_equal(streams.occurrence(ids), expected)


if __name__ == '__main__':
  absltest.main()
