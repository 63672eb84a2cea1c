from absl.testing import absltest, parameterized
import numpy as np

from jax_autorec import errors
from jax_autorec.data import batches, dataset


def _split(rows, weighted=False):
  ids = np.arange(rows, dtype=np.int32)
  return dataset.Split(
    ids=np.stack([ids, ids * 2], 1),
    numeric=np.linspace(0, 1, rows, dtype=np.float32)[:, None],
    missing=(ids % 3 == 0)[:, None],
    labels=(ids % 2).astype(np.float32),
    weights=(ids + 1).astype(np.float32) if weighted else None,
  )


def _epoch_rows(source, epoch):
  rows = [source.rows(epoch, step) for step in range(source.steps_per_epoch)]
  return np.concatenate(rows)


class BatchesTest(parameterized.TestCase):
  # 5000 rows in windows of 1024 and 2048 (not a multiple), and in one window.
  @parameterized.parameters(1024, 2048, 2**20)
  def test_every_row_once_per_epoch_in_a_new_order(self, window):
    source = batches.Batches(_split(5000), 300, seed=3, window_rows=window)
    orders = []
    for epoch in range(2):
      rows = _epoch_rows(source, epoch)
      live = rows[rows >= 0]
      np.testing.assert_array_equal(np.sort(live), np.arange(5000))
      np.testing.assert_array_equal(rows[5000:], -1)
      orders.append(live)
      # Shuffled: neighbours in the epoch are no neighbours in the data.
      self.assertLess((np.diff(live) == 1).mean(), 0.01)
    self.assertLess((orders[0] == orders[1]).mean(), 0.01)

  def test_the_order_is_the_documented_one(self):
    seed, epoch, rows, window = 3, 2, 5000, 2048
    blocks = np.random.default_rng((seed, epoch, 0)).permutation(5)
    dealt = np.concatenate([np.arange(5000)[b * 1024 :][:1024] for b in blocks])
    expected = [
      np.random.default_rng((seed, epoch, w + 1)).permutation(part)
      for w, part in enumerate(np.split(dealt, [window, 2 * window]))
    ]
    source = batches.Batches(_split(rows), 300, seed=seed, window_rows=window)
    found = _epoch_rows(source, epoch)
    np.testing.assert_array_equal(found[:rows], np.concatenate(expected))
    small = batches.Batches(_split(rows), 300, seed=seed)
    order = np.random.default_rng((seed, epoch, 1)).permutation(rows)
    np.testing.assert_array_equal(_epoch_rows(small, epoch)[:rows], order)

  def test_depends_on_seed_epoch_and_step_alone(self):
    first = batches.Batches(_split(5000), 300, seed=3, window_rows=1024)
    second = batches.Batches(_split(5000), 300, seed=3, window_rows=1024)
    for epoch, step in [(4, 11), (0, 3), (4, 0), (2, 16)]:  # In any order.
      np.testing.assert_array_equal(
        first.rows(epoch, step), second.rows(epoch, step)
      )
    other = batches.Batches(_split(5000), 300, seed=4, window_rows=1024)
    self.assertFalse(np.array_equal(first.rows(0, 0), other.rows(0, 0)))

  def test_processes_share_an_epoch_out(self):
    parts = [
      batches.Batches(
        _split(1000), 64, seed=1, process_index=i, process_count=3
      )
      for i in range(3)
    ]
    self.assertLen({part.steps_per_epoch for part in parts}, 1)
    rows = np.concatenate([_epoch_rows(part, 2) for part in parts])
    np.testing.assert_array_equal(np.sort(rows[rows >= 0]), np.arange(1000))
    whole = batches.Batches(_split(1000), 3 * 64, seed=1)
    np.testing.assert_array_equal(
      np.concatenate([part.rows(2, 1) for part in parts]), whole.rows(2, 1)
    )

  def test_padding_is_masked_and_weighs_nothing(self):
    source = batches.Batches(_split(10, weighted=True), 4, shuffle=False)
    batch = source.batch(0, 2)
    np.testing.assert_array_equal(batch.mask, [True, True, False, False])
    np.testing.assert_array_equal(batch.weights, [9, 10, 0, 0])
    np.testing.assert_array_equal(batch.ids, [[8, 16], [9, 18], [0, 0], [0, 0]])
    np.testing.assert_array_equal(batch.missing[2:], True)
    self.assertEqual(batch.ids.dtype, np.int32)

  def test_unshuffled_rows_keep_their_order(self):
    source = batches.Batches(_split(10), 4, seed=5, shuffle=False)
    for epoch in (0, 3):
      np.testing.assert_array_equal(
        _epoch_rows(source, epoch), [*range(10), -1, -1]
      )

  def test_chunk_stacks_batches_over_epochs(self):
    source = batches.Batches(_split(10), 4, seed=5)
    chunk = source.chunk(2, 3)  # The last batch of one epoch, two of the next.
    for i, place in enumerate([(0, 2), (1, 0), (1, 1)]):
      for stacked, leaf in zip(chunk, source.batch(*place)):
        np.testing.assert_array_equal(stacked[i], leaf)

  @parameterized.parameters(
    (dict(batch_size=0), errors.ConfigError, 'batch_size 0'),
    (dict(batch_size=4, seed=-1), errors.ConfigError, 'seed -1'),
    (
      dict(batch_size=4, process_index=2, process_count=2),
      errors.ConfigError,
      'Process 2 of 2',
    ),
  )
  def test_bad_arguments(self, arguments, error, message):
    with self.assertRaisesRegex(error, message):
      batches.Batches(_split(10), **arguments)

  def test_empty_split_and_step_out_of_range(self):
    with self.assertRaisesRegex(errors.DataError, 'without rows'):
      batches.Batches(_split(0), 4)
    with self.assertRaisesRegex(errors.ConfigError, 'Step 3'):
      batches.Batches(_split(10), 4).rows(0, 3)


if __name__ == '__main__':
  absltest.main()
