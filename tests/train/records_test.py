import io
import itertools
import json
import pathlib
from unittest import mock

from absl.testing import absltest
import numpy as np

from jax_autorec import errors, files
from jax_autorec.train import records


class _Terminal(io.StringIO):
  def isatty(self):
    return True


class RecordsTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.workdir = pathlib.Path(self.create_tempdir().full_path)

  def _lines(self):
    text = (self.workdir / 'metrics.jsonl').read_text()
    return [json.loads(line) for line in text.splitlines()]

  def _write(self, *rows, rewind=None):
    kept = records.Records(self.workdir)
    if rewind:
      kept.rewind(*rewind)
    for stage, step, value in rows:
      kept.write(stage, step, {'value': value})
    kept.close()

  def test_lines_are_there_as_soon_as_written(self):
    kept = records.Records(self.workdir)
    kept.write('search', 5, {'loss': 0.25, 'gates': {'pairs': [0.0, 0.5]}})
    (line,) = self._lines()
    self.assertEqual(line['gates'], {'pairs': [0.0, 0.5]})
    self.assertEqual((line['stage'], line['step']), ('search', 5))
    kept.close()

  def test_rewound_run_has_every_row_once(self):
    self._write(('a', 0, 0), ('a', 5, 1), ('b', 5, 2), ('a', 10, 3))
    # Killed in the middle of a line.
    with open(self.workdir / 'metrics.jsonl', 'a') as file:
      file.write('{"stage": "a", "st')
    self._write(('a', 10, 4), ('a', 15, 5), rewind=('a', 5))
    values = {(x['stage'], x['step']): x['value'] for x in self._lines()}
    self.assertLen(self._lines(), 5)
    self.assertEqual(
      values,
      {('a', 0): 0, ('a', 5): 1, ('b', 5): 2, ('a', 10): 4, ('a', 15): 5},
    )
    # Another process appends to it.
    self._write(('c', 1, 6))
    self.assertLen(self._lines(), 6)

  def test_half_a_line_is_not_joined_with_the_next(self):
    (self.workdir / 'metrics.jsonl').write_text('{"stage": "a", "st')
    self._write(('a', 5, 1))
    text = (self.workdir / 'metrics.jsonl').read_text().splitlines()
    self.assertEqual(json.loads(text[-1])['value'], 1)

  def test_full_disk_is_named(self):
    kept = records.Records(self.workdir)
    full = OSError(28, 'No space left on device')
    with mock.patch.object(
      kept, '_file', mock.Mock(**{'write.side_effect': full})
    ):
      with self.assertRaisesRegex(
        errors.CheckpointError, 'No space.*continues'
      ):
        kept.write('a', 1, {})
    kept.close()

  def test_without_a_workdir_nothing_is_kept(self):
    kept = records.Records(None)
    kept.rewind('a', 1)
    kept.write('a', 1, {'value': 1})
    kept.close()

  def test_missing_workdir_is_named(self):
    with self.assertRaisesRegex(errors.CheckpointError, 'nowhere'):
      records.Records(self.workdir / 'nowhere')


class LinesTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.path = pathlib.Path(self.create_tempdir().full_path) / 'scored.jsonl'
    lines = records.Lines(self.path)
    for trial in (1, 2, 3):
      lines.append({'trial': trial, 'auc': trial / 10})

  def _trials(self):
    return [line['trial'] for line in records.Lines(self.path).values]

  def test_whole_lines_are_read_and_not_written_again(self):
    before = self.path.stat().st_ino
    with mock.patch.object(records.files, 'write_text') as write:
      self.assertEqual(self._trials(), [1, 2, 3])
    write.assert_not_called()
    self.assertEqual(self.path.stat().st_ino, before)

  def test_a_cut_line_goes_and_the_next_one_takes_its_place(self):
    whole = self.path.read_bytes()
    for end in range(len(whole) - 25, len(whole)):
      self.path.write_bytes(whole[:end])
      lines = records.Lines(self.path)
      kept = whole[:end].count(b'\n')
      self.assertLen(lines.values, kept)
      self.assertLen(self.path.read_bytes().split(b'\n'), kept + 1)
      lines.append({'trial': 9})
      self.assertEqual(self._trials(), [1, 2, 3][:kept] + [9])

  def test_a_full_disk_costs_no_line_that_was_whole(self):
    whole = self.path.read_bytes()
    self.path.write_bytes(whole[:-3])
    full = OSError(28, 'No space left on device')
    with mock.patch.object(files.os, 'replace', side_effect=full):
      with self.assertRaisesRegex(errors.CheckpointError, 'No space.*again'):
        records.Lines(self.path)
    self.assertEqual(self.path.read_bytes(), whole[:-3])
    self.assertEqual(self._trials(), [1, 2])

  def test_a_line_that_cannot_be_written_is_named(self):
    lines = records.Lines(self.path)
    full = OSError(28, 'No space left on device')
    with mock.patch('builtins.open', side_effect=full):
      with self.assertRaisesRegex(errors.CheckpointError, 'jsonl: No space'):
        lines.append({'trial': 4})
    self.assertEqual([line['trial'] for line in lines.values], [1, 2, 3])
    self.assertEqual(self._trials(), [1, 2, 3])

  def test_a_line_that_is_no_json_is_named(self):
    self.path.write_text('{"trial": 1}\nnull and void\n{"trial": 3}\n')
    with self.assertRaisesRegex(errors.CheckpointError, 'line 2 is not JSON'):
      records.Lines(self.path)

  def test_without_a_file_values_are_kept(self):
    lines = records.Lines(None)
    lines.append({'widths': (2, 4)})
    # As a file would give them back.
    self.assertEqual(lines.values, [{'widths': [2, 4]}])


class ProgressTest(absltest.TestCase):
  def test_one_line_per_interval_where_nobody_watches(self):
    """Ten steps of 4 s each, 32 rows a step, begun at step 10 of 30."""
    seconds = itertools.count(100, 4)
    clock = mock.patch.object(
      records.time, 'monotonic', lambda: float(next(seconds))
    )
    quiet = mock.patch.object(records.sys, 'stderr', io.StringIO())
    with clock, quiet, self.assertLogs(level='INFO') as logs:
      # Reads the clock once to begin and once (twice with a line) per step.
      progress = records.Progress('search', 30, 10, 32)
      for step in range(11, 21):
        progress.update(step, loss=np.float32(0.5))
      progress.close()
    self.assertBetween(len(logs.output), 3, 5)
    first = logs.output[0]
    self.assertIn('search: step 13 of 30, loss 0.5000', first)
    # 3 steps in 12 s: 17 more take 68 s.
    self.assertIn('ETA 68 s', first)

  def test_bar_where_a_person_watches(self):
    terminal = _Terminal()
    with mock.patch.object(records.sys, 'stderr', terminal):
      progress = records.Progress('retrain', 30, 10, 32)
      progress.update(20, loss=0.25)
      progress.update(30, loss=0.125)
      progress.close()
    shown = terminal.getvalue()
    self.assertIn('retrain', shown)
    self.assertIn('30/30', shown)
    self.assertIn('loss=0.1250', shown)
    self.assertIn('ex/s=', shown)


if __name__ == '__main__':
  absltest.main()
