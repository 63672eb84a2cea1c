"""The stages of a run, and the report.json that they amount to."""

from collections.abc import Mapping
import dataclasses
import json
import pathlib
import time
from typing import Any

from absl import logging

from experiments import methods, recovery, reports, streams
from experiments import settings as settings_lib
from jax_autorec import architecture as arch_lib
from jax_autorec import data as data_lib
from jax_autorec import errors, pipeline
from jax_autorec import report as report_lib
from jax_autorec.data import datasets
from jax_autorec.interactions import Groups
from jax_autorec.train import learned as learned_lib
from jax_autorec.train import models as models_lib
from jax_autorec.train import retraining


@dataclasses.dataclass(frozen=True)
class Derived:
  """What a search, if there was one, arrived at.

  Attributes:
    architecture: closed.
    space: what was searched; the same where nothing was.
    info: 'seconds', 'steps', ... of the search; empty where there was none.
    trials: of a search by scores.
  """

  architecture: arch_lib.Architecture
  space: arch_lib.Architecture
  info: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  trials: tuple[dict[str, Any], ...] = ()


def load_data(
  values: Mapping[str, Any], data_dir: str, bad_rows: str = 'raise'
) -> data_lib.Dataset:
  """The data set that a config names.

  Of a stream all rows: it is cut by time, once it is in that order.
  """
  options = dict(values['data'])
  name, max_rows = options.pop('name'), options.pop('max_rows')
  if name in datasets.GENERATORS:
    options.setdefault('seed', values['seed'])
  data = data_lib.load(name, data_dir, bad_rows=bad_rows, **options)
  if not max_rows or methods.METHODS[values['method']].online:
    return data
  return data.head(max_rows)


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
  page: bool = True,
) -> None:
  """Runs the stages up to `last`; prints where the report is.

  A run that has its report is not run again: the page alone is made anew,
  unless none is asked for.
  """

  def show():
    made = report_lib.write(workdir) if page else workdir / 'report.json'
    print(f'Report: {made}')

  if last in ('evaluate', 'all') and (workdir / 'report.json').exists():
    show()
    return
  _check(values)
  reports.code()  # Of the files that this run was made by.
  start = time.monotonic()
  data = load_data(values, data_dir, bad_rows)
  values = settings_lib.fit_batch_size(values, data.train.num_rows)
  settings = settings_lib.training(values, parallel)
  seconds = {'prepare': time.monotonic() - start}
  if methods.METHODS[values['method']].online:
    streams.run(
      values, data, settings, workdir, last, seconds, command, machine
    )
    if (workdir / 'report.json').exists():
      show()
    return
  _check_labels(data)
  logging.info(
    '%s: %d / %d / %d rows, %d fields',
    values['data']['name'],
    data.train.num_rows,
    data.valid.num_rows,
    data.test.num_rows,
    len(data.schema.fields),
  )
  method, task = methods.METHODS[values['method']], make_task(values, data)
  if last == 'search' and method.selectors:
    _search(method, task, values, parallel, workdir)
    print(f'Searched: {workdir}')
    return
  derived = derive(values, data, parallel, workdir)
  architecture = derived.architecture
  architecture.save(workdir)
  seconds['search'] = derived.info.get('seconds', 0.0)
  if last in ('search', 'derive'):
    print(f'Derived: {workdir / "architecture.json"}')
    return
  plans = {'retrain': (architecture, settings)}
  for control in values.get('controls', ()):
    plan, train = control_plan(control, task, values, derived)
    plans[f'control:{settings_lib.control_name(control)}'] = (
      plan,
      settings_lib.training(values, parallel, **train),
    )
  models = {}
  for stage, (plan, plan_settings) in plans.items():
    trained = retraining.retrain(
      plan,
      data,
      plan_settings,
      seed=values['seed'],
      workdir=workdir,
      stage=stage,
    )
    # What is evaluated, saved and reported is what would be served.
    models[stage] = retraining.pack(trained)
    logging.info('%s: valid %s', stage, _short(models[stage].valid))
  seconds['retrain'] = models['retrain'].info['seconds']
  if last == 'retrain':
    print(f'Retrained: {workdir}')
    return
  tests = _evaluate(models, data, settings, workdir)
  learned = learned_lib.numbers(models['retrain'], data.train)
  if learned:
    reports.write_json(workdir / 'numbers.json', learned)
  file = reports.save(models['retrain'], workdir)
  report = _report(values, data, models, tests, derived, file)
  others = [m.info['seconds'] for s, m in models.items() if s != 'retrain']
  report['seconds'] = seconds | {'controls': sum(others)}
  report['command'], report['machine'] = command, machine
  reports.write_json(workdir / 'report.json', report)
  for stage, test in tests.items():
    logging.info('%s: test %s', stage, _short(test))
  show()


