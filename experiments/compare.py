"""Runs a table of experiments over seeds and compares its rows.

  python -m experiments.compare \
    --config=experiments/configs/embedding_table.py:movielens_1m \
    --data_dir=DIR --workdir=DIR

Each cell (row x seed) is one `experiments.run` in a directory of its own:
finished cells are not run again, a stopped one continues, a failed one is
marked with its reason and the others go on. A finished one with a damaged file,
or whose config has changed since, is in no table and left alone until its
directory is deleted; so is one that another command runs. `--rows` (patterns:
'fm+*') and `--seeds` take a part; what they give adds up in one workdir, and
every command makes the tables from all that is finished, and says what is
missing.

Writes `compare.html`, `table.md`, `cells.csv` (one line per trained model),
`figures.csv` (mean and spread over seeds) and `differences.csv` (tests against
the references).
"""

import collections
import json
import pathlib
import re
import shlex

from absl import flags

from experiments import cells as cells_lib
from experiments import cli
from experiments import known as known_lib
from jax_autorec import errors, files

_CONFIG = cli.config_flag(
  None, 'A table: a file in experiments/configs, with its argument.'
)
_DATA_DIR = flags.DEFINE_string('data_dir', 'data', 'Where data sets lie.')
_WORKDIR = flags.DEFINE_string('workdir', None, 'Where cells and tables go.')
_SEEDS = flags.DEFINE_list('seeds', None, "Seeds in place of the table's.")
_ROWS = flags.DEFINE_list(
  'rows', None, "Rows to run, or patterns of them ('fm+*'); all if left out."
)
_JOBS = flags.DEFINE_integer('jobs', 1, 'Cells run at the same time.')
_DRY_RUN = flags.DEFINE_bool(
  'dry_run', False, 'Only print what would be run, and how long it will take.'
)


def _seeds(table) -> list[int]:
  """The seeds to run.

  Raises:
    ConfigError: for anything but whole numbers from 0 on, each once.
  """
  if _SEEDS.value is None:
    return list(table['seeds'])
  # A cell is found again by the digits of its directory.
  seeds = [int(seed) for seed in _SEEDS.value if re.fullmatch('[0-9]+', seed)]
  if not seeds or len(set(seeds)) < len(_SEEDS.value):
    raise errors.ConfigError(
      f'--seeds is {",".join(_SEEDS.value)!r}; expected whole numbers from 0 '
      'on, each once, as 2021,2022.'
    )
  return seeds


def _tuning_times(rows) -> dict[cells_lib.Row, list[float]]:
  """Seconds of trainings while rows were tuned; searches come on top."""
  found = {}
  for row in rows:
    config = row.read()
    if config.tiny or config.data.max_rows:
      continue
    labels = f'{config.model}+{config.method}', config.model
    found[row] = known_lib.training_seconds(
      config.data.to_dict(), config.label, *labels
    )
  return {row: seconds for row, seconds in found.items() if seconds}


def _dry_run(cells, everything) -> None:
  """Prints the cells with their state, and the hours of those to do."""
  times = cells_lib.timed({*cells, *everything})
  is_timed = bool(times)
  times = times or _tuning_times({cell.row for cell in cells})
  estimates = cells_lib.estimate(times, {cell.row for cell in cells})
  total, unknown, scaled = 0.0, 0, 0
  states = collections.Counter()
  for cell in cells:
    command = f'python {shlex.join(cell.command(_DATA_DIR.value))}'
    state = cell.state
    states[state] += 1
    if state == 'done':
      spent = cells_lib.seconds(cell)
      took = f'took {spent / 3600:.2f} h' if spent else 'time unknown'
      print(f'done, {took}: {command}')
      continue
    if state not in cells_lib.TO_DO:
      print(f'left alone ({cell.missing}): {command}')
      continue
    guess = estimates[cell.row]
    note = 'time unknown'
    if guess.seconds is None:
      unknown += 1
    else:
      total += guess.seconds
      scaled += not guess.own
      source = '' if guess.own else ', scaled from other rows'
      note = f'some {guess.seconds / 3600:.2f} h{source}'
    reason = f' ({cell.missing})' if state == 'failed' else ''
    print(f'to do{reason}, {note}: {command}')
  todo = sum(states[state] for state in cells_lib.TO_DO)
  text = f'{todo} of {len(cells)} cells to do'
  if todo > unknown:
    text += f'; some {total / _JOBS.value / 3600:.2f} h'
    text += '' if is_timed else ' of training, as it took while tuning'
    text += f' with --jobs={_JOBS.value}' if _JOBS.value > 1 else ''
    text += f', {scaled} cells scaled from other rows' if scaled else ''
    text += '' if is_timed else '; searches and controls come on top'
  if unknown:
    text += (
      f'; {unknown} cells of unknown time: nothing is finished to tell by, run '
      'one (--rows=..., --seeds=...)'
    )
  alone = [f'{states[s]} {s}' for s in cells_lib.LEFT_ALONE if states[s]]
  text += f'; left alone: {", ".join(alone)}' if alone else ''
  print(text + '.')


