from absl.testing import absltest

from jax_autorec import choices, errors


class ChoicesTest(absltest.TestCase):
  def test_rows_end_at_increasing_ids(self):
    for ends in ((), (0, 3), (3, 3), (4, 2)):
      with self.assertRaisesRegex(errors.ConfigError, 'increasing ids'):
        choices.Blocks((ends,), (2,))

  def test_senseless_thresholds(self):
    with self.assertRaisesRegex(errors.ConfigError, 'Granularity'):
      choices.SoftThreshold(4, 'row')
    with self.assertRaisesRegex(errors.ConfigError, 'scale'):
      choices.SoftThreshold(4, row_scale=0.0)

  def test_groups_must_begin_with_the_first_id(self):
    for starts in (((1, 4),), ((0, 4, 4),), ((),)):
      with self.assertRaisesRegex(errors.ConfigError, 'Groups of ids'):
        choices.ColumnMask(4, starts)
    with self.assertRaisesRegex(errors.ConfigError, 'width of a column mask'):
      choices.ColumnMask(0, ((0,),))


if __name__ == '__main__':
  absltest.main()
