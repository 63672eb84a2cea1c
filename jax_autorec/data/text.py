"""Blocks of whole lines out of files, compressed or not."""

from collections.abc import Iterator
import io

import pyarrow as pa

from jax_autorec import errors

BLOCK_BYTES = 8 * 2**20
_PIECE_BYTES = 2**16
_COMPRESSIONS = {'.gz': 'gzip', '.zst': 'zstd'}


class _Counted(io.RawIOBase):
  """A raw file that knows how far it has been read."""

  def __init__(self, path):
    self._file = open(path, 'rb')
    self.position = 0

  def readable(self):
    return True

  def readinto(self, buffer):
    count = self._file.readinto(buffer)
    self.position += count
    return count

  def close(self):
    self._file.close()
    super().close()


def numbered_blocks(
  path: str, block_bytes: int
) -> Iterator[tuple[bytes, int, int]]:
  """Whole lines of a file: (block, its first line, bytes read so far)."""
  try:
    raw = _Counted(path)
  except FileNotFoundError as error:
    raise errors.DataError(f'{path} does not exist.') from error
  except OSError as error:
    raise errors.DataError(f'Cannot read {path}: {error.strerror}.') from error
  stream = raw
  for suffix, compression in _COMPRESSIONS.items():
    if path.endswith(suffix):
      stream = pa.CompressedInputStream(raw, compression)
  line, rest, at_end = 1, b'', False
  with raw, stream:
    while not at_end:
      pieces, size = [rest], 0
      while not at_end and size < block_bytes:
        try:
          # Few bytes at a time: what a cut off file still has is counted.
          pieces.append(stream.read(min(_PIECE_BYTES, block_bytes)))
        except OSError as error:
          line += sum(piece.count(b'\n') for piece in pieces)
          raise errors.DataError(
            f'{path} is damaged or cut off after about line {line}: {error}. '
            'Fetch it again.'
          ) from error
        size += len(pieces[-1])
        at_end = not pieces[-1]
      data = b''.join(pieces)
      end = data.rfind(b'\n') + 1
      rest = data[end:]
      if end:
        yield data[:end], line, raw.position
        line += data.count(b'\n', 0, end)
    if rest:
      yield rest + b'\n', line, raw.position


def blocks(path: str, block_bytes: int = BLOCK_BYTES) -> Iterator[bytes]:
  """Whole lines of a file, decompressed, block by block."""
  for data, _, _ in numbered_blocks(path, block_bytes):
    yield data
