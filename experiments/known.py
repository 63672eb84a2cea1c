"""What is known to suit a data set and a model: tuned values, protocols."""

from collections.abc import Mapping
import json
import pathlib
from typing import Any

from experiments import changes, protocols
from jax_autorec import errors

TUNED = pathlib.Path(__file__).parent / 'tuned'


def known(
  data: Mapping[str, Any],
  model: str,
  tuned: bool = True,
  label: str | None = None,
) -> dict[str, Any]:
  """What is known to suit a data set and a model.

  Args:
    data: 'name' of a data set or path of a schema file; options of its loader.
    model: a base model; 'MODEL+gates' for all its products, normalised and
      gated, as a search's supernet has them; 'MODEL+METHOD' for what a method
      derives from them. Each wants values of its own.
    tuned: whether what `experiments.tune` chose goes before the protocol.
    label: of a variant ('fm+fde8'), whose values go before its method's.
  """
  plain, _, kind = model.partition('+')
  is_gated = kind in protocols.GATED_METHODS
  values = dict(protocols.DEFAULT)
  protocol = dict(protocols.PROTOCOLS.get(data['name'], {}))
  by_model = protocol.pop('models', {})
  searches = values['search'] | protocol.pop('search', {})
  values.update(protocol, search=searches)
  values.update(by_model.get(plain, {}))
  if kind in protocols.NORMALIZED_METHODS:
    values['table_std'] = max(values['table_std'], protocols.GATED_STD)
  if kind == 'autoctr':
    values['table_std'] = max(values['table_std'], protocols.BLOCKS_STD)
  content = tuned_on(data) if tuned else {}
  if content:
    chosen = content['chosen']
    of_gates = [plain + protocols.GATED] if is_gated else []
    nearest = [label, model, *of_gates, plain]
    values.update(next((chosen[m] for m in nearest if m in chosen), {}))
    # What the search started from when the row was tuned; a variant without
    # values of its own has those of the row that it is a variant of.
    searched = content['searched']
    values['searched'] = next(
      (searched[m] for m in (label, model) if m in searched), {}
    )
  is_own = {label, model} & {*content.get('chosen', ())}
  if kind == 'autoctr' and not is_own:
    values['embedding_l2'] = min(values['embedding_l2'], protocols.BLOCKS_L2)
  return values


def tuned_on(data: Mapping[str, Any]) -> dict[str, Any]:
  """What `experiments.tune` keeps of the data that a config names.

  Args:
    data: 'name', and the options of its loader.

  Returns:
    Content of the file; nothing where there is none, or where it is of other
    data (`unused` says so).

  Raises:
    ConfigError: for a file that cannot be read.
  """
  return _empty() if unused(data) else read_tuned(_path(data))


def unused(data: Mapping[str, Any]) -> str:
  """Why tuned values of the same name are not those of a config's data."""
  path = _path(data)
  difference = other_data(read_tuned(path).get('data', data), data)
  if not difference:
    return ''
  return f'{path} is not used, it is of other data: {difference}.'


def _empty():
  return {'chosen': {}, 'cells': {}, 'searched': {}}


def _path(data):
  return TUNED / f'{pathlib.Path(data["name"]).stem}.json'


def training_seconds(data: Mapping[str, Any], *labels: str) -> list[float]:
  """What a training took, each time, of the first label that was tuned."""
  cells = tuned_on(data).get('cells', {})
  own = next((cells[label] for label in labels if label in cells), ())
  return [cell['seconds'] for cell in own if 'seconds' in cell]


def read_tuned(path: pathlib.Path) -> dict[str, Any]:
  """A file of `experiments.tune`; with nothing in it where there is none.

  Returns:
    'chosen', 'cells' and 'searched', each by label; 'data'.

  Raises:
    ConfigError: for a file that cannot be read.
  """
  if not path.exists():
    return _empty()
  try:
    return _empty() | json.loads(path.read_text('utf-8'))
  except (TypeError, ValueError) as error:
    raise errors.ConfigError(
      f'{path} does not hold tuned values ({error}): restore it, or delete it '
      'to tune again.'
    ) from error


def other_data(held: Mapping[str, Any], data: Mapping[str, Any]) -> str:
  """How the data of tuned values differ from a config's; '' for not at all.

  What suits one split need not suit another. Seeds and numbers of rows do not
  count, nor the folder of a schema file.

  Args:
    held: 'name' and options, as a file of tuned values has them.
    data: the same of a config.
  """

  def options(values):
    options = {k: v for k, v in values.items() if k not in ('seed', 'max_rows')}
    return options | {'name': pathlib.Path(values['name']).name}

  return changes.between(options(held), options(data))
