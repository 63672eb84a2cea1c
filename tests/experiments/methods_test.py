"""What the configs of closed methods ask for, without any training."""

import dataclasses

from absl.testing import absltest, parameterized

from experiments import cells, methods, stages
from experiments import settings as settings_lib
from experiments.configs import (
  autoctr,
  autoctr_table,
  autodim,
  autodis,
  autodis_table,
  autoemb,
  autofis,
  autogroup,
  autosrh,
  hidden,
  joint,
  mde,
  mgqe,
  nis,
  pep,
  qr,
  ras,
)
from experiments.configs import base as base_config
from experiments.methods import base as method_base
from jax_autorec import choices, errors, numeric, search
from jax_autorec.data import planted, planted_numeric
from jax_autorec.search import base, controls


def _task(config):
  data = planted.generate(num_rows=1000, max_values=300)
  values = settings_lib.fit_batch_size(settings_lib.resolve(config), 800)
  return stages.make_task(values, data)


def _asked(population):
  scored = []
  while (proposal := population.ask(scored)) is not None:
    scored.append(base.Scored(proposal, {'auc': 0.5}))
  return [one.architecture for one in scored]


class MdeTest(parameterized.TestCase):
  def test_sixteen_exponents_are_proposed_one_is_not(self):
    config = mde.get_config('planted')
    self.assertLen(config.search.alphas, 16)
    config.search.threshold = 0
    task, method = _task(config), methods.METHODS['mde']
    proposals = _asked(method.population(task))
    self.assertBetween(len(proposals), 10, 16)
    self.assertEqual(proposals[0], method.base(task))
    sizes = [proposal.embedding_params for proposal in proposals]
    self.assertEqual(sizes, sorted(sizes, reverse=True))
    config.search.alphas = (0.3,)
    task = _task(config)
    self.assertIsNone(method.population(task))
    self.assertEqual(method.space(task), proposals[6])

  def test_blocks_follow_the_train_frequencies(self):
    config = mde.get_config('planted')
    config.search.update({'alphas': (0.4,), 'threshold': 0, 'num_blocks': 4})
    found = methods.METHODS['mde'].space(_task(config))
    pieces = max((plan.all_pieces for plan in found.categorical), key=len)
    self.assertGreater(len(pieces), 2)

  def test_no_exponent(self):
    config = mde.get_config('planted')
    config.search.alphas = ()
    with self.assertRaisesRegex(errors.ConfigError, 'alphas is empty'):
      methods.METHODS['mde'].space(_task(config))


class AutoGroupTest(parameterized.TestCase):
  def test_numbers_of_groups_follow_the_fields_and_sizes_the_order(self):
    config = autogroup.get_config('planted')
    config.search.selection, config.search.sizes = 'hard', 'order'
    task = dataclasses.replace(_task(config), steps=100)
    method = methods.METHODS['autogroup']
    space = method.space(task)
    self.assertEqual(
      [plan.num_open for plan in space.interactions], [6, 54, 75]
    )
    (selector,) = method.selectors(task).values()
    selector.check(space)
    config.search.counts = (0, 4)
    (plan,) = method.space(_task(config)).interactions
    self.assertEqual((plan.order, plan.num_open), (2, 4))

  @parameterized.parameters(
    ('search.sizes', 'two', "'any' or 'order'"),
    ('search.order', 3, 'expected 1 or 2'),
    ('search.travel', 0.0, 'travel'),
    ('model', 'ipnn', "'ipnn'"),
  )
  def test_options(self, key, value, message):
    config = autogroup.get_config('planted')
    config.update_from_flattened_dict({key: value})
    method = methods.METHODS['autogroup']
    with self.assertRaisesRegex(errors.ConfigError, message):
      task = _task(config)
      method.space(task)
      method.selectors(task)


