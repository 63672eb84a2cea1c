"""AutoDim, and AD-s: which width each field deserves."""

import optax

from experiments.methods import base
from jax_autorec import architecture as arch_lib
from jax_autorec import errors, field_spaces, search
from jax_autorec.search import engines

_MIN_UPDATES = 1000  # Of logits that draws make noisy.


def _opens(
  task: base.Task, architecture: arch_lib.Architecture
) -> arch_lib.Architecture:
  options = task.search
  return field_spaces.open_dims(
    architecture,
    options['dims'],
    tables=options['tables'],
    transform=options['transform'],
    transforms=options['transforms'],
  )


def _selectors(task: base.Task) -> dict[str, search.Selector]:
  options = task.search
  order, split = options['order'], options['split']
  if base.has_engine(task):
    own = ('order', 'split', 'schedule', 'floor', 'draws', 'tolerance')
    base.refuse_unread(task, 'autodim', (*own, 'period', 'learning_rate'))
    own = base.engine(task, engines.widths(_PART.space(task)))
    return {'fields': own}
  if order not in (1, 2):
    raise errors.ConfigError(f'search.order is {order!r}; expected 1 or 2.')
  if order == 2 and split == 'train':
    raise errors.ConfigError(
      "search.order is 2 and search.split 'train': a search of one level has "
      "no second order. Set search.split to 'valid', or search.order to 1."
    )
  warmup = base.share_of_steps(task, 'warmup')
  period = base.period(task, warmup, _MIN_UPDATES)
  if split == 'train':
    # One level: logits and weights follow the same gradient in every step.
    errors.expect(
      options['period'] in (None, 1),
      'search.period',
      options['period'],
      "1, or left open, with search.split='train'",
    )
    period = 1
  updates = (task.steps - warmup) // max(period, 1)
  selector = search.autodim(
    optax.adam(base.rate(task, updates)),
    task.steps,
    period=period,
    warmup=warmup,
    schedule=options['schedule'],
    floor=options['floor'],
    inner_rate=options['inner_rate'] if order == 2 else None,
    split=split,
    draws=options['draws'],
    tolerance=options['tolerance'],
  )
  return {'fields': selector}


_PART = base.Part(_opens, _selectors, base.largest_dim)

METHOD = base.searched(_PART, controls=base.WIDTH_CONTROLS)
