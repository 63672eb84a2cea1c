"""What a training step sees: all tables of a model, updated together."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jax_autorec import errors
from jax_autorec.optim import row_sparse as rows_lib
from jax_autorec.types import Array, PyTree


class TableOptimizer(NamedTuple):
  """How tables follow the gradients of their gathered rows.

  Attributes:
    init: (tables) -> state.
    reduce: (state, tables, ids, row_grads, masks=None) -> (state, grads);
      `ids` maps an id space to int32 [N], `row_grads` a table to [N, D]. Sums
      duplicates.
      `masks` maps tables to bool [N, D]: an element, and what is kept of it,
      moves only where one of its look-ups says True. All do in other tables.
    update: (tables, state, grads, learning_rate_scale) -> (tables, state).

  Ids out of range are dropped.
  """

  init: Callable[..., PyTree]
  reduce: Callable[..., tuple[PyTree, Any]]
  update: Callable[..., tuple[dict[str, Array], PyTree]]


class Gradients(NamedTuple):
  """Summed gradients between `reduce` and `update`.

  Attributes:
    values: table -> [U, D], or [R, D] of a dense optimiser.
    ids: table -> int32 [U]; empty for a dense optimiser.
    masks: table -> bool [U, D], what moves; all does in tables without one.
  """

  values: dict[str, Array]
  ids: dict[str, Array]
  masks: dict[str, Array]


def values(grads: Gradients) -> dict[str, Array]:
  """The summed gradients; their norm is that of the true dense gradient."""
  return grads.values


def scale(grads: Gradients, factor: Array) -> Gradients:
  """Gradients times a number, as clipping wants."""
  scaled = {name: g * factor for name, g in grads.values.items()}
  return grads._replace(values=scaled)


class SparseState(NamedTuple):
  """State of `row_sparse`.

  Attributes:
    slots: space -> int32 [R].
    tables: table -> state of the row optimiser.
  """

  slots: dict[str, Array]
  tables: dict[str, PyTree]


def slots(
  state: PyTree, tables: Mapping[str, Array], spaces: Mapping[str, str]
) -> dict[str, Array]:
  """Space -> slot map; fresh ones for an optimiser that has none."""
  if isinstance(state, SparseState):
    return dict(state.slots)
  return {
    spaces[name]: rows_lib.init_slots(len(table))
    for name, table in tables.items()
  }


def with_slots(state: PyTree, slots: Mapping[str, Array]) -> PyTree:
  """The state with its slot maps replaced, if it has any."""
  is_sparse = isinstance(state, SparseState)
  return state._replace(slots=dict(slots)) if is_sparse else state


def row_sparse(
  optimizer: rows_lib.RowOptimizer | Mapping[str, rows_lib.RowOptimizer],
  spaces: Mapping[str, str],
  capacities: Mapping[str, int] | None = None,
) -> TableOptimizer:
  """Updates the rows of a batch alone.

  Args:
    optimizer: the rule for all tables, or table -> rule.
    spaces: table -> id space; ids are made distinct once per space.
    capacities: space -> bound on its distinct ids in a batch; the number of
      ids if None, which is safe and slower.
  """

  def rule(name):
    is_one = isinstance(optimizer, rows_lib.RowOptimizer)
    return optimizer if is_one else optimizer[name]

  def init(tables):
    return SparseState(
      slots(None, tables, spaces),
      {name: rule(name).init(table) for name, table in tables.items()},
    )

  def reduce(state, tables, ids, row_grads, masks=None):
    del tables
    new_slots, distinct = {}, {}
    for space, space_slots in state.slots.items():
      capacity = (capacities or {}).get(space) or len(ids[space])
      new_slots[space], distinct[space] = rows_lib.unique(
        space_slots, ids[space], min(capacity, len(ids[space]))
      )
    summed = {
      name: rows_lib.sum_rows(distinct[spaces[name]], grads)
      for name, grads in row_grads.items()
    }
    row_ids = {name: distinct[spaces[name]].ids for name in row_grads}
    moving = {
      name: rows_lib.any_rows(distinct[spaces[name]], mask)
      for name, mask in (masks or {}).items()
    }
    return state._replace(slots=new_slots), Gradients(summed, row_ids, moving)

  def update(tables, state, grads, learning_rate_scale):
    new_tables, new_states = {}, {}
    for name, table in tables.items():
      new_tables[name], new_states[name] = rule(name).apply(
        table,
        state.tables[name],
        grads.ids[name],
        grads.values[name],
        learning_rate_scale,
        grads.masks.get(name),
      )
    return new_tables, state._replace(tables=new_states)

  return TableOptimizer(init, reduce, update)


def dense(
  tx: optax.GradientTransformation,
  spaces: Mapping[str, str],
  l2: Mapping[str, float] | None = None,
) -> TableOptimizer:
  """Updates whole tables every step, rows that the batch lacks as well.

  For small vocabularies, and for protocols that decay whole tables (BARS). Its
  cost grows with the vocabulary: never the default for a large one.

  Args:
    tx: any optax transformation of the tables.
    spaces: table -> id space.
    l2: table -> what times the table is added to its gradients, before they
      are clipped.
  """

  def reduce(state, tables, ids, row_grads, masks=None):
    if masks:
      raise errors.ConfigError(
        f'Parts of the rows of {", ".join(masks)} are switched off, and a '
        "dense table optimiser would move them: set table_optimizer='adam' or "
        'another that updates the rows of the batch alone.'
      )
    full = {}
    for name, grads in row_grads.items():
      decay = (l2 or {}).get(name, 0.0)
      start = decay * tables[name] if decay else jnp.zeros_like(tables[name])
      # A negative index would count from the end.
      rows = ids[spaces[name]]
      rows = jnp.where(rows < 0, len(start), rows)
      full[name] = start.at[rows].add(grads, mode='drop')
    return state, Gradients(full, {}, {})

  def update(tables, state, grads, learning_rate_scale):
    updates, state = tx.update(grads.values, state, tables)
    updates = jax.tree.map(
      lambda u: u * jnp.asarray(learning_rate_scale, u.dtype), updates
    )
    return optax.apply_updates(tables, updates), state

  return TableOptimizer(tx.init, reduce, update)
