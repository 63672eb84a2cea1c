"""AutoSrh (DNIS): which entries of a table matter, by groups of ids.

Cheng, Shen and Huang, 'Differentiable Neural Input Search for Recommender
Systems', arXiv:2006.04466; Kong et al., 'AutoSrh', TKDE 2023. A field's ids,
sorted by frequency, fall into groups; a row e of group l is read as alpha_l e,
with a factor in [0, 1] for every column. After a warm-up with factors of 1,
rows follow the training loss and factors the validation loss. Entries whose
|alpha e| is among the largest of all are kept, and retrained in that pattern.

The pattern is unstructured (`search.patterns`): its bits count.

Deviations: all weights are trained while searching (the authors' code trains
the embeddings alone). The L1 term is added after the division of the gradient:
before it, a group that a batch lacks would fade at full speed. Frequencies are
those of the train split (their loader ranks ids before it splits), by which ids
are sorted already; the missing and the unknown value are in the first group.
Entries are counted exactly, ties included, and the model that is judged is the
retrained one (a stored notebook of theirs leaves alpha out and labels 95 % as
98 %).
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jax_autorec import errors
from jax_autorec.search import base, patterns


def autosrh(
  *,
  learning_rate: float = 0.01,
  l1: float = 1e-5,
  warmup: int = 0,
  period: int = 1,
  density: float = 0.1,
  max_params: float | None = None,
) -> base.Selector:
  """Selects entries by the size of factor times value.

  Args:
    learning_rate: of the factors. Their gradients are divided by their mean
      size over the columns of a group, so a factor moves about that much.
    l1: what the factors shrink by in every update, times the rate, beside
      gradients of mean size 1: at the paper's 1e-5, which stood beside raw
      gradients, next to nothing.
    warmup: steps before the first update.
    period: steps between updates.
    density: share of the entries that is kept.
    max_params: budget of `ep_total` in place of `density`.

  Returns:
    A selector for the slot 'fields' of `field_spaces.open_columns`.
  """
  patterns.check(density, max_params)
  if learning_rate <= 0 or l1 < 0:
    raise errors.ConfigError(
      f'Factors have the rate {learning_rate} and L1 {l1}; expected more than '
      '0, and at least 0.'
    )
  if warmup < 0 or period < 1:
    raise errors.ConfigError(
      f'Factors wait for {warmup} steps and move every {period}; expected at '
      'least 0, and at least 1.'
    )

  def init(choice, key, train):
    del key, train
    return jax.tree.map(jnp.array, choice), ()

  def sample(arch, memory, batch, phase, step, key):
    del memory, batch, phase, step, key
    return base.Draw(choice=arch)

  def derive(arch, memory, context):
    del memory
    space = context.architecture
    table = context.train.tables[patterns.main_table(space)]
    firsts, first = [], 0
    for plan, starts in zip(space.categorical, space.choice.starts):
      firsts += [first + start for start in starts]
      first += plan.vocab_size

    def scores():
      for start, rows in patterns.rows(table):
        places = np.arange(start, start + len(rows))
        groups = np.searchsorted(firsts, places, 'right') - 1
        sizes = np.abs(arch['mask'][groups] * rows)
        # What a factor of zero has closed is not kept to fill a budget.
        yield np.where(sizes > 0, sizes, -np.inf).astype(np.float32)

    return patterns.keep_largest(space, scores, density, max_params)

  def record(arch, memory):
    del memory
    means = arch['mask'].mean(1).tolist()
    return {'levels': {'mean factor of each group of ids': means}}

  return base.Selector(
    init,
    sample,
    base.unchanged,
    derive,
    optax.chain(
      optax.stateless(_divide),
      optax.stateless(lambda grads, _: jax.tree.map(lambda g: g + l1, grads)),
      optax.sgd(learning_rate),
      optax.stateless(_kept_in_range),
    ),
    split='valid',
    schedule=base.Schedule(period, warmup),
    record=record,
    check=lambda space: patterns.check_space(space, max_params),
  )


def _divide(grads, params):
  """Gradients [G, D] over their mean size; those of absent groups stay 0."""
  del params

  def one(grad):
    size = jnp.abs(grad).mean(1, keepdims=True)
    return grad / jnp.where(size > 0, size, 1)

  return jax.tree.map(one, grads)


def _kept_in_range(updates, params):
  """Updates that end in [0, 1]."""
  return jax.tree.map(lambda u, p: jnp.clip(p + u, 0, 1) - p, updates, params)
