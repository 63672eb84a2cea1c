"""The road as a person types it: commands in processes of their own."""

import functools
import hashlib
import json
import os
import pathlib
import random
import resource
import shutil
import subprocess
import sys
import tempfile

from absl.testing import absltest, parameterized
import numpy as np
import pytest

from jax_autorec import architecture as arch_lib
from jax_autorec import metrics

_ROOT = pathlib.Path(__file__).parents[2]
_TINY = '--config=experiments/configs/autofis.py:planted,tiny'

# Ends the process by a signal once a stage has done some steps. No clean-up
# follows a kill -9, and a checkpoint may be half written.
_STOPPED = """
import os, runpy, sys
from jax_autorec.train import records
stage, step, number = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
update, is_sent = records.Progress.update, False
def update_and_stop(self, done, **values):
  global is_sent
  if self._stage == stage and done >= step and not is_sent:
    is_sent = True
    os.kill(os.getpid(), number)
  update(self, done, **values)
records.Progress.update = update_and_stop
sys.argv = ['run', *sys.argv[4:]]
runpy.run_module('experiments.run', run_name='__main__', alter_sys=True)
"""

# Libraries may look whether TensorFlow is there, but none may import it.
_NO_TENSORFLOW = """
import importlib.machinery, sys
class Telltale:
  def find_spec(self, name, path=None, target=None):
    if name == 'tensorflow':
      return importlib.machinery.ModuleSpec(name, self)
  def create_module(self, spec):
    print('TensorFlow was imported', file=sys.stderr)
    raise ImportError('The road needs no TensorFlow.')
sys.meta_path.insert(0, Telltale())
"""


@functools.cache
def _directory() -> pathlib.Path:
  """Of this module's files; holds a start-up file that tells of TensorFlow."""
  directory = pathlib.Path(tempfile.mkdtemp())
  (directory / 'sitecustomize.py').write_text(_NO_TENSORFLOW)
  return directory


def _python(*arguments, preexec_fn=None):
  path = os.pathsep.join([str(_directory()), str(_ROOT)])
  environment = os.environ | {
    'JAX_PLATFORMS': 'cpu',
    'PYTHONPATH': path,
    # All runs here compile the same programs.
    'JAX_COMPILATION_CACHE_DIR': str(_directory() / 'programs'),
    'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
  }
  environment.pop('XLA_FLAGS', None)
  return subprocess.run(
    [sys.executable, *map(str, arguments)],
    cwd=_ROOT,
    env=environment,
    capture_output=True,
    text=True,
    check=False,
    preexec_fn=preexec_fn,
  )


def _run(*arguments, **options):
  return _python('-m', 'experiments.run', *arguments, **options)


def _stopped(stage, step, number, *arguments):
  return _python('-c', _STOPPED, stage, step, number, *arguments)


@functools.cache
def _reference() -> pathlib.Path:
  """Workdir of one uninterrupted smoke run."""
  workdir = _directory() / 'reference'
  done = _run(_TINY, f'--workdir={workdir}')
  if done.returncode or 'TensorFlow was imported' in done.stderr:
    raise AssertionError(done.stderr)
  return workdir


def _read(workdir, name='report.json'):
  return json.loads((workdir / name).read_text('utf-8'))


def _hashes(workdir):
  return {
    str(path.relative_to(workdir)): hashlib.sha256(path.read_bytes()).digest()
    for path in sorted(workdir.rglob('*'))
    if path.is_file()
  }


def _results(workdir):
  """What may not depend on interruptions."""
  report = _read(workdir)
  models = {'result': report, **report['controls']}
  return {
    name: {key: model[key] for key in ('test', 'valid', 'total_params')}
    for name, model in models.items()
  }


