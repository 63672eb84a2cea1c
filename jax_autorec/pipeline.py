"""The road: run_search -> derive -> retrain -> evaluate.

A stream has a road of its own: run_stream -> prequential, settle.

Every function works in memory; given a workdir it also records metrics there
and continues from its checkpoints when it is called again.
"""

from collections.abc import Mapping
import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
import time
from typing import Any
import zipfile

from absl import logging
import jax
import numpy as np

from jax_autorec import architecture as arch_lib
from jax_autorec import errors, files
from jax_autorec import metrics as metrics_lib
from jax_autorec.data import batches as batches_lib
from jax_autorec.data import dataset as dataset_lib
from jax_autorec.nn import embeddings, quantizers
from jax_autorec.nn import model as model_lib
from jax_autorec.search import base, supernet
from jax_autorec.search import online as online_lib
from jax_autorec.train import checkpoints as checkpoints_lib
from jax_autorec.train import loop, parallel, steps
from jax_autorec.train import records as records_lib
from jax_autorec.train import settings as settings_lib
from jax_autorec.train import state as state_lib
from jax_autorec.types import PyTree

Workdir = str | os.PathLike[str] | None


@dataclasses.dataclass(frozen=True)
class Model:
  """A trained model: its architecture and arrays.

  Attributes:
    architecture: closed.
    params: parameters but for the tables.
    tables: table name -> [R, D].
    batch_stats: running statistics.
    valid: metrics on the validation split of the chosen weights.
    info: 'seconds', 'steps', 'best_step', 'examples_per_second' and 'size', of
      the training (see `size`); of a packed model also 'code_entropy'.
  """

  architecture: arch_lib.Architecture
  params: PyTree
  tables: Mapping[str, Any]
  batch_stats: PyTree
  valid: Mapping[str, float]
  info: Mapping[str, Any]

  @property
  def total_params(self) -> int:
    """Trained scalars: tables and everything else.

    Codes, patterns and permutations are not trained: a packed or sparse model
    can have fewer than its architecture's `ep_total`, which counts them in
    float32 entries (`index_bytes` / 4).
    """
    return sum(x.size for x in jax.tree.leaves((self.params, self.tables)))

  def size(self, file: int = 0) -> dict[str, Any]:
    """What the model holds by itself, see `size`.

    Args:
      file: bytes of the files that it is saved in.
    """
    return size(
      self.architecture, self.params, self.tables, self.batch_stats, file=file
    )


@dataclasses.dataclass(frozen=True)
class Found:
  """A finished search.

  Attributes:
    space: the open architecture.
    selectors: slot -> selector.
    state: final state of the search.
    info: 'seconds', 'steps', 'examples_per_second', 'size' (see `size`).
    start: seed and standard deviation that fresh tables followed from.
  """

  space: arch_lib.Architecture
  selectors: Mapping[str, base.Selector]
  state: supernet.SearchState
  info: Mapping[str, Any]
  start: tuple[int, float] | None = None


@dataclasses.dataclass(frozen=True)
class Streamed:
  """A method at the end of a stream, or wherever it was to stop.

  Attributes:
    space: the architecture, open or closed.
    online: the method.
    state: final state.
    logits: float32 [R], the prediction of every row so far, before it was
      learnt from.
    info: 'seconds', 'steps', 'examples_per_second', 'size' (see `size`).
  """

  space: arch_lib.Architecture
  online: online_lib.Online
  state: online_lib.StreamState
  logits: np.ndarray
  info: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Scored:
  """A finished search of a population.

  Attributes:
    architecture: the one that was settled on.
    trials: of every proposal what `Population.about` says of it, its 'valid'
      metrics, 'embedding_params', 'ep_total', 'seconds', 'steps' and
      'architecture'.
    info: 'seconds' and 'steps' of all together.
  """

  architecture: arch_lib.Architecture
  trials: tuple[dict[str, Any], ...]
  info: Mapping[str, Any]


