"""Chooses learning rate, L2 and dropout of models on the validation split.

One small grid, the same for every model, since what suits one (the L2 of
embeddings differs by four decades between models) cripples another and decides
comparisons. The test split is never read. Each cell is written as it is done,
to experiments/tuned/DATA.json, and is not trained again; configs read what is
chosen there. Commands may share a file.

  python -m experiments.tune --config=experiments/configs/autofis.py:frappe \
    --models=lr,fm,fm+gates,fm+autofis --data_dir=DIR

'fm+gates' is what AutoFIS selects from: all pairs, normalised and gated;
'fm+autofis' is what it derives (by one search, with the seed of the config).

Every row of a table (`--rows` takes patterns), under its label:

  python -m experiments.tune \
    --config=experiments/configs/embedding_table.py:movielens_1m \
    --rows='fm+*' --data_dir=DIR --workdir=DIR

A row's method searches once; the grid trains what it derived. The search starts
from what was chosen for the table's reference of the same model (tuned before
it), or for the plain model, or from the protocol. With --workdir a search that
was stopped goes on.
"""

import functools
import math
import pathlib
import time
from typing import Any

from absl import flags, logging

from experiments import cells as cells_lib
from experiments import cli, tuning
from experiments import known as known_lib
from experiments import settings as settings_lib
from jax_autorec import errors

_CONFIG = cli.config_flag(
  'experiments/configs/base.py:planted',
  'METHOD.py:DATA; any value that the grid does not set as --config.KEY=VALUE. '
  'Or a table.',
)
_DATA_DIR = flags.DEFINE_string('data_dir', 'data', 'Where data sets lie.')
_MODELS = flags.DEFINE_list(
  'models', ['lr', 'fm', 'fm+gates'], 'Models, if the config is no table.'
)
_ROWS = flags.DEFINE_list(
  'rows',
  None,
  "Rows of a table, or patterns of them ('fm+*'); all if left out.",
)
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
_WORKDIR = flags.DEFINE_string(
  'workdir', None, "Where searches of a table's rows are kept."
)
_DRY_RUN = flags.DEFINE_bool(
  'dry_run', False, 'Only print what would be trained, and how long it takes.'
)


def _axes() -> dict[str, list[float]]:
  """The grid.

  Raises:
    ConfigError: for an empty axis, or values that are no numbers, out of range
      or there twice.
  """
  flags_ = dict(zip(tuning.AXES, (_RATES, _L2, _DROPOUT)))
  ranges = {
    'learning_rate': ('above 0', lambda x: 0 < x < math.inf),
    'embedding_l2': ('from 0 on', lambda x: 0 <= x < math.inf),
    'dropout': ('from 0 to below 1', lambda x: 0 <= x < 1),
  }
  axes = {}
  for key, flag in flags_.items():
    words, is_fit = ranges[key]
    try:
      axes[key] = [float(x) for x in flag.value]
    except ValueError:
      axes[key] = []
    values = set(filter(is_fit, axes[key]))
    if not values or len(values) < len(axes[key]):
      raise errors.ConfigError(
        f'--{flag.name} is {",".join(flag.value)!r}; expected numbers {words}, '
        f'each once, as {",".join(flag.default)}.'
      )
  return axes


def _data_name(values) -> dict[str, Any]:
  """What the tuned values are of."""
  options = {k: v for k, v in values['data'].items() if k != 'max_rows'}
  if options['name'].startswith('planted'):
    options['seed'] = values['seed']
  return options


def _store(values) -> tuning.Store:
  name = pathlib.Path(values['data']['name']).stem
  if values['tiny'] and not _OUTPUT.value:
    raise errors.ConfigError(
      "What a ',tiny' run chooses is for no other run: give it a file of its "
      'own with --output.'
    )
  path = _OUTPUT.value or known_lib.TUNED / f'{name}.json'
  return tuning.Store(pathlib.Path(path), _data_name(values))


def _load(values):
  from experiments import stages

  return stages.load_data(values, _DATA_DIR.value)


def _models() -> tuple[tuning.Store, Any, list[tuning.Target]]:
  """The store, the data and what `--models` names."""
  values = _CONFIG.value.to_dict()
  for model in _MODELS.value:
    plain, _, kind = model.partition('+')
    ours = plain == values['model'] and kind == values['method']
    if kind not in ('', 'gates') and not ours:
      raise errors.ConfigError(
        f'To tune {model!r}, give --config=experiments/configs/{kind}.py:DATA '
        f'and --config.model={plain}.'
      )
  store, data = _store(values), _load(values)

  @functools.cache
  def derived():
    from experiments import stages

    resolved = settings_lib.fit_batch_size(
      settings_lib.resolve(_CONFIG.value), data.train.num_rows
    )
    return stages.derive(resolved, data, 'none', None).architecture

  return (
    store,
    data,
    [
      tuning.of_model(model, values, data, _axes(), derived)
      for model in _MODELS.value
    ],
  )


