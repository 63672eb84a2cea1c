"""AutoFIS: which products deserve to stay."""

import dataclasses

import optax

from experiments.methods import base
from jax_autorec import architecture as arch_lib
from jax_autorec import errors, optim, search
from jax_autorec import interactions as interactions_lib
from jax_autorec.search import controls, engines

_ORDERS = {2: {'pairs': 'open'}, 3: {'pairs': 'open', 'triples': 'open'}}


def _opens(
  task: base.Task, architecture: arch_lib.Architecture
) -> arch_lib.Architecture:
  order = task.search['order']
  if order not in _ORDERS:
    raise errors.ConfigError(f'search.order is {order!r}; expected 2 or 3.')
  if task.model not in ('fm', 'deepfm', 'ipnn'):
    raise errors.ConfigError(
      'AutoFIS searches the products of fm, deepfm or ipnn, not of '
      f'{task.model!r}.'
    )
  plans = task.build(**_ORDERS[order]).interactions
  return dataclasses.replace(architecture, interactions=plans)


def _selectors(task: base.Task) -> dict[str, search.Selector]:
  options = task.search
  if base.has_engine(task):
    base.refuse_unread(task, 'autofis', ('keep', 'keep_gates', 'mu'))
    return {'interactions': base.engine(task, engines.gates())}
  keep = options['keep']
  if keep is not None:
    tx = optax.adam(base.positive(task, 'keep_learning_rate'))
    selector = search.autofis(tx, keep=keep, keep_gates=options['keep_gates'])
    return {'interactions': selector}
  rate, mu = options['learning_rate'], options['mu']
  c = optim.grda_c(
    options['ratio'], interactions_lib.Products.gate_init, rate, mu, task.steps
  )
  selector = search.autofis(
    optim.grda(rate, c, mu), keep_gates=options['keep_gates']
  )
  return {'interactions': selector}


def _random(
  task: base.Task, space: arch_lib.Architecture, found: arch_lib.Architecture
) -> arch_lib.Architecture:
  return controls.random_subset(space, found, task.seed)


METHOD = base.searched(
  base.Part(_opens, _selectors, random=_random),
  controls={
    'all': lambda task, space, found: controls.keep_all(space),
    'random': _random,
  },
)
