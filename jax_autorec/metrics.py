"""Exact metrics, on the host in float64.

All raise DataError for vectors of unequal lengths, NaN scores, labels other
than 0 and 1, negative weights and no rows at all; rows of weight 0 (padding,
say) do not exist.
"""

from typing import Any

import numpy as np

from jax_autorec import errors
from jax_autorec.types import Array


def _arrays(labels, scores, weights):
  labels = np.asarray(labels, np.float64)
  scores = np.asarray(scores, np.float64)
  if labels.shape != scores.shape or labels.ndim != 1:
    raise errors.DataError(
      f'Labels of shape {labels.shape} and scores of shape {scores.shape}; '
      'expected two vectors of equal length.'
    )
  if weights is None:
    weights = np.ones_like(labels)
  weights = np.asarray(weights, np.float64)
  if weights.shape != labels.shape:
    raise errors.DataError(
      f'Weights of shape {weights.shape} for labels of shape {labels.shape}.'
    )
  if not ((weights >= 0) & (weights < np.inf)).all():
    raise errors.DataError('Sample weights are negative or not finite.')
  live = weights > 0
  labels, scores, weights = labels[live], scores[live], weights[live]
  if not len(labels):
    raise errors.DataError('No rows to measure, or all of weight 0.')
  if np.isnan(scores).any():
    raise errors.DataError(
      f'{int(np.isnan(scores).sum())} of {len(scores)} scores are NaN.'
    )
  if not ((labels == 0) | (labels == 1)).all():
    raise errors.DataError('Some labels are neither 0 nor 1.')
  return labels, scores, weights


def auc(labels: Array, scores: Array, weights: Array | None = None) -> float:
  """Area under the ROC curve; a tie counts half.

  Args:
    labels: [R], 0 or 1.
    scores: [R], any increasing function of the probability.
    weights: [R], at least 0, or None.

  Returns:
    The weighted share of pairs in the right order, in [0, 1]; NaN where all
    rows are of one class.
  """
  labels, scores, weights = _arrays(labels, scores, weights)
  return _auc(labels, scores, weights)


def _auc(labels, scores, weights):
  order = np.argsort(scores, kind='stable')
  scores = scores[order]
  positive = (weights * labels)[order]
  negative = (weights * (1 - labels))[order]
  total = positive.sum() * negative.sum()
  if total == 0:
    return float('nan')
  # One group per distinct score; a positive beats all negatives of lower
  # groups and half of those in its own.
  starts = np.flatnonzero(np.r_[True, scores[1:] != scores[:-1]])
  positive = np.add.reduceat(positive, starts)
  negative = np.add.reduceat(negative, starts)
  below = np.cumsum(negative) - negative
  return float((positive * (below + 0.5 * negative)).sum() / total)


def logloss(
  labels: Array, logits: Array, weights: Array | None = None
) -> float:
  """Mean binary cross-entropy in nats, from logits [R]."""
  labels, logits, weights = _arrays(labels, logits, weights)
  # Not logaddexp(0, logit) - label * logit, which cancels for large logits.
  losses = np.logaddexp(0, np.where(labels == 1, -logits, logits))
  return float(np.average(losses, weights=weights))


def normalized_entropy(
  labels: Array, logits: Array, weights: Array | None = None
) -> float:
  """Log loss over that of always predicting the base rate.

  (He et al., ADKDD 2014.) 1 is no better than the base rate; NaN where all
  rows are of one class.
  """
  labels, logits, weights = _arrays(labels, logits, weights)
  rate = np.average(labels, weights=weights)
  if rate in (0, 1):
    return float('nan')
  entropy = -rate * np.log(rate) - (1 - rate) * np.log1p(-rate)
  return logloss(labels, logits, weights) / float(entropy)


def calibration(
  labels: Array, logits: Array, weights: Array | None = None
) -> float:
  """Mean predicted over mean observed rate; NaN without positives."""
  labels, logits, weights = _arrays(labels, logits, weights)
  observed = np.average(labels, weights=weights)
  if observed == 0:
    return float('nan')
  predicted = np.exp(-np.logaddexp(0, -logits))
  return float(np.average(predicted, weights=weights) / observed)


