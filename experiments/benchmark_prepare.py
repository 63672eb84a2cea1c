"""How fast raw rows become a store, in how much memory, and batches of it.

Writes a TSV as Criteo's (13 integers, 26 hashes, cardinalities and empty cells
of the full log, ids 1 / rank distributed) and prints one JSON line per case:

  prepare   {"rows", "seconds", "rows_per_second", "distinct", "cpu_seconds",
            "peak_bytes"} of `experiments.prepare` on it, as a process of its
            own, start included
  memory    {"rows", "distinct", "peak_bytes"} for --rows and four times as many
            rows of vocabularies so small that both have all values: memory must
            not grow; and {"bytes_per_value"}, by what many values add to it
  batches   {"ms_per_batch"} of 4096 rows x 39 fields, shuffled, from the store

  python -m experiments.benchmark_prepare --rows=2000000
"""

import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

from absl import flags
import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

from experiments import cli
from jax_autorec import data as data_lib
from jax_autorec import errors

_CASES = flags.DEFINE_list('cases', ['prepare', 'memory', 'batches'], 'Cases.')
_ROWS = flags.DEFINE_integer('rows', 2_000_000, 'Rows of the TSV.')
_DIRECTORY = flags.DEFINE_string(
  'directory', None, 'Where files go, 0.6 kB per row; default: temporary.'
)

_VALUES = (
  1460, 583, 10131227, 2202608, 305, 24, 12517, 633, 3, 93145, 5683, 8351593,
  3194, 27, 14992, 5461306, 10, 5652, 2173, 4, 7046547, 18, 15, 286181, 105,
  142572,
)  # fmt: skip
_EMPTY = (
  0, 0, 0.03, 0.03, 0, 0.12, 0, 0, 0, 0, 0, 0.03, 0, 0, 0, 0.03, 0, 0, 0.44,
  0.44, 0.03, 0.76, 0, 0.03, 0.44, 0.44,
)  # fmt: skip
_EMPTY_INTEGERS = (
  0.45, 0, 0.21, 0.22, 0.03, 0.22, 0.04, 0, 0.04, 0.45, 0.04, 0.77, 0.22,
)  # fmt: skip
_HEX = np.array([f'{i:02x}' for i in range(256)], 'S2')


def write_tsv(path: pathlib.Path, num_rows: int, most_values: int) -> None:
  """Writes a TSV of clicks, with at most some values per hashed column."""
  rng = np.random.default_rng(0)
  options = pa_csv.WriteOptions(
    include_header=False, delimiter='\t', quoting_style='none'
  )
  with open(path, 'wb') as file:
    for start in range(0, num_rows, 100_000):
      count = min(100_000, num_rows - start)
      columns = [pa.array((rng.random(count) < 0.256).astype(np.int8))]
      for share in _EMPTY_INTEGERS:
        values = np.exp(rng.normal(0, 2, count)).astype(int)
        values = np.minimum(values, most_values)
        columns.append(pa.array(values, mask=rng.random(count) < share))
      for i, (size, share) in enumerate(zip(_VALUES, _EMPTY)):
        # Log-uniform ranks have frequencies 1 / rank.
        rank = np.exp(rng.random(count) * np.log(min(size, most_values) + 1))
        hashed = rank.astype(np.uint32) * np.uint32(2654435761) + np.uint32(i)
        digits = _HEX[hashed.astype('>u4').view(np.uint8)]
        texts = pa.array(digits.view('S8'), mask=rng.random(count) < share)
        columns.append(texts.cast(pa.string()))
      names = [str(i) for i in range(len(columns))]
      pa_csv.write_csv(pa.table(columns, names), file, options)


def _prepare(path: pathlib.Path) -> tuple[dict[str, float], str]:
  """Seconds, peak memory and distinct values; the data directory."""
  data_dir = str(path.with_suffix('.data'))
  command = ['-m', 'experiments.prepare', '--dataset=criteo']
  command += [f'--source={path}', f'--data_dir={data_dir}']
  # The peak of children is that of the largest so far: one child per child.
  measure = (
    'import resource, subprocess, sys\n'
    'subprocess.run([sys.executable, *sys.argv[1:]], check=True, '
    'stdout=subprocess.DEVNULL)\n'
    'usage = resource.getrusage(resource.RUSAGE_CHILDREN)\n'
    'print(usage.ru_maxrss, usage.ru_utime + usage.ru_stime)'
  )
  start = time.perf_counter()
  done = subprocess.run(
    [sys.executable, '-c', measure, *command],
    check=True,
    stdout=subprocess.PIPE,
    text=True,
  )
  seconds = time.perf_counter() - start
  data = data_lib.load('criteo', data_dir)
  peak, cpu_seconds = done.stdout.split()
  return {
    'rows': data.counts['read'],
    'seconds': round(seconds, 2),
    'rows_per_second': round(data.counts['read'] / seconds),
    'distinct': sum(field.vocab_size for field in data.schema.fields),
    'cpu_seconds': round(float(cpu_seconds), 2),
    'peak_bytes': int(peak) * 1024,
  }, data_dir


def _print(case: str, **values) -> None:
  print(json.dumps({'case': case, **values}), flush=True)


def _batches(data_dir: str) -> None:
  data = data_lib.load('criteo', data_dir)
  batches = data_lib.Batches(data.train, 4096, seed=1)
  times = []
  for first in range(0, batches.steps_per_epoch - 10, 10):
    start = time.perf_counter()
    batches.chunk(first, 10)
    times.append((time.perf_counter() - start) * 100)
  _print(
    'batches',
    rows=4096,
    fields=len(data.schema.fields),
    ms_per_batch=round(statistics.median(times), 3),
    worst_ms=round(max(times), 3),
  )


def _memory(directory: pathlib.Path) -> None:
  few, many = 50, 10**8
  found = {}
  for num_rows, most in [
    (_ROWS.value, few),
    (4 * _ROWS.value, few),
    (_ROWS.value, many),
  ]:
    path = directory / f'memory-{num_rows}-{most}.tsv'
    write_tsv(path, num_rows, most)
    found[num_rows, most], _ = _prepare(path)
    path.unlink()
    kept = {k: found[num_rows, most][k] for k in ('distinct', 'peak_bytes')}
    _print('memory', rows=num_rows, **kept)
  base, full = found[_ROWS.value, few], found[_ROWS.value, many]
  added = full['peak_bytes'] - base['peak_bytes']
  values = full['distinct'] - base['distinct']
  _print('memory', bytes_per_value=round(added / values, 1))


def main(argv: list[str]) -> None:
  """Runs the cases."""
  if len(argv) > 1:
    raise errors.ConfigError(f'Unknown arguments: {" ".join(argv[1:])}.')
  known = ('prepare', 'memory', 'batches')
  for case in _CASES.value:
    if case not in known:
      raise errors.ConfigError(
        f'No case {case!r}; the cases are: {", ".join(known)}.'
      )
  with tempfile.TemporaryDirectory(dir=_DIRECTORY.value) as scratch:
    directory = pathlib.Path(scratch)
    if {'prepare', 'batches'} & {*_CASES.value}:
      path = directory / 'clicks.tsv'
      write_tsv(path, _ROWS.value, 10**8)
      values, data_dir = _prepare(path)
      if 'prepare' in _CASES.value:
        _print('prepare', **values)
      if 'batches' in _CASES.value:
        _batches(data_dir)
    if 'memory' in _CASES.value:
      _memory(directory)


if __name__ == '__main__':
  cli.run(main)
