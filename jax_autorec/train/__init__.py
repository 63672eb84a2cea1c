"""Training; knows of no search."""

from jax_autorec.train import (
  checkpoints,
  loop,
  parallel,
  records,
  settings,
  state,
  steps,
)

__all__ = [
  'checkpoints',
  'loop',
  'parallel',
  'records',
  'settings',
  'state',
  'steps',
]
