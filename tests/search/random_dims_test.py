from absl.testing import absltest, parameterized
import numpy as np

from jax_autorec import errors, search, spaces
from jax_autorec import schema as schema_lib
from jax_autorec.search import base

_DIMS = (2, 8, 16, 24, 32)


def _model(vocab_sizes):
  fields = [
    schema_lib.Field(f'f{i}', vocab_size=int(size))
    for i, size in enumerate(vocab_sizes)
  ]
  return spaces.deepfm(schema_lib.Schema(tuple(fields)), dim=32, hidden=(4,))


def _asked(population, count):
  scored = []
  for _ in range(count):
    proposal = population.ask(scored)
    scored.append(base.Scored(proposal, {'auc': 0.5}))
  return [one.architecture for one in scored]


def _run(population, seconds=1.0):
  """All that is proposed, with scores of which the third is the best."""
  scored = []
  while (proposal := population.ask(scored)) is not None:
    auc = 0.5 + 0.01 * ((7 * len(scored)) % 5)
    scored.append(base.Scored(proposal, {'auc': auc}, seconds))
  return scored


class RandomDimsTest(parameterized.TestCase):
  def test_draws_are_even_and_follow_their_number(self):
    model = _model([100] * 10)
    proposals = _asked(search.random_dims(model, _DIMS, trials=60), 60)
    drawn = np.array([[p.dim for p in a.categorical] for a in proposals])
    counts = [(drawn == dim).sum() for dim in _DIMS]
    # Each is a fifth of 600: 120 +- 10.
    self.assertBetween(min(counts), 80, 120)
    self.assertBetween(max(counts), 120, 160)
    again = _asked(search.random_dims(model, _DIMS, trials=60), 3)
    self.assertEqual(again, proposals[:3])

  @parameterized.parameters(range(8))
  def test_a_budget_is_of_all_that_vectors_need_and_is_met(self, seed):
    rng = np.random.default_rng(seed)
    # Maps to the common width weigh as much as small tables.
    model = _model(np.exp(rng.uniform(np.log(10), np.log(2000), 15)))
    budget = model.ep_total * rng.uniform(0.15, 0.9)
    population = search.random_dims(
      model, _DIMS, trials=5, seed=seed, max_params=budget
    )
    for proposal in _asked(population, 5):
      self.assertGreater(proposal.projection_params, 0)
      self.assertBetween(proposal.ep_total, 0.9 * budget, budget)

  def test_an_ample_budget_changes_nothing(self):
    model = _model([100] * 4)
    plain = search.random_dims(model, _DIMS)
    ample = search.random_dims(model, _DIMS, max_params=1e9)
    self.assertEqual(_asked(ample, 3), _asked(plain, 3))

  def test_a_budget_that_the_narrowest_exceed(self):
    model = _model([1000] * 4)
    with self.assertRaisesRegex(errors.ConfigError, 'narrower candidates'):
      search.random_dims(model, _DIMS, max_params=5000)

  def test_the_best_on_the_validation_split_is_kept(self):
    population = search.random_dims(_model([10] * 8), _DIMS, trials=8)
    scored = _run(population)
    self.assertLen(scored, 8)
    self.assertEqual(population.derive(scored), scored[2].architecture)

  def test_a_draw_that_diverged_is_no_choice(self):
    population = search.random_dims(_model([10] * 8), _DIMS, trials=8)
    self.assertTrue(population.bears_divergence)
    scored = _run(population)
    scored[2] = scored[2]._replace(valid={})
    chosen = population.derive(scored)
    self.assertNotEqual(chosen, scored[2].architecture)
    with self.assertRaisesRegex(errors.TrainingError, 'All 1 .*diverged'):
      population.derive(scored[2:3])

  def test_seconds_bound_the_search_but_not_the_first_trial(self):
    population = search.random_dims(
      _model([10] * 8), _DIMS, trials=50, seconds=10.0
    )
    self.assertLen(_run(population, 3.0), 4)
    self.assertLen(_run(population, 30.0), 1)
    for seconds in (0, -1.0, float('nan')):
      with self.assertRaisesRegex(errors.ConfigError, 'seconds is .*or None'):
        search.random_dims(_model([10] * 8), _DIMS, seconds=seconds)


if __name__ == '__main__':
  absltest.main()
