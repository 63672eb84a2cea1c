"""PEP: which entries outlast the thresholds that they learn."""

import optax

from experiments.methods import base
from jax_autorec import architecture as arch_lib
from jax_autorec import field_spaces, search


def _opens(
  task: base.Task, architecture: arch_lib.Architecture
) -> arch_lib.Architecture:
  options = task.search
  return field_spaces.open_thresholds(
    architecture,
    granularity=options['granularity'],
    initial=options['initial'],
    row_scale=options['row_scale'],
  )


def _selectors(task: base.Task) -> dict[str, search.Selector]:
  options = task.search
  rate = base.rate(task, task.steps)
  selector = search.pep(
    optax.chain(optax.add_decayed_weights(options['decay']), optax.adam(rate)),
    density=options['density'],
    max_params=base.max_params(task),
  )
  return {'fields': selector}


METHOD = base.searched(
  base.Part(_opens, _selectors, base.largest_dim, base.random_entries),
  controls={**base.WIDTH_CONTROLS, 'random_entries': base.random_entries},
)
