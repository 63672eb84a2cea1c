"""Columns that named data sets derive from those in their files."""

from collections.abc import Callable
import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from jax_autorec import errors
from jax_autorec.data import source as source_lib
from jax_autorec.data import text as text_lib


def make(source: source_lib.Source) -> Callable[[pa.Table], pa.Table]:
  """The function that a source names in `derive`.

  Raises:
    DataError: for an unknown name.
  """
  if source.derive not in _TRANSFORMS:
    raise errors.DataError(
      f'{source.name} derives columns by {source.derive!r}; known are: '
      f'{", ".join(_TRANSFORMS)}.'
      + source_lib.nearest(source.derive, _TRANSFORMS)
    )
  return _TRANSFORMS[source.derive](source)


def _avazu(source):
  """`hour` (YYMMDDHH) split into hour, weekday and weekend, plus a time."""
  del source

  def derive(table: pa.Table) -> pa.Table:
    if 'hour' not in table.column_names:
      return table  # Whoever asks for what is derived of it says so.
    encoded = table['hour'].combine_chunks().dictionary_encode()
    rows = {'hour': [], 'weekday': [], 'is_weekend': [], 'time': []}
    for text in encoded.dictionary.to_pylist():
      try:
        moment = datetime.datetime.strptime(text, '%y%m%d%H')
      except ValueError:
        moment = None
      weekday = None if moment is None else moment.weekday()
      rows['hour'].append(None if moment is None else f'{moment.hour:02d}')
      rows['weekday'].append(None if moment is None else str(weekday))
      rows['is_weekend'].append(
        None if moment is None else str(int(weekday >= 5))
      )
      seconds = None
      if moment is not None:
        moment = moment.replace(tzinfo=datetime.UTC)
        seconds = moment.timestamp()
      rows['time'].append(seconds)
    for name, values in rows.items():
      kind = pa.float64() if name == 'time' else pa.string()
      column = pa.array(values, kind).take(encoded.indices)
      if name in table.column_names:
        place = table.column_names.index(name)
        table = table.set_column(place, name, column)
      else:
        table = table.append_column(name, column)
    return table

  return derive


def _side_table(path, names, delimiter):
  """A small attribute file as strings; latin-1, as GroupLens writes it.

  Files of commas are in utf-8, have a header line and quoted cells.
  """
  is_csv = path.removesuffix('.gz').removesuffix('.zst').endswith('.csv')
  data = b''.join(text_lib.blocks(path)).replace(b'\r\n', b'\n')
  if is_csv:
    data, delimiter = data.partition(b'\n')[2], ','
  else:
    data = data.decode('latin-1').encode('utf-8')
  if len(delimiter) > 1:
    data = data.replace(delimiter.encode(), b'\x1f')
    delimiter = '\x1f'
  try:
    return pa_csv.read_csv(
      pa.BufferReader(data),
      read_options=pa_csv.ReadOptions(column_names=names),
      parse_options=pa_csv.ParseOptions(
        delimiter=delimiter, quote_char='"' if is_csv else False
      ),
      convert_options=pa_csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=True
      ),
    )
  except pa.ArrowInvalid as error:
    raise errors.DataError(
      f'{path}: {error}; expected lines of {", ".join(names)}.'
    ) from error


def _join(table, key, side):
  """Appends the side table's columns by key; absent keys give nulls."""
  if key not in table.column_names:
    return table  # Whoever asks for the joined columns says so.
  places = pc.index_in(
    pc.cast(table[key], pa.string()), value_set=side['id'].combine_chunks()
  )
  for name in side.column_names:
    if name != 'id':
      column = side[name].combine_chunks().take(places.combine_chunks())
      table = table.append_column(name, column)
  return table


def _movielens_1m(source):
  """Joins users.dat and movies.dat; the year is cut from the title."""
  users = _side_table(
    source.side_files[0],
    ['id', 'gender', 'age', 'occupation', 'zip'],
    '::',
  )
  movies = _side_table(source.side_files[1], ['id', 'title', 'genres'], '::')
  years = pc.struct_field(
    pc.extract_regex(movies['title'], r'\((?P<year>\d{4})\)\s*$'), 'year'
  )
  movies = movies.drop_columns(['title']).append_column('year', years)
  return lambda table: _join(_join(table, 'user', users), 'movie', movies)


def _movielens_100k(source):
  """Joins u.user and u.item; genre flags become one multi-valued column."""
  users = _side_table(
    source.side_files[0],
    ['id', 'age', 'gender', 'occupation', 'zip'],
    '|',
  )
  flags = [f'flag_{i}' for i in range(19)]
  items = _side_table(
    source.side_files[1],
    ['id', 'title', 'released', 'video', 'url', *flags],
    '|',
  )
  grid = np.stack(
    [items[f].to_numpy(zero_copy_only=False) == '1' for f in flags], 1
  )
  genres = [
    '|'.join(str(i) for i in np.flatnonzero(row)) or None for row in grid
  ]
  years = [
    None if not text else text[-4:] for text in items['released'].to_pylist()
  ]
  items = pa.table(
    {
      'id': items['id'],
      'year': pa.array(years, pa.string()),
      'genres': pa.array(genres, pa.string()),
    }
  )
  return lambda table: _join(_join(table, 'user', users), 'movie', items)


_TRANSFORMS = {
  'avazu': _avazu,
  'movielens_1m': _movielens_1m,
  'movielens_100k': _movielens_100k,
}
