"""AutoGroup: which fields should interact as a group, and at which order."""

import optax

from experiments.methods import base
from jax_autorec import architecture as arch_lib
from jax_autorec import errors, group_spaces, search
from jax_autorec.search import controls, engines

# Groups per field, of order 1, 2 and 3: 15, 130 and 180 for the 24 of Avazu.
_PER_FIELD = (15 / 24, 130 / 24, 180 / 24)


def _opens(
  task: base.Task, architecture: arch_lib.Architecture
) -> arch_lib.Architecture:
  options = task.search
  if task.model not in ('fm', 'deepfm'):
    raise errors.ConfigError(
      'AutoGroup puts groups in the place of the products of fm or deepfm, not '
      f'of {task.model!r}.'
    )
  counts = options['counts']
  if counts is None:
    num_fields = len(architecture.vector_fields)
    counts = [round(own * num_fields) for own in _PER_FIELD[:num_fields]]
  return group_spaces.open_groups(
    architecture,
    counts,
    copies=options['copies'],
    form=options['form'],
    compensation=options['compensation'],
    normalize=options['normalize'],
  )


def _selectors(task: base.Task) -> dict[str, search.Selector]:
  options = task.search
  if base.has_engine(task):
    own = ('order', 'selection', 'noise', 'split', 'sizes', 'temperature')
    base.refuse_unread(task, 'autogroup', (*own, 'samples', 'period'))
    return {'interactions': base.engine(task, engines.members())}
  order = options['order']
  if order not in (1, 2):
    raise errors.ConfigError(f'search.order is {order!r}; expected 1 or 2.')
  warmup = base.share_of_steps(task, 'warmup')
  period = base.period(task, warmup)
  updates = (task.steps - warmup) // max(period, 1)
  sizes = {}
  if options['sizes'] == 'order':
    sizes = {plan.name: plan.order for plan in _PART.space(task).interactions}
  elif options['sizes'] != 'any':
    raise errors.ConfigError(
      f"search.sizes is {options['sizes']!r}; expected 'any' or 'order'."
    )
  selector = search.autogroup(
    optax.adam(base.rate(task, updates)),
    selection=options['selection'],
    noise=options['noise'],
    split=options['split'],
    sizes=sizes,
    temperature=options['temperature'],
    period=period,
    warmup=warmup,
    samples=options['samples'],
    inner_rate=options['inner_rate'] if order == 2 else None,
  )
  return {'interactions': selector}


def _random(
  task: base.Task, space: arch_lib.Architecture, found: arch_lib.Architecture
) -> arch_lib.Architecture:
  return controls.random_subset(space, found, task.seed)


_PART = base.Part(_opens, _selectors, random=_random)

METHOD = base.searched(
  _PART,
  controls={
    'one_group': lambda task, space, found: controls.keep_all(space),
    'random_groups': _random,
  },
)
