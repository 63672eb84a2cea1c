"""From a config to what the library takes: protocols, tuned values, checks."""

from collections.abc import Mapping
import functools
import json
import pathlib
from typing import Any

from absl import logging
from ml_collections import config_dict

from jax_autorec import errors, spaces
from jax_autorec import numeric as numeric_lib
from jax_autorec.data import planted_fields, planted_numeric
from jax_autorec.train import settings as settings_lib

TUNED = pathlib.Path(__file__).parent / 'tuned'

GATED = '+gates'

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


# Their supernet is the gated model, and what it wants is known.
_GATED_METHODS = ('autofis', 'gates')

# Their vectors or products are normalised.
_NORMALIZED_METHODS = (*_GATED_METHODS, 'autogroup')

# Where nothing else is known.
_DEFAULT = {
  'dim': 16,
  'epochs': 20,
  'batch_size': None,  # By the number of rows: `batch_size`.
  'learning_rate': 1e-3,
  'table_optimizer': 'adam',
  'table_std': 1e-4,
  'embedding_l2': 1e-6,
  'l2': 0.0,
  # Gates that no gradient reaches in time all close, however useful: few rows
  # need more passes, and all a learning rate that tells pairs apart.
  'search': {
    'autofis': {
      'epochs': 6,
      'min_steps': 1000,
      'ratio': 2.0,
      'learning_rate': 1e-2,
    },
    # Fewer updates leave the policy nearly even.
    # A dense optimiser would move the blocks that a draw switches off.
    'nis': {'epochs': 4, 'min_steps': 5000, 'table_optimizer': 'adam'},
    # At most: it stops as a training does.
    'sseds': {'epochs': 20, 'min_steps': 1000},
    'autosrh': {'epochs': 20, 'min_steps': 2000},
    'pep': {'epochs': 20, 'min_steps': 1000},
    'optembed': {'epochs': 20, 'min_steps': 1000},
  },
}

# Lengths of searches of which nothing is known.
_SEARCH = {'epochs': 10, 'min_steps': 1000}

# Products that are normalised need vectors that differ from the start: with
# the BARS protocol's 1e-4 they are noise, blown up, until early stopping ends
# the training. AutoFIS takes U(+-sqrt(6 / (V + d))), .02 on Frappe.
_GATED_STD = 0.01

# The standard deviation of the official code's tables: products of products
# start at nothing with less.
_BLOCKS_STD = 0.01

# Decay at most, where none was tuned for graphs of blocks: they have neither
# dropout nor normalisation, and what suits a DeepFM with both (.01 on Frappe)
# holds them back.
_BLOCKS_L2 = 1e-3

_PLANTED = {
  'dim': 8,
  'epochs': 20,
  'batch_size': 2000,
  'learning_rate': 1e-2,
  'table_optimizer': 'dense_adam',
  'table_std': 0.1,
  'embedding_l2': 1e-4,
  'first_order_l2': 1e-5,
  'hidden': (64, 64),
  'dropout': 0.0,
  'models': {'lr': {'first_order_l2': None}},
  'search': {
    'autofis': {
      'epochs': 6,
      'ratio': 4.0,
      'learning_rate': 2e-2,
      'embedding_l2': 1e-4,
    },
  },
}

