import io
import sys
from unittest import mock

from absl.testing import absltest

from jax_autorec.data import progress


class _Terminal(io.StringIO):
  def isatty(self):
    return True


class ProgressTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.now = 100.0
    self.enter_context(
      mock.patch.object(progress.time, 'monotonic', lambda: self.now)
    )

  def test_a_line_per_interval_where_nobody_watches(self):
    shown = progress.Progress('mine')
    with self.assertLogs(level='INFO') as logs:
      for second in range(1, 36):
        self.now = 100.0 + second
        shown(2000.0 * second, second / 100)
      shown.close()
    self.assertLen(logs.output, 3)
    self.assertIn('prepare mine: 11 %, 2,000 rows/s, ETA 89 s', logs.output[0])

  def test_a_bar_where_a_person_watches(self):
    with mock.patch.object(sys, 'stderr', _Terminal()) as terminal:
      shown = progress.Progress('mine')
      self.now = 104.0
      shown(4000.0, 0.5)
      self.now = 108.0
      shown(8000.0, 1.0)
      shown.close()
    text = terminal.getvalue()
    self.assertIn('prepare mine: 100%', text)
    self.assertIn('1,000 rows/s', text)


if __name__ == '__main__':
  absltest.main()
