"""RaS: random search over the widths of fields."""

from experiments.methods import base
from jax_autorec import search


def _population(task: base.Task) -> search.Population:
  options = task.search
  return search.random_dims(
    base.widest(task),
    options['dims'],
    trials=options['trials'],
    seconds=options['seconds'],
    max_params=base.max_params(task),
    seed=task.seed,
    transform=options['transform'],
  )


METHOD = base.Method(
  base.widest,
  population=_population,
  base=base.widest,
  controls={'uniform': base.uniform},
)