def _rows(table, failed: dict[str, str]):
  """The store, the data and the chosen rows, the references first.

  Targets are made as they are needed: the searches of later rows start from
  what is chosen for the references.
  """
  chosen = cells_lib.choose(cells_lib.rows(table), _ROWS.value)
  configs = {}
  for row in chosen:
    try:
      configs[row] = row.read().to_dict()
    except errors.ConfigError as error:
      failed[row.name] = str(error)
      logging.error('%s: %s', row.name, error)
  if not configs:
    raise errors.ConfigError(
      'None of the rows can be tuned: ' + '; '.join(failed.values())
    )
  first, *others = configs.values()
  for values in others:
    if values['data'] != first['data']:
      raise errors.ConfigError(
        f'Rows of one tuning share their data; got {first["data"]} and '
        f'{values["data"]}: choose with --rows.'
      )
  reference = table.get('reference')
  rows = sorted(configs, key=lambda row: row.method != reference)
  return _store(first), _load(first), rows


def _row_target(row, table, store, data) -> tuning.Target:
  content = store.read()
  config = row.read()
  label = tuning.row_label(config)
  # Of a search that was begun: as it was, whatever has been tuned since.
  start = content.get('searched', {}).get(label)
  if start is None:
    similar = [
      other.read().label
      for other in cells_lib.rows(table)
      if other.method == table.get('reference')
      and other.model == row.model
      and other.name != row.name
    ]
    known = [*similar, config.model]
    values = content['chosen']
    start = next((values[key] for key in known if key in values), {})
  workdir = None
  if _WORKDIR.value:
    workdir = pathlib.Path(_WORKDIR.value) / 'tune' / row.directory
  return tuning.of_row(row, data, _axes(), start, workdir)


def _tune(target, store, data) -> None:
  """Trains what the grid of a target lacks."""
  todo = store.todo(target)
  logging.info(
    '%s: %d cells, %d of them done',
    target.label,
    len(target.grid),
    len(target.grid) - len(todo),
  )
  if todo and target.searched is not None:
    with store.update() as content:
      content.setdefault('searched', {})[target.label] = dict(target.searched)
  start = time.monotonic()
  for i, cell in enumerate(todo, 1):
    done = tuning.train(target, cell, data)
    best = store.add(target, done)
    logging.info(
      '%s %s: %s, best %.5f; %d of %d cells, ETA %.0f min',
      target.label,
      ', '.join(f'{key} {value:g}' for key, value in cell.items()),
      f'valid AUC {done["valid_auc"]:.5f}'
      if 'valid_auc' in done
      else f'failed ({done["failed"]})',
      best.get('valid_auc', float('nan')),
      i,
      len(todo),
      (time.monotonic() - start) / i * (len(todo) - i) / 60,
    )


def _dry_run(targets, store) -> None:
  """Prints what is to do, with hours by the cells that are trained."""
  cells = store.read()['cells']
  times = {
    target.row: [
      cell['seconds']
      for cell in cells.get(target.label, ())
      if 'seconds' in cell
    ]
    for target in targets
  }
  estimates = cells_lib.estimate(times, [target.row for target in targets])
  total, unknown, searches = 0.0, 0, 0
  for target in targets:
    todo, guess = store.todo(target), estimates[target.row]
    text = f'{target.label}: {len(todo)} of {len(target.grid)} cells to do'
    if todo and guess.seconds is None:
      unknown += len(todo)
      text += ', time unknown'
    elif todo:
      total += guess.seconds * len(todo)
      text += f', some {guess.seconds * len(todo) / 3600:.2f} h'
      text += '' if guess.own else ', scaled from other rows'
    if todo and target.searched is not None:
      searches += 1
    print(text)
  text = f'Some {total / 3600:.2f} h in all'
  text += f', and {unknown} cells of unknown time' if unknown else ''
  text += f'; without the searches of {searches} rows' if searches else ''
  print(text + '.')


def main(argv: list[str]) -> None:
  """Trains what the grid lacks and writes what is chosen."""
  if len(argv) > 1:
    raise errors.ConfigError(f'Unknown arguments: {" ".join(argv[1:])}.')
  _axes()  # Before any data is read.
  table, failed = _CONFIG.value.to_dict(), {}
  if 'rows' in table:
    store, data, rows = _rows(table, failed)
    makers = {
      row.name: functools.partial(_row_target, row, table, store, data)
      for row in rows
    }
  else:
    store, data, targets = _models()
    makers = {t.label: functools.partial(lambda t: t, t) for t in targets}
  targets = []
  for name, make in makers.items():
    try:
      targets.append(make())
      if not _DRY_RUN.value:
        _tune(targets[-1], store, data)
    except errors.AutorecError as error:
      if 'rows' not in table:
        raise
      failed[name] = str(error)
      logging.error('%s: %s', name, error)
  if _DRY_RUN.value:
    _dry_run(targets, store)
  else:
    chosen = store.read()['chosen']
    for target in targets:
      print(f'{target.label}: {chosen.get(target.label, "nothing")}')
    print(f'Written: {store.path}')
  if failed:
    raise errors.ConfigError(
      f'{len(failed)} rows were not tuned: '
      + '; '.join(f'{name}: {reason}' for name, reason in failed.items())
    )


if __name__ == '__main__':
  cli.run(main)
