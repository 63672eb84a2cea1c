from absl.testing import absltest, parameterized
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pyarrow as pa

from jax_autorec import errors
from jax_autorec.data import arrays
from jax_autorec.data import source as source_lib

Column = source_lib.Column


def _source(columns=None, **kwargs):
  columns = columns or (Column('age', 'numeric'), Column('city'))
  files = {'all': ('x',)}
  return source_lib.Source('mine', files, tuple(columns), **kwargs)


class GoodInputTest(parameterized.TestCase):
  @parameterized.parameters('dict', 'pandas', 'arrow', 'stream')
  def test_tables_in_memory(self, kind):
    values = {
      'label': np.array([1, 0, 1]),
      'age': np.array([1.5, np.nan, 3.0]),
      'city': np.array(['Rome', None, ''], object),
    }
    rows = {
      'dict': lambda: values,
      'pandas': lambda: pd.DataFrame(values),
      'arrow': lambda: pa.table(values),
      'stream': lambda: pa.RecordBatchReader.from_batches(
        (t := pa.table(values)).schema, t.to_batches()
      ),
    }[kind]()
    table, bad = arrays.from_arrays(_source(), rows)
    self.assertEmpty(bad)
    self.assertEqual(table['age'].to_pylist(), [1.5, None, 3.0])
    self.assertEqual(table['city'].to_pylist(), ['Rome', None, None])
    self.assertEqual(table['label'].to_pylist(), [1.0, 0.0, 1.0])

  def test_defaults_of_numbers_and_lists(self):
    columns = [Column('code', default='none')]
    columns.append(Column('tags', max_length=2, default='none'))
    rows = {'label': [1, 0], 'code': pa.array([7, None])}
    rows['tags'] = pa.array([None, ['a', 'b']])
    table, bad = arrays.from_arrays(_source(columns), rows)
    self.assertEmpty(bad)
    self.assertEqual(table['code'].to_pylist(), ['7', 'none'])
    self.assertEqual(table['tags'].to_pylist(), [['none'], ['a', 'b']])

  def test_jax_arrays_lists_of_one_length_and_numbers_in_texts(self):
    columns = [Column('age', 'numeric'), Column('tags', max_length=2)]
    rows = {
      'label': jnp.array([1, 0, 1]),
      'age': [' 5 ', '+7', '.5'],
      'tags': pa.array([[1, 2]] * 3, pa.list_(pa.int32(), 2)),
    }
    table, bad = arrays.from_arrays(_source(columns), rows)
    self.assertEmpty(bad)
    self.assertEqual(table['label'].to_pylist(), [1, 0, 1])
    self.assertEqual(table['age'].to_pylist(), [5, 7, 0.5])
    self.assertEqual(table['tags'].to_pylist(), [[1, 2]] * 3)

  def test_types_that_dataframes_export(self):
    """Views, dictionaries, moments, as polars and pandas have them."""
    cities = pa.array(['Rome', '', 'Oslo'], pa.string_view())
    codes = pa.array([0, None, 1], pa.uint32())
    moments = np.array(['2024-01-01', '2024-01-02', 'NaT'], 'datetime64[ns]')
    columns = {
      'label': pa.array([1, 0, 1], pa.int8()),
      'city': cities,
      'shop': pa.DictionaryArray.from_arrays(codes, cities.slice(1, 2)),
      'age': pa.DictionaryArray.from_arrays(codes, pa.array([30, 40])),
      'when': pa.array(moments, from_pandas=True),
    }
    names = [Column('city'), Column('shop'), Column('age', 'numeric')]
    names.append(Column('when', 'numeric'))
    table, bad = arrays.from_arrays(_source(names), pa.table(columns))
    self.assertEmpty(bad)
    self.assertEqual(table['city'].to_pylist(), ['Rome', None, 'Oslo'])
    self.assertEqual(table['shop'].to_pylist(), [None, None, 'Oslo'])
    self.assertEqual(table['age'].to_pylist(), [30.0, None, 40.0])
    day = 1704067200.0
    self.assertEqual(table['when'].to_pylist(), [day, day + 86400, None])


class BadInputTest(parameterized.TestCase):
  @parameterized.parameters(
    ([{'a': 1}, None], "column 'city' is struct"),
    ([b'\xff', b'a'], "column 'city' is binary"),
  )
  def test_columns_that_hold_no_values_are_named(self, values, message):
    rows = {'label': [1, 0], 'city': values}
    with self.assertRaisesRegex(errors.DataError, message):
      arrays.from_arrays(_source([Column('city')]), rows)

  def test_ids_of_libsvm_are_integers(self):
    columns = [Column('item')]
    source = _source(columns, format='libsvm')
    rows = {'label': [1, 0], 'item': ['7', '12']}
    table, _ = arrays.from_arrays(source, rows)
    self.assertEqual(table['item'].to_pylist(), [7, 12])
    rows['item'] = ['7', 'a']
    with self.assertRaisesRegex(errors.DataError, "column 'item' is .*'a'"):
      arrays.from_arrays(source, rows)

  def test_lists_where_single_values_are_meant(self):
    rows = {'label': [1, 0], 'city': ['a', 'b'], 'group': [['a'], ['b']]}
    source = _source([Column('city')], group='group')
    with self.assertRaisesRegex(errors.DataError, "column 'group' holds lists"):
      arrays.from_arrays(source, rows)

  def test_arrays_of_unequal_length_and_absent_columns(self):
    with self.assertRaisesRegex(errors.DataError, 'one length'):
      arrays.from_arrays(
        _source(), {'label': [1], 'age': [1.0, 2.0], 'city': ['a']}
      )
    with self.assertRaisesRegex(errors.DataError, "no column 'city'"):
      arrays.from_arrays(_source(), {'label': [1], 'age': [1.0]})
    with self.assertRaisesRegex(errors.DataError, 'expected a dict of arrays'):
      arrays.from_arrays(_source(), [1, 2, 3])
    with self.assertRaisesRegex(errors.DataError, 'expected a dict of arrays'):
      twice = pd.DataFrame([[1, 2, 'a', 'b']], columns=['label', 'age'] * 2)
      arrays.from_arrays(_source(), twice)


if __name__ == '__main__':
  absltest.main()
