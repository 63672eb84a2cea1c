"""MDE: widths by a power law of rows or frequencies; its exponent is tuned."""

from experiments.methods import base
from jax_autorec import architecture as arch_lib
from jax_autorec import errors, search, sizes


def _close(task: base.Task, alpha: float) -> arch_lib.Architecture:
  options = task.search
  num_blocks = options['num_blocks']
  return sizes.mixed_dims(
    base.widest(task),
    alpha,
    frequencies=task.data.frequencies if num_blocks else None,
    num_blocks=max(num_blocks, 1),
    threshold=options['threshold'],
    power_of_two=options['power_of_two'],
    max_params=base.max_params(task),
  )


def _alphas(task):
  alphas = tuple(task.search['alphas'])
  if not alphas:
    raise errors.ConfigError(
      'search.alphas is empty; expected one exponent, or several to choose '
      'from on the validation split.'
    )
  return alphas


def _space(task: base.Task) -> arch_lib.Architecture:
  alphas = _alphas(task)
  return base.widest(task) if len(alphas) > 1 else _close(task, alphas[0])


def _population(task: base.Task) -> search.Population | None:
  alphas = _alphas(task)
  if len(alphas) == 1:
    return None
  return search.each([({'alpha': a}, _close(task, a)) for a in alphas])


METHOD = base.Method(
  _space,
  population=_population,
  base=base.widest,
  controls={'uniform': base.uniform},
)
