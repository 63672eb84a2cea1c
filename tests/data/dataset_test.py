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


if __name__ == '__main__':
  absltest.main()
