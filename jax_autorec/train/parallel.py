"""The one place where jit, meshes, pmap and donation appear.

A step is `(state, batch) -> (state, metrics)`, pure, for one batch; a program
runs several per dispatch with `lax.scan`, in one of three ways that agree.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import flax.jax_utils
import jax
from jax import lax
import numpy as np

from jax_autorec import errors
from jax_autorec.types import PyTree

MODES = ('none', 'jit', 'pmap')
AXIS = 'data'


class Program(NamedTuple):
  """A compiled way to run steps.

  Attributes:
    place: host or single-device state -> state as `run` takes it.
    run: (state, batches) -> (state, metrics). Batches are stacked [K, B, ...];
      metrics come back stacked [K]. The state given is donated.
    fetch: state of `run` -> state on one device, for evaluation and saving.
  """

  place: Callable[[PyTree], PyTree]
  run: Callable[[PyTree, PyTree], tuple[PyTree, PyTree]]
  fetch: Callable[[PyTree], PyTree]


def axis_name(mode: str) -> str | None:
  """The replica axis that a model must be built with for a mode."""
  _check(mode)
  return AXIS if mode == 'pmap' else None


def compile_steps(
  step: Callable[[PyTree, PyTree], tuple[PyTree, PyTree]],
  mode: str = 'none',
  devices: Sequence[jax.Device] | None = None,
) -> Program:
  """Compiles a step.

  Args:
    step: for one batch; under 'pmap' it reduces over `AXIS`.
    mode: 'none': one device; 'jit': one program over a mesh, the batch split
      over it; 'pmap': the same by `jax.pmap` (an API in maintenance mode).
    devices: those to use; all by default, and the first for 'none'.

  Returns:
    The program.
  """
  _check(mode)

  def many(state, batches):
    return lax.scan(step, state, batches)

  if mode == 'none':
    run = jax.jit(many, donate_argnums=0)
    return Program(lambda state: state, run, lambda state: state)
  devices = list(devices or jax.devices())
  if mode == 'pmap':
    return _pmap_program(many, devices)
  mesh = jax.make_mesh(
    (len(devices),), (AXIS,), (jax.sharding.AxisType.Auto,), devices=devices
  )
  replicated = jax.NamedSharding(mesh, jax.P())
  split = jax.NamedSharding(mesh, jax.P(None, AXIS))
  run = jax.jit(
    many,
    donate_argnums=0,
    in_shardings=(replicated, split),
    out_shardings=replicated,
  )

  def run_split(state, batches):
    _check_divides(batches, len(devices))
    return run(state, batches)

  # A placed state must own its buffers: they are donated.
  place = lambda state: jax.device_put(state, replicated, may_alias=False)
  return Program(
    place, run_split, lambda state: jax.device_put(state, devices[0])
  )


def _pmap_program(many, devices) -> Program:
  run = jax.pmap(
    many, axis_name=AXIS, donate_argnums=0, devices=devices, out_axes=(0, None)
  )

  def shard(leaf):
    steps, batch_size = leaf.shape[:2]
    local = batch_size // len(devices)
    leaf = np.asarray(leaf)
    leaf = leaf.reshape(steps, len(devices), local, *leaf.shape[2:])
    return np.swapaxes(leaf, 0, 1)

  def run_replicas(state, batches):
    _check_divides(batches, len(devices))
    return run(state, jax.tree.map(shard, batches))

  return Program(
    lambda state: flax.jax_utils.replicate(state, devices),
    run_replicas,
    flax.jax_utils.unreplicate,
  )


def _check(mode: str) -> None:
  if mode not in MODES:
    raise errors.ConfigError(
      f'parallel is {mode!r}; expected one of {", ".join(MODES)}.'
    )


def _check_divides(batches: PyTree, num_devices: int) -> None:
  batch_size = jax.tree.leaves(batches)[0].shape[1]
  if batch_size % num_devices:
    raise errors.ConfigError(
      f'A batch of {batch_size} rows does not divide among {num_devices} '
      'devices: choose a batch size that is a multiple of their number.'
    )
