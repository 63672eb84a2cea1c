"""Genomes, graphs and their evolution; nothing is trained here."""

import sys
from unittest import mock

from absl.testing import absltest, parameterized
import numpy as np
import pytest

from jax_autorec import errors, search, spaces
from jax_autorec import schema as schema_lib
from jax_autorec.search import base
from jax_autorec.search.autoctr import (
  Rules,
  Score,
  Weights,
  constant,
  hashed,
  lambda_rank,
  parent_probabilities,
  propose,
  survivors,
)
from jax_autorec.search.genomes import canonical, describe, draw

_FIELDS = spaces.field_plans(
  schema_lib.Schema(
    (
      schema_lib.Field('user', vocab_size=500),
      schema_lib.Field('city', vocab_size=20),
      schema_lib.Field('age', kind='numeric'),
    )
  ),
  4,
)


def _rng(seed=0):
  return np.random.default_rng(seed)


def _planted(rules, seed):
  """A fitness whose optimum is one genome: tokens that are not as there."""
  target = draw(rules, _rng(1000 + seed))

  def score(genome):
    wrong = sum(
      sum(x != y for x, y in zip(g._replace(skips=()), t._replace(skips=())))
      + np.mean(np.not_equal(g.skips, t.skips))
      for g, t in zip(genome, target)
    )
    return Score(0.5 + 0.01 * wrong, float(len(canonical(genome))))

  return score


def _evolved(seed, ranker=constant, **options):
  """The least loss of a search."""
  rules = Rules(seed=seed, **options)
  score = _planted(rules, seed)
  if ranker == 'trees':
    ranker = lambda_rank(rules)
  elif ranker == 'oracle':
    ranker = lambda genomes, losses, candidates, seed: np.array(
      [-score(one).loss for one in candidates]
    )
  genomes, scores = [], []
  for _ in range(rules.trials):
    genomes.append(propose(genomes, scores, rules, ranker).genome)
    scores.append(score(genomes[-1]))
  return min(score.loss for score in scores)


class SelectionTest(parameterized.TestCase):
  @parameterized.parameters((20, 10), (2, 1), (7, 0), (5, 40))
  def test_probabilities_sum_to_one_and_fall(self, population, tournament):
    found = parent_probabilities(population, tournament)
    self.assertAlmostEqual(found.sum(), 1, places=12)
    self.assertTrue((found > 0).all())
    steps = np.diff(found)
    self.assertTrue((steps < 0).all() if tournament else (steps == 0).all())

  def test_probabilities_of_the_paper(self):
    found = parent_probabilities(20, 10)[:3]
    np.testing.assert_allclose(found, [0.367, 0.240, 0.154], atol=1e-3)

  def test_survivors_of_a_table_by_hand(self):
    # Trial:      0    1    2    3    4    5
    losses = [0.1, 0.9, 0.5, 0.3, 0.7, np.inf]
    costs = [5.0, 1.0, 5.0, 2.0, 8.0, 3.0]
    scores = [Score(*pair) for pair in zip(losses, costs)]
    # Two survive; the four youngest are 5, 4, 3, 2, of ages 1/6 to 4/6. Their
    # ranks by loss: 4, 3, 1, 2; by cost: 2, 4, 1, 3.
    sums = {
      5: 0.1 * 4 / 4 + 1 / 6 + 0.1 * 2 / 4,
      4: 0.1 * 3 / 4 + 2 / 6 + 0.1 * 4 / 4,
      3: 0.1 * 1 / 4 + 3 / 6 + 0.1 * 1 / 4,
      2: 0.1 * 2 / 4 + 4 / 6 + 0.1 * 3 / 4,
    }
    expected = sorted(sums, key=sums.get)[:2]
    self.assertEqual(survivors(scores, 2, Weights()), expected)
    self.assertEqual(expected, [5, 4])
    # By loss alone, and by cost alone: 0 is not among the youngest.
    self.assertEqual(survivors(scores, 2, Weights(1, 0, 0)), [3, 2])
    self.assertEqual(survivors(scores, 2, Weights(0, 0, 1)), [3, 5])
    # The first two are of one age: of six, 5/6.
    self.assertEqual(survivors(scores, 5, Weights(0, 1, 0)), [5, 0, 1, 2, 3])
    self.assertEqual(survivors(scores[:2], 2, Weights()), [0, 1])

  def test_ranks_of_equal_costs_are_their_mean(self):
    scores = [Score(0.5, 1.0), Score(0.4, 1.0), Score(0.3, 1.0)]
    self.assertEqual(survivors(scores, 1, Weights(0, 0, 1)), [2])
    self.assertEqual(survivors(scores, 1, Weights(1, 0, 0)), [2])


