import json
import os
import pathlib
import signal

from absl.testing import absltest, parameterized
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from jax_autorec import errors
from jax_autorec.train import checkpoints, loop, parallel, records


@flax.struct.dataclass
class _State:
  """A toy state: the sum of all that was fed."""

  step: jax.Array
  total: jax.Array
  learning_rate_scale: jax.Array


def _fresh():
  return _State(jnp.int32(0), jnp.float32(0), jnp.float32(1))


def _program():
  def step(state, batch):
    total = state.total + batch * state.learning_rate_scale
    new = state.replace(step=state.step + 1, total=total)
    return new, {'loss': total / 7}

  return parallel.compile_steps(step)


def _feed(first, count):
  """The batch of step s is 1 / (s + 1): the sum tells any step apart."""
  return 1 / np.arange(first + 1, first + count + 1, dtype=np.float32)


class _Feed:
  """Feeds, and stops the process's run at a step."""

  def __init__(self, kill_at=None, bad_at=None):
    self.chunks = []
    self._kill_at, self._bad_at = kill_at, bad_at

  def __call__(self, first, count):
    if self._kill_at is not None and first >= self._kill_at:
      raise KeyboardInterrupt
    self.chunks.append((first, count))
    batch = _feed(first, count)
    if self._bad_at is not None and first <= self._bad_at < first + count:
      batch[self._bad_at - first] = np.nan
    return batch


def _fit(workdir, feed=None, scores=None, stopping=None, steps=20, **schedule):
  scores = iter(scores) if scores is not None else None

  def evaluate(state):
    score = float(state.total) if scores is None else next(scores)
    return {'auc': score}

  saved = (
    checkpoints.InMemory()
    if workdir is None
    else checkpoints.Checkpoints(pathlib.Path(workdir) / 'checkpoints')
  )
  record = records.Records(workdir)
  try:
    return loop.fit(
      _program(),
      _fresh(),
      stage='stage',
      feed=feed or _Feed(),
      batch_size=4,
      schedule=loop.Schedule(
        **{
          'steps': steps,
          'steps_per_epoch': 5,
          'steps_per_dispatch': 2,
          **schedule,
        }
      ),
      stopping=stopping or loop.Stopping(patience=0),
      evaluate=evaluate,
      checkpoints=saved,
      records=record,
    )
  finally:
    record.close()
    saved.wait()


class ScheduleTest(parameterized.TestCase):
  def test_chunks_follow_from_the_step_alone(self):
    schedule = loop.Schedule(steps=23, steps_per_epoch=9, steps_per_dispatch=4)
    ends, step = [], 0
    while step < 23:
      step += schedule.chunk(step)
      ends.append(step)
    self.assertEqual(ends, [4, 8, 9, 13, 17, 18, 22, 23])
    for step in range(23):  # From anywhere, the next end is the same.
      self.assertEqual(
        step + schedule.chunk(step), min(e for e in ends if e > step)
      )


class StoppingTest(parameterized.TestCase):
  def test_plateau_lowers_then_stops_and_keeps_the_best(self):
    scores = [0.5, 0.6, 0.55, 0.7, 0.6, 0.65, 0.9]
    state, position = _fit(
      None, scores=scores, stopping=loop.Stopping(2, 0.1), steps=100
    )
    # Epoch 3 and 5 lower; 5 and 6 are two in a row: 0.9 is never seen.
    self.assertEqual(position.step, 30)
    self.assertTrue(position.stopped)
    self.assertEqual((position.best, position.best_step), (0.7, 20))
    np.testing.assert_allclose(state.learning_rate_scale, 1e-3, rtol=1e-5)

  def test_rate_is_not_lowered_below_the_least(self):
    state, _ = _fit(
      None,
      scores=[0.5] * 9,
      stopping=loop.Stopping(8, 0.1, min_scale=0.01),
      steps=45,
    )
    np.testing.assert_allclose(state.learning_rate_scale, 0.01, rtol=1e-5)

  def test_improvement_less_than_min_delta_does_not_count(self):
    _, position = _fit(
      None,
      scores=[0.5, 0.5 + 1e-7, 0.5 + 5e-7],
      stopping=loop.Stopping(2, 0.1),
      steps=100,
    )
    self.assertEqual(position.best_step, 5)

  def test_undefined_auc_is_an_error(self):
    with self.assertRaisesRegex(errors.DataError, 'one class'):
      _fit(None, scores=[float('nan')])


