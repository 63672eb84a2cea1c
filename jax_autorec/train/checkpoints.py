"""Checkpoints of whole stages: everything that a step reads or writes."""

from collections.abc import Callable
import os
import pathlib
import shutil
from typing import Any

from absl import logging
import jax

from jax_autorec import errors
from jax_autorec.types import PyTree


def _abstract(tree: PyTree) -> PyTree:
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree
  )


class Checkpoints:
  """Orbax checkpoints of one stage, the latest and the best.

  Saves are atomic. A checkpoint that cannot be read is skipped, with a
  warning, for the one before it.
  """

  def __init__(self, directory: str | os.PathLike[str]):
    """Opens or makes a directory of checkpoints.

    Raises:
      CheckpointError: where the directory cannot be written.
    """
    import orbax.checkpoint as ocp  # Imported late: slow.
    from orbax.checkpoint import checkpoint_managers as policies

    self._ocp = ocp
    self._directory = pathlib.Path(directory).resolve()
    try:
      self._directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
      raise errors.CheckpointError(
        f'Cannot make {self._directory}: {error.strerror}. Give a --workdir '
        'that can be written.'
      ) from error
    self._manager = ocp.CheckpointManager(
      self._directory,
      options=ocp.CheckpointManagerOptions(
        preservation_policy=policies.AnyPreservationPolicy(
          [
            policies.LatestN(2),
            policies.BestN(
              get_metric_fn=lambda metrics: metrics['score'],
              reverse=False,
              n=1,
              keep_checkpoints_without_metrics=False,
            ),
          ]
        ),
        enable_async_checkpointing=True,
      ),
    )

  def save(
    self,
    step: int,
    state: PyTree,
    progress: dict[str, Any],
    score: float | None = None,
  ) -> None:
    """Saves in the background; returns once the state may be donated.

    Args:
      step: steps done.
      state: arrays.
      progress: JSON values that go with them.
      score: quality of the weights, higher is better; None for a checkpoint
        between evaluations.

    Raises:
      CheckpointError: where writing fails, a disk is full, say.
    """
    try:
      if step in self._manager.all_steps():
        # A resumed run that passes the same step again replaces what an
        # interrupted one left there.
        self._manager.delete(step)
      self._manager.save(
        step,
        args=self._ocp.args.Composite(
          state=self._ocp.args.StandardSave(state),
          progress=self._ocp.args.JsonSave(progress),
        ),
        metrics=None if score is None else {'score': float(score)},
        force=True,
      )
    except (OSError, ValueError) as error:
      raise self._failed('write', step, error) from error

  def restore(self, like: PyTree) -> tuple[PyTree, dict[str, Any]] | None:
    """The newest readable state and progress, or None where there is none.

    Args:
      like: a state of the same structure, shapes, dtypes and shardings.

    Raises:
      CheckpointError: where there are checkpoints and none can be read.
    """
    target = _abstract(like)
    steps = sorted(self._manager.all_steps(), reverse=True)
    failure = None
    for step in steps:
      try:
        return self._read(step, target)
      # Damage shows as whatever the decoder of the moment raises.
      except Exception as error:
        logging.warning('Checkpoint %d is damaged, skipped: %s', step, error)
        failure = self._failed('read', step, error)
    if failure is not None:
      raise failure
    return None

  def restore_step(
    self, step: int, like: PyTree
  ) -> tuple[PyTree, dict[str, Any]]:
    """The state and progress of one step."""
    self.wait()
    try:
      return self._read(step, _abstract(like))
    except Exception as error:
      raise self._failed('read', step, error) from error

  def _read(self, step, target):
    restored = self._manager.restore(
      step,
      args=self._ocp.args.Composite(
        state=self._ocp.args.StandardRestore(target),
        progress=self._ocp.args.JsonRestore(),
      ),
    )
    return restored['state'], restored['progress']

  def _failed(self, verb, step, error):
    return errors.CheckpointError(
      f'Cannot {verb} checkpoint {step} in {self._directory}: {error}. Check '
      'free space and permissions, or give another --workdir.'
    )

  def wait(self) -> None:
    """Blocks until all saves are on disk."""
    try:
      self._manager.wait_until_finished()
    except (OSError, ValueError) as error:
      raise self._failed('write', 'under way', error) from error

  def close(self) -> None:
    self.wait()
    self._manager.close()

  def bytes_on_disk(self) -> int:
    """Size of the newest checkpoint's files."""
    self.wait()
    step = self._manager.latest_step()
    if step is None:
      return 0
    root = self._directory / str(step)
    return sum(p.stat().st_size for p in root.rglob('*') if p.is_file())

  def clear(self) -> None:
    """Deletes all of this stage's checkpoints."""
    self.close()
    shutil.rmtree(self._directory, ignore_errors=True)


class InMemory:
  """The same interface for a run without a workdir: keeps the best alone."""

  def __init__(self):
    self._best: tuple[float, int, PyTree, dict[str, Any]] | None = None
    self._latest: tuple[int, PyTree, dict[str, Any]] | None = None

  def save(self, step, state, progress, score=None):
    if score is None:
      return
    if self._best is None or score > self._best[0]:
      copy: Callable[[Any], Any] = lambda x: x.copy()
      self._best = (score, step, jax.tree.map(copy, state), dict(progress))

  def restore(self, like):
    del like  # Nothing outlives the process.
    return None

  def restore_step(self, step, like):
    del like
    if self._best is None or self._best[1] != step:
      raise errors.CheckpointError(f'Step {step} was not kept in memory.')
    return self._best[2], self._best[3]

  def wait(self):
    pass

  def close(self):
    pass

  def bytes_on_disk(self):
    return 0