def save(model: Model, directory: str | os.PathLike[str]) -> pathlib.Path:
  """Writes a model into a directory: its architecture and `weights.npz`.

  Only what the model needs: no state of an optimiser, nothing of a search, and
  not what training started from.

  Args:
    model: of `retrain`.
    directory: made where it is missing.

  Returns:
    The path of the weights.
  """
  architecture = model.architecture
  dataclasses.replace(architecture, arrays=architecture.constants).save(
    directory
  )
  path = pathlib.Path(directory) / 'weights.npz'
  with files.replacing(path) as file:
    np.savez(
      file,
      **{
        f'{part}/{name}': np.asarray(leaf)
        for part in _PARTS
        for name, leaf in _named(getattr(model, part))
      },
    )
  return path


def load(directory: str | os.PathLike[str]) -> Model:
  """Reads a model that `save` wrote; it knows its weights alone.

  Raises:
    ConfigError: where there is none, or its architecture does not fit.
    CheckpointError: for weights that cannot be read.
  """
  architecture = arch_lib.Architecture.load(directory)
  path = pathlib.Path(directory) / 'weights.npz'
  parts: dict[str, dict[str, Any]] = {part: {} for part in _PARTS}
  try:
    with np.load(path) as file:
      for name in file.files:
        part, *parents, last = name.split('/')
        node = parts[part]
        for parent in parents:
          node = node.setdefault(parent, {})
        node[last] = jax.numpy.asarray(file[name])
  except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
    raise errors.CheckpointError(
      f'{path} cannot be read as the weights of a model: {error}.'
    ) from error
  return Model(architecture, **parts, valid={}, info={})


_PARTS = ('params', 'tables', 'batch_stats')


def _named(tree: PyTree) -> list[tuple[str, Any]]:
  """Leaves of nested dictionaries with their paths, 'a/b/c'."""
  leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
  return [
    (jax.tree_util.keystr(path, simple=True, separator='/'), leaf)
    for path, leaf in leaves
  ]


def predict(
  architecture: arch_lib.Architecture,
  variables: tuple[PyTree, PyTree, PyTree],
  split: dataset_lib.Split,
  batch_size: int,
  *,
  collections: PyTree = None,
  compiled=None,
) -> np.ndarray:
  """Logits float32 [R] of all rows of a split, in their order.

  Args:
    architecture: of the model.
    variables: params, tables, batch_stats.
    split: the rows.
    batch_size: rows at a time.
    collections: further collections ('arch', of a supernet).
    compiled: a jitted `steps.make_predict` to use again.
  """
  if compiled is None:
    compiled = jax.jit(steps.make_predict(model_lib.build(architecture)))
  if architecture.constants:
    arrays = model_lib.constants(architecture)
    collections = {
      **(collections or {}),
      **model_lib.constants_collection(arrays),
    }
  return _logits(
    lambda batch: compiled(*variables, batch, collections), split, batch_size
  )


def _in_order(split, batch_size):
  """All rows of a split, in their order and batches."""
  source = batches_lib.Batches(split, batch_size, shuffle=False)
  return (source.batch(0, step) for step in range(source.steps_per_epoch))


def _logits(apply, split, batch_size):
  """Logits float32 [R] of all rows of a split, in their order."""
  logits = [apply(batch) for batch in _in_order(split, batch_size)]
  return np.concatenate(jax.device_get(logits))[: split.num_rows]


def evaluate(
  model: Model, split: dataset_lib.Split, batch_size: int = 4096
) -> dict[str, float]:
  """Exact metrics of a model on a split.

  Call it on the test split once, for the final model: choices are made on the
  validation split.
  """
  return measure(split, predictions(model, split, batch_size))


def predictions(
  model: Model, split: dataset_lib.Split, batch_size: int = 4096
) -> np.ndarray:
  """Logits float32 [R] of a model, for `measure`; read the test split once."""
  variables = (model.params, model.tables, model.batch_stats)
  return predict(model.architecture, variables, split, batch_size)


