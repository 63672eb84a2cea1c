"""AutoCTR: which graph of blocks makes the best model?"""

from experiments.methods import base
from jax_autorec import architecture as arch_lib
from jax_autorec import data as data_lib
from jax_autorec import errors, search, spaces
from jax_autorec.interactions import BlockGraph
from jax_autorec.search.autoctr import Weights, hand_made, with_blocks


def _fields(task: base.Task) -> tuple[arch_lib.FieldPlan, ...]:
  options = task.options
  if 'dim' not in options:
    raise errors.ConfigError(
      f'Blocks need vectors, which model {task.model} does not have: set '
      '--config.model to another.'
    )
  if task.numeric is not None:
    raise errors.ConfigError(
      f'numeric.kind is {task.numeric.kind!r}: blocks read numbers as they '
      'are. Leave it out.'
    )
  return spaces.field_plans(
    task.data.schema, options['dim'], options.get('pooling', 'mean')
  )


def _space(task: base.Task) -> arch_lib.Architecture:
  """The hand-made graph, for what a page says of the space."""
  fields = _fields(task)
  groups = BlockGraph(()).groups(fields)
  return with_blocks(fields, hand_made(groups, task.search['widths']))


def _population(task: base.Task) -> search.Population:
  options = task.search
  return search.autoctr(
    _fields(task),
    strategy=options['strategy'],
    trials=options['trials'],
    population=options['population'],
    tournament=options['tournament'],
    neighbours=options['neighbours'],
    num_blocks=options['num_blocks'],
    types=options['types'],
    widths=options['widths'],
    weights=Weights(**options['weights']),
    hash_size=options['hash_size'],
    warm_start=options['warm_start'],
    seed=task.seed,
  )


def _sample(task: base.Task) -> data_lib.Dataset:
  for name in ('train_rows', 'valid_rows'):
    value = task.search[name]
    errors.expect(value >= 0, f'search.{name}', value, '0 for all, or more')
  return task.data.sample(
    task.search['train_rows'], task.search['valid_rows'], task.seed
  )


METHOD = base.Method(_space, population=_population, sample=_sample)
