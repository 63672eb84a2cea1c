"""AutoCTR: which graph of blocks makes the best model?

Song et al., KDD 2020 (arXiv:2007.06434). A genome says of each of seven blocks
what it is and what it reads. Some are drawn and trained, then mutants of good
ones: of a parent's mutants a ranker (LambdaRank, fitted to all scores so far)
names the one that is trained. Parents are young, good and cheap. Scores are log
losses on a part of the data, after a training that starts from tables of
before.

Differences from the official code:

- DP takes the triangle of the Gram matrix (`nn.block_graph.DotProducts`).
- Genomes are compared as graphs: without dead blocks, in an order of their own
  (`canonical`). There, the best genome of a search has two dead blocks, and
  mutants that differ in nothing are trained twice.
- The operations of a prediction are counted by XLA: there, those of FM and DP
  cost nothing, which the survival of the cheap rewards.
- One training after another, drawn from a seed: there, workers run as they come
  and no two searches are alike.
- A ranker of 16 scores makes splits: its leaves hold two, not twenty.
- A training that diverges is the worst score, not the end of the search.
"""

from collections.abc import Callable, Sequence
import dataclasses
import math
from typing import Any, NamedTuple

import numpy as np

from jax_autorec import architecture as arch_lib
from jax_autorec import errors, interactions
from jax_autorec import fields as fields_lib
from jax_autorec.interactions import Block
from jax_autorec.search import base
from jax_autorec.search.genomes import (
  Blocks,
  Genome,
  Tokens,
  canonical,
  describe,
  draw,
  encode,
  mutate,
)

STRATEGIES = ('autoctr', 'regularized', 'random')
_ATTEMPTS = 10_000  # Draws after which there is taken to be nothing new.
_MUTATIONS = 50  # Draws per mutant that is wanted.


class Score(NamedTuple):
  """What a search knows of a trained genome: both are to be low.

  Attributes:
    loss: log loss on the validation split; infinite where it diverged.
    cost: operations of a prediction.
  """

  loss: float
  cost: float = 0.0


@dataclasses.dataclass(frozen=True)
class Weights:
  """What survival minimises: the sum of weighted ranks, each in (0, 1].

  The paper's text names the three as equals; its code weighs age ten to one.

  Attributes:
    performance: of the rank by loss.
    age: of the share of all trials that came after.
    complexity: of the rank by operations.
  """

  performance: float = 0.1
  age: float = 1.0
  complexity: float = 0.1

  def __post_init__(self):
    for name, value in dataclasses.asdict(self).items():
      errors.expect(
        0 <= value < math.inf, f'Weight of {name}', value, 'at least 0'
      )


@dataclasses.dataclass(frozen=True)
class Rules(Tokens):
  """How genomes are drawn, bred and kept; the defaults are the paper's.

  Attributes:
    strategy: 'autoctr'; 'regularized': the youngest survive, the best of a
      tournament's draws is a parent, and its mutant is any (Real et al., AAAI
      2019); 'random': every genome is drawn anew.
    trials: genomes in all.
    population: genomes that are parents; the first so many are drawn.
    tournament: size of it.
    neighbours: mutants of a parent that the ranker chooses among.
    weights: of survival.
    seed: of all draws.
  """

  strategy: str = 'autoctr'
  trials: int = 100
  population: int = 20
  tournament: int = 10
  neighbours: int = 100
  weights: Weights = Weights()
  seed: int = 0

  def __post_init__(self):
    super().__post_init__()
    fields_lib.check(self.strategy, STRATEGIES, 'The strategy')
    for name in ('trials', 'tournament', 'neighbours'):
      value = getattr(self, name)
      errors.expect(value >= 1, name, value, 'at least 1')
    errors.expect(
      self.population >= 2, 'population', self.population, 'at least 2'
    )


# Genomes, their losses, candidates and a seed -> of each candidate how good it
# looks; higher is better.
Ranker = Callable[
  [Sequence[Genome], Sequence[float], Sequence[Genome], int], np.ndarray
]


