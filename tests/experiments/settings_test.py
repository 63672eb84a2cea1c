import json
import pathlib
from unittest import mock

from absl.testing import absltest, parameterized

from experiments import cli
from experiments import known as known_lib
from experiments import settings as settings_lib
from experiments.configs import (
  autodim,
  autodis,
  autofis,
  base,
  defaults,
  joint,
  ras,
)
from jax_autorec import errors


def _with_tuned(test, name, chosen, searched=None):
  """Puts a file of tuned values where `known` looks for them."""
  directory = pathlib.Path(test.create_tempdir())
  options = defaults.config(name, 'base').data.to_dict()
  options.pop('max_rows')
  content = {'chosen': chosen, 'data': options, 'searched': searched or {}}
  (directory / f'{name}.json').write_text(json.dumps(content))
  test.enter_context(mock.patch.object(known_lib, 'TUNED', directory))


class ResolveTest(parameterized.TestCase):
  def test_a_given_value_wins_over_tuned_and_protocol(self):
    _with_tuned(self, 'frappe', {'fm': {'learning_rate': 0.5}})
    config = autofis.get_config('frappe')
    values = settings_lib.resolve(config)
    self.assertEqual(values['control_train']['base']['learning_rate'], 0.5)
    config.train.learning_rate = 0.25
    values = settings_lib.resolve(config)
    self.assertEqual(values['train']['learning_rate'], 0.25)
    for control, train in values['control_train'].items():
      self.assertEqual(train['learning_rate'], 0.25, control)

  def test_each_model_takes_what_was_tuned_for_it(self):
    rates = {'lr': 1.0, 'fm': 2.0, 'fm+gates': 3.0, 'fm+autofis': 4.0}
    chosen = {
      model: {'learning_rate': rate, 'embedding_l2': rate / 100}
      for model, rate in rates.items()
    }
    _with_tuned(self, 'adult', chosen)
    values = settings_lib.resolve(autofis.get_config('adult'))
    controls = values['control_train']
    found = {name: train['learning_rate'] for name, train in controls.items()}
    # The random subset is trained as the result is: only its pairs differ.
    self.assertEqual(found, {'lr': 1.0, 'base': 2.0, 'all': 3.0, 'random': 4.0})
    self.assertEqual(values['train']['learning_rate'], 4.0)
    # The supernet is the gated model; what a search is known to want is first.
    search = values['search']['train']
    self.assertEqual(search, {'learning_rate': 1e-2, 'embedding_l2': 0.03})

  def test_what_is_not_tuned_takes_the_nearest(self):
    chosen = {'fm+gates': {'learning_rate': 3.0}}
    _with_tuned(self, 'frappe', chosen)
    values = settings_lib.resolve(autofis.get_config('frappe'))
    self.assertEqual(values['train']['learning_rate'], 3.0)
    # The plain model's rate is the protocol's.
    self.assertEqual(values['control_train']['base']['learning_rate'], 1e-3)

  def test_a_label_has_values_of_its_own(self):
    rates = {'fm': 1.0, 'fm+ras': 2.0, 'fm+ras_small': 3.0}
    chosen = {model: {'learning_rate': rate} for model, rate in rates.items()}
    _with_tuned(self, 'adult', chosen)
    for label, expected in (
      (None, 2.0),
      ('fm+ras_small', 3.0),
      ('fm+ras_large', 2.0),
    ):
      config = ras.get_config('adult')
      config.label = label
      values = settings_lib.resolve(config)
      self.assertEqual(values['train']['learning_rate'], expected)
      # Other models do not take it.
      controls = values['control_train']
      self.assertEqual(controls['base']['learning_rate'], 1.0)

  def test_a_variant_searches_as_the_row_that_it_is_a_variant_of(self):
    chosen = {'fm+autodim': {'embedding_l2': 1.0}, 'fm': {'embedding_l2': 5.0}}
    searched = {'fm+autodim': {'embedding_l2': 2.0}}
    _with_tuned(self, 'adult', chosen, searched=searched)
    for label in ('fm+autodim', 'fm+autodim_narrow'):
      config = autodim.get_config('adult')
      config.label = label
      values = settings_lib.resolve(config)
      self.assertEqual(values['train']['embedding_l2'], 1.0)
      self.assertEqual(values['search']['train']['embedding_l2'], 2.0)

  def test_embeddings_of_numbers_have_no_values_of_one_anothers(self):
    rates = {'fm': 1.0, 'fm+autodis': 2.0, 'fm+efd': 3.0}
    chosen = {model: {'learning_rate': rate} for model, rate in rates.items()}
    _with_tuned(self, 'adult', chosen)
    for label, expected in (
      ('fm+autodis', 2.0),
      ('fm+efd', 3.0),
      ('fm+edd', 1.0),
      (None, 2.0),
    ):
      config = autodis.get_config('adult')
      config.label = label
      config.controls = ('base', 'numeric_efd', 'numeric_edd')
      values = settings_lib.resolve(config)
      self.assertEqual(values['train']['learning_rate'], expected)
      controls = values['control_train']
      self.assertEqual(
        [own['learning_rate'] for own in controls.values()], [1.0, 3.0, 1.0]
      )

  def test_searches_in_turn_take_what_was_tuned_for_each(self):
    chosen = {
      'fm': {'learning_rate': 1.0, 'embedding_l2': 1.0},
      'fm+gates': {'embedding_l2': 2.0},
      'fm+autofis': {'embedding_l2': 3.0},
    }
    _with_tuned(self, 'adult', chosen)
    config = joint.get_config('adult')
    config.model = 'fm'
    config.search.order = 'in_turn'
    values = settings_lib.resolve(config)
    self.assertEqual(values['train']['embedding_l2'], 3.0)
    for name, module in (('autofis', autofis), ('autodim', autodim)):
      alone = module.get_config('adult')
      alone.model = 'fm'
      expected = settings_lib.resolve(alone)
      own = values['search'][name]['train']
      for key, value in expected['search']['train'].items():
        self.assertEqual(own[key], value, (name, key))
      self.assertEqual(own['table_std'], expected['train']['table_std'], name)

  def test_unknown_parts_are_named(self):
    for parts in ((), ('autofis', 'mde')):
      config = joint.get_config('planted')
      config.search.update({'order': 'in_turn', 'parts': parts})
      settings_lib.resolve(config)  # The method says what is wrong.

  def test_searches_in_turn_are_trained_as_they_are_alone(self):
    config = joint.get_config('planted')
    config.search.order = 'in_turn'
    config.search.parts = ('autofis', 'autodim', 'hidden')
    search = settings_lib.resolve(config)['search']
    for name, module in (('autofis', autofis), ('autodim', autodim)):
      alone = settings_lib.resolve(module.get_config('planted'))['search']
      own = search[name]['train']
      self.assertEqual(
        {key: own[key] for key in alone['train']}, alone['train']
      )
    # As long as the longest; blocks want an optimiser that leaves rows alone.
    self.assertEqual(search['epochs'], 10)
    self.assertEqual(search['train']['table_optimizer'], 'dense_adam')
    config.search.parts = ('autofis', 'nis')
    search = settings_lib.resolve(config)['search']
    self.assertEqual(search['train']['table_optimizer'], 'adam')
    self.assertEqual(search['nis']['train']['table_optimizer'], 'adam')
    self.assertEqual(
      search['autofis']['train']['table_optimizer'], 'dense_adam'
    )

  def test_controls_of_one_width_take_what_was_tuned_for_it(self):
    rates = {'fm': 1.0, 'fm+autodim': 2.0, 'fm+fde8': 3.0, 'fm+fde32': 4.0}
    chosen = {
      label: {'learning_rate': rate, 'embedding_l2': rate / 100}
      for label, rate in rates.items()
    }
    _with_tuned(self, 'adult', chosen)
    config = autodim.get_config('adult')
    values = settings_lib.resolve(config)
    rates = {k: v['learning_rate'] for k, v in values['control_train'].items()}
    self.assertEqual(rates['base'], 4.0)
    # Widths that were not tuned take the plain model's.
    self.assertEqual(rates['uniform'], 1.0)
    self.assertEqual(
      values['uniform_tuned'],
      {'8': chosen['fm+fde8'], '32': chosen['fm+fde32']},
    )
    # A given value wins.
    config.train.learning_rate = 0.5
    values = settings_lib.resolve(config)
    self.assertEqual(values['control_train']['base']['learning_rate'], 0.5)
    self.assertEqual(values['uniform_tuned']['8'], {'embedding_l2': 0.03})
    config.tuned = False
    self.assertEmpty(settings_lib.resolve(config)['uniform_tuned'])
    # Other methods have no width to go by.
    values = settings_lib.resolve(autofis.get_config('adult'))
    self.assertEqual(values['control_train']['base']['learning_rate'], 1.0)

  def test_a_search_of_which_nothing_is_known_has_a_length(self):
    values = settings_lib.resolve(autodim.get_config('frappe'))
    self.assertGreater(values['search']['epochs'], 0)
    # What is known is left as it is.
    values = settings_lib.resolve(autofis.get_config('planted'))
    self.assertIsNone(values['search']['min_steps'])

  def test_the_protocol_alone_is_for_unsearched_models(self):
    _with_tuned(self, 'frappe', {'deepfm': {'embedding_l2': 7.0}})
    config = base.get_config('frappe')
    train = settings_lib.resolve(config)['train']
    # BARS, DeepFM on Frappe.
    self.assertEqual(train['embedding_l2'], 0.05)
    self.assertEqual(train['batch_size'], 4096)
    self.assertEqual(train['epochs'], 100)
    config.tuned = True
    train = settings_lib.resolve(config)['train']
    self.assertEqual(train['embedding_l2'], 7.0)

  def test_options_of_a_data_set_are_those_of_its_loader(self):
    data = autofis.get_config('criteo').data
    self.assertEqual((data.min_count, data.split), (1, 'ratio'))
    self.assertIsNone(data.source)
    self.assertEqual(autofis.get_config('frappe').data.draw, 0)

  def test_tiny_runs_are_tiny(self):
    config = autofis.get_config('criteo,tiny')
    config.model = 'deepfm'
    values = settings_lib.resolve(config)
    self.assertEqual(values['model_options']['hidden'], (32,))
    self.assertEqual(values['data']['max_rows'], 20_000)
    self.assertLessEqual(values['train']['epochs'], 2)
    config.model_options.hidden = (8, 8)
    values = settings_lib.resolve(config)
    self.assertEqual(values['model_options']['hidden'], (8, 8))

  def test_an_option_that_the_model_lacks_is_refused(self):
    config = autofis.get_config('frappe')
    config.model_options.hidden = (8,)
    with self.assertRaisesRegex(errors.ConfigError, "'fm' has no hidden"):
      settings_lib.resolve(config)

  @parameterized.parameters(
    ('model', 'depfm', "'deepfm'"), ('data.max_rows', -1, 'max_rows is -1')
  )
  def test_a_senseless_value_is_refused(self, key, value, expected):
    config = autofis.get_config('frappe')
    config.update_from_flattened_dict({key: value})
    with self.assertRaisesRegex(errors.ConfigError, expected):
      settings_lib.resolve(config)

  @parameterized.parameters(
    'planted', 'planted_ranks', 'frappe', 'diabetes130', 'own.toml'
  )
  def test_training_settings_are_complete_and_valid(self, data):
    values = settings_lib.fit_batch_size(
      settings_lib.resolve(autofis.get_config(data)), 30_000
    )
    trains = [values['train'], *values['control_train'].values()]
    for train in trains:
      self.assertEqual(set(train), set(values['train']))
      settings = settings_lib.training(values, 'none', **train)
      self.assertGreater(settings.learning_rate, 0)
    search = settings_lib.training(values, 'none', **values['search']['train'])
    rate = values['search']['train']['learning_rate']
    self.assertEqual(search.learning_rate, rate)


