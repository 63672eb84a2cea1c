"""Cells of a table: what each runs, how far it is, how long it will take."""

from collections.abc import Iterable, Mapping, Sequence
import concurrent.futures
import contextlib
import dataclasses
import fcntl
import fnmatch
import functools
import hashlib
import json
import math
import os
import pathlib
import platform
import queue
import re
import subprocess
import sys
import threading
import time
from typing import Any

from absl import logging
from ml_collections import config_dict
import numpy as np

from experiments import changes, cli, differences
from experiments import settings as settings_lib
from jax_autorec import errors, files

_CONFIGS = pathlib.Path(__file__).parent / 'configs'
# States of cells, see `Cell.state`.
TO_DO = ('failed', 'unfinished', 'new')
LEFT_ALONE = ('outdated', 'damaged', 'running')

_ELSEWHERE = 'another command is running it'
_RIDGE = 0.1  # Of effects on run times, so that one cell does not decide.


@dataclasses.dataclass(frozen=True)
class Row:
  """One line of a table: a config, run with every seed.

  Attributes:
    name: unique.
    config: 'METHOD.py:DATA', of experiments/configs.
    overrides: (key, value) of the config.
    model: of the rows that are compared with one another; '' where the table
      does not say.
    method: as tables show it.
    role: 'uniform' (one width for all), 'control' (another one), or '' for
      what is to be shown to be better.
    published: its AUC elsewhere, shown beside its own.
    least: the AUC that its mean should reach.
  """

  name: str
  config: str
  overrides: tuple[tuple[str, Any], ...]
  model: str = ''
  method: str = ''
  role: str = ''
  published: float | None = None
  least: float | None = None

  @property
  def directory(self) -> str:
    return re.sub(r'\W+', '_', self.name).strip('_')

  def read(self) -> config_dict.ConfigDict:
    """Its config with the overrides.

    Raises:
      ConfigError: for a config or a key that does not exist.
    """
    config = cli.read_config(str(_CONFIGS / self.config))
    cli.check_overrides([f'--config.{k}' for k, _ in self.overrides], config)
    try:
      config.update_from_flattened_dict(dict(self.overrides))
    except (TypeError, ValueError) as error:
      raise errors.ConfigError(f'Row {self.name!r}: {error}') from error
    return config


