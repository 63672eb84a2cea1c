"""What raw data is: files, columns, label, split; declared, not programmed."""

from collections.abc import Mapping
import dataclasses
import difflib
import glob
import os
import pathlib
import tomllib
import types
import typing
from typing import Any

from jax_autorec import errors
from jax_autorec import schema as schema_lib

FORMATS = ('delimited', 'parquet', 'libsvm', 'libffm')
SCALERS = ('none', 'standard', 'minmax', 'max', 'log', 'quantile')
DISCRETIZATIONS = ('none', 'equal_width', 'equal_frequency', 'log_square')
SPLITS = ('ratio', 'time', 'order', 'stream')


def nearest(given: str, known) -> str:
  """' Did you mean ...?', or nothing where no known word is near."""
  close = difflib.get_close_matches(str(given), [str(k) for k in known], 1)
  return f' Did you mean {close[0]!r}?' if close else ''


def _one_of(value, known, what):
  if value not in known:
    raise errors.DataError(
      f'{what} is {value!r}; expected one of {", ".join(known)}.'
      + nearest(value, known)
    )


@dataclasses.dataclass(frozen=True)
class Column:
  """One input column of raw data and how it is encoded.

  Attributes:
    name: unique name, as in the file where it has a header.
    kind: 'categorical' or 'numeric'.
    min_count: a value seen less often in the train split is unknown; None
      takes the source's.
    separator: splits a cell into several values; None for single values.
    max_length: values kept of a multi-valued cell, the first ones.
    default: stands in for an empty cell; None keeps it missing.
    discretize: turns a numeric column into a categorical one: 'equal_width',
      'equal_frequency' or 'log_square' (floor(ln(x)^2) above 2, as FuxiCTR).
    bins: number of bins of the first two.
    scaler: of a numeric column that stays one: 'standard', 'minmax', 'max',
      'log' (sign(x) ln(1 + |x|), then standard) or 'quantile' (share of train
      values below); fitted on the train split.
  """

  name: str
  kind: str = 'categorical'
  min_count: int | None = None
  separator: str | None = None
  max_length: int = 1
  default: str | float | None = None
  discretize: str = 'none'
  bins: int = 20
  scaler: str = 'log'

  def __post_init__(self):
    what = f'of column {self.name!r}'
    _one_of(self.kind, schema_lib.KINDS, f'Kind {what}')
    _one_of(self.discretize, DISCRETIZATIONS, f'Discretisation {what}')
    _one_of(self.scaler, SCALERS, f'Scaler {what}')
    if self.separator is not None and self.max_length < 2:
      raise errors.DataError(
        f'Column {self.name!r} has a separator but max_length '
        f'{self.max_length}; expected at least 2.'
      )

  @property
  def encoded_kind(self) -> str:
    """The kind of the field that becomes of it."""
    return 'categorical' if self.discretize != 'none' else self.kind


@dataclasses.dataclass(frozen=True)
class SplitRule:
  """How rows fall into splits where the files do not say it.

  Attributes:
    kind: 'ratio': at random by seed; 'time': the latest rows are the test
      split, those before them the validation split; 'order': the same by the
      order in the files; 'stream': as by time, but every value of any split
      has an id of its own, since a stream meets new ones as it goes.
    valid: share of the rows, in (0, 1).
    test: share of the rows, in [0, 1).
    seed: of the draw.
  """

  kind: str = 'ratio'
  valid: float = 0.1
  test: float = 0.1
  seed: int = 0

  @property
  def by_time(self) -> bool:
    return self.kind in ('time', 'stream')

  def __post_init__(self):
    _one_of(self.kind, SPLITS, 'Kind of split')
    if not (0 < self.valid < 1 and 0 <= self.test < 1 - self.valid):
      raise errors.DataError(
        f'Split shares are valid {self.valid}, test {self.test}; expected '
        'positive shares that leave some rows to train on.'
      )


