"""How rows of a table differ from their references, and whether it is more
than chance.

Two tests of the difference in test AUC, each paired: over seeds (Student's t;
chance is in the training) and over test examples (bootstrap; chance is in which
rows were tested; DeLong's closed form stands beside it).

A method is called better or worse where the test over seeds says so at 5 %, and
that over examples too where there are predictions, and a tie otherwise. The
examples alone decide nothing: what they test is two trained models, not two
methods. Both are corrected by Holm's method within a family: all methods of one
data set and base model against one reference. Controls are not in it: they are
tested alone and get no verdict, so no verdict changes because one was added.

Of streams, loss and accuracy over all rows are tested over seeds as well, each
in a family of its own and with a verdict of its own.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
import pathlib
from typing import Any

import numpy as np

from jax_autorec import comparison, errors, metrics

# What else is tested over seeds, of streams, and the sign of what is better.
STREAM = {'stream_loss': -1, 'stream_accuracy': 1}

LEVEL = 0.05
SAMPLES = 1000


@dataclasses.dataclass(frozen=True)
class Predictions:
  """What a run predicted on the test split.

  Attributes:
    labels: [R].
    placements: float64 [R] (`comparison.placements`).
    draws: float64 [SAMPLES], its AUC on rows drawn again.
    rows: names the rows; equal for runs on the same ones.
  """

  labels: np.ndarray
  placements: np.ndarray
  draws: np.ndarray
  rows: str


def read_predictions(path: pathlib.Path) -> Predictions | None:
  """From a run's predictions.npz; None where it says nothing for a test.

  That is: there is none, the rows have weights, or they are of one class.

  Raises:
    CheckpointError: for a file that cannot be read.
  """
  arrays = read_arrays(path)
  if not arrays or 'weights' in arrays:
    return None
  labels, logits, rows = (arrays[k] for k in ('labels', 'logits', 'rows'))
  if len(np.unique(labels)) < 2:
    return None
  return Predictions(
    labels,
    comparison.placements(labels, logits),
    comparison.bootstrap_auc(labels, logits, SAMPLES),
    str(rows),
  )


def read_arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
  """'labels' and 'logits' [R], 'rows', maybe 'weights'; none without a file.

  Raises:
    CheckpointError: for a file that does not hold them.
  """
  if not path.exists():
    return {}
  try:
    with np.load(path) as file:
      arrays = dict(file)
    labels, logits = arrays['labels'], arrays['logits']
    if labels.shape != logits.shape or labels.ndim != 1:
      raise ValueError(f'labels {labels.shape}, logits {logits.shape}')
    if not np.isfinite(logits).all() or 'rows' not in arrays:
      raise ValueError('logits that are not finite, or no "rows"')
  except Exception as error:  # Damaged files make NumPy raise all kinds.
    raise errors.CheckpointError(
      f'{path} cannot be read as predictions: {error}.'
    ) from error
  return arrays


@dataclasses.dataclass
class Line:
  """One row of a table, over its seeds.

  Attributes:
    name: unique within the table.
    method: as it is shown.
    role: 'uniform', 'control' or ''.
    values: seed -> what is known of the run: 'auc', 'logloss', 'valid_auc',
      'size', ...
    places: seed -> the run's directory, for its predictions.
  """

  name: str
  method: str
  role: str
  values: Mapping[int, Mapping[str, Any]]
  places: Mapping[int, pathlib.Path] = dataclasses.field(default_factory=dict)

  def mean(self, key: str) -> float | None:
    known = [v[key] for v in self.values.values() if v.get(key) is not None]
    return float(np.mean(known)) if known else None


def best_on_validation(lines: Sequence[Line]) -> Line | None:
  """The line of the highest validation AUC, over the seeds that all have.

  Where they share none, over each one's own. The test split is not looked at.
  """
  if not lines:
    return None
  shared = set.intersection(*(set(line.values) for line in lines))

  def score(line):
    seeds = shared or set(line.values)
    return np.mean([line.values[seed]['valid_auc'] for seed in seeds])

  return max(lines, key=score)


def references(
  lines: Sequence[Line], fixed: str | None
) -> dict[str, Callable[[Line], Line | None]]:
  """Name of a reference -> line -> the line that it is compared with.

  Args:
    lines: of one data set and base model, with finished runs.
    fixed: method of the reference that is the same for all, if any.
  """
  uniform = [line for line in lines if line.role == 'uniform']
  controls = [line for line in lines if line.role]
  found: dict[str, Callable[[Line], Line | None]] = {}
  named = [line for line in lines if line.method == fixed]
  if named:
    found[named[0].method] = lambda line: named[0]
  best = best_on_validation(uniform)
  if best:
    found['the best single width'] = lambda line: best

  def as_large(line):
    size = line.mean('size')
    if size is None:
      return None
    return best_on_validation(
      [c for c in controls if c is not line and (c.mean('size') or 0) >= size]
    )

  if controls:
    found['the best control at equal or larger size'] = as_large
  return found


def compare(
  lines: Sequence[Line],
  fixed: str | None = None,
  read: Callable[[pathlib.Path], Predictions | None] = read_predictions,
) -> list[dict[str, Any]]:
  """Every line against its references.

  Args:
    lines: of one data set and base model.
    fixed: as `references`.
    read: from a run's predictions.npz.

  Returns:
    One dictionary each: 'reference', 'row', 'method', 'against' (its method),
    'role', 'seeds', 'mean' (AUC), 'logloss' (mean difference); 'seeds_low',
    '_high', '_p', '_holm'; 'examples_low', '_high', '_p', '_holm'; 'delong_p';
    'verdict': 'better', 'worse' or 'tie', 'one seed' where that is all they
    share, 'control' of a control; 'tested': over what. None stands for what
    could not be computed, '_holm' also for what has no verdict. Of streams also
    'stream_loss' and 'stream_accuracy' (mean differences), each with '_low',
    '_high', '_p', '_holm' and '_verdict'.
  """
  read = functools.cache(read)
  found = []
  finished = [line for line in lines if line.values]
  for name, reference in references(finished, fixed).items():
    family = []
    for line in finished:
      other = reference(line)
      if other is None or other is line:
        continue
      difference = _difference(line, other, read)
      if difference:
        family.append({'reference': name} | difference)
    for kind in ('seeds', 'examples', *STREAM):
      tested = [d for d in family if _is_judged(d, kind)]
      for d, p in zip(
        tested, comparison.holm([d[f'{kind}_p'] for d in tested])
      ):
        d[f'{kind}_holm'] = float(p)
    for d in family:
      tested = [k for k in ('seeds', 'examples') if d[f'{k}_p'] is not None]
      d['verdict'] = _verdict(d, d['mean'], tested)
      d['tested'] = ', '.join(tested)
      for key in STREAM:
        if key in d:
          d[f'{key}_verdict'] = _verdict(d, d[key] * STREAM[key], [key])
    found += family
  return found


def _difference(line, other, read):
  """Both tests of one pair; None where they share no seed."""
  seeds = sorted(set(line.values) & set(other.values))
  if not seeds:
    return None
  both = lambda key: (
    np.array([x.values[seed].get(key) for seed in seeds]) for x in (line, other)
  )
  first, second = both('auc')
  loss, other_loss = both('logloss')
  result = {
    'row': line.name,
    'method': line.method,
    'role': line.role,
    'against': other.method,
    'seeds': len(seeds),
    'mean': float((first - second).mean()),
    'logloss': float((loss - other_loss).mean()),
    'delong_p': None,
  }
  for kind in ('seeds', 'examples'):
    result |= {f'{kind}_{x}': None for x in ('low', 'high', 'p', 'holm')}
  if len(seeds) > 1:
    result |= _named('seeds', metrics.paired_difference(first, second))
  for key in STREAM:
    first, second = both(key)
    if None in (*first, *second):
      continue
    result[key] = float((first - second).mean())
    result |= {f'{key}_{x}': None for x in ('low', 'high', 'p', 'holm')}
    if len(seeds) > 1:
      result |= _named(key, metrics.paired_difference(first, second))
  examples = _examples(line, other, seeds, read)
  if examples:
    test, delong = examples
    result |= _named('examples', test)
    result['delong_p'] = delong['p']
  return result


def _named(kind, test):
  return {f'{kind}_{key}': test[key] for key in ('low', 'high', 'p')}


def _examples(line, other, seeds, read):
  """Tests over examples of the mean of the seeds; None where rows differ."""
  pairs = [
    tuple(
      read(x.places[seed] / 'predictions.npz') if seed in x.places else None
      for x in (line, other)
    )
    for seed in seeds
  ]
  pairs = [pair for pair in pairs if None not in pair]
  if not pairs or len({p.rows for pair in pairs for p in pair}) > 1:
    return None
  labels = pairs[0][0].labels
  placements = [np.mean([p[i].placements for p in pairs], 0) for i in (0, 1)]
  draws = [np.mean([p[i].draws for p in pairs], 0) for i in (0, 1)]
  delong = comparison.delong_from_placements(labels, *placements)
  return comparison.bootstrap_difference(*draws, delong['mean']), delong


def _is_judged(difference, kind):
  """Whether a test counts for a verdict."""
  is_method = not difference['role'] and difference['seeds'] > 1
  return is_method and difference.get(f'{kind}_p') is not None


def _verdict(difference, gain, tested):
  """What is called of a gain, by the tests that there are."""
  if difference['role']:
    return 'control'
  if difference['seeds'] < 2:
    return 'one seed'
  sure = all(difference[f'{kind}_holm'] < LEVEL for kind in tested)
  if not sure or not gain:
    return 'tie'
  return 'better' if gain > 0 else 'worse'
