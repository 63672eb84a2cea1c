"""AutoSrh: which entries matter, by groups of ids."""

from experiments.methods import base
from jax_autorec import architecture as arch_lib
from jax_autorec import field_spaces, search


def _space(task: base.Task) -> arch_lib.Architecture:
  return field_spaces.open_columns(base.widest(task), task.search['groups'])


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


METHOD = base.Method(
  _space,
  _selectors,
  base=base.widest,
  controls={**base.WIDTH_CONTROLS, 'random_entries': base.random_entries},
)
