import gzip
import os
import re
import tempfile
from unittest import mock

from absl.testing import absltest, parameterized
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jax_autorec import errors
from jax_autorec.data import arrays, arrow, readers
from jax_autorec.data import source as source_lib

Column = source_lib.Column

_CSV = """label,age,city,plan
1,31,Rome,a
0,,"Paris, FR",b
0,2.5,,a
1,-7,Oslo,c
"""


def _source(columns=None, **kwargs):
  columns = columns or (Column('age', 'numeric'), Column('city'))
  kwargs.setdefault('files', {'all': ('x',)})
  return source_lib.Source('mine', columns=tuple(columns), **kwargs)


class _ReadersTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    scratch = tempfile.TemporaryDirectory()
    self.addCleanup(scratch.cleanup)
    self.directory = scratch.name

  def _write(self, text, name='x.csv'):
    data = text if isinstance(text, bytes) else text.encode()
    if name.endswith('.gz'):
      data = gzip.compress(data)
    if name.endswith('.zst'):
      data = pa.compress(data, 'zstd', asbytes=True)
    path = os.path.join(self.directory, name)
    with open(path, 'wb') as file:
      file.write(data)
    return path

  def _read(self, source, text, name='x.csv', block_bytes=2**20):
    """Rows as dicts, bad rows, and how many blocks there were."""
    path = text
    if not os.path.isfile(path):
      path = self._write(text, name)
    blocks = list(readers.read(source, path, block_bytes=block_bytes))
    rows = [row for block in blocks for row in block.table.to_pylist()]
    return rows, [bad for block in blocks for bad in block.bad], len(blocks)


