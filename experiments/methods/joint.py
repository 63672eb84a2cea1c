"""Several searches of one model: together in one supernet, or in turn."""

from collections.abc import Sequence
import dataclasses
import functools

from experiments.methods import (
  autodim,
  autofis,
  autogroup,
  base,
  hidden,
  nis,
)
from jax_autorec import architecture as arch_lib
from jax_autorec import errors, search

PARTS = {
  'autodim': autodim.METHOD.part,
  'nis': nis.METHOD.part,
  'autofis': autofis.METHOD.part,
  'autogroup': autogroup.METHOD.part,
  'hidden': hidden.METHOD.part,
}
ORDERS = ('together', 'in_turn')


def _parts(task: base.Task) -> dict[str, tuple[base.Part, base.Task]]:
  """Name -> part, and the task that it sees; in the order of the config."""
  names = tuple(task.search['parts'])
  unknown = [name for name in names if name not in PARTS]
  if unknown or len(set(names)) < max(2, len(names)):
    raise errors.ConfigError(
      f'search.parts is {names}; expected two or more of {", ".join(PARTS)}, '
      'each once.'
    )
  order = task.search['order']
  if order not in ORDERS:
    raise errors.ConfigError(
      f'search.order is {order!r}; expected one of {", ".join(ORDERS)}.'
    )
  return {
    name: (PARTS[name], dataclasses.replace(task, search=task.search[name]))
    for name in names
  }


def _plain(task: base.Task) -> arch_lib.Architecture:
  options = {}
  for part, own in _parts(task).values():
    options |= part.options(own)
  return task.build(**options)


def _space(task: base.Task) -> arch_lib.Architecture:
  architecture = _plain(task)
  for part, own in _parts(task).values():
    architecture = part.opens(own, architecture)
  return architecture


def _selectors(task: base.Task) -> dict[str, search.Selector]:
  slots: dict[str, str] = {}
  selectors: dict[str, search.Selector] = {}
  for name, (part, own) in _parts(task).items():
    for slot, selector in part.selectors(own).items():
      if slot in slots:
        raise errors.ConfigError(
          f'search.parts has {slots[slot]} and {name}, which both decide the '
          f'slot {slot!r}; expected one of them.'
        )
      slots[slot], selectors[slot] = name, selector
  return selectors


def _turns(task: base.Task) -> Sequence[base.Turn]:
  """One after the other, each with what the ones before it settled."""
  if task.search['order'] == 'together':
    return ()
  _selectors(task)  # Refuses parts that decide the same.

  def space(part, own, settled):
    return part.opens(own, _plain(task) if settled is None else settled)

  return [
    base.Turn(name, functools.partial(space, part, own), part.selectors(own))
    for name, (part, own) in _parts(task).items()
  ]


def _random(
  task: base.Task, space: arch_lib.Architecture, found: arch_lib.Architecture
) -> arch_lib.Architecture:
  for part, own in _parts(task).values():
    space = part.random(own, space, found)
  return space


METHOD = base.Method(
  _space,
  _selectors,
  base=_plain,
  controls={'random_joint': _random},
  turns=_turns,
)
