"""SSEDS: which columns of which fields a trained model would miss.

Qu et al., SIGIR 2022, 'Single-shot Embedding Dimension Search in Recommender
System'. A model with one width for all fields is trained in full. Every column
of every field then gets a factor of 1, and |dL/dfactor|, the loss's slope where
the column begins to fade, says how much the model leans on it. The columns it
leans on most are kept, as a width per field, and the model is retrained.

The training stops early, on the validation split: past its best, a model leans
on columns that it would be better without, and |slope| does not tell the two
apart.

Deviations: the slopes are taken batch by batch over the whole validation split
and their sizes averaged, each by the weight of its rows: those of a short last
batch are mostly noise, the larger the fewer its rows are. Columns are taken in
the order of their saliency until the budget is full (equal ones in that of
fields), where a known port keeps what is strictly above a threshold, and so
misses its budget where columns tie; and a budget can count all that the columns
bring along, projections too.
"""

from collections.abc import Callable, Iterable

import jax.numpy as jnp
import numpy as np
import optax

from jax_autorec import architecture as arch_lib
from jax_autorec import errors, field_spaces, sizes
from jax_autorec.search import base


def sseds(share: float = 0.1, max_params: float | None = None) -> base.Selector:
  """Selects columns by their saliency, once the weights are trained.

  Args:
    share: of the entries of the tables of vectors, what is kept at most.
    max_params: budget of `ep_total` (all float32 entries that vectors need,
      first-order weights included) in place of `share`.

  Returns:
    A selector for the slot 'fields' of `field_spaces.open_columns`.
  """
  if not 0 < share <= 1:
    raise errors.ConfigError(f'The share is {share}; expected 0 < share <= 1.')
  sizes.budget(max_params)

  def init(choice, key, train):
    del key, train
    return {}, {'ones': jnp.ones_like(choice['mask'])}

  def sample(arch, memory, batch, phase, step, key):
    del arch, batch, phase, step, key
    return base.Draw(choice={'mask': memory['ones']})

  def derive(arch, memory, context):
    del arch
    if context.gradients is None:
      raise errors.ConfigError(
        'SSEDS needs the validation split: give `derive` the data.'
      )
    seen = context.gradients({'mask': memory['ones']})
    saliency = mean_saliency((grads['mask'], weight) for grads, weight in seen)
    space = context.architecture
    if max_params is not None:
      size, budget = lambda found: found.ep_total, max_params
    else:
      # First-order weights and buckets of numbers have no columns to choose.
      others = field_spaces.without_vectors(space).embedding_params
      size = lambda found: found.embedding_params - others
      budget = share * size(space)
    return keep_columns(space, saliency, size, budget)

  def check(space):
    if max_params is None:
      return
    count = len(space.categorical)
    alone = [
      field_spaces.with_dims(space, own) for own in np.eye(count, dtype=int)
    ]
    smallest = min(alone, key=lambda found: found.ep_total)
    sizes.check_budget(smallest, max_params, 'leave out fields of many ids')

  return base.Selector(
    init,
    sample,
    base.unchanged,
    derive,
    optax.identity(),
    split='train',
    only_derives=True,
    check=check,
  )


def mean_saliency(
  gradients: Iterable[tuple[np.ndarray, float]],
) -> np.ndarray:
  """Sizes of gradients averaged over batches, float64 [F, D] of sum 1.

  Args:
    gradients: of the mean loss of every batch, [F, D], and what its rows weigh
      together.

  Raises:
    ConfigError: where all of them are zero.
  """
  total = sum(
    weight * np.abs(np.asarray(grad, np.float64)) for grad, weight in gradients
  )
  if not np.any(total > 0):
    raise errors.ConfigError(
      'The validation loss depends on no column: train longer before columns '
      'are selected.'
    )
  return total / total.sum()


def keep_columns(
  space: arch_lib.Architecture,
  saliency: np.ndarray,
  size: Callable[[arch_lib.Architecture], float],
  budget: float,
) -> arch_lib.Architecture:
  """The widths of the most salient columns that a budget holds.

  Columns are taken by falling saliency, equal ones in the order of fields and
  columns; one that does not fit any more is passed over for the next that
  does. One that nothing leans on is never taken.

  Args:
    space: with a `ColumnMask` of one group per field.
    saliency: [F, D].
    size: of a closed architecture.
    budget: the most that it may be.

  Raises:
    ConfigError: where no column fits.
  """
  dims = np.zeros(len(saliency), int)
  found = field_spaces.with_dims(space, dims)
  order = np.argsort(-saliency, axis=None, kind='stable')
  for place in order:
    field = place // saliency.shape[1]
    if saliency.flat[place] <= 0:
      break
    dims[field] += 1
    wider = field_spaces.with_dims(space, dims)
    if size(wider) <= budget:
      found = wider
    else:
      dims[field] -= 1
  if not dims.any():
    raise errors.ConfigError(
      f'No column fits a budget of {budget:.0f}; the smallest field alone '
      'needs more. Raise `search.share` or `search.max_params`.'
    )
  return found
