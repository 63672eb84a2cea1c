"""Data sets by name: where their files lie and what is in them."""

from collections.abc import Callable
import inspect
import json
import os
import pathlib
from typing import Any

from absl import logging

from jax_autorec import errors
from jax_autorec.data import dataset as dataset_lib
from jax_autorec.data import (
  ingest,
  planted,
  planted_fields,
  planted_numeric,
  store,
)
from jax_autorec.data import progress as progress_lib
from jax_autorec.data import source as source_lib
from jax_autorec.data import text as text_lib

Column = source_lib.Column
_CACHE_VARIABLE = 'JAX_AUTOREC_CACHE'
_STORES = '.jax_autorec'  # In the data directory.


def _find(data_dir: str, folders, *names: str) -> str:
  """The first of some file names, plain or compressed, in some folders."""
  tried = []
  for folder in (*folders, '.'):
    for name in names:
      for suffix in ('', '.gz', '.zst'):
        path = os.path.join(data_dir, folder, name + suffix)
        if os.path.exists(path):
          return os.path.normpath(path)
      tried.append(os.path.join(folder, name))
  if not os.path.isdir(data_dir):
    raise errors.DataError(f'The data directory {data_dir} does not exist.')
  raise errors.DataError(
    f'None of {", ".join(tried)} (or with .gz or .zst) is in {data_dir}.'
  )


def _find_or_prepared(name: str, data_dir: str, folders, *names: str) -> str:
  """As `_find`, or the file that a store in the directory was made from.

  So what was prepared with --source=FILE is found again without it.
  """
  try:
    return _find(data_dir, folders, *names)
  except errors.DataError:
    stores = pathlib.Path(data_dir).glob(f'{_STORES}/{name}-*')
    whole = [path for path in stores if (path / 'manifest.json').exists()]
    if not whole:
      raise
    newest = max(whole, key=lambda path: path.stat().st_mtime)
    return store.read_manifest(newest)['inputs'][0]['path']


def _uncompressed(path: str) -> str:
  """A path without .gz or .zst."""
  return path.removesuffix('.gz').removesuffix('.zst')


def _first_word(path: str) -> str:
  """The first cell of a file of commas."""
  line = next(text_lib.blocks(path), b'').split(b'\n')[0]
  return line.decode('utf-8-sig', 'replace').split(',')[0]


def _categorical(names, **kwargs):
  return tuple(Column(name, **kwargs) for name in names)


def _libsvm_fields(folder: str, defaults) -> tuple[Column, ...]:
  path = os.path.join(folder, 'fields.json')
  if os.path.exists(path):
    try:
      with open(path, encoding='utf-8') as file:
        return _categorical(json.load(file))
    except (OSError, ValueError, TypeError) as error:
      raise errors.DataError(
        f'{path}: {error}; expected the fields in their order, as JSON.'
      ) from error
  return _categorical(defaults)


_FRAPPE = (
  'user item daytime weekday isweekend homework cost weather country city'
).split()


def frappe(data_dir: str, draw: int = 0) -> source_lib.Source:
  """Frappe_x1: `draw` chooses between two re-drawn train files."""
  folders = ('frappe', 'Frappe')
  train = _find(
    data_dir,
    folders,
    f'train.redrawn{draw}.libsvm',
    'train.libsvm',
    'train.libfm',
    'frappe.train.libfm',
  )
  files = {
    'train': (train,),
    'valid': (
      _find(
        data_dir,
        folders,
        'valid.libsvm',
        'valid.libfm',
        'frappe.validation.libfm',
      ),
    ),
    'test': (
      _find(
        data_dir, folders, 'test.libsvm', 'test.libfm', 'frappe.test.libfm'
      ),
    ),
  }
  positive = None
  if _uncompressed(train).endswith('frappe.train.libfm'):
    positive = ('1', '1.0')  # The other class is -1 there.
  return source_lib.Source(
    'frappe',
    files,
    _libsvm_fields(os.path.dirname(train), _FRAPPE),
    format='libsvm',
    label_positive=positive,
  )


