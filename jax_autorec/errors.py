"""Errors that a person can mend: each says what was given and expected.

Commands print these without a traceback and exit with status 1; anything else
that escapes is a fault of the library and keeps its traceback.
"""

from collections.abc import Iterable
import difflib
from typing import Any


def nearest(given: str, known: Iterable[str]) -> str:
  """' Did you mean ...?', or nothing where no known word is near."""
  close = difflib.get_close_matches(str(given), [str(k) for k in known], 1)
  return f' Did you mean {close[0]!r}?' if close else ''


def expect(holds: bool, what: str, value: Any, expected: str) -> None:
  """Refuses a value that is not as expected.

  Args:
    holds: whether it is; comparisons that hold refuse NaN, too.
    what: name of the value.
    value: what was given.
    expected: in words.

  Raises:
    ConfigError: if it is not.
  """
  if not holds:
    raise ConfigError(f'{what} is {value!r}; expected {expected}.')


class AutorecError(Exception):
  """Base of the errors that a person's input or machine causes."""


class DataError(AutorecError, ValueError):
  """Raw data, a schema file or an encoded store is not as expected."""


class ConfigError(AutorecError, ValueError):
  """A config, an architecture or an argument makes no sense."""


class CheckpointError(AutorecError, RuntimeError):
  """A checkpoint or a workdir cannot be written, read or continued."""


class TrainingError(AutorecError, ArithmeticError):
  """Training met a non-finite loss."""
