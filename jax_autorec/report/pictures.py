"""The figures of a run's page, as SVG."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jax_autorec.architecture import SIZE_NAMES, Architecture
from jax_autorec.report import graphs, plots, tables

_RESULTS = ('retrain', 'stream')  # Stages.
_STRONGEST = 25  # Products shown as bars.
_MOST_LINES = 12  # Fields whose course is shown.
_MOST_NUMBERS = 8  # Numeric fields that are shown.


def sections(
  report: Mapping[str, Any],
  metrics: Sequence[Mapping[str, Any]],
  architecture: Mapping[str, Any],
  plan: Architecture | None,
) -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
  """(title, [(name, svg, caption)]) of every section; none where values lack.

  Args:
    report: report.json of a run, with 'numbers' of its numbers.json.
    metrics: lines of its metrics.jsonl.
    architecture: its architecture.json.
    plan: the same, to count sizes of; None where it has no fields.
  """
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
    caption = f'{tables.number(plan.vectors_total, 0)} of all fields.'
    yield 'Size of the vectors by field', [('Sizes by field', svg, caption)]


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


def _graphs(plan: Architecture | None):
  for own in plan.interactions if plan else ():
    if own.kind == 'blocks':
      note = 'What no block reads goes to the output; colours are of origins.'
      yield own.name, graphs.block_graph(plan, own.name), note


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


def _size_pictures(metrics):
  lines = [line for line in metrics if 'expected_entries' in line]
  if lines:
    steps = [line['step'] for line in lines]
    sizes = [line['expected_entries'] for line in lines]
    label = 'expected table entries'
    series = {'an average draw': (steps, sizes)}
    yield label, plots.curves(series, label, 'search step'), ''


def _trial_pictures(report):
  """Size and validation AUC of what a search by scores has trained."""
  trials = [t for t in tables.all_trials(report) if t['valid']]
  if len(trials) < 2:
    return
  if tables.by_loss(report):
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