def measure(split: dataset_lib.Split, logits: np.ndarray) -> dict[str, float]:
  """Exact metrics of logits [R] on the rows of a split."""
  return metrics_lib.evaluate_logits(
    np.asarray(split.labels), logits, split.weights, split.groups
  )


# What may change when a run continues: its length, and how it is run.
_FREE_SETTINGS = ('epochs', 'parallel', 'save_seconds', 'steps_per_dispatch')


def _checkpoints(workdir, stage, architecture, data, settings, seed, **more):
  """Where a stage is saved, and what a saved one must share with it."""
  if workdir is None:
    return checkpoints_lib.InMemory()
  identity = {
    'architecture': architecture.to_dict(),
    'data': [data.fingerprint, data.train.num_rows, data.valid.num_rows],
    'seed': seed,
    **settings.to_dict(),
    **more,
  }
  for name in _FREE_SETTINGS:
    del identity[name]
  return checkpoints_lib.Checkpoints(_stage_directory(workdir, stage), identity)


def _stage_directory(workdir, stage):
  safe = ''.join(c if c.isalnum() else '_' for c in stage)
  return pathlib.Path(workdir) / 'checkpoints' / safe


def _schedule(settings, source, num_steps=None):
  steps_per_epoch = source.steps_per_epoch
  if num_steps is None:
    num_steps = settings.epochs * steps_per_epoch
  return loop.Schedule(
    steps=num_steps,
    steps_per_epoch=steps_per_epoch,
    steps_per_dispatch=settings.steps_per_dispatch,
    save_seconds=settings.save_seconds,
  )


def _info(position, batch_size):
  return {
    'seconds': position.seconds,
    'steps': position.step,
    'best_step': position.best_step,
    'examples_per_second': loop.examples_per_second(position, batch_size),
  }


def array_bytes(tree: PyTree) -> int:
  """Bytes of all arrays of a tree."""
  return sum(
    x.size
    * (
      8
      if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
      else x.dtype.itemsize
    )
    for x in jax.tree.leaves(tree)
  )


def size(
  architecture: arch_lib.Architecture,
  params: PyTree,
  tables: Mapping[str, Any],
  batch_stats: PyTree,
  *,
  optimizer: PyTree = (),
  method: PyTree = (),
  file: int = 0,
) -> dict[str, Any]:
  """What is held at one moment: in a search, a training, or to serve.

  Args:
    architecture: open or closed.
    params: parameters but for the tables.
    tables: table name -> [R, D].
    batch_stats: running statistics.
    optimizer: state of the weights' optimisers.
    method: what a search, or an online method, trains and remembers.
    file: bytes of the checkpoint, or of the saved model.

  Returns:
    'vector_params', 'first_order_params', 'embedding_params',
    'projection_params', 'codebook_params', 'vectors_total' and 'ep_total' of
    the architecture, maps of an open choice included; 'bytes' of 'tables',
    'dense' (all other weights), 'index', 'optimizer', 'method' and 'file'.
  """
  # An open choice has maps of its own, which no plan tells.
  maps = 0
  if architecture.choice is not None:
    own = params.get(model_lib.FIELDS, {})
    maps = sum(x.size for x in jax.tree.leaves(own))
  return {
    'vector_params': architecture.vector_params,
    'first_order_params': architecture.first_order_params,
    'embedding_params': architecture.embedding_params,
    'projection_params': architecture.projection_params + maps,
    'codebook_params': architecture.codebook_params,
    'vectors_total': architecture.vectors_total + maps,
    'ep_total': architecture.ep_total + maps,
    'bytes': {
      'tables': array_bytes(tables),
      'dense': array_bytes((params, batch_stats)),
      'index': architecture.index_bytes,
      'optimizer': array_bytes(optimizer),
      'method': array_bytes(method),
      'file': file,
    },
  }


