"""Fits numeric embeddings to the train split: quantiles, edges, leaves."""

from collections.abc import Callable, Mapping
import dataclasses
from typing import Any, Protocol

import numpy as np

from jax_autorec import architecture as arch_lib
from jax_autorec import errors, numeric

_ROWS = 500_000  # Quantiles of so many are exact enough.
_GRID = 101  # Of a distribution function.
_LEAST_LEAF = 20  # Train rows; lightgbm's default.
_DEEPEST = 1000  # Negative values of LD.


class Rows(Protocol):
  """What is read of the train split: `data.Split` has it.

  Attributes:
    numeric: float32 [R, N], scaled.
    missing: bool [R, N].
    labels: float32 [R].
  """

  numeric: np.ndarray
  missing: np.ndarray
  labels: np.ndarray


class Scale(Protocol):
  """How raw values of a field became those of the split, rising: a
  `data.encode.NumericMap`."""

  scaled: Callable[[np.ndarray], np.ndarray]


def fit(
  architecture: arch_lib.Architecture,
  train: Rows,
  scales: Mapping[str, Scale] | None = None,
) -> arch_lib.Architecture:
  """The architecture with everything its numeric embeddings have to know.

  What is fitted already stays as it is. `run_search` and `retrain` fit what
  they are given; to know sizes before that, fit first. At most 500,000 rows,
  evenly taken, are read.

  Args:
    architecture: of any kind, open or closed.
    train: rows of the train split, and of no other.
    scales: field -> how raw values became the values of `train`; a field
      without one was not scaled. `Dataset.scales`.

  Raises:
    ConfigError: where a field of an embedding that is fitted has no values, or
      the package lightgbm is missing.
  """
  fields, arrays = [], dict(architecture.arrays)
  places = {plan.name: i for i, plan in enumerate(architecture.numeric)}
  step = max(1, -(-len(train.labels) // _ROWS))
  for plan in architecture.fields:
    if plan.kind == 'numeric' and not architecture.is_fitted(plan):
      place = places[plan.name]
      values = np.asarray(train.numeric[::step, place], np.float32)
      known = ~np.asarray(train.missing[::step, place])
      if not known.any():
        raise errors.ConfigError(
          f'Numeric field {plan.name!r} has no value in the train split, so '
          f'{plan.numeric.title} cannot be fitted: leave the field out.'
        )
      own = _FITS[plan.numeric.kind](
        plan.numeric,
        values[known],
        np.asarray(train.labels[::step])[known],
        (scales or {}).get(plan.name),
      )
      arrays |= {f'{plan.name}.{key}': array for key, array in own.items()}
      if plan.numeric.is_bucketed:
        plan = dataclasses.replace(
          plan, vocab_size=int(own['buckets'].max()) + 1
        )
    fields.append(plan)
  return dataclasses.replace(architecture, fields=tuple(fields), arrays=arrays)


def crossing_points(values: np.ndarray, count: int) -> np.ndarray:
  """Distinct points float64 [count], rising, with even shares between them.

  Between values, at quantiles, so that a value with more than its share counts
  as one share: where every other row is 0, one interval is for 0 and the others
  for what else there is. With fewer distinct values than intervals, the widest
  distances are halved.

  Args:
    values: [R], at least one.
    count: at least 0.
  """
  distinct, counts = np.unique(values.astype(np.float64), return_counts=True)
  counts = counts.astype(np.float64)
  for _ in range(count + 1):
    # Less of the one leaves less in all, and smaller shares.
    counts = np.minimum(counts, counts.sum() / (count + 1))
  shares = np.cumsum(counts)[:-1] / counts.sum()
  between = (distinct[:-1] + distinct[1:]) / 2
  levels = np.arange(1, count + 1) / (count + 1)
  points: list[float] = []
  if len(between):
    # The nearest place between two values; each is taken once.
    right = np.searchsorted(shares, levels).clip(0, len(shares) - 1)
    left = np.maximum(right - 1, 0)
    nearer = levels - shares[left] < shares[right] - levels
    points = between[np.unique(np.where(nearer, left, right))].tolist()
  low, high = distinct[0], distinct[-1]
  if low == high:
    low, high = low - 0.5, high + 0.5
  while len(points) < count:
    ends = np.array([low, *points, high])
    widest = int(np.argmax(np.diff(ends)))
    points.insert(widest, float(ends[widest : widest + 2].mean()))
  return np.array(points)


def _autodis(plan, values, labels, scale):
  del labels, scale
  points = crossing_points(values, plan.buckets - 1)
  low, high = float(values.min()), float(values.max())
  if low == high:
    low, high = low - 0.5, high + 0.5
  arrays = {'quantiles': np.array([low, *points, high], np.float32)}
  if plan.adaptive:
    ordered = np.sort(values)
    places = np.linspace(low, high, numeric.NUM_STATISTICS - 1)
    below = np.searchsorted(ordered, places, side='right') / len(ordered)
    mean = values.mean(dtype=np.float64)
    arrays['statistics'] = np.array([*below, mean], np.float32)
  return arrays


def _intervals(edges):
  """Arrays of intervals that are a bucket each."""
  edges = np.unique(np.asarray(edges, np.float32))
  return {'edges': edges, 'buckets': np.arange(1, len(edges) + 2, dtype='i4')}


def _equal_width(plan, values, labels, scale):
  del labels, scale
  low, high = float(values.min()), float(values.max())
  # A constant has one interval.
  count = plan.buckets if low < high else 1
  return _intervals(np.linspace(low, high, count + 1)[1:-1])


def _equal_frequency(plan, values, labels, scale):
  del labels, scale
  shares = np.arange(1, plan.buckets) / plan.buckets
  edges = np.unique(np.quantile(values.astype(np.float64), shares))
  # Nothing lies below the least value.
  return _intervals(edges[edges > values.min()])


def _above(values: np.ndarray) -> np.ndarray:
  """The float32 next to each value, above it."""
  return np.nextafter(np.asarray(values, np.float32), np.float32(np.inf))


def _log_square(plan, values, labels, scale):
  del plan, labels
  scaled = scale.scaled if scale else lambda raw: raw
  place = lambda raw: np.asarray(
    scaled(np.asarray(raw, np.float64)), np.float32
  )
  low, high = values.min(), values.max()
  depth = 0
  while low <= place([-depth - 1])[0]:
    depth += 1
    if depth == _DEEPEST:
      raise errors.ConfigError(
        f'LD is for counts; a numeric field goes down to -{_DEEPEST}. Take '
        'another numeric embedding.'
      )
  # -2 < x <= -1 is -1, -1 < x < 1 is 0, 1 <= x < 2 is 1, and 2 alone is 2; then
  # it starts anew with 0, and rises where ln(x)^2 is integral. Below 88^2 that
  # is within float32.
  rises = np.exp(np.sqrt(np.arange(1, 88**2)))
  parts = [_above(place(np.arange(-depth, 0))), place([1, 2])]
  parts += [_above(place([2])), place(rises)]
  edges = np.concatenate(parts)
  buckets = np.append(np.arange(-depth, 3), np.arange(len(rises) + 1))
  count = int(np.searchsorted(edges, high, side='right'))
  edges, buckets = edges[:count], buckets[: count + 1]
  # Of equal edges (a scale may map two raw values to one) the last counts.
  last = np.append(edges[1:] > edges[:-1], np.ones(min(count, 1), bool))
  buckets = np.append(buckets[:1], buckets[1:][last])
  ids = np.unique(buckets, return_inverse=True)[1] + 1
  return {'edges': edges[last], 'buckets': ids.astype(np.int32)}


def _tree_leaves(plan, values, labels, scale):
  del scale
  try:
    import lightgbm
  except ImportError as error:
    raise errors.ConfigError(
      'TD fits trees with lightgbm, which is not installed: '
      "pip install 'jax_autorec[trees]', or take another numeric embedding."
    ) from error
  rows = lightgbm.Dataset(values[:, None].astype(np.float64), labels)
  parameters = {
    'objective': 'binary',
    'num_leaves': plan.buckets,
    'min_data_in_leaf': _LEAST_LEAF,
    'num_threads': 1,
    'deterministic': True,
    'force_row_wise': True,
    'seed': 0,
    'verbose': -1,
  }
  booster = lightgbm.train(parameters, rows, plan.trees)
  thresholds: list[float] = []
  nodes = [tree['tree_structure'] for tree in booster.dump_model()['tree_info']]
  while nodes:
    node = nodes.pop()
    if 'threshold' in node:
      thresholds.append(node['threshold'])
      nodes += [node['left_child'], node['right_child']]
  # A value equal to the threshold goes left: the edge is the next float32.
  near = np.asarray(thresholds, np.float32)
  edges = np.where(near.astype(np.float64) > thresholds, near, _above(near))
  return _intervals(edges)


def _powers(plan, values, labels, scale):
  del plan, labels, scale
  shares = np.linspace(0, 1, _GRID)
  grid = np.quantile(values.astype(np.float64), shares).astype(np.float32)
  # A frequent value has the mean of its shares.
  distinct, places = np.unique(grid, return_inverse=True)
  means = np.bincount(places, shares) / np.bincount(places)
  pad = _GRID - len(distinct)
  return {
    'grid': np.pad(distinct, (0, pad), 'edge').astype(np.float32),
    'shares': np.pad(means, (0, pad), 'edge').astype(np.float32),
  }


_FITS: dict[str, Callable[..., dict[str, Any]]] = {
  numeric.AutoDis.kind: _autodis,
  numeric.EqualWidth.kind: _equal_width,
  numeric.EqualFrequency.kind: _equal_frequency,
  numeric.LogSquare.kind: _log_square,
  numeric.TreeLeaves.kind: _tree_leaves,
  numeric.Powers.kind: _powers,
}