def _made(cells) -> list[tuple[str, str]]:
  """How the tables came about, see `report.how_made`."""
  from jax_autorec import report

  # What makes the whole table, whichever part of it was run the last.
  given = flags.FLAGS['config']
  arguments = [
    f'--config={given.config_filename}',
    *(f'--config.{key}={v}' for key, v in given.override_values.items()),
    f'--data_dir={_DATA_DIR.value}',
    f'--workdir={_WORKDIR.value}',
  ]
  command = shlex.join(['python', '-m', 'experiments.compare', *arguments])
  reports = [
    (json.loads(c.report.read_text('utf-8')), c.report.stat().st_mtime)
    for c in cells
  ]
  seeds = sorted({cell.seed for cell in cells})
  return report.how_made(reports, seeds, command)


def _page(summary, made) -> dict:
  """What `report.render_comparison` shows of a summary."""
  from experiments import tables

  groups = []
  for group in summary['groups']:
    headings, rows = tables.figures(group)
    front = {group['points'][i]['row'] for i in group['front']}
    groups.append(
      {
        'name': group['name'],
        'headings': headings[:-1],
        'rows': [row[:-1] for row in rows],
        'marked': [
          i
          for i, line in enumerate(group['figures'])
          if (line['row'], line['model']) in front
        ],
        'points': group['points'],
        'front': group['front'],
        'families': tables.families(group),
      }
    )
  verdicts = [
    d['verdict'] for group in summary['groups'] for d in group['differences']
  ]
  tiles = [('cells done', f'{summary["done"]} of {summary["of"]}')]
  for state in ('failed', *cells_lib.LEFT_ALONE):
    count = sum(r.startswith(state) for _, _, r in summary['missing'])
    tiles += [(f'cells {state}', str(count))] if count else []
  judged = ('better', 'worse', 'tie')
  if not set(verdicts).isdisjoint(judged):
    tiles += [(v, str(verdicts.count(v))) for v in judged]
  headings, rows = tables.within(summary)
  return {
    'title': 'Comparison: '
    + '; '.join(group['name'] for group in summary['groups']),
    'subtitle': 'Rows are methods; every figure is over seeds.',
    'is_tiny': summary['tiny'],
    'tiles': tiles,
    'groups': groups,
    'notes': [*tables.notes(summary), 'Set off: the Pareto front.'],
    'tests': tables.TESTS,
    'within': (headings, rows) if rows else None,
    'missing': tables.missing(summary),
    'made': made,
  }


def main(argv: list[str]) -> None:
  """Runs the cells and writes the tables."""
  if len(argv) > 1:
    raise errors.ConfigError(f'Unknown arguments: {" ".join(argv[1:])}.')
  if _CONFIG.value is None or not _WORKDIR.value:
    raise errors.ConfigError('Give --config=TABLE.py:ARGUMENT and --workdir.')
  table = _CONFIG.value.to_dict()
  if 'rows' not in table:
    raise errors.ConfigError(
      'This config is one experiment, not a table of them: run it with '
      '`python -m experiments.run`, or see experiments/configs/*_table.py.'
    )
  workdir = pathlib.Path(_WORKDIR.value)
  rows = cells_lib.rows(table)
  seeds = _seeds(table)
  chosen = cells_lib.choose(rows, _ROWS.value)
  cells = cells_lib.make(chosen, seeds, workdir)
  runner = cells_lib.Runner(_DATA_DIR.value, workdir, _JOBS.value)
  everything = cells_lib.known(rows, table['seeds'], workdir)
  if _DRY_RUN.value:
    _dry_run(cells, everything)
    return
  failed = runner.run_all(cells, everything)

  from experiments import tables  # Late: a dry run needs no statistics.
  from jax_autorec import report

  # Read anew: what has been run is finished now.
  everything = cells_lib.known(rows, table['seeds'], workdir)
  summary = tables.summarize(everything, table.get('reference'))
  tables.write_csv(workdir, summary)
  made = _made([cell for cell in everything if cell.is_done])
  text = tables.markdown(summary)
  lines = [f'- {name}: {value}\n' for name, value in made]
  text += f'\n## How this was made\n\n{"".join(lines)}'
  files.write_text(workdir / 'table.md', text)
  page = report.render_comparison(_page(summary, made))
  files.write_text(workdir / 'compare.html', page)
  print(text)
  print(f'Page: {workdir / "compare.html"}')
  cells = cells_lib.make(chosen, seeds, workdir)  # Anew, as above.
  states = collections.Counter(c.state for c in cells if c not in failed)
  problems = []
  if failed:
    problems.append(
      f'{len(failed)} of {len(cells)} cells failed; their log.txt says more. '
      'The same command runs them again.'
    )
  for state in ('outdated', 'damaged'):
    if states[state]:
      problems.append(
        f'{states[state]} of {len(cells)} cells are {state}: finished, but in '
        'no table. No command runs them again until their directories are '
        f'deleted; {workdir / "table.md"} names them.'
      )
  if states['running']:
    problems.append(
      f'{states["running"]} of {len(cells)} cells are run by another command: '
      'give this one again when it has ended.'
    )
  if problems:
    raise errors.ConfigError(' '.join(problems))


if __name__ == '__main__':
  cli.run(main)
