"""The road from a space to an architecture: run_search -> derive.

`run_population` is that of a search by scores. `train.retraining` trains what
either arrives at; a stream has a road of its own, `streaming`.

Every function works in memory; given a workdir it also records metrics there
and continues from its checkpoints when it is called again.
"""

from collections.abc import Mapping
import dataclasses
import functools
import hashlib
import json
import pathlib
import shutil
import time
from typing import Any

from absl import logging
import jax
import numpy as np

from jax_autorec import architecture as arch_lib
from jax_autorec import errors, files, numeric_spaces
from jax_autorec import interactions as interactions_lib
from jax_autorec.data import batches as batches_lib
from jax_autorec.data import dataset as dataset_lib
from jax_autorec.nn import model as model_lib
from jax_autorec.search import base, supernet
from jax_autorec.train import checkpoints as checkpoints_lib
from jax_autorec.train import complexity, loop, parallel, retraining, stages
from jax_autorec.train import models as models_lib
from jax_autorec.train import records as records_lib
from jax_autorec.train import settings as settings_lib
from jax_autorec.train import state as state_lib


@dataclasses.dataclass(frozen=True)
class Found:
  """A finished search.

  Attributes:
    space: the open architecture.
    selectors: slot -> selector.
    state: final state of the search.
    info: 'seconds', 'steps', 'examples_per_second', 'size' (see
      `models.size`).
    start: seed and standard deviation that fresh tables followed from.
  """

  space: arch_lib.Architecture
  selectors: Mapping[str, base.Selector]
  state: supernet.SearchState
  info: Mapping[str, Any]
  start: tuple[int, float] | None = None


@dataclasses.dataclass(frozen=True)
class Scored:
  """A finished search of a population.

  Attributes:
    architecture: the one that was settled on.
    trials: of every proposal what `Population.about` says of it, its 'valid'
      metrics, 'embedding_params', 'ep_total', 'seconds', 'steps' and
      'architecture'; 'flops' of a prediction where they were counted;
      'diverged', why, where its training did, and then no metrics.
    info: 'seconds' and 'steps' of all together, and of the model whose tables
      they started from, if there was one ('start'; its own are there, too);
      'metric' that trainings were judged by.
  """

  architecture: arch_lib.Architecture
  trials: tuple[dict[str, Any], ...]
  info: Mapping[str, Any]


def run_search(
  space: arch_lib.Architecture,
  selectors: Mapping[str, base.Selector],
  data: dataset_lib.Dataset,
  settings: settings_lib.Settings | None = None,
  *,
  num_steps: int | None = None,
  seed: int = 0,
  workdir: stages.Workdir = None,
  stage: str = 'search',
) -> Found:
  """Trains a supernet's weights and choices together.

  Args:
    space: an architecture with open choices; its numeric embeddings are fitted
      on the train split, where they are not yet.
    selectors: path of an open slot ('interactions') -> its selector.
    data: encoded splits; the test split is never read.
    settings: how weights are trained; patience applies where all selectors
      only derive.
    num_steps: steps in all, at most where a selector measures when it is done
      or all only derive; None for `settings.epochs`.
    seed: of initialisation, draws and the order of rows.
    workdir: where checkpoints and records go; None keeps all in memory. One
      that holds another space, data set, seed or setting is refused; selectors
      and num_steps are not compared, so give each search one of its own.
    stage: names checkpoints and records, where several searches share a
      workdir.

  Returns:
    The search's final state, for `derive`.
  """
  settings = settings or settings_lib.Settings()
  if num_steps is not None and num_steps < 1:
    raise errors.ConfigError(
      f'A search of {num_steps} steps; expected at least 1.'
    )
  space = numeric_spaces.fit(space, data.train, data.scales)
  for selector in selectors.values():
    selector.check(space)
  model = model_lib.build(
    space, axis_name=parallel.axis_name(settings.parallel)
  )
  optimizer = settings_lib.make_optimizer(settings, space)
  state = supernet.init(
    model,
    optimizer,
    selectors,
    state_lib.example_batch(data.schema),
    jax.random.key(seed),
    settings.table_std,
  )
  program = parallel.compile_steps(
    supernet.make_step(model, optimizer, selectors), settings.parallel
  )
  train = batches_lib.Batches(data.train, settings.batch_size, seed=seed)
  bilevel = any(s.split == 'valid' for s in selectors.values())
  plain = all(s.only_derives for s in selectors.values())
  valid = batches_lib.Batches(data.valid, settings.batch_size, seed=seed + 1)
  compiled = jax.jit(supernet.make_predict(model, selectors))

  def feed(first, count):
    return (
      train.chunk(first, count),
      valid.chunk(first, count) if bilevel else None,
    )

  def evaluate_valid(state):
    logits = models_lib.all_logits(
      lambda batch: compiled(state, batch), data.valid, settings.batch_size
    )
    return models_lib.measure(data.valid, logits)

  checkpoints = stages.open_checkpoints(
    workdir, stage, space, data, settings, seed
  )
  records = records_lib.Records(workdir)
  names = {
    plan.name: plan.terms
    for plan in space.interactions
    if interactions_lib.has_open_gates(plan)
  }
  about = {'kind': 'gate_names', 'names': names}
  if space.choice is not None:
    about['field_names'] = [plan.name for plan in space.categorical]
    about['choice'] = dataclasses.asdict(space.choice)
  try:
    state, position = loop.fit(
      program,
      state,
      stage=stage,
      feed=feed,
      batch_size=settings.batch_size,
      schedule=stages.schedule(settings, train, num_steps),
      stopping=settings.stopping if plain else loop.Stopping(patience=0),
      evaluate=evaluate_valid,
      checkpoints=checkpoints,
      records=records,
      observe=lambda state: supernet.recorded(state, selectors),
      about=about | supernet.recorded(state, selectors),
      finish=lambda state: supernet.measured(state, selectors, space),
    )
    if plain and position.best_step != position.step:
      state, _ = checkpoints.restore_step(position.best_step, state)
    own = state.arch, state.memory, state.arch_optimizer
    info = stages.info(
      position, settings.batch_size, space, state.train, checkpoints, own
    )
  finally:
    records.close()
    checkpoints.close()
  start = seed, settings.table_std
  return Found(space, dict(selectors), state, info, start)