class EvolutionTest(parameterized.TestCase):
  def test_nothing_to_mutate(self):
    rules = Rules(
      types=('fm',), widths=(8,), groups=('vectors',), num_blocks=1, trials=5
    )
    genomes, scores = [], []
    while (proposal := propose(genomes, scores, rules)) is not None:
      genomes.append(proposal.genome)
      scores.append(Score(0.5))
    self.assertLen(genomes, 1)

  def test_proposals_are_new_and_follow_from_their_arguments(self):
    rules = Rules(population=5, num_blocks=3, neighbours=10, seed=3)
    genomes, scores = [], []
    for number in range(20):
      proposal = propose(genomes, scores, rules)
      self.assertEqual(propose(list(genomes), list(scores), rules), proposal)
      self.assertEqual(proposal.parent is None, number < 5)
      if proposal.parent is not None:
        differing = np.sum(
          [x != y for x, y in zip(genomes[proposal.parent], proposal.genome)]
        )
        self.assertEqual(differing, 1)
      genomes.append(proposal.genome)
      scores.append(Score(0.5 + 0.01 * number))
    self.assertLen(set(map(canonical, genomes)), 20)

  @parameterized.parameters('autoctr', 'regularized')
  def test_evolution_is_ahead_of_random_search_at_equal_budget(self, strategy):
    """A planted optimum, ten seeds; the ranker knows nothing."""
    options = dict(trials=70, num_blocks=5, neighbours=5)
    ahead = [
      _evolved(seed, strategy=strategy, **options)
      < _evolved(seed, strategy='random', **options)
      for seed in range(10)
    ]
    self.assertGreaterEqual(sum(ahead), 8)

  def test_an_oracle_is_better_than_a_constant(self):
    options = dict(trials=40, population=10, num_blocks=4, neighbours=20)
    oracle, nothing = (
      np.mean([_evolved(seed, ranker, **options) for seed in range(4)])
      for ranker in ('oracle', constant)
    )
    self.assertLess(oracle, nothing - 0.01)

  @pytest.mark.slow
  def test_trees_are_between_an_oracle_and_a_constant(self):
    """The paper's sizes: the search that is run on data, but for the data."""
    seeds = range(10)
    means = [
      np.mean([_evolved(seed, ranker) for seed in seeds])
      for ranker in ('oracle', 'trees', constant)
    ]
    self.assertEqual(means, sorted(means))
    random = [_evolved(seed, strategy='random') for seed in seeds]
    trees = [_evolved(seed, 'trees') for seed in seeds]
    self.assertGreaterEqual(sum(np.less(trees, random)), 8)

  def test_trees_learn_an_order(self):
    rules = Rules(num_blocks=4)
    score = _planted(rules, 0)
    genomes = [draw(rules, _rng(n)) for n in range(60)]
    losses = [score(one).loss for one in genomes]
    losses[7] = np.inf  # Diverged.
    others = [draw(rules, _rng(n)) for n in range(100, 160)]
    rank = lambda_rank(rules)
    looks = rank(genomes, losses, others, 1)
    truth = [-score(one).loss for one in others]
    self.assertGreater(np.corrcoef(looks, truth)[0, 1], 0.3)
    np.testing.assert_array_equal(rank(genomes, losses, others, 1), looks)
    few = rank(genomes[:3], losses[:3], others, 1)
    self.assertEqual(np.ptp(few), 0)


