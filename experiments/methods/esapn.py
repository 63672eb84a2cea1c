"""ESAPN: rows that grow while a stream goes on, and its controls."""

import optax

from experiments.methods import base
from jax_autorec import architecture as arch_lib
from jax_autorec import field_spaces, search


def _plain(task: base.Task, dim: int) -> arch_lib.Architecture:
  """Every row at one width, all else as in the space that is searched."""
  return task.build(dim=dim, width=max(task.search['dims']))


def _online(task: base.Task) -> dict[str, base.Run]:
  options = task.search
  dims = tuple(sorted(options['dims']))
  widest = _plain(task, dims[-1])
  method = search.esapn(
    optax.adam(options['learning_rate']),
    reward=options['reward'],
    base=options['base'],
    history=options['history'],
    explore=options['explore'],
    price=options['price'],
  )
  runs = {'esapn': (field_spaces.open_rows(widest, dims), method)}
  mixed = field_spaces.open_rows(widest, dims, 'mix')
  rate = options['mixture_learning_rate']
  runs |= {f'fixed {d}': (_plain(task, d), search.fixed()) for d in dims}
  runs['darts'] = mixed, search.row_darts(rate)
  runs['autoemb'] = mixed, search.autoemb_stream(optax.adam(rate))
  return runs


METHOD = base.Method(base.plain, online=_online)