class RunTest(parameterized.TestCase):
  def test_files_are_there(self):
    names = {path.name for path in _reference().iterdir()}
    self.assertContainsSubset(
      {
        'config.json',
        'architecture.json',
        'metrics.jsonl',
        'report.json',
        'report.html',
      },
      names,
    )

  def test_report_has_its_keys_and_sums(self):
    report = _read(_reference())
    self.assertEqual(
      [report[key] for key in ('method', 'dataset', 'model', 'seed')],
      ['autofis', 'planted', 'fm', 2021],
    )
    self.assertEqual(
      set(report['controls']),
      {'lr', 'base', 'all + bn + gates', 'random subset'},
    )
    for model in (report, *report['controls'].values()):
      for split in ('test', 'valid'):
        self.assertBetween(model[split]['auc'], 0.4, 1)
        self.assertBetween(model[split]['logloss'], 0.1, 1)
        self.assertBetween(model[split]['ne'], 0.1, 1.5)
      self.assertIsInstance(model['total_params'], int)
      self.assertGreater(model['total_params'], model['embedding_params'])
      self.assertGreater(model['examples_per_second'], 0)
    for key in ('tables', 'optimizer', 'checkpoint'):
      self.assertGreater(report['bytes'][key], 0)
    for key in ('prepare', 'search', 'retrain'):
      self.assertGreater(report['seconds'][key], 0)
    rows = report['rows']
    self.assertEqual(rows['read'], rows['kept'] + rows['quarantined'])

  def test_sizes_are_those_of_the_architecture(self):
    report, workdir = _read(_reference()), _reference()
    found = arch_lib.Architecture.load(workdir)
    self.assertEqual(
      report['architecture'], _read(workdir, 'architecture.json')
    )
    # Vectors, and a first-order weight per id, which lies in a table too.
    entries = sum(field.vocab_size * (field.dim + 1) for field in found.fields)
    self.assertEqual(report['embedding_params'], entries)
    self.assertEqual(report['ep_total'], entries)
    # A gate per pair and a bias.
    kept = len(found.interactions[0].terms)
    self.assertEqual(report['total_params'], entries + kept + 1)
    self.assertEqual(report['bytes']['tables'], 4 * entries)
    self.assertEqual(report['search']['kept'], kept)
    self.assertEqual(report['search']['of'], 45)

  def test_sizes_before_and_after_are_comparable(self):
    report = _read(_reference())
    sizes = report['sizes']
    self.assertEqual(list(sizes), ['searched', 'trained', 'derived'])
    keys = {stage: (set(s), set(s['bytes'])) for stage, s in sizes.items()}
    self.assertEqual(keys['searched'], keys['derived'])
    self.assertEqual(keys['trained'], keys['derived'])
    for size in sizes.values():
      # AutoFIS prunes products; tables stay.
      self.assertEqual(size['ep_total'], report['ep_total'])
      self.assertEqual(size['bytes']['tables'], 4 * size['embedding_params'])
      self.assertGreater(size['bytes']['file'], size['bytes']['tables'])
    for stage in ('searched', 'trained'):
      held = sizes[stage]['bytes']
      self.assertGreater(held['file'], held['tables'] + held['optimizer'])
    self.assertGreater(sizes['searched']['bytes']['method'], 0)
    self.assertEqual(sizes['trained']['bytes']['method'], 0)
    self.assertEqual(sizes['derived']['bytes']['optimizer'], 0)
    self.assertNotIn('not_searched', report)
    for control in report['controls'].values():
      self.assertEqual(list(control['sizes']), ['trained', 'derived'])
      self.assertGreater(control['bytes']['model'], control['bytes']['tables'])
    page = (_reference() / 'report.html').read_text('utf-8')
    self.assertIn('Size, before and after', page)

  def test_predictions_are_those_that_were_measured(self):
    report = _read(_reference())
    with np.load(_reference() / 'predictions.npz') as file:
      labels, logits = file['labels'], file['logits']
      self.assertNotIn('weights', file.files)
      self.assertLen(str(file['rows']), 64)
    self.assertEqual(logits.dtype, np.float32)
    found = metrics.evaluate_logits(labels, logits)
    for key, value in found.items():
      self.assertEqual(value, report['test'][key], key)

  def test_the_search_finds_planted_pairs(self):
    report = _read(_reference())
    planted = {tuple(pair) for pair in report['truth']['pairs']}
    [plan] = report['architecture']['interactions']
    kept = {tuple(pair) for pair in plan['terms']}
    recovered = report['recovered']
    self.assertEqual(recovered['planted_kept'], len(planted & kept))
    self.assertEqual(recovered['others_pruned'], 38 - len(kept - planted))
    self.assertGreaterEqual(recovered['planted_kept'], 5)
    self.assertGreaterEqual(recovered['others_pruned'], 19)

  def test_gates_are_recorded_over_the_search(self):
    text = (_reference() / 'metrics.jsonl').read_text('utf-8')
    lines = [json.loads(line) for line in text.splitlines()]
    gates = np.array([x['gates']['pairs'] for x in lines if 'gates' in x])
    self.assertEqual(gates.shape[1:], (45,))
    self.assertGreaterEqual(len(gates), 4)
    kept = _read(_reference())['search']['kept']
    self.assertEqual(np.count_nonzero(gates[-1]), kept)

  def test_the_same_command_again_changes_nothing(self):
    workdir = _reference()
    before = _hashes(workdir)
    done = _run(_TINY, f'--workdir={workdir}')
    self.assertEqual(done.returncode, 0, done.stderr)
    self.assertIn(f'Report: {workdir / "report.html"}', done.stdout)
    self.assertEqual(_hashes(workdir), before)

  def test_a_workdir_of_another_config_is_left_alone(self):
    workdir = pathlib.Path(self.create_tempdir()) / 'copy'
    shutil.copytree(_reference(), workdir)
    before = _hashes(workdir)
    done = _run(_TINY, f'--workdir={workdir}', '--config.train.epochs=7')
    self.assertEqual(done.returncode, 1)
    self.assertIn('train.epochs is 2, now 7', done.stderr)
    self.assertNotIn('Traceback', done.stderr)
    self.assertEqual(_hashes(workdir), before)

  @parameterized.named_parameters(
    ('key', [_TINY, '--config.search.epoch=3'], ["'search.epochs'", 'seed']),
    ('key_of_default', ['--config.trian.epochs=3'], ["'train.epochs'"]),
    (
      'data',
      ['--config=experiments/configs/autofis.py:plantd'],
      ["mean 'planted'", 'frappe', 'avazu'],
    ),
    ('model', [_TINY, '--config.model=depfm'], ["'deepfm'", 'ipnn', 'lr']),
    ('type', [_TINY, '--config.train.epochs=many'], ['train.epochs', 'int']),
    (
      'config',
      ['--config=experiments/configs/autofs.py:planted'],
      ["'experiments/configs/autofis.py'", 'base.py'],
    ),
    (
      'word',
      ['--config=experiments/configs/autofis.py:planted,tinny'],
      ['tinny', "'tiny'"],
    ),
    (
      'data_dir',
      ['--config=experiments/configs/base.py:frappe', '--data_dir=not/there'],
      ['not/there'],
    ),
    ('workdir', [_TINY, f'--workdir={__file__}/x'], ['run_test.py/x']),
    ('controls', [_TINY, "--config.controls=('rnd',)"], ['random', 'lr']),
  )
  def test_a_slip_is_one_message(self, arguments, expected):
    own = f'--workdir={self.create_tempdir().full_path}'
    given = any(argument.startswith('--workdir') for argument in arguments)
    done = _run(*arguments, *([] if given else [own]))
    self.assertEqual(done.returncode, 1)
    self.assertNotIn('Traceback', done.stderr)
    for text in expected:
      self.assertIn(text, done.stderr)

  def test_a_split_of_one_class_is_refused_before_training(self):
    path = pathlib.Path(self.create_tempdir())
    rows = [f'{int(i % 3 == 0 and i < 900)},{i % 7},{i}' for i in range(1000)]
    (path / 'clicks.csv').write_text('label,ad,time\n' + '\n'.join(rows) + '\n')
    (path / 'clicks.toml').write_text(
      'label = "label"\ntime = "time"\n\n[files]\nall = "clicks.csv"\n\n'
      '[split]\nkind = "time"\nvalid = 0.1\ntest = 0.1\n\n'
      '[[columns]]\nname = "ad"\nkind = "categorical"\n'
    )
    done = _run(
      f'--workdir={path / "run"}',
      f'--config=experiments/configs/base.py:{path}/clicks.toml',
    )
    self.assertEqual(done.returncode, 1)
    self.assertIn(
      'The test split of 100 rows needs labels of both', done.stderr
    )
    self.assertNotIn('Traceback', done.stderr)
    self.assertFalse((path / 'run' / 'metrics.jsonl').exists())

  def test_a_full_disk_is_named(self):
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
    workdir = self.create_tempdir().full_path
    done = _run(_TINY, f'--workdir={workdir}', preexec_fn=limit)
    self.assertEqual(done.returncode, 1, done.stderr)
    self.assertNotIn('Traceback', done.stderr)
    self.assertIn(workdir, done.stderr)

  def test_an_unsearched_model_has_a_report(self):
    workdir = pathlib.Path(self.create_tempdir())
    config = '--config=experiments/configs/base.py:planted,tiny'
    arguments = config, '--config.model=deepfm', f'--workdir={workdir}'
    done = _run(*arguments, '--nopage')
    self.assertEqual(done.returncode, 0, done.stderr)
    self.assertFalse((workdir / 'report.html').exists())
    report = _read(workdir)
    self.assertEqual((report['model'], report['method']), ('deepfm', 'base'))
    self.assertEmpty(report['controls'])
    self.assertGreater(report['test']['auc'], 0.6)

  def test_a_quantised_model_is_packed_within_its_budget(self):
    workdir = pathlib.Path(self.create_tempdir())
    done = _run(
      '--config=experiments/configs/mgqe.py:planted,tiny',
      '--config.search.max_params=700',
      '--config.controls=()',
      f'--workdir={workdir}',
    )
    self.assertEqual(done.returncode, 0, done.stderr)
    report = _read(workdir)
    self.assertBetween(report['ep_total'], 630, 700)
    found = arch_lib.Architecture.load(workdir / 'model')
    self.assertEqual(report['ep_total'], found.ep_total)
    self.assertEqual(report['embedding_params'], found.embedding_params)
    packed = [plan.name for plan in found.fields if plan.quantizer]
    self.assertEqual(set(report['code_entropy']), set(packed))
    # Trained with a row per id, of which the first-order weights are left.
    sizes, trained = report['sizes'], arch_lib.Architecture.load(workdir)
    self.assertEqual(report['not_searched'], 'Nothing is searched.')
    before, after = sizes['trained']['bytes'], sizes['derived']['bytes']
    self.assertEqual(before['tables'], 4 * trained.embedding_params)
    self.assertEqual(after['tables'], 4 * found.embedding_params)
    self.assertLess(after['file'], before['file'])
    self.assertLess(found.embedding_params, trained.embedding_params)
    self.assertEqual(after['index'], found.index_bytes)
    # The page is of what is left.
    page = (workdir / 'report.html').read_text('utf-8')
    self.assertIn(f'{found.vectors_total:,.0f} of all fields', page)
    self.assertIn('codes of', page)
    lines = (workdir / 'metrics.jsonl').read_text('utf-8').splitlines()
    kinds = [line for line in lines if 'code_entropy' in line]
    self.assertNotEmpty(kinds)