def parent_probabilities(population: int, tournament: int) -> np.ndarray:
  """Of every rank, the best first, the probability to be a parent: [P].

  C(P - i + q, q) / C(P + q, q + 1) of rank i from 1, which sum to 1.

  Args:
    population: P.
    tournament: q; 0 is even, and the larger, the more the best is preferred.
  """
  total = math.comb(population + tournament, tournament + 1)
  return np.array(
    [
      math.comb(population - rank + tournament, tournament) / total
      for rank in range(1, population + 1)
    ]
  )


def survivors(
  scores: Sequence[Score], population: int, weights: Weights
) -> list[int]:
  """Numbers of the trials that can be parents, the best of the sum first.

  Of the 2 P youngest those with the least weighted sum of the rank by loss, the
  age and the rank by operations. Ranks are among the 2 P, as shares of their
  number, of equals the mean. The age of trial i of n, from 0, is (n - i) / n;
  the first P are all as old as the last of them.

  Args:
    scores: of all trials, in order.
    population: P.
    weights: of the sum.
  """
  count = len(scores)
  if count <= population:
    return list(range(count))
  places = np.maximum(np.arange(count), population - 1)
  ages = (count - places) / count
  pool = np.argsort(ages, kind='stable')[: 2 * population]
  total = weights.age * ages[pool]
  for weight, name in (
    (weights.performance, 'loss'),
    (weights.complexity, 'cost'),
  ):
    values = [getattr(scores[number], name) for number in pool]
    total = total + weight * _mean_ranks(values) / len(pool)
  kept = np.argsort(total, kind='stable')[:population]
  return pool[kept].tolist()


def _mean_ranks(values) -> np.ndarray:
  """Ranks from 1, of equal values the mean."""
  values = np.asarray(values)
  below = (values[None, :] < values[:, None]).sum(1)
  equal = (values[None, :] == values[:, None]).sum(1)
  return below + (equal + 1) / 2


def lambda_rank(rules: Rules) -> Ranker:
  """The paper's ranker: LightGBM's LambdaRank on genomes.

  Relevance is the rank by minus the loss, its gain twice that; depth 3, rate
  .05, nine tenths of the features, four fifths of the trials every fifth round;
  at most 1500 rounds, stopped where NDCG@3 of the newest fifth of the trials
  has not risen for 150. One thread, and a seed.

  Raises:
    ConfigError: where LightGBM cannot be loaded.
  """
  try:
    import lightgbm
  except (ImportError, OSError) as error:  # Its library may lack another.
    raise errors.ConfigError(
      f'AutoCTR ranks mutants with LightGBM, which cannot be loaded ({error}): '
      "run `pip install 'jax_autorec[trees]'`, or set the strategy to "
      "'regularized' or 'random'."
    ) from error

  def rank(genomes, losses, candidates, seed):
    features = np.stack([encode(genome, rules) for genome in genomes])
    cut = int(len(genomes) * 0.8)
    if cut < 2 or len(genomes) - cut < 2:
      return np.zeros(len(candidates))
    parts = []
    for part in (slice(cut), slice(cut, None)):
      relevance = np.floor(_mean_ranks(-np.asarray(losses[part]))) - 1
      parts.append((features[part], relevance.astype(int)))
    most = max(len(labels) for _, labels in parts)
    options = {
      'objective': 'lambdarank',
      'metric': 'ndcg',
      'eval_at': [3],
      'label_gain': [2 * i for i in range(most)],
      'max_depth': 3,
      'learning_rate': 0.05,
      'feature_fraction': 0.9,
      'bagging_fraction': 0.8,
      'bagging_freq': 5,
      'min_data_in_leaf': 2,
      'min_data_in_bin': 1,
      'seed': seed,
      'deterministic': True,
      'force_row_wise': True,
      'num_threads': 1,
      'verbosity': -1,
    }
    train, newest = (
      lightgbm.Dataset(x, y, group=[len(y)], params=options) for x, y in parts
    )
    trees = lightgbm.train(
      options,
      train,
      1500,
      valid_sets=[newest],
      callbacks=[lightgbm.early_stopping(150, verbose=False)],
    )
    asked = np.stack([encode(genome, rules) for genome in candidates])
    return trees.predict(asked)

  return rank


