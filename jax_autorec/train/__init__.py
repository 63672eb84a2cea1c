"""Training; knows of no search."""

from jax_autorec.train import (
  checkpoints,
  complexity,
  learned,
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
  'learned',
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
