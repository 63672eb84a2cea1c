"""From a config to what the library takes: what was left open, checks."""

from collections.abc import Mapping
from typing import Any

from ml_collections import config_dict

from experiments import known as known_lib
from experiments import protocols
from jax_autorec import errors, spaces
from jax_autorec import numeric as numeric_lib
from jax_autorec.train import settings as settings_lib

# What an experiment can be compared with -> its name in reports.
CONTROLS = {
  'lr': 'lr',
  'base': 'base',
  'all': 'all + bn + gates',
  'random': 'random subset',
  'random_dims': 'random widths',
  'random_blocks': 'random blocks',
  'random_entries': 'random entries',
  'random_rows': 'random rows',
  'uniform': 'one width',
  'one_group': 'one group',
  'random_groups': 'random groups',
  **{
    f'numeric_{kind}': f'numbers: {cls.title}'
    for kind, cls in numeric_lib.EMBEDDINGS.items()
  },
  'hash': 'hashed rows',
  'random_hidden': 'random hidden widths',
  'random_joint': 'random choices',
}


def control_name(control: str) -> str:
  """What reports call a control: 'random_dims:2' is 'random widths 2'."""
  kind, _, draw = control.partition(':')
  return f'{CONTROLS[kind]} {draw}'.rstrip()


def has(model: str, option: str) -> bool:
  """Whether a base model has a 'dim', or an MLP with 'hidden', ..."""
  return option in spaces.options(model.split('+')[0])


def resolve(config: config_dict.ConfigDict) -> dict[str, Any]:
  """The config as plain values, with what was left open filled in.

  Models that are compared with the main one get settings of their own, in
  'control_train': what is good for one is no fair choice for another. Those of
  one width take what was tuned for FDE at that width, where it was; the width
  of 'uniform' follows from what a search finds, so 'uniform_tuned' has it for
  each candidate.

  Raises:
    ConfigError: for an unknown model, an MLP option of a model without one or
      fewer than 0 rows.
  """
  values = config.to_dict()
  data, model = values['data'], values['model']
  if data['max_rows'] < 0:
    raise errors.ConfigError(
      f'data.max_rows is {data["max_rows"]}; expected a number of rows, or 0 '
      'for all.'
    )
  if model not in spaces.MODELS:
    raise errors.ConfigError(
      f'No model {model!r}; the models are: {", ".join(spaces.MODELS)}.'
      + errors.nearest(model, spaces.MODELS)
    )
  numeric_embedding(values)  # Refuses what makes no sense.
  # Nothing is searched of the others: what suits one embedding of numbers is no
  # fair choice for another.
  is_searched = values['method'] not in ('base', 'autodis')
  parts = values.get('search', {}).get('parts') or (values['method'],)
  # Of several parts the one whose model wants most of its own.
  like = next((p for p in parts if p in protocols.NORMALIZED_METHODS), parts[0])
  main = f'{model}+{like}' if is_searched else model
  label = values['label']
  if values['method'] == 'autodis':
    label = label or f'{model}+autodis'
  known_values = known_lib.known(data, main, values['tuned'], label)
  given = values['model_options']
  for key, value in given.items():
    if value is not None and not has(model, key):
      raise errors.ConfigError(
        f'model_options.{key} is set, but model {model!r} has no {key}.'
      )
  values['model_options'] = _options(given, known_values, values)
  controls = values.get('controls', ())
  searches = values.get('search', {})
  dims = searches.get('dims') or next(
    (searches[p]['dims'] for p in parts if 'dims' in searches.get(p, {})), ()
  )
  base_label = _fde(model, max(dims)) if dims and 'base' in controls else None
  plain = known_lib.known(data, model, values['tuned'], base_label)
  values['base_options'] = _options(given, plain, values)
  train = values['train']
  values['train'] = _filled(train, known_values)
  models = {
    'lr': 'lr',
    'base': model,
    'all': model + protocols.GATED,
    'uniform': model,
  }
  labels = {'base': base_label}
  for control in controls:
    kind = control.removeprefix('numeric_')
    if kind != control:
      models[control], labels[control] = model, f'{model}+{kind}'
  values['control_train'] = {
    control: _filled(
      train,
      known_lib.known(
        data,
        models.get(control, main),
        values['tuned'],
        labels.get(control) if control in models else label,
      ),
    )
    for control in controls
  }
  if dims and 'uniform' in controls:
    chosen = known_lib.tuned_on(data)['chosen'] if values['tuned'] else {}
    is_open = lambda key: train.get(key) is None and given.get(key) is None
    values['uniform_tuned'] = {
      str(dim): {
        key: value
        for key, value in chosen[_fde(model, dim)].items()
        if is_open(key)
      }
      for dim in dims
      if _fde(model, dim) in chosen
    }
  if 'search' in values:
    supernet = _supernet(values, model, like, known_values)
    of_parts = [
      supernet['search'].get(part, protocols.SEARCH) for part in parts
    ]
    # As long as the longest of them.
    lengths = {
      key: max(own.get(key) or 0 for own in of_parts) or None
      for key in ('epochs', 'min_steps')
    }
    searched = dict(supernet['search'].get(like, protocols.SEARCH)) | lengths
    for own in of_parts:
      if 'table_optimizer' in own:
        searched['table_optimizer'] = own['table_optimizer']
    search = _filled(values['search'], searched)
    for part, own in zip(parts, of_parts):
      if isinstance(search.get(part), dict):
        search[part] = _filled(search[part], own)
    if 'train' in search:
      given_train = search['train']
      search['train'] = _searched_train(values, given_train, searched, supernet)
      for part, own in zip(parts, of_parts):
        # In turn, each is trained as it is alone.
        if search.get('order') == 'in_turn' and part in search:
          known_of = known_lib.known(data, f'{model}+{part}', values['tuned'])
          alone = {'train': _filled(train, known_of)}
          supernet = _supernet(values | alone, model, part, known_of)
          filled = _searched_train(values | alone, given_train, own, supernet)
          filled['table_std'] = _filled(train, supernet)['table_std']
          search[part]['train'] = filled
    values['search'] = search
  return values