@dataclasses.dataclass(frozen=True)
class Source:
  """Raw data, declared.

  Attributes:
    name: of the data set.
    files: split -> paths. 'train', 'valid', 'test' as far as they are given;
      or 'all', which `split` divides. A missing 'valid' is cut from 'train'.
    columns: inputs, in order.
    format: 'delimited', 'parquet', 'libsvm' (label id:value ...) or 'libffm'
      (label field:id:value ...), with as many ids in every row.
    label: name of the label column.
    label_positive: raw label values that mean 1, all others mean 0; None: the
      column holds 0 and 1.
    label_threshold: a label at or above it means 1; None for no threshold.
    header: column names of a delimited file without a header line, in order;
      None reads them from the first line.
    delimiter: of a delimited file, any text.
    quoted: whether cells may be in double quotes.
    missing: cells that mean empty.
    encoding: of the text.
    strip: whether blanks around cells are cut off.
    min_count: a value seen less often in the train split is unknown.
    split: rule for files without splits, and for a validation split.
    weight: column of sample weights, above 0.
    group: column that group AUC is computed by.
    time: numeric column that orders rows.
    derive: name of a function in `transforms` that makes further columns.
    side_files: what that function reads.
    rows: split -> file of 0-based row numbers of the 'all' files.
  """

  name: str
  files: Mapping[str, tuple[str, ...]]
  columns: tuple[Column, ...]
  format: str = 'delimited'
  label: str = 'label'
  label_positive: tuple[str, ...] | None = None
  label_threshold: float | None = None
  header: tuple[str, ...] | None = None
  delimiter: str = ','
  quoted: bool = True
  missing: tuple[str, ...] = ('',)
  encoding: str = 'utf-8'
  strip: bool = False
  min_count: int = 1
  split: SplitRule = SplitRule()
  weight: str | None = None
  group: str | None = None
  time: str | None = None
  derive: str | None = None
  side_files: tuple[str, ...] = ()
  rows: Mapping[str, str] = dataclasses.field(default_factory=dict)

  def __post_init__(self):
    _one_of(self.format, FORMATS, f'Format of {self.name}')
    names = [column.name for column in self.columns]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or not names:
      raise errors.DataError(
        f'{self.name} needs columns with distinct names; repeated: {twice}.'
      )
    if self.label in names:
      raise errors.DataError(
        f'{self.name} has its label {self.label!r} among its columns: a model '
        'would be told what it is to predict.'
      )
    for column in self.columns:
      if column.kind != 'numeric' and column.name in (self.time, self.weight):
        raise errors.DataError(
          f'{self.name}: column {column.name!r} is categorical, but time and '
          'weight must be numbers. Declare it numeric, or leave it out.'
        )
    if 'all' not in self.files and 'train' not in self.files:
      raise errors.DataError(
        f'{self.name} has files for {sorted(self.files)}; expected "all" or '
        '"train".'
      )
    if self.split.by_time and 'all' in self.files and not self.time:
      raise errors.DataError(f'{self.name} splits by time without `time`.')

  def settings(self) -> dict[str, Any]:
    """All that decides the encoding but for the files' places."""
    values = dataclasses.asdict(self)
    values['files'] = {
      split: [os.path.basename(path) for path in paths]
      for split, paths in self.files.items()
    }
    for key in ('side_files', 'rows'):
      values.pop(key)
    return values


def from_settings(values: Mapping[str, Any]) -> Source:
  """The source that `Source.settings` came from, but for the files' places."""
  values = dict(values)
  values['columns'] = tuple(Column(**column) for column in values['columns'])
  values['split'] = SplitRule(**values['split'])
  for key in ('header', 'missing', 'label_positive'):
    if values[key] is not None:
      values[key] = tuple(values[key])
  return Source(**values)


def _check_type(value, kind, where: str):
  """Refuses a plain value of another type than a field is declared with."""
  kinds = typing.get_args(kind) or (kind,)
  if not {*kinds} <= {str, int, float, bool, types.NoneType}:
    return
  fitting = {*kinds, int} if float in kinds else {*kinds}
  if type(value) not in fitting:
    expected = ' or '.join(k.__name__ for k in kinds if k is not types.NoneType)
    raise errors.DataError(f'{where} is {value!r}; expected {expected}.')


def _strict(cls, values: Mapping[str, Any], where: str):
  known = {field.name: field.type for field in dataclasses.fields(cls)}
  for key, value in values.items():
    if key in known:
      _check_type(value, known[key], f'{where}: {key}')
    else:
      raise errors.DataError(
        f'{where}: unknown key {key!r}; the keys are: {", ".join(known)}.'
        + nearest(key, known)
      )
  try:
    return cls(**values)
  except TypeError as error:
    raise errors.DataError(f'{where}: {error}.') from error


def _tuple(value):
  return (value,) if isinstance(value, str) else tuple(value)


def load_schema_file(path: str | os.PathLike[str]) -> Source:
  """A source from a TOML file; paths in it are relative to the file.

  Keys are those of `Source`, with [files], [split] and one [[columns]] per
  input; see `python -m experiments.prepare --infer=FILE`, which writes one.

  Raises:
    DataError: for a missing file, bad TOML, an unknown key or a file pattern
      that matches nothing.
  """
  path = pathlib.Path(path)
  try:
    values = tomllib.loads(path.read_text('utf-8'))
  except FileNotFoundError as error:
    raise errors.DataError(f'Schema file {path} does not exist.') from error
  except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
    raise errors.DataError(f'{path} is not TOML: {error}.') from error
  values.setdefault('name', path.stem)
  for key in ('files', 'columns'):
    if key not in values:
      raise errors.DataError(f'{path}: no [{key}] in it.')
  files = {}
  for split, patterns in values['files'].items():
    _one_of(split, ('all', 'train', 'valid', 'test'), f'{path}: split')
    found = []
    for pattern in _tuple(patterns):
      matches = sorted(glob.glob(str(path.parent / pattern)))
      if not matches:
        raise errors.DataError(f'{path}: no file matches {pattern!r}.')
      found += matches
    files[split] = tuple(found)
  values['files'] = files
  values['columns'] = tuple(
    _strict(Column, column, f'{path}, [[columns]]')
    for column in values['columns']
  )
  if 'split' in values:
    values['split'] = _strict(SplitRule, values['split'], f'{path}, [split]')
  for key in ('header', 'missing', 'label_positive'):
    if key in values:
      values[key] = tuple(str(x) for x in _tuple(values[key]))
  if 'side_files' in values:
    values['side_files'] = tuple(
      str(path.parent / file) for file in _tuple(values['side_files'])
    )
  if 'rows' in values:
    values['rows'] = {
      split: str(path.parent / file) for split, file in values['rows'].items()
    }
  return _strict(Source, values, str(path))
