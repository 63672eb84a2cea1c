import itertools
from unittest import mock

from absl.testing import absltest, parameterized
import numpy as np
from scipy import stats

from jax_autorec import comparison, errors, metrics


def _scores(rows=400, seed=0, ties=True):
  """Labels and scores of two related models, with ties."""
  rng = np.random.default_rng(seed)
  labels = (rng.random(rows) < 0.3).astype(int)
  first = rng.normal(size=rows) + labels
  second = first + rng.normal(size=rows)
  if ties:
    first, second = first.round(1), second.round(1)
  return labels, first, second


class HolmTest(parameterized.TestCase):
  @parameterized.parameters(
    # By hand: .01 x 4, .02 x 3, then .03 x 2 = .06 (no less than .06), .9.
    ([0.03, 0.01, 0.9, 0.02], [0.06, 0.04, 0.9, 0.06]),
    # The second is raised to the first; no value is above 1.
    ([0.011, 0.01], [0.02, 0.02]),
    ([0.6, 0.7, 0.5], [1, 1, 1]),
    ([0.04], [0.04]),
    ([], []),
    ([0.0, 0.0], [0, 0]),
  )
  def test_values_by_hand(self, given, expected):
    np.testing.assert_allclose(comparison.holm(given), expected, rtol=1e-12)

  def test_errors_of_a_family_of_null_hypotheses_are_bounded(self):
    draws = np.random.default_rng(0).random((4000, 8))
    wrong = [comparison.holm(row).min() < 0.05 for row in draws]
    self.assertBetween(np.mean(wrong), 0.035, 0.06)

  @parameterized.parameters([[[-0.1]]], [[[np.nan]]], [[[[0.1]]]])
  def test_what_is_no_p_value_is_refused(self, given):
    with self.assertRaisesRegex(errors.DataError, 'P values of shape'):
      comparison.holm(given)


class ParetoTest(parameterized.TestCase):
  def test_front_by_enumeration(self):
    rng = np.random.default_rng(1)
    for _ in range(50):
      sizes, scores = rng.integers(6, size=9), rng.integers(6, size=9)
      front = [
        i
        for i in range(9)
        if not any(
          sizes[j] <= sizes[i]
          and scores[j] >= scores[i]
          and (sizes[j], scores[j]) != (sizes[i], scores[i])
          for j in range(9)
        )
      ]
      found = comparison.pareto_front(sizes, scores)
      self.assertCountEqual(found, front)
      self.assertSequenceEqual(sorted(sizes[found]), list(sizes[found]))

  @parameterized.parameters(
    ([1, 2], [1], 'equal length'), ([1.0], [np.nan], 'NaN')
  )
  def test_bad_input(self, sizes, scores, message):
    with self.assertRaisesRegex(errors.DataError, message):
      comparison.pareto_front(sizes, scores)


class PlacementsTest(absltest.TestCase):
  def test_by_enumeration(self):
    labels, first, _ = _scores(60)
    expected = np.zeros(60)
    for i, j in itertools.product(range(60), repeat=2):
      if labels[i] == 1 and labels[j] == 0:
        right = (first[i] > first[j]) + 0.5 * (first[i] == first[j])
        expected[i] += right / (labels == 0).sum()
        expected[j] += right / (labels == 1).sum()
    np.testing.assert_allclose(comparison.placements(labels, first), expected)

  def test_means_are_the_auc(self):
    labels, *scores = _scores()
    found = comparison.placements(labels, np.stack(scores))
    for row, score in zip(found, scores):
      auc = metrics.auc(labels, score)
      self.assertAlmostEqual(row[labels == 1].mean(), auc, places=12)
      self.assertAlmostEqual(row[labels == 0].mean(), auc, places=12)


