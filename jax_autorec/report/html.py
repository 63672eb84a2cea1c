"""The page: what was searched, what was kept, how it did against controls."""

from collections.abc import Mapping, Sequence
import json
import math
import os
import pathlib
from typing import Any

from absl import logging

from jax_autorec import errors, files, numeric
from jax_autorec import fields as fields_lib
from jax_autorec.architecture import SIZE_NAMES, SIZE_NOTE, Architecture
from jax_autorec.report import graphs, plots

_NOISE = 0.001  # AUC; what a single seed can gain by luck on small sets.
_RESULTS = ('retrain', 'stream')  # Stages.
_STRONGEST = 25  # Products shown as bars.
_MOST_LINES = 12  # Fields whose course is shown.
_MOST_NUMBERS = 8  # Numeric fields that are shown.

_SIZES = ('vector_params', 'vectors_total', 'total_params')  # Of all models.
_FURTHER_SIZES = {
  'projection_params': 'of them projections',
  'codebook_params': 'of them codebooks',
  'numeric_params': 'of them vectors and maps of numbers',
}
_BYTES = {
  'tables': 'bytes of tables',
  'dense': 'bytes of other weights',
  'index': 'bytes of codes, patterns, permutations',
  'optimizer': "bytes of the optimisers' state",
  'method': 'bytes of what the method remembers',
  'file': 'bytes of the checkpoint, or of the saved model',
}

_CONTROLS = {
  **{
    f'numbers: {cls.title}': f'numbers by another way: {cls.title}'
    for cls in numeric.EMBEDDINGS.values()
  },
  'lr': 'logistic regression, one weight per id',
  'base': 'the plain model, nothing searched',
  'all + bn + gates': 'all products, normalised and gated, none pruned',
  'random blocks': 'blocks drawn at random, of the size found',
  'random entries': 'entries of the tables drawn at random, of the size found',
  'random rows': 'rows and widths drawn at random, of the size found',
  'random subset': 'as many products of each order, drawn at random',
  'random widths': 'widths drawn at random, of the size found',
  'random hidden widths': 'hidden layers drawn at random, of as many weights',
  'random choices': 'all that was searched drawn at random, of the sizes found',
  'one group': 'per order one group of all fields, nothing selected',
  'random groups': 'as many groups of the sizes found, drawn at random',
  'one width': 'one width for all fields, at least of the size found',
  'hashed rows': 'ids that are equal modulo the rows share, at the size found',
}


def read_metrics(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
  """Lines of metrics.jsonl by stage and step; of a repeated one the last.

  A killed run leaves half a line: it is left out, with a warning.
  """
  lines: dict[tuple[Any, ...], dict[str, Any]] = {}
  for number, text in enumerate(
    pathlib.Path(path).read_text('utf-8').splitlines(), 1
  ):
    try:
      line = json.loads(text)
    except ValueError:
      if text.strip():
        logging.warning('%s line %d is cut off: left out.', path, number)
      continue
    key = (line.get('stage'), line.get('step'), line.get('kind'))
    lines[key] = line
  stages = list(dict.fromkeys(line.get('stage') for line in lines.values()))
  return sorted(
    lines.values(),
    key=lambda line: (stages.index(line.get('stage')), line.get('step') or 0),
  )


def write(workdir: str | os.PathLike[str]) -> pathlib.Path:
  """Makes report.html from a workdir's files; returns its path.

  Raises:
    ConfigError: where there is no report.json yet.
  """
  workdir = pathlib.Path(workdir)

  def load(name, default):
    path = workdir / name
    return json.loads(path.read_text('utf-8')) if path.exists() else default

  report = load('report.json', None)
  if report is None:
    raise errors.ConfigError(
      f'{workdir} has no report.json: finish the run first.'
    )
  metrics = []
  if (workdir / 'metrics.jsonl').exists():
    metrics = read_metrics(workdir / 'metrics.jsonl')
  # Of the model that is served, whose fields may be packed; a stream's method
  # that has none ends with what it trained.
  architecture = load('architecture.json', {})
  architecture = load('model/architecture.json', architecture)
  report['numbers'] = load('numbers.json', {})
  page = render(report, metrics, architecture, load('config.json', {}))
  path = workdir / 'report.html'
  files.write_text(path, page)
  return path


def render(
  report: Mapping[str, Any],
  metrics: Sequence[Mapping[str, Any]],
  architecture: Mapping[str, Any],
  config: Mapping[str, Any],
) -> str:
  """The page as text, from plain values; what is missing is left out."""
  from markupsafe import Markup

  plan = _plan(architecture)
  sections = _pictures(report, metrics, architecture, plan)
  pictures = [
    (title, [(name, Markup(svg), note) for name, svg, note in figures])
    for title, figures in sections
    if figures
  ]
  headings, rows = (_stream_table if 'stream' in report else _table)(report)
  return template('template.html').render(
    report=report,
    title=f'{report["method"]} on {pathlib.Path(report["dataset"]).stem}',
    subtitle=_subtitle(report, architecture),
    tiles=_tiles(report),
    summary=_summary(report),
    headings=headings,
    rows=rows,
    notes=_notes(report),
    trials=_trials(report),
    pictures=pictures,
    blocks=_blocks(plan),
    sizes=_sizes(report),
    interactions=_interactions(architecture),
    head=_head(architecture),
    facts=_facts(report),
    config=json.dumps(config, indent=1),
  )


def _plan(architecture) -> Architecture | None:
  """What sizes are counted of; no array is needed for that."""
  if not architecture.get('fields'):
    return None
  return Architecture.from_dict({**architecture, 'arrays': {}})


def template(name: str) -> Any:
  """A template of this package; what is put into it is escaped."""
  import jinja2  # Imported late: only a report needs it.

  return jinja2.Environment(
    loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent),
    autoescape=True,
    trim_blocks=True,
  ).get_template(name)


