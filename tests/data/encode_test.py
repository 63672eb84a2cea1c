from absl.testing import absltest, parameterized
import numpy as np
import pandas as pd
import pyarrow as pa

from jax_autorec import errors
from jax_autorec.data import encode, memory
from jax_autorec.data import source as source_lib
from jax_autorec.data import vocabulary as vocabulary_lib

Column = source_lib.Column


def _values():
  rng = np.random.default_rng(0)
  values = rng.lognormal(1, 2, 4000) - 2
  values[::17] = np.nan
  return values


def _log(x):
  return np.sign(x) * np.log1p(np.abs(x))


class NumericTest(parameterized.TestCase):
  @parameterized.named_parameters(
    ('none', lambda x, live: x),
    ('standard', lambda x, live: (x - live.mean()) / live.std()),
    ('minmax', lambda x, live: (x - live.min()) / (live.max() - live.min())),
    ('max', lambda x, live: x / np.abs(live).max()),
    ('log', lambda x, live: (_log(x) - _log(live).mean()) / _log(live).std()),
  )
  def test_scalers(self, oracle):
    values = _values()
    live = values[~np.isnan(values)]
    name = self.id().split('test_scalers_')[1]
    fitted = encode.fit_numeric(Column('x', 'numeric', scaler=name), values)
    new = np.array([np.nan, -1.5, 0.3, 7.0, live.max() * 2])
    np.testing.assert_allclose(
      fitted.scaled(new), oracle(new, live), rtol=1e-6, atol=1e-7
    )

  def test_quantile_scaler_gives_the_share_of_train_values_below(self):
    values = _values()
    fitted = encode.fit_numeric(
      Column('x', 'numeric', scaler='quantile'), values
    )
    new = np.array([-3.0, 0.0, 1.0, 20.0, 1e9])
    shares = [(values < x).sum() / (~np.isnan(values)).sum() for x in new]
    np.testing.assert_allclose(fitted.scaled(new), shares, atol=2e-3)

  def test_equal_width_bins(self):
    values = _values()
    spec = Column('x', 'numeric', discretize='equal_width', bins=7)
    fitted = encode.fit_numeric(spec, values)
    low, high = np.nanmin(values), np.nanmax(values)
    new = np.r_[np.random.default_rng(1).uniform(low, high, 200), low - 9]
    expected = np.clip(np.floor((new - low) / (high - low) * 7), 0, 6)
    np.testing.assert_array_equal(fitted.bins(new), expected)
    self.assertEqual(fitted.bins(np.array([high + 9]))[0], 6)

  def test_equal_frequency_bins_hold_equally_many(self):
    values = _values()
    spec = Column('x', 'numeric', discretize='equal_frequency', bins=8)
    bins = encode.fit_numeric(spec, values).bins(values)
    live = bins[~np.isnan(values)]
    self.assertSetEqual(set(live.tolist()), set(range(8)))
    np.testing.assert_allclose(np.bincount(live) / len(live), 1 / 8, atol=1e-3)
    # An edge is in the bin above it.
    fitted = encode.fit_numeric(spec, values)
    np.testing.assert_array_equal(
      fitted.bins(np.array(fitted.edges)), np.arange(1, 8)
    )
    # In order: a higher value is in no lower bin.
    order = np.argsort(values[~np.isnan(values)])
    self.assertTrue((np.diff(live[order]) >= 0).all())

  def test_log_square_bins_as_fuxictr_has_them(self):
    fitted = encode.NumericMap('log_square')
    values = [-3.0, -1.0, 0.0, 1.0, 2.0, 3.0, 8.0, 1000.0, np.nan, -1e300]
    # floor(ln(x)^2) above 2, else the whole number.
    expected = [-3, -1, 0, 1, 2, 1, 4, 47, encode.MISSING_BIN, -(2**62)]
    np.testing.assert_array_equal(fitted.bins(np.array(values)), expected)

  @parameterized.parameters(*source_lib.SCALERS)
  def test_constant_and_absent_numbers_stay_finite(self, scaler):
    spec = Column('x', 'numeric', scaler=scaler)
    for sample in (np.full(5, 3.0), np.full(5, np.nan)):
      scaled = encode.fit_numeric(spec, sample).scaled(np.array([3.0, 4.0]))
      self.assertTrue(np.isfinite(scaled).all())


