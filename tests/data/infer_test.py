import os
import pathlib
import tomllib

from absl.testing import absltest, parameterized
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from jax_autorec import data as data_lib
from jax_autorec import errors
from jax_autorec.data import infer


def _frame(count=800):
  rng = np.random.default_rng(0)
  return pd.DataFrame(
    {
      'city': rng.choice(['Rome, IT', 'Oslo', 'Bern', None], count),
      'price': np.round(rng.lognormal(size=count), 2),
      'clicked': rng.integers(0, 2, count),
      'age': rng.integers(18, 90, count),
      'user': np.arange(count) + 10**9,
      'stars': rng.integers(1, 6, count),
    }
  )


class InferTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.root = pathlib.Path(self.create_tempdir().full_path)

  def _write(self, kind):
    frame, path = _frame(), self.root / f'mine.{kind}'
    if kind == 'parquet':
      frame.to_parquet(path)
    elif kind == 'csv.zst':
      with pa.output_stream(str(path), compression='zstd') as stream:
        stream.write(frame.to_csv(index=False).encode())
    else:
      frame.to_csv(path, index=False, sep='\t' if 'tsv' in kind else ',')
    return path

  @parameterized.parameters('csv', 'tsv.gz', 'csv.zst', 'parquet')
  def test_a_first_schema_file_can_be_loaded_from(self, kind):
    path = self._write(kind)
    target = infer.write_schema_file(path)
    self.assertEqual(target, self.root / 'mine.toml')
    written = tomllib.loads(target.read_text())
    self.assertEqual(written['label'], 'clicked')
    self.assertEqual(
      {column['name']: column['kind'] for column in written['columns']},
      {
        'city': 'categorical',
        'price': 'numeric',
        'age': 'numeric',
        'user': 'categorical',  # Nearly all different: an id.
        'stars': 'categorical',  # Few.
      },
    )
    data = data_lib.load(str(target))
    self.assertEqual(data.counts['kept'], 800)
    self.assertEqual(data.schema.field('city').vocab_size, 5)
    frame = _frame()
    ids = np.concatenate([data.train.ids, data.valid.ids, data.test.ids])
    column = [f.name for f in data.schema.categorical].index('city')
    self.assertEqual((ids[:, column] == 0).sum(), frame.city.isna().sum())
    self.assertTrue((pathlib.Path(data.directory)).is_relative_to(self.root))

  def test_a_schema_file_is_not_written_over(self):
    path = self._write('csv')
    infer.write_schema_file(path)
    with self.assertRaisesRegex(errors.DataError, 'mine.toml exists already'):
      infer.write_schema_file(path)

  def test_a_directory_marked_read_only_stays_as_it_is(self):
    raw = self.root / 'raw'
    raw.mkdir()
    (raw / 'x.csv').write_text('label,a\n' + '1,x\n0,y\n' * 50)
    raw.chmod(0o555)
    self.addCleanup(raw.chmod, 0o755)
    self.addCleanup(os.chdir, os.getcwd())
    os.chdir(self.root)
    target = infer.write_schema_file(raw / 'x.csv')
    self.assertEqual([p.name for p in raw.iterdir()], ['x.csv'])
    self.assertEqual(target, infer.schema_path(raw / 'x.csv'))
    self.assertEqual(target.absolute(), self.root.absolute() / 'x.toml')
    self.assertEqual(data_lib.load(str(target)).counts['kept'], 100)

  def test_whole_numbers_that_are_named_as_ids(self):
    names = ['user', 'movieId', 'ad_id', 'zip', 'paid', 'hours']
    row = lambda i: ','.join([str(i % 2), *[str(i % 50)] * len(names)])
    lines = [','.join(['label', *names]), *map(row, range(300))]
    written, _ = self._written('\n'.join(lines) + '\n')
    kinds = [column['kind'] for column in written['columns']]
    self.assertEqual(kinds, ['categorical'] * 4 + ['numeric'] * 2)

  def test_a_file_without_header(self):
    path = self.root / 'raw.txt'
    path.write_text('\n'.join(f'{i % 2}|u{i % 7}|{i / 7}' for i in range(300)))
    written = tomllib.loads(infer.write_schema_file(path).read_text())
    self.assertEqual(written['header'], ['label', 'column_1', 'column_2'])
    self.assertEqual(written['delimiter'], '|')
    data = data_lib.load(str(self.root / 'raw.toml'))
    self.assertEqual(data.schema.field('column_1').vocab_size, 9)
    self.assertEqual(data.schema.field('column_2').kind, 'numeric')

  def _written(self, data, name='x.csv'):
    path = self.root / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    target = infer.write_schema_file(path)
    return tomllib.loads(target.read_text('utf-8')), data_lib.load(str(target))

  @parameterized.parameters(
    ('\ufefflabel,a\n', '1,x\n0,y\n', 'label', 'utf-8'),
    ('\n\nlabel\ta\n', '1\tx,z\n\n0\ty\n', 'label', 'utf-8'),
    ('label,😀 \x7f"\n', '1,x\n0,y\n', 'label', 'utf-8'),
    (',label,a\n', '7,1,x\n8,0,y\n', 'label', 'utf-8'),
    ('\tlabel\ta\n', '7\t1\tx\n8\t0\ty\n', 'label', 'utf-8'),
    ('label,a\n', '1,x\u2028z\n0,y\x0cz\n', 'label', 'utf-8'),
    ('label,aé\n', '1,x\n0,é\n', 'label', 'latin-1'),
    ('label::a\n', '1::x\n0::y\n', 'label', 'utf-8'),
  )
  def test_files_as_tools_write_them(self, head, rows, label, encoding):
    written, data = self._written((head + rows * 50).encode(encoding))
    self.assertEqual(written['label'], label)
    self.assertLen(written['columns'], 1)
    self.assertEqual(dict(data.counts)['kept'], 100)
    self.assertEqual(data.schema.fields[0].vocab_size, 4)

  def test_names_of_files_that_look_like_patterns(self):
    _, data = self._written('label,a\n' + '1,x\n0,y\n' * 50, 'x[1].csv')
    self.assertEqual(data.counts['kept'], 100)

  @parameterized.parameters(
    ([True, False],), ([1.0, 0.0],), (['yes', 'no'],), ([1, -1],)
  )
  def test_labels_of_parquet(self, labels):
    path = self.root / 'x.parquet'
    rows = {'label': labels * 50, 'tags': [['a', 'b', 'c'], None] * 50}
    pq.write_table(pa.table(rows), path)
    data = data_lib.load(str(infer.write_schema_file(path)))
    np.testing.assert_array_equal(data.train.labels, data.train.ids[:, 0] != 0)
    self.assertBetween(data.train.labels.mean(), 0.3, 0.7)
    self.assertEqual(data.schema.field('tags').max_length, 3)

  @parameterized.parameters(([b'\xff', b'a'],), ([{'b': 1}, {'b': 2}],))
  def test_columns_of_parquet_that_cannot_be_read(self, values):
    path = self.root / 'x.parquet'
    pq.write_table(pa.table({'label': [1, 0], 'a': values}), path)
    with self.assertRaisesRegex(errors.DataError, "Column 'a' is .*leave it"):
      infer.write_schema_file(path)

  def test_a_cell_of_several_lines_does_not_hide_the_delimiter(self):
    path = self.root / 'x.csv'
    path.write_text('label,a,b\n1,"x\ny",2\n' + '1,x,1\n0,y,2\n' * 50)
    written = tomllib.loads(infer.write_schema_file(path).read_text())
    self.assertEqual(written['delimiter'], ',')
    with self.assertRaisesRegex(errors.DataError, 'line 2: a quote that is'):
      data_lib.load(str(self.root / 'x.toml'))

  @parameterized.parameters(
    ('', 'is empty'),
    ('\n\n', 'has no rows'),
    ('a,b\n', 'no rows under its header'),
    ('label\n1\n0\n', "the one column 'label'"),
    ('label,a,a\n1,2,3\n', "several columns 'a'"),
    ('label,a\n1,\0\udcff\n', 'no text in utf-8'),
  )
  def test_files_without_rows(self, text, message):
    path = self.root / 'x.csv'
    path.write_text(text, 'utf-8', 'surrogateescape')
    with self.assertRaisesRegex(errors.DataError, message):
      infer.write_schema_file(path)


if __name__ == '__main__':
  absltest.main()
