"""Row-sparse optimisers: a step that costs what its rows cost.

For any JAX code that looks up rows of a large table. Differentiate the loss
with respect to the gathered rows and update those rows alone:

>>> import jax, jax.numpy as jnp
>>> from jax_autorec.optim import row_sparse
>>> table = jnp.zeros((1000, 4))
>>> optimizer = row_sparse.adam(1e-2)
>>> state = optimizer.init(table)
>>> slots = row_sparse.init_slots(1000)
>>> def step(table, state, slots, ids):
...   row_grads = jax.grad(lambda rows: ((rows - 1.0) ** 2).sum())(table[ids])
...   return row_sparse.update(optimizer, table, state, slots, ids, row_grads)
>>> step = jax.jit(step, donate_argnums=(0, 1, 2))
>>> table, state, slots = step(table, state, slots, jnp.array([3, 7, 3]))
>>> bool(jnp.all(table[3] > 0)), bool(jnp.all(table[4] == 0))
(True, True)

Duplicates in a batch are summed first, so each rule is exact: on the rows that
it touches it equals its dense counterpart of optax. Ids out of range (padding)
are dropped; read them with `table.at[ids].get(mode='fill', fill_value=0)`.
Donate table, state and slots to the jitted step, or XLA copies them whole.
"""

from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from jax_autorec import rows as rows_lib
from jax_autorec.types import Array, PyTree

ScalarOrSchedule = float | Callable[[Array], Array]


class Unique(NamedTuple):
  """The distinct rows of a batch.

  Attributes:
    ids: int32 [U], distinct row numbers, padded with the number of rows.
    inverse: int32 [N], place in `ids` of each id looked up; U for ids that
      are out of range.
  """

  ids: Array
  inverse: Array


def init_slots(num_rows: int) -> Array:
  """A slot map, int32 [num_rows]: scratch that outlives steps uncleared."""
  return jnp.zeros((num_rows,), jnp.int32)


def unique(slots: Array, ids: Array, capacity: int) -> tuple[Array, Unique]:
  """Distinct ids without a sort, which would cost more than the update.

  Every occurrence writes its position into the slot of its row; the one that
  is found there afterwards represents the row. Which one that is does not
  matter.

  Args:
    slots: int32 [num_rows], see `init_slots`.
    ids: integers [N]; those outside [0, num_rows) are dropped.
    capacity: U, a bound on the number of distinct ids in range, at least 1.
      More distinct ids than that lose updates: N is always safe.

  Returns:
    The slots after; the distinct ids, in order of their representatives.
  """
  chex.assert_rank(ids, 1)
  chex.assert_type(ids, int)
  num_ids, num_rows = ids.shape[0], slots.shape[0]
  places = jnp.arange(num_ids, dtype=jnp.int32)
  if ids.dtype.itemsize < 4:
    ids = ids.astype(jnp.int32)  # A narrow type cannot hold `num_rows`.
  # A negative index would count from the end.
  ids = jnp.where((ids >= 0) & (ids < num_rows), ids, num_rows)
  ids = ids.astype(jnp.int32)
  slots = slots.at[ids].set(places, mode='drop')
  representative = slots.at[ids].get(mode='fill', fill_value=num_ids)
  owns = representative == places
  rank = jnp.cumsum(owns.astype(jnp.int32)) - 1
  inverse = rank.at[representative].get(mode='fill', fill_value=capacity)
  distinct = jnp.full((capacity,), num_rows, jnp.int32)
  distinct = distinct.at[jnp.where(owns, rank, capacity)].set(ids, mode='drop')
  return slots, Unique(distinct, inverse)


def join(slots: Array, rows: Unique, ids: Array) -> tuple[Array, Array]:
  """Where other ids stand among the distinct rows of a batch.

  Second-order search needs it: a row that both the train and the validation
  batch look up moves in the inner step.

  Args:
    slots: slot map, int32 [num_rows].
    rows: of `unique`, U distinct ids.
    ids: int32 [M], other ids.

  Returns:
    The slots after; int32 [M], places in `rows.ids`, U for ids not among them.
  """
  capacity = rows.ids.shape[0]
  places = jnp.arange(capacity, dtype=jnp.int32)
  slots = slots.at[rows.ids].set(places, mode='drop')
  ids = jnp.where(ids >= 0, ids, slots.shape[0])
  found = slots.at[ids].get(mode='fill', fill_value=capacity)
  # A slot may hold what an earlier call left there: check that it is meant.
  meant = rows.ids.at[found].get(mode='fill', fill_value=-1) == ids
  return slots, jnp.where(meant, found, capacity)


