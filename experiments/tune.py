"""Chooses learning rate, L2 and dropout of models on the validation split.

One small grid, the same for every model, since what suits one (the L2 of
embeddings differs by four decades between models) cripples another and decides
comparisons. The test split is never read. Each cell is written as it is done,
to experiments/tuned/DATA.json, and is not trained again; configs read what is
chosen there.

  python -m experiments.tune --config=experiments/configs/autofis.py:frappe \
    --models=lr,fm,fm+gates,fm+autofis --data_dir=DIR

'fm+gates' is what AutoFIS selects from: all pairs, normalised and gated;
'fm+autofis' is what it derives (by one search, with the seed of the config).
"""

import dataclasses
import functools
import itertools
import json
import os
import pathlib
import time
from typing import Any

from absl import flags, logging

from experiments import cli
from experiments import settings as settings_lib
from jax_autorec import errors

_CONFIG = cli.config_flag(
  'experiments/configs/base.py:planted',
  'METHOD.py:DATA; any value that the grid does not set as --config.KEY=VALUE.',
)
_DATA_DIR = flags.DEFINE_string('data_dir', 'data', 'Where data sets lie.')
_MODELS = flags.DEFINE_list('models', ['lr', 'fm', 'fm+gates'], 'Models.')
_RATES = flags.DEFINE_list(
  'learning_rates', ['1e-3', '3e-3', '1e-2'], 'Learning rates of the grid.'
)
_L2 = flags.DEFINE_list(
  'l2', ['1e-5', '1e-4', '1e-3', '1e-2', '1e-1'], 'embedding_l2 of the grid.'
)
_DROPOUT = flags.DEFINE_list(
  'dropout', ['0', '0.3'], 'Dropout of the grid, of models with an MLP.'
)
_OUTPUT = flags.DEFINE_string(
  'output', None, 'The file to write; experiments/tuned/DATA.json if left out.'
)


def _grid(model: str) -> list[dict[str, float]]:
  axes = {
    'learning_rate': _RATES.value,
    'embedding_l2': _L2.value,
  }
  if settings_lib.has(model, 'dropout'):
    axes['dropout'] = _DROPOUT.value
  values = [[float(x) for x in axis] for axis in axes.values()]
  return [dict(zip(axes, cell)) for cell in itertools.product(*values)]


def _architecture(model, options, data, derived):
  """What a name of `--models` stands for."""
  from jax_autorec import spaces
  from jax_autorec.search import controls

  plain, _, kind = model.partition('+')
  if not kind:
    return spaces.build(plain, data.schema, **options)
  if kind == 'gates':
    space = spaces.build(plain, data.schema, pairs='open', **options)
    return controls.keep_all(space)
  # The search is the costly part, and the grid does not touch it.
  found = derived()
  return dataclasses.replace(
    spaces.build(plain, data.schema, **options),
    interactions=found.interactions,
  )


def _train(model, cell, values, data, derived) -> dict[str, Any]:
  """Trains one cell; returns it with its validation metrics."""
  from jax_autorec import pipeline
  from jax_autorec.train import settings as train_settings

  known = settings_lib.known(values['data']['name'], model, tuned=False)
  known |= settings_lib.given(values['train']) | cell
  if known['batch_size'] is None:
    known['batch_size'] = settings_lib.batch_size(data.train.num_rows)
  options = {
    key: known[key]
    for key in ('dim', 'hidden', 'norm', 'dropout')
    if known.get(key) is not None and settings_lib.has(model, key)
  }
  settings = train_settings.Settings(
    **{key: known[key] for key in values['train'] if key in known}
  )
  trained = pipeline.retrain(
    _architecture(model, options, data, derived),
    data,
    settings,
    seed=values['seed'],
    stage='tune',
  )
  return cell | {
    'valid_auc': trained.valid['auc'],
    'valid_logloss': trained.valid['logloss'],
    'best_step': trained.info['best_step'],
    'seconds': round(trained.info['seconds'], 2),
  }


def _read(path: pathlib.Path) -> dict[str, Any]:
  if path.exists():
    return json.loads(path.read_text('utf-8'))
  return {'chosen': {}, 'cells': {}}


def _write(path: pathlib.Path, result: dict[str, Any]) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  partial = path.with_suffix('.partial')
  partial.write_text(json.dumps(result, indent=1) + '\n', 'utf-8')
  os.replace(partial, path)


def _same(cell: dict[str, float], done: dict[str, float]) -> bool:
  return all(done.get(key) == value for key, value in cell.items())


def main(argv: list[str]) -> None:
  """Trains what the grid lacks and writes what is chosen."""
  if len(argv) > 1:
    raise errors.ConfigError(f'Unknown arguments: {" ".join(argv[1:])}.')
  values = _CONFIG.value.to_dict()
  for model in _MODELS.value:
    plain, _, kind = model.partition('+')
    ours = plain == values['model'] and kind == values['method']
    if kind not in ('', 'gates') and not ours:
      raise errors.ConfigError(
        f'To tune {model!r}, give --config=experiments/configs/{kind}.py:DATA '
        f'and --config.model={plain}.'
      )
  from experiments import stages
  from jax_autorec import data as data_lib
  from jax_autorec.data import datasets

  options = dict(values['data'])
  name, max_rows = options.pop('name'), options.pop('max_rows')
  if name in datasets.GENERATORS:
    options['seed'] = values['seed']
  data = data_lib.load(name, _DATA_DIR.value, **options)
  if max_rows:
    data = data.head(max_rows)
  default = settings_lib.TUNED / f'{pathlib.Path(name).stem}.json'
  path = pathlib.Path(_OUTPUT.value or default)
  result = _read(path)
  result['data'] = {'name': name, **options}
  result['seed'] = values['seed']

  @functools.cache
  def derived():
    resolved = settings_lib.fit_batch_size(
      settings_lib.resolve(_CONFIG.value), data.train.num_rows
    )
    return stages.derive(resolved, data, 'none', None).architecture

  cells = [(model, cell) for model in _MODELS.value for cell in _grid(model)]
  todo = [
    (model, cell)
    for model, cell in cells
    if not any(_same(cell, d) for d in result['cells'].get(model, ()))
  ]
  logging.info('%d cells, %d of them done', len(cells), len(cells) - len(todo))
  start = time.monotonic()
  for i, (model, cell) in enumerate(todo, 1):
    done = _train(model, cell, values, data, derived)
    result['cells'].setdefault(model, []).append(done)
    best = max(result['cells'][model], key=lambda x: x['valid_auc'])
    result['chosen'][model] = {key: best[key] for key in cell}
    _write(path, result)
    logging.info(
      '%s %s: valid AUC %.5f, best %.5f; %d of %d cells, ETA %.0f min',
      model,
      ', '.join(f'{key} {value:g}' for key, value in cell.items()),
      done['valid_auc'],
      best['valid_auc'],
      i,
      len(todo),
      (time.monotonic() - start) / i * (len(todo) - i) / 60,
    )
  for model in _MODELS.value:
    print(f'{model}: {result["chosen"][model]}')
  print(f'Written: {path}')


if __name__ == '__main__':
  cli.run(main)
