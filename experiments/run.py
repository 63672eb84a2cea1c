"""Runs an experiment: data, search, derive, retrain, evaluate, report.

  python -m experiments.run --config=experiments/configs/autofis.py:frappe \
    --data_dir=DIR --workdir=DIR

With no flags: AutoFIS on planted data. A run that was stopped continues when
the same command is given again.
"""

import json
import os
import pathlib
import platform
import shlex
import sys

from absl import flags, logging

from experiments import changes, cli
from experiments import known as known_lib
from experiments import settings as settings_lib
from jax_autorec import errors, files

_DEFAULT = 'experiments/configs/autofis.py:planted'
_CONFIG = cli.config_flag(
  _DEFAULT,
  'METHOD.py:DATA or METHOD.py:DATA,tiny; any value as --config.KEY=VALUE.',
)
_DATA_DIR = flags.DEFINE_string('data_dir', 'data', 'Where data sets lie.')
_WORKDIR = flags.DEFINE_string(
  'workdir', None, 'Where results go; default runs/METHOD-DATA-MODEL-sSEED.'
)
_STAGE = flags.DEFINE_enum(
  'stage',
  'all',
  ['search', 'derive', 'retrain', 'evaluate', 'all'],
  'The last stage to run; earlier ones that are done are not repeated.',
)
_PARALLEL = flags.DEFINE_enum(
  'parallel', 'none', ['none', 'jit', 'pmap'], 'How steps use the devices.'
)
_BAD_ROWS = flags.DEFINE_enum(
  'bad_rows',
  'raise',
  ['raise', 'quarantine'],
  'What becomes of rows that cannot be read.',
)
_PAGE = flags.DEFINE_bool('page', True, 'Whether to make report.html.')


def _workdir(values) -> pathlib.Path:
  if _WORKDIR.value:
    return pathlib.Path(_WORKDIR.value)
  data = pathlib.Path(values['data']['name']).stem
  tiny = '-tiny' if values['tiny'] else ''
  name = f'{values["method"]}-{data}{tiny}-{values["model"]}-s{values["seed"]}'
  return pathlib.Path('runs') / name


def _claim(workdir: pathlib.Path, values) -> None:
  """Writes config.json, or checks that the one there is the same.

  A config without metrics beside it is of a command that failed before it
  trained anything, by a slip in the config, say: it is replaced.
  """
  path = workdir / 'config.json'
  text = json.dumps(values, indent=1, default=list) + '\n'
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    if (workdir / 'metrics.jsonl').exists():
      old = json.loads(path.read_text('utf-8')) if path.exists() else {}
      plain = cli.read_config(cli.chosen_config(sys.argv[1:], _DEFAULT))
      fresh = json.dumps(settings_lib.resolve(plain), default=list)
      changed = changes.between(old, json.loads(text), json.loads(fresh))
      if changed:
        raise errors.CheckpointError(
          f'{workdir} holds a run with another config: {changed}. Give '
          'another --workdir, or delete that one.'
        )
    else:
      files.write_text(path, text)
  except ValueError as error:
    raise errors.CheckpointError(
      f'{path} is not JSON ({error}). Give another --workdir, or delete that '
      'one.'
    ) from error
  except OSError as error:
    raise errors.CheckpointError(
      f'Cannot write {workdir}: {error.strerror}. Give another --workdir.'
    ) from error


def main(argv: list[str]) -> None:
  """Checks the flags, claims the workdir and runs the stages."""
  if len(argv) > 1:
    raise errors.ConfigError(f'Unknown arguments: {" ".join(argv[1:])}.')
  values = settings_lib.resolve(_CONFIG.value)
  if values['tuned'] and (why := known_lib.unused(values['data'])):
    logging.info('%s', why)
  workdir = _workdir(values)
  _claim(workdir, values)
  from experiments import stages  # Imports jax: after flags are known good.

  stages.run(
    values,
    workdir,
    data_dir=_DATA_DIR.value,
    parallel=_PARALLEL.value,
    bad_rows=_BAD_ROWS.value,
    last=_STAGE.value,
    command=shlex.join(['python', '-m', 'experiments.run', *sys.argv[1:]]),
    machine=f'{platform.machine()}, {os.cpu_count()} cores',
    page=_PAGE.value,
  )


if __name__ == '__main__':
  cli.run(main)