def diabetes130(data_dir: str) -> source_lib.Source:
  """ARM-Net's split of the UCI set."""
  folders = ('diabetes130', 'uci_diabetes')
  files = {
    split: (_find(data_dir, folders, f'{split}.libsvm'),)
    for split in ('train', 'valid', 'test')
  }
  defaults = [f'field_{i}' for i in range(43)]
  return source_lib.Source(
    'diabetes130',
    files,
    _libsvm_fields(os.path.dirname(files['train'][0]), defaults),
    format='libsvm',
  )


_CRITEO_INTEGERS = [f'I{i}' for i in range(1, 14)]
_CRITEO_CATEGORIES = [f'C{i}' for i in range(1, 27)]


def criteo(
  data_dir: str,
  source: str | None = None,
  discretize: str = 'log_square',
  min_count: int = 1,
  split: str = 'ratio',
  split_seed: int = 0,
) -> source_lib.Source:
  """Criteo display advertising: train.txt, or a sample of it.

  Rows lie in the order of time, though none is given: split 'order' tests on
  the last.
  """
  path = source or _find_or_prepared(
    'criteo',
    data_dir,
    ('criteo', 'dac', 'criteo-kaggle'),
    'train.txt',
    'sample_1in1000_20fields.tsv',
    'dac_sample.txt',
    'head_10k.tsv',
    'random_4584.csv',
  )
  # The 1-in-1000 sample lacks 19 columns; an empty column says nothing.
  categories = _CRITEO_CATEGORIES
  if '20fields' in os.path.basename(path):
    categories = ['C6', 'C9', 'C14', 'C17', 'C20', 'C22', 'C23']
  comma = _uncompressed(path).endswith('.csv')
  return source_lib.Source(
    'criteo',
    {'all': (path,)},
    _categorical(_CRITEO_INTEGERS, kind='numeric', discretize=discretize)
    + _categorical(categories),
    header=None if comma else ('label', *_CRITEO_INTEGERS, *_CRITEO_CATEGORIES),
    label='Label' if comma else 'label',
    delimiter=',' if comma else '\t',
    quoted=False,
    min_count=min_count,
    split=source_lib.SplitRule(split, seed=split_seed),
  )


def avazu(
  data_dir: str,
  source: str | None = None,
  min_count: int = 1,
  split: str = 'ratio',
  split_seed: int = 0,
) -> source_lib.Source:
  """Avazu: hour, weekday and weekend out of `hour`; id is dropped."""
  path = source or _find_or_prepared(
    'avazu',
    data_dir,
    ('avazu',),
    'train',
    'train.csv',
    'train_head_9999.csv',
  )
  names = 'C1 banner_pos site_id site_domain site_category app_id app_domain'
  names += ' app_category device_id device_ip device_model device_type'
  names += ' device_conn_type C14 C15 C16 C17 C18 C19 C20 C21'
  return source_lib.Source(
    'avazu',
    {'all': (path,)},
    _categorical(['hour', 'weekday', 'is_weekend', *names.split()]),
    label='click',
    quoted=False,
    min_count=min_count,
    derive='avazu',
    time='time',
    split=source_lib.SplitRule(split, seed=split_seed),
  )


