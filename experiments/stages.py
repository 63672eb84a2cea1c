"""The stages of a run, and the report.json that they amount to."""

import importlib.metadata
import json
import os
import pathlib
import time
from typing import Any

from absl import logging
import jax

from experiments import methods
from experiments import settings as settings_lib
from jax_autorec import architecture as arch_lib
from jax_autorec import data as data_lib
from jax_autorec import errors, pipeline, spaces
from jax_autorec import report as report_lib
from jax_autorec.data import planted
from jax_autorec.search import controls as controls_lib

CONTROLS = {
  'lr': 'lr',
  'base': 'base',
  'all': 'all + bn + gates',
  'random': 'random subset',
}


def _write_json(path: pathlib.Path, values: Any) -> None:
  partial = path.with_suffix('.partial')
  partial.write_text(json.dumps(values, indent=1) + '\n', 'utf-8')
  os.replace(partial, path)


def run(
  values: dict[str, Any],
  workdir: pathlib.Path,
  *,
  data_dir: str,
  parallel: str,
  bad_rows: str,
  last: str,
  command: str,
  machine: str,
) -> None:
  """Runs the stages up to `last`; prints where the report is.

  A run that has its report is not run again: the page alone is made anew.
  """
  if last in ('evaluate', 'all') and (workdir / 'report.json').exists():
    print(f'Report: {report_lib.write(workdir)}')
    return
  _check(values)
  start = time.monotonic()
  options = dict(values['data'])
  name, max_rows = options.pop('name'), options.pop('max_rows')
  if name in planted.PRESETS:
    options.setdefault('seed', values['seed'])
  data = data_lib.load(name, data_dir, bad_rows=bad_rows, **options)
  if max_rows:
    data = data.head(max_rows)
  values = settings_lib.fit_batch_size(values, data.train.num_rows)
  settings = settings_lib.training(values, parallel)
  seconds = {'prepare': time.monotonic() - start, 'search': 0.0}
  logging.info(
    '%s: %d / %d / %d rows, %d fields',
    name,
    data.train.num_rows,
    data.valid.num_rows,
    data.test.num_rows,
    len(data.schema.fields),
  )
  base_options = settings_lib.given(values['base_options'])
  base = spaces.build(values['model'], data.schema, **base_options)
  found = None
  if values['method'] == 'base':
    architecture = base
    architecture.save(workdir)
  else:
    found = search(values, data, parallel, workdir)
    seconds['search'] = found.info['seconds']
    if last == 'search':
      print(f'Searched: {workdir}')
      return
    architecture = pipeline.derive(found)
    architecture.save(workdir)
  if last in ('search', 'derive'):
    print(f'Derived: {workdir / "architecture.json"}')
    return
  plans = {'retrain': (architecture, settings)}
  for control in values.get('controls', ()):
    plans[f'control:{CONTROLS[control]}'] = _control(
      control, values, data, parallel, base, found, architecture
    )
  models = {}
  for stage, (plan, plan_settings) in plans.items():
    models[stage] = pipeline.retrain(
      plan,
      data,
      plan_settings,
      seed=values['seed'],
      workdir=workdir,
      stage=stage,
    )
    logging.info('%s: valid %s', stage, _short(models[stage].valid))
  seconds['retrain'] = models['retrain'].info['seconds']
  if last == 'retrain':
    print(f'Retrained: {workdir}')
    return
  tests = _evaluate(models, data, settings, workdir)
  report = _report(values, data, models, tests, found, architecture)
  others = [m.info['seconds'] for s, m in models.items() if s != 'retrain']
  report['seconds'] = seconds | {'controls': sum(others)}
  report['command'], report['machine'] = command, machine
  _write_json(workdir / 'report.json', report)
  path = report_lib.write(workdir)
  for stage, test in tests.items():
    logging.info('%s: test %s', stage, _short(test))
  print(f'Report: {path}')


def _check(values: dict[str, Any]) -> None:
  """Refuses names before the data is prepared for them."""
  known = ('base', *methods.METHODS)
  if values['method'] not in known:
    raise errors.ConfigError(
      f'No method {values["method"]!r}; the methods are: {", ".join(known)}.'
      + errors.nearest(values['method'], known)
    )
  controls = values.get('controls', ())
  if values['method'] == 'base' and controls:
    raise errors.ConfigError(
      'Method base searches nothing and has no controls: run '
      f'--config=experiments/configs/base.py:{values["data"]["name"]}.'
    )
  for control in controls:
    if control not in CONTROLS:
      raise errors.ConfigError(
        f'No control {control!r}; the controls are: {", ".join(CONTROLS)}.'
        + errors.nearest(control, CONTROLS)
      )


