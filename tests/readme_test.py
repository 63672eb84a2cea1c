"""The README does what it says."""

import pathlib
import re

from absl.testing import absltest

_ROOT = pathlib.Path(__file__).parent.parent


def _blocks(language):
  text = (_ROOT / 'README.md').read_text('utf-8')
  return re.findall(rf'```{language}\n(.*?)```', text, re.S)


class ReadmeTest(absltest.TestCase):
  def test_first_two_shell_blocks_are_one_line_each(self):
    text = (_ROOT / 'README.md').read_text('utf-8')
    blocks = re.findall(r'```(?:bash|sh|shell)\n(.*?)```', text, re.S)[:2]
    for block, module in zip(blocks, ('experiments.run', 'pytest')):
      self.assertLen(block.strip().splitlines(), 1)
      self.assertIn(f'-m {module}', block)

  def test_python_examples_run(self):
    blocks = _blocks('python')
    self.assertLen(blocks, 2)
    for block in blocks:
      exec(compile(block, 'README.md', 'exec'), {})

  def test_named_files_exist(self):
    text = (_ROOT / 'README.md').read_text('utf-8')
    for path in re.findall(r'\]\(([^)]+)\)', text):
      self.assertTrue((_ROOT / path).exists(), path)
    for path in re.findall(r'--config=(\S+?\.py)', text):
      self.assertTrue((_ROOT / path).exists(), path)


if __name__ == '__main__':
  absltest.main()
