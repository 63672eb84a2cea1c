import functools

from absl.testing import absltest

from jax_autorec import errors, fields


class FieldPlanTest(absltest.TestCase):
  def test_factors_of_ranges_that_overlap_are_refused(self):
    pieces = [fields.Piece(0, 6, 2), fields.Piece(5, 9, 2)]
    plan = functools.partial(fields.FieldPlan, 'a', 'categorical', 2, 9)
    plan(pieces=pieces, combine='sum')
    with self.assertRaisesRegex(errors.ConfigError, 'do not overlap'):
      plan(pieces=pieces, combine='product')


if __name__ == '__main__':
  absltest.main()