def _short(metrics):
  return f'AUC {metrics["auc"]:.5f}, logloss {metrics["logloss"]:.5f}'


def search(
  values: dict[str, Any],
  data: data_lib.Dataset,
  parallel: str,
  workdir: pathlib.Path | None,
) -> pipeline.Found:
  """The search that a resolved config describes."""
  method = methods.METHODS[values['method']]
  search_options = values['search']
  space = method.space(
    data.schema,
    values['model'],
    settings_lib.given(values['model_options']),
    search_options,
  )
  settings = settings_lib.training(values, parallel, **search_options['train'])
  steps_per_epoch = -(-data.train.num_rows // settings.batch_size)
  num_steps = max(
    search_options['epochs'] * steps_per_epoch,
    search_options['min_steps'] or 0,
  )
  return pipeline.run_search(
    space,
    method.selectors(search_options, num_steps),
    data,
    settings,
    num_steps=num_steps,
    seed=values['seed'],
    workdir=workdir,
  )


def _control(control, values, data, parallel, base, found, architecture):
  """Architecture and settings of a control."""
  overrides = values['control_train'].get(control, {})
  settings = settings_lib.training(values, parallel, **overrides)
  if control == 'base':
    return base, settings
  if control == 'lr':
    return spaces.lr(data.schema), settings
  if control == 'all':
    return controls_lib.keep_all(found.space), settings
  random = controls_lib.random_subset(found.space, architecture, values['seed'])
  return random, settings


def _evaluate(models, data, settings, workdir):
  """Test metrics of every model; the test split is read here, once."""
  path = workdir / 'evaluation.json'
  if path.exists():
    return json.loads(path.read_text('utf-8'))
  tests = {
    stage: pipeline.evaluate(model, data.test, settings.batch_size)
    for stage, model in models.items()
  }
  _write_json(path, tests)
  return tests


def _report(values, data, models, tests, found, architecture):
  model = models['retrain']
  report = {
    'method': values['method'],
    'dataset': values['data']['name'],
    'model': values['model'],
    'seed': values['seed'],
    'tiny': values['tiny'],
    'test': tests['retrain'],
    'valid': model.valid,
    'controls': {
      stage.removeprefix('control:'): {
        'test': tests[stage],
        'valid': control.valid,
        'embedding_params': control.architecture.embedding_params,
        'total_params': control.total_params,
        'seconds': control.info['seconds'],
        'examples_per_second': control.info['examples_per_second'],
        'bytes': control.info['bytes'],
      }
      for stage, control in models.items()
      if stage != 'retrain'
    },
    'architecture': architecture.to_dict(),
    'embedding_params': architecture.embedding_params,
    'ep_total': architecture.embedding_params + architecture.projection_params,
    'total_params': model.total_params,
    'bytes': model.info['bytes'],
    'examples_per_second': model.info['examples_per_second'],
    'rows': dict(data.counts),
    'splits': {
      'train': data.train.num_rows,
      'valid': data.valid.num_rows,
      'test': data.test.num_rows,
    },
    'versions': {
      package: importlib.metadata.version(package)
      for package in ('jax', 'flax', 'optax', 'numpy')
    }
    | {'device': jax.devices()[0].device_kind},
  }
  if found is not None:
    kept = _terms(architecture)
    report['search'] = {
      'kept': len(kept),
      'of': len(_terms(found.space)),
      'steps': found.info['steps'],
      'examples_per_second': found.info['examples_per_second'],
    }
  if data.truth:
    report['truth'] = {'pairs': data.truth['pairs']}
    report['bayes'] = {'test': data.truth['test']}
    if found is not None:
      report['recovered'] = _recovered(found.space, architecture, data.truth)
  return report


def _terms(architecture: arch_lib.Architecture) -> set[tuple[str, ...]]:
  return {
    term
    for plan in architecture.interactions
    for term in getattr(plan, 'terms', ())
  }


def _recovered(space, architecture, truth):
  """How the kept pairs compare with the planted ones."""
  planted = {tuple(pair) for pair in truth['pairs']}
  kept = {term for term in _terms(architecture) if len(term) == 2}
  others = {term for term in _terms(space) if len(term) == 2} - planted
  return {
    'planted': len(planted),
    'planted_kept': len(planted & kept),
    'others': len(others),
    'others_pruned': len(others - kept),
  }
