"""What a method has to say: how a config becomes a space and its search."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import importlib
import math
from typing import Any, NamedTuple

import optax

from experiments.configs import defaults
from jax_autorec import architecture as arch_lib
from jax_autorec import data as data_lib
from jax_autorec import errors, numeric_spaces, search, sizes, spaces
from jax_autorec import fields as fields_lib
from jax_autorec import numeric as numeric_lib
from jax_autorec.search import controls, engines, unroll


@dataclasses.dataclass(frozen=True)
class Task:
  """What a method is asked to do.

  Attributes:
    data: the splits; a method reads the schema, the train frequencies and,
      where it has to, rows of the train and validation splits.
    model: name of the base model.
    options: of the base model's factory.
    search: the config's `search`.
    steps: length of the search.
    steps_per_epoch: of it.
    seed: of the run.
    numeric: embedding of all numeric fields; None for the models' own.
  """

  data: data_lib.Dataset
  model: str
  options: Mapping[str, Any]
  search: Mapping[str, Any]
  steps: int = 0
  steps_per_epoch: int = 0
  seed: int = 0
  numeric: numeric_lib.Embedding | None = None

  def __post_init__(self):
    if self.numeric is not None and not self.data.schema.numeric:
      raise errors.ConfigError(
        f'numeric.kind is {self.numeric.kind!r}, and {self.data.name} has no '
        'numeric field to embed; criteo has them with '
        "--config.data.discretize='none'."
      )
    dims = self.search.get('dims')
    errors.expect(
      dims is None or (len(dims) > 0 and min(dims) >= 1),
      'search.dims',
      dims,
      'one width or more, each at least 1',
    )
    for name in ('epochs', 'min_steps'):
      value = self.search.get(name)
      errors.expect(
        value is None or value >= 0, f'search.{name}', value, 'at least 0'
      )

  def build(self, **overrides: Any) -> arch_lib.Architecture:
    """The base model, with some options replaced, fitted to the train split."""
    options = {**self.options, 'numeric': self.numeric, **overrides}
    built = spaces.build(self.model, self.data.schema, **options)
    return numeric_spaces.fit(built, self.data.train, self.data.scales)


def all_rows(task: Task) -> data_lib.Dataset:
  """The splits as they are."""
  return task.data


def plain(task: Task) -> arch_lib.Architecture:
  """The base model as it is."""
  return task.build()


def largest_dim(task: Task) -> dict[str, int]:
  """The option of the base model that gives it the largest candidate width.

  Raises:
    ConfigError: for a model without embeddings.
  """
  if task.model == 'lr':
    raise errors.ConfigError(
      'Model lr has no embeddings whose width to choose: set --config.model to '
      f'one of {", ".join(name for name in spaces.MODELS if name != "lr")}.'
    )
  return {'dim': max(task.search['dims'])}


def widest(task: Task) -> arch_lib.Architecture:
  """FDE: every field at the largest candidate width."""
  return task.build(**largest_dim(task))


def max_params(task: Task) -> float | None:
  """The config's budget, of bytes or of parameters, in float32 entries."""
  return sizes.budget(task.search['max_params'], task.search['max_bytes'])


_PERIOD = 10  # That of AutoDim's paper.
_MIN_UPDATES = 400  # With fewer, logits stay where they start.