def _number(value: Any, digits: int = 5) -> str:
  if value is None:
    return ''
  if isinstance(value, float):
    return f'{value:,.{digits}f}'
  return f'{value:,}'


def _subtitle(report, architecture) -> str:
  parts = [f'model {report["model"]}', f'seed {report["seed"]}']
  if architecture.get('fields'):
    parts.append(f'{len(architecture["fields"])} fields')
  for name, rows in report.get('splits', {}).items():
    parts.append(f'{rows:,} {name} rows')
  return ', '.join(parts)


def gap_closed(
  report: Mapping[str, Any], model: Mapping[str, Any]
) -> float | None:
  """Share of the gap in logloss from LR to the optimum that a model closes.

  Args:
    report: of a run, as report.json holds it.
    model: the report itself for its result, or one of its controls.

  Returns:
    None where the optimum or LR is not known, or where LR is no worse.
  """
  bayes = report.get('bayes', {}).get('test')
  lr = report.get('controls', {}).get('lr', {}).get('test')
  if not bayes or not lr or lr['logloss'] <= bayes['logloss']:
    return None
  gap = lr['logloss'] - bayes['logloss']
  return (lr['logloss'] - model['test']['logloss']) / gap


def _tiles(report) -> list[tuple[str, str]]:
  """(label, value) of what a reader looks for first."""
  tiles = [
    ('test AUC', _number(report['test']['auc'])),
    ('test logloss', _number(report['test']['logloss'])),
  ]
  search, recovered = report.get('search'), report.get('recovered')
  if search and 'kept' in search:
    what = f'{search.get("kept_of", "products")} kept'
    tiles.append((what, f'{search["kept"]} of {search["of"]}'))
  if recovered:
    found = f'{recovered["planted_kept"]} of {recovered["planted"]}'
    tiles.append(('planted products found', found))
  closed = gap_closed(report, report)
  if closed is not None:
    tiles.append(('of the gap to the optimum closed', f'{closed:.1%}'))
  for key in ('vectors_total', 'total_params'):
    if key in report:
      tiles.append((SIZE_NAMES[key], _number(report[key], 0)))
  seconds = report.get('seconds', {})
  if search:
    tiles.append(('search', f'{_number(seconds.get("search"), 1)} s'))
  tiles.append(('training', f'{_number(seconds.get("retrain"), 1)} s'))
  return tiles