def run_population(
  population: base.Population,
  data: dataset_lib.Dataset,
  settings: settings_lib.Settings | None = None,
  *,
  seed: int = 0,
  workdir: stages.Workdir = None,
) -> Scored:
  """Trains proposed architectures one after another and keeps their scores.

  Args:
    population: what proposes them.
    data: encoded splits; the test split is never read.
    settings: how each is trained.
    seed: of every training.
    workdir: where scores and checkpoints go; a search that was stopped goes on
      with the proposal that it was at.

  Returns:
    The architecture that was settled on, and all that were scored.
  """
  path = workdir and pathlib.Path(workdir) / 'scored.jsonl'
  lines = records_lib.Lines(path)

  def train(architecture, stage):
    return retraining.retrain(
      architecture,
      data,
      settings,
      seed=seed,
      workdir=workdir,
      stage=stage,
      metric=population.metric,
    )

  tables, info = {}, {}
  if population.start is not None:
    tables, info['start'] = _start(population.start, train, workdir)
  scored, began, known = [], time.monotonic(), len(lines.values)
  while (proposal := population.ask(scored)) is not None:
    number = len(scored)
    proposal = _from_tables(proposal, tables)
    if number == len(lines.values):
      stage = f'trial {number + 1}'
      lines.append(
        {
          'trial': number + 1,
          **population.about(number),
          **_score(
            population,
            proposal,
            data,
            functools.partial(train, proposal, stage),
          ),
          'embedding_params': proposal.embedding_params,
          'ep_total': proposal.ep_total,
          'architecture': proposal.to_dict(),
        }
      )
      if path:
        shutil.rmtree(stages.directory(workdir, stage), ignore_errors=True)
      spent = time.monotonic() - began
      each = spent / (number + 1 - known)
      logging.info('%s', _progress(lines.values[-1], population, spent, each))
    elif lines.values[number]['architecture'] != json.loads(
      json.dumps(proposal.to_dict())
    ):
      raise errors.CheckpointError(
        f'{path} holds the trials of another search. Give another --workdir, '
        'or delete that one.'
      )
    line = lines.values[number]
    scored.append(
      base.Scored(
        proposal, line['valid'], line['seconds'], line.get('flops', 0.0)
      )
    )
  parts = [*lines.values, *info.values()]
  info['metric'] = population.metric
  for key in ('seconds', 'steps'):
    info[key] = sum(part[key] for part in parts)
  return Scored(population.derive(scored), tuple(lines.values), info)


def _score(population, proposal, data, train) -> dict[str, Any]:
  """What is recorded of the training of a proposal."""
  counted = {}
  if population.complexity:
    counted['flops'] = complexity.flops(proposal, data.schema)
  began = time.monotonic()
  try:
    model = train()
  except errors.TrainingError as error:
    if not population.bears_divergence:
      raise
    seconds = time.monotonic() - began
    return {
      'valid': {},
      'diverged': str(error),
      **counted,
      'seconds': seconds,
      'steps': 0,
    }
  return {
    'valid': dict(model.valid),
    **counted,
    'seconds': model.info['seconds'],
    'steps': model.info['steps'],
  }