def constant(genomes, losses, candidates, seed):
  """A ranker that knows nothing: of mutants, drawn at random, the first."""
  del genomes, losses, seed
  return np.zeros(len(candidates))


class Proposal(NamedTuple):
  """A genome that is to be trained.

  Attributes:
    genome: itself.
    parent: number of the trial that it is a mutant of; None if it was drawn.
  """

  genome: Genome
  parent: int | None = None


def propose(
  genomes: Sequence[Genome],
  scores: Sequence[Score],
  rules: Rules,
  ranker: Ranker = constant,
) -> Proposal | None:
  """The next genome, of a graph that was not trained yet.

  Args:
    genomes: that were trained, in order.
    scores: theirs.
    rules: of the search; draws follow from its seed and the number of trials.
    ranker: of mutants.

  Returns:
    None where nothing new can be found.
  """
  number = len(genomes)
  rng = np.random.default_rng((rules.seed, number))
  seen = {canonical(genome) for genome in genomes}
  if rules.strategy != 'random' and number >= rules.population:
    # A parent all of whose mutants are known is no parent.
    for _ in range(2 * rules.population):
      parent = _parent(scores, rules, rng)
      mutants = _mutants(genomes[parent], seen, rules, rng)
      if mutants:
        place = 0
        if rules.strategy == 'autoctr' and len(mutants) > 1:
          losses = [score.loss for score in scores]
          looks = ranker(genomes, losses, mutants, rules.seed + number)
          place = int(np.argmax(looks))
        return Proposal(mutants[place], parent)
  for _ in range(_ATTEMPTS):
    genome = draw(rules, rng)
    graph = canonical(genome)
    if graph and graph not in seen:
      return Proposal(genome)
  return None


def _parent(scores, rules, rng) -> int:
  """Number of the trial to mutate."""
  if rules.strategy == 'regularized':
    youngest = range(len(scores) - rules.population, len(scores))
    drawn = rng.choice(youngest, rules.tournament)
    return int(min(drawn, key=lambda number: (scores[number].loss, number)))
  alive = survivors(scores, rules.population, rules.weights)
  alive.sort(key=lambda number: (scores[number].loss, number))
  chances = parent_probabilities(len(alive), rules.tournament)
  return int(rng.choice(alive, p=chances))


def _mutants(parent, seen, rules, rng) -> list[Genome]:
  """Mutants whose graphs are new and distinct, as they were drawn."""
  wanted = rules.neighbours if rules.strategy == 'autoctr' else 1
  found: dict[Blocks, Genome] = {}
  for _ in range(_MUTATIONS + 4 * wanted):
    if len(found) == wanted:
      break
    genome = mutate(parent, rules, rng)
    if genome is None:
      continue
    graph = canonical(genome)
    if graph and graph not in seen:
      found.setdefault(graph, genome)
  return list(found.values())


def with_blocks(
  fields: Sequence[fields_lib.FieldPlan], blocks: Sequence[Block]
) -> arch_lib.Architecture:
  """The model of a graph: the output layer on all that is left over.

  No first-order weights: those that the paper's models have are blocks'.

  Args:
    fields: of the architecture.
    blocks: of the graph.
  """
  graph = interactions.BlockGraph(tuple(blocks))
  head = arch_lib.HeadPlan(first_order=False)
  return arch_lib.Architecture(tuple(fields), (graph,), head)