def sum_rows(rows: Unique, values: Array) -> Array:
  """Sums values [N, D] of equal ids: [U, D]."""
  zeros = jnp.zeros((rows.ids.shape[0], values.shape[1]), values.dtype)
  return zeros.at[rows.inverse].add(values, mode='drop')


def any_rows(rows: Unique, mask: Array) -> Array:
  """Whether an element is True [N, D] for any of equal ids: [U, D]."""
  none = jnp.zeros((rows.ids.shape[0], mask.shape[1]), bool)
  return none.at[rows.inverse].max(mask, mode='drop')


class RowOptimizer(NamedTuple):
  """A rule that updates some rows of a table.

  Attributes:
    init: (table) -> state; whatever is kept per row has the rows first.
    apply: (table, state, row_ids [U], grads [U, D], learning_rate_scale=1,
      mask=None) -> (table, state). Row ids are distinct but for padding with
      the number of rows, which is dropped. Elements where `mask` [U, D] is
      False, and their moments, stay as they are.
  """

  init: Callable[[Array], PyTree]
  apply: Callable[..., tuple[Array, PyTree]]


class RowState(NamedTuple):
  """State of a row optimiser.

  Attributes:
    count: int32 [], updates done.
    moments: name -> [R, D] or [R].
  """

  count: Array
  moments: dict[str, Array]


_SCATTER = dict(mode='drop', unique_indices=True)


def _make(
  learning_rate: ScalarOrSchedule,
  weight_decay: float,
  init_moments: Callable[[Array], dict[str, Array]],
  rule: Callable[..., tuple[Array, dict[str, Array]]],
) -> RowOptimizer:
  """A row optimiser from what it does with gathered rows.

  `rule` maps (grads [U, D], moments, count) to the direction and new moments.
  """

  def init(table):
    return RowState(jnp.zeros((), jnp.int32), init_moments(table))

  def apply(table, state, row_ids, grads, learning_rate_scale=1.0, mask=None):
    # All old rows are read before any scatter: a table that is used after it
    # was replaced is copied whole.
    read = lambda array: array.at[row_ids].get(mode='fill', fill_value=0)
    old = {name: read(moment) for name, moment in state.moments.items()}
    if weight_decay:
      grads = grads + weight_decay * read(table)
    direction, new = rule(grads, old, state.count)
    row_ids = rows_lib.prefetched(row_ids, table)
    rate = (
      learning_rate(state.count) if callable(learning_rate) else learning_rate
    )
    # A strong scalar would widen or narrow the rows' dtype.
    rate = jnp.asarray(rate * learning_rate_scale, direction.dtype)
    delta = -rate * direction
    if mask is not None:
      delta = jnp.where(mask, delta, 0)
      new = {
        name: jnp.where(mask if x.ndim == 2 else mask.any(1), x, old[name])
        for name, x in new.items()
      }
    moments = {
      name: state.moments[name]
      .at[row_ids]
      .set(x.astype(state.moments[name].dtype), **_SCATTER)
      for name, x in new.items()
    }
    table = table.at[row_ids].add(delta.astype(table.dtype), **_SCATTER)
    return table, RowState(state.count + 1, moments)

  return RowOptimizer(init, apply)


def sgd(
  learning_rate: ScalarOrSchedule, *, weight_decay: float = 0.0
) -> RowOptimizer:
  """Gradient descent: row <- row - rate * grad.

  Args:
    learning_rate: a number, or a schedule of the updates done.
    weight_decay: adds weight_decay * row to the gradients of touched rows.
  """

  def rule(grads, moments, count):
    del moments, count
    return grads, {}

  return _make(learning_rate, weight_decay, lambda table: {}, rule)


def adagrad(
  learning_rate: ScalarOrSchedule,
  *,
  initial_accumulator: float = 0.1,
  eps: float = 1e-7,
  weight_decay: float = 0.0,
) -> RowOptimizer:
  """Adagrad, element by element, as `optax.adagrad`.

  (Duchi, Hazan and Singer, JMLR 2011.)

  Args:
    learning_rate: a number, or a schedule of the updates done.
    initial_accumulator: where the sums of squares start.
    eps: added to them under the root.
    weight_decay: adds weight_decay * row to the gradients of touched rows.
  """

  def rule(grads, moments, count):
    del count
    total = moments['sum_of_squares'] + jnp.square(grads)
    direction = jnp.where(total > 0, jax.lax.rsqrt(total + eps), 0) * grads
    return direction, {'sum_of_squares': total}

  return _make(
    learning_rate,
    weight_decay,
    lambda t: {
      'sum_of_squares': jnp.full(t.shape, initial_accumulator, t.dtype)
    },
    rule,
  )