class GoodInputTest(_ReadersTest):
  _EXPECTED = (
    {'label': 1.0, 'age': 31.0, 'city': 'Rome'},
    {'label': 0.0, 'age': None, 'city': 'Paris, FR'},
    {'label': 0.0, 'age': 2.5, 'city': None},
    {'label': 1.0, 'age': -7.0, 'city': 'Oslo'},
  )

  @parameterized.product(
    name=['x.csv', 'x.csv.gz', 'x.csv.zst'], block_bytes=[5, 25, 40, 2**20]
  )
  def test_delimited_by_blocks_of_any_size(self, name, block_bytes):
    rows, bad, blocks = self._read(_source(), _CSV, name, block_bytes)
    self.assertEqual(rows, list(self._EXPECTED))
    self.assertEmpty(bad)
    self.assertEqual(blocks > 1, block_bytes < 2**20)

  def test_without_final_newline_with_crlf_and_blank_lines(self):
    text = _CSV.replace('\n', '\r\n').replace('Rome,a\r\n', 'Rome,a\r\n\r\n')
    rows, bad, _ = self._read(_source(), text.rstrip())
    self.assertEqual(rows, list(self._EXPECTED))
    self.assertEmpty(bad)

  def test_crlf_after_a_long_first_line_and_a_byte_order_mark(self):
    lines = [f'1,,{"x" * 2000},', *_CSV.splitlines()[1:], '1,NA,a,b']
    text = '\r\n'.join([_CSV.splitlines()[0], *lines]) + '\r\n'
    columns = [Column('age', 'numeric'), Column('plan')]
    source = _source(columns, missing=('', 'NA'))
    rows, bad, _ = self._read(source, b'\xef\xbb\xbf' + text.encode())
    self.assertEmpty(bad)
    plans = [None, 'a', 'b', 'a', 'c', 'b']
    self.assertEqual([row['plan'] for row in rows], plans)
    # Without a header the mark stands before the first label.
    source = _source(columns, header=('label', 'age', 'city', 'plan'))
    text = '1,2,a,b\n1,2\n'
    rows, bad, _ = self._read(source, b'\xef\xbb\xbf' + text.encode())
    self.assertEqual(rows, [{'label': 1.0, 'age': 2.0, 'plan': 'b'}])
    self.assertEqual([b.line for b in bad], [2])

  @parameterized.parameters('x.csv', 'x.tsv')
  def test_long_cells_beside_a_bad_line(self, name):
    cell = 'x' * 200_000
    text = f'{_CSV}1,2,"{cell}, {cell}",b\n1,2\n0,3,{cell},b\n'
    rows, bad, _ = self._read(_source(), text, name)
    cities = [row['city'] for row in rows[4:]]
    self.assertEqual(cities, [f'{cell}, {cell}', cell])
    self.assertEqual([b.line for b in bad], [7])

  def test_lines_of_comments_are_no_rows(self):
    text = '|1x3 Cross validator\n1,5,Rome,a\n|0,5,Oslo,b\n0,6,Bern,c\n'
    names = ('label', 'age', 'city', 'plan')
    rows, bad, _ = self._read(_source(header=names, comment='|'), text)
    self.assertEqual([row['city'] for row in rows], ['Rome', 'Bern'])
    self.assertEmpty(bad)

  def test_comments_before_the_header(self):
    text = '# made by hand\n\n#again\nlabel,age,city,plan\n1,x,Rome,a\n'
    rows, bad, _ = self._read(_source(comment='#'), text + '0,6,Bern,c\n')
    self.assertEqual([row['city'] for row in rows], ['Bern'])
    self.assertEqual([b.line for b in bad], [5])

  def test_comments_are_in_the_encoding_of_the_file(self):
    source = _source(comment='§', encoding='latin-1')
    text = 'label,age,city,plan\n§ x\n1,5,Köln,a\n'.encode('latin-1')
    rows, bad, _ = self._read(source, text)
    self.assertEqual([row['city'] for row in rows], ['Köln'])
    self.assertEmpty(bad)

  @parameterized.parameters('::', '§')
  def test_delimiters_of_several_bytes_within_quotes(self, by):
    lines = ['label,age,city,plan', f'1,5,"a{by}b",x', '0,6,"say ""hi""",y"z']
    text = '\n'.join(lines).replace(',', by) + '\n'
    columns = [Column('city'), Column('plan')]
    source = _source(columns, delimiter=by)
    rows, bad, _ = self._read(source, text)
    self.assertEqual([r['city'] for r in rows], [f'a{by}b', 'say "hi"'])
    self.assertEqual([r['plan'] for r in rows], ['x', 'y"z'])
    self.assertEmpty(bad)
    # Beside a bad line too.
    rows, bad, _ = self._read(source, text + f'1{by}2\n')
    self.assertEqual([r['city'] for r in rows], [f'a{by}b', 'say "hi"'])
    self.assertEqual([b.line for b in bad], [4])

  @parameterized.product(
    delimiter=['\t', '::', ';', '§'], has_header=[True, False]
  )
  def test_delimiters_and_tokens_for_missing(self, delimiter, has_header):
    names = ['label', 'age', 'city']
    source = _source(
      header=None if has_header else tuple(names),
      delimiter=delimiter,
      quoted=False,
      missing=('', 'NA'),
    )
    lines = [['1', 'NA', 'x'], ['0', '5', 'NA'], ['0', '1e2', '"q']]
    lines = [names, *lines] if has_header else lines
    text = ''.join(delimiter.join(line) + '\n' for line in lines)
    rows, bad, _ = self._read(source, text)
    self.assertEqual([r['age'] for r in rows], [None, 5.0, 100.0])
    self.assertEqual([r['city'] for r in rows], ['x', None, '"q'])
    self.assertEmpty(bad)

  def test_blanks_are_stripped_before_cells_are_read(self):
    source = _source(strip=True, missing=('', '?'))
    text = 'label, age, city\n1, 4 , Rome\n0, ?, ?\n'
    rows, bad, _ = self._read(source, text)
    self.assertEqual([r['age'] for r in rows], [4.0, None])
    self.assertEqual([r['city'] for r in rows], ['Rome', None])
    self.assertEmpty(bad)

  @parameterized.parameters(
    ('libsvm', '1 3:1 40:1\n0 2147483647:1 0:1 \n'),
    ('libffm', '1 0:3:1 1:40:1\n0 0:2147483647:1 1:0:1\n'),
  )
  def test_sparse_formats(self, kind, text):
    source = _source((Column('user'), Column('item')), format=kind)
    rows, bad, _ = self._read(source, text)
    self.assertEqual([r['user'] for r in rows], [3, 2147483647])
    self.assertEqual([r['item'] for r in rows], [40, 0])
    self.assertEqual([r['label'] for r in rows], [1.0, 0.0])
    self.assertEmpty(bad)

  def test_defaults_stand_in_for_empty_cells(self):
    columns = (Column('age', 'numeric', default=9), Column('city', default='x'))
    rows, _, _ = self._read(_source(columns), _CSV)
    self.assertEqual([r['age'] for r in rows], [31.0, 9.0, 2.5, -7.0])
    self.assertEqual([r['city'] for r in rows][2], 'x')

  def test_parquet_types(self):
    path = os.path.join(self.directory, 'x.parquet')
    big = 2**62 + 1  # A float would lose the 1.
    table = pa.table(
      {
        'label': pa.array([True, False, True]),
        'age': pa.array(['3', 'NA', '-4.5']),
        'user': pa.array([big, None, -3]),
        'city': pa.array(['a', 'NA', 'b']).dictionary_encode(),
        'shops': pa.array([['u', 'v'], [], None]),
        'code': pa.array([1.0, np.nan, 2.0]),
        'unused': pa.array([1, 2, 3]),
      }
    )
    pq.write_table(table, path)
    columns = [
      Column('age', 'numeric'),
      Column('user'),
      Column('city'),
      Column('shops', max_length=2),
      Column('code'),
    ]
    source = _source(columns, format='parquet', missing=('', 'NA'))
    rows, bad, _ = self._read(source, path)
    self.assertEmpty(bad)
    self.assertEqual([r['age'] for r in rows], [3.0, None, -4.5])
    self.assertEqual([r['user'] for r in rows], [big, None, -3])
    self.assertEqual([r['city'] for r in rows], ['a', None, 'b'])
    self.assertEqual([r['shops'] for r in rows], [['u', 'v'], [], None])
    self.assertEqual([r['code'] for r in rows], ['1', None, '2'])
    self.assertNotIn('unused', rows[0])