# Data set -> settings; 'models' holds what differs by model. Frappe's are
# those of the BARS logs (d = 10, Adam 1e-3, batch 4096, L2 on whole tables).
PROTOCOLS: dict[str, dict[str, Any]] = {
  **dict.fromkeys(('planted', 'planted_triples'), _PLANTED),
  # Few rows per id: vectors need more decay than gates need to tell pairs
  # apart, so the search has weights' settings of its own.
  'planted_hard': _PLANTED
  | {
    'epochs': 40,
    'search': {
      'autofis': {
        'epochs': 8,
        'ratio': 4.0,
        'learning_rate': 2e-2,
        'embedding_l2': 1e-4,
      },
    },
  },
  # The largest rank that is planted; candidates are young for longer where
  # fields have no effect of their own.
  **dict.fromkeys(
    planted_fields.PRESETS,
    _PLANTED | {'dim': 16, 'search': {'autodim': {'epochs': 20}}},
  ),
  # Two numbers and two fields of four values are few: vectors are narrow.
  **dict.fromkeys(
    planted_numeric.PRESETS, _PLANTED | {'dim': 4, 'batch_size': 1000}
  ),
  'frappe': {
    'dim': 10,
    'epochs': 100,
    'batch_size': 4096,
    'table_optimizer': 'dense_adam',
    'hidden': (400, 400, 400),
    # By validation AUC; a ratio of 4 leaves too few pairs here.
    'search': {
      'autofis': {
        'epochs': 20,
        'ratio': 2.0,
        'learning_rate': 1e-2,
        'embedding_l2': 1e-3,
      },
    },
    'models': {
      'lr': {'embedding_l2': 1e-5},
      'fm': {'embedding_l2': 5e-6},
      # Those that decay all their weights alike.
      'ffm': {'embedding_l2': 1e-6, 'l2': 1e-6},
      'fwfm': {'embedding_l2': 5e-6, 'l2': 5e-6, 'linear': 'felv'},
      'fmfm': {'embedding_l2': 1e-5, 'l2': 1e-5, 'matrices': 'vectorized'},
      'hofm': {'embedding_l2': 1e-6, 'l2': 1e-6, 'shared': False},
      'afm': {'embedding_l2': 1e-5, 'size': 128, 'dropout': 0.1},
      'nfm': {'embedding_l2': 1e-4, 'norm': 'none', 'dropout': 0.4},
      'crossnet': {'embedding_l2': 1e-4, 'layers': 6},
      'crossnet_v2': {'embedding_l2': 1e-3, 'layers': 4},
      'cin': {'embedding_l2': 5e-4, 'sizes': (64, 64, 64)},
      'autoint': {
        'embedding_l2': 0.05,
        'layers': 6,
        'heads': 4,
        'size': 128,
        'scale': False,
        'layer_norm': False,
      },
      'wide_deep': {'embedding_l2': 0.1, 'norm': 'batch', 'dropout': 0.6},
      'deepfm': {'embedding_l2': 0.05, 'norm': 'batch', 'dropout': 0.2},
      'ipnn': {'embedding_l2': 0.05, 'norm': 'none', 'dropout': 0.3},
      'dcn': {
        'embedding_l2': 0.05,
        'layers': 3,
        'norm': 'batch',
        'dropout': 0.2,
      },
      'dcn_v2': {
        'embedding_l2': 0.05,
        'layers': 4,
        'norm': 'batch',
        'dropout': 0.4,
      },
      'xdeepfm': {
        'embedding_l2': 0.1,
        'sizes': (64,),
        'norm': 'batch',
        'dropout': 0.2,
      },
      'autoint_plus': {
        'embedding_l2': 0.1,
        'layers': 5,
        'heads': 4,
        'size': 128,
        'scale': True,
        'layer_norm': True,
        'norm': 'batch',
        'dropout': 0.1,
      },
      'fibinet': {
        'embedding_l2': 0.05,
        'matrices': 'all',
        'reduction': 2.0,
        'norm': 'batch',
        'dropout': 0.3,
      },
      'masknet': {
        'embedding_l2': 0.1,
        'sizes': (50, 50, 50),
        'reduction': 2.0,
        'norm': 'none',
        'dropout': 0.1,
      },
      # Not among those that were published: as with parallel blocks.
      'masknet_serial': {'embedding_l2': 0.1, 'dropout': 0.1},
      'finalmlp': {
        'embedding_l2': 0.05,
        'towers': ((400,), (100,)),
        'gate_hidden': (400,),
        'contexts': (('user',), ('item',)),
        'heads': 5,
        'norm': 'batch',
        'dropouts': (0.4, 0.4),
      },
      'dlrm': {
        'embedding_l2': 0.1,
        'product': 'cat',
        'norm': 'batch',
        'dropout': 0.4,
      },
    },
  },
  'diabetes130': {
    'dim': 10,
    'batch_size': 1024,
    'table_optimizer': 'dense_adam',
    # By validation AUC.
    'search': {
      'autofis': {
        'epochs': 10,
        'ratio': 1.5,
        'learning_rate': 1e-2,
        'embedding_l2': 1e-3,
      },
    },
  },
}


def has(model: str, option: str) -> bool:
  """Whether a base model has a 'dim', or an MLP with 'hidden', ..."""
  return option in spaces.options(model.split('+')[0])


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

  return changes(options(held), options(data))


def tuned_on(data: Mapping[str, Any]) -> dict[str, Any]:
  """What `experiments.tune` keeps of the data that a config names.

  Args:
    data: 'name', and the options of its loader.

  Returns:
    'chosen' and 'searched' of the file; nothing where there is none, or where
    it is of other data, which is logged.

  Raises:
    ConfigError: for a file that cannot be read.
  """
  path = TUNED / f'{pathlib.Path(data["name"]).stem}.json'
  content = read_tuned(path)
  difference = other_data(content.get('data', data), data)
  if difference:
    _log_once(f'{path} is not used, it is of other data: {difference}.')
    return {'chosen': {}, 'searched': {}}
  return content


