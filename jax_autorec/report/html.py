"""The page: what was searched, what was kept, how it did against controls."""

from collections.abc import Mapping, Sequence
import json
import os
import pathlib
from typing import Any

from absl import logging

from jax_autorec import errors
from jax_autorec.report import plots

_NOISE = 0.001  # AUC; what a single seed can gain by luck on small sets.


def read_metrics(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
  """Lines of metrics.jsonl in order; of a repeated (stage, step) the last.

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
  return sorted(
    lines.values(),
    key=lambda line: (str(line.get('stage')), line.get('step') or 0),
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
  page = render(
    report, metrics, load('architecture.json', {}), load('config.json', {})
  )
  path = workdir / 'report.html'
  partial = path.with_suffix('.partial')
  partial.write_text(page, 'utf-8')
  os.replace(partial, path)
  return path


def render(
  report: Mapping[str, Any],
  metrics: Sequence[Mapping[str, Any]],
  architecture: Mapping[str, Any],
  config: Mapping[str, Any],
) -> str:
  """The page as text, from plain values; what is missing is left out."""
  import jinja2  # Imported late: only a report needs it.
  from markupsafe import Markup

  template = pathlib.Path(__file__).with_name('template.html')
  environment = jinja2.Environment(autoescape=True, trim_blocks=True)
  pictures = [
    (title, Markup(svg), caption)
    for title, svg, caption in _pictures(report, metrics, architecture)
  ]
  return environment.from_string(template.read_text('utf-8')).render(
    report=report,
    summary=_summary(report),
    rows=_table(report),
    pictures=pictures,
    interactions=_interactions(architecture),
    head=architecture.get('head', {}),
    config=json.dumps(config, indent=1),
  )


def _number(value: Any, digits: int = 5) -> str:
  if value is None:
    return ''
  if isinstance(value, float):
    return f'{value:.{digits}f}'
  return f'{value:,}'


def _table(report) -> list[dict[str, str]]:
  """The result and its controls, with differences to the result."""
  entries = [(f'{report["method"]} ({report["model"]})', report)]
  entries += list(report.get('controls', {}).items())
  rows = []
  for place, (name, entry) in enumerate(entries):
    test = entry.get('test', {})
    seconds = entry.get('seconds')
    if isinstance(seconds, Mapping):
      seconds = seconds.get('retrain')
    difference = None
    if place and 'auc' in test:
      difference = report['test']['auc'] - test['auc']
    rate = entry.get('examples_per_second')
    rows.append(
      {
        'name': name,
        'auc': _number(test.get('auc')),
        'logloss': _number(test.get('logloss')),
        'ne': _number(test.get('ne'), 4),
        'ahead': '' if difference is None else f'{difference:+.5f}',
        'valid_auc': _number(entry.get('valid', {}).get('auc')),
        'embedding_params': _number(entry.get('embedding_params')),
        'total_params': _number(entry.get('total_params')),
        'seconds': _number(seconds, 1),
        'rate': '' if rate is None else f'{rate:,.0f}',
      }
    )
  bayes = report.get('bayes', {}).get('test')
  if bayes:
    rows.append(
      {
        'name': 'best possible (true logits)',
        'auc': _number(bayes['auc']),
        'logloss': _number(bayes['logloss']),
        'ahead': f'{report["test"]["auc"] - bayes["auc"]:+.5f}',
      }
    )
  return rows


def _summary(report) -> list[str]:
  """What the numbers say, in sentences."""
  test = report['test']
  lines = []
  search = report.get('search')
  if search:
    lines.append(
      f'{report["method"]} kept {search["kept"]} of {search["of"]} products '
      f'in {search["steps"]:,} search steps; the kept ones were trained anew.'
    )
  lines.append(
    f'On {test["rows"]:,} test rows: AUC {test["auc"]:.5f}, logloss '
    f'{test["logloss"]:.5f}.'
  )
  for name, control in report.get('controls', {}).items():
    gain = test['auc'] - control['test']['auc']
    word = 'Ahead of' if gain > 0 else 'Not ahead of'
    noise = ', within the noise of a single seed' if abs(gain) < _NOISE else ''
    lines.append(
      f'{word} {name} by {abs(gain):.5f} AUC{noise}.'
      if gain > 0
      else f'{word} {name}: {gain:+.5f} AUC{noise}.'
    )
  recovered = report.get('recovered')
  if recovered:
    lines.append(
      f'Of {recovered["planted"]} planted pairs {recovered["planted_kept"]} '
      f'were kept; of {recovered["others"]} others '
      f'{recovered["others_pruned"]} were pruned.'
    )
  bayes = report.get('bayes', {}).get('test')
  lr = report.get('controls', {}).get('lr', {}).get('test')
  if bayes and lr:
    closed = (lr['logloss'] - test['logloss']) / (
      lr['logloss'] - bayes['logloss']
    )
    lines.append(
      f'The model closes {closed:.1%} of the logloss gap between logistic '
      'regression and the best possible.'
    )
  if report.get('tiny'):
    lines.append('A tiny smoke run: its numbers say nothing about quality.')
  lines.append(
    'One seed: compare several, paired, before believing a difference.'
  )
  return lines


def _pictures(report, metrics, architecture):
  """(title, svg, caption) of every picture that the values allow."""
  planted = [tuple(p) for p in report.get('truth', {}).get('pairs', [])]
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
    terms = names.get(name, [])
    known = [term in planted for term in terms] if planted else None
    yield (
      f'Gates of the {name} over the search',
      plots.gates_over_time(steps, rows, known),
      'A gate that ends at zero is pruned.',
    )
    if terms and len(terms[0]) == 2:
      fields = [field['name'] for field in architecture.get('fields', [])]
      yield (
        'Field pairs',
        plots.pair_map(fields, dict(zip(terms, rows[-1])), planted),
        'Size of each gate at the end of the search'
        + ('; planted pairs are outlined.' if planted else '.'),
      )
  for metric, label in (
    ('valid_auc', 'AUC, validation split'),
    ('valid_logloss', 'logloss, validation split'),
  ):
    series = plots.series_by_stage(metrics, metric)
    if series:
      yield f'Learning curves: {label}', plots.curves(series, label), ''
  sizes = {
    field['name']: field['vocab_size'] * field['dim']
    for field in architecture.get('fields', [])
    if field.get('kind') == 'categorical'
  }
  if sizes:
    yield (
      'Size of the embeddings by field',
      plots.bars(list(sizes), list(sizes.values()), 'vocabulary x dim'),
      '',
    )


def _interactions(architecture):
  """(name, order, terms as text) of explicit interactions."""
  result = []
  for plan in architecture.get('interactions', []):
    terms = [' x '.join(term) for term in plan.get('terms', [])]
    result.append((plan.get('name', ''), plan.get('kind', ''), terms))
  return result
