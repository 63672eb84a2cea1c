"""What may be said of models that were measured on the same rows.

Paired tests of the difference of two AUCs over test examples, in closed form
(DeLong) and by bootstrap; Holm's correction; the Pareto front. Tests over
seeds: `metrics.paired_difference`. All on the host, in float64.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from jax_autorec import errors
from jax_autorec.types import Array

_BLOCK = 2**22  # Counts of resampled rows that are held at a time.


def holm(p_values: Array) -> np.ndarray:
  """P values corrected for the number of tests (Holm, 1979).

  The k-th smallest of m is multiplied by m - k + 1 and is at least the one
  before. Rejecting what is below a level bounds the chance of any false
  rejection by that level, whatever the tests have to do with one another.

  Args:
    p_values: [m], each in [0, 1], of one family.

  Returns:
    float64 [m], in the order given.

  Raises:
    DataError: for anything but a vector of such values.
  """
  p_values = np.asarray(p_values, np.float64)
  if p_values.ndim != 1 or not ((p_values >= 0) & (p_values <= 1)).all():
    raise errors.DataError(
      f'P values of shape {p_values.shape}: {p_values}; expected a vector of '
      'values in [0, 1].'
    )
  order = np.argsort(p_values, kind='stable')
  factors = np.arange(len(p_values), 0, -1)
  raised = np.maximum.accumulate(p_values[order] * factors)
  result = np.empty_like(raised)
  result[order] = np.minimum(raised, 1)
  return result


def pareto_front(sizes: Array, scores: Array) -> np.ndarray:
  """Which points no other one beats: no larger and no worse, and not equal.

  Args:
    sizes: [n], smaller is better.
    scores: [n], larger is better.

  Returns:
    Places of the front, by rising size. Of equal points all are in it.

  Raises:
    DataError: for vectors of unequal lengths or NaN.
  """
  sizes, scores = np.asarray(sizes, float), np.asarray(scores, float)
  if sizes.shape != scores.shape or sizes.ndim != 1:
    raise errors.DataError(
      f'Sizes of shape {sizes.shape} and scores of shape {scores.shape}; '
      'expected two vectors of equal length.'
    )
  if np.isnan(sizes).any() or np.isnan(scores).any():
    raise errors.DataError('Some sizes or scores are NaN.')
  front: list[int] = []
  for place in np.lexsort((-scores, sizes)):
    if front:
      last = front[-1]
      same = sizes[place] == sizes[last] and scores[place] == scores[last]
      if scores[place] <= scores[last] and not same:
        continue
    front.append(int(place))
  return np.array(front, int)


def _rows(labels: Array, scores: Array) -> tuple[np.ndarray, np.ndarray]:
  """Labels as bool [R], scores as float64 [K, R]."""
  labels, scores = np.asarray(labels), np.asarray(scores, np.float64)
  scores = scores[None] if scores.ndim == 1 else scores
  if labels.ndim != 1 or scores.ndim != 2 or scores.shape[1] != len(labels):
    raise errors.DataError(
      f'Labels of shape {labels.shape} and scores of shape {scores.shape}; '
      'expected [R] and [R] or [K, R].'
    )
  if np.isnan(scores).any():
    raise errors.DataError('Some scores are NaN.')
  if not ((labels == 0) | (labels == 1)).all():
    raise errors.DataError('Some labels are neither 0 nor 1.')
  positive = labels == 1
  if positive.all() or not positive.any():
    raise errors.DataError(
      f'All {len(labels)} rows are of one class: they have no AUC to compare.'
    )
  return positive, scores


def _ranked(positive: np.ndarray, scores: np.ndarray):
  """Order of the negatives and of the positives, and where these fall.

  Returns:
    negatives [N] and positives [P], as places, by rising score; for each of
    the positives, in that order, how many negatives are below it, and how many
    are below or equal.
  """
  negatives, positives = np.flatnonzero(~positive), np.flatnonzero(positive)
  negatives = negatives[np.argsort(scores[negatives])]
  positives = positives[np.argsort(scores[positives])]
  values = scores[negatives]
  below = np.searchsorted(values, scores[positives], 'left')
  up_to = np.searchsorted(values, scores[positives], 'right')
  return negatives, positives, below, up_to


def placements(labels: Array, scores: Array) -> np.ndarray:
  """Share of the other class that each row is on the right side of.

  Ties count half. The mean over the positives is the AUC, and so is the mean
  over the negatives.

  Args:
    labels: [R], 0 or 1.
    scores: [R], or [K, R] of K models.

  Returns:
    float64 of the shape of `scores`, in [0, 1].

  Raises:
    DataError: for shapes that do not fit, NaN scores, or rows of one class.
  """
  positive, grid = _rows(labels, scores)
  result = np.empty_like(grid)
  for out, row in zip(result, grid):
    # The same count from both sides: -row turns 'below' into 'above'.
    for side, sign in ((positive, 1), (~positive, -1)):
      _, own, below, up_to = _ranked(side, sign * row)
      out[own] = (below + up_to) / (2 * np.count_nonzero(~side))
  return result.reshape(np.shape(scores))


def delong(labels: Array, first: Array, second: Array) -> dict[str, float]:
  """How far one AUC is above another, measured on the same rows.

  (DeLong, DeLong and Clarke-Pearson, Biometrics 1988.) Models are taken as
  they are; chance is in which rows were tested. Given K models of each kind
  (seeds), it is the mean of their AUCs that is compared.

  Args:
    labels: [R], 0 or 1.
    first: [R] or [K, R] scores.
    second: the same of the control.

  Returns:
    'mean' (difference), 'std' (its standard error), 'low' and 'high' (95 %
    interval), 'p' (two-sided, by the normal distribution).

  Raises:
    DataError: as `placements`; or with fewer than two rows of a class.
  """
  both = [np.atleast_2d(placements(labels, s)) for s in (first, second)]
  return _delong(np.asarray(labels) == 1, *(s.mean(0) for s in both))


def delong_from_placements(
  labels: Array, first: Array, second: Array
) -> dict[str, float]:
  """`delong` from placements [R], or means of several, to use them again."""
  positive, both = _rows(labels, np.stack([first, second]))
  return _delong(positive, *both)


def _delong(positive, first, second):
  difference = first - second
  parts = [difference[positive], difference[~positive]]
  if min(map(len, parts)) < 2:
    raise errors.DataError('A variance needs two rows of each class.')
  mean = float(parts[0].mean())
  return _normal(mean, np.sqrt(sum(x.var(ddof=1) / len(x) for x in parts)))


def _normal(mean: float, std: float) -> dict[str, float]:
  from scipy import stats  # Imported late: slow.

  std = float(std)
  half = float(stats.norm.ppf(0.975)) * std
  if std > 0:
    p = 2 * float(stats.norm.sf(abs(mean) / std))
  else:
    p = float(mean == 0)
  return {
    'mean': mean,
    'std': std,
    'low': mean - half,
    'high': mean + half,
    'p': p,
  }


def bootstrap_auc(
  labels: Array, scores: Array, samples: int = 1000, seed: int = 0
) -> np.ndarray:
  """AUCs on rows that are drawn again, with replacement.

  The draws follow from the seed and the number of rows alone, so the results
  of different models are paired: subtract them.

  Args:
    labels: [R], 0 or 1.
    scores: [R], or [K, R] of K models.
    samples: draws.
    seed: of the draws.

  Returns:
    float64 [samples] or [K, samples]; NaN for draws of one class.

  Raises:
    DataError: as `placements`.
  """
  positive, grid = _rows(labels, scores)
  ranked = [_ranked(positive, row) for row in grid]
  result = np.empty((len(grid), samples))
  start = 0
  for counts in _draws(len(positive), samples, seed):
    stop = start + len(counts)
    for out, (negatives, positives, below, up_to) in zip(result, ranked):
      # Drawn negatives among the lowest 0, 1, 2, ...
      lowest = np.zeros((len(counts), len(negatives) + 1), np.int32)
      np.cumsum(counts[:, negatives], axis=1, out=lowest[:, 1:])
      drawn = counts[:, positives]
      # Twice the pairs in the right order: a tie counts one.
      right = np.take(lowest, below, axis=1)
      right += np.take(lowest, up_to, axis=1)
      pairs = drawn.sum(1, dtype=np.float64) * lowest[:, -1]
      with np.errstate(invalid='ignore'):
        out[start:stop] = np.einsum(
          'bp,bp->b', right, drawn, dtype=np.float64, casting='safe'
        ) / (2 * pairs)
    start = stop
  return result.reshape(*np.shape(scores)[:-1], samples)


def _draws(rows: int, samples: int, seed: int) -> Iterator[np.ndarray]:
  """How often each row is drawn: uint8 [samples at a time, R]."""
  rng = np.random.default_rng(seed)
  size = max(1, _BLOCK // rows)
  for start in range(0, samples, size):
    block = np.empty((min(size, samples - start), rows), np.uint8)
    for counts in block:
      # A row is drawn 256 times in one of 10^500 samples.
      counts[:] = np.bincount(rng.integers(rows, size=rows), minlength=rows)
    yield block


def bootstrap_difference(
  first: Array, second: Array, mean: float
) -> dict[str, Any]:
  """How far one AUC is above another, by paired draws of the rows.

  Args:
    first: [samples] of `bootstrap_auc`, or a mean of several.
    second: the control's, of the same draws.
    mean: the difference on the rows themselves.

  Returns:
    'mean'; 'std' over the draws; 'low' and 'high': 95 % interval, by
    percentiles; 'p', two-sided: by the normal distribution with that std,
    since shares of a thousand draws are too coarse to be corrected for the
    number of tests.
  """
  first, second = np.asarray(first, float), np.asarray(second, float)
  if first.shape != second.shape or first.ndim != 1:
    raise errors.DataError(
      f'Draws of shapes {first.shape} and {second.shape} are not paired.'
    )
  difference = (first - second)[~np.isnan(first - second)]
  if len(difference) < 2:
    raise errors.DataError(
      f'{len(difference)} draws have rows of both classes; a spread needs 2.'
    )
  low, high = np.percentile(difference, [2.5, 97.5])
  values = _normal(float(mean), float(difference.std(ddof=1)))
  return values | {'low': float(low), 'high': float(high)}
