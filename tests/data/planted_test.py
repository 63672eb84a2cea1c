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

  def test_bayes_optimum_is_that_of_the_cells_own_rates(self):
    """Few cells, many rows: each cell's click rate is its probability."""
    data = planted.generate(
      num_rows=400_000,
      num_fields=3,
      num_pairs=2,
      num_triples=1,
      min_values=3,
      max_values=5,
      seed=4,
    )
    sizes = [field.vocab_size for field in data.schema.categorical]
    cells = lambda split: np.ravel_multi_index(split.ids.T, sizes)
    clicks = np.bincount(cells(data.train), data.train.labels, np.prod(sizes))
    rows = np.bincount(cells(data.train), minlength=np.prod(sizes))
    rate = ((clicks + 0.5) / (rows + 1))[cells(data.test)]
    logits = np.log(rate / (1 - rate))
    bayes = data.truth['test']
    self.assertAlmostEqual(
      bayes['auc'], metrics.auc(data.test.labels, logits), delta=1e-3
    )
    self.assertAlmostEqual(
      bayes['logloss'], metrics.logloss(data.test.labels, logits), delta=1e-3
    )
    # The task is neither trivial nor hopeless.
    self.assertBetween(bayes['auc'], 0.75, 0.97)

  @parameterized.parameters(2, 3)
  def test_a_term_shows_in_no_smaller_set_of_fields(self, order):
    """By enumeration: mean 0 given all fields but one, standard deviation 1."""
    rng = np.random.default_rng(order)
    shares = [planted.zipf(size, 1.0) for size in (4, 5, 7)[:order]]
    tables = [planted._vectors(rng, share, 3, 3) for share in shares]
    grid = np.array(list(itertools.product(*(range(len(s)) for s in shares))))
    term = planted._term(tuple(range(order)), tables, shares, grid)
    weights = np.prod([s[grid[:, i]] for i, s in enumerate(shares)], axis=0)
    shape = [len(share) for share in shares]
    cube, weights = term.reshape(shape), weights.reshape(shape)
    for axis, share in enumerate(shares):
      means = np.tensordot(cube, share, (axis, 0))
      np.testing.assert_allclose(means, 0, atol=1e-12)
    self.assertAlmostEqual((weights * cube**2).sum(), 1)

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

  def test_numeric_steps_are_where_the_truth_says(self):
    data = planted.generate(
      num_rows=60_000, num_fields=2, num_numeric=2, num_pairs=0, std=1.5
    )
    self.assertEmpty(data.truth['pairs'])
    for column, threshold in enumerate(data.truth['numeric'].values()):
      values = data.train.numeric[:, column]
      order = np.argsort(values)
      labels, values = data.train.labels[order], values[order]
      sums = np.r_[0, np.cumsum(labels)]
      places = np.arange(1000, len(labels) - 1000)
      below = sums[places] / places
      above = (sums[-1] - sums[places]) / (len(labels) - places)
      # Best single cut: the largest drop of the squared error.
      gain = (above - below) ** 2 * places * (len(labels) - places)
      self.assertAlmostEqual(
        values[places[gain.argmax()]], threshold, delta=0.02
      )

  @parameterized.parameters(
    (dict(num_pairs=46), '46 planted pairs'),
    (dict(nun_pairs=3), 'nun_pairs'),
    (dict(num_rows=10), 'num_rows is 10; expected int of at least 100'),
    (dict(num_rows=1e5), 'num_rows is 100000.0; expected int'),
    (dict(num_rows='many'), "num_rows is 'many'; expected int"),
    (dict(num_triples=121), '121 planted triples of 10 fields; there are 120'),
    (dict(num_numeric=-1), 'num_numeric is -1'),
    (dict(seed=-1), 'seed is -1; expected int of at least 0'),
    (dict(zipf=float('nan')), 'zipf is nan; expected float of at least 0'),
    (dict(std=-1.0), 'std is -1.0'),
    (dict(widths=()), r'widths are \(\); expected integers above 0'),
    (dict(min_values=9, max_values=8), 'of 9 to 8 values'),
  )
  def test_bad_settings(self, overrides, message):
    with self.assertRaisesRegex(errors.ConfigError, message):
      planted.generate(**overrides)


if __name__ == '__main__':
  absltest.main()
