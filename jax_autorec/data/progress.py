"""How far the preparation of a data set is, for a person or a log."""

import sys
import time

from absl import logging

_LINE_INTERVAL = 10.0  # Seconds between lines where nobody watches.


class Progress:
  """Rows per second and time left: a bar, or a line every ten seconds."""

  def __init__(self, name: str):
    """Starts the clock; shows nothing before the first call."""
    self._name = name
    self._start = self._last = time.monotonic()
    self._bar = None

  def __call__(self, rows: float, share: float) -> None:
    """Shows that `rows` are done, `share` in (0, 1] of all."""
    now = time.monotonic()
    rate = rows / max(now - self._start, 1e-9)
    if sys.stderr.isatty():
      if self._bar is None:
        import tqdm

        # Counts thousandths: how many rows there are shows at the end alone.
        self._bar = tqdm.tqdm(
          total=1000,
          desc=f'prepare {self._name}',
          bar_format='{desc}: {percentage:3.0f}%|{bar}| [{elapsed}<{remaining}'
          '{postfix}]',
        )
      self._bar.set_postfix_str(f'{rate:,.0f} rows/s', refresh=False)
      self._bar.update(round(1000 * share) - self._bar.n)
    elif now - self._last > _LINE_INTERVAL:
      self._last = now
      left = (now - self._start) * (1 / max(share, 1e-9) - 1)
      logging.info(
        'prepare %s: %.0f %%, %s rows/s, ETA %.0f s',
        self._name,
        100 * share,
        f'{rate:,.0f}',
        left,
      )

  def close(self) -> None:
    """Leaves the bar as it is."""
    if self._bar is not None:
      self._bar.close()
