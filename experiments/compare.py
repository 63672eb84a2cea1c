"""Runs a table of experiments over seeds and compares its rows.

  python -m experiments.compare \
    --config=experiments/configs/embedding_table.py:movielens_1m \
    --data_dir=DIR --workdir=DIR

Each cell (row x seed) is one `experiments.run` in a directory of its own:
finished cells are not run again, a stopped one continues, a failed one is
marked with its reason and the others go on. `--rows` (patterns: 'fm+*') and
`--seeds` take a part; what they give adds up in one workdir, and every command
makes the tables from all that is finished, and says what is missing.

Writes `compare.html`, `table.md`, `cells.csv` (one line per trained model),
`figures.csv` (mean and spread over seeds) and `differences.csv` (tests against
the references).
"""

import json
import os
import pathlib
import shlex

from absl import flags

from experiments import cells as cells_lib
from experiments import cli
from jax_autorec import errors

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
  if _SEEDS.value is None:
    return list(table['seeds'])
  try:
    return [int(seed) for seed in _SEEDS.value]
  except ValueError as error:
    raise errors.ConfigError(
      f'--seeds is {",".join(_SEEDS.value)!r}; expected whole numbers.'
    ) from error


def _dry_run(cells, everything) -> None:
  """Prints the cells with their state, and the hours of those to do."""
  times = cells_lib.timed({*cells, *everything})
  estimates = cells_lib.estimate(times, {cell.row for cell in cells})
  total, unknown, scaled = 0.0, 0, 0
  for cell in cells:
    command = f'python {shlex.join(cell.command(_DATA_DIR.value))}'
    if cell.is_done:
      spent = cells_lib.seconds(cell)
      print(f'done, took {spent / 3600:.2f} h: {command}')
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
    state = f' ({cell.missing})' if cell.failure or cell.outdated else ''
    print(f'to do{state}, {note}: {command}')
  todo = sum(not cell.is_done for cell in cells)
  text = f'{todo} of {len(cells)} cells to do'
  if todo > unknown:
    text += f'; some {total / _JOBS.value / 3600:.2f} h'
    text += f' with --jobs={_JOBS.value}' if _JOBS.value > 1 else ''
    text += f', {scaled} cells scaled from other rows' if scaled else ''
  if unknown:
    text += (
      f'; {unknown} cells of unknown time: nothing is finished to tell by, run '
      'one (--rows=..., --seeds=...)'
    )
  print(text + '.')


def _write(path: pathlib.Path, text: str) -> None:
  partial = path.with_suffix('.partial')
  partial.write_text(text, 'utf-8')
  os.replace(partial, path)


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
  failed = sum(r.startswith('failed: ') for _, _, r in summary['missing'])
  tiles = [('cells done', f'{summary["done"]} of {summary["of"]}')]
  tiles += [('cells failed', str(failed))] if failed else []
  if verdicts:
    tiles += [(v, str(verdicts.count(v))) for v in ('better', 'worse', 'tie')]
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
  cells = cells_lib.make(cells_lib.choose(rows, _ROWS.value), seeds, workdir)
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
  _write(workdir / 'table.md', text)
  page = report.render_comparison(_page(summary, made))
  _write(workdir / 'compare.html', page)
  print(text)
  print(f'Page: {workdir / "compare.html"}')
  if failed:
    raise errors.ConfigError(
      f'{len(failed)} of {len(cells)} cells failed; their log.txt says more. '
      'The same command runs them again.'
    )


if __name__ == '__main__':
  cli.run(main)