def _progress(line, population, spent, each) -> str:
  """How a trial did, and how long those to come will take."""
  of = f' of {population.total}' if population.total else ''
  text = f'Trial {line["trial"]}{of}: '
  if 'diverged' in line:
    text += f'diverged ({line["diverged"]})'
  else:
    valid = line['valid']
    text += f'valid AUC {valid["auc"]:.5f}, logloss {valid["logloss"]:.5f} '
    text += f'+- {valid["logloss_error"]:.5f}'
  text += f', {line["embedding_params"]} embedding parameters'
  text += f'; {spent:.0f} s in all'
  if population.total:
    text += f', ETA {each * (population.total - line["trial"]):.0f} s'
  return text


def _start(architecture, train, workdir):
  """Tables that proposals start from; what is told of their training."""
  directory = workdir and pathlib.Path(workdir) / 'start'
  path = directory and directory / 'trained.json'
  if path and path.exists():
    model = models_lib.load(directory)
    if model.architecture != architecture:
      raise errors.CheckpointError(
        f'{directory} holds the tables of another search. Give another '
        '--workdir, or delete that one.'
      )
    return model.tables, json.loads(path.read_text('utf-8'))
  model = train(architecture, 'start')
  told = {'valid': dict(model.valid)}
  told |= {key: model.info[key] for key in ('seconds', 'steps')}
  if path:
    models_lib.save(model, directory)
    files.write_text(path, json.dumps(told))
    shutil.rmtree(stages.directory(workdir, 'start'))
  return model.tables, told


def _from_tables(architecture, tables) -> arch_lib.Architecture:
  """The architecture, with those of the tables that are its own to start."""
  shapes = {t.name: (t.num_rows, t.dim) for t in architecture.tables}
  own = {
    f'{arch_lib.INITIAL}{name}': np.asarray(table)
    for name, table in tables.items()
    if shapes.get(name) == table.shape
  }
  if not own:
    return architecture
  return dataclasses.replace(
    architecture, arrays={**architecture.arrays, **own}
  )


def derive(
  found: Found,
  data: dataset_lib.Dataset | None = None,
  batch_size: int = 4096,
  *,
  workdir: stages.Workdir = None,
) -> arch_lib.Architecture:
  """The closed architecture that a search arrived at.

  Args:
    found: of `run_search`.
    data: for the methods that score choices on the validation split after the
      search; the test split is never read.
    batch_size: rows at a time.
    workdir: where scores of choices are kept, so that they are not taken again
      where settling them was stopped; None keeps none.
  """

  def initial():
    seed, table_std = found.start
    key = jax.random.key(seed)
    return supernet.initial_tables(found.space, found.selectors, key, table_std)

  initial = initial if found.start else None
  if data is None:
    return supernet.derive(
      found.state, found.selectors, found.space, initial=initial
    )
  model = model_lib.build(found.space)
  compiled = jax.jit(supernet.make_predict(model, found.selectors))

  scores = _Scores(workdir, found)

  def evaluate(choices):
    def score():
      logits = models_lib.all_logits(
        lambda batch: compiled(found.state, batch, choices),
        data.valid,
        batch_size,
      )
      return models_lib.measure(data.valid, logits)

    return scores.get(choices, score)

  slope = jax.jit(supernet.make_gradient(model, found.selectors))

  def gradients(choices):
    for batch in batches_lib.in_order(data.valid, batch_size):
      grads = jax.device_get(slope(choices, found.state, batch))
      yield grads, float(np.sum(batch.weights[batch.mask]))

  return supernet.derive(
    found.state, found.selectors, found.space, evaluate, gradients, initial
  )


class _Scores:
  """Metrics of choices that were scored, by choice; in a file, if in any.

  A line belongs to a space, to a number of steps that it was searched for and
  to a choice. So a search that settles by scores, when it is stopped, takes up
  where it was: its proposals follow from their scores.
  """

  def __init__(self, workdir, found):
    self._lines = records_lib.Lines(
      workdir and pathlib.Path(workdir) / 'settled.jsonl'
    )
    text = json.dumps([found.space.to_dict(), int(found.state.train.step)])
    self._start = hashlib.sha256(text.encode())
    self._known: dict[str, dict[str, float]] = {
      line['choice']: line['valid'] for line in self._lines.values
    }

  def get(self, choices, score):
    """The metrics of choices; `score` takes them where they are new."""
    digest = self._start.copy()
    for name, leaf in checkpoints_lib.named_leaves(choices, '/'):
      leaf = np.asarray(leaf)
      digest.update(f'{name} {leaf.dtype} {leaf.shape}'.encode())
      digest.update(leaf.tobytes())
    key = digest.hexdigest()
    if key not in self._known:
      self._known[key] = score()
      self._lines.append({'choice': key, 'valid': self._known[key]})
    return self._known[key]
