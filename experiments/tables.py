"""What finished cells amount to: figures, differences, what is missing.

All from the files of the cells, as plain values, for CSV, Markdown and the
page (`jax_autorec.report.comparison`).
"""

import collections
from collections.abc import Mapping, Sequence
import csv
import dataclasses
import io
import json
import pathlib
from typing import Any

import numpy as np

from experiments import cells as cells_lib
from experiments import differences
from jax_autorec import comparison, files, metrics
from jax_autorec import report as report_lib
from jax_autorec.architecture import SIZE_NAMES, SIZE_NOTE

RESULT = 'result'


@dataclasses.dataclass(frozen=True)
class Column:
  """One column of the figures.

  Attributes:
    key: of `entries`.
    heading: as it is shown.
    digits: behind the point.
    spread: whether the spread over seeds is shown.
  """

  key: str
  heading: str
  digits: int
  spread: bool = True


COLUMNS = (
  Column('auc', 'test AUC', 5),
  Column('published', 'published AUC', 4, False),
  Column('least', 'to reach', 4, False),
  Column('logloss', 'test logloss', 5),
  Column('relative', 'relative improvement, %', 2, False),
  Column('valid_auc', 'valid AUC', 5, False),
  Column('stream_loss', 'loss, whole stream', 5),
  Column('stream_accuracy', 'accuracy, whole stream', 5),
  Column('vectors', SIZE_NAMES['vector_params'], 0),
  Column('ep_total', SIZE_NAMES['ep_total'], 0),
  Column('total_params', SIZE_NAMES['total_params'], 0),
  Column('bytes', 'bytes', 0, False),
  Column('search_seconds', 'search, s', 1, False),
  Column('train_seconds', 'training, s', 1, False),
  Column('rate', 'examples/s', 0, False),
  Column('kept', 'products kept', 1),
  Column('memberships', 'memberships kept', 1),
  Column('closed', 'gap closed', 3),
  Column('rank_correlation', 'rank correlation', 2),
  Column('noise_least', 'noise is least', 2, False),
  Column('head', 'width of the head', 1),
  Column('tail', 'width of the tail', 1),
  Column('duplicate', 'width of two copies', 2),
)

_HEADINGS = {column.key: column.heading for column in COLUMNS}

NOTES = (
  'Mean and sample standard deviation over the seeds that at least half of the '
  'rows of a table have. A row that lacks one of them is marked incomplete: it '
  'is over its own seeds, and in neither the plot nor the Pareto front.',
  f'{SIZE_NOTE} Bytes: of the saved model.',
  'Sizes are compared, and drawn, by vectors in all: first-order weights do '
  'not count. The front is one of means: ties count as differences there.',
  'Relative improvement: of AUC - 1/2, on the reference of the same seed.',
)

STREAM_NOTE = (
  'Of a stream: test is its last quarter, valid all rows before, on which '
  'nothing but the best reference is chosen. Each row was predicted before it '
  'was learnt from.'
)

TESTS = (
  'Differences in test AUC. Seeds: Student t over the seeds that both have. '
  'Examples: bootstrap of the test rows '
  f'({differences.SAMPLES:,} draws), models as they are. p: two-sided, by '
  "Holm's method corrected for all methods of one table, which are a family; "
  'in brackets, uncorrected, of controls, which are in no family, and where '
  'there is one seed. Better or worse: the test over seeds says so at '
  f'{differences.LEVEL:g}, and that over examples too, where there are '
  'predictions; anything else is a tie. Controls get no verdict, and one seed '
  'gives none. The best is chosen by validation AUC; the test split chooses '
  'nothing. Of streams, loss and accuracy of all rows are tested over seeds '
  'alike, with verdicts of their own.'
)


