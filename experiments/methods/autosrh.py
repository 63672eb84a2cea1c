"""AutoSrh: which entries matter, by groups of ids."""

from experiments.methods import base
from jax_autorec import architecture as arch_lib
from jax_autorec import field_spaces, search


def _opens(
  task: base.Task, architecture: arch_lib.Architecture
) -> arch_lib.Architecture:
  return field_spaces.open_columns(architecture, task.search['groups'])


def _selectors(task: base.Task) -> dict[str, search.Selector]:
  options = task.search
  selector = search.autosrh(
    learning_rate=options['learning_rate'],
    l1=options['l1'],
    warmup=base.share_of_steps(task, 'warmup'),
    period=options['period'],
    density=options['density'],
    max_params=base.max_params(task),
  )
  return {'fields': selector}


METHOD = base.searched(
  base.Part(_opens, _selectors, base.largest_dim, base.random_entries),
  controls={**base.WIDTH_CONTROLS, 'random_entries': base.random_entries},
)