def _check_labels(data: data_lib.Dataset) -> None:
  """Refuses splits that no AUC can be computed on, before anything is trained.

  Raises:
    DataError: where all labels of a split are the same.
  """
  for name in ('train', 'valid', 'test'):
    labels = getattr(data, name).labels
    if not len(labels) or labels.min() == labels.max():
      value = f'All are {labels[0]:g}' if len(labels) else 'There are none'
      raise errors.DataError(
        f'The {name} split of {len(labels)} rows needs labels of both classes. '
        f'{value}: take another split or seed, or more rows (data.max_rows).'
      )


def _check(values: dict[str, Any]) -> None:
  """Refuses names before the data is prepared for them."""
  known = tuple(methods.METHODS)
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
    methods.METHODS[values['method']].check_control(control)


def _short(metrics):
  return f'AUC {metrics["auc"]:.5f}, logloss {metrics["logloss"]:.5f}'


def make_task(
  values: Mapping[str, Any], data: data_lib.Dataset
) -> methods.Task:
  """What a resolved config asks of its method."""
  options = values.get('search', {})
  steps_per_epoch = -(-data.train.num_rows // values['train']['batch_size'])
  steps = max(
    (options.get('epochs') or 0) * steps_per_epoch,
    options.get('min_steps') or 0,
  )
  return methods.Task(
    data,
    values['model'],
    settings_lib.given(values['model_options']),
    options,
    steps,
    steps_per_epoch,
    values['seed'],
    settings_lib.numeric_embedding(values),
  )


def control_plan(
  control: str,
  task: methods.Task,
  values: Mapping[str, Any],
  derived: Derived,
) -> tuple[arch_lib.Architecture, dict[str, Any]]:
  """A control's architecture, and how its training differs from the result's.

  Args:
    control: name.
    task: of the run.
    values: its config, resolved.
    derived: what it is compared with.
  """
  if control == 'base':
    # The plain model has options of its own.
    options = settings_lib.given(values['base_options'])
    task = dataclasses.replace(task, options=options)
  plan = methods.METHODS[values['method']].control(
    control, task, derived.space, derived.architecture
  )
  train = dict(values['control_train'].get(control, {}))
  if control == 'uniform':
    # Only now is it known how wide it is.
    tuned = dict(values['uniform_tuned'].get(str(plan.dim), {}))
    if 'dropout' in tuned:
      head = dataclasses.replace(plan.head, dropout=tuned.pop('dropout'))
      plan = dataclasses.replace(plan, head=head)
    train |= tuned
  return plan, train


def _search(
  method, task, values, parallel, workdir
) -> tuple[pipeline.Found, arch_lib.Architecture, dict[str, Any]]:
  """The searches by gradients of a method that has some.

  Returns:
    The last of them, which is still to be settled; what was searched, where
    several were that with open products; what is told of all.
  """
  one = methods.Turn('', lambda _: method.space(task), method.selectors(task))
  turns = (method.turns and method.turns(task)) or (one,)
  settled, searches = None, []
  for number, turn in enumerate(turns, 1):
    space = turn.space(settled)
    if 'fields' in turn.selectors and 'main' not in space.views:
      raise errors.ConfigError(
        f'Nothing reads vectors any more, so {turn.name} has nothing to '
        'decide: the searches before it left the model without products. Give '
        'them less to prune by, or another order.'
      )
    found = pipeline.run_search(
      space,
      turn.selectors,
      task.data,
      settings_lib.training(
        values,
        parallel,
        **task.search.get(turn.name, {}).get('train', task.search['train']),
      ),
      num_steps=task.steps,
      seed=task.seed,
      workdir=workdir,
      stage=f'search {turn.name}'.strip(),
    )
    searches.append(found)
    if number < len(turns):
      settled = _settle(found, values, task, workdir)
  # Rates and sizes are those of the largest.
  largest = max(searches, key=lambda one: one.info['size']['ep_total'])
  info = dict(largest.info)
  for key in ('seconds', 'steps'):
    info[key] = sum(one.info[key] for one in searches)
  with_gates = [s.space for s in searches if _terms(s.space, is_open=True)]
  return found, (with_gates or [largest.space])[0], info


def _settle(found, values, task, workdir) -> arch_lib.Architecture:
  return pipeline.derive(
    found, task.data, values['train']['batch_size'], workdir=workdir
  )


def derive(
  values: Mapping[str, Any],
  data: data_lib.Dataset,
  parallel: str,
  workdir: pathlib.Path | None,
) -> Derived:
  """Runs what a resolved config searches; settles every choice.

  Args:
    values: resolved, with batch sizes filled in.
    data: the test split is not read.
    parallel: how steps use the devices.
    workdir: where checkpoints go; None keeps all in memory.
  """
  method, task = methods.METHODS[values['method']], make_task(values, data)
  population = method.population(task) if method.population else None
  if population is not None:
    scored = pipeline.run_population(
      population,
      method.sample(task),
      settings_lib.training(values, parallel, **task.search.get('train', {})),
      seed=task.seed,
      workdir=workdir,
    )
    space = method.space(task)
    return Derived(scored.architecture, space, scored.info, scored.trials)
  if method.selectors:
    found, space, info = _search(method, task, values, parallel, workdir)
    architecture = _settle(found, values, task, workdir)
    return Derived(architecture, space, info)
  architecture = method.space(task)
  return Derived(architecture, architecture)


def _evaluate(models, data, settings, workdir):
  """Test metrics of every model; the test split is read here, once.

  What the result predicts is kept, to be compared with other runs.
  """
  path = workdir / 'evaluation.json'
  if path.exists():
    return json.loads(path.read_text('utf-8'))
  tests = {}
  for stage, model in models.items():
    logits = models_lib.predictions(model, data.test, settings.batch_size)
    tests[stage] = models_lib.measure(data.test, logits)
    if stage == 'retrain':
      reports.write_predictions(workdir / 'predictions.npz', data.test, logits)
  reports.write_json(path, tests)
  return tests


def _sizes(model, file, searched=None):
  """What was held while searching, while training, and to serve."""
  sizes = {'trained': model.info['size'], 'derived': model.size(file)}
  return ({'searched': searched} if searched else {}) | sizes


def _not_searched(derived) -> str:
  """Why there is no size of a search."""
  if derived.trials:
    return (
      'Every proposal was a closed model, trained by itself: nothing larger '
      'than the largest of them was held.'
    )
  return 'Nothing is searched.'


def _report(values, data, models, tests, derived, file):
  model = models['retrain']
  searched = derived.info.get('size')
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
        **reports.size(
          _sizes(control, reports.file_bytes(control)), control.total_params
        ),
        'seconds': control.info['seconds'],
        'examples_per_second': control.info['examples_per_second'],
      }
      for stage, control in models.items()
      if stage != 'retrain'
    },
    'architecture': derived.architecture.to_dict(),
    **reports.size(_sizes(model, file, searched), model.total_params),
    'examples_per_second': model.info['examples_per_second'],
    'rows': dict(data.counts),
    'splits': {
      'train': data.train.num_rows,
      'valid': data.valid.num_rows,
      'test': data.test.num_rows,
    },
    'versions': reports.versions(),
  }
  space, architecture = derived.space, derived.architecture
  if not searched:
    report['not_searched'] = _not_searched(derived)
  if 'code_entropy' in model.info:
    report['code_entropy'] = dict(model.info['code_entropy'])
  if derived.info:
    report['search'] = {
      'embedding_params': space.embedding_params,
      **{k: v for k, v in derived.info.items() if k != 'size'},
    }
    if _terms(space, is_open=True):
      report['search'] |= {
        'kept': len(_terms(architecture)),
        'of': len(_terms(space)),
      }
    if _memberships(space):
      report['search'] |= {
        'kept': _memberships(architecture),
        'of': _memberships(space),
        'kept_of': 'memberships',
      }
    if derived.trials:
      report['search']['trials'] = [
        {k: v for k, v in trial.items() if k not in ('steps', 'architecture')}
        for trial in derived.trials
      ]
  if data.truth:
    report['truth'] = {k: data.truth[k] for k in ('pairs', 'triples')}
    report['bayes'] = {'test': data.truth['test']}
    if _terms(space, is_open=True):
      report['recovered'] = _recovered(space, architecture, data.truth)
    if 'ranks' in data.truth:
      packed = models['retrain'].architecture
      report['recovered_widths'] = recovery.widths(packed, data.truth)
  return report


def _terms(
  architecture: arch_lib.Architecture, is_open: bool = False
) -> set[tuple[str, ...]]:
  """All products, or those whose gates are open."""
  return {
    term
    for plan in architecture.interactions
    if not is_open or plan.is_open
    for term in getattr(plan, 'terms', ())
  }


def _memberships(architecture: arch_lib.Architecture) -> int:
  """Of fields in groups; all that are possible where these are open."""
  count = 0
  for plan in architecture.interactions:
    if isinstance(plan, Groups):
      count += sum(map(len, plan.groups))
      count += (plan.num_open or 0) * len(architecture.vector_fields)
  return count


def _recovered(space, architecture, truth):
  """How the kept products compare with the planted ones of their orders."""
  terms, kept = _terms(space), _terms(architecture)
  planted = {tuple(t) for t in [*truth['pairs'], *truth['triples']]} & terms
  others = terms - planted
  return {
    'planted': len(planted),
    'planted_kept': len(planted & kept),
    'others': len(others),
    'others_pruned': len(others - kept),
  }
