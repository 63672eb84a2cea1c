import json
import pathlib
import shutil
import signal
import subprocess
import sys
from unittest import mock

from absl.testing import absltest, parameterized
import numpy as np

from jax_autorec import errors
from jax_autorec.data import ingest, store
from jax_autorec.data import source as source_lib

Column = source_lib.Column


class StoreTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.root = pathlib.Path(self.create_tempdir().full_path)
    self.raw = self.root / 'x.csv'
    rng = np.random.default_rng(0)
    rows = [f'{i % 2},{rng.integers(9)},{rng.normal()}' for i in range(300)]
    self.raw.write_text('label,city,price\n' + '\n'.join(rows) + '\n')
    self.source = source_lib.Source(
      'mine',
      {'all': (str(self.raw),)},
      (Column('city'), Column('price', 'numeric')),
    )
    self.stores = self.root / 'stores'
    self.path = ingest.prepare(self.source, self.stores)

  def test_arrays_are_mapped_and_typed(self):
    data = store.open_store(self.path)
    self.assertEqual(data.name, 'mine')
    self.assertIsInstance(data.train.ids, np.memmap)
    with self.assertRaises(ValueError):
      data.train.ids[0, 0] = 5  # A shared file must not be written.
    dtypes = {
      name: getattr(data.train, name).dtype
      for name in ('ids', 'numeric', 'missing', 'labels')
    }
    self.assertEqual(
      {k: np.dtype(v) for k, v in dtypes.items()},
      {
        'ids': np.dtype('int32'),
        'numeric': np.dtype('float32'),
        'missing': np.dtype(bool),
        'labels': np.dtype('float32'),
      },
    )
    self.assertIsNone(data.train.weights)

  @parameterized.parameters(
    'train.ids', 'test.labels', 'vocabulary/0000.parquet', 'numeric.json'
  )
  def test_damage_is_named_and_refused(self, name):
    path = self.path / name
    good = path.read_bytes()
    changes = {
      'has another checksum': good[:9] + bytes([good[9] ^ 1]) + good[10:],
      f'has {len(good) - 1} bytes, expected {len(good)}': good[:-1],
    }
    for message, data in changes.items():
      path.write_bytes(data)
      refused = f'{self.path.name} is damaged .*{name} {message}'
      with self.assertRaisesRegex(errors.DataError, refused):
        ingest.load(self.source, self.stores)
      if not name.startswith('t'):  # An encoder reads no rows.
        with self.assertRaisesRegex(errors.DataError, refused):
          store.read_encoder(self.path)
    path.unlink()
    with self.assertRaisesRegex(errors.DataError, f'{name} has -1 bytes'):
      ingest.load(self.source, self.stores)
    path.write_bytes(good)
    ingest.load(self.source, self.stores)

  def test_damaged_manifests_and_other_versions(self):
    path = self.path / 'manifest.json'
    good = path.read_text()
    path.write_text(good[: len(good) // 2])
    with self.assertRaisesRegex(errors.DataError, 'damaged .manifest.json'):
      ingest.load(self.source, self.stores)
    changed = json.loads(good)
    changed['schema']['fields'][0]['vocab_size'] += 1
    for text, message in [
      (json.dumps(changed), 'manifest.json has another checksum'),
      ('{"version": 3}', 'manifest.json has another checksum'),
      ('[]', 'manifest.json holds no table'),
    ]:
      path.write_text(text)
      with self.assertRaisesRegex(errors.DataError, message):
        ingest.load(self.source, self.stores)
    path.write_text(json.dumps(json.loads(good) | {'version': 99}))
    for function in (store.open_store, store.read_encoder):
      with self.assertRaisesRegex(errors.DataError, 'version 99'):
        function(self.path)
    shutil.rmtree(self.path)
    for function in (store.open_store, store.read_encoder):
      with self.assertRaisesRegex(errors.DataError, 'holds no encoded set'):
        function(self.path)

  def test_a_store_is_there_whole_or_not_at_all(self):
    """Dying at any file leaves no store; the old one stays until the end."""
    before = sorted(p.name for p in self.path.iterdir())
    self.raw.write_text('label,city,price\n' + '1,a,2\n0,b,3\n' * 200)
    for function in ('_sync', '_checksum'):
      with mock.patch.object(store, function, side_effect=KeyboardInterrupt):
        with self.assertRaises(KeyboardInterrupt):
          ingest.prepare(self.source, self.stores)
      self.assertEqual(
        [p.name for p in self.stores.iterdir()], [self.path.name]
      )
      self.assertEqual(sorted(p.name for p in self.path.iterdir()), before)
    data = ingest.load(self.source, self.stores)
    self.assertEqual(data.counts['kept'], 400)
    self.assertEqual([p.name for p in self.stores.iterdir()], [self.path.name])

  def test_what_a_killed_process_left_is_cleared_away(self):
    shutil.rmtree(self.path)
    script = (
      'import os, signal, sys\n'
      'from jax_autorec.data import ingest, source, store\n'
      'kill = lambda *args: os.kill(os.getpid(), signal.SIGKILL)\n'
      'store.Writer.finish = kill\n'
      'columns = source.Column("city"), source.Column("price", "numeric")\n'
      'raw, stores = sys.argv[1:]\n'
      'mine = source.Source("mine", {"all": (raw,)}, columns)\n'
      'ingest.prepare(mine, stores)\n'
    )
    arguments = [sys.executable, '-c', script, self.raw, self.stores]
    killed = subprocess.run(arguments, check=False)
    self.assertEqual(killed.returncode, -signal.SIGKILL)
    self.assertLen(list(self.stores.iterdir()), 1)
    self.assertEqual(ingest.prepare(self.source, self.stores), self.path)
    self.assertEqual([p.name for p in self.stores.iterdir()], [self.path.name])

  def test_two_at_once_leave_one_whole_store(self):
    """The slower one leaves the faster one's store: it may be in use."""
    shutil.rmtree(self.path)
    inodes = []
    finish = store.Writer.finish

    def late(writer, *args):
      with mock.patch.object(store.Writer, 'finish', finish):
        writer.directory.rename(self.root / 'aside')
        ingest.prepare(self.source, self.stores)
        inodes.append(self.path.stat().st_ino)
        (self.root / 'aside').rename(writer.directory)
      return finish(writer, *args)

    with mock.patch.object(store.Writer, 'finish', late):
      data = ingest.load(self.source, self.stores)
    self.assertEqual(data.counts['kept'], 300)
    self.assertEqual(inodes, [self.path.stat().st_ino])
    self.assertEqual([p.name for p in self.stores.iterdir()], [self.path.name])


if __name__ == '__main__':
  absltest.main()
