import collections
import functools
import json
import os
import pathlib
from unittest import mock

from absl.testing import absltest, parameterized
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jax_autorec import errors
from jax_autorec.data import fitting, ingest, provisional, store
from jax_autorec.data import source as source_lib

Column = source_lib.Column
_SPLITS = ('train', 'valid', 'test')


def _lines(count, seed=0, cities=('Rome', 'Oslo', 'Bern', '')):
  """Rows (label, user, city, price, day) as text; the user is the row."""
  rng = np.random.default_rng(seed)
  return [
    f'{rng.integers(2)},{row},{rng.choice(cities)},'
    f'{rng.normal():.3f},{rng.integers(20)}'
    for row in range(count)
  ]


class _IngestTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.root = pathlib.Path(self.create_tempdir().full_path)

  def _write(self, lines, name='x.csv'):
    path = self.root / name
    path.write_text('label,user,city,price,day\n' + '\n'.join(lines) + '\n')
    return str(path)

  def _source(self, files, **kwargs):
    kwargs.setdefault(
      'columns', (Column('user'), Column('city'), Column('price', 'numeric'))
    )
    files = {'all': (files,)} if isinstance(files, str) else files
    return source_lib.Source('mine', files, **kwargs)

  def _load(self, source, **kwargs):
    return ingest.load(source, self.root / 'stores', **kwargs)

  def _users(self, data):
    """Users of the train split's rows, in their order."""
    encoder = store.read_encoder(data.directory)
    values = [None, None, *encoder.vocabularies['user'].values.to_pylist()]
    return [values[i] for i in data.train.ids[:, 0]]


