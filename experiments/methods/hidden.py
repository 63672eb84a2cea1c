"""How wide should each hidden layer of the MLP be?"""

from experiments.methods import base
from jax_autorec import architecture as arch_lib
from jax_autorec import errors, head_spaces, search
from jax_autorec.search import controls, engines


def _opens(
  task: base.Task, architecture: arch_lib.Architecture
) -> arch_lib.Architecture:
  return head_spaces.open_hidden(architecture, task.search['shares'])


def _selectors(task: base.Task) -> dict[str, search.Selector]:
  if not base.has_engine(task):
    raise errors.ConfigError(
      'Widths of hidden layers are searched by a general engine alone: set '
      f'search.engine.name to one of {", ".join(engines.ENGINES)}.'
    )
  return {'mlp': base.engine(task, engines.hidden(_PART.space(task)))}


def _random(
  task: base.Task, space: arch_lib.Architecture, found: arch_lib.Architecture
) -> arch_lib.Architecture:
  return controls.random_hidden(space, found, task.seed)


_PART = base.Part(_opens, _selectors, random=_random)

METHOD = base.searched(_PART, controls={'random_hidden': _random})
