"""What raw data is: files, columns, label, split; declared, not programmed."""

from collections.abc import Mapping
import dataclasses
import difflib
import glob
import math
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


def _kinds(kind) -> tuple:
  """The types that a type or a union of types allows."""
  return typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)


def _fits(value, kind) -> bool:
  """Whether a value is of a plain type, or of a union of such."""
  kinds = _kinds(kind)
  if not {*kinds} <= {str, int, float, bool, types.NoneType}:
    return True  # Not a plain one.
  if isinstance(value, bool):
    return bool in kinds
  return isinstance(value, (*kinds, int) if float in kinds else kinds)


def _check_types(instance, what: str):
  """Refuses plain attributes of another type than they are declared with."""
  for field in dataclasses.fields(instance):
    value = getattr(instance, field.name)
    if not _fits(value, field.type):
      kinds = [k for k in _kinds(field.type) if k is not types.NoneType]
      expected = [kind.__name__ for kind in kinds]
      raise errors.DataError(
        f'{what}: {field.name} is {value!r}; expected {" or ".join(expected)}.'
      )


def _check_least(what: str, least: int, **values: int | None):
  for name, value in values.items():
    if value is not None and value < least:
      raise errors.DataError(
        f'{what}: {name} is {value}; expected at least {least}.'
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
    _check_types(self, f'Column {self.name!r}')
    what = f'of column {self.name!r}'
    _one_of(self.kind, schema_lib.KINDS, f'Kind {what}')
    _one_of(self.discretize, DISCRETIZATIONS, f'Discretisation {what}')
    _one_of(self.scaler, SCALERS, f'Scaler {what}')
    _check_least(
      f'Column {self.name!r}',
      1,
      min_count=self.min_count,
      max_length=self.max_length,
      bins=self.bins,
    )
    if self.kind == 'numeric':
      self._check_numeric()
    elif self.discretize != 'none':
      raise errors.DataError(
        f'Column {self.name!r} is categorical, but discretize is '
        f'{self.discretize!r}; expected kind "numeric": bins are of numbers.'
      )
    if self.separator == '':
      raise errors.DataError(
        f'Column {self.name!r} has an empty separator; expected the text that '
        'parts its values, or none.'
      )
    if self.separator is not None and self.max_length < 2:
      raise errors.DataError(
        f'Column {self.name!r} has a separator but max_length '
        f'{self.max_length}; expected at least 2.'
      )

  def _check_numeric(self):
    if self.max_length > 1 or self.separator is not None:
      raise errors.DataError(
        f'Column {self.name!r} is numeric, but has a separator or max_length '
        f'{self.max_length}; only categorical columns hold several values.'
      )
    try:
      is_finite = self.default is None or math.isfinite(float(self.default))
    except ValueError:
      is_finite = False
    if not is_finite:
      raise errors.DataError(
        f'Column {self.name!r} is numeric, but its default is '
        f'{self.default!r}; expected a number.'
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
    _check_types(self, 'Split')
    _one_of(self.kind, SPLITS, 'Kind of split')
    _check_least('Split', 0, seed=self.seed)
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
    comment: lines of a delimited file that start with it are no rows.
    quoted: whether cells may be in double quotes; they end on their line.
    missing: cells that mean empty.
    encoding: of the text; one in which ASCII is as in ASCII.
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
  comment: str | None = None
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
    _check_types(self, f'Source {self.name!r}')
    if not isinstance(self.split, SplitRule):
      raise errors.DataError(
        f'{self.name}: split is {self.split!r}; expected a SplitRule, or '
        '[split] with `kind` in a schema file.'
      )
    if not self.name or self.name.startswith('.') or '/' in self.name:
      raise errors.DataError(
        f'A source is named {self.name!r}; expected a name that can be that '
        'of a directory.'
      )
    _one_of(self.format, FORMATS, f'Format of {self.name}')
    self._check_text()
    _check_least(self.name, 1, min_count=self.min_count)
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
    if 'all' in self.files and len(self.files) > 1:
      raise errors.DataError(
        f'{self.name} has files for {sorted(self.files)}; expected "all" alone '
        '(it is divided by `split`), or "train" and others without "all".'
      )
    if self.split.by_time and 'all' in self.files and not self.time:
      raise errors.DataError(f'{self.name} splits by time without `time`.')

  def _check_text(self):
    """How lines are cut and decoded."""
    if not self.delimiter or set(self.delimiter) & {*'\r\n"'}:
      raise errors.DataError(
        f'{self.name}: delimiter is {self.delimiter!r}; expected some text '
        'without quotes and line ends.'
      )
    if self.comment == '':
      raise errors.DataError(f'{self.name}: comment is empty.')
    try:
      for text in (self.delimiter, self.comment or ''):
        text.encode(self.encoding)
    except UnicodeEncodeError as error:
      raise errors.DataError(
        f'{self.name}: {error.object!r} is no text in {self.encoding}; '
        'expected a delimiter and a comment that the files can have.'
      ) from error
    except LookupError:
      pass  # Named below.
    try:
      is_ascii = '\n,1a'.encode(self.encoding) == b'\n,1a'
    except LookupError:
      is_ascii = False
    if not is_ascii:
      raise errors.DataError(
        f'{self.name}: encoding is {self.encoding!r}; expected one that has '
        'ASCII as it is, "utf-8" or "latin-1" say. Convert the file to utf-8 '
        'first where it has another.'
      )

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


def _strict(cls, values: Any, where: str):
  """Makes a dataclass of a table of a schema file; unknown keys are errors."""
  if not isinstance(values, Mapping):
    raise errors.DataError(
      f'{where} is {values!r}; expected a table: a line {where.split()[-1]}, '
      'and `key = value` lines below it.'
    )
  known = [field.name for field in dataclasses.fields(cls)]
  for key in values:
    if key not in known:
      raise errors.DataError(
        f'{where}: unknown key {key!r}; the keys are: {", ".join(known)}.'
        + nearest(key, known)
      )
  try:
    return cls(**values)
  except TypeError as error:
    raise errors.DataError(f'{where}: {error}.') from error
  except errors.DataError as error:
    raise errors.DataError(f'{where}: {error}') from error


def _texts(value: Any, where: str) -> tuple[str, ...]:
  """One text or number, or a list of them."""
  values = value if isinstance(value, list) else [value]
  if not all(isinstance(v, str | int | float) for v in values):
    raise errors.DataError(f'{where} is {value!r}; expected a list of texts.')
  return tuple(str(v) for v in values)


def _files(path: pathlib.Path, patterns: Any, where: str) -> tuple[str, ...]:
  """The files that patterns match, relative to a schema file."""
  found = []
  for pattern in _texts(patterns, f'{path}: {where}'):
    exact = path.parent / pattern
    # A name with brackets in it is a name first.
    matches = [str(exact)] if exact.exists() else []
    if not matches:
      within = glob.escape(str(path.parent))
      matches = sorted(glob.glob(os.path.join(within, pattern)))
    if not matches:
      raise errors.DataError(f'{path}: no file matches {pattern!r}.')
    found += matches
  return tuple(found)


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
  if not isinstance(values['files'], Mapping):
    raise errors.DataError(
      f'{path}: files is {values["files"]!r}; expected [files] with `all`, or '
      'with `train` and others.'
    )
  files = {}
  for split, patterns in values['files'].items():
    _one_of(split, ('all', 'train', 'valid', 'test'), f'{path}: split')
    files[split] = _files(path, patterns, f'files.{split}')
  values['files'] = files
  if not isinstance(values['columns'], list):
    raise errors.DataError(
      f'{path}: columns are {values["columns"]!r}; expected one [[columns]], '
      'in double brackets, per column.'
    )
  values['columns'] = tuple(
    _strict(Column, column, f'{path}, [[columns]]')
    for column in values['columns']
  )
  if 'split' in values:
    values['split'] = _strict(SplitRule, values['split'], f'{path}, [split]')
  for key in ('header', 'missing', 'label_positive'):
    if key in values:
      values[key] = _texts(values[key], f'{path}: {key}')
  if 'side_files' in values:
    values['side_files'] = _files(path, values['side_files'], 'side_files')
  if 'rows' in values:
    if not isinstance(values['rows'], Mapping):
      raise errors.DataError(
        f'{path}: rows is {values["rows"]!r}; expected [rows] with `train` and '
        '`test`.'
      )
    values['rows'] = {
      split: _files(path, file, f'rows.{split}')[0]
      for split, file in values['rows'].items()
    }
  return _strict(Source, values, str(path))
