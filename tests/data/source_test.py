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
    (
      'files_text',
      '[files]',
      'files = "last.csv"\n[other]',
      'expected .files.',
    ),
    ('files_number', '"last.csv"', '3', "files matches|no file matches '3'"),
    ('split_text', '[split]', '[[split]]', r'\[split\] is .*expected a table'),
    ('column', '[[columns]]\nname = "age"', '[x]', r'unknown key .x'),
    ('columns', '[[columns]]\nname = "tags"', '[[other]]', 'unknown key'),
    ('all', 'train =', 'all =', 'expected .all. alone'),
    ('seed', 'seed = 4', 'seed = -1', 'seed is -1; expected at least 0'),
    ('bins', 'scaler = "minmax"', 'bins = 0', "'age': bins is 0"),
    ('count', 'scaler = "minmax"', 'min_count = 0', 'min_count is 0'),
    ('default', 'scaler = "minmax"', 'default = "x"', "'x'; expected a number"),
    ('cut', 'scaler = "minmax"', 'max_length = 2', 'is numeric, but has a sep'),
    (
      'binned',
      'separator = "|"',
      'discretize = "log_square"',
      'kind "numeric"',
    ),
    ('separator', 'separator = "|"', 'separator = ""', 'empty separator'),
    ('delimiter', '";"', '""', "delimiter is ''; expected some text"),
    ('newline', '";"', '"\\n"', 'delimiter is .*; expected some text'),
    ('comment', 'label =', 'comment = ""\nlabel =', 'comment is empty'),
    (
      'letter',
      'label =',
      'encoding = "ascii"\ncomment = "§"\nlabel =',
      "'§' is no text in ascii",
    ),
    ('codec', 'label =', 'encoding = "utf9"\nlabel =', "'utf9'; expected one"),
    ('bytes', 'label =', 'encoding = "utf-16"\nlabel =', 'Convert the file'),
    ('name', 'label =', 'name = "../x"\nlabel =', 'named .*expected a name'),
    ('rows', 'label =', 'rows = "x"\nlabel =', r'expected \[rows\]'),
    ('list', '"NA"]', '["NA"]]', 'missing is .*expected a list of texts'),
    ('where', '"minmax"', '"minimax"', r'mine.toml, \[\[columns\]\]: Scaler'),
  )
  def test_mistakes_are_named(self, old, new, message):
    self.assertIn(old, _GOOD)
    with self.assertRaisesRegex(errors.DataError, message):
      self._load(_GOOD.replace(old, new, 1))

  def test_one_column_table_where_several_are_meant(self):
    text = 'files.all = "last.csv"\n[columns]\nname = "age"\n'
    with self.assertRaisesRegex(errors.DataError, 'in double brackets'):
      self._load(text)
    text = 'files.all = "last.csv"\ncolumns = ["age"]\n'
    with self.assertRaisesRegex(errors.DataError, 'expected a table'):
      self._load(text)

  def test_names_with_brackets_are_names_before_they_are_patterns(self):
    self.root /= 'a [1]'
    self.root.mkdir()
    for name in ('x[1].csv', 'x1.csv', 'x2.csv'):
      (self.root / name).touch()
    columns = '\n[[columns]]\nname = "age"\n'
    for pattern, names in [
      ('x[1].csv', ['x[1].csv']),
      ('x[12].csv', ['x1.csv', 'x2.csv']),
    ]:
      source = self._load(f'files.all = "{pattern}"{columns}')
      found = [pathlib.Path(path).name for path in source.files['all']]
      self.assertEqual(found, names)

  @parameterized.parameters(
    ({'min_count': 'two'}, "min_count is 'two'; expected int"),
    ({'min_count': True}, 'min_count is True; expected int'),
    ({'split': 'time'}, "split is 'time'; expected a SplitRule"),
    ({'label_threshold': 'x'}, "label_threshold is 'x'; expected float"),
  )
  def test_types_are_checked_without_a_schema_file_too(self, options, message):
    with self.assertRaisesRegex(errors.DataError, message):
      source_lib.Source(
        'x', {'all': ('x',)}, (source_lib.Column('a'),), **options
      )

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
