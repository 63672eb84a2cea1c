import os
import pathlib

from absl.testing import absltest
import numpy as np

from jax_autorec import files


class ReplacingTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.path = pathlib.Path(self.create_tempdir()) / 'table.md'
    self.path.write_text('old')

  def test_the_old_file_stands_until_all_is_written(self):
    with files.replacing(self.path) as file:
      file.write(b'new')
      file.flush()
      self.assertEqual(self.path.read_text(), 'old')
    self.assertEqual(self.path.read_text(), 'new')
    self.assertEqual(os.listdir(self.path.parent), ['table.md'])

  def test_a_failure_leaves_the_old_file_and_nothing_else(self):
    with self.assertRaises(KeyboardInterrupt):
      with files.replacing(self.path) as file:
        file.write(b'ne')
        raise KeyboardInterrupt
    self.assertEqual(self.path.read_text(), 'old')
    self.assertEqual(os.listdir(self.path.parent), ['table.md'])

  def test_two_processes_do_not_share_what_is_not_finished(self):
    with files.replacing(self.path) as file:
      ours = {name for name in os.listdir(self.path.parent)}
      child = os.fork()
      if not child:
        try:
          files.write_text(self.path, 'of the other')
        finally:
          os._exit(0)
      os.waitpid(child, 0)
      self.assertEqual(self.path.read_text(), 'of the other')
      self.assertEqual(set(os.listdir(self.path.parent)), ours)
      file.write(b'ours')
    self.assertEqual(self.path.read_text(), 'ours')

  def test_text_is_utf8_as_it_is(self):
    files.write_text(self.path, 'a\r\nµ\n')
    self.assertEqual(self.path.read_bytes(), 'a\r\nµ\n'.encode())

  def test_arrays(self):
    path = self.path.with_name('weights.npz')
    with files.replacing(path) as file:
      np.savez(file, a=np.arange(3))
    with np.load(path) as found:
      np.testing.assert_array_equal(found['a'], [0, 1, 2])

  def test_a_directory_that_is_missing_is_an_error(self):
    with self.assertRaises(FileNotFoundError):
      files.write_text(self.path.parent / 'none' / 'x', '')


if __name__ == '__main__':
  absltest.main()
