import pathlib

from absl.testing import absltest, parameterized

from jax_autorec import errors
from jax_autorec.data import source as source_lib

_GOOD = """
label = "clicked"
weight = "w"
missing = ["", "NA"]
delimiter = ";"
header = ["clicked", "w", "age", "tags"]

[files]
train = "part-*.csv"
test = "last.csv"

[split]
valid = 0.2
seed = 4

[[columns]]
name = "age"
kind = "numeric"
scaler = "minmax"

[[columns]]
name = "tags"
separator = "|"
max_length = 4
"""


class SchemaFileTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.root = pathlib.Path(self.create_tempdir().full_path)
    for name in ('part-2.csv', 'part-1.csv', 'last.csv'):
      (self.root / name).touch()

  def _load(self, text):
    path = self.root / 'mine.toml'
    path.write_text(text)
    return source_lib.load_schema_file(path)

  def test_a_file_declares_a_source(self):
    self.assertEqual(
      self._load(_GOOD),
      source_lib.Source(
        'mine',
        {
          'train': (
            str(self.root / 'part-1.csv'),
            str(self.root / 'part-2.csv'),
          ),
          'test': (str(self.root / 'last.csv'),),
        },
        (
          source_lib.Column('age', 'numeric', scaler='minmax'),
          source_lib.Column('tags', separator='|', max_length=4),
        ),
        label='clicked',
        weight='w',
        missing=('', 'NA'),
        delimiter=';',
        header=('clicked', 'w', 'age', 'tags'),
        split=source_lib.SplitRule(valid=0.2, seed=4),
      ),
    )

  @parameterized.named_parameters(
    ('key', 'label =', 'lable =', "unknown key 'lable'.*mean 'label'"),
    ('column_key', 'scaler =', 'scalar =', "unknown key 'scalar'.*'scaler'"),
    ('split_key', 'seed =', 'sead =', "unknown key 'sead'.*mean 'seed'"),
    ('kind', '"numeric"', '"numerical"', "is 'numerical'.*mean 'numeric'"),
    ('scaler', '"minmax"', '"minimax"', "is 'minimax'.*mean 'minmax'"),
    ('split', 'train =', 'training =', "split is 'training'.*mean 'train'"),
    ('file', 'last.csv', 'lost.csv', "no file matches 'lost.csv'"),
    ('share', 'valid = 0.2', 'valid = 1.2', 'shares are valid 1.2'),
    ('length', 'max_length = 4', '', 'has a separator but max_length 1'),
    ('twice', '"tags"\nsep', '"age"\nsep', "repeated: .'age'"),
    ('toml', '[split]', '[split', 'is not TOML'),
    ('files', '[files]', '[other]', r'no \[files\]'),
    ('type', '"minmax"', '3', 'scaler is 3; expected str'),
    ('text', 'valid = 0.2', 'valid = "a"', "valid is 'a'; expected float"),
    ('bool', 'max_length = 4', 'max_length = true', 'True; expected int'),
    ('label', 'name = "tags"', 'name = "clicked"', "label 'clicked' among"),
    ('weight', 'name = "tags"', 'name = "w"', "'w' is categorical, but"),
  )
  def test_mistakes_are_named(self, old, new, message):
    self.assertIn(old, _GOOD)
    with self.assertRaisesRegex(errors.DataError, message):
      self._load(_GOOD.replace(old, new, 1))

  def test_a_missing_file(self):
    with self.assertRaisesRegex(errors.DataError, 'gone.toml does not exist'):
      source_lib.load_schema_file(self.root / 'gone.toml')

  def test_settings_say_all_but_where_files_lie(self):
    source = self._load(_GOOD)
    again = source_lib.from_settings(source.settings())
    self.assertEqual(again.columns, source.columns)
    self.assertEqual(again.settings(), source.settings())
    (self.root / 'elsewhere').mkdir()
    for path in self.root.glob('*.csv'):
      path.rename(self.root / 'elsewhere' / path.name)
    self.root /= 'elsewhere'
    self.assertEqual(self._load(_GOOD).settings(), source.settings())


if __name__ == '__main__':
  absltest.main()