def _table(report) -> tuple[list[str], list[list[str]]]:
  """Headings and rows: the result, its controls, what is possible."""
  headings = ['model', 'test AUC', 'result ahead by, AUC', 'test logloss']
  headings += ['result ahead by, logloss', 'NE', 'calibration']
  has_groups = 'gauc' in report['test']
  headings += ['AUC by group'] if has_groups else []
  headings += ['valid AUC', *(SIZE_NAMES[key] for key in _SIZES)]
  headings += ['seconds', 'examples / s']
  own = report['test']
  entries = [(f'{report["method"]} ({report["model"]})', report)]
  entries += list(report.get('controls', {}).items())
  bayes = report.get('bayes', {}).get('test')
  if bayes:
    entries.append(('best possible (true logits)', {'test': bayes}))
  rows = []
  for place, (name, entry) in enumerate(entries):
    test, seconds = entry.get('test', {}), entry.get('seconds')
    if isinstance(seconds, Mapping):
      seconds = seconds.get('retrain')
    ahead = ['', '']
    if place and test:
      ahead[0] = f'{own["auc"] - test["auc"]:+.5f}'
      ahead[1] = f'{test["logloss"] - own["logloss"]:+.5f}'
    rows.append(
      [
        name,
        _number(test.get('auc')),
        ahead[0],
        _number(test.get('logloss')),
        ahead[1],
        _number(test.get('ne'), 4),
        _number(test.get('calibration'), 4),
        *([_number(test.get('gauc'))] if has_groups else []),
        _number(entry.get('valid', {}).get('auc')),
        *(_number(entry.get(key), 0) for key in _SIZES),
        _number(seconds, 1),
        _number(entry.get('examples_per_second'), 0),
      ]
    )
  return headings, rows


def _stream_table(report) -> tuple[list[str], list[list[str]]]:
  """The same along a stream: all of it, its last quarter, and memory."""
  headings = ['method', 'loss', 'accuracy', 'AUC', 'loss, last quarter']
  headings += ['accuracy, last quarter', 'AUC, last quarter']
  headings += [SIZE_NAMES[key] for key in _SIZES]
  headings += ['bytes of tables, training', 'bytes of optimiser and method']
  headings += ['bytes of tables, derived', 'index bytes, derived', 'seconds']
  rows = []
  for name, entry in {report['method']: report, **report['controls']}.items():
    sizes = entry.get('sizes', {})
    trained, derived = (
      sizes.get(stage, {}).get('bytes', {}) for stage in ('trained', 'derived')
    )
    seconds = entry['seconds']
    if isinstance(seconds, Mapping):
      seconds = seconds['retrain']
    rows.append(
      [
        name,
        *(
          _number(entry[part][metric])
          for part in ('stream', 'test')
          for metric in ('loss', 'accuracy', 'auc')
        ),
        *(_number(entry.get(key), 0) for key in _SIZES),
        _number(trained.get('tables')),
        _number(trained['optimizer'] + trained['method'] if trained else None),
        _number(derived.get('tables')),
        _number(derived.get('index')),
        _number(seconds, 1),
      ]
    )
  return headings, rows


def _notes(report) -> list[str]:
  if 'stream' in report:
    return [
      'Every row was predicted before anything learnt from it. Comparisons '
      'take the last quarter as test; nothing was chosen on the rows before '
      'the last quarter, from which methods learn as they come. Derived: each '
      'row stored at its own width, the permutation of ids as index; methods '
      f'that mix all widths have no smaller form. {SIZE_NOTE}'
    ]
  # 'random widths 2' is another draw of 'random widths'.
  names = [name.rstrip(' 0123456789') for name in report.get('controls', {})]
  return [
    f'{name}: {_CONTROLS[name]}.'
    for name in dict.fromkeys(names)
    if name in _CONTROLS
  ] + [
    'Positive differences favour the result. Choices were made on the '
    'validation split; the test split was read once. NE is the logloss over '
    'that of the base rate, calibration the mean predicted over the mean '
    'observed rate, both of the test split. Seconds and examples / s are of '
    f'the training from scratch. {SIZE_NOTE}'
  ]


