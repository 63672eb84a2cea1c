"""AutoFIS: which products deserve to stay."""

import optax

from experiments.methods import base
from jax_autorec import architecture as arch_lib
from jax_autorec import errors, optim, search
from jax_autorec import interactions as interactions_lib
from jax_autorec.search import controls, engines

_ORDERS = {2: {'pairs': 'open'}, 3: {'pairs': 'open', 'triples': 'open'}}


def _space(task: base.Task) -> arch_lib.Architecture:
  order = task.search['order']
  if order not in _ORDERS:
    raise errors.ConfigError(f'search.order is {order!r}; expected 2 or 3.')
  if task.model not in ('fm', 'deepfm', 'ipnn'):
    raise errors.ConfigError(
      'AutoFIS searches the products of fm, deepfm or ipnn, not of '
      f'{task.model!r}.'
    )
  return task.build(**_ORDERS[order])


def _selectors(task: base.Task) -> dict[str, search.Selector]:
  options = task.search
  own = base.engine(task, engines.gates())
  if own is not None:
    return {'interactions': own}
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


METHOD = base.Method(
  _space,
  _selectors,
  controls={
    'all': lambda task, space, found: controls.keep_all(space),
    'random': lambda task, space, found: controls.random_subset(
      space, found, task.seed
    ),
  },
)
