"""From a config to what the library takes: protocols, tuned values, checks."""

import difflib
import json
import pathlib
from typing import Any

from ml_collections import config_dict

from jax_autorec import errors
from jax_autorec.train import settings as settings_lib

TUNED = pathlib.Path(__file__).parent / 'tuned'

# Where nothing else is known.
_DEFAULT = {
  'dim': 16,
  'epochs': 20,
  'batch_size': 4096,
  'learning_rate': 1e-3,
  'table_optimizer': 'adam',
  'table_std': 1e-4,
  'embedding_l2': 1e-6,
}

# Data set -> settings; 'models' holds what differs by model. Frappe's are
# those of the BARS logs (d = 10, Adam 1e-3, batch 4096, L2 on whole tables).
PROTOCOLS: dict[str, dict[str, Any]] = {
  'planted': {
    'dim': 8,
    'epochs': 20,
    'batch_size': 2000,
    'learning_rate': 1e-2,
    'table_optimizer': 'dense_adam',
    'table_std': 0.1,
    'embedding_l2': 1e-4,
    'hidden': (64, 64),
    'dropout': 0.0,
  },
  'frappe': {
    'dim': 10,
    'epochs': 100,
    'table_optimizer': 'dense_adam',
    'hidden': (400, 400, 400),
    'models': {
      'lr': {'embedding_l2': 1e-5},
      'fm': {'embedding_l2': 5e-6},
      'wide_deep': {'embedding_l2': 0.1, 'norm': 'batch', 'dropout': 0.6},
      'deepfm': {'embedding_l2': 0.05, 'norm': 'batch', 'dropout': 0.2},
      'ipnn': {'embedding_l2': 0.05, 'norm': 'none', 'dropout': 0.3},
    },
  },
  'diabetes130': {
    'dim': 10,
    'batch_size': 1024,
    'table_optimizer': 'dense_adam',
  },
}
PROTOCOLS['planted_hard'] = PROTOCOLS['planted']

_NO_MLP = ('lr', 'fm')


def known(data: str, model: str) -> dict[str, Any]:
  """Protocol and tuned values for a data set and a model."""
  values = dict(_DEFAULT)
  protocol = dict(PROTOCOLS.get(data, {}))
  by_model = protocol.pop('models', {})
  values.update(protocol)
  values.update(by_model.get(model, {}))
  tuned = TUNED / f'{pathlib.Path(data).stem}.json'
  if tuned.exists():
    chosen = json.loads(tuned.read_text('utf-8')).get('chosen', {})
    values.update(chosen.get(model, {}))
  return values


def resolve(config: config_dict.ConfigDict) -> dict[str, Any]:
  """The config as plain values, with what was left open filled in.

  Raises:
    ConfigError: for an MLP option of a model without one.
  """
  values = config.to_dict()
  known_values = known(values['data']['name'], values['model'])
  model_options = values['model_options']
  for key in ('dim', 'hidden', 'norm', 'dropout'):
    takes = values['model'] != 'lr' and (
      key == 'dim' or values['model'] not in _NO_MLP
    )
    if not takes and model_options[key] is not None:
      raise errors.ConfigError(
        f'model_options.{key} is set, but model {values["model"]!r} has no '
        f'{key}.'
      )
    if model_options[key] is None:
      model_options[key] = known_values.get(key) if takes else None
  if values['tiny'] and config.model_options.hidden is None:
    if model_options['hidden']:
      model_options['hidden'] = (32,)
  train = values['train']
  for key, value in train.items():
    if value is None:
      train[key] = known_values.get(key)
  return values


def model_options(values: dict[str, Any]) -> dict[str, Any]:
  """Arguments for the model's factory in `spaces`."""
  return {k: v for k, v in values['model_options'].items() if v is not None}


def training(values: dict[str, Any], parallel: str) -> settings_lib.Settings:
  """The training settings of a resolved config."""
  return settings_lib.Settings(**values['train'], parallel=parallel)


def check_overrides(
  arguments: list[str], config: config_dict.ConfigDict
) -> None:
  """Refuses --config.KEY for keys that the config does not have.

  Raises:
    ConfigError: lists the known keys and the nearest.
  """
  for argument in arguments:
    if not argument.startswith('--config.'):
      continue
    key = argument.removeprefix('--config.').split('=')[0]
    known = sorted(_keys(config))
    if key not in known:
      near = difflib.get_close_matches(key, known, 1)
      hint = f' Did you mean {near[0]!r}?' if near else ''
      raise errors.ConfigError(
        f'No config key {key!r}.{hint} The keys are: {", ".join(known)}.'
      )


def _keys(config, prefix=''):
  for key in config:
    value = config.get_ref(key).get() if hasattr(config, 'get_ref') else None
    if isinstance(value, config_dict.ConfigDict):
      yield from _keys(value, f'{prefix}{key}.')
    else:
      yield prefix + key