class InterruptedTest(parameterized.TestCase):
  def _interrupt(self, seed, numbers):
    """Stops a run in several stages, then lets it end."""
    rng = random.Random(seed)
    stops = [('search', rng.randint(1, 160)) for _ in numbers[:2]]
    stops += [('retrain', rng.randint(1, 80)) for _ in numbers[2:-1]]
    stops += [('control:base', rng.randint(1, 80))]
    workdir = pathlib.Path(self.create_tempdir())
    # Saves at every dispatch: how often is no part of the result.
    arguments = (_TINY, f'--workdir={workdir}', '--config.train.save_seconds=0')
    for (stage, step), number in zip(sorted(stops, key=_order), numbers):
      done = _stopped(stage, step, number, *arguments)
      expected = 143 if number == 15 else -number
      self.assertEqual(done.returncode, expected, done.stderr)
      self.assertNotIn('Traceback', done.stderr)
      if number == 15:
        self.assertIn(f'Stopped: {stage}: saved at step', done.stderr)
      self.assertFalse((workdir / 'report.json').exists())
    done = _run(*arguments)
    self.assertEqual(done.returncode, 0, done.stderr)
    name = 'architecture.json'
    self.assertEqual(
      (workdir / name).read_bytes(), (_reference() / name).read_bytes()
    )
    self.assertEqual(_results(workdir), _results(_reference()))

  def test_kills_leave_no_trace(self):
    self._interrupt(seed=5, numbers=(9, 15, 9, 15))

  @pytest.mark.slow
  def test_other_kills_leave_no_trace(self):
    for seed in range(3):
      self._interrupt(seed=seed, numbers=(9, 9, 9, 15, 9, 9))


