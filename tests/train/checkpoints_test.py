import pathlib
import resource
import subprocess
import sys
from unittest import mock

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jax_autorec import errors
from jax_autorec.train import checkpoints


def _state(value=1):
  """Leaves of all kinds; no two bytes of the arrays need be equal."""
  key = jax.random.key(value)
  params = {
    'table': jax.random.normal(key, (700, 3)),
    'a.b': {'c': jnp.float32(value / 3), 'empty': {}},
  }
  return {
    'params': params,
    'optimizer': optax.adam(1e-3).init(params),
    'slots': jax.random.randint(key, (1001,), 0, 2**31 - 1),
    'key': key,
    'step': jnp.int32(value),
  }


def _assert_same_bits(test, got, expected):
  test.assertEqual(jax.tree.structure(got), jax.tree.structure(expected))
  for a, b in zip(*map(jax.tree.leaves, (got, expected))):
    test.assertEqual(a.dtype, b.dtype)
    if jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key):
      a, b = jax.random.key_data(a), jax.random.key_data(b)
    np.testing.assert_array_equal(a, b)


def _cut(path):
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _zero(path):
  """The length is right: what a power cut leaves of an unwritten page."""
  path.write_bytes(bytes(path.stat().st_size))


_DAMAGES = {
  'truncated_arrays': ('state/d/*', _cut),
  'zeroed_arrays': ('state/d/*', _zero),
  'missing_arrays': ('state/d/*', pathlib.Path.unlink),
  'missing_manifest': ('state/manifest.ocdbt', pathlib.Path.unlink),
  'truncated_metadata': ('state/_METADATA', _cut),
  'truncated_progress': ('progress/metadata', _cut),
  'missing_progress': ('progress/metadata', pathlib.Path.unlink),
}


class CheckpointsTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.directory = pathlib.Path(self.create_tempdir().full_path, 'stage')

  def _open(self, **kwargs):
    opened = checkpoints.Checkpoints(self.directory, **kwargs)
    self.addCleanup(opened.close)
    return opened

  def _save(self, *steps, **kwargs):
    opened = checkpoints.Checkpoints(self.directory, **kwargs)
    for step in steps:
      opened.save(step, _state(step), {'step': step})
    opened.close()

  def _damage(self, step, pattern, how):
    paths = list((self.directory / str(step)).glob(pattern))
    self.assertNotEmpty(paths)
    for path in paths:
      how(path)

  @parameterized.parameters(checkpoints._BLOCK_BYTES, 600)
  def test_round_trip_keeps_every_bit(self, block_bytes):
    """Large arrays are stored in blocks, here of 48 and of 150 rows."""
    with mock.patch.object(checkpoints, '_BLOCK_BYTES', block_bytes):
      self._save(1, 2)
      state, progress = self._open().restore(_state(9))
    self.assertEqual(progress, {'step': 2})
    _assert_same_bits(self, state, _state(2))

  def test_nothing_to_restore(self):
    self.assertIsNone(self._open().restore(_state()))

  def test_saves_what_was_there_although_training_goes_on_in_place(self):
    step = jax.jit(
      lambda state: {**state, 'params': optax.tree.scale(2, state['params'])},
      donate_argnums=0,
    )
    opened, state = self._open(), _state()
    for i in range(1, 4):
      opened.save(i, state, {})
      state = step(state)
    expected = _state()
    expected['params'] = optax.tree.scale(4, expected['params'])
    _assert_same_bits(self, opened.restore_step(3, _state())[0], expected)

  def test_keeps_the_latest_two_and_the_best(self):
    opened = self._open()
    for step in range(1, 6):
      opened.save(step, _state(step), {'step': step}, best=min(step, 2))
    opened.wait()
    kept = sorted(path.name for path in self.directory.iterdir())
    self.assertEqual(kept, ['2', '4', '5'])
    state, progress = opened.restore_step(2, _state(9))
    _assert_same_bits(self, state, _state(2))
    self.assertEqual(progress, {'step': 2})
    with self.assertRaisesRegex(errors.CheckpointError, 'read checkpoint 1'):
      opened.restore_step(1, _state(9))
    self.assertGreater(opened.bytes_on_disk(), 700 * 3 * 4 * 3)

  def test_the_best_outlives_the_process(self):
    for steps in ([1, 2, 3], [4, 5, 6]):
      opened = self._open()
      for step in steps:
        opened.save(step, _state(step), {'step': step}, best=min(step, 2))
      opened.close()
    kept = sorted(path.name for path in self.directory.iterdir())
    self.assertEqual(kept, ['2', '5', '6'])
    _assert_same_bits(
      self, self._open().restore_step(2, _state(9))[0], _state(2)
    )

  @parameterized.named_parameters((k, *v) for k, v in _DAMAGES.items())
  def test_damage_falls_back_to_the_one_before(self, pattern, how):
    self._save(1, 2)
    self._damage(2, pattern, how)
    opened = self._open()
    with self.assertLogs(level='WARNING') as logs:
      state, progress = opened.restore(_state(9))
    self.assertIn('Checkpoint 2 is damaged, skipped', ''.join(logs.output))
    self.assertEqual(progress, {'step': 1})
    _assert_same_bits(self, state, _state(1))
    # The run goes on from there and takes the damaged one's place.
    opened.save(2, _state(5), {'step': 2})
    opened.close()
    state, progress = self._open().restore(_state(9))
    _assert_same_bits(self, state, _state(5))

  def test_interrupted_save_is_as_if_never_begun(self):
    self._save(1, 2)
    # Until all is written a checkpoint has another name.
    path = self.directory / '2'
    path.rename(path.with_name('2.orbax-checkpoint-tmp'))
    state, _ = self._open().restore(_state(9))
    _assert_same_bits(self, state, _state(1))

  def test_all_damaged_is_an_error(self):
    self._save(1, 2)
    for step in (1, 2):
      self._damage(step, 'state/d/*', _cut)
    with self.assertRaisesRegex(
      errors.CheckpointError, f'Cannot read .* {self.directory}.*--workdir'
    ):
      self._open().restore(_state(9))

  def test_full_disk_loses_nothing(self):
    """A limit on the size of files stands in for the full disk."""
    opened = self._open()
    opened.save(1, _state(1), {'step': 1})
    opened.wait()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
      with self.assertRaisesRegex(errors.CheckpointError, 'free space'):
        opened.save(2, _state(2), {'step': 2})
        opened.wait()
    finally:
      resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    again = self._open()
    state, progress = again.restore(_state(9))
    self.assertEqual(progress, {'step': 1})
    _assert_same_bits(self, state, _state(1))
    again.save(2, _state(2), {'step': 2})
    again.close()
    _assert_same_bits(self, self._open().restore(_state(9))[0], _state(2))

  def test_another_run_is_refused(self):
    self._save(1, identity={'seed': 1, 'pairs': ('a', 'b'), 'rate': 0.1})
    same = self._open(identity={'seed': 1, 'pairs': ('a', 'b'), 'rate': 0.1})
    self.assertIsNotNone(same.restore(_state(9)))
    with self.assertRaisesRegex(errors.CheckpointError, 'differs in dim, seed'):
      self._open(
        identity={'seed': 2, 'pairs': ('a', 'b'), 'rate': 0.1, 'dim': 3}
      ).restore(_state(9))

  def test_another_shape_is_never_bent_to_fit(self):
    self._save(1)
    like = _state(9)
    like['params']['table'] = jnp.zeros((701, 3))
    with self.assertRaises(errors.CheckpointError):
      self._open().restore(like)

  def test_directory_that_cannot_be_made(self):
    file = self.create_tempfile()
    with self.assertRaisesRegex(errors.CheckpointError, 'Cannot make'):
      checkpoints.Checkpoints(file.full_path + '/inside')

  def test_a_large_table_is_held_once(self):
    """Peak memory in a process of its own, blocks being a tenth."""
    code = f"""
import resource, sys
import jax, jax.numpy as jnp
from jax_autorec.train import checkpoints
checkpoints._BLOCK_BYTES = 2**25
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
make = jax.jit(lambda: jnp.ones((5_000_011, 16)).at[0].set(2))
saved = checkpoints.Checkpoints({str(self.directory)!r})
saved.save(1, {{'table': jnp.ones(3)}}, {{}})
state = {{'table': make()}}
bytes = state['table'].nbytes
before = peak()
saved.save(2, state, {{}})
while_saving = peak() - before
state, _ = saved.restore(state)
assert float(state['table'].sum()) == 5_000_011 * 16 + 16
saved.close()
print(while_saving / bytes, (peak() - before) / bytes)
"""
    done = subprocess.run(
      [sys.executable, '-c', code], capture_output=True, text=True, check=False
    )
    self.assertEqual(done.returncode, 0, done.stderr)
    saving, restoring = map(float, done.stdout.split())
    self.assertLess(saving, 0.3)
    self.assertLess(restoring, 0.6)


class InMemoryTest(absltest.TestCase):
  def test_keeps_the_best_although_training_goes_on_in_place(self):
    step = jax.jit(
      lambda state: {**state, 'step': state['step'] + 1}, donate_argnums=0
    )
    kept, state = checkpoints.InMemory(), _state(5)
    for i, best in enumerate([0, 0, 2, 2]):
      kept.save(i, state, {'step': i}, best)
      state = step(state)
    best, progress = kept.restore_step(2, state)
    self.assertEqual((best['step'], progress), (7, {'step': 2}))
    self.assertIsNone(kept.restore(state))
    with self.assertRaisesRegex(errors.CheckpointError, 'Step 3'):
      kept.restore_step(3, state)


if __name__ == '__main__':
  absltest.main()
