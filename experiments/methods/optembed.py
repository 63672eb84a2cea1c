"""OptEmbed: which rows are worth keeping, then how wide each field is."""

import optax

from experiments.methods import base
from jax_autorec import architecture as arch_lib
from jax_autorec import field_spaces, search


def _opens(
  task: base.Task, architecture: arch_lib.Architecture
) -> arch_lib.Architecture:
  del task
  return field_spaces.open_row_mask(architecture)


def _selectors(task: base.Task) -> dict[str, search.Selector]:
  options = task.search
  selector = search.optembed(
    optax.sgd(options['learning_rate']),
    penalty=options['penalty'],
    price=options['price'],
    max_params=base.max_params(task),
    population=options['population'],
    generations=options['generations'],
    mutations=options['mutations'],
    crossovers=options['crossovers'],
    chance=options['chance'],
    seed=task.seed,
  )
  return {'fields': selector}


METHOD = base.searched(
  base.Part(_opens, _selectors, base.largest_dim, base.random_rows),
  controls={**base.WIDTH_CONTROLS, 'random_rows': base.random_rows},
)