def entries(cell: cells_lib.Cell) -> list[dict[str, Any]]:
  """One line per model that a finished cell trained."""
  report = json.loads(cell.report.read_text('utf-8'))
  models = {RESULT: report, **report['controls']}
  lines = []
  for name, model in models.items():
    is_result = name == RESULT
    line = {
      'row': cell.row.name,
      'dataset': report['dataset'],
      # What the table compares with one another, where it says so.
      'base': cell.row.model or report['model'],
      'method': cell.row.method,
      'seed': cell.seed,
      'model': name,
      'tiny': report['tiny'],
      'code': report.get('versions', {}).get('code', ''),
    }
    line |= {key: model['test'][key] for key in ('auc', 'logloss')}
    for key in ('published', 'least'):
      line[key] = getattr(cell.row, key) if is_result else None
    line['rate'] = model.get('examples_per_second')
    line['valid_auc'] = cells_lib.metrics_before_test(model)['auc']
    for key in ('loss', 'accuracy'):
      line[f'stream_{key}'] = model.get('stream', {}).get(key)
    first_order = model.get('first_order_params')
    for key in ('embedding_params', 'ep_total', 'total_params'):
      line[key] = model.get(key)
    # Reports of before there were both figures lack them.
    line['vectors'] = line['size'] = None
    if first_order is not None:
      line['vectors'] = model['embedding_params'] - first_order
      line['size'] = model['ep_total'] - first_order
    line['bytes'] = report.get('bytes', {}).get('model') if is_result else None
    line |= _sizes(model.get('sizes', {}))
    times = report.get('seconds', {})
    line['search_seconds'] = times.get('search') if is_result else None
    line['train_seconds'] = (
      times.get('retrain') if is_result else model.get('seconds')
    )
    searched = report.get('search') or {}
    kept = searched.get('kept') if is_result else None
    in_groups = searched.get('kept_of') == 'memberships'
    line['kept'] = None if in_groups else kept
    line['memberships'] = kept if in_groups else None
    line['of'] = searched.get('of')
    recovered = report.get('recovered') if is_result else None
    for key in ('planted', 'planted_kept', 'others', 'others_pruned'):
      line[key] = recovered[key] if recovered else None
    line['closed'] = report_lib.gap_closed(report, model)
    found = report.get('recovered_widths', {}) if is_result else {}
    for key in (
      'rank_correlation',
      'noise_least',
      'noise',
      'head',
      'tail',
      'duplicate',
    ):
      line[key] = found.get(key)
    lines.append(line)
  return lines


def _sizes(sizes) -> dict[str, float | None]:
  """Columns of what was held while searching, while training, and to serve."""
  found = {}
  for stage in ('searched', 'trained', 'derived'):
    size = sizes.get(stage, {})
    found[f'{stage}_ep_total'] = size.get('ep_total')
    for key in ('tables', 'optimizer', 'file'):
      found[f'{stage}_{key}_bytes'] = size.get('bytes', {}).get(key)
  return found


def notes(summary: Mapping[str, Any]) -> tuple[str, ...]:
  """Lines below the figures."""
  lines = summary['entries']
  streams = any(line['stream_loss'] is not None for line in lines)
  notes = NOTES + ((STREAM_NOTE,) if streams else ())
  # Cells of before there were fingerprints have ''.
  codes = len({line['code'] for line in lines})
  if codes > 1:
    notes += (f'Cells were made by {codes} versions of this code (cells.csv).',)
  return notes


def spread(values: Sequence[float], digits: int, with_std: bool = True) -> str:
  """'mean ± standard deviation'; the mean alone of one value or equal sizes."""
  text = f'{np.mean(values):,.{digits}f}'
  is_size = not digits and len(set(values)) == 1
  if with_std and len(values) > 1 and not is_size:
    text += f' ± {np.std(values, ddof=1):,.{digits}f}'
  return text


