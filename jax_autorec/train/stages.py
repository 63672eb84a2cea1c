"""A stage of a run: where it is saved, how long it is, what it came to."""

import os
import pathlib
from typing import Any

from jax_autorec import architecture as arch_lib
from jax_autorec.data import batches as batches_lib
from jax_autorec.data import dataset as dataset_lib
from jax_autorec.train import checkpoints as checkpoints_lib
from jax_autorec.train import loop
from jax_autorec.train import models as models_lib
from jax_autorec.train import settings as settings_lib
from jax_autorec.train import state as state_lib
from jax_autorec.types import PyTree

Workdir = str | os.PathLike[str] | None

# What may change when a run continues: its length, and how it is run.
_FREE_SETTINGS = ('epochs', 'parallel', 'save_seconds', 'steps_per_dispatch')


def open_checkpoints(
  workdir: Workdir,
  stage: str,
  architecture: arch_lib.Architecture,
  data: dataset_lib.Dataset,
  settings: settings_lib.Settings,
  seed: int,
  **more: Any,
) -> checkpoints_lib.Checkpoints | checkpoints_lib.InMemory:
  """Where a stage is saved; what is there must share all this with it.

  Args:
    workdir: of the run; None keeps all in memory.
    stage: name.
    architecture: what is trained, open or closed.
    data: its train and validation splits are compared; the test split is not.
    settings: all but those of its length and of how it is run are compared.
    seed: of the stage.
    **more: further JSON values to compare.
  """
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
  return checkpoints_lib.Checkpoints(directory(workdir, stage), identity)


def directory(workdir: str | os.PathLike[str], stage: str) -> pathlib.Path:
  """Where the checkpoints of a stage lie."""
  safe = ''.join(c if c.isalnum() else '_' for c in stage)
  return pathlib.Path(workdir) / 'checkpoints' / safe


def schedule(
  settings: settings_lib.Settings,
  source: batches_lib.Batches,
  num_steps: int | None = None,
) -> loop.Schedule:
  """How long a stage is: `num_steps`, or the epochs of its settings."""
  steps_per_epoch = source.steps_per_epoch
  if num_steps is None:
    num_steps = settings.epochs * steps_per_epoch
  return loop.Schedule(
    steps=num_steps,
    steps_per_epoch=steps_per_epoch,
    steps_per_dispatch=settings.steps_per_dispatch,
    save_seconds=settings.save_seconds,
  )


def info(
  position: loop.Position,
  batch_size: int,
  architecture: arch_lib.Architecture,
  train: state_lib.TrainState,
  checkpoints: checkpoints_lib.Checkpoints | checkpoints_lib.InMemory,
  method: PyTree = (),
) -> dict[str, Any]:
  """What is told of a finished stage.

  Args:
    position: where it ended.
    batch_size: rows per step.
    architecture: what was trained, open or closed.
    train: its training state.
    checkpoints: where it was saved.
    method: what a search, or an online method, trains and remembers.

  Returns:
    'seconds', 'steps', 'best_step', 'examples_per_second' and 'size', of the
    training state and of what else its checkpoints hold (`models.size`).
  """
  return {
    'seconds': position.seconds,
    'steps': position.step,
    'best_step': position.best_step,
    'examples_per_second': loop.examples_per_second(position, batch_size),
    'size': models_lib.size(
      architecture,
      train.params,
      train.tables,
      train.batch_stats,
      optimizer=(train.dense_optimizer, train.table_optimizer),
      method=method,
      file=checkpoints.bytes_on_disk(),
    ),
  }
