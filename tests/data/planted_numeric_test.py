"""Planted numbers, seen in the rows alone."""

import functools

from absl.testing import absltest, parameterized
import numpy as np

from jax_autorec import data as data_lib
from jax_autorec import errors
from jax_autorec.data import planted, planted_numeric


def _signs(data, number):
  """+1 or -1 by row: which half of a number's partner the row is in."""
  ids = data.train.ids[:, number]
  values = np.unique(ids)
  labels = data.train.labels.astype(float)
  numbers = data.train.numeric[:, number]
  # Which way the label goes with the number, per value of the partner.
  slopes = [np.cov(numbers[ids == v], labels[ids == v])[0, 1] for v in values]
  return np.where(np.array(slopes)[np.searchsorted(values, ids)] > 0, 1, -1)


def _mean(signal, x, low, high):
  return signal[(x > low) & (x <= high)].mean()


class StepTest(parameterized.TestCase):
  def test_rows_turn_at_the_thresholds(self):
    data = planted_numeric.generate('planted_step', num_rows=200_000, seed=3)
    train = data.train
    for i, threshold in enumerate(data.truth['thresholds'].values()):
      self.assertBetween(abs(threshold), 0.1, 0.7)
      live, x = ~train.missing[:, i], train.numeric[:, i]
      centred = (train.labels - train.labels.mean()) * _signs(data, i)
      mean = functools.partial(_mean, centred[live], x[live])
      # Means on either side, up to the threshold and well beyond it, agree.
      left = mean(-1, threshold - 0.05), mean(threshold - 0.02, threshold)
      right = mean(threshold, threshold + 0.02), mean(threshold + 0.05, 1)
      self.assertLess(max(left), -0.15)
      self.assertGreater(min(right), 0.15)
      np.testing.assert_allclose(left[0], left[1], atol=0.05)
      np.testing.assert_allclose(right[0], right[1], atol=0.05)
      # Without the partner, the number says nothing.
      plain = train.labels - train.labels.mean()
      self.assertLess(abs(plain[live & (x > threshold)].mean()), 0.01)

  def test_own_effects_are_seen_without_the_partner(self):
    data = planted_numeric.generate(
      'planted_step', num_rows=50_000, seed=3, own_std=1.5, std=0.0
    )
    train = data.train
    for i, threshold in enumerate(data.truth['thresholds'].values()):
      above = ~train.missing[:, i] & (train.numeric[:, i] > threshold)
      below = ~train.missing[:, i] & ~above
      rise = train.labels[above].mean() - train.labels[below].mean()
      self.assertGreater(rise, 0.15)


class SineTest(absltest.TestCase):
  def test_rows_follow_the_wave(self):
    data = planted_numeric.generate('planted_sine', num_rows=200_000, seed=1)
    train = data.train
    for i, phase in enumerate(data.truth['phases'].values()):
      live, x = ~train.missing[:, i], train.numeric[:, i]
      wave = np.sin(6 * x + phase)
      centred = train.labels - train.labels.mean()
      ids = train.ids[:, i]
      signs = np.zeros(ids.max() + 1)
      for value in np.unique(ids):
        own = live & (ids == value)
        signs[value] = np.sign((centred[own] * wave[own]).mean())
      self.assertEqual(signs[2:].sum(), 0)  # One half each way.
      centred = centred * signs[ids]
      # A regression on frequencies 4, 6, 8 finds the 6 alone.
      basis = [np.ones_like(x)]
      for f in (4, 6, 8):
        basis += [np.sin(f * x + phase), np.cos(f * x + phase)]
      basis = np.stack(basis, 1)[live]
      found = np.linalg.lstsq(basis, centred[live], rcond=None)[0]
      self.assertGreater(found[3], 0.2)
      np.testing.assert_allclose(np.delete(found, 3), 0, atol=0.03)


class DataTest(parameterized.TestCase):
  @parameterized.parameters(*planted_numeric.PRESETS)
  def test_truth_and_splits(self, name):
    data = data_lib.load(name, num_rows=20_000, seed=4)
    again = data_lib.load(name, num_rows=20_000, seed=4)
    np.testing.assert_array_equal(data.train.numeric, again.train.numeric)
    self.assertEqual(data.fingerprint, again.fingerprint)
    other = data_lib.load(name, num_rows=20_000, seed=5)
    self.assertNotEqual(data.fingerprint, other.fingerprint)
    for split in (data.train, data.valid, data.test):
      self.assertAlmostEqual(split.missing.mean(), 0.05, delta=0.02)
      self.assertFalse(split.numeric[split.missing].any())
      self.assertBetween(np.abs(split.numeric).max(), 0.98, 1)
    names = [['field_0', 'number_0'], ['field_1', 'number_1']]
    self.assertEqual(data.truth['pairs'], names)
    for split in ('valid', 'test'):
      # Nothing but the labels is noise: no constant is as good.
      rate = getattr(data, split).labels.mean(dtype=float)
      constant = -rate * np.log(rate) - (1 - rate) * np.log(1 - rate)
      self.assertLess(data.truth[split]['logloss'], constant - 0.1)
      self.assertGreater(data.truth[split]['auc'], 0.8)

  def test_the_logit_has_the_spread_that_is_said(self):
    """Log loss of the true logits is what their spread comes to."""
    data = planted_numeric.generate(num_rows=200_000, missing=0.0, std=1.5)
    # Two steps of +-1.5 / sqrt(2) each.
    logits = 1.5 / np.sqrt(2) * np.array([-2.0, 0, 0, 2])
    rates = 1 / (1 + np.exp(-logits))
    entropy = -rates * np.log(rates) - (1 - rates) * np.log(1 - rates)
    bayes = data.truth['test']['logloss']
    self.assertAlmostEqual(bayes, entropy.mean(), delta=0.01)
    self.assertIn('auc', planted.bayes(data.test.labels, data.test.labels))

  @parameterized.parameters(
    (dict(shape='ramp'), "shape is 'ramp'; expected one of 'step', 'sine'"),
    (dict(num_rows=10), 'num_rows is 10; expected at least 100'),
    (dict(num_values=3), 'num_values is 3; expected an even number'),
    (dict(missing=1.0), 'missing is 1.0; expected at least 0, less than 1'),
    (dict(std=-1.0), 'std is -1.0'),
    (dict(num_numeric=0), 'num_numeric is 0'),
    (dict(rows=5), "unexpected keyword argument 'rows'"),
  )
  def test_what_makes_no_sense_is_refused(self, options, message):
    with self.assertRaisesRegex(errors.ConfigError, message):
      planted_numeric.generate(**options)

  def test_unknown_names_are_refused(self):
    with self.assertRaisesRegex(errors.ConfigError, 'planted_step, planted_s'):
      planted_numeric.generate('planted_ramp')


if __name__ == '__main__':
  absltest.main()
