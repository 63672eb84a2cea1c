"""Runs a table of experiments over seeds and compares them in pairs.

  python -m experiments.compare \
    --config=experiments/configs/autofis_table.py:frappe \
    --data_dir=DIR --workdir=DIR

Each cell (row x seed) is one `experiments.run` in a directory of its own:
finished cells are not run again, a stopped one continues, a failed one is
marked with its reason and the others go on. Writes `cells.csv`, one line per
trained model, and `table.md`: mean and standard deviation over seeds, and how
far each result is from its controls, paired by seed.
"""

import concurrent.futures
import csv
import dataclasses
import json
import os
import pathlib
import re
import subprocess
import sys
import time
from typing import Any

from absl import flags, logging
import numpy as np

from experiments import cli
from jax_autorec import errors, metrics

_CONFIG = cli.config_flag(
  None, 'A table: a file in experiments/configs, with its argument.'
)
_DATA_DIR = flags.DEFINE_string('data_dir', 'data', 'Where data sets lie.')
_WORKDIR = flags.DEFINE_string('workdir', None, 'Where cells and tables go.')
_SEEDS = flags.DEFINE_list('seeds', None, "Seeds in place of the table's.")
_ROWS = flags.DEFINE_list('rows', None, 'Rows to run; all if left out.')
_JOBS = flags.DEFINE_integer('jobs', 1, 'Cells run at the same time.')
_DRY_RUN = flags.DEFINE_bool('dry_run', False, 'Only print what would be run.')


@dataclasses.dataclass(frozen=True)
class Cell:
  """One run.

  Attributes:
    row: name of the row.
    seed: its seed.
    command: arguments after `python`.
    workdir: its directory.
  """

  row: str
  seed: int
  command: tuple[str, ...]
  workdir: pathlib.Path

  @property
  def report(self) -> pathlib.Path:
    return self.workdir / 'report.json'


def _cells(config, workdir: pathlib.Path) -> list[Cell]:
  configs = pathlib.Path(__file__).parent / 'configs'
  rows = config['rows']
  chosen = _ROWS.value or list(rows)
  unknown = set(chosen) - set(rows)
  if unknown:
    raise errors.ConfigError(
      f'No row {sorted(unknown)[0]!r}; the rows are: {", ".join(rows)}.'
    )
  cells = []
  for name in chosen:
    row = rows[name]
    for seed in _SEEDS.value or config['seeds']:
      place = workdir / 'cells' / re.sub(r'\W+', '_', name) / f'seed_{seed}'
      overrides = [f'--config.{k}={v}' for k, v in row['set'].items()]
      command = (
        '-m',
        'experiments.run',
        f'--config={configs / row["config"]}',
        *overrides,
        f'--config.seed={seed}',
        f'--data_dir={_DATA_DIR.value}',
        f'--workdir={place}',
      )
      cells.append(Cell(name, int(seed), command, place))
  return cells


def _run(cell: Cell) -> str | None:
  """Runs a cell unless it is finished; returns why it failed, or None."""
  if cell.report.exists():
    return None
  try:
    cell.workdir.mkdir(parents=True, exist_ok=True)
    with open(cell.workdir / 'log.txt', 'a', encoding='utf-8') as log:
      done = subprocess.run(
        [sys.executable, *cell.command], stdout=log, stderr=log, check=False
      )
  except OSError as error:
    return f'cannot write {cell.workdir}: {error.strerror}'
  if done.returncode == 0 and cell.report.exists():
    return None
  lines = (cell.workdir / 'log.txt').read_text('utf-8').strip().splitlines()
  return f'status {done.returncode}: {lines[-1] if lines else "no output"}'


def _run_all(cells: list[Cell]) -> dict[Cell, str]:
  """Runs all cells with progress; returns the reasons of those that failed."""
  failed = {}
  todo = [cell for cell in cells if not cell.report.exists()]
  logging.info('%d cells, %d of them done', len(cells), len(cells) - len(todo))
  start = time.monotonic()
  with concurrent.futures.ThreadPoolExecutor(_JOBS.value) as pool:
    futures = {pool.submit(_run, cell): cell for cell in todo}
    finished = concurrent.futures.as_completed(futures)
    for done, future in enumerate(finished, 1):
      cell, reason = futures[future], future.result()
      if reason:
        failed[cell] = reason
      elapsed = time.monotonic() - start
      logging.info(
        '%s, seed %d: %s; %d of %d cells, ETA %.0f min',
        cell.row,
        cell.seed,
        f'failed ({reason})' if reason else 'done',
        done,
        len(todo),
        elapsed / done * (len(todo) - done) / 60,
      )
  return failed


