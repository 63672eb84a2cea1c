from absl.testing import absltest

from jax_autorec.data import lines


class CellsTest(absltest.TestCase):
  def test_cells_are_cut_as_arrow_cuts_them(self):
    for line, found in [
      ('a,b', ['a', 'b']),
      ('a,"b,c","d""e"', ['a', 'b,c', 'd"e']),
      ('a"b,"c"d,', ['a"b', 'cd', '']),
      ('"",x', ['', 'x']),
      ('"a,b', None),
      ('a,"', None),
    ]:
      self.assertEqual(lines.cells(line, ',', True), found, line)
    self.assertEqual(lines.cells('"a::b"::c', '::', True), ['a::b', 'c'])
    self.assertEqual(lines.cells('"a,b', ',', False), ['"a', 'b'])


if __name__ == '__main__':
  absltest.main()