def _train_size(architecture, train, checkpoints, method=()):
  """Of a training state, and of what else its checkpoints hold."""
  return size(
    architecture,
    train.params,
    train.tables,
    train.batch_stats,
    optimizer=(train.dense_optimizer, train.table_optimizer),
    method=method,
    file=checkpoints.bytes_on_disk(),
  )


def retrain(
  architecture: arch_lib.Architecture,
  data: dataset_lib.Dataset,
  settings: settings_lib.Settings | None = None,
  *,
  seed: int = 0,
  workdir: Workdir = None,
  stage: str = 'retrain',
) -> Model:
  """Trains a closed architecture from scratch; keeps the best weights.

  Weights are fitted on the train split and chosen on the validation split.

  Args:
    architecture: what to train.
    data: encoded splits.
    settings: how; the defaults if None.
    seed: of initialisation, dropout and the order of rows.
    workdir: where checkpoints and records go; None keeps all in memory.
    stage: names them.

  Returns:
    The model with the weights of its best evaluation.
  """
  if architecture.is_open:
    raise errors.ConfigError(
      'The architecture has open choices: search and derive it first.'
    )
  settings = settings or settings_lib.Settings()
  model = model_lib.build(
    architecture, axis_name=parallel.axis_name(settings.parallel)
  )
  optimizer = settings_lib.make_optimizer(settings, architecture)
  state, _ = state_lib.init(
    model,
    optimizer,
    state_lib.example_batch(data.schema),
    jax.random.key(seed),
    settings.table_std,
  )
  program = parallel.compile_steps(
    steps.make_train_step(model, optimizer), settings.parallel
  )
  source = batches_lib.Batches(data.train, settings.batch_size, seed=seed)
  compiled = jax.jit(steps.make_predict(model))

  def evaluate_valid(state):
    variables = (state.params, state.tables, state.batch_stats)
    logits = predict(
      architecture,
      variables,
      data.valid,
      settings.batch_size,
      compiled=compiled,
    )
    return measure(data.valid, logits)

  def observe(state):
    stats = state.batch_stats[model_lib.EMBEDDINGS]
    return {'code_entropy': embeddings.usage_entropy(architecture, stats)}

  checkpoints = _checkpoints(workdir, stage, architecture, data, settings, seed)
  records = records_lib.Records(workdir)
  try:
    state, position = loop.fit(
      program,
      state,
      stage=stage,
      feed=source.chunk,
      batch_size=settings.batch_size,
      schedule=_schedule(settings, source),
      stopping=settings.stopping,
      evaluate=evaluate_valid,
      checkpoints=checkpoints,
      records=records,
      observe=observe if architecture.codebooks else None,
    )
    if position.best_step != position.step:
      state, _ = checkpoints.restore_step(position.best_step, state)
    info = _info(position, settings.batch_size)
    info['size'] = _train_size(architecture, state, checkpoints)
  finally:
    records.close()
    checkpoints.close()
  return Model(
    architecture,
    state.params,
    state.tables,
    state.batch_stats,
    position.best_metrics,
    info,
  )


def pack(model: Model) -> Model:
  """The model with the codes of quantised fields in place of their queries.

  The whole vocabulary is encoded, block by block, as an evaluation chooses
  (running moments), rather than the ids that were seen as a batch chose.
  Evaluations of the two models are equal.

  Args:
    model: of `retrain`; one without queries comes back as it is.

  Returns:
    The packed model. In its info 'code_entropy' says per field how evenly the
    vocabulary uses the centroids; 'size' is that of the training still.
  """
  architecture = model.architecture
  queries = [table for table in architecture.tables if table.codebooks]
  if not queries:
    return model
  arrays, evenness = dict(architecture.arrays), {}
  params = dict(model.params[model_lib.EMBEDDINGS])
  stats = dict(model.batch_stats[model_lib.EMBEDDINGS])
  tables = dict(model.tables)
  for table in queries:
    stack = table.codebooks
    module = quantizers.Codebooks(architecture.codebooks[stack])
    variables = {'params': params[stack], 'batch_stats': stats.pop(stack)}
    rows, start = tables.pop(table.name), 0
    for place, plan in enumerate(module.plans):
      own = rows[start : start + plan.vocab_size]
      start += plan.vocab_size
      arrays[f'{plan.name}.codes'], evenness[plan.name] = (
        quantizers.encode_field(module, variables, own, place)
      )
    params[stack] = {'values': params[stack]['values']}
  arrays = {
    name: array
    for name, array in arrays.items()
    if name.removeprefix(arch_lib.INITIAL) in tables
    or not name.startswith(arch_lib.INITIAL)
  }
  architecture = dataclasses.replace(architecture.packed, arrays=arrays)
  return dataclasses.replace(
    model,
    architecture=architecture,
    params={**model.params, model_lib.EMBEDDINGS: params},
    tables=tables,
    batch_stats=_without_empty(
      {**model.batch_stats, model_lib.EMBEDDINGS: stats}
    ),
    info={**model.info, 'code_entropy': evenness},
  )


