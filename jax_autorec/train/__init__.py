"""Training; knows of no search."""

from jax_autorec.train import (
  checkpoints,
  loop,
  models,
  parallel,
  records,
  retraining,
  settings,
  stages,
  state,
  steps,
)

__all__ = [
  'checkpoints',
  'loop',
  'models',
  'parallel',
  'records',
  'retraining',
  'settings',
  'stages',
  'state',
  'steps',
]
