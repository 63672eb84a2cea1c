import json
import pathlib
from unittest import mock

from absl.testing import absltest

from experiments import known as known_lib
from experiments import settings as settings_lib
from experiments.configs import autofis, defaults
from jax_autorec import errors


def _with_tuned(test, name, chosen, data=None):
  """Puts a file of tuned values where `known` looks for them."""
  directory = pathlib.Path(test.create_tempdir())
  options = defaults.config(data or name, 'base').data.to_dict()
  options.pop('max_rows')
  content = {'chosen': chosen, 'data': options, 'searched': {}}
  (directory / f'{name}.json').write_text(json.dumps(content))
  test.enter_context(mock.patch.object(known_lib, 'TUNED', directory))


def _searches(name):
  return known_lib.known({'name': name}, 'fm', tuned=False)['search']


class KnownTest(absltest.TestCase):
  def test_what_suits_any_data_stands_where_a_protocol_says_nothing(self):
    searches = _searches('frappe')
    self.assertEqual(searches['autofis']['ratio'], 2.0)
    self.assertNotIn('min_steps', searches['autofis'])
    anywhere = _searches('adult')
    self.assertEqual(searches['nis'], anywhere['nis'])

  def test_a_schema_file_does_not_take_a_named_sets_values(self):
    _with_tuned(self, 'frappe', {'fm+gates': {'learning_rate': 3.0}})
    values = settings_lib.resolve(autofis.get_config('my/frappe.toml'))
    self.assertEqual(values['train']['learning_rate'], 1e-3)
    _with_tuned(self, 'own', {'fm+gates': {'learning_rate': 3.0}}, 'own.toml')
    values = settings_lib.resolve(autofis.get_config('my/own.toml'))
    self.assertEqual(values['train']['learning_rate'], 3.0)

  def test_values_of_one_split_are_not_for_another(self):
    _with_tuned(self, 'movielens_1m', {'fm': {'learning_rate': 3.0}})
    config = autofis.get_config('movielens_1m')
    found = settings_lib.resolve(config)['control_train']['base']
    self.assertEqual(found['learning_rate'], 3.0)
    config.data.max_rows = 100
    found = settings_lib.resolve(config)['control_train']['base']
    self.assertEqual(found['learning_rate'], 3.0)
    config.data.split = 'ratio'
    found = settings_lib.resolve(config)['control_train']['base']
    self.assertEqual(found['learning_rate'], 1e-3)
    why = known_lib.unused(config.data.to_dict())
    self.assertRegex(why, "1m.json is not used.*split is 'time', now 'ratio'")
    config.data.split = 'time'
    self.assertEmpty(known_lib.unused(config.data.to_dict()))

  def test_a_damaged_file_of_tuned_values_is_named(self):
    _with_tuned(self, 'frappe', {})
    (known_lib.TUNED / 'frappe.json').write_text('{"chosen": {')
    with self.assertRaisesRegex(errors.ConfigError, 'does not hold tuned'):
      settings_lib.resolve(autofis.get_config('frappe'))


if __name__ == '__main__':
  absltest.main()