def _without_empty(tree):
  return {name: node for name, node in tree.items() if node}


def run_search(
  space: arch_lib.Architecture,
  selectors: Mapping[str, base.Selector],
  data: dataset_lib.Dataset,
  settings: settings_lib.Settings | None = None,
  *,
  num_steps: int | None = None,
  seed: int = 0,
  workdir: Workdir = None,
) -> Found:
  """Trains a supernet's weights and choices together.

  Args:
    space: an architecture with open choices.
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

  Returns:
    The search's final state, for `derive`.
  """
  settings = settings or settings_lib.Settings()
  if num_steps is not None and num_steps < 1:
    raise errors.ConfigError(
      f'A search of {num_steps} steps; expected at least 1.'
    )
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
    logits = _logits(
      lambda batch: compiled(state, batch), data.valid, settings.batch_size
    )
    return measure(data.valid, logits)

  checkpoints = _checkpoints(workdir, 'search', space, data, settings, seed)
  records = records_lib.Records(workdir)
  names = {
    plan.name: plan.terms
    for plan in space.interactions
    if getattr(plan, 'gates', None) == 'open'
  }
  about = {'kind': 'gate_names', 'names': names}
  if space.choice is not None:
    about['field_names'] = [plan.name for plan in space.categorical]
    about['choice'] = dataclasses.asdict(space.choice)
  try:
    state, position = loop.fit(
      program,
      state,
      stage='search',
      feed=feed,
      batch_size=settings.batch_size,
      schedule=_schedule(settings, train, num_steps),
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
    info = _info(position, settings.batch_size)
    own = state.arch, state.memory, state.arch_optimizer
    info['size'] = _train_size(space, state.train, checkpoints, own)
  finally:
    records.close()
    checkpoints.close()
  start = seed, settings.table_std
  return Found(space, dict(selectors), state, info, start)


_STREAM_RECORDS = 20  # Evaluations over a stream.


def run_stream(
  space: arch_lib.Architecture,
  online: online_lib.Online,
  stream: dataset_lib.Dataset,
  settings: settings_lib.Settings | None = None,
  *,
  loss: str = 'square',
  num_steps: int | None = None,
  seed: int = 0,
  workdir: Workdir = None,
  stage: str = 'stream',
) -> Streamed:
  """Runs a method once over a stream: predict, score, learn, batch by batch.

  Args:
    space: an architecture of the stream's entities, open as the method needs.
    online: the method.
    stream: of `data.stream`.
    settings: how weights are trained; epochs and patience do not apply.
    loss: what is minimised: 'square' of sigmoid less label, or 'log'.
    num_steps: batches after which to stop, for `settle` at any moment; None
      for all. With a workdir a later call of more steps goes on from there.
    seed: of initialisation and draws.
    workdir: where checkpoints and records go; None keeps all in memory.
    stage: names them.

  Returns:
    The state then and all predictions, for `prequential` and `settle`.

  Raises:
    ConfigError: for more steps than the stream has batches, or none.
    CheckpointError: where the run of the workdir is past `num_steps` already.
  """
  settings = settings or settings_lib.Settings()
  rows, size = stream.train, settings.batch_size
  program, tools, state, source = _stream_program(
    space, online, stream, settings, loss, seed
  )

  def feed(first, count):
    batches = source.chunk(first, count)
    # The batch before the first step is one of padding.
    before = source.chunk(max(first - 1, 0), count)
    if first == 0:
      before = jax.tree.map(lambda x: np.concatenate([x[:1], x[:-1]]), batches)
      before.mask[0] = False
    return batches, before

  def evaluate(state):
    done = min(int(state.train.step) * size, rows.num_rows)
    return prequential(rows, jax.device_get(state.logits), loss, 0, done)

  steps_in_all = source.steps_per_epoch
  num_steps = steps_in_all if num_steps is None else num_steps
  if not 1 <= num_steps <= steps_in_all:
    raise errors.ConfigError(
      f'A stream is to stop after {num_steps} steps; expected 1 to '
      f'{steps_in_all}, the batches of {size} that it has.'
    )
  schedule = dataclasses.replace(
    _schedule(settings, source, num_steps),
    steps_per_epoch=-(-steps_in_all // _STREAM_RECORDS),
  )
  checkpoints = _checkpoints(
    workdir,
    stage,
    space,
    stream,
    settings,
    seed,
    loss=loss,
    online=dict(online.about),
  )
  records = records_lib.Records(workdir)
  try:
    state, position = loop.fit(
      program,
      state,
      stage=stage,
      feed=feed,
      batch_size=size,
      schedule=schedule,
      stopping=None,
      evaluate=evaluate,
      checkpoints=checkpoints,
      records=records,
      observe=lambda state: online.record(jax.device_get(state.own)),
    )
    if position.step > num_steps:
      raise errors.CheckpointError(
        f'{workdir} holds {position.step} steps of {stage!r}, more than the '
        f'{num_steps} to stop after. Give another workdir.'
      )
    info = _info(position, size)
    info['size'] = _train_size(space, state.train, checkpoints, state.own)
  finally:
    records.close()
    checkpoints.close()
  done = min(num_steps * size, rows.num_rows)
  logits = np.asarray(jax.device_get(state.logits))[:done]
  return Streamed(space, online, state, logits, info)


def _stream_program(space, online, stream, settings, loss, seed):
  """Compiled steps, tools, a fresh state and the batches of a stream."""
  model = model_lib.build(
    space, axis_name=parallel.axis_name(settings.parallel)
  )
  optimizer = settings_lib.make_optimizer(settings, space)
  tools = online_lib.tools(model, optimizer, loss)
  source = batches_lib.Batches(stream.train, settings.batch_size, shuffle=False)
  state = online_lib.init(
    tools,
    online,
    state_lib.example_batch(stream.schema),
    source.steps_per_epoch * settings.batch_size,
    jax.random.key(seed),
    settings.table_std,
  )
  program = parallel.compile_steps(
    online_lib.make_step(tools, online, loss), settings.parallel
  )
  return program, tools, state, source


def prequential(
  rows: dataset_lib.Split,
  logits: np.ndarray,
  loss: str,
  first: int = 0,
  last: int | None = None,
) -> dict[str, float]:
  """Exact metrics of the predictions of a stream's rows from first to last.

  Args:
    rows: the stream.
    logits: of `Streamed`, or longer.
    loss: 'square' or 'log', as in `run_stream`.
    first: the first row that counts.
    last: the row after the last; None for the end of what was predicted.

  Returns:
    'loss', 'accuracy' (at 0.5) and those of `metrics.evaluate_logits`.
  """
  last = min(rows.num_rows, len(logits)) if last is None else last
  part = slice(first, last)
  labels = np.asarray(rows.labels[part], np.float64)
  logits = np.asarray(logits[part], np.float64)
  weights = None if rows.weights is None else rows.weights[part]
  found = metrics_lib.evaluate_logits(labels, logits, weights)
  value = found['logloss']
  if loss == 'square':
    squares = (np.exp(-np.logaddexp(0, -logits)) - labels) ** 2
    value = float(np.average(squares, weights=weights))
  right = (logits > 0) == (labels == 1)
  accuracy = float(np.average(right, weights=weights))
  return {'loss': value, 'accuracy': accuracy, **found}


def settle(
  streamed: Streamed, settings: settings_lib.Settings | None = None
) -> Model:
  """The closed model of what stands at the end of a run over a stream.

  It predicts what the state predicts, from tables of the sizes that stand.

  Args:
    streamed: of `run_stream`.
    settings: those of the run.

  Raises:
    ConfigError: for a method that has no closed form.
  """
  if streamed.online.derive is None:
    raise errors.ConfigError(
      'This method mixes all widths of every row to the end of the stream: '
      'there is no smaller model of it.'
    )
  space = streamed.space
  settings = settings or settings_lib.Settings()
  tools = online_lib.tools(
    model_lib.build(space), settings_lib.make_optimizer(settings, space), 'log'
  )
  found = streamed.online.derive(
    streamed.state.own, tools, streamed.state.train
  )
  return Model(
    found.architecture,
    found.params,
    found.tables,
    found.batch_stats,
    valid={},
    info={},
  )


def run_population(
  population: base.Population,
  data: dataset_lib.Dataset,
  settings: settings_lib.Settings | None = None,
  *,
  seed: int = 0,
  workdir: Workdir = None,
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
  scored, start = [], time.monotonic()
  while (proposal := population.ask(scored)) is not None:
    number = len(scored)
    if number == len(lines.values):
      model = retrain(
        proposal,
        data,
        settings,
        seed=seed,
        workdir=workdir,
        stage=f'trial {number + 1}',
      )
      line = {
        'trial': number + 1,
        **population.about(number),
        'valid': dict(model.valid),
        'embedding_params': proposal.embedding_params,
        'ep_total': proposal.ep_total,
        'seconds': model.info['seconds'],
        'steps': model.info['steps'],
        'architecture': proposal.to_dict(),
      }
      lines.append(line)
      if path:
        shutil.rmtree(_stage_directory(workdir, f'trial {number + 1}'))
      logging.info(
        'Trial %d: valid AUC %.5f, %d embedding parameters; %.0f s in all',
        number + 1,
        line['valid']['auc'],
        proposal.embedding_params,
        time.monotonic() - start,
      )
    elif lines.values[number]['architecture'] != json.loads(
      json.dumps(proposal.to_dict())
    ):
      raise errors.CheckpointError(
        f'{path} holds the trials of another search. Give another --workdir, '
        'or delete that one.'
      )
    line = lines.values[number]
    scored.append(base.Scored(proposal, line['valid'], line['seconds']))
  return Scored(
    population.derive(scored),
    tuple(lines.values),
    {
      'seconds': sum(line['seconds'] for line in lines.values),
      'steps': sum(line['steps'] for line in lines.values),
    },
  )


def derive(
  found: Found,
  data: dataset_lib.Dataset | None = None,
  batch_size: int = 4096,
  *,
  workdir: Workdir = None,
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
      logits = _logits(
        lambda batch: compiled(found.state, batch, choices),
        data.valid,
        batch_size,
      )
      return measure(data.valid, logits)

    return scores.get(choices, score)

  slope = jax.jit(supernet.make_gradient(model, found.selectors))

  def gradients(choices):
    for batch in _in_order(data.valid, batch_size):
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
    for name, leaf in _named(choices):
      leaf = np.asarray(leaf)
      digest.update(f'{name} {leaf.dtype} {leaf.shape}'.encode())
      digest.update(leaf.tobytes())
    key = digest.hexdigest()
    if key not in self._known:
      self._known[key] = score()
      self._lines.append({'choice': key, 'valid': self._known[key]})
    return self._known[key]
