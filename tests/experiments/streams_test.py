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

from experiments import settings as settings_lib
from experiments import stages, streams
from experiments.configs import esapn
from jax_autorec import architecture as arch_lib

_ROOT = pathlib.Path(__file__).parents[2]


@functools.cache
def _workdir() -> pathlib.Path:
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
      rows = [entry[part]['rows'] for part in ('valid', 'test', 'stream')]
      self.assertEqual(rows[0] + rows[1], rows[2])
      self.assertEqual(rows[2], report['splits']['stream'])
      self.assertEqual(rows[1], rows[2] // 4)
      loss = np.average(
        [entry[part]['loss'] for part in ('valid', 'test')], weights=rows[:2]
      )
      self.assertAlmostEqual(entry['stream']['loss'], loss)

  def test_bytes_of_training_and_of_the_derived_model_are_apart(self):
    report = _report()
    held, found = report['bytes'], arch_lib.Architecture.load(_workdir())
    vocab = sum(field.vocab_size for field in found.fields)
    self.assertEqual(held['tables, training'], 4 * 8 * vocab)
    self.assertEqual(held['tables, derived'], 4 * found.embedding_params)
    self.assertEqual(held['index, derived'], 4 * vocab)
    self.assertNotIn('tables, derived', report['controls']['darts']['bytes'])
    fixed = report['controls']['fixed 2']['bytes']
    self.assertEqual(fixed['tables, derived'], 4 * 2 * vocab)
    self.assertEqual(fixed['index, derived'], 0)

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

  def test_occurrence(self):
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 5, 40)
    expected = [int((ids[:i] == ids[i]).sum()) for i in range(40)]
    np.testing.assert_array_equal(streams.occurrence(ids), expected)


if __name__ == '__main__':
  absltest.main()