def _summary(report) -> list[str]:
  """What the numbers say, in sentences."""
  test = report['test']
  lines = []
  search = report.get('search')
  if search and 'kept' in search:
    lines.append(
      f'{report["method"]} kept {search["kept"]} of {search["of"]} '
      f'{search.get("kept_of", "products")} in {search["steps"]:,} search '
      'steps; what was kept was trained anew.'
    )
  for name, control in report.get('controls', {}).items():
    gain = test['auc'] - control['test']['auc']
    place = 'Ahead of' if gain > 0 else 'Not ahead of'
    noise = ', within the noise of a single seed' if abs(gain) < _NOISE else ''
    lines.append(f'{place} {name}: {gain:+.5f} AUC{noise}.')
  recovered = report.get('recovered')
  if recovered:
    lines.append(
      f'Of {recovered["planted"]} planted products {recovered["planted_kept"]} '
      f'were kept; of {recovered["others"]} others '
      f'{recovered["others_pruned"]} were pruned.'
    )
  closed = gap_closed(report, report)
  if closed is not None:
    lines.append(
      f'The model closes {closed:.1%} of the logloss gap between logistic '
      'regression and the best possible.'
    )
  lines.append(
    'One seed: compare several, paired, before believing a difference.'
  )
  return lines


def _pictures(report, metrics, architecture, plan):
  """(title, [(name, svg, caption)]) of every section that values allow."""
  yield 'Beside the controls', list(_level_pictures(report))
  yield 'Graph of the blocks', list(_graphs(plan))
  for entity, octaves in report.get('frequency', {}).items():
    yield f'{entity}: by frequency', list(_frequency(report, octaves))
  yield from _gate_sections(report, metrics, architecture)
  yield 'What was learnt of numbers', list(_number_pictures(report))
  title = 'Learning curves, validation split'
  if 'stream' in report:
    title = 'Along the stream, all rows so far'
  yield title, list(_curves(report, metrics))
  yield 'What is searched, over the search', list(_levels(metrics))
  yield 'Widths over the search', list(_width_pictures(metrics))
  yield 'Size over the search', list(_size_pictures(metrics))
  yield 'What was tried', list(_trial_pictures(report))
  if plan and plan.categorical:
    sizes = plan.field_sizes
    label = f'{SIZE_NAMES["vectors_total"]}, float32 entries'
    svg = plots.bars(list(sizes), list(sizes.values()), label)
    caption = f'{_number(plan.vectors_total, 0)} of all fields.'
    yield 'Size of the vectors by field', [('Sizes by field', svg, caption)]


def _blocks(plan: Architecture | None) -> list[list[str]]:
  """(field, ids, what is stored, its size) where that is no row per id."""
  plans = plan.categorical if plan else ()
  is_plain = lambda p: p.pieces is None and not p.num_values and not p.quantizer
  if all(map(is_plain, plans)):
    return []
  sizes = plan.field_sizes
  return [
    [p.name, _number(p.vocab_size), _stored(p), _number(sizes[p.name], 0)]
    for p in plans
  ]


def _stored(plan: fields_lib.FieldPlan) -> str:
  """What a field keeps of its vectors."""
  if plan.num_values:
    return f'{_number(plan.num_values)} of {plan.vocab_size:,} x {plan.dim}'
  if not plan.quantizer:
    return (
      ' + '.join(f'{_number(p.num_rows)} x {p.dim}' for p in plan.all_pieces)
      or 'none'
    )
  own, start, codes = plan.quantizer, 0, []
  for tier in own.tiers:
    codes.append(
      f'{tier.stop - start:,} x {own.groups} codes of {tier.bits} bits'
    )
    start = tier.stop
  rows = codes if own.packed else [f'{plan.vocab_size:,} x {plan.dim} queries']
  return ' + '.join([*rows, f'{plan.codebook_params:,} of codebooks'])


def _sizes(report) -> tuple[list[str], list[list[str]], str] | None:
  """Headings, rows and a note: what was held before and after."""
  sizes = report.get('sizes')
  if not sizes:
    return None
  known = (*SIZE_NAMES.items(), *_FURTHER_SIZES.items())
  rows = [
    [name, *(_number(size.get(key), 0) for size in sizes.values())]
    for key, name in known
    if any(size.get(key) for size in sizes.values())
  ]
  rows += [
    [name, *(_number(size['bytes'][key]) for size in sizes.values())]
    for key, name in _BYTES.items()
  ]
  return ['', *sizes], rows, report.get('not_searched', '')


