"""NIS: which rows and columns of its table each field deserves."""

import itertools

import optax

from experiments.methods import base
from jax_autorec import architecture as arch_lib
from jax_autorec import errors, field_spaces, search
from jax_autorec.search import controls, engines

_CUTS = ('values', 'occurrences')


def _opens(
  task: base.Task, architecture: arch_lib.Architecture
) -> arch_lib.Architecture:
  options = task.search
  if options['cuts'] not in _CUTS:
    raise errors.ConfigError(
      f'search.cuts is {options["cuts"]!r}; expected one of {", ".join(_CUTS)}.'
    )
  by_occurrences = options['cuts'] == 'occurrences'
  # The first blocks of columns are as wide as each candidate in turn.
  columns = [b - a for a, b in itertools.pairwise((0, *options['dims']))]
  return field_spaces.open_blocks(
    architecture,
    options['rows'],
    columns,
    frequencies=task.data.frequencies if by_occurrences else None,
    mode=options['kind'],
    prefix=options['prefix'],
    combine=options['combine'],
    shared_row=options['shared_row'],
  )


def _selectors(task: base.Task) -> dict[str, search.Selector]:
  options = task.search
  space = _PART.space(task)
  blocks = space.choice
  if base.has_engine(task):
    own = ('budget', 'cost_weight', 'reward', 'baseline', 'samples', 'period')
    shares = ('full_share', 'mixed_share', 'learning_rate', 'entropy')
    base.refuse_unread(task, 'nis', (*own, *shares))
    return {'fields': base.engine(task, engines.blocks(space))}
  selector = search.nis(
    optax.adam(base.positive(task, 'learning_rate')),
    blocks,
    task.steps,
    budget=options['budget'] * blocks.all_entries,
    cost_weight=options['cost_weight'],
    period=options['period'],
    full_steps=base.share_of_steps(task, 'full_share'),
    mixed_steps=base.share_of_steps(task, 'mixed_share'),
    samples=options['samples'],
    reward=options['reward'],
    baseline=options['baseline'],
    entropy=options['entropy'],
  )
  return {'fields': selector}


def _random(
  task: base.Task, space: arch_lib.Architecture, found: arch_lib.Architecture
) -> arch_lib.Architecture:
  return controls.random_blocks(space, found, task.seed)


_PART = base.Part(_opens, _selectors, base.largest_dim, _random)

METHOD = base.searched(
  _PART, controls={**base.WIDTH_CONTROLS, 'random_blocks': _random}
)
