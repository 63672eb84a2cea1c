from absl.testing import absltest

from jax_autorec import errors, search, sizes, spaces
from jax_autorec.data import planted
from jax_autorec.search import base


class ScheduleTest(absltest.TestCase):
  def test_out_of_range(self):
    with self.assertRaisesRegex(errors.ConfigError, 'period.* is 0; expected'):
      search.Schedule(period=0)
    with self.assertRaisesRegex(errors.ConfigError, 'warmup.* is -1; expected'):
      search.Schedule(warmup=-1)


class EachTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    data = planted.generate(
      num_rows=1500, num_fields=3, num_pairs=2, max_values=30
    )
    model = spaces.fm(data.schema, dim=6)
    close = lambda a: sizes.mixed_dims(model, a, threshold=0)
    self.proposals = [({'alpha': a}, close(a)) for a in (0.0, 1e-9, 0.9)]

  def test_equal_architectures_are_asked_for_once_and_the_best_is_kept(self):
    population, scored = search.each(self.proposals), []
    for auc in (0.6, 0.8):
      proposal = population.ask(scored)
      scored.append(base.Scored(proposal, {'auc': auc}))
    self.assertIsNone(population.ask(scored))
    self.assertEqual(
      [population.about(n) for n in range(2)],
      [{'alpha': 0.0}, {'alpha': 0.9}],
    )
    self.assertEqual(population.derive(scored), self.proposals[2][1])


if __name__ == '__main__':
  absltest.main()
