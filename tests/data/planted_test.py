import itertools

from absl.testing import absltest, parameterized
import numpy as np

from jax_autorec import errors, metrics
from jax_autorec.data import planted


def _pair_means(data, a, b):
  """Spread of the click rate over cells of two fields, beyond their own."""
  ids = np.concatenate([data.train.ids, data.valid.ids, data.test.ids])
  labels = np.concatenate(
    [data.train.labels, data.valid.labels, data.test.labels]
  )
  i = [f.name for f in data.schema.categorical].index(a)
  j = [f.name for f in data.schema.categorical].index(b)
  x, y = ids[:, i], ids[:, j]
  residual = labels - labels.mean()
  for column in (x, y):
    counts = np.bincount(column)
    means = np.bincount(column, residual) / np.maximum(counts, 1)
    residual = residual - means[column]
  cell = x * (y.max() + 1) + y
  counts = np.bincount(cell)
  sums = np.bincount(cell, residual)
  seen = counts > 30
  # Mean square of the cells' rates less what chance alone gives.
  noise = residual.var() / counts[seen]
  return np.average(
    (sums[seen] / counts[seen]) ** 2 - noise, weights=counts[seen]
  )


class PlantedTest(parameterized.TestCase):
  def test_planted_pairs_stand_out_and_no_others(self):
    data = planted.generate(num_rows=60_000, seed=5)
    self.assertLen(data.truth['pairs'], 7)
    effects = {
      pair: _pair_means(data, *pair)
      for pair in itertools.combinations(
        [f.name for f in data.schema.categorical], 2
      )
    }
    true = {tuple(pair) for pair in data.truth['pairs']}
    weakest = min(effects[pair] for pair in true)
    strongest = max(v for pair, v in effects.items() if pair not in true)
    self.assertGreater(weakest, 2 * strongest)

  def test_same_seed_same_data(self):
    first = planted.generate(num_rows=1000, seed=2)
    second = planted.generate(num_rows=1000, seed=2)
    other = planted.generate(num_rows=1000, seed=3)
    np.testing.assert_array_equal(first.train.ids, second.train.ids)
    np.testing.assert_array_equal(first.test.labels, second.test.labels)
    self.assertEqual(first.fingerprint, second.fingerprint)
    self.assertNotEqual(first.fingerprint, other.fingerprint)

  def test_no_function_of_the_inputs_beats_the_bayes_optimum(self):
    """The best table over one planted cell is far from it, chance is 1 SE."""
    data = planted.generate(num_rows=20_000, seed=0)
    bayes = data.truth['test']
    base = metrics.logloss(
      data.test.labels,
      np.full(len(data.test.labels), np.log(data.train.labels.mean())),
    )
    self.assertLess(bayes['logloss'], base - 0.1)
    self.assertBetween(bayes['auc'], 0.8, 0.97)

  def test_encoding_keeps_the_promises_of_the_schema(self):
    data = planted.generate('planted_hard', num_rows=20_000, seed=1)
    for column, field in enumerate(data.schema.categorical):
      ids = data.train.ids[:, column]
      self.assertBetween(field.vocab_size - 2, 10, 400)
      self.assertTrue(2 <= ids.min() and ids.max() < field.vocab_size)
      counts = data.frequencies[field.name]
      np.testing.assert_array_equal(
        counts, np.bincount(ids, minlength=field.vocab_size)
      )
      self.assertTrue(np.all(np.diff(counts[2:]) <= 0))
    self.assertEqual(data.counts['read'], data.counts['kept'])
    rows = sum(s.num_rows for s in (data.train, data.valid, data.test))
    self.assertEqual(rows, data.counts['kept'])

  def test_numeric_steps_and_triples(self):
    data = planted.generate(
      num_rows=30_000, num_numeric=2, num_triples=1, num_pairs=0, std=2.0
    )
    self.assertLen(data.truth['numeric'], 2)
    self.assertLen(data.truth['triples'], 1)
    self.assertEqual(data.train.numeric.shape[1], 2)

  @parameterized.parameters(
    (dict(num_pairs=46), '46 planted pairs'),
    (dict(nun_pairs=3), 'nun_pairs'),
    (dict(num_rows=10), '10 rows'),
  )
  def test_bad_settings(self, overrides, message):
    with self.assertRaisesRegex(errors.ConfigError, message):
      planted.generate(**overrides)


if __name__ == '__main__':
  absltest.main()