def summarize(
  cells: Sequence[cells_lib.Cell], reference: str | None = None
) -> dict[str, Any]:
  """The whole table as plain values.

  Args:
    cells: all that are known of; those that are not done count as missing.
    reference: method that every row of its base model is compared with.

  Returns:
    'entries': of all models; 'groups', one per data set and base model, each
    with 'name', 'figures', 'front' (places of points), 'points' (of the plot)
    and 'differences'; 'within': each result less the models of its own run;
    'missing': (row, seed, reason); 'done', 'of': cells; 'tiny'.
  """
  done = [cell for cell in cells if cell.is_done]
  lines = [line for cell in done for line in entries(cell)]
  groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
  for line in lines:
    groups.setdefault((line['dataset'], line['base']), []).append(line)
  for group in groups.values():
    _compare_relatively(group, reference)
  places = {(cell.row.name, cell.seed): cell.workdir for cell in done}
  roles = {cell.row.name: cell.row.role for cell in done}
  # Rows in the order of the table, whatever was run first.
  order = {
    name: i
    for i, name in enumerate(dict.fromkeys(cell.row.name for cell in cells))
  }
  return {
    'entries': lines,
    'groups': [
      _group(
        f'{pathlib.Path(data).stem}, {base}',
        sorted(group, key=lambda line: (order[line['row']], line['seed'])),
        places,
        roles,
        reference,
      )
      for (data, base), group in groups.items()
    ],
    'within': _within(lines),
    'missing': [
      (cell.row.name, cell.seed, cell.missing)
      for cell in cells
      if not cell.is_done
    ],
    'done': len(done),
    'of': len(cells),
    'tiny': any(line['tiny'] for line in lines),
  }


def _compare_relatively(lines, reference):
  """How much more of AUC - 1/2 there is than in the reference's, by seed."""
  base = {
    line['seed']: line['auc'] - 0.5
    for line in lines
    if line['method'] == reference and line['model'] == RESULT
  }
  for line in lines:
    own = base.get(line['seed'], 0.0)
    known = line['auc'] is not None and own > 0
    line['relative'] = 100 * ((line['auc'] - 0.5) / own - 1) if known else None


def _by_model(lines):
  models: dict[tuple[str, str], list[dict[str, Any]]] = {}
  for line in lines:
    models.setdefault((line['row'], line['model']), []).append(line)
  return models


def _shared_seeds(lines) -> set[int]:
  """Seeds that at least half of the rows have."""
  rows = {line['row'] for line in lines}
  counts = collections.Counter(
    seed for _, seed in {(line['row'], line['seed']) for line in lines}
  )
  return {seed for seed, count in counts.items() if 2 * count >= len(rows)}


def _group(name, lines, places, roles, reference):
  models = _by_model(lines)
  shared = _shared_seeds(lines)
  # What means are taken of, and whether they are of the shared seeds.
  averaged = {
    key: ([x for x in group if x['seed'] in shared], True)
    if shared and shared <= {x['seed'] for x in group}
    else (group, False)
    for key, group in models.items()
  }
  compared = [
    differences.Line(
      row,
      group[0]['method'],
      roles[row],
      {line['seed']: line for line in group},
      {line['seed']: places[row, line['seed']] for line in group},
    )
    for (row, model), group in models.items()
    if model == RESULT
  ]
  points = []
  for (row, model), (group, complete) in averaged.items():
    sizes = [line['size'] for line in group]
    if not complete or None in sizes or not np.mean(sizes) > 0:
      continue
    scores = [line['auc'] for line in group]
    points.append(
      {
        'name': group[0]['method'] if model == RESULT else f'{row}: {model}',
        'row': (row, model),
        'size': float(np.mean(sizes)),
        'score': float(np.mean(scores)),
        'spread': float(np.std(scores, ddof=1)) if len(scores) > 1 else 0.0,
        'marked': model == RESULT and not roles[row],
      }
    )
  front = comparison.pareto_front(
    [p['size'] for p in points], [p['score'] for p in points]
  )
  return {
    'name': name,
    'figures': [
      {
        'row': row,
        'model': model,
        'method': group[0]['method'],
        'seeds': len(group),
        'complete': complete,
        'of': group[0]['of'],
        'values': {
          column.key: [line[column.key] for line in group]
          for column in COLUMNS
          if all(line[column.key] is not None for line in group)
        },
      }
      for (row, model), (group, complete) in averaged.items()
    ],
    'points': points,
    'front': [int(i) for i in front],
    'differences': differences.compare(compared, reference),
  }