class DelongTest(parameterized.TestCase):
  def test_by_its_formula(self):
    """Covariances of the structural components, as the paper has them."""
    labels, first, second = _scores()
    x = [s[labels == 1] for s in (first, second)]
    y = [s[labels == 0] for s in (first, second)]
    kernel = [
      (a[:, None] > b[None]) + 0.5 * (a[:, None] == b[None])
      for a, b in zip(x, y)
    ]
    covariance = np.cov([k.mean(1) for k in kernel]) / len(x[0])
    covariance += np.cov([k.mean(0) for k in kernel]) / len(y[0])
    contrast = np.array([1, -1])
    std = np.sqrt(contrast @ covariance @ contrast)
    mean = kernel[0].mean() - kernel[1].mean()
    found = comparison.delong(labels, first, second)
    self.assertAlmostEqual(found['mean'], mean, places=12)
    self.assertAlmostEqual(found['std'], std, places=12)
    self.assertAlmostEqual(found['p'], 2 * stats.norm.sf(mean / std))
    low, high = stats.norm.interval(0.95, mean, std)
    self.assertAlmostEqual(found['low'], low, places=12)
    self.assertAlmostEqual(found['high'], high, places=12)

  def test_of_several_models_the_mean_is_compared(self):
    labels, first, second = _scores()
    third = np.roll(first, 1)
    several = comparison.delong(
      labels, np.stack([first, second]), np.stack([third, third])
    )
    singles = [comparison.delong(labels, s, third) for s in (first, second)]
    mean = np.mean([s['mean'] for s in singles])
    self.assertAlmostEqual(several['mean'], mean, places=12)
    # Two draws that are not wholly dependent spread less than one.
    self.assertLess(several['std'], np.mean([s['std'] for s in singles]))

  def test_p_values_of_equal_models_are_uniform(self):
    rng = np.random.default_rng(0)
    labels = np.arange(200) % 2
    p = []
    for _ in range(400):
      base = rng.normal(size=200) + labels
      noise = rng.normal(size=(2, 200))
      p.append(comparison.delong(labels, *(base + noise))['p'])
    self.assertGreater(stats.kstest(p, 'uniform').pvalue, 0.01)

  def test_a_model_is_no_better_than_itself(self):
    labels, first, _ = _scores()
    found = comparison.delong(labels, first, first)
    self.assertEqual((found['mean'], found['std'], found['p']), (0, 0, 1))

  @parameterized.parameters(
    (np.ones(4), np.zeros(4), 'one class'),
    (np.array([0, 1, 2, 1]), np.zeros(4), 'neither 0 nor 1'),
    (np.array([0, 1, 1]), np.zeros(4), r'shape \(3,\)'),
    (np.array([0, 1, 0, 1]), np.full(4, np.nan), 'NaN'),
    (np.array([0, 1, 1, 1]), np.zeros(4), 'two rows of each'),
  )
  def test_bad_input(self, labels, scores, message):
    with self.assertRaisesRegex(errors.DataError, message):
      comparison.delong(labels, scores, scores)


class BootstrapTest(parameterized.TestCase):
  def test_each_draw_is_the_auc_of_the_rows_drawn(self):
    labels, first, second = _scores(90)
    found = comparison.bootstrap_auc(labels, np.stack([first, second]), 20, 3)
    (counts,) = comparison._draws(90, 20, 3)
    np.testing.assert_array_equal(counts.sum(1), 90)
    for k, score in enumerate((first, second)):
      expected = [
        metrics.auc(np.repeat(labels, n), np.repeat(score, n)) for n in counts
      ]
      np.testing.assert_allclose(found[k], expected, rtol=1e-12)

  def test_models_and_blocks_share_the_draws(self):
    labels, first, second = _scores(90)
    both = comparison.bootstrap_auc(labels, np.stack([first, second]), 50)
    with self.subTest('alone'):
      alone = comparison.bootstrap_auc(labels, second, 50)
      np.testing.assert_array_equal(both[1], alone)
    with self.subTest('in small blocks'):
      self.enter_context(mock.patch.object(comparison, '_BLOCK', 200))
      small = comparison.bootstrap_auc(labels, second, 50)
      np.testing.assert_array_equal(both[1], small)

  def test_agrees_with_delong(self):
    labels, first, second = _scores(3000, ties=False)
    scores = np.stack([first, second])
    draws = comparison.bootstrap_auc(labels, scores, 2000)
    exact = comparison.delong(labels, first, second)
    found = comparison.bootstrap_difference(*draws, exact['mean'])
    # A std of 2000 draws is within some 1.6 % of the true one.
    self.assertAlmostEqual(found['std'] / exact['std'], 1, delta=0.06)
    for end in ('low', 'high'):
      self.assertAlmostEqual(found[end], exact[end], delta=0.25 * exact['std'])
    # Not paired, it would be far wider.
    apart = np.hypot(*draws.std(1))
    self.assertGreater(apart, 1.2 * found['std'])

  def test_draws_of_one_class_are_left_out(self):
    labels = np.array([1, 0, 0])
    draws = comparison.bootstrap_auc(labels, np.array([3.0, 1, 2]), 200)
    self.assertBetween(np.isnan(draws).mean(), 0.2, 0.5)
    found = comparison.bootstrap_difference(draws, draws, 0.0)
    self.assertEqual(found['p'], 1)

  def test_draws_that_are_not_paired(self):
    with self.assertRaisesRegex(errors.DataError, 'not paired'):
      comparison.bootstrap_difference(np.zeros(3), np.zeros(4), 0)
    with self.assertRaisesRegex(errors.DataError, '0 draws'):
      comparison.bootstrap_difference(np.full(3, np.nan), np.zeros(3), 0)


if __name__ == '__main__':
  absltest.main()