def _width_pictures(metrics):
  """What a search over widths thinks of them, at its end and before."""
  lines = [line for line in metrics if 'dim_weights' in line]
  about = [line for line in metrics if 'field_names' in line]
  if not lines or not about:
    return
  names, dims = about[-1]['field_names'], about[-1]['choice']['dims']
  last = lines[-1]['dim_weights']
  svg = plots.candidate_map(names, dims, last)
  yield 'Weights of the widths', svg, 'The heaviest is marked.'
  expected = lambda row: sum(w * dim for w, dim in zip(row, dims))
  # Where there are many fields, those that moved the most.
  moved = sorted(
    range(len(names)),
    key=lambda i: -max(abs(w - 1 / len(dims)) for w in last[i]),
  )[:_MOST_LINES]
  steps = [line['step'] for line in lines]
  series = {
    names[i]: (steps, [expected(line['dim_weights'][i]) for line in lines])
    for i in sorted(moved)
  }
  svg = plots.curves(series, 'mean width under the weights', 'search step')
  caption = ''
  if len(names) > len(moved):
    caption = f'The {len(moved)} fields whose weights are the least even.'
  yield 'Mean widths', svg, caption


def _number_pictures(report):
  """Vectors along the axes of numbers, and their soft buckets."""
  numbers = report.get('numbers', {})
  for name, own in list(numbers.items())[:_MOST_NUMBERS]:
    svg = plots.along_values(
      own['values'], own['similarity'], own['quantiles'], own.get('weights')
    )
    note = (
      f'{own["title"]}; the middle 99 % of the train rows. Marks outside the '
      f'frame: {len(own["quantiles"])} quantiles of them.'
    )
    left = len(numbers) - _MOST_NUMBERS
    if left > 0 and name == list(numbers)[_MOST_NUMBERS - 1]:
      note += f' Of {left} more fields: numbers.json.'
    yield name, svg, note


def _trial_pictures(report):
  """Size and validation AUC of what a search by scores has trained."""
  trials = [t for t in _all_trials(report) if t['valid']]
  if len(trials) < 2:
    return
  if _by_loss(report):
    yield from _loss_pictures(trials)
    return
  best = max(trials, key=lambda trial: trial['valid']['auc'])
  points = [
    {
      'name': f'trial {trial["trial"]}',
      'size': trial['embedding_params'],
      'score': trial['valid']['auc'],
      'spread': 0,
      'marked': trial is best,
    }
    for trial in trials
  ]
  yield (
    'Trials',
    plots.scores_by_size(
      points,
      [],
      'validation AUC',
      kinds=('kept', 'others'),
      size_label=SIZE_NAMES['embedding_params'],
    ),
    'Each was trained in full; the highest validation AUC is kept.',
  )


def _all_trials(report):
  return report.get('search', {}).get('trials', [])


def _by_loss(report) -> bool:
  """Whether a search kept what has the lowest log loss."""
  return report.get('search', {}).get('metric') == 'logloss'


def _loss_pictures(trials):
  """Losses as they came, and beside what a prediction costs."""
  losses = [trial['valid']['logloss'] for trial in trials]
  spreads = [trial['valid']['logloss_error'] for trial in trials]
  best = trials[losses.index(min(losses))]
  limit = min(losses) + best['valid']['logloss_error']
  near = sum(loss <= limit for loss in losses)
  label = 'validation logloss'
  numbers = [trial['trial'] for trial in trials]
  yield (
    'In order',
    plots.scores_by_trial(numbers, losses, spreads, label),
    f'{near} of {len(trials)} are within a standard error of the best. That is '
    'of one loss; of a difference on the same rows it is less.',
  )


def _size_pictures(metrics):
  lines = [line for line in metrics if 'expected_entries' in line]
  if lines:
    steps = [line['step'] for line in lines]
    sizes = [line['expected_entries'] for line in lines]
    label = 'expected table entries'
    series = {'an average draw': (steps, sizes)}
    yield label, plots.curves(series, label, 'search step'), ''


