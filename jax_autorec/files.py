"""Files that are written whole or not at all.

A reader, or a command that starts after this one was killed, finds what stood
there before or all of what is new, never a part of it.
"""

from collections.abc import Iterator
import contextlib
import os
import pathlib
from typing import BinaryIO


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
  """A new file that takes the place of `path` when the block ends.

  Until then it has another name in the same directory, one of this process:
  two that write the same path do not write into each other's file. If the
  block fails, `path` stays as it was. A loss of power can undo the change.

  Args:
    path: its directory must exist.
  """
  path = pathlib.Path(path)
  partial = path.with_name(f'{path.name}.{os.getpid()}.partial')
  try:
    with open(partial, 'wb') as file:
      yield file
    os.replace(partial, path)
  except BaseException:
    partial.unlink(missing_ok=True)
    raise


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
  """Writes a whole file, in place of one that may be there."""
  with replacing(path) as file:
    file.write(content)


def write_text(path: str | os.PathLike[str], text: str) -> None:
  """Writes a whole file of UTF-8, in place of one that may be there."""
  write_bytes(path, text.encode())