class JointTest(parameterized.TestCase):
  def _parts(self, *parts, **options):
    config = joint.get_config('planted')
    config.search.update({'parts': parts, **options})
    task = _task(config)
    return dataclasses.replace(task, steps=100), methods.METHODS['joint']

  def test_every_part_is_open_and_has_its_own_options(self):
    task, method = self._parts('nis', 'autofis', 'hidden')
    space = method.space(task)
    self.assertIsInstance(space.choice, choices.Blocks)
    self.assertTrue(space.interaction('pairs').is_open)
    self.assertLen(space.head.candidates, len(space.head.hidden))
    selectors = method.selectors(task)
    self.assertEqual(
      {slot: s.split for slot, s in selectors.items()},
      {'fields': 'valid', 'interactions': 'train', 'mlp': 'valid'},
    )
    self.assertEmpty(method.turns(task))
    widest = max(task.search['nis']['dims'])
    self.assertEqual(method.base(task), task.build(dim=widest))
    drawn = method.control('random_joint', task, space, method.base(task))
    self.assertFalse(drawn.is_open)

  @parameterized.parameters(
    ('nis', 'autofis'), ('hidden', 'autofis'), ('optembed', 'hidden')
  )
  def test_random_choices_after_searches_in_turn(self, *parts):
    """Though what was searched last has all but one slot closed."""
    task, method = self._parts(*parts, order='in_turn')
    plain = method.base(task)
    settled = None
    for turn in method.turns(task):
      space = turn.space(settled)
      name = turn.name
      part = methods.METHODS[name].part
      own = dataclasses.replace(task, search=task.search[name])
      settled = part.random(own, space, controls.keep_all(space))
    drawn = method.control('random_joint', task, space, settled)
    self.assertFalse(drawn.is_open)
    self.assertLen(drawn.head.hidden, len(plain.head.hidden))

  def test_in_turn_each_has_what_was_settled_before(self):
    task, method = self._parts('autofis', 'autodim', order='in_turn')
    first, second = method.turns(task)
    self.assertEqual((first.name, second.name), ('autofis', 'autodim'))
    self.assertEqual(list(first.selectors), ['interactions'])
    space = first.space(None)
    self.assertIsNone(space.choice)
    self.assertEqual(space.dim, max(task.search['autodim']['dims']))
    (terms,) = [plan.terms for plan in space.interactions]
    kept = dataclasses.replace(
      space.interactions[0], terms=terms[:2], gates='weights'
    )
    space = second.space(space.with_interaction(kept))
    self.assertEqual(space.interactions, (kept,))
    self.assertEqual(space.choice.dims, task.search['autodim']['dims'])

  @parameterized.parameters(
    ((), {}, 'one or more'),
    (('autofis', 'autofis'), {}, 'one or more'),
    (('autofis', 'mde'), {}, 'one or more of autodim, nis'),
    # Groups have vectors of their own, whose widths cannot be opened.
    (('autogroup', 'autodim'), {'order': 'in_turn'}, "the view 'main' alone"),
    (('autofis', 'autogroup'), {}, "autofis and autogroup.*'interactions'"),
    (('nis', 'autodim'), {'order': 'in_turn'}, "nis and autodim.*'fields'"),
    (('autofis', 'autodim'), {'order': 'both'}, "'both'; expected one of"),
  )
  def test_what_does_not_go_together(self, parts, options, message):
    task, method = self._parts(*parts, **options)
    with self.assertRaisesRegex(errors.ConfigError, message):
      method.selectors(task)
      method.turns(task)

  def test_hidden_layers_need_an_engine_and_an_mlp(self):
    config = hidden.get_config('planted')
    config.search.engine.name = None
    with self.assertRaisesRegex(errors.ConfigError, 'reinforce, darts'):
      methods.METHODS['hidden'].selectors(_task(config))
    config = hidden.get_config('planted')
    config.model = 'fm'
    with self.assertRaisesRegex(errors.ConfigError, 'no MLP'):
      methods.METHODS['hidden'].space(_task(config))