class PopulationTest(parameterized.TestCase):
  def _run(self, population, losses):
    scored = []
    for loss in losses:
      proposal = population.ask(scored)
      valid = {} if np.isinf(loss) else {'logloss': loss, 'auc': 0.5}
      scored.append(base.Scored(proposal, valid, flops=100.0))
    return scored

  def test_the_lowest_loss_is_kept_at_full_size(self):
    population = search.autoctr(
      _FIELDS, trials=4, population=2, hash_size=50, num_blocks=3
    )
    scored = self._run(population, [0.5, np.inf, 0.4, 0.45])
    self.assertIsNone(population.ask(scored))
    trained = scored[2].architecture
    self.assertEqual([p.dim for p in trained.fields], [4, 4, 4])
    self.assertEqual(trained.embedding_params, 4 * (50 + 20))
    found = population.derive(scored)
    self.assertEqual(found.interactions, trained.interactions)
    self.assertEqual(found.fields, _FIELDS)
    self.assertEqual(population.start.embedding_params, 4 * (50 + 20))
    about = population.about(2)
    self.assertRegex(about['from'], 'trial [12]')
    (graph,) = trained.interactions
    self.assertEqual(about['blocks'], describe(graph.blocks))

  def test_random_search_starts_with_the_same_graphs(self):
    options = dict(trials=5, population=3, num_blocks=3, neighbours=5)
    losses = [0.5, 0.4, 0.6, 0.45, 0.5]
    runs = {
      strategy: self._run(
        search.autoctr(_FIELDS, strategy=strategy, **options), losses
      )
      for strategy in ('autoctr', 'regularized', 'random')
    }
    graphs = {
      name: [one.architecture.interactions for one in run]
      for name, run in runs.items()
    }
    self.assertEqual(graphs['autoctr'][:3], graphs['random'][:3])
    self.assertEqual(graphs['regularized'][:3], graphs['random'][:3])
    self.assertNotEqual(graphs['autoctr'][3:], graphs['random'][3:])

  def test_all_diverged(self):
    population = search.autoctr(_FIELDS, trials=2, population=2)
    scored = self._run(population, [np.inf, np.inf])
    with self.assertRaisesRegex(errors.TrainingError, 'All 2 trainings'):
      population.derive(scored)

  def test_hashed_fields(self):
    small = hashed(_FIELDS, 100)
    self.assertEqual([p.pieces is None for p in small], [False, True, True])
    (piece,) = small[0].pieces
    self.assertEqual((piece.num_rows, piece.modulo), (100, 100))
    self.assertEqual(hashed(_FIELDS, 0), _FIELDS)

  @parameterized.parameters(
    dict(strategy='greedy'),
    dict(types=('mlp', 'conv')),
    dict(types=()),
    dict(widths=(0,)),
    dict(widths=(8, 8)),
    dict(trials=0),
    dict(population=1),
    dict(num_blocks=17),
    dict(tournament=0),
    dict(hash_size=-1),
  )
  def test_rules_that_make_no_sense(self, **options):
    with self.assertRaisesRegex(errors.ConfigError, 'expected'):
      search.autoctr(_FIELDS, **options)

  def test_weights_below_zero(self):
    with self.assertRaisesRegex(errors.ConfigError, 'Weight of age is -1'):
      Weights(age=-1)

  def test_without_lightgbm(self):
    with mock.patch.dict(sys.modules, {'lightgbm': None}):
      with self.assertRaisesRegex(errors.ConfigError, r'\[trees\]'):
        search.autoctr(_FIELDS)
      search.autoctr(_FIELDS, strategy='random')


if __name__ == '__main__':
  absltest.main()
