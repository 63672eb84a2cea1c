"""Several searches of one model: together in one supernet, or in turn."""

from collections.abc import Sequence
import dataclasses
import functools

from experiments.methods import (
  autodim,
  autoemb,
  autofis,
  autogroup,
  autosrh,
  base,
  hidden,
  nis,
  optembed,
  pep,
  sseds,
)
from jax_autorec import architecture as arch_lib
from jax_autorec import errors, search
from jax_autorec.search import controls

PARTS = {
  'autodim': autodim.METHOD.part,
  'nis': nis.METHOD.part,
  'autoemb': autoemb.METHOD.part,
  'sseds': sseds.METHOD.part,
  'autosrh': autosrh.METHOD.part,
  'pep': pep.METHOD.part,
  'optembed': optembed.METHOD.part,
  'autofis': autofis.METHOD.part,
  'autogroup': autogroup.METHOD.part,
  'hidden': hidden.METHOD.part,
}
ORDERS = ('together', 'in_turn')


def _parts(task: base.Task) -> dict[str, tuple[base.Part, base.Task]]:
  """Name -> part, and the task that it sees; in the order of the config."""
  names = tuple(task.search['parts'])
  unknown = [name for name in names if name not in PARTS]
  if unknown or not names or len(set(names)) < len(names):
    raise errors.ConfigError(
      f'search.parts is {names}; expected one or more of {", ".join(PARTS)}, '
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
  # Parts that decide the same, or that cannot follow one another, are refused
  # before anything is trained.
  _selectors(task)
  settled = _plain(task)
  for part, own in _parts(task).values():
    opened = part.opens(own, settled)
    settled = part.random(own, opened, controls.keep_all(opened))

  def space(part, own, settled):
    return part.opens(own, _plain(task) if settled is None else settled)

  return [
    base.Turn(name, functools.partial(space, part, own), part.selectors(own))
    for name, (part, own) in _parts(task).items()
  ]


def _random(
  task: base.Task, space: arch_lib.Architecture, found: arch_lib.Architecture
) -> arch_lib.Architecture:
  del space  # In turn it is that of one of the parts.
  architecture = _plain(task)
  for part, own in _parts(task).values():
    architecture = part.random(own, part.opens(own, architecture), found)
  return architecture


METHOD = base.Method(
  _space,
  _selectors,
  base=_plain,
  controls={'random_joint': _random},
  turns=_turns,
)