def _entries(cell: Cell) -> list[dict[str, Any]]:
  """One line per model that a finished cell trained."""
  report = json.loads(cell.report.read_text('utf-8'))
  models = {'result': report, **report['controls']}
  lines = []
  for name, model in models.items():
    line = {'row': cell.row, 'seed': cell.seed, 'model': name}
    line |= {key: model['test'][key] for key in ('auc', 'logloss')}
    line['valid_auc'] = model['valid']['auc']
    line['embedding_params'] = model['embedding_params']
    line['total_params'] = model['total_params']
    searched = report.get('search')
    line['kept'] = searched['kept'] if searched and name == 'result' else None
    line['of'] = searched['of'] if searched else None
    recovered = report.get('recovered') if name == 'result' else None
    for key in ('planted', 'planted_kept', 'others', 'others_pruned'):
      line[key] = recovered[key] if recovered else None
    line['closed'] = _closed(report, model)
    lines.append(line)
  return lines


def _closed(report, model) -> float | None:
  """Share of the gap in logloss from LR to the Bayes optimum, if known."""
  if 'bayes' not in report or 'lr' not in report['controls']:
    return None
  worst = report['controls']['lr']['test']['logloss']
  best = report['bayes']['test']['logloss']
  return (worst - model['test']['logloss']) / (worst - best)


def _spread(values: list[float], digits: int) -> str:
  std = f' ± {np.std(values, ddof=1):.{digits}f}' if len(values) > 1 else ''
  return f'{np.mean(values):.{digits}f}{std}'


def _markdown(entries: list[dict[str, Any]], failed: dict[Cell, str]) -> str:
  """The tables: figures, then paired differences."""
  groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
  for entry in entries:
    groups.setdefault((entry['row'], entry['model']), []).append(entry)
  has_truth = any(entry['closed'] is not None for entry in entries)
  header = ['row', 'model', 'seeds', 'test AUC', 'test logloss', 'parameters']
  header += ['pairs kept'] + (['gap closed'] if has_truth else [])
  lines = [header, ['---'] * len(header)]
  for (row, model), group in groups.items():
    column = lambda key, group=group: [e[key] for e in group]
    kept = ''
    if group[0]['kept'] is not None:
      kept = f'{_spread(column("kept"), 1)} of {group[0]["of"]}'
    line = [
      row,
      model,
      str(len(group)),
      _spread(column('auc'), 5),
      _spread(column('logloss'), 5),
      f'{np.mean(column("total_params")):,.0f}',
      kept,
    ]
    if has_truth:
      known = group[0]['closed'] is not None
      line.append(_spread(column('closed'), 3) if known else '')
    lines.append(line)
  text = ['| ' + ' | '.join(line) + ' |' for line in lines]
  text += ['', *_differences(groups)]
  for cell, reason in failed.items():
    text.append(f'\nFailed: {cell.row}, seed {cell.seed}: {reason}')
  return '\n'.join(text) + '\n'


def _differences(groups) -> list[str]:
  """Test AUC of each result less that of its controls, paired by seed."""
  header = ['row', 'result less', 'AUC, mean', '95 % interval', 'p', 'seeds']
  lines = [header, ['---'] * len(header)]
  for (row, model), group in groups.items():
    result = {e['seed']: e['auc'] for e in groups[row, 'result']}
    if model == 'result' or len(group) < 2:
      continue
    paired = metrics.paired_difference(
      [result[e['seed']] for e in group], [e['auc'] for e in group]
    )
    lines.append(
      [
        row,
        model,
        f'{paired["mean"]:+.5f}',
        f'{paired["low"]:+.5f} to {paired["high"]:+.5f}',
        f'{paired["p"]:.3g}',
        str(paired['n']),
      ]
    )
  if len(lines) == 2:
    return []
  return ['| ' + ' | '.join(line) + ' |' for line in lines]


def _write(path: pathlib.Path, text: str) -> None:
  partial = path.with_suffix('.partial')
  partial.write_text(text, 'utf-8')
  os.replace(partial, path)


def main(argv: list[str]) -> None:
  """Runs the cells and writes the tables."""
  if len(argv) > 1:
    raise errors.ConfigError(f'Unknown arguments: {" ".join(argv[1:])}.')
  if _CONFIG.value is None or not _WORKDIR.value:
    raise errors.ConfigError('Give --config=TABLE.py:ARGUMENT and --workdir.')
  workdir = pathlib.Path(_WORKDIR.value)
  cells = _cells(_CONFIG.value.to_dict(), workdir)
  if _DRY_RUN.value:
    for cell in cells:
      state = 'done' if cell.report.exists() else 'to do'
      print(f'{state}: python {" ".join(cell.command)}')
    return
  failed = _run_all(cells)
  entries = [
    entry for cell in cells if cell.report.exists() for entry in _entries(cell)
  ]
  if entries:
    with open(workdir / 'cells.csv', 'w', encoding='utf-8', newline='') as file:
      writer = csv.DictWriter(file, list(entries[0]))
      writer.writeheader()
      writer.writerows(entries)
  table = _markdown(entries, failed)
  _write(workdir / 'table.md', table)
  print(table)
  if failed:
    raise errors.ConfigError(
      f'{len(failed)} of {len(cells)} cells failed; their log.txt says more. '
      'The same command runs them again.'
    )


if __name__ == '__main__':
  cli.run(main)