class SplitCellsTest(parameterized.TestCase):
  @parameterized.parameters(True, False)
  def test_first_values_of_texts_or_lists(self, is_text):
    cells = [['a', 'b', 'c'], ['a'], None, ['d', 'e']]
    spec = Column('x', separator='|', max_length=2)
    if is_text:
      cells = [None if c is None else '|'.join(c) for c in cells]
    else:
      spec = Column('x', max_length=2)
    flat, places = encode.split_cells(pa.chunked_array([pa.array(cells)]), spec)
    named = [
      [flat[int(p)].as_py() if p >= 0 else int(p) for p in row]
      for row in places
    ]
    pad, missing = vocabulary_lib.PAD, vocabulary_lib.MISSING
    self.assertEqual(
      named, [['a', 'b'], ['a', pad], [missing, pad], ['d', 'e']]
    )


class ServingTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    rng = np.random.default_rng(0)
    count = 600
    self.rows = pd.DataFrame(
      {
        'label': rng.integers(0, 2, count),
        'city': rng.choice(['Rome', 'Oslo', 'Bern', None], count),
        'tags': rng.choice(['a|b', 'b', 'c|a', ''], count),
        'user': rng.integers(2**60, 2**60 + 9, count),
        'price': np.where(
          rng.random(count) < 0.2, np.nan, rng.lognormal(size=count)
        ),
        'clicks': rng.integers(-3, 50, count).astype(float),
      }
    )
    self.columns = (
      Column('price', 'numeric', scaler='standard'),
      Column('clicks', 'numeric', discretize='log_square'),
      Column('city'),
      Column('tags', separator='|', max_length=2),
      Column('user', min_count=3),
    )
    self.directory = self.create_tempdir().full_path + '/store'
    self.data = memory.from_arrays(
      self.rows, columns=self.columns, directory=self.directory
    )

  def _encoder(self):
    from jax_autorec import data as data_lib

    return data_lib.read_encoder(self.data.directory)

  def test_rows_are_encoded_as_those_of_the_store(self):
    ids, numeric, missing = self._encoder().encode(
      self.rows.drop(columns='label')
    )
    parts = [self.data.train, self.data.valid, self.data.test]
    for got, name in ((ids, 'ids'), (numeric, 'numeric'), (missing, 'missing')):
      stored = np.concatenate([getattr(part, name) for part in parts])
      # The store has the rows split by split: compare as sorted rows.
      key = lambda a, b: np.lexsort(np.hstack([a, b]).T)
      all_ids = np.concatenate([part.ids for part in parts])
      all_numbers = np.concatenate([part.numeric for part in parts])
      np.testing.assert_array_equal(
        got[key(ids, numeric)], stored[key(all_ids, all_numbers)]
      )

  def test_unknown_and_missing_values_have_ids_of_their_own(self):
    ids, numeric, missing = self._encoder().encode(
      {
        'price': [None, 2.5],
        'clicks': [np.nan, 1e9],
        'city': ['Atlantis', None],
        'tags': ['a|never', ''],
        'user': [1, 2**60],
      }
    )
    names = [f.name for f in self.data.schema.categorical]
    self.assertEqual(names, ['clicks', 'city', 'tags', 'user'])
    np.testing.assert_array_equal(ids[:, 0], [0, 1])  # clicks
    np.testing.assert_array_equal(ids[:, 1], [1, 0])  # city
    self.assertGreater(ids[0, 2], 1)  # first tag
    np.testing.assert_array_equal(ids[:, 3], [1, -1])  # second tag
    self.assertEqual(ids[1, 2], 0)
    self.assertEqual(ids[0, 4], 1)
    np.testing.assert_array_equal(missing[:, 0], [True, False])
    self.assertEqual(numeric[0, 0], 0)

  @parameterized.parameters(
    (lambda r: r.drop(columns='city'), "no column 'city'"),
    (
      lambda r: r.astype({'price': str}).assign(price='dear'),
      "row 0: column 'price' is no number",
    ),
    (
      lambda r: r.assign(price=np.inf),
      "row 0: column 'price' is inf; expected a finite number",
    ),
  )
  def test_rows_that_cannot_be_encoded(self, change, message):
    with self.assertRaisesRegex(errors.DataError, message):
      self._encoder().encode(change(self.rows))


if __name__ == '__main__':
  absltest.main()
