"""Planted ranks, seen in the rows alone."""

from absl.testing import absltest, parameterized
import numpy as np

from jax_autorec import data as data_lib
from jax_autorec import errors, metrics
from jax_autorec.data import planted, planted_fields


def _cell_logits(data):
  """Log-odds of the clicks of every cell of the train split, 0.5 added."""
  sizes = [field.vocab_size for field in data.schema.categorical]
  cells = lambda split: np.ravel_multi_index(split.ids.T, sizes)
  clicks = np.bincount(cells(data.train), data.train.labels, np.prod(sizes))
  rows = np.bincount(cells(data.train), minlength=np.prod(sizes))
  logits = np.log((clicks + 0.5) / (rows - clicks + 0.5))
  return logits.reshape(sizes), cells


def _excess(labels, cells):
  """Chi-square of clicks over cells less its mean, in standard deviations."""
  counts = np.bincount(cells)
  sums = np.bincount(cells, labels - labels.mean())
  seen = counts > 20
  squares = sums[seen] ** 2 / counts[seen] / labels.var()
  return (squares.sum() - seen.sum()) / np.sqrt(2 * seen.sum())


def _head_ids(data):
  return [data.truth['head_ids'][f.name] for f in data.schema.categorical]


class RanksTest(parameterized.TestCase):
  def test_cells_have_the_planted_ranks_and_the_bayes_optimum(self):
    """Few cells, many rows: each cell's click rate is its probability."""
    data = planted_fields.generate(
      num_rows=400_000, ranks=(1, 2, 3), num_values=6, std=1.5, seed=2
    )
    logits, cells = _cell_logits(data)
    cube = logits[2:, 2:, 2:]
    names = list(data.truth['ranks'])
    self.assertCountEqual(data.truth['ranks'].values(), (1, 2, 3))
    for a, b in ((0, 1), (0, 2), (1, 2)):
      (other,) = {0, 1, 2} - {a, b}
      singular = np.linalg.svd(cube.mean(other) - cube.mean())[1]
      rank = min(data.truth['ranks'][names[i]] for i in (a, b))
      # Beyond its rank there is sampling noise alone: about .02 a cell.
      self.assertGreater(singular[rank - 1], 0.5)
      self.assertLess(singular[rank], 0.25)
    # No field has an effect of its own.
    for axis in range(3):
      others = tuple({0, 1, 2} - {axis})
      np.testing.assert_allclose(cube.mean(others), cube.mean(), atol=0.05)
    bayes = data.truth['test']
    predicted = logits.ravel()[cells(data.test)]
    for name, value in planted.bayes(data.test.labels, predicted).items():
      self.assertAlmostEqual(bayes[name], value, delta=1.5e-3)
    self.assertBetween(bayes['auc'], 0.7, 0.95)

  def test_the_sum_over_pairs_by_enumeration(self):
    rng = np.random.default_rng(1)
    share = planted.zipf(5, 1.0)
    tables = [
      planted_fields.vectors(rng, share, rank, 3, head)
      for rank, head in ((1, 5), (2, 4), (3, 5))
    ]
    grid = np.stack(np.meshgrid(*[np.arange(5)] * 3, indexing='ij'), -1)
    grid = grid.reshape(-1, 3)
    got = planted_fields.pair_sum(tables, share, grid)
    weights = share[grid].prod(1)
    plain = np.array(
      [
        sum(
          tables[m][row[m]] @ tables[k][row[k]]
          for m in range(3)
          for k in range(m)
        )
        for row in grid
      ]
    )
    self.assertAlmostEqual(weights @ got, 0)
    self.assertAlmostEqual(weights @ got**2, 1)
    np.testing.assert_allclose(got, plain / np.sqrt(weights @ plain**2))
    self.assertFalse(tables[1][4].any() or tables[1][:, 2:].any())
    self.assertEqual(np.linalg.matrix_rank(tables[2]), 3)

  def test_the_order_of_fields_follows_the_seed(self):
    orders = set()
    for seed in range(4):
      first, again = (
        data_lib.load('planted_ranks', seed=seed, num_rows=500)
        for _ in range(2)
      )
      np.testing.assert_array_equal(first.train.ids, again.train.ids)
      np.testing.assert_array_equal(first.test.labels, again.test.labels)
      self.assertEqual(first.fingerprint, again.fingerprint)
      ranks = tuple(first.truth['ranks'].values())
      self.assertEqual(sorted(ranks), [1, 1, 2, 2, 8, 8, 16, 16])
      orders.add(ranks)
    self.assertLen(orders, 4)

  def test_noise_fields_say_nothing_alone_or_in_pairs(self):
    data = data_lib.load('planted_noise', seed=3, num_values=30)
    labels, ids = data.train.labels, data.train.ids.astype(np.int64)
    names = [field.name for field in data.schema.categorical]
    self.assertLen(data.truth['noise_fields'], 2)
    for noise in data.truth['noise_fields']:
      self.assertEqual(data.truth['ranks'][noise], 0)
      own = ids[:, names.index(noise)]
      self.assertLess(abs(_excess(labels, own)), 4)
      for j, name in enumerate(names):
        if name != noise:
          self.assertLess(abs(_excess(labels, own * 99 + ids[:, j])), 4)
    for a, b in data.truth['pairs']:
      cells = ids[:, names.index(a)] * 99 + ids[:, names.index(b)]
      self.assertGreater(_excess(labels, cells), 40)

  def test_the_head_is_what_ids_by_frequency_begin_with(self):
    data = data_lib.load('planted_head', seed=1)
    for field in data.schema.categorical:
      own = np.array(data.truth['head_ids'][field.name])
      self.assertLen(own, 200)
      # Counts come near the true frequencies.
      self.assertGreater(np.mean(own < 202), 0.9)
      rare = np.setdiff1d(np.arange(2, field.vocab_size), own)
      self.assertLess(
        data.frequencies[field.name][rare].mean(),
        data.frequencies[field.name][own].mean() / 10,
      )

  def test_the_tail_says_nothing(self):
    data = planted_fields.generate(
      'planted_head', ranks=(2, 2, 2), num_values=100, zipf=0.6, seed=1
    )
    labels, ids = data.train.labels, data.train.ids.astype(np.int64)
    in_head = np.stack(
      [np.isin(ids[:, i], own) for i, own in enumerate(_head_ids(data))], 1
    )
    # A row with less than two fields in the head has the logit of an average
    # row, whatever its values.
    flat = in_head.sum(1) < 2
    self.assertGreater(flat.sum(), 50_000)
    expected = 1 / (1 + np.exp(0.5))
    error = np.sqrt(expected * (1 - expected) / flat.sum())
    self.assertAlmostEqual(labels[flat].mean(), expected, delta=4 * error)
    cells = ids[:, 0] * 999 + ids[:, 1]
    self.assertLess(abs(_excess(labels[flat], cells[flat])), 4)
    head = in_head[:, 0] & in_head[:, 1]
    self.assertGreater(_excess(labels[head], cells[head]), 40)

  def test_permuted_labels_of_the_validation_split_alone(self):
    options = dict(num_rows=200_000, ranks=(2, 2), num_values=12, seed=5)
    plain = planted_fields.generate('planted_ranks', **options)
    data = planted_fields.generate('planted_permuted', **options)
    for split in ('train', 'test'):
      for part in ('ids', 'labels'):
        np.testing.assert_array_equal(
          getattr(getattr(data, split), part),
          getattr(getattr(plain, split), part),
        )
    np.testing.assert_array_equal(data.valid.ids, plain.valid.ids)
    self.assertEqual(data.valid.labels.sum(), plain.valid.labels.sum())
    logits, cells = _cell_logits(data)
    logits = logits.ravel()
    auc = lambda split: metrics.auc(split.labels, logits[cells(split)])
    self.assertAlmostEqual(auc(data.valid), 0.5, delta=0.02)
    self.assertGreater(auc(data.test), 0.75)
    self.assertEqual(data.truth['valid']['auc'], 0.5)
    rate = data.valid.labels.mean()
    entropy = -rate * np.log(rate) - (1 - rate) * np.log(1 - rate)
    self.assertAlmostEqual(data.truth['valid']['logloss'], entropy, places=6)
    self.assertEqual(data.truth['test'], plain.truth['test'])

  def test_a_duplicate_is_a_field_of_the_same_values(self):
    data = data_lib.load('planted_duplicate', num_rows=5000, seed=2)
    plain = planted_fields.generate(
      'planted_duplicate', num_rows=5000, duplicates=0, seed=2
    )
    ((own, copy),) = data.truth['duplicates']
    names = [field.name for field in data.schema.categorical]
    i, j = names.index(own), names.index(copy)
    self.assertNotEqual(i, j)
    np.testing.assert_array_equal(data.train.ids[:, i], data.train.ids[:, j])
    np.testing.assert_array_equal(data.frequencies[own], data.frequencies[copy])
    np.testing.assert_array_equal(data.train.ids[:, :-1], plain.train.ids)
    np.testing.assert_array_equal(data.test.labels, plain.test.labels)
    self.assertEqual(data.truth['ranks'][own], data.truth['ranks'][copy])

  @parameterized.parameters(
    (dict(ranks=(1, 0)), 'at least two above'),
    (dict(num_values=16), 'cannot have vectors of rank 16'),
    (dict(head_share=0.05), 'head_share of 0.05'),
    (dict(duplicates=3), 'at most 2'),
    (dict(nun_rows=3), 'nun_rows'),
  )
  def test_bad_settings(self, overrides, message):
    with self.assertRaisesRegex(errors.ConfigError, message):
      planted_fields.generate(**overrides)


if __name__ == '__main__':
  absltest.main()