class BatchSizeTest(parameterized.TestCase):
  @parameterized.parameters(
    (100, 256), (29_000, 256), (60_000, 512), (409_600, 4096), (10**9, 4096)
  )
  def test_few_rows_get_small_batches(self, num_rows, expected):
    values = settings_lib.resolve(autofis.get_config('own.toml'))
    fitted = settings_lib.fit_batch_size(values, num_rows)
    self.assertEqual(fitted['train']['batch_size'], expected)
    self.assertEqual(fitted['control_train']['lr']['batch_size'], expected)

  def test_a_given_size_stays(self):
    config = autofis.get_config('own.toml')
    config.train.batch_size = 700
    values = settings_lib.resolve(config)
    fitted = settings_lib.fit_batch_size(values, 100)
    self.assertEqual(fitted['train']['batch_size'], 700)


class OverridesTest(parameterized.TestCase):
  def test_known_keys_pass(self):
    arguments = ['--config.search.train.learning_rate=1', '--config.seed', '3']
    cli.check_overrides(arguments, autofis.get_config('frappe'))
    cli.check_overrides(['--config.data.draw=1'], autofis.get_config('frappe'))

  @parameterized.parameters(
    ('--config.search.epoch=3', "'search.epochs'"),
    ('-config.train.epoch=3', "'train.epochs'"),
    # A group is no value.
    ('--config.train=3', 'train.batch_size, train.clip_norm'),
    # Frappe's alone.
    ('--config.data.draw=1', 'data.max_rows'),
  )
  def test_others_are_refused_with_the_known_ones(self, argument, expected):
    with self.assertRaisesRegex(errors.ConfigError, expected):
      cli.check_overrides([argument], autofis.get_config('planted'))


if __name__ == '__main__':
  absltest.main()