@dataclasses.dataclass(frozen=True)
class Cell:
  """One run.

  Attributes:
    row: what is run.
    seed: with this seed.
    workdir: its directory.
  """

  row: Row
  seed: int
  workdir: pathlib.Path

  @property
  def title(self) -> str:
    return f'{self.row.name}, seed {self.seed}'

  @property
  def report(self) -> pathlib.Path:
    return self.workdir / 'report.json'

  @property
  def failure(self) -> str | None:
    """Why its last run failed, if it did."""
    path = self.workdir / 'failed.txt'
    if not path.exists():
      return None
    text = path.read_text('utf-8', errors='replace').strip()
    return text or 'failed.txt is damaged, log.txt may say more'

  @functools.cached_property
  def damaged(self) -> str:
    """Which file of a run that is finished is unfit for a table, and why."""
    if not self.report.exists():
      return ''
    for name, check in (
      ('report.json', _check_report),
      ('config.json', _read_object),
      ('predictions.npz', differences.read_arrays),
    ):
      try:
        check(self.workdir / name)
      except (OSError, ValueError, errors.CheckpointError) as error:
        return f'{name} ({error})'
    return ''

  @functools.cached_property
  def outdated(self) -> str:
    """What a run that is finished has otherwise than it would have now.

    Values that were tuned since, say: such a run is in no table.
    """
    if not self.report.exists() or self.damaged:
      return ''
    old = _read_object(self.workdir / 'config.json')
    try:
      config = self.row.read()
      config.seed = self.seed
      plain = dataclasses.replace(self.row, overrides=()).read()
      found = [settings_lib.resolve(one) for one in (config, plain)]
    except errors.AutorecError as error:
      return f'its config cannot be read any more: {error}'
    values, fresh = json.loads(json.dumps(found, default=list))
    return changes.between(old, values, fresh)

  @property
  def is_running(self) -> bool:
    """Whether a command runs it: the process holds its log."""
    try:
      with open(self.workdir / 'log.txt', 'rb') as log:
        fcntl.flock(log, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
      return False
    except BlockingIOError:
      return True
    return False

  @property
  def state(self) -> str:
    """'done'; 'damaged' or 'outdated': finished, but in no table, and left
    alone until its directory is deleted; 'running'; 'failed', 'unfinished' or
    'new': to be run.
    """
    if self.damaged:
      return 'damaged'
    if self.report.exists():
      return 'outdated' if self.outdated else 'done'
    if self.is_running:
      return 'running'
    if self.failure:
      return 'failed'
    return 'unfinished' if self.workdir.exists() else 'new'

  @property
  def is_done(self) -> bool:
    # Without a look at the lock of the log, which `state` takes for a moment.
    return self.report.exists() and not self.damaged and not self.outdated

  @property
  def missing(self) -> str:
    """Why it is in no table; '' if it is."""
    again = f'delete {self.workdir} to run it again'
    return {
      'done': '',
      'damaged': f'damaged: {self.damaged}; {again}',
      'outdated': (
        f'outdated: its config has changed since ({self.outdated}); {again}'
      ),
      'running': 'running now',
      'failed': f'failed: {self.failure}',
      'unfinished': 'not finished',
      'new': 'not run yet',
    }[self.state]

  def command(self, data_dir: str) -> list[str]:
    """Arguments after `python`."""
    return [
      '-m',
      'experiments.run',
      f'--config={_CONFIGS / self.row.config}',
      *(f'--config.{key}={value}' for key, value in self.row.overrides),
      f'--config.seed={self.seed}',
      f'--data_dir={data_dir}',
      f'--workdir={self.workdir}',
      '--nopage',
    ]


def _read_object(path: pathlib.Path) -> dict[str, Any]:
  """A JSON object.

  Raises:
    ValueError: for anything else.
    OSError: where it cannot be read.
  """
  values = json.loads(path.read_text('utf-8'))
  if not isinstance(values, dict):
    raise ValueError(f'{type(values).__name__}, expected an object')
  return values


def metrics_before_test(model: Mapping[str, Any]) -> Mapping[str, Any]:
  """Of the validation split; of a stream, which has none, before its test.

  Args:
    model: a report, or one of its controls.
  """
  # Streams of before called those rows 'valid' as well.
  return model['valid'] if 'valid' in model else model['before_last_quarter']


def _check_report(path: pathlib.Path) -> None:
  """Sees to it that tables can be made of a report.

  Raises:
    ValueError: where it lacks a metric, or one is no finite number.
    OSError: where it cannot be read.
  """
  report = _read_object(path)
  try:
    models = {'the result': report, **report['controls']}
    for key in ('dataset', 'model', 'tiny'):
      report[key]
    for name, model in models.items():
      found = {
        'test AUC': model['test']['auc'],
        'test logloss': model['test']['logloss'],
        'valid AUC': metrics_before_test(model)['auc'],
      }
      for metric, value in found.items():
        if not math.isfinite(value):
          raise ValueError(f'{metric} of {name} is {value}')
  except KeyError as error:
    raise ValueError(f'without {error}') from error
  except TypeError as error:
    raise ValueError(f'{error}') from error


def rows(table: Mapping[str, Any]) -> list[Row]:
  """The rows of a table's config.

  Raises:
    ConfigError: where two rows would share a directory.
  """
  found = [
    Row(
      name,
      row['config'],
      tuple(row['set'].items()),
      row.get('model', row['set'].get('model', '')),
      row.get('method', name),
      row.get('role', ''),
      row.get('published'),
      row.get('least'),
    )
    for name, row in table['rows'].items()
  ]
  places: dict[str, str] = {}
  for row in found:
    other = places.setdefault(row.directory, row.name)
    if other != row.name:
      raise errors.ConfigError(
        f'Rows {other!r} and {row.name!r} share the directory '
        f'{row.directory!r}: give one of them another name.'
      )
  return found


def choose(known: Sequence[Row], patterns: Sequence[str] | None) -> list[Row]:
  """Rows by their names, or by patterns of them ('fm+*'); all if None.

  Raises:
    ConfigError: for a pattern that no row has; lists the rows.
  """
  if patterns is None:
    return list(known)
  names = [row.name for row in known]
  for pattern in patterns:
    if not any(fnmatch.fnmatchcase(name, pattern) for name in names):
      raise errors.ConfigError(
        f'No row {pattern!r}; the rows are: {", ".join(names)}.'
        + errors.nearest(pattern, names)
      )
  matches = lambda row: any(fnmatch.fnmatchcase(row.name, p) for p in patterns)
  return [row for row in known if matches(row)]


def make(
  chosen: Iterable[Row], seeds: Iterable[int], workdir: pathlib.Path
) -> list[Cell]:
  """The cells of some rows and seeds: all rows with one seed, then the next.

  So a table that is stopped early has something of every row.
  """
  chosen = list(chosen)
  return [
    Cell(row, seed, workdir / 'cells' / row.directory / f'seed_{seed}')
    for seed in seeds
    for row in chosen
  ]


def known(
  chosen: Iterable[Row], seeds: Iterable[int], workdir: pathlib.Path
) -> list[Cell]:
  """As `make`, with the seeds that were run at another time as well."""
  seeds, chosen = list(seeds), list(chosen)
  found = {
    int(path.name.removeprefix('seed_'))
    for row in chosen
    for path in (workdir / 'cells' / row.directory).glob('seed_*')
    if path.name.removeprefix('seed_').isdecimal()
  }
  cells = make(chosen, sorted({*seeds, *found}), workdir)
  return [c for c in cells if c.seed in seeds or c.workdir.exists()]


def environment(workdir: pathlib.Path) -> dict[str, str]:
  """Of the processes: they share their compiled programs.

  JAX takes programs from a directory by what they compute and by its version,
  but those of a CPU are of that kind of CPU alone.
  """
  values = dict(os.environ)
  if 'JAX_COMPILATION_CACHE_DIR' not in values:
    try:
      text = pathlib.Path('/proc/cpuinfo').read_text('utf-8')
    except OSError:
      text = platform.processor()
    traits = sorted(
      {
        line
        for line in text.splitlines()
        if re.match('model name|flags|features|cpu (part|variant)', line, re.I)
      }
      or {text}
    )
    machine = hashlib.sha256('\n'.join([platform.machine(), *traits]).encode())
    place = (workdir / 'programs' / machine.hexdigest()[:12]).absolute()
    values['JAX_COMPILATION_CACHE_DIR'] = str(place)
    values.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0')
  return values


def seconds(cell: Cell) -> float | None:
  """What a finished cell took, over all attempts; None where that is unknown.

  A damaged wall.txt says nothing, which is logged: the run is as good as any.
  """
  path = cell.workdir / 'wall.txt'
  if path.exists():
    return _wall(path)
  report = json.loads(cell.report.read_text('utf-8'))
  return sum(report.get('seconds', {}).values()) or None


def _wall(path):
  """Seconds of all attempts; None where there is no such file, or no number."""
  if not path.exists():
    return None
  text = path.read_text('utf-8', errors='replace')
  # What is cut off can still be a number.
  if re.fullmatch(r'\d+(\.\d+)?\n', text):
    return float(text)
  logging.warning(
    '%s is damaged: it counts in no estimate of time. Delete it, and what the '
    'report says is taken.',
    path,
  )
  return None


@dataclasses.dataclass(frozen=True)
class Estimate:
  """Seconds that a cell of a row takes.

  Attributes:
    seconds: None where nothing is known.
    own: whether cells of the row itself were timed; from other rows if not.
  """

  seconds: float | None
  own: bool


def estimate(
  timed: Mapping[Row, Sequence[float]], wanted: Iterable[Row]
) -> dict[Row, Estimate]:
  """How long cells take: the mean of the row's own, or scaled from others.

  Scaled: log seconds as the sum of an effect of the base model and one of the
  method, fitted to the rows that were timed (least squares, slightly shrunk).

  Args:
    timed: row -> seconds of its finished cells.
    wanted: the rows to estimate.
  """
  timed = {row: np.mean(values) for row, values in timed.items() if values}
  result = {}
  kinds = sorted(
    {(part, value) for row in timed for part, value in _parts(row)}
  )
  place = {kind: i for i, kind in enumerate(kinds, 1)}

  def encode(row):
    line = np.zeros(len(kinds) + 1)
    line[0] = 1
    for kind in _parts(row):
      if kind in place:
        line[place[kind]] = 1
    return line

  if timed:
    lines = np.stack([encode(row) for row in timed])
    logs = np.log(np.maximum(list(timed.values()), 1e-3))
    penalty = np.diag([1e-9] + [_RIDGE] * len(kinds))
    effects = np.linalg.solve(lines.T @ lines + penalty, lines.T @ logs)
  for row in wanted:
    if row in timed:
      result[row] = Estimate(float(timed[row]), True)
    elif timed:
      result[row] = Estimate(float(np.exp(encode(row) @ effects)), False)
    else:
      result[row] = Estimate(None, False)
  return result


def _parts(row):
  return ('model', row.model), ('method', row.method)


def timed(cells: Iterable[Cell]) -> dict[Row, list[float]]:
  """Row -> seconds of its finished cells."""
  found: dict[Row, list[float]] = {}
  for cell in cells:
    if cell.is_done and (spent := seconds(cell)) is not None:
      found.setdefault(cell.row, []).append(spent)
  return found


def shares(jobs: int) -> list[set[int]]:
  """The cores of each of so many processes; none to let them share all.

  Two that share two cores wait for one another's threads: a step takes a tenth
  longer than with a core for each.
  """
  if jobs == 1 or not hasattr(os, 'sched_getaffinity'):
    return [set()] * jobs
  cores = sorted(os.sched_getaffinity(0))
  if jobs > len(cores):
    return [set()] * jobs
  return [set(share.tolist()) for share in np.array_split(cores, jobs)]


class Runner:
  """Runs cells in processes of their own, some at a time."""

  def __init__(self, data_dir: str, workdir: pathlib.Path, jobs: int):
    if jobs < 1:
      raise errors.ConfigError(f'jobs is {jobs}; expected at least 1.')
    self._data_dir, self._jobs = data_dir, jobs
    self._environment = environment(workdir)
    self._cores: queue.SimpleQueue[set[int]] = queue.SimpleQueue()
    for share in shares(jobs):
      self._cores.put(share)
    self._stopping = threading.Event()
    self._running: set[subprocess.Popen] = set()
    self._lock = threading.Lock()

  def run_all(self, cells: Sequence[Cell], others: Sequence[Cell] = ()):
    """Runs what is not finished, with progress.

    Args:
      cells: to run.
      others: whose times help to say how long the rest takes.

    Returns:
      Cell -> reason, of those that failed. Those that are damaged or outdated
      are left alone, and so are those that another command runs.

    Raises:
      Interrupted: after SIGTERM; the processes have saved where they are.
    """
    from jax_autorec.train import loop  # Late: imports jax.

    failed = {}
    todo = [cell for cell in cells if not cell.report.exists()]
    done = sum(cell.is_done for cell in cells)
    logging.info('%d cells, %d of them done', len(cells), done)
    for cell in cells:
      if cell.damaged or cell.outdated:
        logging.warning('%s: %s', cell.title, cell.missing)
    times = timed({*cells, *others})
    with (
      loop.SigtermFlag() as sigterm,
      concurrent.futures.ThreadPoolExecutor(self._jobs) as pool,
    ):
      futures = {pool.submit(self._run, cell): cell for cell in todo}
      rest = set(futures)
      try:
        while rest:
          done, rest = concurrent.futures.wait(
            rest, 0.5, concurrent.futures.FIRST_COMPLETED
          )
          for future in done:
            cell, reason = futures[future], future.result()
            if not reason:
              spent = seconds(cell)
              times.setdefault(cell.row, []).extend([spent] if spent else [])
            elif reason != _ELSEWHERE:
              failed[cell] = reason
            left = [futures[f] for f in rest]
            self._tell(cell, reason, len(todo), left, times)
          if sigterm.is_set:
            raise loop.Interrupted('the same command continues.')
      except BaseException:
        self._stop()
        pool.shutdown(cancel_futures=True)
        raise
    return failed

  def _tell(self, cell, reason, count, left, times):
    spent = sum(
      e.seconds or 0.0
      for row, e in estimate(times, {c.row for c in left}).items()
      for c in left
      if c.row == row
    )
    eta = f'{spent / self._jobs / 60:.0f} min' if spent or not left else '?'
    outcome = f'failed ({reason})' if reason else 'done'
    logging.info(
      '%s: %s; %d of %d cells, ETA %s',
      cell.title,
      reason if reason == _ELSEWHERE else outcome,
      count - len(left),
      count,
      eta,
    )

  def _stop(self):
    with self._lock:
      self._stopping.set()
      for process in self._running:
        process.terminate()  # A run saves where it is.

  def _run(self, cell: Cell) -> str | None:
    """Runs a cell; returns why it failed, or None."""
    mark = cell.workdir / 'failed.txt'
    try:
      cell.workdir.mkdir(parents=True, exist_ok=True)
      with open(
        cell.workdir / 'log.txt', 'a+', encoding='utf-8', errors='replace'
      ) as log:
        try:
          # The process holds it too: longer than this one, if need be.
          fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
          return _ELSEWHERE
        mark.unlink(missing_ok=True)
        reason = self._attend(cell, log)
      if reason and not self._stopping.is_set():
        files.write_text(mark, f'{reason}\n')
    except OSError as error:
      return f'cannot write {cell.workdir}: {error.strerror}'
    return reason

  def _attend(self, cell, log):
    first, start = log.tell(), time.monotonic()
    cores = self._cores.get()
    try:
      with self._lock:
        if self._stopping.is_set():
          return 'stopped'
        process = subprocess.Popen(
          [sys.executable, *cell.command(self._data_dir)],
          stdout=log,
          stderr=log,
          env=self._environment,
        )
        self._running.add(process)
      logging.info('%s: starts', cell.title)
      if cores:
        # Its threads, still to be started, inherit it.
        with contextlib.suppress(ProcessLookupError):
          os.sched_setaffinity(process.pid, cores)
      status = process.wait()
    finally:
      self._cores.put(cores)
    with self._lock:
      self._running.discard(process)
    wall = cell.workdir / 'wall.txt'
    spent = (_wall(wall) or 0.0) + time.monotonic() - start
    files.write_text(wall, f'{spent:.2f}\n')
    if status == 0 and cell.report.exists():
      return None
    log.seek(first)
    lines = log.read().strip().splitlines()
    return f'status {status}: {lines[-1] if lines else "no output"}'
