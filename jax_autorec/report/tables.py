"""What the numbers of a run say: rows of tables, tiles, sentences."""

from collections.abc import Mapping
import math
from typing import Any

from jax_autorec import fields as fields_lib
from jax_autorec import numeric
from jax_autorec.architecture import SIZE_NAMES, SIZE_NOTE, Architecture

_NOISE = 0.001  # AUC; what a single seed can gain by luck on small sets.

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


def number(value: Any, digits: int = 5) -> str:
  """As text, with digits if it is a float; '' for None."""
  if value is None:
    return ''
  if isinstance(value, float):
    return f'{value:,.{digits}f}'
  return f'{value:,}'


def subtitle(report: Mapping[str, Any], architecture: Mapping[str, Any]) -> str:
  """What was run, on how many rows."""
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


def tiles(report: Mapping[str, Any]) -> list[tuple[str, str]]:
  """(label, value) of what a reader looks for first."""
  tiles = [
    ('test AUC', number(report['test']['auc'])),
    ('test logloss', number(report['test']['logloss'])),
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
      tiles.append((SIZE_NAMES[key], number(report[key], 0)))
  seconds = report.get('seconds', {})
  if search:
    tiles.append(('search', f'{number(seconds.get("search"), 1)} s'))
  tiles.append(('training', f'{number(seconds.get("retrain"), 1)} s'))
  return tiles


def results(report: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
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
        number(test.get('auc')),
        ahead[0],
        number(test.get('logloss')),
        ahead[1],
        number(test.get('ne'), 4),
        number(test.get('calibration'), 4),
        *([number(test.get('gauc'))] if has_groups else []),
        number(entry.get('valid', {}).get('auc')),
        *(number(entry.get(key), 0) for key in _SIZES),
        number(seconds, 1),
        number(entry.get('examples_per_second'), 0),
      ]
    )
  return headings, rows


def stream_results(
  report: Mapping[str, Any],
) -> tuple[list[str], list[list[str]]]:
  """`results` along a stream: all of it, its last quarter, and memory."""
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
          number(entry[part][metric])
          for part in ('stream', 'test')
          for metric in ('loss', 'accuracy', 'auc')
        ),
        *(number(entry.get(key), 0) for key in _SIZES),
        number(trained.get('tables')),
        number(trained['optimizer'] + trained['method'] if trained else None),
        number(derived.get('tables')),
        number(derived.get('index')),
        number(seconds, 1),
      ]
    )
  return headings, rows


def notes(report: Mapping[str, Any]) -> list[str]:
  """What a reader of `results` must know."""
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


def summary(report: Mapping[str, Any]) -> list[str]:
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


def trials(report: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
  """Headings and rows of a search by scores, the best first."""
  trials = all_trials(report)
  known = ('trial', 'valid', 'embedding_params', 'ep_total', 'seconds')
  known += ('flops', 'diverged')
  about = [key for key in (trials[0] if trials else ()) if key not in known]
  has_flops = any('flops' in trial for trial in trials)
  headings = ['trial', *about, 'valid AUC', 'valid logloss']
  headings += ['standard error'] if by_loss(report) else []
  headings += ['operations of a prediction'] if has_flops else []
  headings += [SIZE_NAMES['embedding_params'], 'seconds']
  if by_loss(report):
    order = lambda trial: trial['valid'].get('logloss', math.inf)
  else:
    order = lambda trial: -trial['valid'].get('auc', 0.0)
  rows = [
    [
      number(trial['trial']),
      *(str(trial[key]) for key in about),
      number(trial['valid'].get('auc')) or 'diverged',
      number(trial['valid'].get('logloss')),
      *([number(trial['valid'].get('logloss_error'))] * by_loss(report)),
      *([number(trial.get('flops'), 0)] * has_flops),
      number(trial['embedding_params']),
      number(trial['seconds'], 1),
    ]
    for trial in sorted(trials, key=order)
  ]
  return headings, rows


def all_trials(report: Mapping[str, Any]) -> list[dict[str, Any]]:
  """What a search by scores has trained; nothing of other searches."""
  return report.get('search', {}).get('trials', [])


def by_loss(report: Mapping[str, Any]) -> bool:
  """Whether a search kept what has the lowest log loss."""
  return report.get('search', {}).get('metric') == 'logloss'


def blocks(plan: Architecture | None) -> list[list[str]]:
  """(field, ids, what is stored, its size) where that is no row per id."""
  plans = plan.categorical if plan else ()
  is_plain = lambda p: p.pieces is None and not p.num_values and not p.quantizer
  if all(map(is_plain, plans)):
    return []
  sizes = plan.field_sizes
  return [
    [p.name, number(p.vocab_size), _stored(p), number(sizes[p.name], 0)]
    for p in plans
  ]


def _stored(plan: fields_lib.FieldPlan) -> str:
  """What a field keeps of its vectors."""
  if plan.num_values:
    return f'{number(plan.num_values)} of {plan.vocab_size:,} x {plan.dim}'
  if not plan.quantizer:
    return (
      ' + '.join(f'{number(p.num_rows)} x {p.dim}' for p in plan.all_pieces)
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


def sizes(
  report: Mapping[str, Any],
) -> tuple[list[str], list[list[str]], str] | None:
  """Headings, rows and a note: what was held before and after."""
  sizes = report.get('sizes')
  if not sizes:
    return None
  known = (*SIZE_NAMES.items(), *_FURTHER_SIZES.items())
  rows = [
    [name, *(number(size.get(key), 0) for size in sizes.values())]
    for key, name in known
    if any(size.get(key) for size in sizes.values())
  ]
  rows += [
    [name, *(number(size['bytes'][key]) for size in sizes.values())]
    for key, name in _BYTES.items()
  ]
  return ['', *sizes], rows, report.get('not_searched', '')


def interactions(
  architecture: Mapping[str, Any],
) -> list[tuple[str, str, list[str]]]:
  """(name, kind of terms or options, terms as text) of interactions."""
  result = []
  for plan in architecture.get('interactions', []):
    if 'blocks' in plan:
      terms = [
        f'{place}: {block["type"]} {block["width"] or ""} of '
        + ', '.join(map(str, block['inputs']))
        for place, block in enumerate(plan['blocks'])
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


def head(architecture: Mapping[str, Any]) -> str:
  """What makes a prediction of the interactions."""
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


def facts(report: Mapping[str, Any]) -> list[list[tuple[str, str]]]:
  """Two lists of (name, value): sizes; times and rows."""
  # As the table of sizes has them, where there is one.
  sizes = [
    (name, number(report[key], 0))
    for key, name in SIZE_NAMES.items()
    if key in report and 'sizes' not in report
  ]
  # Near 0 a codebook has collapsed; at 1 all its centroids are used alike.
  sizes += [
    (f'entropy of the codes of {name}, of 1', number(value, 2))
    for name, value in report.get('code_entropy', {}).items()
  ]
  others = [
    (f'seconds, {k}', float(v)) for k, v in report.get('seconds', {}).items()
  ]
  others += [(f'rows {k}', v) for k, v in report.get('rows', {}).items()]
  return [
    [
      (name, value if isinstance(value, str) else number(value, 1))
      for name, value in lines
    ]
    for lines in (sizes, others)
  ]
