"""OptEmbed: which rows are worth keeping, then how wide each field is.

Lyu et al., 'OptEmbed: Learning Optimal Embedding Table for Click-through Rate
Prediction', CIKM 2022. While a supernet is trained, a row is read only if its
L1 norm is above a threshold of its field, which a term sum_f exp(-t_f) of the
loss raises; and every example reads a random number of first columns of every
field, so that all widths are usable. Then an evolution of widths, scored on the
validation split by the trained supernet, chooses them; the model is retrained
on the rows and columns that are left.

Deviations from the authors' code, whose search does not return what it
measured:
- Candidates are tuples and are never edited in place. There, mutation writes
  into the candidates that are kept, the best one among them.
- A cut of a crossover lies between fields. There it is drawn from the widths.
- A candidate's size is that of the model that it becomes. There one column per
  field is not counted.
- The search knows of memory: what a candidate scores is its AUC less `price`
  times its share of the entries, and a budget can be given. There, wider is
  never worse.
- A candidate is scored once.
- Retraining starts from fresh weights.
- A field keeps all its rows where the permutation that leaving some out needs,
  an entry per id, would take more than they do.
"""

from collections.abc import Callable
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jax_autorec import architecture as arch_lib
from jax_autorec import errors, field_spaces, sizes
from jax_autorec.search import base, patterns

Dims = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Evolution:
  """How widths evolve.

  Attributes:
    population: candidates that each generation keeps and breeds from.
    generations: after the first, random one.
    mutations: new candidates of a generation that are mutated parents.
    crossovers: those that are made of two parents.
    chance: of a field's width to be drawn anew in a mutation.
    seed: of all draws.
  """

  population: int = 10
  generations: int = 30
  mutations: int = 10
  crossovers: int = 10
  chance: float = 0.1
  seed: int = 0

  def __post_init__(self):
    counts = self.population, self.generations, self.mutations, self.crossovers
    if min(counts) < 0 or self.population < 2 or not 0 < self.chance <= 1:
      raise errors.ConfigError(
        f'An evolution of {self.population} candidates, {self.generations} '
        f'generations, {self.mutations} mutations, {self.crossovers} '
        f'crossovers and a chance of {self.chance}; expected at least 2, 0, 0, '
        '0 and 0 < chance <= 1.'
      )


def optembed(
  tx: optax.GradientTransformation,
  *,
  penalty: float = 1e-3,
  price: float = 0.01,
  max_params: float | None = None,
  **evolution,
) -> base.Selector:
  """Selects rows by learnt thresholds, widths by evolution.

  Args:
    tx: optimiser of the thresholds.
    penalty: of sum_f exp(-t_f) in the loss.
    price: validation AUC that the whole tables would have to gain over none.
    max_params: budget of `ep_total`, which every candidate meets.
    **evolution: of `Evolution`.

  Returns:
    A selector for the slot 'fields' of `field_spaces.open_row_mask`.
  """
  rules = Evolution(**evolution)
  if penalty < 0 or price < 0:
    raise errors.ConfigError(
      f'OptEmbed has penalty {penalty} and price {price}; expected at least 0.'
    )
  sizes.budget(max_params)

  def init(choice, key, train):
    del key, train
    # The widest width is static: what a draw is bounded by.
    return {'threshold': jnp.array(choice['threshold'])}, {
      'length': jnp.max(choice['length'])
    }

  def sample(arch, memory, batch, phase, step, key):
    del step
    threshold, longest = arch['threshold'], memory['length']
    cost = penalty * jnp.exp(-threshold).sum()
    shape = (batch.ids.shape[0], len(threshold))
    if phase == 'eval':
      length = jnp.broadcast_to(longest, shape)
    else:
      length = jax.random.randint(key, shape, 1, longest + 1, jnp.int32)
    choice = {'threshold': threshold, 'length': length}
    return base.Draw(choice=choice, cost=cost)

  def derive(arch, memory, context):
    del memory
    space = context.architecture
    if context.evaluate is None:
      raise errors.ConfigError(
        'OptEmbed needs the validation split: give `derive` the data.'
      )
    threshold = np.asarray(arch['threshold'])
    kept = kept_rows(space, context.train.tables, threshold)
    if not any(own.any() for own in kept):
      raise errors.ConfigError(
        'OptEmbed keeps no row of any field: lower `search.learning_rate` or '
        '`search.penalty`.'
      )
    counts = np.array([own.sum() for own in kept])
    rows = np.array([len(own) for own in kept])

    def size(dims):
      # A permutation takes an entry per id; without it all rows are kept.
      own = np.minimum(rows * dims, counts * dims + rows)
      return float(np.where(counts > 0, own, 0).sum())

    def is_whole(dims):
      """Fields that keep all rows, since a permutation would not pay."""
      return (counts > 0) & (counts * dims + rows >= rows * dims)

    def close(dims):
      final = [
        np.ones_like(own) if whole else own
        for own, whole in zip(kept, is_whole(dims))
      ]
      return field_spaces.with_row_mask(space, final, dims)

    widest = np.full(len(kept), space.dim)
    fixed = close(widest).ep_total - size(widest)

    def score(dims):
      # No norm is below 0: what is scored is what would be kept.
      own = np.where(is_whole(np.array(dims)), -1, threshold)
      choice = {
        'threshold': own.astype(np.float32),
        'length': np.array([dims], np.int32),
      }
      auc = context.evaluate(choice)['auc']
      return auc - price * size(dims) / float(rows.sum() * space.dim)

    def fits(dims):
      return max_params is None or fixed + size(dims) <= max_params

    best = evolve(score, fits, len(kept), space.dim, rules)
    return close(np.array(best))

  def record(arch, memory):
    del memory
    return {'levels': {'thresholds': arch['threshold'].tolist()}}

  def check(space):
    if max_params is None:
      return
    # One field alone; at a width of 1 all of its rows are kept.
    rows = [plan.vocab_size for plan in space.categorical]
    least = int(np.argmin(rows))
    kept = [np.full(count, i == least) for i, count in enumerate(rows)]
    smallest = field_spaces.with_row_mask(space, kept, [1] * len(rows))
    sizes.check_budget(smallest, max_params, 'leave out fields of many ids')

  return base.Selector(
    init,
    sample,
    base.unchanged,
    derive,
    tx,
    split='train',
    record=record,
    check=check,
  )


