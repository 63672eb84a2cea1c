import functools
import itertools
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
  """A toy state: the sum of all that was fed, with noise of its key."""

  key: jax.Array
  step: jax.Array
  total: jax.Array
  learning_rate_scale: jax.Array


def _fresh():
  return _State(jax.random.key(3), jnp.int32(0), jnp.float32(0), jnp.float32(1))


@functools.cache
def _program():
  def step(state, batch):
    noise = jax.random.uniform(jax.random.fold_in(state.key, state.step))
    total = state.total + (batch + noise) * state.learning_rate_scale
    new = state.replace(step=state.step + 1, total=total)
    return new, {'loss': total / 7, 'grad_norm': 1 / (batch - 2)}

  return parallel.compile_steps(step)


def _feed(first, count):
  """The batch of step s is 1 / (s + 1): the sum tells any step apart."""
  return 1 / np.arange(first + 1, first + count + 1, dtype=np.float32)


class _Feed:
  """Feeds, and stops the process's run at a step."""

  def __init__(self, kill_at=None, bad_at=None, bad=np.nan):
    self.chunks, self._bad = [], bad
    self._kill_at, self._bad_at = kill_at, bad_at

  def __call__(self, first, count):
    if self._kill_at is not None and first >= self._kill_at:
      raise KeyboardInterrupt
    self.chunks.append((first, count))
    batch = _feed(first, count)
    if self._bad_at is not None and first <= self._bad_at < first + count:
      batch[self._bad_at - first] = self._bad
    return batch


def _fit(
  workdir,
  feed=None,
  scores=None,
  stopping=None,
  steps=20,
  about=None,
  **schedule,
):
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
      about=about,
    )
  finally:
    record.close()
    saved.close()


def _lines(workdir):
  lines = (pathlib.Path(workdir) / 'metrics.jsonl').read_text().splitlines()
  return [json.loads(line) for line in lines]


class ScheduleTest(parameterized.TestCase):
  def test_chunks_follow_from_the_step_alone(self):
    for steps, per_epoch, per_dispatch in itertools.product(
      (1, 23, 27), (1, 4, 9), (1, 4, 10)
    ):
      schedule = loop.Schedule(steps, per_epoch, per_dispatch)
      ends = [
        end
        for end in range(1, steps + 1)
        if end == steps
        or end % per_epoch == 0
        or end % per_epoch % per_dispatch == 0
      ]
      for step in range(steps):  # Wherever a run was stopped.
        self.assertEqual(
          step + schedule.chunk(step), min(e for e in ends if e > step)
        )


class StoppingTest(parameterized.TestCase):
  def test_plateau_lowers_then_stops_and_keeps_the_best(self):
    scores = [0.5, 0.6, 0.55, 0.7, 0.6, 0.65, 0.9]
    feed = _Feed()
    state, position = _fit(
      None, feed, scores=scores, stopping=loop.Stopping(2, 0.1), steps=100
    )
    # Epochs 3, 5 and 6 lower; 5 and 6 are two in a row: 0.9 is never seen.
    # Epoch 4 improves, and does not raise the rate again.
    rates = np.repeat([1, 1, 1, 0.1, 0.1, 0.01], 5)
    noise = [
      jax.random.uniform(jax.random.fold_in(jax.random.key(3), i))
      for i in range(30)
    ]
    np.testing.assert_allclose(
      state.total, rates @ (_feed(0, 30) + np.array(noise)), rtol=1e-5
    )
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
    self.assertEqual((position.best_step, position.step), (5, 15))

  def test_without_patience_nothing_stops_or_lowers(self):
    state, position = _fit(
      None, scores=[0.5] * 6, stopping=loop.Stopping(0, 0.1), steps=30
    )
    self.assertEqual((position.step, position.waited), (30, 5))
    self.assertEqual(state.learning_rate_scale, 1)

  def test_a_loss_is_to_be_low(self):
    position = loop.Position()
    stopping = loop.Stopping(patience=1, metric='logloss')
    for step, (auc, loss) in enumerate(((0.6, 0.5), (0.5, 0.4), (0.7, 0.45))):
      position.step = step
      found = {'auc': auc, 'logloss': loss}
      loop._judge(position, found, stopping)
      self.assertEqual(position.best_step, min(step, 1))
    self.assertEqual((position.best, position.best_step), (-0.4, 1))
    self.assertTrue(position.stopped)

  def test_undefined_auc_is_an_error(self):
    with self.assertRaisesRegex(errors.DataError, 'one class'):
      _fit(None, scores=[float('nan')])


