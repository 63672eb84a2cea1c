"""What can be tuned: models by name and rows of a table; their grids, a cell.

Every target takes the same small grid, on the validation split; the test split
is never read.
"""

from collections.abc import Callable, Mapping, Sequence
import contextlib
import dataclasses
import fcntl
import functools
import itertools
import json
import os
import pathlib
from typing import Any

from experiments import cells as cells_lib
from experiments import known as known_lib
from experiments import settings as settings_lib
from jax_autorec import errors, files

AXES = ('learning_rate', 'embedding_l2', 'dropout')


@dataclasses.dataclass(frozen=True)
class Target:
  """What a grid is trained of.

  Attributes:
    label: names its values, as `known.known` asks for them.
    values: resolved config, with batch sizes; what the grid sets is replaced.
    grid: cells: axis -> value.
    architecture: cell -> what is trained; a search runs at the first call.
    searched: settings that its search starts from; None where it has none.
    row: what it is a row of, to tell times by.
  """

  label: str
  values: Mapping[str, Any]
  grid: tuple[dict[str, float], ...]
  architecture: Callable[[Mapping[str, float]], Any]
  searched: Mapping[str, float] | None
  row: cells_lib.Row


def grid(axes: Mapping[str, Sequence[float]]) -> tuple[dict[str, float], ...]:
  """All combinations of the values of some axes."""
  return tuple(
    dict(zip(axes, cell)) for cell in itertools.product(*axes.values())
  )


def of_model(
  label: str,
  values: Mapping[str, Any],
  data,
  axes: Mapping[str, Sequence[float]],
  derived: Callable[[], Any],
) -> Target:
  """A model by name: 'fm', 'fm+gates', or 'fm+METHOD' with its config.

  Args:
    label: the name.
    values: the config, as it was given: what it sets is not tuned.
    data: encoded splits.
    axes: of the grid; dropout is for models with an MLP.
    derived: what the config's method derives.
  """
  from jax_autorec import spaces
  from jax_autorec.search import controls

  known = known_lib.known(values['data'], label, tuned=False)
  known |= settings_lib.given(values['train'])
  if known['batch_size'] is None:
    known['batch_size'] = settings_lib.batch_size(data.train.num_rows)
  plain, _, kind = label.partition('+')
  has_mlp = settings_lib.has(label, 'dropout')
  axes = {k: v for k, v in axes.items() if k != 'dropout' or has_mlp}
  train = {key: known[key] for key in values['train'] if key in known}

  def architecture(cell):
    options = {
      key: (known | cell)[key]
      for key in ('dim', 'hidden', 'norm', 'dropout')
      if (known | cell).get(key) is not None and settings_lib.has(label, key)
    }
    build = functools.partial(spaces.build, plain, data.schema, **options)
    if not kind:
      return build()
    if kind == 'gates':
      return controls.keep_all(build(pairs='open'))
    # The search is the costly part, and the grid does not touch it.
    return dataclasses.replace(build(), interactions=derived().interactions)

  return Target(
    label,
    {**values, 'train': train},
    grid(axes),
    architecture,
    None,
    cells_lib.Row(label, '', (), plain, kind or 'plain'),
  )


def row_label(config) -> str:
  """What the values of a row's config are named by."""
  return config.label or f'{config.model}+{config.method}'


