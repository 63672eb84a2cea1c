import os
import pathlib

from absl.testing import absltest, parameterized
import numpy as np

from jax_autorec import data as data_lib
from jax_autorec import errors


def _data(split='stream'):
  """100 rows out of order; half of the users come in the last rows alone."""
  rng = np.random.default_rng(0)
  time = rng.permutation(100) // 2
  user = np.where(time < 40, time % 7, 100 + time)
  return data_lib.from_arrays(
    {
      'label': rng.integers(0, 2, 100),
      'user': [f'u{u}' for u in user],
      'kind': [f'k{t % 3}' for t in time],
      'price': rng.normal(size=100),
      'time': time.astype(float),
    },
    columns=['kind', data_lib.Column('price', 'numeric'), 'user'],
    time='time',
    split=data_lib.SplitRule(split),
  ), time


class StreamTest(parameterized.TestCase):
  def test_rows_come_by_time_and_equal_times_in_their_order(self):
    data, time = _data()
    stream = data_lib.stream(data, ['user'])
    order = np.argsort(time, kind='stable')
    np.testing.assert_array_equal(stream.train.times, time[order])
    labels = np.concatenate(
      [s.labels for s in (data.train, data.valid, data.test)]
    )
    times = np.concatenate(
      [s.times for s in (data.train, data.valid, data.test)]
    )
    np.testing.assert_array_equal(
      stream.train.labels, labels[np.argsort(times, kind='stable')]
    )
    self.assertEqual(stream.train.ids.shape, (100, 1))
    self.assertEqual([f.name for f in stream.schema.fields], ['user'])
    self.assertEqual(stream.valid.num_rows + stream.test.num_rows, 0)

  def test_values_that_come_late_have_ids_of_their_own(self):
    data, time = _data()
    ids = data_lib.stream(data, ['user']).train.ids[:, 0]
    user = np.where(time < 40, time % 7, 100 + time)
    user = user[np.argsort(time, kind='stable')]
    self.assertLen(set(zip(ids, user)), len(set(user)))
    self.assertGreater(ids.min(), 1)
    # By time alone they are one unknown value.
    data, _ = _data('time')
    late = data_lib.stream(data, ['user']).train.ids[-20:, 0]
    self.assertEqual(set(late), {1})

  def test_fields_keep_the_order_of_columns(self):
    data, _ = _data()
    both = data_lib.stream(data, ['user', 'kind'])
    self.assertEqual([f.name for f in both.schema.fields], ['kind', 'user'])
    one = data_lib.stream(data, ['user'])
    np.testing.assert_array_equal(both.train.ids[:, 1], one.train.ids[:, 0])
    self.assertNotEqual(both.fingerprint, one.fingerprint)

  def test_shuffled_by_seed(self):
    data, _ = _data()
    plain, one, same, other = (
      data_lib.stream(data, ['user'], seed) for seed in (None, 1, 1, 2)
    )
    times = lambda stream: stream.train.times.tolist()
    self.assertEqual(times(one), times(same))
    self.assertNotEqual(times(one), times(other))
    self.assertEqual(sorted(times(one)), times(plain))
    self.assertNotEqual(one.fingerprint, plain.fingerprint)

  @parameterized.parameters('stream', 'time')
  def test_the_first_rows_are_the_first_by_time(self, split):
    data, time = _data(split)
    whole, cut, shuffled = (
      data_lib.stream(data, ['user'], *options)
      for options in ((), (None, 30), (4, 30))
    )
    np.testing.assert_array_equal(cut.train.times, np.sort(time)[:30])
    np.testing.assert_array_equal(cut.train.labels, whole.train.labels[:30])
    self.assertEqual(cut.frequencies['user'].sum(), 30)
    times = shuffled.train.times
    np.testing.assert_array_equal(np.sort(times), cut.train.times)
    self.assertTrue(np.any(times != cut.train.times))
    prints = {one.fingerprint for one in (whole, cut, shuffled)}
    self.assertLen(prints, 3)
    all_of_it = data_lib.stream(data, ['user'], max_rows=1000)
    self.assertEqual(all_of_it.fingerprint, whole.fingerprint)

  @parameterized.parameters((['price'],), (['user', 'user'],), ([],), (['x'],))
  def test_other_entities_are_refused(self, names):
    with self.assertRaisesRegex(errors.ConfigError, 'kind, user'):
      data_lib.stream(_data()[0], names)

  def test_movielens(self):
    root = pathlib.Path(
      os.environ.get(
        'JAX_AUTOREC_TEST_DATA',
        pathlib.Path(__file__).parents[2] / '..' / 'shared' / 'data',
      )
    )
    if not (root / 'movielens-100k').is_dir():
      self.skipTest(f'{root} is absent: no real data to read.')
    cache = self.create_tempdir().full_path
    os.environ['JAX_AUTOREC_CACHE'] = cache
    self.addCleanup(os.environ.pop, 'JAX_AUTOREC_CACHE')
    data = data_lib.load('movielens_100k', str(root), split='stream')
    stream = data_lib.stream(data, ['user', 'movie'])
    self.assertEqual(stream.train.num_rows, 100_000)
    sizes = [field.vocab_size for field in stream.schema.fields]
    self.assertEqual(sizes, [943 + 2, 1682 + 2])
    self.assertEqual(int(stream.train.labels.sum()), 34174 + 21201)
    self.assertTrue(np.all(np.diff(stream.train.times) >= 0))
    counts = np.bincount(stream.train.ids[:, 0], minlength=sizes[0])
    np.testing.assert_array_equal(stream.frequencies['user'], counts)

  def test_the_stream_of_movielens_1m_is_of_what_has_times(self):
    root = self.create_tempdir()
    folder = pathlib.Path(root.full_path, 'ml-1m')
    folder.mkdir()
    rows = [(user, user % 3, user % 5 + 1, 100 - user) for user in range(40)]
    timed = ''.join('::'.join(map(str, row)) + '\n' for row in rows[:30])
    (folder / 'ratings_users_1_2999.dat').write_text(timed)
    plain = ''.join('::'.join(map(str, row[:3])) + '\n' for row in rows)
    (folder / 'ratings_all_no_timestamp.dat').write_text(plain)
    users = ''.join(f'{user}::F::25::3::12345\n' for user in range(40))
    (folder / 'users.dat').write_text(users)
    movies = ''.join(f'{i}::Title (1990)::Drama\n' for i in range(3))
    (folder / 'movies.dat').write_text(movies)
    os.environ['JAX_AUTOREC_CACHE'] = root.full_path
    self.addCleanup(os.environ.pop, 'JAX_AUTOREC_CACHE')
    data = data_lib.load('movielens_1m', root.full_path, split='stream')
    stream = data_lib.stream(data, ['user', 'movie'])
    self.assertEqual(stream.train.times.tolist(), list(range(71, 101)))


if __name__ == '__main__':
  absltest.main()