def movielens_1m(
  data_dir: str,
  split: str = 'time',
  threshold: float = 4.0,
  split_seed: int = 0,
) -> source_lib.Source:
  """MovieLens-1M with user and movie attributes; a rating >= 4 is a like.

  Not split by time, it is also read from a file without times.
  """
  folders = ('movielens-1m', 'ml-1m')
  needs_times = split in ('time', 'stream')
  untimed = () if needs_times else ('ratings_all_no_timestamp.dat',)
  ratings = _find(
    data_dir,
    folders,
    'ratings.dat',
    *untimed,
    'ratings_users_1_2999.dat',
    'ratings.csv',
  )
  is_csv = _uncompressed(ratings).endswith('.csv')
  is_timed = 'no_timestamp' not in os.path.basename(ratings)
  return source_lib.Source(
    'movielens_1m',
    {'all': (ratings,)},
    _categorical(
      ['user', 'movie', 'gender', 'age', 'occupation', 'zip', 'year']
    )
    + (Column('genres', separator='|', max_length=6),),
    label='rating',
    label_threshold=threshold,
    header=('user', 'movie', 'rating') + ('timestamp',) * is_timed,
    delimiter=',' if is_csv else '::',
    comment=_first_word(ratings) if is_csv else None,  # Its header.
    quoted=False,
    time='timestamp' if is_timed else None,
    group='user',
    derive='movielens_1m',
    side_files=(
      _find(data_dir, folders, 'users.dat', 'users.csv'),
      _find(data_dir, folders, 'movies.dat', 'movies.csv'),
    ),
    split=source_lib.SplitRule(split, seed=split_seed),
  )


def movielens_100k(
  data_dir: str,
  split: str = 'time',
  threshold: float = 4.0,
  split_seed: int = 0,
) -> source_lib.Source:
  """MovieLens-100k with user and movie attributes; a rating >= 4 is a like."""
  folders = ('movielens-100k', 'ml-100k')
  return source_lib.Source(
    'movielens_100k',
    {'all': (_find(data_dir, folders, 'u.data'),)},
    _categorical(
      ['user', 'movie', 'age', 'gender', 'occupation', 'zip', 'year']
    )
    + (Column('genres', separator='|', max_length=6),),
    label='rating',
    label_threshold=threshold,
    header=('user', 'movie', 'rating', 'timestamp'),
    delimiter='\t',
    quoted=False,
    time='timestamp',
    group='user',
    derive='movielens_100k',
    side_files=(
      _find(data_dir, folders, 'u.user'),
      _find(data_dir, folders, 'u.item'),
    ),
    split=source_lib.SplitRule(split, seed=split_seed),
  )


_ADULT = (
  'age workclass fnlwgt education education-num marital-status occupation '
  'relationship race sex capital-gain capital-loss hours-per-week '
  'native-country'
).split()
_ADULT_NUMERIC = (
  'age fnlwgt education-num capital-gain capital-loss hours-per-week'
).split()


def adult(
  data_dir: str, scaler: str = 'log', discretize: str = 'none'
) -> source_lib.Source:
  """UCI census income; a validation split is cut from the train file."""
  return source_lib.Source(
    'adult',
    {
      'train': (_find(data_dir, ('adult',), 'adult.data'),),
      'test': (_find(data_dir, ('adult',), 'adult.test'),),
    },
    tuple(
      Column(name, 'numeric', scaler=scaler, discretize=discretize)
      if name in _ADULT_NUMERIC
      else Column(name)
      for name in _ADULT
    ),
    label='income',
    # Labels of the test file end in a dot.
    label_positive=('>50K', '>50K.'),
    header=(*_ADULT, 'income'),
    comment='|',  # The test file begins with a line of it.
    missing=('', '?'),
    strip=True,
    quoted=False,
  )


def amazon_employee(data_dir: str, split_seed: int = 0) -> source_lib.Source:
  """Amazon access challenge on the split of CatBoost's benchmarks."""
  folders = ('amazon-employee', 'amazon')
  rows = {}
  try:
    rows = {
      split: _find(data_dir, folders, f'stratified_{split}_idx.txt')
      for split in ('train', 'test')
    }
  except errors.DataError:
    logging.info('amazon_employee: no index files, splitting at random.')
  names = 'RESOURCE MGR_ID ROLE_ROLLUP_1 ROLE_ROLLUP_2 ROLE_DEPTNAME ROLE_TITLE'
  names += ' ROLE_FAMILY_DESC ROLE_FAMILY ROLE_CODE'
  return source_lib.Source(
    'amazon_employee',
    {'all': (_find(data_dir, folders, 'train.csv'),)},
    _categorical(names.split()),
    label='ACTION',
    rows=rows,
    split=source_lib.SplitRule(seed=split_seed),
  )


