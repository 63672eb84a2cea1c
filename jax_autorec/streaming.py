"""The road of a stream: run_stream -> prequential, settle.

Every row is predicted before it is learnt from, and what stands at any moment
can be settled as a closed model.
"""

from collections.abc import Mapping
import dataclasses
from typing import Any

import jax
import numpy as np

from jax_autorec import architecture as arch_lib
from jax_autorec import errors, metrics
from jax_autorec.data import batches as batches_lib
from jax_autorec.data import dataset as dataset_lib
from jax_autorec.nn import model as model_lib
from jax_autorec.search import online as online_lib
from jax_autorec.train import loop, parallel, stages
from jax_autorec.train import models as models_lib
from jax_autorec.train import records as records_lib
from jax_autorec.train import settings as settings_lib
from jax_autorec.train import state as state_lib

_NUM_EVALUATIONS = 20  # Over a stream.


@dataclasses.dataclass(frozen=True)
class Streamed:
  """A method at the end of a stream, or wherever it was to stop.

  Attributes:
    space: the architecture, open or closed.
    online: the method.
    state: final state.
    logits: float32 [R], the prediction of every row so far, before it was
      learnt from.
    info: 'seconds', 'steps', 'examples_per_second', 'size' (see
      `models.size`).
  """

  space: arch_lib.Architecture
  online: online_lib.Online
  state: online_lib.StreamState
  logits: np.ndarray
  info: Mapping[str, Any]


def run_stream(
  space: arch_lib.Architecture,
  online: online_lib.Online,
  stream: dataset_lib.Dataset,
  settings: settings_lib.Settings | None = None,
  *,
  loss: str = 'square',
  num_steps: int | None = None,
  seed: int = 0,
  workdir: stages.Workdir = None,
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
    stages.schedule(settings, source, num_steps),
    steps_per_epoch=-(-steps_in_all // _NUM_EVALUATIONS),
  )
  checkpoints = stages.open_checkpoints(
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
    info = stages.info(
      position, size, space, state.train, checkpoints, state.own
    )
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
  found = metrics.evaluate_logits(labels, logits, weights)
  value = found['logloss']
  if loss == 'square':
    squares = (np.exp(-np.logaddexp(0, -logits)) - labels) ** 2
    value = float(np.average(squares, weights=weights))
  right = (logits > 0) == (labels == 1)
  accuracy = float(np.average(right, weights=weights))
  return {'loss': value, 'accuracy': accuracy, **found}


def settle(
  streamed: Streamed, settings: settings_lib.Settings | None = None
) -> models_lib.Model:
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
  return models_lib.Model(
    found.architecture,
    found.params,
    found.tables,
    found.batch_stats,
    valid={},
    info={},
  )
