import doctest
from unittest import mock

from absl.testing import absltest, parameterized
import numpy as np
import pandas as pd
import pyarrow as pa

from jax_autorec import data as data_lib
from jax_autorec import errors
from jax_autorec.data import memory

Column = data_lib.Column


def _frame(count=500, seed=0):
  rng = np.random.default_rng(seed)
  return pd.DataFrame(
    {
      'label': rng.integers(0, 2, count),
      'city': rng.choice(['Rome', 'Oslo', 'Bern'], count),
      'price': np.where(rng.random(count) < 0.2, np.nan, rng.random(count)),
      'shops': [['a', 'b'][: i % 3] for i in range(count)],
      'weight': 1 + rng.random(count),
    }
  )


class FromArraysTest(parameterized.TestCase):
  @parameterized.parameters('pandas', 'dict', 'arrow')
  def test_any_table_gives_the_same_encoded_splits(self, kind):
    frame = _frame()
    rows = {
      'pandas': frame,
      'dict': {name: frame[name].to_list() for name in frame},
      'arrow': pa.table({k: pa.array(frame[k]) for k in frame}),
    }[kind]
    columns = ['city', 'price', Column('shops', max_length=2)]
    data = data_lib.from_arrays(rows, columns=columns, weight='weight')
    kinds = {field.name: field.kind for field in data.schema.fields}
    self.assertEqual(
      kinds,
      {'city': 'categorical', 'price': 'numeric', 'shops': 'categorical'},
    )
    self.assertEqual(data.counts['read'], 500)
    self.assertNotIsInstance(data.train.ids, np.memmap)
    self.assertEqual(
      data.fingerprint,
      data_lib.from_arrays(frame, columns=columns, weight='weight').fingerprint,
    )
    # The rows of a split keep their order, so weights tell which they are.
    place = {np.float32(w): i for i, w in enumerate(frame.weight)}
    taken = frame.iloc[[place[w] for w in data.train.weights]]
    np.testing.assert_array_equal(data.train.labels, taken.label)
    np.testing.assert_array_equal(data.train.missing[:, 0], taken.price.isna())
    cities = data.frequencies['city']
    np.testing.assert_array_equal(
      cities[2:], taken.city.value_counts().to_numpy()
    )
    lengths = (data.train.ids[:, 1:] > 1).sum(1)
    np.testing.assert_array_equal(lengths, taken.shops.map(len))
    batch = data_lib.Batches(data.train, 64, seed=1).batch(0, 0)
    self.assertEqual(batch.ids.shape, (64, 3))

  def test_given_splits_stay_as_they_are(self):
    frames = [_frame(count, seed) for seed, count in enumerate((300, 50, 70))]
    data = data_lib.from_arrays(*frames, columns=['city', 'price'])
    for split, frame in zip((data.train, data.valid, data.test), frames):
      np.testing.assert_array_equal(split.labels, frame.label)
    cut = data_lib.from_arrays(
      frames[0], test=frames[2], columns=['city', 'price']
    )
    self.assertEqual(cut.train.num_rows + cut.valid.num_rows, 300)
    self.assertEqual(cut.test.num_rows, 70)

  def test_a_directory_keeps_it_for_serving(self):
    directory = self.create_tempdir().full_path + '/mine'
    frame = _frame()
    data = data_lib.from_arrays(
      frame, columns=['city', 'price'], directory=directory
    )
    again = data_lib.open_store(directory)
    np.testing.assert_array_equal(again.test.ids, data.test.ids)
    self.assertEqual(again.name, 'arrays')
    ids, _, missing = data_lib.read_encoder(directory).encode(
      {'city': ['Lima', 'Rome'], 'price': [np.nan, 1.0]}
    )
    self.assertEqual(ids[0, 0], 1)
    self.assertGreater(ids[1, 0], 1)
    np.testing.assert_array_equal(missing[:, 0], [True, False])

  def test_bad_rows(self):
    frame = _frame()
    frame.loc[[70, 400], 'label'] = 2
    columns = ['city', 'price']
    self.enter_context(mock.patch.object(memory, '_ROWS', 64))
    with self.assertRaisesRegex(
      errors.DataError, "all, row 70: column 'label' is 2.0; expected a label"
    ):
      data_lib.from_arrays(frame, columns=columns)
    data = data_lib.from_arrays(frame, columns=columns, bad_rows='quarantine')
    self.assertEqual(
      dict(data.counts), {'read': 500, 'kept': 498, 'quarantined': 2}
    )

  @parameterized.parameters(
    (dict(columns=['town']), "no column 'town'"),
    (dict(lable='label'), "no option 'lable'.*mean 'label'"),
    (dict(valid=_frame(9)), 'no test split'),
    (dict(columns=['city', 'label']), "label 'label' among"),
    (dict(columns=[Column('city', max_length=2)]), 'city.*lists or a separ'),
    (dict(columns=['shops']), "'shops' holds lists; expected .*max_length"),
  )
  def test_mistakes_are_named(self, arguments, message):
    with self.assertRaisesRegex(errors.DataError, message):
      data_lib.from_arrays(_frame(), **arguments)

  def test_nothing_to_train_on(self):
    with self.assertRaisesRegex(errors.DataError, 'no rows to train on'):
      data_lib.from_arrays(None)

  def test_the_example_of_the_docstring(self):
    self.assertEqual(doctest.testmod(memory), (0, 3))

  def test_no_rows(self):
    with self.assertRaisesRegex(errors.DataError, 'no row could be kept'):
      data_lib.from_arrays(_frame(0), columns=['city', 'price'])


if __name__ == '__main__':
  absltest.main()
