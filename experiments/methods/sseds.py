"""SSEDS: which columns a trained model would miss."""

from experiments.methods import base
from jax_autorec import architecture as arch_lib
from jax_autorec import field_spaces, search


def _opens(
  task: base.Task, architecture: arch_lib.Architecture
) -> arch_lib.Architecture:
  del task
  return field_spaces.open_columns(architecture)


def _selectors(task: base.Task) -> dict[str, search.Selector]:
  options = task.search
  return {'fields': search.sseds(options['share'], base.max_params(task))}


METHOD = base.searched(
  base.Part(_opens, _selectors, base.largest_dim), controls=base.WIDTH_CONTROLS
)