class BadInputTest(_ReadersTest):
  @parameterized.named_parameters(
    ('too_few_columns', '1,2', '2 columns; expected 4'),
    ('too_many_columns', '1,2,a,b,c', '5 columns; expected 4'),
    ('no_number', '1,x7,a,b', "column 'age' is 'x7'; expected a number"),
    ('infinite', '1,inf,a,b', "column 'age' is inf; expected a finite number"),
    ('label_2', '2,3,a,b', "column 'label' is 2.0; expected a label, 0 or 1"),
    ('label_nan', 'nan,3,a,b', "column 'label' is nan; expected a label"),
    ('label_empty', ',3,a,b', "column 'label' is empty; expected a label"),
    ('numeral', '1,１２,a,b', "column 'age' is '１２'; expected a number"),
    (
      'too_large',
      '1,1e39,a,b',
      "column 'age' is 1e.39; expected a number with",
    ),
    ('open_quote', '1,3,a,"b', 'a quote that is not closed'),
    ('return', '1,3,a\rx,b', 'a carriage return'),
    ('label_text', 'yes,3,a,b', "column 'label' is 'yes'; expected a label"),
    ('no_text', b'1,3,\xff\xfe,b', 'not utf-8 text'),
  )
  def test_a_bad_line_is_named_and_no_other_is_lost(self, line, reason):
    raw = line if isinstance(line, bytes) else line.encode()
    good = _CSV.encode()
    header, first, rest = good.split(b'\n', 2)
    text = b'\n'.join([header, first, raw, rest])
    for block_bytes in (30, 60, 2**20):
      path = self._write(text)
      rows, bad, _ = self._read(_source(), path, block_bytes=block_bytes)
      self.assertLen(rows, 4)
      self.assertLen(bad, 1)
      self.assertEqual((bad[0].path, bad[0].line), (path, 3))
      self.assertStartsWith(str(bad[0]), f'{path}, line 3: ')
      self.assertRegex(str(bad[0]), reason)
      self.assertEqual(bad[0].text, raw.decode('utf-8', 'replace'))

  @parameterized.parameters(
    ('1 3:1 2147483648:1', "column 'item' is 2147483648; expected an id from"),
    ('1 3:1 -1:1', "column 'item' is -1; expected an id from 0"),
    ('1 3:1 99999999999999999999:1', "'99999999999999999999'; expected an int"),
    ('1 3:1 ²:1', "column 'item' is '²'; expected an integer"),
    ('1 3:1 --4:1', "column 'item' is '--4'; expected an integer"),
    ('1 3:1 4.5:1', "column 'item' is '4.5'; expected an integer"),
    ('1 3:1 4:0.5', "the value of 'item' is '0.5'; expected 1"),
    ('1 3:1', '3 columns; expected 5'),
  )
  def test_bad_ids(self, line, reason):
    source = _source((Column('user'), Column('item')), format='libsvm')
    text = f'1 1:1 2:1\n{line}\n0 5:1 6:1\n'
    rows, bad, _ = self._read(source, text)
    self.assertEqual([r['user'] for r in rows], [1, 5])
    self.assertLen(bad, 1)
    self.assertEqual(bad[0].line, 2)
    self.assertIn(reason, bad[0].reason)

  def test_bad_rows_of_parquet_and_of_arrays(self):
    columns = {
      'label': [1, 0, 1, 1],
      'age': ['1', 'old', '3', '4'],
      'city': ['a', 'b', 'c', 'd'],
      'weight': [1.0, 1.0, 1.0, 0.0],
    }
    source = _source(format='parquet', weight='weight')
    path = os.path.join(self.directory, 'x.parquet')
    pq.write_table(pa.table(columns), path)
    rows, bad, _ = self._read(source, path)
    self.assertEqual([r['age'] for r in rows], [1.0, 3.0])
    self.assertEqual([b.line for b in bad], [2, 4])
    self.assertIn("row 2: column 'age' is no number", str(bad[0]))
    self.assertIn('old', bad[0].text)
    self.assertIn("column 'weight' is 0.0; expected a weight", bad[1].reason)
    table, bad = arrays.from_arrays(source, columns)
    self.assertEqual(table['age'].to_pylist(), [1.0, 3.0])
    self.assertEqual([b.line for b in bad], [1, 3])

  def test_rows_that_an_open_quote_would_swallow_are_all_there(self):
    """Also where the number of rows comes out right, for another reason."""
    for lines, cities, bad_lines in [
      (['1,a', '0,"b', '1,c', '0,d', '1,e'], ['a', 'c', 'd', 'e'], [3]),
      (['1,a', '0,"b', '1,c"', '0,d'], ['a', 'c"', 'd'], [3]),
      (['1,a', '0,"b', 'c"', '0,x\r1,y', '1,d'], ['a', 'd'], [3, 4, 5]),
      (['1,a', '0,"b', '1,2,3', '1,c', '0,"d"'], ['a', 'c', 'd'], [3, 4]),
    ]:
      text = '\n'.join(['label,city', *lines]) + '\n'
      rows, bad, _ = self._read(_source([Column('city')]), text)
      self.assertEqual([row['city'] for row in rows], cities)
      self.assertEqual([b.line for b in bad], bad_lines)

  def test_what_only_arrow_refuses_is_one_bad_line(self):
    lines = [f'1,{i},a,b' for i in range(9)]
    text = '\n'.join(['label,age,city,plan', *lines, '1,2,a\x1fb,c']) + '\n'
    with mock.patch.object(arrow, 'is_number', lambda cell: True):
      rows, bad, _ = self._read(_source(), text.replace(',4,', ',four,'))
    self.assertEqual([row['age'] for row in rows[:5]], [0, 1, 2, 3, 5])
    self.assertEqual([b.line for b in bad], [6])
    self.assertIn('four', bad[0].reason)

  @parameterized.parameters('.gz', '.zst')
  def test_truncated_files(self, suffix):
    rng = np.random.default_rng(0)
    lines = '\n'.join(f'1,{x},a,b' for x in rng.integers(0, 10**9, 20_000))
    path = self._write(f'label,age,city,plan\n{lines}\n', f'x.csv{suffix}')
    with open(path, 'rb+') as file:
      file.truncate(os.path.getsize(path) * 2 // 3)
    with self.assertRaisesRegex(
      errors.DataError,
      rf'x\.csv\{suffix} is damaged or cut off after about line',
    ) as caught:
      list(readers.read(_source(), path))
    line = int(re.search(r'after about line (\d+)', str(caught.exception))[1])
    self.assertBetween(line, 20_000 * 0.4, 20_000 * 0.7)

  def test_files_that_are_none(self):
    source = _source()
    with self.assertRaisesRegex(errors.DataError, 'x.csv is empty'):
      self._read(source, self._write(''))
    for text in ('label,age,city,plan\n', 'label,age,city,plan'):
      with self.assertRaisesRegex(errors.DataError, 'x.csv has no rows'):
        self._read(source, self._write(text))
    for text, message in [
      ('étiquette,age\n'.encode('latin-1'), 'line 1: not utf-8 text'),
      (_CSV.encode('utf-16'), 'line 1: not utf-8 text'),
      (_CSV.replace('\n', '\r'), 'line 1: a carriage return'),
      (f'"{_CSV}', 'line 1: a quote that is not closed'),
    ]:
      with self.assertRaisesRegex(errors.DataError, message):
        self._read(source, self._write(text))
    with self.assertRaisesRegex(errors.DataError, 'gone.csv does not exist'):
      list(readers.read(source, os.path.join(self.directory, 'gone.csv')))
    parquet = _source(format='parquet')
    with self.assertRaisesRegex(errors.DataError, 'is not Parquet'):
      list(readers.read(parquet, self._write(_CSV)))
    with self.assertRaisesRegex(
      errors.DataError, "no column 'city'; .*town.*Did you mean"
    ):
      self._read(source, 'label,age,citi,town\n1,2,a,b\n')
    with self.assertRaisesRegex(errors.DataError, "several columns 'age'"):
      self._read(source, 'label,age,city,age\n1,2,a,b\n')

  def test_a_damaged_parquet_file_is_named(self):
    path = os.path.join(self.directory, 'x.parquet')
    ids = np.random.default_rng(0).integers(0, 10**9, 200_000)
    pq.write_table(pa.table({'label': ids % 2, 'city': ids}), path)
    with open(path, 'rb+') as file:
      file.seek(os.path.getsize(path) // 3)
      file.write(bytes(500))
    source = _source([Column('city')], format='parquet')
    with self.assertRaisesRegex(errors.DataError, 'is damaged after row'):
      list(readers.read(source, path))


if __name__ == '__main__':
  absltest.main()
