import gzip
import pathlib

from absl.testing import absltest, parameterized
import numpy as np

from jax_autorec import data as data_lib
from jax_autorec import errors

_AVAZU = (
  'id,click,hour,C1,banner_pos,site_id,site_domain,site_category,app_id,'
  'app_domain,app_category,device_id,device_ip,device_model,device_type,'
  'device_conn_type,C14,C15,C16,C17,C18,C19,C20,C21'
)


class TransformsTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.root = pathlib.Path(self.create_tempdir().full_path)

  def _values(self, data, field):
    """Raw values of the train split's rows."""
    encoder = data_lib.read_encoder(data.directory)
    values = encoder.vocabularies[field].values.to_pylist()
    values = [None, '?', *values]
    column = [f.name for f in data.schema.categorical].index(field)
    return [values[i] for i in data.train.ids[:, column]]

  def test_avazu_hours(self):
    hours = ['14102100', '14102513', '14102623', '14102707']
    expected = [
      ('00', '1', '0'),  # A Tuesday.
      ('13', '5', '1'),
      ('23', '6', '1'),
      ('07', '0', '0'),
    ]
    lines = [
      f'{i},{i % 2},{hours[i % 4]},h{i % 4}{",x" * 20}' for i in range(200)
    ]
    (self.root / 'train').write_text('\n'.join([_AVAZU, *lines]) + '\n')
    data = data_lib.load('avazu', str(self.root))
    self.assertLen(data.schema.fields, 24)
    rows = [
      expected[int(c1[1])]
      for c1 in self._values(data, 'C1')  # Says which hour it was.
    ]
    for place, field in enumerate(['hour', 'weekday', 'is_weekend']):
      self.assertEqual(self._values(data, field), [row[place] for row in rows])
    moments = np.array(
      ['2014-10-21T00', '2014-10-25T13', '2014-10-26T23', '2014-10-27T07'],
      'datetime64[s]',
    ).astype(float)
    np.testing.assert_array_equal(
      data.train.times, [moments[int(c1[1])] for c1 in self._values(data, 'C1')]
    )

  def test_an_hour_that_is_none_is_a_bad_row(self):
    lines = [f'{i},{i % 2},14102100{",x" * 21}' for i in range(50)]
    lines[20] = lines[20].replace('14102100', '14102199')
    (self.root / 'train').write_text('\n'.join([_AVAZU, *lines]) + '\n')
    with self.assertRaisesRegex(
      errors.DataError, "line 22: column 'time' is empty; expected a time"
    ):
      data_lib.load('avazu', str(self.root))
    data = data_lib.load('avazu', str(self.root), bad_rows='quarantine')
    self.assertEqual(data.counts['quarantined'], 1)

  def test_movielens_1m_joins_attributes(self):
    (self.root / 'users.dat').write_text(
      '1::F::25::4::55117\n2::M::56::16::70072\n'
    )
    movies = "10::Amélie: L'été (2001)::Comedy|Romance\n20::No year::Drama\n"
    (self.root / 'movies.dat').write_bytes(movies.encode('latin-1'))
    lines = [
      f'{1 + i % 2}::{(10, 20, 30)[i % 3]}::{1 + i % 5}::{i}'
      for i in range(300)
    ]
    (self.root / 'ratings.dat').write_text('\n'.join(lines) + '\n')
    data = data_lib.load('movielens_1m', str(self.root))
    movie, year = self._values(data, 'movie'), self._values(data, 'year')
    self.assertEqual(
      set(zip(movie, year)), {('10', '2001'), ('20', None), ('30', None)}
    )
    self.assertEqual(
      set(zip(self._values(data, 'user'), self._values(data, 'zip'))),
      {('1', '55117'), ('2', '70072')},
    )
    encoder = data_lib.read_encoder(data.directory)
    genres = [None, '?', *encoder.vocabularies['genres'].values.to_pylist()]
    found = {
      (m, tuple(genres[i] for i in row[-6:] if i >= 0))
      for m, row in zip(movie, data.train.ids)
    }
    self.assertEqual(
      found,
      {('10', ('Comedy', 'Romance')), ('20', ('Drama',)), ('30', (None,))},
    )
    # A rating of 4 or 5 is a like, and the times of the train split come first.
    np.testing.assert_array_equal(
      data.train.labels, [float(1 + t % 5 >= 4) for t in data.train.times]
    )
    np.testing.assert_array_equal(data.train.times, np.arange(240))

  def _movielens(self, users='1::F::25::4::55117\n', name='users.dat'):
    data = users if isinstance(users, bytes) else users.encode()
    (self.root / name).write_bytes(data)
    (self.root / 'movies.dat').write_text('10::Toy (1995)::Drama\n')
    lines = [f'1::10::{1 + i % 5}::{i}' for i in range(300)]
    (self.root / 'ratings.dat').write_text('\n'.join(lines) + '\n')
    return data_lib.load('movielens_1m', str(self.root))

  def test_compressed_attributes(self):
    data = self._movielens(
      gzip.compress(b'1::F::25::4::55117\r\n'), 'users.dat.gz'
    )
    self.assertEqual(set(self._values(data, 'zip')), {'55117'})

  @parameterized.parameters('', '1::F::25\n', '1::F::25::4::5::6\n')
  def test_attributes_that_are_none(self, text):
    with self.assertRaisesRegex(errors.DataError, 'users.dat: .*occupation'):
      self._movielens(text)

  def test_movielens_as_commas(self):
    lines = [f'{1 + i % 2},10,{1 + i % 5}.0,{i}' for i in range(300)]
    for name, text in {
      'ratings.csv': 'userId,movieId,rating,timestamp\n' + '\n'.join(lines),
      'users.csv': 'userId,gender,age,occupation,zip\n1,F,25,4,1\n2,M,9,5,2',
      'movies.csv': 'movieId,title,genres\n10,"Été, L\' (2001)",Drama|War',
    }.items():
      (self.root / name).write_text(f'{text}\n', 'utf-8')
    data = data_lib.load('movielens_1m', str(self.root))
    self.assertEqual(data.counts['read'], 300)
    self.assertEqual(set(self._values(data, 'year')), {'2001'})
    self.assertEqual(
      set(zip(self._values(data, 'user'), self._values(data, 'zip'))),
      {('1', '1'), ('2', '2')},
    )
    self.assertEqual(data.schema.field('genres').vocab_size, 4)

  def test_ratings_without_times_are_split_at_random(self):
    data = self._movielens()
    self.assertEqual(data.train.num_rows, 240)
    path = self.root / 'ratings.dat'
    lines = [line.rsplit('::', 1)[0] for line in path.read_text().splitlines()]
    path.unlink()
    path = self.root / 'ratings_all_no_timestamp.dat'
    path.write_text('\n'.join(lines) + '\n')
    data = data_lib.load('movielens_1m', str(self.root), split='ratio')
    self.assertEqual(data.counts['kept'], 300)
    self.assertIsNone(data.train.times)
    with self.assertRaisesRegex(errors.DataError, 'None of .*ratings.dat'):
      data_lib.load('movielens_1m', str(self.root))

  @parameterized.parameters('hour', 'C14', 'click')
  def test_avazu_without_a_column(self, name):
    lines = [_AVAZU.replace(name, 'other'), *['1,0,14102100' + ',x' * 21] * 3]
    (self.root / 'train').write_text('\n'.join(lines) + '\n')
    with self.assertRaisesRegex(errors.DataError, f'no column .{name}'):
      data_lib.load('avazu', str(self.root))

  def test_movielens_100k_joins_attributes(self):
    (self.root / 'u.user').write_text(
      '1|24|M|technician|85711\n2|53|F|other|94043\n'
    )
    flags = ['0'] * 19
    flags[3] = flags[18] = '1'
    (self.root / 'u.item').write_text(
      f'10|Toy|01-Jan-1995||http://x|{"|".join(flags)}\n'
      f'20|unknown||||{"|".join(["0"] * 19)}\n',
      'latin-1',
    )
    lines = [
      f'{1 + i % 2}\t{(10, 20)[i // 2 % 2]}\t{1 + i % 5}\t{i}'
      for i in range(200)
    ]
    (self.root / 'u.data').write_text('\n'.join(lines) + '\n')
    data = data_lib.load('movielens_100k', str(self.root))
    self.assertEqual(
      set(zip(self._values(data, 'movie'), self._values(data, 'year'))),
      {('10', '1995'), ('20', None)},
    )
    self.assertEqual(
      set(zip(self._values(data, 'user'), self._values(data, 'occupation'))),
      {('1', 'technician'), ('2', 'other')},
    )
    encoder = data_lib.read_encoder(data.directory)
    self.assertEqual(
      set(encoder.vocabularies['genres'].values.to_pylist()), {'3', '18'}
    )


if __name__ == '__main__':
  absltest.main()
