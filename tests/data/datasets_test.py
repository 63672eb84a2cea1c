import json
import os
import pathlib
import stat
from unittest import mock

from absl.testing import absltest, parameterized
import numpy as np

from jax_autorec import data as data_lib
from jax_autorec import errors

_REAL = pathlib.Path(
  os.environ.get(
    'JAX_AUTOREC_TEST_DATA',
    pathlib.Path(__file__).parents[2] / '..' / 'shared' / 'data',
  )
)


class RealDataTest(parameterized.TestCase):
  """Row counts, positives and cardinalities that the sets are known to have."""

  def setUp(self):
    super().setUp()
    if not _REAL.is_dir():
      self.skipTest(f'{_REAL} is absent: no real data to read.')
    cache = self.create_tempdir().full_path
    self.enter_context(
      mock.patch.dict(os.environ, {'JAX_AUTOREC_CACHE': cache})
    )

  def _load(self, name, **options):
    return data_lib.load(name, str(_REAL), **options)

  @parameterized.parameters(
    ('frappe', {}, (202_027, 57_722, 28_860), 67_604),
    ('frappe', {'draw': 1}, (202_027, 57_722, 28_860), 67_604),
    ('diabetes130', {}, (81_412, 10_177, 10_177), 9_086),
    ('movielens_1m', {}, (390_120, 48_765, 48_765), None),
    # All ratings: their time stamps are not needed.
    ('movielens_1m', {'split': 'ratio'}, (799_616, 100_267, 100_326), None),
    ('movielens_100k', {}, (80_000, 10_000, 10_000), None),
    ('adult', {}, (32_561, 16_281), None),
    ('amazon_employee', {}, (26_215, 6_554), None),
  )
  def test_splits(self, name, options, rows, positives):
    data = self._load(name, **options)
    found = [
      getattr(data, split).num_rows for split in ('train', 'valid', 'test')
    ]
    if len(rows) == 2:  # The validation split is cut from train.
      found = [found[0] + found[1], found[2]]
    self.assertEqual(tuple(found), rows)
    self.assertEqual(
      dict(data.counts),
      {'read': sum(rows), 'kept': sum(rows), 'quarantined': 0},
    )
    if positives is not None:
      self.assertEqual(int(data.train.labels.sum()), positives)
    for column, field in enumerate(data.schema.categorical):
      if field.max_length == 1 == data.schema.categorical[0].max_length:
        counts = data.frequencies[field.name]
        np.testing.assert_array_equal(
          counts,
          np.bincount(data.train.ids[:, column], minlength=field.vocab_size),
        )

  @parameterized.parameters(
    ('sample_1in1000_20fields.tsv.gz', 36_672, 0.2569, {'C6': 13, 'C23': 14}),
    ('random_4584.csv.gz', 4_584, 0.2685, {'C3': 3016, 'C16': 2645}),
    ('head_10k.tsv.gz', 10_000, 0.2182, {'C3': 5521, 'C20': 4, 'C1': 175}),
  )
  def test_criteo_samples(self, file, rows, rate, sizes):
    data = self._load('criteo', source=str(_REAL / 'criteo-kaggle' / file))
    parts = [data.train, data.valid, data.test]
    self.assertEqual(data.counts['kept'], rows)
    labels = np.concatenate([part.labels for part in parts])
    self.assertAlmostEqual(labels.mean(), rate, delta=1e-4)
    names = [field.name for field in data.schema.categorical]
    for name, size in sizes.items():
      # Values of the train split, missing counted; few are rarer than that.
      seen = np.unique(data.train.ids[:, names.index(name)])
      self.assertLessEqual(len(seen), size)
      self.assertGreater(len(seen), 0.75 * size)

  def test_avazu_and_movielens_attributes(self):
    data = self._load('avazu')
    self.assertEqual(data.counts['kept'], 9_999)
    self.assertEqual(data.schema.field('hour').vocab_size, 3)  # One hour.
    data = self._load('movielens_1m')
    self.assertEqual(data.schema.field('gender').vocab_size, 4)
    self.assertEqual(data.schema.field('genres').vocab_size, 20)
    self.assertLess(data.train.times.max(), data.valid.times.min() + 1)
    self.assertLess(data.valid.times.max(), data.test.times.min() + 1)

  def test_a_read_only_directory_stays_as_it_is(self):
    data = self._load('movielens_100k')
    cache = os.environ['JAX_AUTOREC_CACHE']
    self.assertTrue(pathlib.Path(data.directory).is_relative_to(cache))


class NamesTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.root = pathlib.Path(self.create_tempdir().full_path)

  @parameterized.parameters(
    ('criteoo', {}, "No data set 'criteoo'.*frappe.*mean 'criteo'"),
    ('criteo', {'sourse': 'x'}, "Options of criteo: .*'sourse'"),
    ('criteo', {}, 'None of .*train.txt.*is in'),
    ('mine.toml', {}, 'mine.toml does not exist'),
    ('mine.toml', {'draw': 1}, 'takes no options'),
    ('planted', {'num_row': 9}, 'num_row'),
  )
  def test_mistakes_are_named(self, name, options, message):
    with self.assertRaisesRegex(errors.AutorecError, message):
      data_lib.load(name, str(self.root), **options)

  def test_a_raw_file_in_place_of_its_schema_file(self):
    path = self.root / 'mine.csv'
    path.write_text('label,a\n')
    with self.assertRaisesRegex(errors.DataError, '--infer=.*mine.csv. writes'):
      data_lib.load(str(path))

  @parameterized.parameters(
    ({'min_count': 'two'}, "min_count is 'two'; expected int"),
    ({'split_seed': -1}, 'seed is -1; expected at least 0'),
  )
  def test_options_of_another_type(self, options, message):
    with self.assertRaisesRegex(errors.DataError, message):
      data_lib.load('criteo', str(self.root), source='x.tsv', **options)

  def test_what_a_broken_store_leaves_is_no_source(self):
    (self.root / '.jax_autorec' / 'criteo-0').mkdir(parents=True)
    with self.assertRaisesRegex(errors.DataError, 'None of .*train.txt'):
      data_lib.load('criteo', str(self.root))

  def test_criteo_with_commas_below_any_directory(self):
    names = [*(f'I{i}' for i in range(1, 14)), *(f'C{i}' for i in range(1, 27))]
    directory = self.root / 'old.gz' / 'criteo'
    directory.mkdir(parents=True)
    lines = [','.join([str(i % 2), *['3'] * 39]) for i in range(60)]
    path = directory / 'random_4584.csv'
    path.write_text('\n'.join([','.join(['Label', *names]), *lines]) + '\n')
    data = data_lib.load('criteo', str(self.root / 'old.gz'))
    self.assertEqual(data.counts['kept'], 60)

  @parameterized.parameters('{bad', '3')
  def test_names_of_fields_that_are_none(self, text):
    for split in ('train', 'valid', 'test'):
      (self.root / f'{split}.libsvm').touch()
    (self.root / 'fields.json').write_text(text)
    with self.assertRaisesRegex(errors.DataError, 'fields.json: .*order, as'):
      data_lib.load('frappe', str(self.root))

  def test_adult_as_its_public_download_is(self):
    row = '20, Private, 1, HS, 9, X, Y, Z, W, Male, 0, 0, 40, ?, {}'
    lines = [row.format(('<=50K', '>50K')[i % 2]) for i in range(100)]
    (self.root / 'adult.data').write_text('\n'.join(lines) + '\n\n')
    lines = ['|1x3 Cross validator', *(f'{line}.' for line in lines)]
    (self.root / 'adult.test').write_text('\n'.join(lines) + '\n\n')
    data = data_lib.load('adult', str(self.root))
    self.assertEqual(data.counts['read'], 200)
    np.testing.assert_array_equal(data.test.labels, np.arange(100) % 2)

  def test_an_unknown_rule_of_splitting(self):
    with self.assertRaisesRegex(errors.DataError, "'tame'.*mean 'time'"):
      data_lib.load('criteo', source='x.tsv', split='tame')

  def test_a_missing_directory(self):
    with self.assertRaisesRegex(errors.DataError, 'gone does not exist'):
      data_lib.load('frappe', str(self.root / 'gone'))

  @parameterized.parameters(
    ('train.libfm', 'valid.libfm', 'test.libfm', 'frappe', '0'),
    (
      'frappe.train.libfm',
      'frappe.validation.libfm',
      'frappe.test.libfm',
      '.',
      '-1',
    ),
  )
  def test_frappe_under_the_names_of_its_public_downloads(self, *arguments):
    *files, folder, negative = arguments
    (self.root / folder).mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    for file in files:
      lines = [
        ' '.join(
          [
            str((1, negative)[i % 2]),
            *(f'{x}:1' for x in rng.integers(9, size=10)),
          ]
        )
        for i in range(40)
      ]
      (self.root / folder / file).write_text('\n'.join(lines) + '\n')
    data = data_lib.load('frappe', str(self.root))
    np.testing.assert_array_equal(data.train.labels, np.arange(40) % 2 == 0)
    self.assertEqual(data.schema.fields[0].name, 'user')

  def test_stores_go_beside_the_data_or_to_the_cache(self):
    rows = ['1,3,x'] * 30 + ['0,2,y'] * 30
    (self.root / 'a.csv').write_text('\n'.join(['label,n,c', *rows]) + '\n')
    (self.root / 'a.toml').write_text(
      'files.all = "a.csv"\n[[columns]]\nname = "c"\n'
    )
    schema = str(self.root / 'a.toml')
    inside = pathlib.Path(data_lib.load(schema).directory)
    self.assertTrue(inside.is_relative_to(self.root / '.jax_autorec'))
    self.root.chmod(stat.S_IREAD | stat.S_IEXEC)
    self.addCleanup(self.root.chmod, 0o755)
    cache = self.create_tempdir().full_path
    with mock.patch.dict(os.environ, {'JAX_AUTOREC_CACHE': cache}):
      outside = pathlib.Path(data_lib.load(schema).directory)
    self.assertTrue(outside.is_relative_to(cache))
    manifests = [
      json.loads((p / 'manifest.json').read_text()) for p in (inside, outside)
    ]
    self.assertEqual(manifests[0]['fingerprint'], manifests[1]['fingerprint'])


if __name__ == '__main__':
  absltest.main()
