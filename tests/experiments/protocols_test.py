from absl.testing import absltest, parameterized

from experiments import protocols
from experiments import settings as settings_lib
from experiments.configs import base, defaults
from jax_autorec import schema as schema_lib
from jax_autorec import spaces


class ProtocolsTest(parameterized.TestCase):
  @parameterized.parameters(*protocols.PROTOCOLS)
  def test_protocols_set_what_models_have(self, name):
    trained = defaults.config(name, 'base').train.keys()
    for model, values in protocols.PROTOCOLS[name].get('models', {}).items():
      unknown = values.keys() - trained - spaces.options(model).keys()
      self.assertEmpty(unknown, model)

  def test_every_model_has_its_published_settings(self):
    """Those of the benchmark differ by four decades: none is left out."""
    known = protocols.PROTOCOLS['frappe']['models']
    self.assertSameElements(known, set(spaces.MODELS) - {'rater'})
    fields = [
      schema_lib.Field(n, vocab_size=5) for n in ('user', 'item', 'day')
    ]
    for model, values in known.items():
      config = base.get_config('frappe')
      config.model = model
      resolved = settings_lib.resolve(config)
      train = resolved['train']
      self.assertEqual(train['embedding_l2'], values['embedding_l2'])
      self.assertEqual(train['l2'], values.get('l2', 0.0))
      options = settings_lib.given(resolved['model_options'])
      architecture = spaces.build(
        model, schema_lib.Schema(tuple(fields)), **options
      )
      self.assertEqual(architecture.dim, 1 if model == 'lr' else 10)


if __name__ == '__main__':
  absltest.main()
