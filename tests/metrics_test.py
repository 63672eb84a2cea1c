import itertools

from absl.testing import absltest, parameterized
import numpy as np
from scipy import stats
from sklearn import metrics as sk

from jax_autorec import errors, metrics


def _data(seed=0, rows=300, levels=12):
  """Scores with many ties, uneven weights, some of them zero."""
  rng = np.random.default_rng(seed)
  labels = (rng.random(rows) < 0.3).astype(np.float32)
  logits = rng.integers(-levels, levels, rows) / 4 + labels
  weights = rng.integers(0, 4, rows).astype(np.float32)
  return labels, logits.astype(np.float32), weights


class MetricsTest(parameterized.TestCase):
  @parameterized.product(seed=[0, 1], weighted=[False, True])
  def test_against_sklearn(self, seed, weighted):
    labels, logits, weights = _data(seed)
    weights = weights if weighted else None
    chance = 1 / (1 + np.exp(-logits.astype(np.float64)))
    # scikit-learn computes the log loss of float32 labels in float32.
    live = slice(None) if weights is None else weights > 0
    w = None if weights is None else weights[live]
    self.assertAlmostEqual(
      metrics.auc(labels, logits, weights),
      sk.roc_auc_score(labels[live], logits[live], sample_weight=w),
      places=12,
    )
    loss = sk.log_loss(labels[live], chance[live], sample_weight=w)
    self.assertAlmostEqual(
      metrics.logloss(labels, logits, weights), loss, places=6
    )
    rate = np.average(labels[live], weights=w)
    base = np.full(len(labels[live]), rate)
    self.assertAlmostEqual(
      metrics.normalized_entropy(labels, logits, weights),
      loss / sk.log_loss(labels[live], base, sample_weight=w),
      places=6,
    )
    self.assertAlmostEqual(
      metrics.calibration(labels, logits, weights),
      np.average(chance[live], weights=w) / rate,
      places=6,
    )

  def test_auc_by_enumeration_of_pairs(self):
    labels, logits, weights = _data(rows=40)
    good = total = 0.0
    for i, j in itertools.product(range(40), repeat=2):
      if labels[i] == 1 and labels[j] == 0:
        weight = float(weights[i] * weights[j])
        total += weight
        good += weight * (
          (logits[i] > logits[j]) + 0.5 * (logits[i] == logits[j])
        )
    self.assertAlmostEqual(
      metrics.auc(labels, logits, weights), good / total, places=12
    )

  def test_extreme_logits_lose_nothing(self):
    loss = metrics.logloss(np.array([1.0, 0.0]), np.array([-800.0, 800.0]))
    self.assertEqual(loss, 800.0)

  def test_group_auc_by_groups(self):
    labels, logits, weights = _data(2)
    groups = np.random.default_rng(0).integers(0, 60, 300)
    values, sizes, left_out = [], [], 0
    for group in np.unique(groups[weights > 0]):
      rows = (groups == group) & (weights > 0)
      if len(set(labels[rows])) < 2:
        left_out += 1
        continue
      values.append(
        sk.roc_auc_score(
          labels[rows], logits[rows], sample_weight=weights[rows]
        )
      )
      sizes.append(weights[rows].sum())
    got, got_left_out = metrics.group_auc(labels, logits, groups, weights)
    self.assertAlmostEqual(got, np.average(values, weights=sizes), places=12)
    self.assertEqual(got_left_out, left_out)
    self.assertGreater(left_out, 0)

  def test_one_class_has_no_auc(self):
    self.assertTrue(np.isnan(metrics.auc(np.ones(3), np.arange(3.0))))

  @parameterized.parameters(
    (np.zeros(0), np.zeros(0), None, 'No rows'),
    (np.zeros(2), np.zeros(2), np.zeros(2), 'No rows'),
    (np.zeros(3), np.zeros(2), None, 'equal length'),
    (np.zeros(2), np.array([0.0, np.nan]), None, 'NaN'),
    (np.zeros(2), np.zeros(2), np.array([1.0, -1.0]), 'negative'),
  )
  def test_bad_input(self, labels, logits, weights, message):
    with self.assertRaisesRegex(errors.DataError, message):
      metrics.logloss(labels, logits, weights)

  def test_paired_difference(self):
    a, b = np.array([0.8, 0.82, 0.85]), np.array([0.79, 0.8, 0.84])
    result = metrics.paired_difference(a, b)
    test = stats.ttest_rel(a, b)
    interval = test.confidence_interval(0.95)
    self.assertAlmostEqual(result['p'], test.pvalue)
    self.assertAlmostEqual(result['low'], interval.low)
    self.assertAlmostEqual(result['high'], interval.high)
    with self.assertRaises(errors.DataError):
      metrics.paired_difference(a[:1], b[:1])


if __name__ == '__main__':
  absltest.main()
