"""How every command starts and ends."""

from collections.abc import Callable
import logging
import sys

from absl import app

from jax_autorec import errors

TERMINATED = 143  # 128 + SIGTERM, the shell's convention.


class Quiet(logging.Filter):
  """Passes this project's messages, and warnings of others."""

  def filter(self, record: logging.LogRecord) -> bool:
    ours = 'jax_autorec' in record.pathname or 'experiments' in record.pathname
    return ours or record.levelno >= logging.WARNING


def run(main: Callable[[list[str]], None]) -> None:
  """Runs a command; what a person can mend is one message and status 1.

  Anything else keeps its traceback: it is a fault of ours.
  """

  def guarded(argv):
    from jax_autorec.train import loop  # Late: imports jax.

    try:
      main(argv)
    except errors.AutorecError as error:
      print(f'Error: {error}', file=sys.stderr)
      sys.exit(1)
    except loop.Interrupted as stop:
      print(f'Stopped: {stop}', file=sys.stderr)
      sys.exit(TERMINATED)
    except KeyboardInterrupt:
      print('Interrupted; the same command continues.', file=sys.stderr)
      sys.exit(130)

  app.run(guarded)
