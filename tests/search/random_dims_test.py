"""Random search over widths: what it proposes, and when it ends."""

from absl.testing import absltest
import numpy as np

from jax_autorec import errors, search, spaces
from jax_autorec import schema as schema_lib
from jax_autorec.search import base

_SCHEMA = schema_lib.Schema(
  tuple(schema_lib.Field(name, vocab_size=10) for name in 'abcdefgh')
)
_DIMS = (2, 4, 8)


def _population(**options):
  plain = spaces.fm(_SCHEMA, dim=8)
  return search.random_dims(plain, _DIMS, **options)


def _run(population, seconds=1.0):
  scored = []
  while (proposal := population.ask(scored)) is not None:
    auc = 0.5 + 0.01 * ((7 * len(scored)) % 5)
    scored.append(base.Scored(proposal, {'auc': auc}, seconds))
  return scored


class RandomDimsTest(absltest.TestCase):
  def test_widths_are_even_and_follow_the_seed_and_the_number(self):
    scored = _run(_population(trials=60, seed=3))
    self.assertLen(scored, 60)
    widths = np.array(
      [[plan.dim for plan in one.architecture.fields] for one in scored]
    )
    counts = [np.sum(widths == dim) for dim in _DIMS]
    # Each of three widths comes 160 +- 10 times.
    self.assertBetween(min(counts), 120, 160)
    self.assertEqual(sum(counts), widths.size)
    again = _population(trials=60, seed=3).ask(scored[:17])
    self.assertEqual(again, scored[17].architecture)
    other = _population(trials=60, seed=4).ask(scored[:17])
    self.assertNotEqual(other, scored[17].architecture)

  def test_the_best_on_the_validation_split_is_kept(self):
    population = _population(trials=8)
    scored = _run(population)
    self.assertEqual(population.derive(scored), scored[2].architecture)

  def test_seconds_bound_the_search_but_not_the_first_trial(self):
    self.assertLen(_run(_population(trials=50, seconds=10.0), 3.0), 4)
    self.assertLen(_run(_population(trials=50, seconds=10.0), 30.0), 1)

  def test_a_budget_is_met_or_refused(self):
    for one in _run(_population(trials=20, max_params=400)):
      self.assertLessEqual(one.architecture.embedding_params, 400)
    with self.assertRaisesRegex(errors.ConfigError, 'at most 100'):
      _population(trials=1, max_params=100).ask([])


if __name__ == '__main__':
  absltest.main()
