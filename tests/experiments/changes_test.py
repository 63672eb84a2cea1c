from absl.testing import absltest

from experiments import changes


class ChangesTest(absltest.TestCase):
  def test_names_what_differs(self):
    old = {'a': {'b': 1, 'c': [1, 2]}, 'd': 'x'}
    self.assertEqual(changes.between(old, old | {'new': None}), '')
    new = {'a': {'b': 2, 'c': [1, 2]}, 'd': 'x'}
    self.assertEqual(changes.between(old, new), 'a.b is 1, now 2')
    # What a config offers since, unless it is set.
    later = old | {'new': 7}
    self.assertEqual(changes.between(old, later, fresh=later), '')
    self.assertEqual(
      changes.between(old, old | {'new': 8}, fresh=later),
      'new is None, now 8',
    )
    many = changes.between({}, {str(i): i for i in range(9)})
    self.assertIn('4 more', many)


if __name__ == '__main__':
  absltest.main()