def period(task: Task, warmup: int, min_updates: int = _MIN_UPDATES) -> int:
  """Steps between updates of what is searched."""
  asked = task.search['period']
  if asked is not None:
    return asked
  return min(_PERIOD, max(1, (task.steps - warmup) // min_updates))


def share_of_steps(task: Task, name: str) -> int:
  """Steps of a part of the search, which the config gives as a share."""
  share = task.search[name]
  errors.expect(
    0 <= share < 1, f'search.{name}', share, 'at least 0, less than 1'
  )
  return round(share * task.steps)


def rate(task: Task, updates: int) -> float:
  """Learning rate of what is searched, or its `travel` over the updates."""
  if task.search['learning_rate'] is not None:
    return positive(task, 'learning_rate')
  return positive(task, 'travel') / max(1, updates)


def positive(task: Task, name: str) -> float:
  """An option that must be more than 0."""
  value = task.search[name]
  errors.expect(0 < value < math.inf, f'search.{name}', value, 'more than 0')
  return value


# What each engine reads of `search.engine`, beside what both do.
_ENGINE_OPTIONS = {
  None: (),
  'reinforce': ('samples', 'entropy', 'reward', 'decay'),
  'darts': ('temperature', 'inner_rate', 'implicit'),
}
_IMPLICIT_OPTIONS = ('iterations', 'damping', 'implicit_rate')
_OF_BOTH = ('travel', 'price', 'warmup', 'period')


def has_engine(task: Task) -> bool:
  """Whether the config names a general engine in place of the method's own.

  Raises:
    ConfigError: for an unknown engine, or an option that it does not read.
  """
  options, unset = task.search['engine'], defaults.engine().to_dict()
  name = options['name']
  if name is not None:
    fields_lib.check(name, tuple(engines.ENGINES), 'search.engine.name')
  read = ('name', *_ENGINE_OPTIONS[name], *(_OF_BOTH if name else ()))
  if name == 'darts' and options['implicit'] is not None:
    read += _IMPLICIT_OPTIONS
  for key, value in options.items():
    if key not in read and value != unset[key]:
      raise errors.ConfigError(
        f'search.engine.{key} is {value!r}, which is not read with '
        f'search.engine.name={name!r}'
        + (
          ' and search.engine.implicit unset'
          if name == 'darts' and key in _IMPLICIT_OPTIONS
          else ''
        )
        + f'; read are: {", ".join(read)}.'
      )
  return name is not None


def refuse_unread(task: Task, method: str, keys: Sequence[str]) -> None:
  """Refuses options of a method's own rule where an engine stands for it.

  Args:
    task: names an engine.
    method: whose config has the values that nobody has set.
    keys: of its `search`, that the rule alone reads.

  Raises:
    ConfigError: for one that is set.
  """
  module = importlib.import_module(f'experiments.configs.{method}')
  unset = module.get_config(None).search.to_dict()
  for key in keys:
    if task.search[key] != unset[key]:
      raise errors.ConfigError(
        f'search.{key} is {task.search[key]!r}, which is not read with '
        f'search.engine.name={task.search["engine"]["name"]!r}: leave it out. '
        'What an engine reads is below search.engine.'
      )


def engine(task: Task, decisions: engines.Decisions) -> search.Selector:
  """The general engine that the config names."""
  options = task.search['engine']
  for key, holds, expected in (
    ('warmup', 0 <= options['warmup'] < 1, 'at least 0, less than 1'),
    ('period', options['period'] >= 1, 'at least 1'),
    ('travel', 0 < options['travel'] < math.inf, 'more than 0'),
  ):
    errors.expect(holds, f'search.engine.{key}', options[key], expected)
  warmup, period = round(options['warmup'] * task.steps), options['period']
  rate = options['travel'] / max(1, (task.steps - warmup) // period)
  if options['name'] == 'reinforce':
    reward = options['reward'] or 'ce'
    fields_lib.check(reward, tuple(search.REWARDS), 'search.engine.reward')
    own = {
      'samples': options['samples'],
      'entropy_weight': options['entropy'],
      'reward': search.REWARDS[reward],
    }
    if options['decay'] is not None:
      own['decay'] = options['decay']
  else:
    own = {'inner_rate': options['inner_rate']}
    if options['temperature'] is not None:
      own['temperature'] = options['temperature']
    if options['implicit'] is not None:
      own['implicit'] = unroll.Implicit(
        options['implicit'],
        options['iterations'],
        options['damping'],
        options['implicit_rate'],
      )
  return engines.engine(
    options['name'],
    decisions,
    optax.adam(rate),
    price=options['price'],
    warmup=warmup,
    period=period,
    **own,
  )


Control = Callable[
  [Task, arch_lib.Architecture, arch_lib.Architecture], arch_lib.Architecture
]


def uniform(
  task: Task, space: arch_lib.Architecture, found: arch_lib.Architecture
) -> arch_lib.Architecture:
  """One width for all fields: the narrowest candidate not smaller than found.

  The widest, where what was found is larger than any. Where fields are
  quantised, codes and codebooks count as what is found.

  Part of a gain over the widest model may be that smaller is better; this
  control is small too.
  """
  del space
  models = [task.build(dim=dim) for dim in sorted(task.search['dims'])]
  large = [m for m in models if m.ep_total >= found.packed.ep_total]
  return (large or models[-1:])[0]


def random_dims(
  task: Task, space: arch_lib.Architecture, found: arch_lib.Architecture
) -> arch_lib.Architecture:
  """Random candidate widths, at the size that was found."""
  transform = getattr(space.choice, 'transform', 'linear')
  plain = dataclasses.replace(
    widest(task), interactions=space.interactions, head=space.head
  )
  return controls.random_dims(
    plain, task.search['dims'], found, task.seed, transform
  )


def random_entries(
  task: Task, space: arch_lib.Architecture, found: arch_lib.Architecture
) -> arch_lib.Architecture:
  """Random entries of the tables, at the size that was found."""
  return controls.random_entries(space, found, task.seed)


def random_rows(
  task: Task, space: arch_lib.Architecture, found: arch_lib.Architecture
) -> arch_lib.Architecture:
  """Random rows at random widths, at the size that was found."""
  return controls.random_rows(space, found, task.seed)


WIDTH_CONTROLS = {'uniform': uniform, 'random_dims': random_dims}


def no_options(task: Task) -> dict[str, Any]:
  """The base model as the config has it."""
  del task
  return {}


@dataclasses.dataclass(frozen=True)
class Part:
  """A slot that is opened and searched, by itself or beside others.

  Attributes:
    opens: (task, architecture) -> the architecture with the slot open, all
      else as it is, closed or open.
    selectors: task -> slot -> selector.
    options: task -> options of the base model that the slot needs.
    random: (task, space, found) -> the space with the slot closed at random, at
      the size that was found.
  """

  opens: Callable[[Task, arch_lib.Architecture], arch_lib.Architecture]
  selectors: Callable[[Task], dict[str, search.Selector]]
  options: Callable[[Task], dict[str, Any]] = no_options
  random: Control = random_dims

  def plain(self, task: Task) -> arch_lib.Architecture:
    """The base model before the slot is opened."""
    return task.build(**self.options(task))

  def space(self, task: Task) -> arch_lib.Architecture:
    """The base model with this slot open."""
    return self.opens(task, self.plain(task))


class Turn(NamedTuple):
  """One of several searches that follow one another.

  Attributes:
    name: of it.
    space: what the searches before it arrived at, None for the first -> the
      architecture that it searches.
    selectors: slot -> selector.
  """

  name: str
  space: Callable[[arch_lib.Architecture | None], arch_lib.Architecture]
  selectors: Mapping[str, search.Selector]


_APART = 10_000  # Seeds of further draws, beyond those of any table.

Run = tuple[arch_lib.Architecture, search.Online]


@dataclasses.dataclass(frozen=True)
class Method:
  """What a method needs of a config.

  Attributes:
    space: task -> architecture: open where something is searched by gradients;
      closed where nothing is, and then it is what is trained.
    selectors: task -> slot -> selector; None where there are none.
    population: task -> what proposes closed architectures to be scored, or
      None where the task leaves nothing to choose; None where nothing does.
    sample: task -> the rows that proposals of `population` are scored on.
    base: task -> the unsearched model that the result is compared with.
    controls: name -> (task, space, found) -> a closed architecture to compare
      with, beside 'lr' and 'base'. Names are those of `settings.CONTROLS`;
      those that are drawn can be had again, 'random_dims:2' is another draw.
    online: of a method that follows a stream, task -> name -> space and method
      of every run over it, the result's first; None for all others.
    part: what it opens, where that can be opened beside other things.
    turns: task -> searches that follow one another, where the task asks for
      several; None for one search.
  """

  space: Callable[[Task], arch_lib.Architecture]
  selectors: Callable[[Task], dict[str, search.Selector]] | None = None
  population: Callable[[Task], search.Population | None] | None = None
  sample: Callable[[Task], data_lib.Dataset] = all_rows
  base: Callable[[Task], arch_lib.Architecture] = plain
  controls: Mapping[str, Control] = dataclasses.field(default_factory=dict)
  online: Callable[[Task], Mapping[str, Run]] | None = None
  part: Part | None = None
  turns: Callable[[Task], Sequence[Turn]] | None = None

  def control(
    self,
    name: str,
    task: Task,
    space: arch_lib.Architecture,
    found: arch_lib.Architecture,
  ) -> arch_lib.Architecture:
    """The architecture of a control.

    Raises:
      ConfigError: for a control that the method does not have.
    """
    if name == 'lr':
      return spaces.lr(task.data.schema)
    if name == 'base':
      return self.base(task)
    self.check_control(name)
    kind, _, draw = name.partition(':')
    if draw:
      task = dataclasses.replace(task, seed=task.seed + _APART * int(draw))
    return self.controls[kind](task, space, found)

  def check_control(self, name: str) -> None:
    """Refuses a name before anything is trained."""
    known = ('lr', 'base', *self.controls)
    kind, colon, draw = name.partition(':')
    if colon and not (kind.startswith('random') and draw.isdecimal()):
      raise errors.ConfigError(
        f'No control {name!r}: a number follows what is drawn at random alone, '
        "as in 'random_dims:2'."
      )
    if kind not in known:
      raise errors.ConfigError(
        f'No control {name!r} of this method; its controls are: '
        f'{", ".join(known)}.{errors.nearest(name, known)}'
      )


def searched(part: Part, **options: Any) -> Method:
  """The method that searches one part; options are those of `Method`."""
  options = {'base': part.plain} | options
  return Method(part.space, part.selectors, part=part, **options)
