"""AutoEmb as a search over splits: widths by frequency, then retraining."""

import numpy as np
import optax

from experiments.methods import base
from jax_autorec import architecture as arch_lib
from jax_autorec import errors, field_spaces, search
from jax_autorec.search import engines


def _opens(
  task: base.Task, architecture: arch_lib.Architecture
) -> arch_lib.Architecture:
  options = task.search
  return field_spaces.open_buckets(
    architecture,
    options['dims'],
    task.data.frequencies,
    options['min_vocab'],
  )


def _selectors(task: base.Task) -> dict[str, search.Selector]:
  space = _PART.space(task)
  if base.has_engine(task):
    own = ('controller_learning_rate', 'period', 'warmup')
    base.refuse_unread(task, 'autoemb', own)
    return {'fields': base.engine(task, engines.buckets(space))}
  warmup = base.share_of_steps(task, 'warmup')
  if warmup >= task.steps:
    raise errors.ConfigError(
      f'AutoEmb warms up for {warmup} of {task.steps} steps, so nothing would '
      'be searched: lower search.warmup.'
    )
  counts = []
  for plan, starts in zip(space.categorical, space.choice.starts):
    found = np.asarray(task.data.frequencies[plan.name], np.float64)
    counts.append([float(part.mean()) for part in np.split(found, starts[1:])])
  selector = search.autoemb(
    optax.adam(base.positive(task, 'controller_learning_rate')),
    counts,
    period=base.period(task, warmup),
    warmup=warmup,
  )
  return {'fields': selector}


_PART = base.Part(_opens, _selectors, base.largest_dim)

METHOD = base.searched(_PART, controls=base.WIDTH_CONTROLS)
