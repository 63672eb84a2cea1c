"""The loop around a compiled program: data, evaluation, stopping, survival.

Everything that decides how a run goes on is in `Position`, which is saved with
the arrays; chunks of steps end at places that follow from the step number
alone. So a run that is killed and started again ends bit for bit like one that
was not.
"""

from collections.abc import Callable, Mapping
import dataclasses
import math
import signal
import threading
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_autorec import errors
from jax_autorec.train import parallel
from jax_autorec.train import records as records_lib
from jax_autorec.types import PyTree

_OBSERVATIONS = 50  # A run of any length shows about so many points.


@dataclasses.dataclass(frozen=True)
class Schedule:
  """How long to train, and when to look.

  Attributes:
    steps: number of steps at most.
    steps_per_epoch: an evaluation follows each epoch, and the last step.
    steps_per_dispatch: steps in one compiled call.
    save_seconds: seconds between checkpoints (evaluations save as well); more
      where saving takes longer than a tenth of that. 0 saves every dispatch.
  """

  steps: int
  steps_per_epoch: int
  steps_per_dispatch: int = 10
  save_seconds: float = 30.0

  def chunk(self, step: int) -> int:
    """Steps in the chunk that starts at `step`: by the step number alone."""
    in_epoch = step % self.steps_per_epoch
    to_boundary = self.steps_per_dispatch - in_epoch % self.steps_per_dispatch
    to_epoch_end = self.steps_per_epoch - in_epoch
    return min(to_boundary, to_epoch_end, self.steps - step)


@dataclasses.dataclass(frozen=True)
class Stopping:
  """When to lower the learning rate and when to stop (`BARS` protocol).

  An evaluation that does not raise the best by `min_delta` multiplies the
  learning rate by `plateau_factor` (it is never raised again, nor lowered
  below `min_scale` of the first) and counts; `patience` in a row stop the run.

  Attributes:
    patience: 0 never stops and never lowers.
    plateau_factor: in (0, 1]; 1 keeps the rate.
    min_delta: least improvement of the score.
    min_scale: least share of the first learning rate.
    metric: what is to be best: 'auc', or 'logloss', which is to be low.
  """

  patience: int = 2
  plateau_factor: float = 0.1
  min_delta: float = 1e-6
  min_scale: float = 1e-3
  metric: str = 'auc'


@dataclasses.dataclass
class Position:
  """Where a run stands: JSON values, saved with the arrays.

  Attributes:
    step: steps done.
    best: best score so far (minus the logloss, where that counts), or None.
    best_step: the step it was reached at.
    best_metrics: the metrics of that evaluation.
    waited: evaluations since.
    stopped: whether the stopping rule has ended the run.
    seconds: time spent, over all attempts.
    train_seconds: the part of it spent in steps that were compiled already.
    train_steps: the steps it was spent on.
  """

  step: int = 0
  best: float | None = None
  best_step: int = 0
  best_metrics: dict[str, float] = dataclasses.field(default_factory=dict)
  waited: int = 0
  stopped: bool = False
  seconds: float = 0.0
  train_seconds: float = 0.0
  train_steps: int = 0


class Interrupted(BaseException):
  """SIGTERM came; the state is saved and the same command continues."""


class SigtermFlag:
  """Turns SIGTERM into a flag while a run goes on (main thread only)."""

  def __enter__(self) -> 'SigtermFlag':
    self.is_set = False
    self._main = threading.current_thread() is threading.main_thread()
    if self._main:
      self._old = signal.signal(signal.SIGTERM, self._set)
    return self

  def _set(self, *unused):
    self.is_set = True

  def __exit__(self, *unused):
    if self._main:
      signal.signal(signal.SIGTERM, self._old)


