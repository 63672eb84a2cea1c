"""Checkpoints of whole stages: everything that a step reads or writes."""

from collections.abc import Iterator, Mapping
import functools
import json
import os
import pathlib
from typing import Any
import zlib

from absl import logging
import jax
from jax import lax
import numpy as np

from jax_autorec import errors
from jax_autorec.types import Array, PyTree

# Larger arrays are stored in blocks of rows, and a larger state is written
# before training goes on.
_BLOCK_BYTES = 2**28


def named_leaves(tree: PyTree, separator: str = '.') -> list[tuple[str, Array]]:
  """Leaves of a tree with their paths, 'a.b.c'."""
  leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
  name = functools.partial(
    jax.tree_util.keystr, simple=True, separator=separator
  )
  return [(name(path), leaf) for path, leaf in leaves]


def _plain(leaf: Array) -> Array:
  is_key = jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
  return jax.random.key_data(leaf) if is_key else leaf


def _checksum(leaf: Array) -> int:
  return zlib.crc32(np.ascontiguousarray(_plain(leaf)))


def _blocks(name: str, leaf: Array) -> Iterator[tuple[str, int, int]]:
  """Names, first rows and ends of the blocks that a large leaf is stored in.

  One array, Orbax would write in chunks whose number of rows divides that of
  the array: single rows, where that is a prime.
  """
  num_bytes, num_rows = _plain(leaf).nbytes, len(leaf) if leaf.ndim else 1
  if num_bytes <= _BLOCK_BYTES or num_rows == 1:
    return
  # Whole cache lines, so that a block is used where it lies.
  block = max(16, _BLOCK_BYTES // (num_bytes // num_rows) // 16 * 16)
  for start in range(0, num_rows, block):
    yield f'{name}.rows_{start}', start, min(start + block, num_rows)


def _stored(tree: PyTree) -> dict[str, Array]:
  """Name -> array as written; no array is copied on CPU."""
  stored = {}
  for name, leaf in named_leaves(tree):
    blocks = list(_blocks(name, leaf))
    if not blocks:
      stored[name] = leaf
      continue
    rows = np.asarray(leaf)
    (device,) = leaf.devices()
    for block_name, start, end in blocks:
      block = rows[start:end]
      # Orbax copies arrays of numpy's, but not JAX's.
      on_host = device.platform == 'cpu'
      stored[block_name] = (
        jax.device_put(block, device, may_alias=True) if on_host else block
      )
  return stored


@functools.partial(jax.jit, donate_argnums=0)
def _overwrite(rows: Array, block: Array, start: Array) -> Array:
  return lax.dynamic_update_slice_in_dim(rows, block, start, 0)


class _Best:
  """What is kept besides the latest; Orbax would forget it with the process."""

  def __init__(self):
    self.step: int | None = None

  def should_preserve(self, checkpoints, *, context):
    del context
    return [checkpoint.step == self.step for checkpoint in checkpoints]


class Checkpoints:
  """Orbax checkpoints of one stage, the latest two and the best.

  Saves are atomic. A checkpoint that cannot be read is skipped, with a
  warning, for the one before it. Neither saving nor restoring holds a second
  copy of a large table.
  """

  def __init__(
    self,
    directory: str | os.PathLike[str],
    identity: Mapping[str, Any] | None = None,
  ):
    """Opens or makes a directory of checkpoints.

    Args:
      directory: of this stage alone.
      identity: JSON values that what is trained follows from; checkpoints of
        another identity are refused.

    Raises:
      CheckpointError: where the directory cannot be written.
    """
    import orbax.checkpoint as ocp  # Imported late: slow.
    from orbax.checkpoint import checkpoint_managers as policies

    self._ocp = ocp
    self._directory = pathlib.Path(directory).resolve()
    self._identity = json.loads(json.dumps(identity or {}))
    try:
      self._directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
      raise errors.CheckpointError(
        f'Cannot make {self._directory}: {error.strerror}. Give a --workdir '
        'that can be written.'
      ) from error
    self._best = _Best()
    self._manager = ocp.CheckpointManager(
      self._directory,
      item_handlers={
        # Compressed, arrays would be held twice, for a tenth less on disk.
        'state': ocp.PyTreeCheckpointHandler(use_compression=False),
        'progress': ocp.JsonCheckpointHandler(),
      },
      options=ocp.CheckpointManagerOptions(
        preservation_policy=policies.AnyPreservationPolicy(
          [policies.LatestN(2), self._best]
        ),
        enable_async_checkpointing=True,
      ),
    )

  def save(
    self,
    step: int,
    state: PyTree,
    progress: dict[str, Any],
    best: int | None = None,
  ) -> None:
    """Saves; returns once the state may be donated.

    A small state is written in the background. A large one is written first:
    donated in the meantime, it would be copied.

    Args:
      step: steps done.
      state: arrays.
      progress: JSON values that go with them.
      best: step of the best weights so far, whose checkpoint is kept; this one
        or one before. None where there are none.

    Raises:
      CheckpointError: where writing fails, a disk is full, say; what was saved
        before is intact.
    """
    self._best.step = best
    stored = _stored(state)
    contents = {
      'identity': self._identity,
      'progress': progress,
      'checksums': {name: _checksum(x) for name, x in stored.items()},
    }
    try:
      for later in self._manager.all_steps():
        # This run came from an earlier checkpoint, so these are damaged.
        if later >= step:
          self._manager.delete(later)
      self._manager.save(
        step,
        args=self._ocp.args.Composite(
          state=self._ocp.args.PyTreeSave(stored),
          progress=self._ocp.args.JsonSave(contents),
        ),
        force=True,
      )
    except (OSError, ValueError) as error:
      raise self._failed('write', step, error) from error
    if sum(_plain(x).nbytes for x in jax.tree.leaves(state)) > _BLOCK_BYTES:
      self.wait()

  def restore(self, like: PyTree) -> tuple[PyTree, dict[str, Any]] | None:
    """The newest readable state and progress, or None where there is none.

    Args:
      like: a state of the same structure, shapes, dtypes and shardings. Where
        there is a checkpoint, its large arrays are overwritten in place.

    Raises:
      CheckpointError: where there are checkpoints and none can be read, or
        they are of another identity.
    """
    failure = None
    for step in sorted(self._manager.all_steps(), reverse=True):
      try:
        return self._read(step, like)
      except errors.CheckpointError:
        raise
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
    """The state and progress of one step; `like` as in `restore`."""
    self.wait()
    try:
      return self._read(step, like)
    except errors.CheckpointError:
      raise
    except Exception as error:
      raise self._failed('read', step, error) from error

  def _read(self, step, like):
    ocp = self._ocp
    found = self._manager.restore(
      step, args=ocp.args.Composite(progress=ocp.args.JsonRestore())
    )['progress']
    self._check_identity(found['identity'])
    treedef = jax.tree.structure(like)
    leaves = dict(named_leaves(like))
    small = {k: x for k, x in leaves.items() if not any(_blocks(k, x))}
    restored = self._read_arrays(step, small, found['checksums'])
    for name in leaves.keys() - small.keys():
      rows = leaves.pop(name)
      for block_name, start, end in list(_blocks(name, rows)):
        target = jax.ShapeDtypeStruct(
          (end - start, *rows.shape[1:]), rows.dtype, sharding=rows.sharding
        )
        block = self._read_arrays(
          step, {block_name: target}, found['checksums']
        )
        rows = _overwrite(rows, block[block_name], start)
      restored[name] = rows
    names = [name for name, _ in named_leaves(like)]
    state = jax.tree.unflatten(treedef, [restored[name] for name in names])
    return state, found['progress']

  def _read_arrays(self, step, like, checksums):
    """Some of the arrays of a checkpoint, by name."""
    if not like:
      return {}
    ocp = self._ocp
    target = {
      name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)
      for name, x in like.items()
    }
    arrays = self._manager.restore(
      step,
      args=ocp.args.Composite(
        state=ocp.args.PyTreeRestore(
          target,
          restore_args=ocp.checkpoint_utils.construct_restore_args(target),
          partial_restore=True,
        )
      ),
    )['state']
    for name, array in arrays.items():
      if _checksum(array) != checksums[name]:
        raise ValueError(f'{name} is not what was written')
    return arrays

  def _check_identity(self, found):
    keys = {*found, *self._identity}
    changed = [k for k in keys if found.get(k) != self._identity.get(k)]
    if changed:
      raise errors.CheckpointError(
        f'{self._directory} holds a training that differs in '
        f'{", ".join(sorted(changed))}. Give another --workdir, or delete it.'
      )

  def _failed(self, verb, step, error):
    cure = {
      'write': 'Check free space and permissions, or give another --workdir.',
      'read': 'Delete that directory to train this stage anew, or give '
      'another --workdir.',
    }
    return errors.CheckpointError(
      f'Cannot {verb} checkpoint {step} in {self._directory}: {error}. '
      f'{cure[verb]}'
    )

  def wait(self) -> None:
    """Blocks until all saves are on disk."""
    try:
      self._manager.wait_until_finished()
    except (OSError, ValueError) as error:
      raise self._failed('write', 'under way', error) from error

  def close(self) -> None:
    """Waits and ends; the directory can be opened again."""
    try:
      self.wait()
    finally:
      self._manager.close()

  def bytes_on_disk(self) -> int:
    """Size of the newest checkpoint's files."""
    self.wait()
    step = self._manager.latest_step()
    if step is None:
      return 0
    root = self._directory / str(step)
    return sum(p.stat().st_size for p in root.rglob('*') if p.is_file())


class InMemory:
  """The same interface for a run without a workdir: keeps the best alone."""

  def __init__(self):
    self._best: tuple[int, PyTree, dict[str, Any]] | None = None

  def save(self, step, state, progress, best=None):
    if step == best:
      # The next step takes the state's own buffers.
      copy = jax.tree.map(lambda x: x.copy(), state)
      self._best = (step, copy, dict(progress))

  def restore(self, like):
    del like  # Nothing outlives the process.
    return None

  def restore_step(self, step, like):
    del like
    if self._best is None or self._best[0] != step:
      raise errors.CheckpointError(f'Step {step} was not kept in memory.')
    return self._best[1:]

  def wait(self):
    pass

  def close(self):
    pass

  def bytes_on_disk(self):
    return 0