def _supernet(values, model, method, known_values):
  """What the weights of a search are trained by.

  As the result's where nothing else is known; a gated supernet as the model of
  all pairs is.
  """
  if method in protocols.GATED_METHODS:
    gated = model + protocols.GATED
    return known_lib.known(values['data'], gated, values['tuned'])
  return known_values | values['train']


def _searched_train(values, given_train, searched, supernet):
  """`search.train` with what was left open filled in."""
  optimizer = {'table_optimizer': values['train']['table_optimizer']}
  filled = given_train
  for known_of in (
    searched,
    supernet.get('searched', {}),
    optimizer,
    supernet,
  ):
    filled = _filled(filled, known_of)
  return filled


def _fde(model, dim):
  """The label of one width for all fields."""
  return f'{model}+fde{dim}'


def _options(given, known_values, values):
  """Options of the model, at the width of a smoke run if it is one."""
  options = {
    key: _filled({key: value}, known_values)[key]
    for key, value in given.items()
    if has(values['model'], key)
  }
  if values['tiny'] and given['hidden'] is None and 'hidden' in options:
    options['hidden'] = (32,)
  return options


def _filled(given: dict[str, Any], known_values: dict[str, Any]):
  return {
    key: known_values.get(key) if value is None else value
    for key, value in given.items()
  }


def batch_size(num_rows: int) -> int:
  """4096 rows, but fewer for a hundred steps per epoch, down to 256."""
  size = 4096
  while size > 256 and num_rows < 100 * size:
    size //= 2
  return size


def numeric_embedding(
  values: Mapping[str, Any],
) -> numeric_lib.Embedding | None:
  """The numeric embedding of a resolved config; None for the models' own.

  Raises:
    ConfigError: for an unknown kind, an option that the kind lacks, or options
      without a kind.
  """
  options = given(values.get('numeric') or {})
  kind = options.pop('kind', None)
  if kind is None and options:
    raise errors.ConfigError(
      f'numeric.{next(iter(options))} is set, but numeric.kind is not; '
      f'expected one of {", ".join(numeric_lib.EMBEDDINGS)}.'
    )
  return None if kind is None else numeric_lib.make(kind, **options)


def fit_batch_size(values: dict[str, Any], num_rows: int) -> dict[str, Any]:
  """The resolved config with batch sizes that were left open filled in."""
  fit = lambda train: _filled(train, {'batch_size': batch_size(num_rows)})
  return values | {
    'train': fit(values['train']),
    'control_train': {k: fit(v) for k, v in values['control_train'].items()},
  }


def given(options: dict[str, Any]) -> dict[str, Any]:
  """Options without those that are left to the model's factory."""
  return {key: value for key, value in options.items() if value is not None}


def training(
  values: dict[str, Any], parallel: str, **overrides: Any
) -> settings_lib.Settings:
  """The training settings of a resolved config."""
  return settings_lib.Settings(
    **(values['train'] | overrides), parallel=parallel
  )