def _trials(report) -> tuple[list[str], list[list[str]]]:
  """Headings and rows of a search by scores, the best first."""
  trials = _all_trials(report)
  known = ('trial', 'valid', 'embedding_params', 'ep_total', 'seconds')
  known += ('flops', 'diverged')
  about = [key for key in (trials[0] if trials else ()) if key not in known]
  has_flops = any('flops' in trial for trial in trials)
  headings = ['trial', *about, 'valid AUC', 'valid logloss']
  headings += ['standard error'] if _by_loss(report) else []
  headings += ['operations of a prediction'] if has_flops else []
  headings += [SIZE_NAMES['embedding_params'], 'seconds']
  if _by_loss(report):
    order = lambda trial: trial['valid'].get('logloss', math.inf)
  else:
    order = lambda trial: -trial['valid'].get('auc', 0.0)
  rows = [
    [
      _number(trial['trial']),
      *(str(trial[key]) for key in about),
      _number(trial['valid'].get('auc')) or 'diverged',
      _number(trial['valid'].get('logloss')),
      *([_number(trial['valid'].get('logloss_error'))] * _by_loss(report)),
      *([_number(trial.get('flops'), 0)] * has_flops),
      _number(trial['embedding_params']),
      _number(trial['seconds'], 1),
    ]
    for trial in sorted(trials, key=order)
  ]
  return headings, rows


def _levels(metrics):
  """Values that a search records as 'levels', and the density it measures."""
  history: dict[str, tuple[list[int], list[list[float]]]] = {}
  for line in metrics:
    levels = dict(line.get('levels', {}))
    if 'density' in line:
      levels['share of the entries left'] = [line['density']]
    for label, values in levels.items():
      steps, rows = history.setdefault(label, ([], []))
      steps.append(line['step'])
      rows.append(values)
  for label, (steps, rows) in history.items():
    yield label.capitalize(), plots.lines(steps, rows, label), ''


def _level_pictures(report):
  tests = {report['method']: report['test']}
  tests |= {n: c['test'] for n, c in report.get('controls', {}).items()}
  bayes = report.get('bayes', {}).get('test', {})
  if len(tests) == 1 and not bayes:
    return
  for metric, label in (('auc', 'test AUC'), ('logloss', 'test logloss')):
    numbers = [test[metric] for test in tests.values()]
    svg = plots.levels(list(tests), numbers, label, bayes.get(metric))
    yield label, svg, ''


def _gate_sections(report, metrics, architecture):
  planted = [tuple(t) for own in report.get('truth', {}).values() for t in own]
  names: dict[str, list[tuple[str, ...]]] = {}
  history: dict[str, tuple[list[int], list[list[float]]]] = {}
  for line in metrics:
    for name, terms in line.get('names', {}).items():
      names[name] = [tuple(term) for term in terms]
    for name, values in line.get('gates', {}).items():
      steps, rows = history.setdefault(name, ([], []))
      steps.append(line['step'])
      rows.append(values)
  for name, (steps, rows) in history.items():
    terms = names[name]
    order = len(terms[0])
    truth = [term for term in planted if len(term) == order]
    known = [term in truth for term in terms] if truth else None
    figures = [
      (
        f'Gates of the {name}',
        plots.gates_over_time(steps, rows, known),
        'A gate that ends at zero is pruned.',
      )
    ]
    kept = [i for i, value in enumerate(rows[-1]) if value]
    if kept:
      strongest = plots.bars(
        [' x '.join(terms[i]) for i in kept],
        [abs(rows[-1][i]) for i in kept],
        '|gate| at the end of the search',
        [known[i] for i in kept] if known else None,
        _STRONGEST,
      )
      caption = f'The strongest of the {len(kept)} {name} kept'
      caption += '; orange: not planted.' if known else '.'
      figures.append((f'Strongest {name}', strongest, caption))
    yield f'Gates of the {name} over the search', figures
    if order == 2:
      fields = [field['name'] for field in architecture.get('fields', [])]
      svg = plots.pair_map(fields, dict(zip(terms, rows[-1])), truth)
      caption = 'Size of each gate at the end of the search.'
      caption += ' Planted pairs are outlined.' if truth else ''
      yield 'Field pairs', [('Field pairs', svg, caption)]