def fit(
  program: parallel.Program,
  state: PyTree,
  *,
  stage: str,
  feed: Callable[[int, int], PyTree],
  batch_size: int,
  schedule: Schedule,
  stopping: Stopping | None,
  evaluate: Callable[[PyTree], dict[str, float]],
  checkpoints: Any,
  records: records_lib.Records,
  observe: Callable[[PyTree], dict[str, Any]] | None = None,
  about: Mapping[str, Any] | None = None,
  finish: Callable[[PyTree], tuple[dict[str, Any], bool]] | None = None,
) -> tuple[PyTree, Position]:
  """Runs a stage to its end, from its last checkpoint if there is one.

  Args:
    program: compiled steps; its state has `step` and `learning_rate_scale`,
      itself or in `.train`.
    state: a fresh state, on one device; not to be used afterwards.
    stage: name in records and messages.
    feed: (first step, count) -> batches stacked [count, B, ...].
    batch_size: rows per step, for the rates shown.
    schedule: lengths.
    stopping: rule for evaluations; None where none is better than another.
    evaluate: state -> metrics of the validation split; `stopping` says which
      is the score.
    checkpoints: `Checkpoints` or `InMemory`.
    records: where metrics go.
    observe: state -> further values to record, at each evaluation and some
      50 times in all.
    about: values to record before the first step.
    finish: state -> further values to record, and whether to end; at each
      evaluation.

  Returns:
    The final state (not the best), on one device; where the run ended.

  Raises:
    TrainingError: for a loss or gradient that is not finite; names step and
      batch.
    Interrupted: after SIGTERM, once everything is saved.
  """
  position = Position()
  restored = checkpoints.restore(state)
  if restored is not None:
    state, values = restored
    position = Position(**values)
  records.rewind(stage, -1 if restored is None else position.step)
  if restored is None and about:
    records.write(stage, 0, about)
  state = program.place(state)
  progress = records_lib.Progress(
    stage, schedule.steps, position.step, batch_size
  )
  saved_at = last_time = time.monotonic()
  save_cost, compiled, ahead = 0.0, set(), None
  with SigtermFlag() as sigterm:
    while position.step < schedule.steps and not position.stopped:
      first, count = position.step, schedule.chunk(position.step)
      batches = feed(first, count) if ahead is None else ahead
      state, metrics = program.run(state, batches)
      # The steps run asynchronously: the host prepares the next batches
      # meanwhile, and only then waits.
      following = first + count
      ahead = None
      if following < schedule.steps:
        ahead = feed(following, schedule.chunk(following))
      metrics = jax.device_get(metrics)
      _check_finite(metrics, stage, first, schedule.steps_per_epoch)
      position.step += count
      now = time.monotonic()
      if count in compiled:
        position.train_seconds += now - last_time
        position.train_steps += count
      compiled.add(count)
      position.seconds += now - last_time
      last_time = now
      loss = float(np.mean(metrics['loss']))
      progress.update(position.step, loss=loss)
      at_end = position.step == schedule.steps
      evaluated = at_end or position.step % schedule.steps_per_epoch == 0
      if evaluated:
        single = program.fetch(state)
        found = evaluate(single)
        if stopping is not None:
          _judge(position, found, stopping)
        if position.waited and stopping and stopping.patience:
          state = _lower_learning_rate(state, stopping)
        extra = observe(single) if observe else {}
        if finish:
          more, ends = finish(single)
          extra = extra | more
          position.stopped = position.stopped or ends
        records.write(
          stage,
          position.step,
          {
            'epoch': position.step / schedule.steps_per_epoch,
            'loss': loss,
            **{f'valid_{name}': value for name, value in found.items()},
            'examples_per_second': examples_per_second(position, batch_size),
            **extra,
          },
        )
      elif observe and _is_due(first, position.step, schedule.steps):
        records.write(stage, position.step, observe(program.fetch(state)))
      now = time.monotonic()
      position.seconds += now - last_time
      last_time = now
      interval = schedule.save_seconds
      due = now - saved_at >= (interval and max(interval, 10 * save_cost))
      if evaluated or due or sigterm.is_set:
        checkpoints.save(
          position.step,
          program.fetch(state),
          dataclasses.asdict(position),
          best=None if position.best is None else position.best_step,
        )
        saved_at = last_time = time.monotonic()
        save_cost = saved_at - now
      if sigterm.is_set:
        break
  progress.close()
  checkpoints.wait()
  if sigterm.is_set:
    raise Interrupted(
      f'{stage}: saved at step {position.step}. Run the same command to '
      'continue.'
    )
  return program.fetch(state), position


def examples_per_second(position: Position, batch_size: int) -> float | None:
  """Rows trained per second, compilation and evaluation left out."""
  if not position.train_seconds:
    return None
  return position.train_steps * batch_size / position.train_seconds


def _is_due(first: int, step: int, steps: int) -> bool:
  """Whether one of _OBSERVATIONS even parts of a run ends in a chunk."""
  return first * _OBSERVATIONS // steps < step * _OBSERVATIONS // steps


def _check_finite(metrics, stage, first, steps_per_epoch):
  # The gradient too: a bad one spoils the weights, which could be saved before
  # the next loss shows it.
  bad = [
    (int(places[0]), name, values[places[0]])
    for name, values in metrics.items()
    for places in [np.flatnonzero(~np.isfinite(values))]
    if len(places)
  ]
  if bad:
    # The loss first, of what fails in the same step.
    place, name, value = min(bad, key=lambda b: (b[0], b[1] != 'loss'))
    step = first + place
    raise errors.TrainingError(
      f'{stage}: {name} of step {step} (epoch {step // steps_per_epoch}, '
      f'batch {step % steps_per_epoch}) is {value}. Lower the learning rate, '
      'or look for extreme numeric values in that batch; the last checkpoint '
      'is intact.'
    )


def _judge(
  position: Position, found: dict[str, float], stopping: Stopping
) -> None:
  """Takes one evaluation into the position."""
  score = found['auc']
  if stopping.metric == 'logloss':
    score = -found['logloss']
  if math.isnan(found['auc']):
    raise errors.DataError(
      'The AUC of the validation split is undefined: its rows are all of one '
      'class. Use a larger split or another seed.'
    )
  if position.best is None or score > position.best + stopping.min_delta:
    position.best, position.best_step = score, position.step
    position.best_metrics = dict(found)
    position.waited = 0
    return
  position.waited += 1
  position.stopped = 0 < stopping.patience <= position.waited


def _lower_learning_rate(state, stopping):
  inner = getattr(state, 'train', state)
  scale = jnp.maximum(
    inner.learning_rate_scale * stopping.plateau_factor, stopping.min_scale
  ).astype(jnp.float32)
  # Keeps the sharding of the leaf it replaces.
  scale = jax.device_put(scale, inner.learning_rate_scale.sharding)
  inner = inner.replace(learning_rate_scale=scale)
  return state.replace(train=inner) if hasattr(state, 'train') else inner
