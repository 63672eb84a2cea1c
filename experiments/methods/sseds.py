"""SSEDS: which columns a trained model would miss."""

from experiments.methods import base
from jax_autorec import architecture as arch_lib
from jax_autorec import field_spaces, search


def _space(task: base.Task) -> arch_lib.Architecture:
  return field_spaces.open_columns(base.widest(task))


def _selectors(task: base.Task) -> dict[str, search.Selector]:
  options = task.search
  return {'fields': search.sseds(options['share'], base.max_params(task))}


METHOD = base.Method(
  _space, _selectors, base=base.widest, controls=base.WIDTH_CONTROLS
)