class FitTest(_IngestTest):
  def test_vocabulary_is_that_of_the_train_split_by_falling_frequency(self):
    train = ['Rome'] * 5 + ['Oslo'] * 9 + [''] * 3 + ['Bern'] * 5 + ['Nice']
    valid, test = ['Rome', 'Lima', ''], ['Lima'] * 50 + ['Oslo', 'Nice']
    files = {
      split: (
        self._write([f'1,u,{city},0,0' for city in rows], f'{split}.csv'),
      )
      for split, rows in zip(_SPLITS, (train, valid, test))
    }
    source = self._source(files, columns=(Column('city'),), min_count=2)
    data = self._load(source)
    ids = {'': 0, 'Nice': 1, 'Lima': 1, 'Oslo': 2, 'Bern': 3, 'Rome': 4}
    for split, rows in zip(_SPLITS, (train, valid, test)):
      np.testing.assert_array_equal(
        getattr(data, split).ids[:, 0], [ids[city] for city in rows]
      )
    self.assertEqual(data.schema.field('city').vocab_size, 5)
    np.testing.assert_array_equal(data.frequencies['city'], [3, 1, 9, 5, 5])

  def test_bins_that_the_train_split_lacks_are_unknown(self):
    days = {'train': [0, 5, 5, 9], 'valid': [5, 2], 'test': [1, 9, 100, -1]}
    files = {
      split: (self._write([f'1,u,x,0,{day}' for day in rows], f'{split}.csv'),)
      for split, rows in days.items()
    }
    column = Column('day', 'numeric', discretize='log_square')
    data = self._load(self._source(files, columns=(column,)))
    # Bins 0, 2, 2 and 4; ties by value; 100 is in bin 21, 1 in bin 1.
    np.testing.assert_array_equal(data.train.ids[:, 0], [3, 2, 2, 4])
    np.testing.assert_array_equal(data.valid.ids[:, 0], [2, 2])
    np.testing.assert_array_equal(data.test.ids[:, 0], [1, 4, 1, 1])
    np.testing.assert_array_equal(data.frequencies['day'], [0, 0, 2, 1, 1])

  def test_columns_of_all_kinds_lie_in_the_order_of_the_schema(self):
    rows = [('1', 'a|b', '-1', '3', '2', 'g'), ('0', 'b', '', '', '0.5', 'h')]
    lines = [','.join(rows[i % 2]) for i in range(40)]
    path = self.root / 'x.csv'
    path.write_text('label,tags,clicks,price,w,g\n' + '\n'.join(lines) + '\n')
    columns = (
      Column('clicks', 'numeric', discretize='log_square'),
      Column('price', 'numeric', scaler='none'),
      Column('tags', separator='|', max_length=3),
    )
    data = self._load(
      self._source(str(path), columns=columns, weight='w', group='g')
    )
    split = data.train
    np.testing.assert_array_equal(split.labels, split.weights == 2)
    # Bin -1 is a value of its own, not a missing one.
    np.testing.assert_array_equal(
      split.ids[:, 0], np.where(split.labels == 1, 2, 0)
    )
    one = split.ids[split.labels == 1][0, 1:].tolist()
    two = split.ids[split.labels == 0][0, 1:].tolist()
    self.assertEqual(one, [3, 2, -1])  # 'b' is in every row, 'a' in half.
    self.assertEqual(two, [2, -1, -1])
    np.testing.assert_array_equal(
      split.numeric[:, 0], np.where(split.labels == 1, 3, 0)
    )
    np.testing.assert_array_equal(split.missing[:, 0], split.labels == 0)
    self.assertLen(set(zip(split.groups.tolist(), split.labels.tolist())), 2)

  @parameterized.parameters(
    (dict(label_threshold=4.0), ['3', '4', '5', '1'], [0, 1, 1, 0]),
    (dict(label_positive=('yes', '5')), ['yes', 'no', '5', '?'], [1, 0, 1, 0]),
  )
  def test_labels(self, options, labels, expected):
    lines = [f'{label},{i},x,0,0' for i, label in enumerate(labels * 30)]
    data = self._load(self._source(self._write(lines), **options))
    wanted = [expected[int(user) % 4] for user in self._users(data)]
    np.testing.assert_array_equal(data.train.labels, wanted)

  @parameterized.parameters(
    ([True, False], ('True',)),
    ([1.0, 0.0], ('1.0',)),
    ([1, 0], ('1.0',)),
    (['True', 'False'], ('True',)),
  )
  def test_positive_labels_of_typed_columns(self, labels, positive):
    rows = {'label': labels * 50, 'user': [*range(100)]}
    path = str(self.root / 'x.parquet')
    pq.write_table(pa.table(rows), path)
    source = self._source(
      path,
      columns=(Column('user'),),
      format='parquet',
      label_positive=positive,
    )
    data = self._load(source)
    self.assertEqual(
      data.train.labels.tolist(),
      [1 - int(user) % 2 for user in self._users(data)],
    )

  def test_positive_labels_that_no_row_has(self):
    source = self._source(self._write(_lines(50)), label_positive=('yes',))
    with self.assertRaisesRegex(errors.DataError, r"label_positive, \['yes'\]"):
      self._load(source)

  def test_chunks_and_blocks_of_any_size_give_the_same_bytes(self):
    options = {
      'columns': (
        Column('user'),
        Column('city'),
        Column('price', 'numeric', scaler='standard'),
        Column('day', 'numeric', discretize='equal_frequency', bins=4),
      ),
      'time': 'day',
    }
    path, found = self._write(_lines(500)), []
    for rows, block, kind in [
      (2**17, 2**20, 'ratio'),
      (17, 300, 'ratio'),
      (2**17, 2**20, 'time'),
      (17, 300, 'time'),
    ]:
      source = self._source(
        path, split=source_lib.SplitRule(kind, 0.2, 0.1), **options
      )
      small = functools.partial(ingest.readers.read, block_bytes=block)
      with (
        mock.patch.object(provisional, 'ROWS', rows),
        mock.patch.object(fitting, '_SAMPLE', 100),
        mock.patch.object(ingest.readers, 'read', small),
      ):
        target = ingest.prepare(source, self.root / f'{rows}-{kind}')
      manifest = store.read_manifest(target)
      found.append((manifest['files'], manifest['fingerprint']))
    self.assertEqual(found[0], found[1])
    self.assertEqual(found[2], found[3])
    self.assertNotEqual(found[0][0], found[2][0])