class AutoDimTest(parameterized.TestCase):
  @parameterized.parameters(
    ({}, 'valid', None, 25),
    ({'order': 2, 'inner_rate': 0.5}, 'valid', 0.5, 25),
    ({'split': 'train'}, 'train', None, 25),
    ({'warmup': 0.5, 'period': 3}, 'valid', None, 50),
  )
  def test_options_reach_the_selector(self, options, split, rate, warmup):
    config = autodim.get_config('planted')
    config.search.update(options)
    task = dataclasses.replace(_task(config), steps=100)
    (selector,) = methods.METHODS['autodim'].selectors(task).values()
    self.assertEqual(selector.split, split)
    self.assertEqual(selector.inner_rate, rate)
    self.assertEqual(selector.schedule.warmup, warmup)
    self.assertEqual(selector.schedule.period, options.get('period', 1))

  @parameterized.parameters(
    ({'order': 2, 'split': 'train'}, 'no second order'),
    ({'order': 3}, 'expected 1 or 2'),
    ({'split': 'train', 'period': 5}, 'search.period'),
    ({'engine.name': 'darts', 'order': 2}, 'order is 2.*not read'),
    ({'engine.name': 'darts', 'draws': 1}, 'draws is 1.*not read'),
    ({'engine.name': 'darts', 'engine.samples': 9}, 'samples is 9.*not read'),
    ({'engine.price': 1.0}, 'price is 1.0.*not read'),
    ({'engine.name': 'darts', 'engine.period': 0}, 'engine.period'),
    ({'engine.name': 'darts', 'engine.damping': 9.0}, 'damping.*implicit'),
  )
  def test_options_that_would_not_be_read_are_refused(self, options, message):
    config = autodim.get_config('planted')
    config.update_from_flattened_dict(
      {f'search.{key}': value for key, value in options.items()}
    )
    task = dataclasses.replace(_task(config), steps=100)
    with self.assertRaisesRegex(errors.ConfigError, message):
      methods.METHODS['autodim'].selectors(task)

  def test_nis_by_its_own_rule_and_by_an_engine(self):
    config = nis.get_config('planted')
    task = dataclasses.replace(_task(config), steps=100)
    (own,) = methods.METHODS['nis'].selectors(task).values()
    self.assertEqual(own.schedule.warmup, 20)
    self.assertIsNotNone(own.reward)
    config.search.update({'reward': 'ce', 'samples': 3, 'period': 2})
    task = dataclasses.replace(_task(config), steps=100)
    (own,) = methods.METHODS['nis'].selectors(task).values()
    self.assertIsNone(own.reward)
    self.assertEqual((own.samples, own.schedule.period), (3, 2))
    config.search.engine.update({'name': 'reinforce', 'reward': 'auc'})
    with self.assertRaisesRegex(errors.ConfigError, "reward is 'ce'.*not read"):
      methods.METHODS['nis'].selectors(
        dataclasses.replace(_task(config), steps=100)
      )
    config.search.update({'reward': 'auc', 'samples': 8, 'period': 1})
    task = dataclasses.replace(_task(config), steps=100)
    (own,) = methods.METHODS['nis'].selectors(task).values()
    self.assertIs(own.reward, search.REWARDS['auc'])
    config.search.engine.update({'name': 'darts', 'reward': None})
    with self.assertRaisesRegex(errors.ConfigError, "'reinforce'"):
      methods.METHODS['nis'].selectors(
        dataclasses.replace(_task(config), steps=100)
      )