def of_row(
  row: cells_lib.Row,
  data,
  axes: Mapping[str, Sequence[float]],
  start: Mapping[str, float],
  workdir: pathlib.Path | None,
) -> Target:
  """A row of a table: what its method derives by one search.

  The search takes the seed of the config and settings that tuning the row does
  not change, so that it comes out the same when tuning goes on.

  Args:
    row: its config may set values: those are not tuned.
    data: encoded splits.
    axes: of the grid; dropout is for models with an MLP.
    start: settings of the search where the config leaves them open.
    workdir: where the search is kept; None keeps it in memory.
  """
  from experiments import methods

  config = row.read()
  label = row_label(config)
  if config.method not in methods.METHODS:
    raise errors.ConfigError(
      f'No method {config.method!r}; the methods are: '
      f'{", ".join(methods.METHODS)}.'
    )
  method = methods.METHODS[config.method]
  is_searched = bool(method.selectors or method.population)
  held = {key: config.train.get(key) for key in AXES[:2]}
  held['dropout'] = config.model_options.dropout
  axes = {
    key: values
    for key, values in axes.items()
    if held[key] is None
    and (key != 'dropout' or settings_lib.has(config.model, key))
  }
  config.tuned = False
  for key, value in start.items():
    if key in axes:
      place = config.model_options if key == 'dropout' else config.train
      place[key] = value
  values = settings_lib.fit_batch_size(
    settings_lib.resolve(config), data.train.num_rows
  )

  @functools.cache
  def derived():
    from experiments import stages

    return stages.derive(values, data, 'none', workdir).architecture

  def architecture(cell):
    found = derived()
    if 'dropout' not in cell:
      return found
    head = dataclasses.replace(found.head, dropout=cell['dropout'])
    return dataclasses.replace(found, head=head)

  searched = dict(start) if is_searched else None
  return Target(label, values, grid(axes), architecture, searched, row)


def train(target: Target, cell: Mapping[str, float], data) -> dict[str, Any]:
  """Trains one cell; returns it with its validation metrics.

  A training that diverges is a result too: 'failed' says how.
  """
  from jax_autorec.train import retraining
  from jax_autorec.train import settings as train_settings

  chosen = {key: value for key, value in cell.items() if key != 'dropout'}
  settings = train_settings.Settings(**(target.values['train'] | chosen))
  architecture = target.architecture(cell)
  try:
    trained = retraining.retrain(
      architecture,
      data,
      settings,
      seed=target.values['seed'],
      stage='tune',
    )
  except errors.TrainingError as error:
    return {**cell, 'failed': str(error)}
  return {
    **cell,
    'valid_auc': trained.valid['auc'],
    'valid_logloss': trained.valid['logloss'],
    'best_step': trained.info['best_step'],
    'seconds': round(trained.info['seconds'], 2),
  }


class Store:
  """The file of a data set's tuned values, with every cell of the grids."""

  def __init__(self, path: pathlib.Path, data: Mapping[str, Any]):
    """Makes no file yet.

    Raises:
      ConfigError: where the file is of other data.
    """
    self.path, self._data = path, dict(data)
    held = self.read().get('data', self._data)
    if known_lib.other_data(held, self._data):
      raise errors.ConfigError(
        f'{path} holds what was tuned on {held}, not on {dict(data)}: give '
        'another --output, or move that file.'
      )

  def read(self) -> dict[str, Any]:
    """Its content: 'chosen', 'cells', 'searched', each by label."""
    return known_lib.read_tuned(self.path)

  @contextlib.contextmanager
  def update(self):
    """Yields the content, to be changed; others wait, and lose nothing."""
    self.path.parent.mkdir(parents=True, exist_ok=True)
    directory = os.open(self.path.parent, os.O_RDONLY)
    try:
      fcntl.flock(directory, fcntl.LOCK_EX)
      content = self.read()
      yield content
      content['data'] = self._data
      files.write_text(self.path, json.dumps(content, indent=1) + '\n')
    finally:
      os.close(directory)

  def add(self, target: Target, done: Mapping[str, Any]) -> dict[str, Any]:
    """Keeps a trained cell; returns the best of its label so far, or {}."""
    with self.update() as content:
      cells = content['cells'].setdefault(target.label, [])
      cells.append(dict(done))
      content['seed'] = target.values['seed']
      good = [cell for cell in cells if 'valid_auc' in cell]
      best = max(good, key=lambda cell: cell['valid_auc'], default={})
      if best:
        content['chosen'][target.label] = {
          key: best[key] for key in AXES if key in best
        }
    return best

  def todo(self, target: Target) -> list[dict[str, float]]:
    """Cells of the grid that were not trained yet."""
    done = self.read()['cells'].get(target.label, ())
    same = lambda cell, other: all(other.get(k) == v for k, v in cell.items())
    return [
      cell for cell in target.grid if not any(same(cell, d) for d in done)
    ]