class SplitTest(_IngestTest):
  def _split(self, lines, **kwargs):
    source = self._source(self._write(lines), **kwargs)
    return self._load(source)

  def test_ratio_by_seed(self):
    rule = source_lib.SplitRule(valid=0.2, test=0.1, seed=1)
    data = self._split(_lines(4000), split=rule)
    self.assertAlmostEqual(data.valid.num_rows / 4000, 0.2, delta=0.03)
    self.assertAlmostEqual(data.test.num_rows / 4000, 0.1, delta=0.03)
    rows = [getattr(data, split).num_rows for split in _SPLITS]
    self.assertEqual(sum(rows), 4000)
    users = self._users(data)
    again = self._split(_lines(4000), split=rule)
    self.assertEqual(users, self._users(again))
    other = self._split(
      _lines(4000), split=source_lib.SplitRule(valid=0.2, test=0.1, seed=2)
    )
    self.assertNotEqual(users, self._users(other))

  def test_validation_rows_are_cut_from_train_alone(self):
    files = {
      'train': (self._write(_lines(1000), 'train.csv'),),
      'test': (self._write(_lines(300, seed=1), 'test.csv'),),
    }
    data = self._load(
      self._source(files, split=source_lib.SplitRule(valid=0.3))
    )
    self.assertEqual(data.test.num_rows, 300)
    self.assertEqual(data.train.num_rows + data.valid.num_rows, 1000)
    self.assertAlmostEqual(data.valid.num_rows / 1000, 0.3, delta=0.05)

  @parameterized.parameters(False, True)
  def test_by_time_the_latest_rows_are_tested_on(self, has_negatives):
    """Equal times are parted by their order in the file."""
    lines = _lines(1000)
    if has_negatives:
      lines = [
        ','.join([*(c := line.split(','))[:4], str(float(c[4]) * 1e9 - 7e9)])
        for line in lines
      ]
    times = np.array([float(line.split(',')[4]) for line in lines])
    rule = source_lib.SplitRule('time', valid=0.25, test=0.1)
    data = self._split(lines, split=rule, time='day')
    order = np.argsort(times, kind='stable')
    parts = np.split(order, [650, 900])
    for split, rows in zip(_SPLITS, parts):
      np.testing.assert_array_equal(
        getattr(data, split).times, times[np.sort(rows)]
      )
    users = [int(user) for user in self._users(data)]
    np.testing.assert_array_equal(users, np.sort(parts[0]))

  def test_by_order(self):
    rule = source_lib.SplitRule('order', valid=0.25, test=0.1)
    data = self._split(_lines(1000), split=rule)
    users = [int(user) for user in self._users(data)]
    np.testing.assert_array_equal(users, np.arange(650))
    self.assertEqual((data.valid.num_rows, data.test.num_rows), (250, 100))

  def test_by_files_of_row_numbers(self):
    rng = np.random.default_rng(0)
    order = rng.permutation(100)
    files = {}
    for split, rows in (('train', order[:60]), ('test', order[60:])):
      files[split] = str(self.root / f'{split}.txt')
      np.savetxt(files[split], rows, '%d')
    source = self._source(self._write(_lines(100)), rows=files)
    data = self._load(source)
    users = {int(user) for user in self._users(data)}
    self.assertLess(users, set(order[:60].tolist()))
    self.assertEqual(data.train.num_rows + data.valid.num_rows, 60)
    self.assertEqual(data.test.num_rows, 40)
    np.savetxt(files['test'], order[61:], '%d')
    with self.assertRaisesRegex(errors.DataError, '1 rows are in no split'):
      self._load(source)
    np.savetxt(files['test'], [], '%d')
    with self.assertRaisesRegex(errors.DataError, '40 rows are in no split'):
      self._load(source)
    np.savetxt(files['test'], order[59:], '%d')
    twice = f'names row {order[59]}, which is also one of the train split'
    with self.assertRaisesRegex(errors.DataError, twice):
      self._load(source)
    np.savetxt(files['test'], [100], '%d')
    with self.assertRaisesRegex(errors.DataError, 'beyond the 100 that exist'):
      self._load(source)

  def test_a_split_without_rows_is_named(self):
    files = {'train': (self._write(_lines(50)),)}
    with self.assertRaisesRegex(errors.DataError, 'the test split has no rows'):
      self._load(self._source(files))
    for rows in (1, 2):
      source = self._source(self._write(_lines(rows)))
      with self.assertRaisesRegex(errors.DataError, f'of {rows} in all'):
        self._load(source)


