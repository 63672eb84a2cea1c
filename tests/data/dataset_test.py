from absl.testing import absltest
import numpy as np

from jax_autorec import errors
from jax_autorec.data import dataset, planted


def _split(rows, labels=None):
  return dataset.Split(
    ids=np.zeros((rows, 2), np.int32),
    numeric=np.zeros((rows, 1), np.float32),
    missing=np.zeros((rows, 1), bool),
    labels=np.zeros(rows if labels is None else labels, np.float32),
    times=np.arange(rows, dtype=float),
  )


class DatasetTest(absltest.TestCase):
  def test_columns_have_one_length(self):
    with self.assertRaisesRegex(errors.DataError, "'ids': 5.*'labels': 4"):
      _split(5, labels=4)

  def test_head_takes_the_first_rows_of_all_columns(self):
    head = _split(5).head(3)
    np.testing.assert_array_equal(head.times, [0, 1, 2])
    self.assertEqual((head.num_rows, head.ids.shape), (3, (3, 2)))
    self.assertIsNone(head.weights)
    data = planted.generate(num_rows=1000).head(50)
    self.assertEqual(data.test.num_rows, 50)
    self.assertEqual(data.counts['read'], 1000)

  def test_samples_are_even_and_in_order(self):
    split = _split(1000)
    some = split.sample(100, seed=1)
    self.assertEqual(some.num_rows, 100)
    self.assertTrue((np.diff(some.times) > 0).all())
    # A mean of 499.5, +- 29 * 0.95.
    self.assertBetween(some.times.mean(), 400, 600)
    np.testing.assert_array_equal(split.sample(100, 1).times, some.times)
    self.assertTrue((split.sample(100, 2).times != some.times).any())
    for rows in (0, 1000, 2000):
      self.assertIs(split.sample(rows, 1), split)
    data = planted.generate(num_rows=1000)
    part = data.sample(100, 50, seed=1)
    self.assertEqual((part.train.num_rows, part.valid.num_rows), (100, 50))
    self.assertIs(part.test, data.test)


if __name__ == '__main__':
  absltest.main()