SOURCES: dict[str, Callable[..., source_lib.Source]] = {
  f.__name__: f
  for f in (
    frappe,
    diabetes130,
    movielens_1m,
    movielens_100k,
    adult,
    amazon_employee,
    criteo,
    avazu,
  )
}
# Name -> (name, **options) -> a data set that needs no files.
GENERATORS: dict[str, Callable[..., dataset_lib.Dataset]] = {
  **dict.fromkeys(planted.PRESETS, planted.generate),
  **dict.fromkeys(planted_fields.PRESETS, planted_fields.generate),
  **dict.fromkeys(planted_numeric.PRESETS, planted_numeric.generate),
}
NAMES = (*GENERATORS, *SOURCES)


def options(name: str) -> dict[str, Any]:
  """What a named set of raw files takes besides its place, with defaults."""
  if name not in SOURCES:
    return {}
  parameters = inspect.signature(SOURCES[name]).parameters.values()
  return {p.name: p.default for p in parameters if p.name != 'data_dir'}


def resolve(name: str, data_dir: str, **options: Any) -> source_lib.Source:
  """The source of a known name or of a schema file.

  Raises:
    DataError: for an unknown name; lists the known and the nearest.
  """
  if name.endswith('.toml'):
    if options:
      raise errors.DataError(
        f'{name} takes no options, got {sorted(options)}: edit the file.'
      )
    return source_lib.load_schema_file(name)
  if name not in SOURCES:
    hint = source_lib.nearest(name, NAMES)
    if os.path.isfile(name):
      hint = f' `python -m experiments.prepare --infer={name}` writes one.'
    raise errors.DataError(
      f'No data set {name!r}; the data sets are: {", ".join(NAMES)}, or the '
      f'path of a schema file (.toml).{hint}'
    )
  try:
    return SOURCES[name](data_dir, **options)
  except TypeError as error:
    known = ', '.join(inspect.signature(SOURCES[name]).parameters)
    raise errors.DataError(
      f'Options of {name}: {error}; there are: {known}.'
    ) from error


def store_root(data_dir: str) -> pathlib.Path:
  """Where stores go: in the data directory, or a cache if that is read-only."""
  inside = pathlib.Path(data_dir) / _STORES
  try:
    # Root may write anywhere; a directory marked read-only is left alone.
    if store.is_read_only(inside.parent):
      raise PermissionError
    inside.mkdir(parents=True, exist_ok=True)
    probe = inside / f'.probe{os.getpid()}'
    probe.touch()
    probe.unlink()
    return inside
  except OSError:
    default = pathlib.Path.home() / '.cache' / 'jax_autorec'
    return pathlib.Path(os.environ.get(_CACHE_VARIABLE, default))


def load(
  name: str,
  data_dir: str = 'data',
  *,
  bad_rows: str = 'raise',
  progress: ingest.Progress | None = None,
  **options: Any,
) -> dataset_lib.Dataset:
  """A data set, encoded; prepared first if it has not been.

  Args:
    name: a known name, or the path of a schema file (.toml).
    data_dir: where raw data lies. Encoded sets go to `.jax_autorec` in it, or,
      where it cannot be written, to a cache directory (JAX_AUTOREC_CACHE).
    bad_rows: 'raise' or 'quarantine' (see `ingest.prepare`).
    progress: see `ingest.Progress`; None shows a bar where a person watches,
      and logs a line every ten seconds otherwise.
    **options: of the data set, see its function here.

  Raises:
    DataError: see `ingest.prepare`; unknown name or option.
  """
  if name in GENERATORS:
    return GENERATORS[name](name, **options)
  source = resolve(name, data_dir, **options)
  root = store_root(
    os.path.dirname(name) or '.' if name.endswith('.toml') else data_dir
  )
  shown = progress_lib.Progress(source.name)
  try:
    data = ingest.load(
      source, root, bad_rows=bad_rows, progress=progress or shown
    )
  finally:
    shown.close()
  logging.info('%s: encoded rows are in %s', source.name, root)
  return data
