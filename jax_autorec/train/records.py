"""What a run writes and shows as it goes: JSON lines and a progress line."""

from collections.abc import Mapping
import json
import os
import pathlib
import sys
import time
from typing import Any

from absl import logging

from jax_autorec import errors, files

_LINE_INTERVAL = 10.0  # Seconds between lines where nobody watches.


class Lines:
  """A file of JSON lines that a kill, or a full disk, costs the last one alone.

  Whole lines are never written again, but where the last one is cut off: then
  through another file that takes its place.

  Attributes:
    values: of all whole lines, as they are in the file.
  """

  def __init__(self, path: str | os.PathLike[str] | None):
    """Reads what is there; None keeps nothing but `values`.

    Raises:
      CheckpointError: where a whole line is not JSON, or the cut one cannot be
        taken away.
    """
    self.values: list[Any] = []
    self._path = path and pathlib.Path(path)
    if not self._path or not self._path.exists():
      return
    try:
      *whole, cut = self._path.read_text('utf-8').split('\n')
      if cut:
        files.write_text(self._path, ''.join(f'{line}\n' for line in whole))
    except OSError as error:
      raise _failed(self._path, error) from error
    for number, line in enumerate(whole, 1):
      try:
        self.values.append(json.loads(line))
      except ValueError as error:
        raise errors.CheckpointError(
          f'{self._path} line {number} is not JSON ({error}). Take that line '
          'out, and what it says is computed again.'
        ) from error

  def append(self, value: Any) -> None:
    """Writes a line; it is in the file when this returns.

    Raises:
      CheckpointError: where it cannot be written.
    """
    line = json.dumps(value) + '\n'
    if self._path:
      try:
        with open(self._path, 'a', encoding='utf-8') as file:
          file.write(line)
      except OSError as error:
        raise _failed(self._path, error) from error
    self.values.append(json.loads(line))


def _failed(path, error: OSError) -> errors.CheckpointError:
  return errors.CheckpointError(
    f'Cannot write {path}: {error.strerror}. Free some space, check '
    'permissions, and run the same command again: it continues.'
  )


class Records:
  """Appends JSON lines, mirrors scalars to TensorBoard if it is installed.

  A run that continues from a checkpoint first takes back what it wrote after
  that checkpoint (`rewind`), and writes it anew. TensorBoard shows both.
  """

  def __init__(self, workdir: str | os.PathLike[str] | None):
    """Opens `metrics.jsonl` in a directory; None keeps nothing."""
    self._path = self._file = None
    self._tensorboard = None
    if workdir is None:
      return
    self._path = pathlib.Path(workdir) / 'metrics.jsonl'
    try:
      self._file = open(self._path, 'a', encoding='utf-8')
    except OSError as error:
      raise _failed(self._path, error) from error
    # A killed run can leave half a line: what follows must not join it.
    if self._file.tell() and not self._path.read_bytes().endswith(b'\n'):
      self._file.write('\n')
    try:
      import tensorboardX  # An optional extra, slow to import.

      self._tensorboard = tensorboardX.SummaryWriter(
        os.path.join(workdir, 'tensorboard')
      )
    except ImportError:
      pass

  def rewind(self, stage: str, step: int) -> None:
    """Takes back the lines of a stage after a step, and broken lines."""
    if self._file is None:
      return

    def is_kept(line):
      try:
        values = json.loads(line)
      except ValueError:
        return False
      return values['stage'] != stage or values['step'] <= step

    try:
      lines = self._path.read_text('utf-8').splitlines(keepends=True)
      files.write_text(self._path, ''.join(filter(is_kept, lines)))
      self._file.close()
      self._file = open(self._path, 'a', encoding='utf-8')
    except OSError as error:
      raise _failed(self._path, error) from error

  def write(self, stage: str, step: int, values: Mapping[str, Any]) -> None:
    """Writes one line; numbers also go to TensorBoard."""
    if self._file is None:
      return
    line = {'stage': stage, 'step': step, 'time': time.time(), **values}
    try:
      self._file.write(json.dumps(line) + '\n')
      self._file.flush()
    except OSError as error:
      raise _failed(self._path, error) from error
    if self._tensorboard is not None:
      for name, value in values.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
          self._tensorboard.add_scalar(f'{stage}/{name}', value, step)

  def close(self) -> None:
    if self._file is not None:
      try:
        self._file.close()
      except OSError as error:  # Tries once more to write what it could not.
        raise _failed(self._path, error) from error
    if self._tensorboard is not None:
      self._tensorboard.close()


class Progress:
  """A bar where a person watches, one line per interval otherwise."""

  def __init__(self, stage: str, total: int, done: int, batch_size: int):
    """Starts at step `done` of `total`."""
    self._stage, self._total, self._first = stage, total, done
    self._batch_size = batch_size
    self._bar = None
    self._start = self._last_line = time.monotonic()
    if sys.stderr.isatty():
      import tqdm

      self._bar = tqdm.tqdm(
        total=total, initial=done, desc=stage, unit='step', leave=True
      )

  def update(self, step: int, **values: float) -> None:
    """Shows that `step` steps are done."""
    if self._bar is not None:
      self._bar.update(step - self._bar.n)
      self._bar.set_postfix(
        {**{k: f'{v:.4f}' for k, v in values.items()}, 'ex/s': self._rate(step)}
      )
      return
    now = time.monotonic()
    if now - self._last_line < _LINE_INTERVAL:
      return
    self._last_line = now
    elapsed = now - self._start
    left = elapsed / max(step - self._first, 1) * (self._total - step)
    shown = ' '.join(f'{k} {v:.4f}' for k, v in values.items())
    logging.info(
      '%s: step %d of %d, %s, %s examples/s, ETA %.0f s',
      self._stage,
      step,
      self._total,
      shown,
      self._rate(step),
      left,
    )

  def _rate(self, step: int) -> str:
    elapsed = time.monotonic() - self._start
    rate = (step - self._first) * self._batch_size / max(elapsed, 1e-9)
    return f'{rate:,.0f}'

  def close(self) -> None:
    if self._bar is not None:
      self._bar.close()