class SurvivalTest(parameterized.TestCase):
  @parameterized.parameters(1, 6, 9, 11, 18)
  def test_killed_and_continued_equals_undisturbed(self, kill_at):
    """Saves at every dispatch; a kill loses what came after the last."""
    undisturbed = self.create_tempdir().full_path
    # Falling scores lower the rate; the best stays that of the first epoch.
    scores = [0.9, 0.8, 0.7, 0.6]
    stopping = loop.Stopping(9, 0.5)
    expected, expected_position = _fit(
      undisturbed, scores=scores, stopping=stopping
    )
    workdir = self.create_tempdir().full_path
    with self.assertRaises(KeyboardInterrupt):
      _fit(
        workdir,
        feed=_Feed(kill_at=kill_at),
        scores=scores,
        stopping=stopping,
        save_seconds=0.0,
      )
    feed = _Feed()
    state, position = _fit(
      workdir,
      feed=feed,
      scores=scores[max(0, kill_at - 1) // 5 :],
      stopping=stopping,
      steps_per_dispatch=3,  # Of no account for a single bit.
    )
    self.assertEqual(float(state.total), float(expected.total))
    self.assertEqual(
      float(state.learning_rate_scale), float(expected.learning_rate_scale)
    )
    self.assertEqual(
      (position.best, position.best_step, position.waited),
      (expected_position.best, expected_position.best_step, 3),
    )
    self.assertGreaterEqual(feed.chunks[0][0], kill_at - 3)
    shown = ('step', 'epoch', 'valid_auc')
    rows = [
      [[line[k] for k in shown] for line in _lines(d)]
      for d in (workdir, undisturbed)
    ]
    self.assertEqual(*rows)
    self.assertLen(rows[0], 4)

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

    handler = signal.getsignal(signal.SIGTERM)
    with self.assertRaisesRegex(loop.Interrupted, 'saved at step 7'):
      _fit(workdir, feed=Terminate(), save_seconds=1e9)
    self.assertEqual(signal.getsignal(signal.SIGTERM), handler)
    feed = _Feed()
    state, _ = _fit(workdir, feed=feed)
    self.assertEqual(feed.chunks[0][0], 7)
    self.assertEqual(float(state.total), float(expected.total))

  @parameterized.parameters((np.nan, 'loss', 'nan'), (2.0, 'grad_norm', 'inf'))
  def test_non_finite_values_stop_with_step_and_batch(self, bad, name, value):
    """A bad gradient too, before the weights that it spoils are saved."""
    workdir = self.create_tempdir().full_path
    with self.assertRaisesRegex(
      errors.TrainingError,
      rf'stage: {name} of step 13 \(epoch 2, batch 3\) is {value}',
    ):
      _fit(workdir, feed=_Feed(bad_at=13, bad=bad), save_seconds=0.0)
    state, _ = _fit(workdir)  # The data mended: from the last checkpoint on.
    expected, _ = _fit(None)
    self.assertEqual(float(state.total), float(expected.total))

  def test_rate_is_that_of_compiled_steps(self):
    _, position = _fit(None)
    # Chunks of 2, 2 and 1 in each epoch; the first of each size compiles.
    self.assertEqual(position.train_steps, 20 - 3)
    rate = loop.examples_per_second(position, 4)
    self.assertAlmostEqual(rate, 17 * 4 / position.train_seconds)
    self.assertIsNone(loop.examples_per_second(loop.Position(), 4))

  def test_what_a_stage_is_about_stands_first_and_once(self):
    workdir = self.create_tempdir().full_path
    about = {'kind': 'names', 'names': ['a']}
    with self.assertRaises(KeyboardInterrupt):
      _fit(workdir, feed=_Feed(kill_at=12), about=about)
    _fit(workdir, about=about)
    lines = _lines(workdir)
    self.assertEqual([line['step'] for line in lines], [0, 5, 10, 15, 20])
    self.assertEqual(lines[0]['names'], ['a'])


if __name__ == '__main__':
  absltest.main()
