"""Training; knows of no search."""

from jax_autorec.train import (
  checkpoints,
  complexity,
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
  'complexity',
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