class SurvivalTest(parameterized.TestCase):
  @parameterized.parameters(1, 6, 9, 11, 18)
  def test_killed_and_continued_equals_undisturbed(self, kill_at):
    """Saves at every dispatch; a kill loses what came after the last."""
    expected, expected_position = _fit(self.create_tempdir().full_path)
    workdir = self.create_tempdir().full_path
    with self.assertRaises(KeyboardInterrupt):
      _fit(workdir, feed=_Feed(kill_at=kill_at), save_seconds=0.0)
    feed = _Feed()
    state, position = _fit(workdir, feed=feed, save_seconds=0.0)
    self.assertEqual(float(state.total), float(expected.total))
    self.assertEqual(position.best_step, expected_position.best_step)
    self.assertGreater(feed.chunks[0][0] if kill_at > 4 else 1, 0)

  def test_finished_stage_trains_nothing_more(self):
    workdir = self.create_tempdir().full_path
    first, _ = _fit(workdir)
    feed = _Feed()
    again, position = _fit(workdir, feed=feed)
    self.assertEqual(feed.chunks, [])
    self.assertEqual(float(again.total), float(first.total))
    self.assertEqual(position.step, 20)

  def test_sigterm_saves_and_the_same_call_continues(self):
    expected, _ = _fit(None)
    workdir = self.create_tempdir().full_path

    class Terminate(_Feed):
      def __call__(self, first, count):
        if first == 7:
          os.kill(os.getpid(), signal.SIGTERM)
        return super().__call__(first, count)

    with self.assertRaisesRegex(loop.Interrupted, 'saved at step'):
      _fit(workdir, feed=Terminate(), save_seconds=1e9)
    state, _ = _fit(workdir)
    self.assertEqual(float(state.total), float(expected.total))

  def test_non_finite_loss_names_step_and_batch(self):
    workdir = self.create_tempdir().full_path
    with self.assertRaisesRegex(
      errors.TrainingError, r'step 13 \(epoch 2, batch 3\) is nan'
    ):
      _fit(workdir, feed=_Feed(bad_at=13))
    state, _ = _fit(workdir)  # The data mended: from the last checkpoint on.
    expected, _ = _fit(None)
    self.assertEqual(float(state.total), float(expected.total))

  def test_records_have_every_evaluation_once_after_a_kill(self):
    workdir = self.create_tempdir().full_path
    with self.assertRaises(KeyboardInterrupt):
      _fit(workdir, feed=_Feed(kill_at=13))
    _fit(workdir)
    lines = (pathlib.Path(workdir) / 'metrics.jsonl').read_text().splitlines()
    steps = [json.loads(line)['step'] for line in lines]
    self.assertCountEqual(set(steps), [5, 10, 15, 20])


class CheckpointsTest(parameterized.TestCase):
  def _saved(self, count=3):
    directory = pathlib.Path(self.create_tempdir().full_path)
    saved = checkpoints.Checkpoints(directory)
    key = jax.random.key(7)
    for step in range(1, count + 1):
      tree = {'w': jnp.full((4, 3), step / 3), 'key': key, 'n': jnp.int32(step)}
      saved.save(step, tree, {'step': step}, score=None)
    saved.close()
    return directory, tree

  def _damage(self, directory, step):
    files = [p for p in (directory / str(step)).rglob('*') if p.is_file()]
    largest = max(files, key=lambda p: p.stat().st_size)
    for path in files:
      if path == largest or 'manifest' in path.name or path.suffix == '':
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])

  def test_round_trip_keeps_every_bit(self):
    directory, tree = self._saved()
    state, progress = checkpoints.Checkpoints(directory).restore(tree)
    self.assertEqual(progress, {'step': 3})
    np.testing.assert_array_equal(state['w'], tree['w'])
    np.testing.assert_array_equal(
      jax.random.key_data(state['key']), jax.random.key_data(tree['key'])
    )

  def test_damaged_checkpoint_falls_back_to_the_one_before(self):
    directory, tree = self._saved()
    self._damage(directory, 3)
    with self.assertLogs(level='WARNING') as logs:
      state, progress = checkpoints.Checkpoints(directory).restore(tree)
    self.assertIn('Checkpoint 3 is damaged', ''.join(logs.output))
    self.assertEqual(progress, {'step': 2})
    np.testing.assert_allclose(state['w'], 2 / 3)

  def test_all_damaged_is_an_error(self):
    directory, tree = self._saved()
    for step in (2, 3):
      self._damage(directory, step)
    with self.assertRaisesRegex(errors.CheckpointError, 'Cannot read'):
      checkpoints.Checkpoints(directory).restore(tree)

  def test_the_best_outlives_the_latest(self):
    directory = self.create_tempdir().full_path
    saved = checkpoints.Checkpoints(directory)
    tree = {'w': jnp.zeros(3)}
    for step, score in [(1, 0.5), (2, 0.9), (3, 0.6), (4, 0.7), (5, None)]:
      saved.save(step, {'w': tree['w'] + step}, {'step': step}, score)
    state, _ = saved.restore_step(2, tree)
    np.testing.assert_array_equal(state['w'], 2)
    with self.assertRaises(errors.CheckpointError):
      saved.restore_step(1, tree)
    saved.close()

  def test_directory_that_cannot_be_made(self):
    file = self.create_tempfile()
    with self.assertRaisesRegex(errors.CheckpointError, 'Cannot make'):
      checkpoints.Checkpoints(file.full_path + '/inside')


if __name__ == '__main__':
  absltest.main()