def hand_made(groups: Sequence[str], widths: Sequence[int]) -> Blocks:
  """A graph like DeepFM's: FM and two layers, beside one another.

  Args:
    groups: what there is to read.
    widths: candidates; its layers take the middle one.
  """
  width = sorted(widths)[len(widths) // 2]
  groups = tuple(groups)
  return (
    Block('fm', groups),
    Block('mlp', groups, width),
    Block('mlp', (1,), width),
  )


def hashed(
  fields: Sequence[fields_lib.FieldPlan], hash_size: int
) -> tuple[fields_lib.FieldPlan, ...]:
  """Fields with so many rows at most: ids that are equal modulo it share.

  Args:
    fields: with whole rows.
    hash_size: rows per field at most; 0 for as many as there are.
  """
  errors.expect(hash_size >= 0, 'hash_size', hash_size, 'at least 0')

  def reduced(plan):
    if not hash_size or plan.vocab_size <= hash_size:
      return plan
    piece = fields_lib.Piece(0, plan.vocab_size, plan.dim, modulo=hash_size)
    return dataclasses.replace(plan, pieces=(piece,))

  return tuple(map(reduced, fields))


def autoctr(
  fields: Sequence[fields_lib.FieldPlan],
  *,
  hash_size: int = 10_000,
  warm_start: bool = True,
  ranker: Ranker | None = None,
  **rules: Any,
) -> base.Population:
  """Evolves graphs of blocks; that of the lowest validation loss is kept.

  Give `run_population` a part of the rows: a trial need only be ranked.

  Args:
    fields: of the architecture; with whole rows.
    hash_size: rows per field at most, while searching; 0 for all.
    warm_start: whether trials start from the tables of a hand-made graph that
      is trained first. Those know what that graph can use, and a graph like it
      has the better of it; a cold start needs several times the epochs.
    ranker: of mutants; None for `lambda_rank`.
    **rules: of `Rules`.

  Returns:
    What proposes architectures with reduced fields, and settles on one with
    `fields` as they are.

  Raises:
    ConfigError: for rules that make no sense, and without LightGBM where it is
      needed.
  """
  fields = tuple(fields)
  groups = interactions.BlockGraph(()).groups(fields)
  own = Rules(groups=groups, **rules)
  if ranker is None:
    ranker = lambda_rank(own) if own.strategy == 'autoctr' else constant
  small = hashed(fields, hash_size)
  # By the scores of earlier trials: what `ask` answers follows from its
  # argument alone, and is not worked out anew for each.
  known: dict[tuple[Score, ...], Proposal | None] = {}
  latest: list[Proposal] = []

  def proposals(scores) -> list[Proposal | None]:
    found: list[Proposal | None] = []
    for number in range(len(scores) + 1):
      before = scores[:number]
      if before not in known:
        genomes = [one.genome for one in found]
        known[before] = propose(genomes, before, own, ranker)
      found.append(known[before])
    return found

  def ask(scored):
    if len(scored) == own.trials:
      return None
    scores = tuple(Score(one.loss, one.flops) for one in scored)
    latest[:] = proposals(scores)
    if latest[-1] is None:
      return None
    return with_blocks(small, canonical(latest[-1].genome))

  def derive(scored):
    best = min(scored, key=lambda one: one.loss)
    if not best.valid:
      raise errors.TrainingError(
        f'All {len(scored)} trainings diverged: lower the learning rate.'
      )
    (graph,) = best.architecture.interactions
    return with_blocks(fields, graph.blocks)

  def about(number):
    proposal = latest[number]
    parent = proposal.parent
    return {
      'blocks': describe(canonical(proposal.genome)),
      'from': 'a draw' if parent is None else f'trial {parent + 1}',
    }

  start = None
  if warm_start:
    start = with_blocks(small, hand_made(groups, own.widths))
  return base.Population(
    ask,
    derive,
    about,
    total=own.trials,
    metric='logloss',
    start=start,
    complexity=True,
    bears_divergence=True,
  )