def rowwise_adagrad(
  learning_rate: ScalarOrSchedule,
  *,
  initial_accumulator: float = 0.1,
  eps: float = 1e-7,
  weight_decay: float = 0.0,
) -> RowOptimizer:
  """Adagrad with one accumulator per row: the mean square of its gradient.

  Four bytes of state per row whatever its width (as in FBGEMM and DLRM).

  Args:
    learning_rate: a number, or a schedule of the updates done.
    initial_accumulator: where the sums start.
    eps: added to them under the root.
    weight_decay: adds weight_decay * row to the gradients of touched rows.
  """

  def rule(grads, moments, count):
    del count
    total = moments['sum_of_squares'] + jnp.square(grads).mean(1)
    scale = jnp.where(total > 0, jax.lax.rsqrt(total + eps), 0)
    return scale[:, None] * grads, {'sum_of_squares': total}

  return _make(
    learning_rate,
    weight_decay,
    lambda t: {
      'sum_of_squares': jnp.full(t.shape[:1], initial_accumulator, t.dtype)
    },
    rule,
  )


def adam(
  learning_rate: ScalarOrSchedule,
  b1: float = 0.9,
  b2: float = 0.999,
  eps: float = 1e-8,
  *,
  weight_decay: float = 0.0,
) -> RowOptimizer:
  """Lazy Adam: `optax.adam` on the rows of the batch.

  (Kingma and Ba, ICLR 2015.) Moments of absent rows do not decay, and bias is
  corrected by the number of updates of the whole table, as TensorFlow's
  LazyAdam does.

  Args:
    learning_rate: a number, or a schedule of the updates done.
    b1: decay of the first moment.
    b2: decay of the second moment.
    eps: added to the root of the second moment.
    weight_decay: adds weight_decay * row to the gradients of touched rows.
  """

  def rule(grads, moments, count):
    mean = b1 * moments['mean'] + (1 - b1) * grads
    square = b2 * moments['square'] + (1 - b2) * jnp.square(grads)
    # Not in the rows' dtype: in bfloat16 0.999 is 1 and nothing would move.
    steps = (count + 1).astype(float)
    first = (1 - b1**steps).astype(mean.dtype)
    second = (1 - b2**steps).astype(square.dtype)
    direction = mean / first / (jnp.sqrt(square / second) + eps)
    return direction, {'mean': mean, 'square': square}

  return _make(
    learning_rate,
    weight_decay,
    lambda t: {'mean': jnp.zeros_like(t), 'square': jnp.zeros_like(t)},
    rule,
  )


def reset_rows(state: RowState, initial: RowState, row_ids: Array) -> RowState:
  """Puts the moments of some rows back to where they start.

  Args:
    state: current state.
    initial: what `init` gives for a table of one row or more; its first row
      stands for all.
    row_ids: int32 [U]; out of range is dropped.
  """

  def reset(moment, start):
    # A negative index would count from the end.
    places = jnp.where(row_ids < 0, len(moment), row_ids)
    return moment.at[places].set(start, mode='drop')

  moments = {
    name: reset(moment, initial.moments[name][0])
    for name, moment in state.moments.items()
  }
  return RowState(state.count, moments)


def update(
  optimizer: RowOptimizer,
  table: Array,
  state: PyTree,
  slots: Array,
  ids: Array,
  row_grads: Array,
  capacity: int | None = None,
) -> tuple[Array, PyTree, Array]:
  """One update of one table from the gradients of gathered rows.

  Args:
    optimizer: the rule.
    table: [R, D].
    state: of `optimizer.init(table)`.
    slots: of `init_slots(R)`.
    ids: integers [...], rows that were gathered, with repetitions; those
      outside [0, R) are dropped.
    row_grads: [..., D].
    capacity: bound on distinct ids, for speed; the number of ids if None.

  Returns:
    Table, state and slots after.
  """
  chex.assert_shape(slots, table.shape[:1])
  chex.assert_shape(row_grads, ids.shape + table.shape[1:])
  ids = ids.reshape(-1)
  slots, rows = unique(slots, ids, capacity or len(ids))
  grads = sum_rows(rows, row_grads.reshape(-1, table.shape[1]))
  table, state = optimizer.apply(table, state, rows.ids, grads)
  return table, state, slots


__all__ = [
  'RowOptimizer',
  'RowState',
  'Unique',
  'adagrad',
  'adam',
  'any_rows',
  'init_slots',
  'join',
  'reset_rows',
  'rowwise_adagrad',
  'sgd',
  'sum_rows',
  'unique',
  'update',
]
