"""Parsed rows, and which of them a source does not allow, with why."""

from collections.abc import Callable, Mapping
import dataclasses

import numpy as np
import pyarrow as pa

from jax_autorec.data import source as source_lib

_INT32_MAX = 2**31 - 1
_FLOAT32_MAX = float(np.finfo(np.float32).max)


@dataclasses.dataclass(frozen=True)
class BadRow:
  """A row that cannot be read.

  Attributes:
    path: its file.
    line: 1-based line, header included; 1-based row of a Parquet file, 0-based
      row of a table in memory.
    reason: column and what was expected.
    text: the raw line.
    unit: 'line' or 'row'.
  """

  path: str
  line: int
  reason: str
  text: str
  unit: str = 'line'

  def __str__(self) -> str:
    shown = self.text if len(self.text) <= 80 else self.text[:77] + '...'
    return f'{self.path}, {self.unit} {self.line}: {self.reason} Got: {shown!r}'


@dataclasses.dataclass(frozen=True)
class Parsed:
  """A block's rows before their values are checked.

  Attributes:
    table: the rows.
    lines: line of each row.
    text: row -> the raw row.
    bad: lines that are no rows.
    position: bytes of the file read so far.
    wrong: column -> bool [R], cells that are not the number they should be.
  """

  table: pa.Table
  lines: np.ndarray
  text: Callable[[int], str]
  bad: list[BadRow]
  position: int
  wrong: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)


def expected_of(source: source_lib.Source, name: str) -> str:
  """What a numeric cell should be, as a message says it."""
  if name == source.label and source.label_threshold is None:
    return 'a label, 0 or 1 (`label_positive` has other values that mean 1)'
  return 'a number (`missing` has the texts that mean an empty cell)'


def checked(
  source: source_lib.Source,
  table: pa.Table,
  labelled: bool = True,
  wrong: Mapping[str, np.ndarray] | None = None,
) -> tuple[pa.Table, list[tuple[int, str]]]:
  """The rows whose values are as they should be; the others, with why."""
  checks = [
    (name, bad, expected_of(source, name))
    for name, bad in (wrong or {}).items()
  ]

  def add(name, bad, expected):
    bad = np.asarray(bad)
    if bad.any():
      checks.append((name, bad, expected))

  if labelled:
    label = table[source.label]
    if source.label_positive is not None:
      add(source.label, label.is_null(), 'a label')
    elif source.label_threshold is not None:
      add(source.label, ~np.isfinite(label.to_numpy()), 'a number')
    else:
      values = label.to_numpy()
      add(source.label, ~((values == 0) | (values == 1)), 'a label, 0 or 1')
    if source.weight is not None:
      with np.errstate(over='ignore', under='ignore'):
        values = table[source.weight].to_numpy().astype(np.float32)
      add(
        source.weight, ~(np.isfinite(values) & (values > 0)), 'a weight above 0'
      )
    if source.time is not None:
      add(source.time, ~np.isfinite(table[source.time].to_numpy()), 'a time')
  for column in source.columns:
    if column.kind == 'numeric':
      values = table[column.name].to_numpy()
      add(column.name, np.isinf(values), 'a finite number')
      large = np.abs(values) > _FLOAT32_MAX
      add(column.name, large, f'a number within {_FLOAT32_MAX:.1e}')
    elif source.format in ('libsvm', 'libffm'):
      values = table[column.name].to_numpy()
      outside = ~((values >= 0) & (values <= _INT32_MAX))
      add(column.name, outside, f'an id from 0 to {_INT32_MAX}')
  bad = np.zeros(len(table), bool)
  for _, found, _ in checks:
    bad |= found
  reasons = []
  for row in np.flatnonzero(bad):
    name, _, expected = next(check for check in checks if check[1][row])
    value = table[name][row].as_py()
    # A cell that is no number was emptied to go on: the raw row shows it.
    if wrong and name in wrong:
      shown = 'no number'
    else:
      shown = 'empty' if value is None else repr(value)
    reasons.append(
      (int(row), f'column {name!r} is {shown}; expected {expected}.')
    )
  return table.filter(pa.array(~bad)) if reasons else table, reasons