def _order(stop):
  stage, step = stop
  return ('search', 'retrain', 'control:base').index(stage), step


class OwnDataTest(absltest.TestCase):
  def test_a_csv_through_a_schema_file(self):
    directory = pathlib.Path(self.create_tempdir())
    rng = np.random.default_rng(0)
    x = rng.integers(0, 6, (4000, 4))
    # One pair decides, as the others do not.
    y = (x[:, 0] * 7 + x[:, 2] * 3) % 5 < 2
    names = ('user', 'ad <b>', 'place', 'hour')
    lines = [','.join((*names, 'clicked'))]
    lines += [
      ','.join([*(f'v{v}' for v in r), str(int(c))]) for r, c in zip(x, y)
    ]
    lines[100] = 'v1,v2,v3,v4,perhaps'
    (directory / 'clicks.csv').write_text('\n'.join(lines) + '\n')
    schema = directory / 'clicks.toml'
    done = _python(
      '-m', 'experiments.prepare', f'--infer={directory / "clicks.csv"}'
    )
    self.assertEqual(done.returncode, 0, done.stderr)
    self.assertTrue(schema.exists())
    workdir = directory / 'run'
    arguments = [
      f'--config=experiments/configs/autofis.py:{schema},tiny',
      f'--workdir={workdir}',
      '--config.search.epochs=20',
      '--config.search.train.learning_rate=0.02',
      "--config.controls=('random',)",
    ]
    done = _run(*arguments)
    self.assertEqual(done.returncode, 1)
    self.assertRegex(done.stderr, r'clicks\.csv.*101|101.*clicks\.csv')
    # What failed before it trained does not stand in the way.
    done = _run(*arguments, '--bad_rows=quarantine', '--config.seed=3')
    self.assertEqual(done.returncode, 0, done.stderr)
    report = _read(workdir)
    self.assertEqual(
      report['rows'], {'read': 4000, 'kept': 3999, 'quarantined': 1}
    )
    self.assertEqual(sum(report['splits'].values()), 3999)
    [plan] = report['architecture']['interactions']
    self.assertIn(['user', 'place'], plan['terms'])


if __name__ == '__main__':
  absltest.main()