class BadRowsTest(_IngestTest):
  def _bad(self):
    lines = _lines(400)
    bad = {30: '1,2', 100: '7,8,Rome,1,1', 101: '1,9,Oslo,cheap,1'}
    for place, line in bad.items():
      lines[place] = line
    return self._source(self._write(lines)), bad

  def test_raise_names_the_first_and_leaves_nothing(self):
    source, _ = self._bad()
    with self.assertRaisesRegex(
      errors.DataError, r'x\.csv, line 32: 2 columns; expected 5.*quarantine'
    ):
      self._load(source)
    self.assertEmpty(list((self.root / 'stores').iterdir()))

  def test_quarantine_accounts_for_every_row(self):
    source, bad = self._bad()
    data = self._load(source, bad_rows='quarantine')
    self.assertEqual(
      dict(data.counts), {'read': 400, 'kept': 397, 'quarantined': 3}
    )
    rows = sum(getattr(data, split).num_rows for split in _SPLITS)
    self.assertEqual(rows, 397)
    path = pathlib.Path(data.directory) / 'quarantine.jsonl'
    kept_out = [json.loads(line) for line in path.read_text().splitlines()]
    self.assertEqual(
      [(row['file'], row['line'], row['text']) for row in kept_out],
      [('x.csv', place + 2, line) for place, line in bad.items()],
    )
    self.assertIn('expected a label', kept_out[1]['reason'])
    self.assertIn("'price' is 'cheap'", kept_out[2]['reason'])

  def test_nothing_but_bad_rows(self):
    source = self._source(self._write(['3,1,a,1,1'] * 4))
    with self.assertRaisesRegex(
      errors.DataError, r'no row could be kept, of 4. .*line 2: .* 0 or 1'
    ):
      self._load(source, bad_rows='quarantine')

  def test_row_numbers_do_not_outlive_a_bad_row(self):
    source, _ = self._bad()
    numbers = str(self.root / 'rows.txt')
    np.savetxt(numbers, np.arange(400), '%d')
    source = self._source(
      source.files['all'][0], rows={'train': numbers, 'test': numbers}
    )
    with self.assertRaisesRegex(errors.DataError, 'line 32: .*row numbers'):
      self._load(source, bad_rows='quarantine')

  def test_missing_files_and_unknown_policies(self):
    source = self._source(str(self.root / 'gone.csv'))
    with self.assertRaisesRegex(errors.DataError, 'gone.csv does not exist'):
      self._load(source)
    source = self._source(self._write(_lines(100)))
    with self.assertRaisesRegex(errors.DataError, "bad_rows is 'drop'"):
      self._load(source, bad_rows='drop')

  def test_a_full_disk_leaves_nothing_and_says_so(self):
    source = self._source(self._write(_lines(100)))
    full = mock.Mock(side_effect=OSError(28, 'No space left on device'))
    with mock.patch.object(store.Writer, 'append', full):
      with self.assertRaisesRegex(errors.DataError, 'No space left on device'):
        self._load(source)
    self.assertEmpty(list((self.root / 'stores').iterdir()))
    self.assertEqual(self._load(source).counts['kept'], 100)


class CacheTest(_IngestTest):
  def _prepares(self):
    """Counts how often rows are read."""
    calls = collections.Counter()
    read = ingest.readers.read

    def counted(*args, **kwargs):
      calls['read'] += 1
      return read(*args, **kwargs)

    patch = mock.patch.object(ingest.readers, 'read', counted)
    self.enter_context(patch)
    return calls

  def test_only_what_has_changed_is_encoded_again(self):
    calls = self._prepares()
    path = self._write(_lines(200))
    first = self._load(self._source(path))
    self._load(self._source(path))
    self.assertEqual(calls['read'], 1)
    os.utime(path, (1, 1))  # Another time stamp, the same content.
    self.assertEqual(
      self._load(self._source(path)).fingerprint, first.fingerprint
    )
    self.assertEqual(calls['read'], 1)
    # Same size, another content.
    self._write([line.replace('Rome', 'Roma') for line in _lines(200)])
    second = self._load(self._source(path))
    self.assertEqual(calls['read'], 2)
    self.assertNotEqual(second.fingerprint, first.fingerprint)
    cities = store.read_encoder(second.directory).vocabularies['city']
    self.assertIn('Roma', cities.values.to_pylist())
    third = self._load(self._source(path, min_count=2))
    self.assertEqual(calls['read'], 3)
    self.assertNotEqual(third.fingerprint, second.fingerprint)
    self.assertNotEqual(third.directory, second.directory)

  def test_files_of_one_name_in_several_directories(self):
    calls = self._prepares()
    files = {}
    for split, seed in (('train', 0), ('valid', 1), ('test', 2)):
      (self.root / split).mkdir()
      files[split] = (self._write(_lines(50, seed), f'{split}/part.csv'),)
    self._load(self._source(files))
    self.assertEqual(calls['read'], 3)
    self._load(self._source(files))
    self.assertEqual(calls['read'], 3)

  def test_progress_ends_at_all_rows(self):
    seen = []
    source = self._source(self._write(_lines(300)))
    self._load(source, progress=lambda *values: seen.append(values))
    rows, shares = np.array(seen).T
    self.assertTrue((np.diff(shares) > 0).all())
    self.assertEqual((rows[-1], shares[-1]), (300, 1))


if __name__ == '__main__':
  absltest.main()