def _within(lines) -> list[dict[str, Any]]:
  """Test AUC of each result less that of its run's controls, by seed."""
  models = _by_model(lines)
  found = []
  for (row, model), group in models.items():
    if model == RESULT or len(group) < 2:
      continue
    result = {line['seed']: line['auc'] for line in models[row, RESULT]}
    paired = metrics.paired_difference(
      [result[line['seed']] for line in group],
      [line['auc'] for line in group],
    )
    found.append({'row': row, 'model': model} | paired)
  return found


def figures(group: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
  """Headings and cells of a group's figures; empty columns are left out."""
  shown = [
    column
    for column in COLUMNS
    if any(column.key in line['values'] for line in group['figures'])
  ]
  several = any(line['model'] != RESULT for line in group['figures'])
  front = {group['points'][i]['row'] for i in group['front']}
  headings = ['method', *(['model'] if several else []), 'seeds']
  headings += [column.heading for column in shown] + ['Pareto front']
  rows = []
  for line in group['figures']:
    cells = [line['method'], *([line['model']] if several else [])]
    complete = '' if line['complete'] else ', incomplete'
    cells.append(f'{line["seeds"]}{complete}')
    for column in shown:
      values = line['values'].get(column.key)
      text = (
        '' if values is None else spread(values, column.digits, column.spread)
      )
      if text and column.key == 'kept':
        text += f' of {line["of"]}'
      cells.append(text)
    cells.append('yes' if (line['row'], line['model']) in front else '')
    rows.append(cells)
  return headings, rows


def families(
  group: Mapping[str, Any],
) -> list[tuple[str, list[str], list[list[str]]]]:
  """(reference, headings, cells) of a group's differences."""
  found = []
  for name in dict.fromkeys(d['reference'] for d in group['differences']):
    family = [d for d in group['differences'] if d['reference'] == name]
    others = list(dict.fromkeys(d['against'] for d in family))
    one = len(others) == 1
    title = f'Against {name}'
    if one and others[0] != name:
      title += f', {others[0]}'
    headings = ['method', *([] if one else ['less']), 'seeds', 'AUC']
    headings += ['95 %, seeds', 'p, seeds', '95 %, examples', 'p, examples']
    headings += ['logloss', 'verdict']
    streamed = [
      key for key in differences.STREAM if any(key in d for d in family)
    ]
    for key in streamed:
      what = _HEADINGS[key]
      headings += [what, *(f'{what}: {x}' for x in ('95 %', 'p', 'verdict'))]
    rows = [
      [
        d['method'],
        *([] if one else [d['against']]),
        str(d['seeds']),
        f'{d["mean"]:+.5f}',
        _interval(d, 'seeds'),
        _p(d, 'seeds'),
        _interval(d, 'examples'),
        _p(d, 'examples'),
        f'{d["logloss"]:+.5f}',
        d['verdict'],
        *(text for key in streamed for text in _streamed(d, key)),
      ]
      for d in family
    ]
    found.append((title, headings, rows))
  return found


def _streamed(difference, key):
  if key not in difference:
    return [''] * 4
  return [
    f'{difference[key]:+.5f}',
    _interval(difference, key),
    _p(difference, key),
    difference[f'{key}_verdict'],
  ]


def _interval(difference, kind):
  if difference[f'{kind}_low'] is None:
    return ''
  low, high = difference[f'{kind}_low'], difference[f'{kind}_high']
  return f'{low:+.5f} to {high:+.5f}'


def _p(difference, kind):
  corrected, alone = difference[f'{kind}_holm'], difference[f'{kind}_p']
  if corrected is not None:
    return f'{corrected:.2g}'
  return '' if alone is None else f'({alone:.2g})'


def within(summary: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
  """Headings and cells of the results less the models of their runs."""
  headings = [
    'row',
    'result less',
    'AUC, mean',
    '95 % interval',
    'p, uncorrected',
    'seeds',
  ]
  return headings, [
    [
      line['row'],
      line['model'],
      f'{line["mean"]:+.5f}',
      f'{line["low"]:+.5f} to {line["high"]:+.5f}',
      f'{line["p"]:.3g}',
      str(line['n']),
    ]
    for line in summary['within']
  ]


def missing(summary: Mapping[str, Any]) -> list[str]:
  """What is missing, in lines: rows and seeds of one reason are joined."""
  seeds_of: dict[tuple[str, str], list[int]] = {}
  for row, seed, reason in summary['missing']:
    seeds_of.setdefault((row, reason), []).append(seed)
  rows_of: dict[tuple[str, tuple[int, ...]], list[str]] = {}
  for (row, reason), seeds in seeds_of.items():
    rows_of.setdefault((reason, tuple(seeds)), []).append(row)
  lines = []
  for (reason, seeds), rows in rows_of.items():
    word = 'seed' if len(seeds) == 1 else 'seeds'
    what = f'{"; ".join(rows)}, {word} {", ".join(map(str, seeds))}'
    if reason.startswith('failed: '):
      what, reason = f'Failed: {what}', reason.removeprefix('failed: ')
    lines.append(f'{what}: {reason}')
  return lines


def markdown(summary: Mapping[str, Any]) -> str:
  """All tables as Markdown."""
  text = [f'{summary["done"]} of {summary["of"]} cells.']
  for group in summary['groups']:
    text += ['', f'## {group["name"]}', '', *_lines(*figures(group))]
    for title, headings, rows in families(group):
      text += ['', f'### {title}', '', *_lines(headings, rows)]
    if group['differences']:
      text += ['', TESTS]
  if summary['groups']:
    text += ['', ' '.join(notes(summary))]
  headings, rows = within(summary)
  if rows:
    text += ['', '## Within a run', '', *_lines(headings, rows)]
  lines = missing(summary)
  if lines:
    text += ['', '## Missing', '', *(f'- {line}' for line in lines)]
  return '\n'.join(text) + '\n'


def _lines(headings, rows):
  table = [headings, ['---'] * len(headings), *rows]
  return ['| ' + ' | '.join(line) + ' |' for line in table]


def write_csv(directory: pathlib.Path, summary: Mapping[str, Any]) -> None:
  """cells.csv, figures.csv and differences.csv, as far as there are lines."""
  figures_ = [
    {
      'group': group['name'],
      **{
        key: line[key]
        for key in ('row', 'method', 'model', 'seeds', 'complete')
      },
      **{
        f'{column.key}_{name}': value
        for column in COLUMNS
        for name, value in _moments(line['values'].get(column.key)).items()
      },
    }
    for group in summary['groups']
    for line in group['figures']
  ]
  differences_ = [
    {'group': group['name'], **line}
    for group in summary['groups']
    for line in group['differences']
  ]
  for name, lines in (
    ('cells', summary['entries']),
    ('figures', figures_),
    ('differences', differences_),
  ):
    path = directory / f'{name}.csv'
    if not lines:
      path.unlink(missing_ok=True)
      continue
    text = io.StringIO()
    keys = dict.fromkeys(key for line in lines for key in line)
    writer = csv.DictWriter(text, list(keys))
    writer.writeheader()
    writer.writerows(lines)
    files.write_text(path, text.getvalue())


def _moments(values):
  if not values:
    return {'mean': None, 'std': None}
  std = float(np.std(values, ddof=1)) if len(values) > 1 else None
  return {'mean': float(np.mean(values)), 'std': std}