class EngineTest(parameterized.TestCase):
  @parameterized.product(
    config=[autofis, autodim, autoemb, autogroup, hidden],
    engine=['reinforce', 'darts'],
  )
  def test_one_key_selects_the_engine(self, config, engine):
    config = config.get_config('planted')
    config.search.engine.name = engine
    task = dataclasses.replace(_task(config), steps=100)
    (selector,) = methods.METHODS[config.method].selectors(task).values()
    self.assertEqual(selector.split, 'valid')
    self.assertEqual(selector.samples, 4 if engine == 'reinforce' else 1)
    self.assertEqual(selector.schedule.warmup, 25)

  def test_implicit_gradients_are_those_of_darts(self):
    config = autofis.get_config('planted')
    config.search.engine.implicit = 'neumann'
    config.search.engine.iterations = 3
    for name in (None, 'reinforce'):
      config.search.engine.name = name
      with self.assertRaisesRegex(errors.ConfigError, 'not read with'):
        methods.METHODS['autofis'].selectors(_task(config))
    config.search.engine.name = 'darts'
    (selector,) = methods.METHODS['autofis'].selectors(_task(config)).values()
    implicit = selector.implicit
    self.assertEqual((implicit.solver, implicit.iterations), ('neumann', 3))

  def test_unknown_engine(self):
    config = autofis.get_config('planted')
    config.search.engine.name = 'evolution'
    with self.assertRaisesRegex(errors.ConfigError, "'evolution'"):
      methods.METHODS['autofis'].selectors(_task(config))