def _curves(report, metrics):
  for metric, label in (('valid_auc', 'AUC'), ('valid_logloss', 'logloss')):
    series = plots.series_by_stage(metrics, metric)
    trials = [s for s in series if s == 'start' or s.startswith('trial ')]
    if len(trials) > _MOST_LINES:
      series = {s: points for s, points in series.items() if s not in trials}
    shown = {}
    # The result first: it is the one that stands out.
    for stage in sorted(
      series, key=lambda s: (s not in _RESULTS, s == 'search')
    ):
      names = {'retrain': report['method'], 'search': 'while searching'}
      names['stream'] = report['method']
      name = names.get(stage, stage.removeprefix('control:'))
      shown[name] = series[stage]
    if shown:
      x_label = 'twentieths of the stream' if 'stream' in report else 'epoch'
      yield label, plots.curves(shown, label, x_label), ''


def _frequency(report, octaves):
  """Widths, and accuracies beside the controls', by octave of frequency."""
  widths, rows = octaves['widths'], octaves['accuracies']
  first = [octave['from'] for octave in widths]
  own = {report['method']: [octave['width'] for octave in widths]}
  note = 'Mean width of ids by how often they came in all.'
  yield 'width', plots.by_frequency(first, own, 'width'), note
  accuracies = {
    name: [octave[name] for octave in rows]
    for name in (report['method'], *report['controls'])
  }
  note = 'Accuracy of rows by how often their id had come before.'
  first = [octave['from'] for octave in rows]
  yield 'accuracy', plots.by_frequency(first, accuracies, 'accuracy'), note


def _graphs(plan: Architecture | None):
  for own in plan.interactions if plan else ():
    if own.kind == 'blocks':
      note = 'What no block reads goes to the output; colours are of origins.'
      yield own.name, graphs.block_graph(plan, own.name), note


def _interactions(architecture):
  """(name, kind of terms or options, terms as text) of interactions."""
  result = []
  for plan in architecture.get('interactions', []):
    if 'blocks' in plan:
      terms = [
        f'{number}: {block["type"]} {block["width"] or ""} of '
        + ', '.join(map(str, block['inputs']))
        for number, block in enumerate(plan['blocks'])
      ]
      result.append((plan['name'], 'blocks', terms))
      continue
    if 'groups' in plan:
      kind = f'groups of fields of order {plan["order"]}, {plan["form"]}'
      members = [', '.join(group) for group in plan['groups']]
      result.append((plan['name'], kind, members))
      continue
    terms = [' x '.join(term) for term in plan.get('terms', [])]
    if terms:
      gated = 'normalised and gated' if plan.get('normalize') else 'plain'
      about = f'products, {gated}'
    elif plan.get('kind') == 'fm':
      about = 'all pairs, summed'
    else:
      options = [
        f'{key.replace("_", " ")} {value}'
        for key, value in plan.items()
        if key not in ('kind', 'name')
      ]
      kind = str(plan.get('kind', '')).replace('_', ' ')
      about = f'{kind} ({", ".join(options)})'
    result.append((plan.get('name', ''), about, terms))
  return result


def _head(architecture: Mapping[str, Any]) -> str:
  head = architecture.get('head', {})
  parts = ['first-order term'] if head.get('first_order') else []
  sent = [plan.get('to') for plan in architecture.get('interactions', [])]
  if 'output' in sent and not head.get('hidden'):
    parts.append('a linear output layer')
  if head.get('hidden'):
    widths = ' - '.join(str(width) for width in head['hidden'])
    parts.append(
      f'MLP {widths}, norm {head.get("norm")}, dropout {head.get("dropout")}'
    )
  return '; '.join(parts) or 'the sum of the products'


def _facts(report) -> list[list[tuple[str, str]]]:
  """Two lists of (name, value): sizes; times and rows."""
  # As the table of sizes has them, where there is one.
  sizes = [
    (name, _number(report[key], 0))
    for key, name in SIZE_NAMES.items()
    if key in report and 'sizes' not in report
  ]
  # Near 0 a codebook has collapsed; at 1 all its centroids are used alike.
  sizes += [
    (f'entropy of the codes of {name}, of 1', _number(value, 2))
    for name, value in report.get('code_entropy', {}).items()
  ]
  others = [
    (f'seconds, {k}', float(v)) for k, v in report.get('seconds', {}).items()
  ]
  others += [(f'rows {k}', v) for k, v in report.get('rows', {}).items()]
  return [
    [
      (name, value if isinstance(value, str) else _number(value, 1))
      for name, value in lines
    ]
    for lines in (sizes, others)
  ]
