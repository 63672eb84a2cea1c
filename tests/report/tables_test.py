from absl.testing import absltest

from jax_autorec.report import tables


class GapTest(absltest.TestCase):
  def test_no_gap_is_none_that_is_closed(self):
    control = {'test': {'logloss': 0.44}}
    result = {
      'controls': {'lr': {'test': {'logloss': 0.6}}, 'base': control},
      'bayes': {'test': {'logloss': 0.4}},
    }
    # (0.6 - 0.44) of (0.6 - 0.4).
    self.assertAlmostEqual(tables.gap_closed(result, control), 0.8)
    for best in (0.6, 0.7):
      result['bayes']['test']['logloss'] = best
      self.assertIsNone(tables.gap_closed(result, control))
    del result['bayes']
    self.assertIsNone(tables.gap_closed(result, control))


if __name__ == '__main__':
  absltest.main()
