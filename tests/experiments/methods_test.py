"""What the configs of closed methods ask for, without any training."""

from absl.testing import absltest, parameterized

from experiments import methods, stages
from experiments import settings as settings_lib
from experiments.configs import autosrh, mde, mgqe, qr, ras
from jax_autorec import errors
from jax_autorec.data import planted
from jax_autorec.search import base


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


class AutoSrhTest(parameterized.TestCase):
  @parameterized.parameters(1.0, -0.1, 1.5)
  def test_a_warm_up_leaves_steps_to_search_in(self, warmup):
    config = autosrh.get_config('planted')
    config.search.warmup = warmup
    with self.assertRaisesRegex(errors.ConfigError, 'search.warmup is'):
      methods.METHODS['autosrh'].selectors(_task(config))


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


if __name__ == '__main__':
  absltest.main()
