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
    live = slice(None) if weights is None else weights > 0
    w = None if weights is None else weights[live]
    # Of float32 labels scikit-learn takes the loss in float32.
    live_labels = labels[live].astype(np.float64)
    self.assertAlmostEqual(
      metrics.auc(labels, logits, weights),
      sk.roc_auc_score(live_labels, logits[live], sample_weight=w),
      places=12,
    )
    loss = sk.log_loss(live_labels, chance[live], sample_weight=w)
    self.assertAlmostEqual(
      metrics.logloss(labels, logits, weights), loss, places=12
    )
    rate = np.average(live_labels, weights=w)
    base = np.full(len(live_labels), rate)
    self.assertAlmostEqual(
      metrics.normalized_entropy(labels, logits, weights),
      loss / sk.log_loss(live_labels, base, sample_weight=w),
      places=12,
    )
    self.assertAlmostEqual(
      metrics.calibration(labels, logits, weights),
      np.average(chance[live], weights=w) / rate,
      places=12,
    )

  def test_error_of_the_loss_is_that_of_samples(self):
    """Of many samples the losses spread by what one of them says."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (2000, 300)).astype(float)
    logits = rng.normal(0, 2, labels.shape)
    losses = [metrics.logloss(*pair) for pair in zip(labels, logits)]
    found = [metrics.logloss_error(*pair) for pair in zip(labels, logits)]
    self.assertAlmostEqual(np.mean(found) / np.std(losses), 1, delta=0.05)
    # A weight of 2 is that of one row, not of two that agree.
    weights = np.full(300, 2.0)
    self.assertAlmostEqual(
      metrics.logloss_error(labels[0], logits[0], weights), found[0], places=12
    )
    self.assertEqual(
      metrics.evaluate_logits(labels[0], logits[0])['logloss_error'], found[0]
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
    # And gain nothing: where exp(-50) is lost beside 1.
    loss = metrics.logloss(np.array([1.0, 0.0]), np.array([50.0, -50.0]))
    np.testing.assert_allclose(loss, np.exp(-50), rtol=1e-12)
    labels, logits = np.array([1.0, 0.0]), np.array([np.inf, -np.inf])
    self.assertEqual(metrics.logloss(labels, logits), 0)
    self.assertEqual(metrics.auc(labels, logits), 1)
    self.assertEqual(metrics.calibration(labels, logits), 1)

  def test_padding_does_not_exist(self):
    """Whatever stands in rows of weight 0; weights may have any scale."""
    labels, logits, weights = _data(3)
    groups = np.arange(300) % 9
    padded = [
      np.concatenate([a, b])
      for a, b in (
        (labels, [5, np.nan]),
        (logits, [np.nan, np.inf]),
        (7.5 * weights, [0, 0]),
        (groups, [0, 99]),
      )
    ]
    for name in ('auc', 'logloss', 'normalized_entropy', 'calibration'):
      metric = getattr(metrics, name)
      self.assertAlmostEqual(
        metric(*padded[:3]), metric(labels, logits, weights), places=12
      )
    labels_, logits_, weights_, groups_ = padded
    self.assertEqual(
      metrics.group_auc(labels_, logits_, groups_, weights_),
      metrics.group_auc(labels, logits, groups, 7.5 * weights),
    )

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

  def test_groups_by_name(self):
    labels = np.array([1, 0, 1, 0, 1])
    scores = np.array([2, 1, 1, 2, 5.0])
    self.assertEqual(
      metrics.group_auc(labels, scores, np.array(list('aabbc'))), (0.5, 1)
    )

  def test_one_class_has_no_auc(self):
    for labels in (np.ones(3), np.zeros(3)):
      result = metrics.evaluate_logits(
        labels, np.arange(3.0), groups=np.arange(3)
      )
      self.assertTrue(np.isnan(result['auc']))
      self.assertTrue(np.isnan(result['ne']))
      self.assertTrue(np.isnan(result['gauc']))
      self.assertEqual(result['gauc_groups_left_out'], 3)
      self.assertGreater(result['logloss'], 0)
      self.assertEqual(np.isnan(result['calibration']), labels[0] == 0)

  @parameterized.parameters(
    (np.zeros(0), np.zeros(0), None, 'No rows'),
    (np.zeros(2), np.zeros(2), np.zeros(2), 'No rows'),
    (np.zeros(3), np.zeros(2), None, 'equal length'),
    (np.zeros(2), np.array([0.0, np.nan]), None, 'NaN'),
    (np.zeros(2), np.zeros(2), np.array([1.0, -1.0]), 'negative'),
    (np.zeros(2), np.zeros(2), np.array([1.0, np.nan]), 'not finite'),
    (np.zeros(2), np.zeros(2), np.ones(3), r'Weights of shape \(3,\)'),
    (np.array([0.0, 2.0]), np.zeros(2), None, 'neither 0 nor 1'),
    (np.array([0.0, np.nan]), np.zeros(2), None, 'neither 0 nor 1'),
    (np.zeros((2, 1)), np.zeros((2, 1)), None, 'two vectors'),
  )
  def test_bad_input(self, labels, logits, weights, message):
    groups = np.zeros(labels.shape)
    for metric in (
      metrics.auc,
      metrics.logloss,
      metrics.normalized_entropy,
      metrics.calibration,
      lambda *args: metrics.group_auc(*args[:2], groups, args[2]),
    ):
      with self.assertRaisesRegex(errors.DataError, message):
        metric(labels, logits, weights)

  def test_groups_of_another_length(self):
    with self.assertRaisesRegex(errors.DataError, r'Groups of shape \(2,\)'):
      metrics.group_auc(np.zeros(3), np.zeros(3), np.zeros(2))

  def test_paired_difference(self):
    a, b = np.array([0.8, 0.82, 0.85]), np.array([0.79, 0.8, 0.84])
    result = metrics.paired_difference(a, b)
    test = stats.ttest_rel(a, b)
    interval = test.confidence_interval(0.95)
    self.assertAlmostEqual(result['p'], test.pvalue)
    self.assertAlmostEqual(result['low'], interval.low)
    self.assertAlmostEqual(result['high'], interval.high)
    self.assertAlmostEqual(result['mean'], 0.04 / 3)
    self.assertAlmostEqual(result['std'], np.std(a - b, ddof=1))
    self.assertEqual(result['n'], 3)

  @parameterized.parameters((1, 1, '2'), (3, 1, 'not paired'))
  def test_runs_that_are_not_paired(self, first, second, message):
    with self.assertRaisesRegex(errors.DataError, message):
      metrics.paired_difference(np.ones(first), np.zeros(second))

  def test_equal_runs_differ_by_nothing(self):
    for shift, p in ((0.0, 1.0), (0.25, 0.0)):
      result = metrics.paired_difference([0.5 + shift] * 3, [0.5] * 3)
      self.assertEqual(
        (result['mean'], result['low'], result['high'], result['p']),
        (shift, shift, shift, p),
      )


if __name__ == '__main__':
  absltest.main()