def kept_rows(
  space: arch_lib.Architecture, tables, threshold: np.ndarray
) -> list[np.ndarray]:
  """Per field bool [vocab_size]: whose L1 norm is above the threshold [F]."""
  norms = np.concatenate(
    [
      np.abs(rows).sum(1)
      for _, rows in patterns.rows(tables[patterns.main_table(space)])
    ]
  )
  ends = np.cumsum([plan.vocab_size for plan in space.categorical])
  return [own > one for own, one in zip(np.split(norms, ends[:-1]), threshold)]


def evolve(
  score: Callable[[Dims], float],
  fits: Callable[[Dims], bool],
  num_fields: int,
  dim: int,
  rules: Evolution,
) -> Dims:
  """The best of all candidates that were scored; of equal ones the first.

  Args:
    score: dims -> what is to be high; called once for each.
    fits: dims -> whether they may be scored at all.
    num_fields: widths per candidate.
    dim: the largest width.
    rules: of the evolution; draws follow from its seed and the scores alone.

  Raises:
    ConfigError: where not even widths of 1 fit.
  """
  if not fits((1,) * num_fields):
    raise errors.ConfigError(
      'Not even widths of 1 meet the budget: raise `search.max_params`, or '
      'drop more rows with a higher `search.penalty`.'
    )
  rng = np.random.default_rng(rules.seed)
  scores: dict[Dims, float] = {}

  def admit(dims) -> Dims:
    """Narrows fields, drawn at random, until the candidate fits."""
    dims = [int(one) for one in dims]
    while not fits(tuple(dims)):
      wide = [field for field, one in enumerate(dims) if one > 1]
      field = int(rng.choice(wide))
      dims[field] = int(rng.integers(1, dims[field]))
    return tuple(dims)

  def ranked() -> list[Dims]:
    return sorted(scores, key=lambda dims: -scores[dims])

  def add(candidates):
    for dims in candidates:
      if dims not in scores:
        scores[dims] = score(dims)

  def drawn():
    return rng.integers(1, dim + 1, num_fields)

  def mutated(parents):
    parent = np.array(parents[rng.integers(len(parents))])
    is_new = rng.random(num_fields) < rules.chance
    return np.where(is_new, drawn(), parent)

  def crossed(parents):
    one, other = (parents[rng.integers(len(parents))] for _ in range(2))
    cut = int(rng.integers(1, num_fields)) if num_fields > 1 else 0
    return (*one[:cut], *other[cut:])

  # The whole width is a candidate like any other.
  add([admit([dim] * num_fields)])
  add([admit(drawn()) for _ in range(rules.population - 1)])
  for _ in range(rules.generations):
    parents = ranked()[: rules.population]
    children = [admit(mutated(parents)) for _ in range(rules.mutations)]
    children += [admit(crossed(parents)) for _ in range(rules.crossovers)]
    add(children)
  return ranked()[0]
