from absl.testing import absltest, parameterized

from jax_autorec import architecture as arch_lib
from jax_autorec import errors, head_spaces, spaces
from jax_autorec import schema as schema_lib


def _model(**options):
  fields = tuple(schema_lib.Field(name, vocab_size=5) for name in 'ab')
  return spaces.deepfm(schema_lib.Schema(fields), dim=4, **options)


class HiddenTest(parameterized.TestCase):
  def test_opened_and_settled(self):
    plain = _model(hidden=(40, 6))
    opened = head_spaces.open_hidden(plain, (0.5, 0.1, 0.09))
    self.assertEqual(opened.head.candidates, ((4, 20, 40), (1, 3, 6)))
    self.assertTrue(opened.is_open)
    directory = self.create_tempdir().full_path
    opened.save(directory)
    self.assertEqual(arch_lib.Architecture.load(directory), opened)
    settled = head_spaces.with_hidden(opened, (20, 1))
    self.assertEqual(settled, _model(hidden=(20, 1)))
    self.assertFalse(settled.is_open)

  @parameterized.parameters((20,), (20, 2), (20, 1, 1))
  def test_widths_are_candidates(self, *widths):
    opened = head_spaces.open_hidden(_model(hidden=(40, 6)), (0.5, 0.1))
    with self.assertRaisesRegex(errors.ConfigError, 'one of each of'):
      head_spaces.with_hidden(opened, widths)

  @parameterized.parameters(
    ({'hidden': ()}, (0.5,), 'no MLP'),
    ({'hidden': (4,), 'norm': 'layer'}, (0.5,), "norm 'layer'"),
    ({'hidden': (4,)}, (0.0,), 'share of a hidden layer'),
    ({'hidden': (4,)}, (1.5,), 'share of a hidden layer'),
  )
  def test_what_cannot_be_is_refused(self, options, shares, message):
    with self.assertRaisesRegex(errors.ConfigError, message):
      head_spaces.open_hidden(_model(**options), shares)

  @parameterized.parameters(
    (((2, 1, 4),), 'increasing'),
    (((0, 4),), 'increasing'),
    (((),), 'increasing'),
    (((1, 3),), 'up to the width'),
    (((1, 4), (1, 4)), 'up to the width'),
  )
  def test_candidates_fit_their_layers(self, candidates, message):
    with self.assertRaisesRegex(errors.ConfigError, message):
      arch_lib.HeadPlan(hidden=(4,), candidates=candidates)


if __name__ == '__main__':
  absltest.main()