def read_tuned(path: pathlib.Path) -> dict[str, Any]:
  """A file of `experiments.tune`; with nothing in it where there is none.

  Returns:
    'chosen', 'cells' and 'searched', each by label; 'data'.

  Raises:
    ConfigError: for a file that cannot be read.
  """
  empty = {'chosen': {}, 'cells': {}, 'searched': {}}
  if not path.exists():
    return empty
  try:
    return empty | json.loads(path.read_text('utf-8'))
  except (TypeError, ValueError) as error:
    raise errors.ConfigError(
      f'{path} does not hold tuned values ({error}): restore it, or delete it '
      'to tune again.'
    ) from error


@functools.cache
def _log_once(text: str) -> None:
  logging.info('%s', text)


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
  is_gated = kind in _GATED_METHODS
  values = dict(_DEFAULT)
  protocol = dict(PROTOCOLS.get(data['name'], {}))
  by_model = protocol.pop('models', {})
  searches = values['search'] | protocol.pop('search', {})
  values.update(protocol, search=searches)
  values.update(by_model.get(plain, {}))
  if kind in _NORMALIZED_METHODS:
    values['table_std'] = max(values['table_std'], _GATED_STD)
  if kind == 'autoctr':
    values['table_std'] = max(values['table_std'], _BLOCKS_STD)
  content = tuned_on(data) if tuned else {}
  if content:
    chosen = content['chosen']
    nearest = [label, model, *([plain + GATED] if is_gated else []), plain]
    values.update(next((chosen[m] for m in nearest if m in chosen), {}))
    # What the search started from when the row was tuned; a variant without
    # values of its own has those of the row that it is a variant of.
    searched = content['searched']
    values['searched'] = next(
      (searched[m] for m in (label, model) if m in searched), {}
    )
  is_own = {label, model} & {*content.get('chosen', ())}
  if kind == 'autoctr' and not is_own:
    values['embedding_l2'] = min(values['embedding_l2'], _BLOCKS_L2)
  return values


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
  like = next((p for p in parts if p in _NORMALIZED_METHODS), parts[0])
  main = f'{model}+{like}' if is_searched else model
  label = values['label']
  if values['method'] == 'autodis':
    label = label or f'{model}+autodis'
  known_values = known(data, main, values['tuned'], label)
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
  plain = known(data, model, values['tuned'], base_label)
  values['base_options'] = _options(given, plain, values)
  train = values['train']
  values['train'] = _filled(train, known_values)
  models = {'lr': 'lr', 'base': model, 'all': model + GATED, 'uniform': model}
  labels = {'base': base_label}
  for control in controls:
    kind = control.removeprefix('numeric_')
    if kind != control:
      models[control], labels[control] = model, f'{model}+{kind}'
  values['control_train'] = {
    control: _filled(
      train,
      known(
        data,
        models.get(control, main),
        values['tuned'],
        labels.get(control) if control in models else label,
      ),
    )
    for control in controls
  }
  if dims and 'uniform' in controls:
    chosen = tuned_on(data)['chosen'] if values['tuned'] else {}
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
    of_parts = [supernet['search'].get(part, _SEARCH) for part in parts]
    # As long as the longest of them.
    lengths = {
      key: max(own.get(key) or 0 for own in of_parts) or None
      for key in ('epochs', 'min_steps')
    }
    searched = dict(supernet['search'].get(like, _SEARCH)) | lengths
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
          known_of = known(data, f'{model}+{part}', values['tuned'])
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
  if method in _GATED_METHODS:
    return known(values['data'], model + GATED, values['tuned'])
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


def changes(
  old: dict[str, Any],
  new: dict[str, Any],
  fresh: dict[str, Any] | None = None,
) -> str:
  """What differs between two resolved configs, for a message; '' for nothing.

  A key that one of them lacks counts as None, and one that the old one lacks as
  `fresh` has it: what a config has come to offer since changes no run.

  Args:
    old: as config.json holds it.
    new: the same.
    fresh: the config with nothing set; None where it is not at hand.
  """
  old, new, fresh = _flat(old), _flat(new), _flat(fresh or {})
  changed = sorted(
    k
    for k in {*old, *new}
    if old.get(k) != new.get(k)
    and (k in old or k not in fresh or fresh[k] != new.get(k) or _is_tuned(k))
  )
  shown = [f'{k} is {old.get(k)!r}, now {new.get(k)!r}' for k in changed[:5]]
  shown += [f'{len(changed) - 5} more'] if len(changed) > 5 else []
  return '; '.join(shown)


def _is_tuned(key: str) -> bool:
  """Whether a key is there only once values were tuned."""
  return key.startswith('uniform_tuned.')


def _flat(values: Any, prefix: str = '') -> dict[str, Any]:
  """{'train': {'epochs': 2}} -> {'train.epochs': 2}."""
  if not isinstance(values, dict):
    return {prefix[:-1]: values}
  items = [_flat(v, f'{prefix}{key}.') for key, v in values.items()]
  return {key: value for item in items for key, value in item.items()}
