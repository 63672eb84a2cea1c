"""How every command starts and ends."""

from collections.abc import Callable
import errno
import importlib.util
import logging
import os
import pathlib
import sys
from typing import Any

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import config_dict, config_flags

from jax_autorec import errors

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES)

TERMINATED = 143  # 128 + SIGTERM, the shell's convention.

_CONFIGS = pathlib.Path(__file__).parent / 'configs'
_NO_CONFIGS = ('__init__.py', 'defaults.py')


class Quiet(logging.Filter):
  """Passes this project's messages, and warnings of others."""

  def filter(self, record: logging.LogRecord) -> bool:
    if 'orbax' in record.pathname and record.exc_info:
      return False  # It raises what it shows here, and that is reported.
    ours = 'jax_autorec' in record.pathname or 'experiments' in record.pathname
    return ours or record.levelno >= logging.WARNING


def config_flag(
  default: str | None, description: str
) -> flags.FlagHolder[config_dict.ConfigDict]:
  """Defines --config=FILE.py:ARGUMENT and --config.KEY=VALUE.

  ml_collections reads the command line as the flag is defined, and shows a
  traceback for a file, an argument or a key that does not exist: those are
  looked at before, and end the command with one message.
  """
  try:
    _check_config(sys.argv[1:], default)
  except errors.AutorecError as error:
    sys.exit(f'Error: {error}')
  return config_flags.DEFINE_config_file('config', default, description)


def chosen_config(arguments: list[str], default: str | None) -> str | None:
  """What --config names, FILE.py:ARGUMENT."""
  chosen = default
  for place, argument in enumerate(arguments):
    name, equals, value = argument.partition('=')
    if name in ('--config', '-config'):
      chosen = value if equals else ''.join(arguments[place + 1 : place + 2])
  return chosen


def _check_config(arguments: list[str], default: str | None) -> None:
  chosen = chosen_config(arguments, default)
  if chosen is not None:
    check_overrides(arguments, read_config(chosen))


def read_config(chosen: str) -> config_dict.ConfigDict:
  """What FILE.py:ARGUMENT describes.

  Raises:
    ConfigError: where there is no such file; lists those of this project.
  """
  name, colon, argument = chosen.partition(':')
  path = pathlib.Path(name)
  if not path.is_file():
    known = [
      str(p.relative_to(_CONFIGS.parent.parent))
      for p in sorted(_CONFIGS.glob('*.py'))
      if p.name not in _NO_CONFIGS
    ]
    raise errors.ConfigError(
      f'No config {name!r}; the configs are: {", ".join(known)}, each with a '
      f'data set, as {known[0]}:planted.{errors.nearest(name, known)}'
    )
  spec = importlib.util.spec_from_file_location('config_to_check', path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.get_config(*([argument] if colon else []))


def check_overrides(
  arguments: list[str], config: config_dict.ConfigDict
) -> None:
  """Refuses --config.KEY for keys that the config does not have.

  Raises:
    ConfigError: lists the known keys and the nearest.
  """
  known = sorted(_keys(config))
  for argument in arguments:
    name = argument.split('=')[0]
    if not name.startswith(('--config.', '-config.')):
      continue
    key = name.partition('.')[2]
    if key not in known:
      raise errors.ConfigError(
        f'No config key {key!r}.{errors.nearest(key, known)} The keys are: '
        f'{", ".join(known)}.'
      )


def _keys(config: config_dict.ConfigDict, prefix: str = ''):
  for key in config:
    value: Any = config.get_ref(key).get()
    if isinstance(value, config_dict.ConfigDict):
      yield from _keys(value, f'{prefix}{key}.')
    else:
      yield prefix + key


def run(main: Callable[[list[str]], None]) -> None:
  """Runs a command; what a person can mend is one message and status 1.

  Anything else keeps its traceback: it is a fault of ours.
  """

  def guarded(argv):
    from jax_autorec.train import loop  # Late: imports jax.

    absl_logging.set_verbosity(absl_logging.INFO)
    handler = absl_logging.get_absl_handler()
    # Orbax tells every save in a dozen lines.
    handler.addFilter(Quiet())
    handler.setFormatter(
      logging.Formatter('%(asctime)s %(levelname)s %(message)s', '%H:%M:%S')
    )
    try:
      main(argv)
    except errors.AutorecError as error:
      print(f'Error: {error}', file=sys.stderr)
      sys.exit(1)
    except BrokenPipeError:
      # Who was reading has stopped (`| head`): nobody is left to be told.
      os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
      sys.exit(1)
    except OSError as error:
      if error.errno not in _NO_ROOM:
        raise
      print(
        f'Error: {error.filename or "a file"}: {error.strerror}. Free some '
        'space or see to the permissions; the same command continues.',
        file=sys.stderr,
      )
      sys.exit(1)
    except loop.Interrupted as stop:
      print(f'Stopped: {stop}', file=sys.stderr)
      sys.exit(TERMINATED)
    except KeyboardInterrupt:
      print('Interrupted; the same command continues.', file=sys.stderr)
      sys.exit(130)

  app.run(guarded)