def group_auc(
  labels: Array,
  scores: Array,
  groups: Array,
  weights: Array | None = None,
) -> tuple[float, int]:
  """Mean AUC over groups (users, say), weighted by their rows.

  Args:
    labels: [R], 0 or 1.
    scores: [R].
    groups: [R], any values that can be sorted.
    weights: [R] or None.

  Returns:
    The mean, NaN where no group has both classes; how many groups were left
    out because they have one class only.
  """
  groups = np.asarray(groups)
  if groups.shape != np.shape(labels):
    raise errors.DataError(
      f'Groups of shape {groups.shape} for labels of shape {np.shape(labels)}.'
    )
  live = ... if weights is None else np.asarray(weights) > 0
  labels, scores, weights = _arrays(labels, scores, weights)
  groups = groups[live]
  order = np.argsort(groups, kind='stable')
  groups = groups[order]
  starts = np.flatnonzero(np.r_[True, groups[1:] != groups[:-1]])
  values, sizes, left_out = [], [], 0
  for rows in np.split(order, starts[1:]):
    value = _auc(labels[rows], scores[rows], weights[rows])
    if np.isnan(value):
      left_out += 1
    else:
      values.append(value)
      sizes.append(weights[rows].sum())
  if not values:
    return float('nan'), left_out
  return float(np.average(values, weights=sizes)), left_out


def evaluate_logits(
  labels: Array,
  logits: Array,
  weights: Array | None = None,
  groups: Array | None = None,
) -> dict[str, float]:
  """All metrics of a split.

  Args:
    labels: [R], 0 or 1.
    logits: [R].
    weights: [R] or None.
    groups: [R] or None, what `group_auc` groups by.

  Returns:
    'auc', 'logloss' and its standard error 'logloss_error', 'ne' (normalised
    entropy), 'calibration'; 'rows' and 'positives', counted whatever their
    weight; with groups also 'gauc' and
    'gauc_groups_left_out'.
  """
  result: dict[str, Any] = {
    'auc': auc(labels, logits, weights),
    'logloss': logloss(labels, logits, weights),
    'logloss_error': logloss_error(labels, logits, weights),
    'ne': normalized_entropy(labels, logits, weights),
    'calibration': calibration(labels, logits, weights),
    'rows': len(labels),
    'positives': int(np.sum(labels)),
  }
  if groups is not None:
    gauc, left_out = group_auc(labels, logits, groups, weights)
    result['gauc'], result['gauc_groups_left_out'] = gauc, left_out
  return result


def logloss_error(
  labels: Array, logits: Array, weights: Array | None = None
) -> float:
  """Standard error of the log loss as a mean over examples.

  What another sample of as many examples would change. Two models that are
  measured on the same examples differ by less than their errors suggest.

  Args:
    labels: [R], 0 or 1.
    logits: [R].
    weights: [R] or None.
  """
  labels, logits, weights = _arrays(labels, logits, weights)
  losses = np.logaddexp(0, logits) - labels * logits
  shares = weights / weights.sum()
  return float(np.sqrt(np.sum((shares * (losses - shares @ losses)) ** 2)))


def paired_difference(a: Array, b: Array) -> dict[str, float]:
  """How far a is above b over paired runs (equal seeds and splits).

  Args:
    a: [n], one value per run.
    b: [n], the control's.

  Returns:
    'mean', 'std' (sample), 'low' and 'high' (95 % interval of the mean by
    Student's t), 'p' (two-sided), 'n'.
  """
  from scipy import stats  # Imported late: slow.

  a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
  if a.shape != b.shape or a.ndim != 1:
    raise errors.DataError(
      f'Runs of shapes {a.shape} and {b.shape} are not paired.'
    )
  difference = a - b
  n = len(difference)
  if n < 2:
    raise errors.DataError(f'{n} paired runs; a spread needs at least 2.')
  mean, std = difference.mean(), difference.std(ddof=1)
  half = stats.t.ppf(0.975, n - 1) * std / np.sqrt(n)
  p = float(stats.ttest_1samp(difference, 0).pvalue) if std > 0 else 0.0
  if std == 0 and mean == 0:
    p = 1.0
  return {
    'mean': float(mean),
    'std': float(std),
    'low': float(mean - half),
    'high': float(mean + half),
    'p': p,
    'n': n,
  }