class OptionsTest(parameterized.TestCase):
  @parameterized.parameters(
    (autodim, 'dims', ()),
    (autodim, 'dims', (0, 4)),
    (autodim, 'epochs', -1),
    (autodim, 'min_steps', -1),
    (autodim, 'period', 0),
    (autodim, 'warmup', -0.1),
    (autodim, 'warmup', 1.0),
    (autodim, 'travel', 0.0),
    (autodim, 'travel', float('nan')),
    (autodim, 'learning_rate', 0.0),
    (autodim, 'learning_rate', float('nan')),
    (autodim, 'floor', 0.0),
    (pep, 'travel', -1.0),
    (pep, 'learning_rate', 0.0),
    (nis, 'learning_rate', 0.0),
    (nis, 'full_share', -0.1),
    (nis, 'mixed_share', float('nan')),
    (autoemb, 'controller_learning_rate', 0.0),
    (autoemb, 'period', 0),
    (autoemb, 'warmup', float('nan')),
    (autosrh, 'warmup', 1.0),
    (autosrh, 'warmup', 2.0),
    (ras, 'seconds', 0.0),
    (autoctr, 'trials', 0),
    (autoctr, 'strategy', 'greedy'),
    (autoctr, 'hash_size', -1),
  )
  def test_values_out_of_range(self, module, name, value):
    config = module.get_config('planted')
    config.search[name] = value
    with self.assertRaisesRegex(errors.ConfigError, f'{name}.* is .*expected'):
      task = _task(config)
      method = methods.METHODS[config.method]
      (method.selectors or method.population)(task)

  def test_rates_and_periods_that_are_left_open(self):
    """Values of one's own go before what follows from the steps."""
    task = _task(autodim.get_config('planted'))
    self.assertEqual(method_base.period(task, 0), task.steps // 400)
    rate = method_base.rate(task, 100)
    self.assertAlmostEqual(rate, task.search['travel'] / 100)
    config = autodim.get_config('planted')
    config.search.update({'period': 7, 'learning_rate': 0.5})
    task = _task(config)
    self.assertEqual(method_base.period(task, 0), 7)
    self.assertEqual(method_base.rate(task, 100), 0.5)


class AutoCtrTest(absltest.TestCase):
  def test_proposals_are_scored_on_a_part_of_the_rows(self):
    config = autoctr.get_config('planted')
    config.search.update({'train_rows': 100, 'valid_rows': 50, 'trials': 3})
    config.search.weights.complexity = 2.0
    task, method = _task(config), methods.METHODS['autoctr']
    part = method.sample(task)
    self.assertEqual((part.train.num_rows, part.valid.num_rows), (100, 50))
    self.assertEqual(part.test.num_rows, task.data.test.num_rows)
    proposals = _asked(method.population(task))
    self.assertLen(proposals, 3)
    self.assertEqual(proposals[0].fields, method.space(task).fields)
    config.search.valid_rows = -1
    with self.assertRaisesRegex(errors.ConfigError, 'valid_rows is -1'):
      method.sample(_task(config))

  def test_a_model_without_vectors(self):
    config = autoctr.get_config('planted')
    config.model = 'lr'
    with self.assertRaisesRegex(errors.ConfigError, 'Blocks need vectors'):
      methods.METHODS['autoctr'].population(_task(config))

  def test_tables_start_wide_enough_for_products_of_products(self):
    values = settings_lib.resolve(autoctr.get_config('diabetes130'))
    self.assertEqual(values['train']['table_std'], 0.01)
    self.assertEqual(values['search']['train']['table_std'], 0.01)
    # The plain model keeps its own.
    self.assertEqual(values['control_train']['base']['table_std'], 1e-4)

  def test_decay_is_not_that_of_a_model_with_dropout(self):
    values = settings_lib.resolve(autoctr.get_config('frappe'))
    self.assertEqual(values['control_train']['base']['embedding_l2'], 0.01)
    for train in (values['train'], values['search']['train']):
      self.assertEqual(train['embedding_l2'], 1e-3)

  def test_rows_of_the_table(self):
    for argument in ('frappe', 'diabetes130', 'planted,tiny'):
      rows = cells.rows(autoctr_table.get_config(argument).to_dict())
      strategies = [
        row.read().search.strategy for row in rows if 'autoctr' in row.config
      ]
      self.assertEqual(strategies, ['autoctr', 'regularized', 'random'])
      self.assertEqual({row.model for row in rows}, {'all models'})
    with self.assertRaisesRegex(errors.ConfigError, "No table 'frape'"):
      autoctr_table.get_config('frape')


class BudgetTest(parameterized.TestCase):
  @parameterized.parameters(
    (mde, 'mde'), (qr, 'qr'), (ras, 'ras'), (mgqe, 'mgqe')
  )
  def test_bytes_and_parameters_are_one_budget(self, module, name):
    found = []
    method = methods.METHODS[name]
    for options in ({'max_params': 20_000}, {'max_bytes': 80_000}):
      config = module.get_config('planted')
      config.search.update(options)
      if 'threshold' in config.search:
        config.search.threshold = 0
      task = _task(config)
      self.assertGreater(method.base(task).ep_total, 20_000)
      population = method.population and method.population(task)
      found.append(_asked(population) if population else [method.space(task)])
    self.assertEqual(*found)
    for architecture in found[0]:
      self.assertLessEqual(architecture.packed.ep_total, 20_000)

  def test_the_hashing_control_has_the_size_found(self):
    config = qr.get_config('planted')
    config.search.threshold = 20
    task, method = _task(config), methods.METHODS['qr']
    found = method.space(task)
    control = method.control('hash', task, found, found)
    self.assertBetween(control.ep_total, 0.97 * found.ep_total, found.ep_total)
    self.assertEqual({len(p.all_pieces) for p in control.categorical}, {1})


class NumericTest(parameterized.TestCase):
  def _task(self, config):
    data = planted_numeric.generate(num_rows=1000)
    values = settings_lib.fit_batch_size(settings_lib.resolve(config), 800)
    return stages.make_task(values, data)

  @parameterized.parameters(*numeric.EMBEDDINGS)
  def test_any_method_and_model_takes_any_embedding(self, kind):
    for module, model in ((base_config, 'lr'), (ras, 'deepfm')):
      config = module.get_config('planted_step')
      config.model = model
      config.numeric.kind = kind
      task = self._task(config)
      name = settings_lib.resolve(config)['method']
      found = methods.METHODS[name].base(task)
      self.assertEqual({p.numeric.kind for p in found.numeric}, {kind})
      self.assertTrue(all(map(found.is_fitted, found.numeric)))
      found.ep_total  # noqa: B018  (Known, since all is fitted.)

  def test_options_of_the_config_reach_the_plan(self):
    config = autodis.get_config('planted_step')
    config.numeric.update({'form': 'A', 'buckets': 7, 'use_bias': False})
    config.numeric.aggregation = 'max'
    task, method = self._task(config), methods.METHODS['autodis']
    found = method.space(task)
    plan = numeric.AutoDis(
      buckets=7, form='A', use_bias=False, aggregation='max'
    )
    self.assertEqual([p.numeric for p in found.numeric], [plan, plan])
    self.assertEqual(
      method.base(task).numeric[0].numeric, numeric.FieldEmbedding()
    )
    # Comparisons have as many buckets.
    control = method.control('numeric_efd', task, found, found)
    self.assertEqual(control.numeric[0].numeric, numeric.EqualFrequency(7))
    for name in config.controls:
      method.check_control(name)
      self.assertNotEmpty(settings_lib.control_name(name))

  def test_what_makes_no_sense_is_refused(self):
    config = base_config.get_config('planted_step')
    config.numeric.buckets = 5
    with self.assertRaisesRegex(errors.ConfigError, 'numeric.kind is not'):
      settings_lib.resolve(config)
    config.numeric.kind = 'ld'
    with self.assertRaisesRegex(errors.ConfigError, "no option 'buckets'"):
      settings_lib.resolve(config)
    config.numeric.kind = 'lds'
    with self.assertRaisesRegex(errors.ConfigError, 'No numeric embedding'):
      settings_lib.resolve(config)

  def test_autodis_needs_numbers(self):
    for module in (autodis, autodim):
      config = module.get_config('planted')
      config.numeric.kind = 'autodis'
      with self.assertRaisesRegex(errors.ConfigError, 'no numeric field'):
        _task(config)

  @parameterized.parameters(None, 'planted', 'planted,tiny', ',tiny')
  def test_planted_has_numbers_there(self, argument):
    config = autodis.get_config(argument)
    self.assertEqual(config.data.name, 'planted_step')
    self.assertEqual(config.tiny, 'tiny' in (argument or ''))

  def test_criteo_has_numbers_there(self):
    self.assertEqual(autodis.get_config('criteo').data.discretize, 'none')
    self.assertEqual(autodis.get_config('adult').data.discretize, 'none')

  @parameterized.parameters('adult', 'criteo,tiny', 'planted_sine')
  def test_every_row_of_the_table_is_a_config(self, argument):
    table = autodis_table.get_config(argument).to_dict()
    rows = cells.rows(table)
    self.assertLen(rows, 30)
    for row in rows:
      values = settings_lib.resolve(row.read())
      plan = settings_lib.numeric_embedding(values)
      self.assertEqual(getattr(plan, 'buckets', 20), 20)
    self.assertIn(table['reference'], {row.method for row in rows})


class ControlTest(absltest.TestCase):
  def test_one_width_is_trained_as_tuned_for_its_width(self):
    config = ras.get_config('planted')
    config.model = 'deepfm'
    config.search.dims = (2, 4, 8)
    values = settings_lib.fit_batch_size(settings_lib.resolve(config), 800)
    tuned = {'learning_rate': 0.5, 'embedding_l2': 0.25, 'dropout': 0.125}
    values['uniform_tuned'] = {'4': tuned}
    task = _task(config)
    found = {}
    for dim in (4, 8):
      derived = stages.Derived(task.build(dim=dim), task.build(dim=dim))
      found[dim] = stages.control_plan('uniform', task, values, derived)
      self.assertEqual(found[dim][0].dim, dim)
    plan, train = found[4]
    self.assertEqual(plan.head.dropout, 0.125)
    self.assertEqual(
      (train['learning_rate'], train['embedding_l2']), (0.5, 0.25)
    )
    # Nothing was tuned for 8.
    plan, train = found[8]
    self.assertEqual(plan, task.build(dim=8))
    self.assertEqual(train, values['control_train']['uniform'])

  def test_the_plain_model_has_options_of_its_own(self):
    config = ras.get_config('planted')
    config.model = 'deepfm'
    values = settings_lib.fit_batch_size(settings_lib.resolve(config), 800)
    values['base_options'] |= {'dropout': 0.375}
    task = _task(config)
    derived = stages.Derived(task.build(), task.build())
    plan, train = stages.control_plan('base', task, values, derived)
    self.assertEqual(plan.head.dropout, 0.375)
    self.assertEqual(train, values['control_train']['base'])


if __name__ == '__main__':
  absltest.main()
