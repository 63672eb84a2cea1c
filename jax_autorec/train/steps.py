"""Pure steps: gradients of gathered rows and dense parameters, and updates."""

from collections.abc import Callable, Mapping
import functools
from typing import NamedTuple

import jax
from jax import lax
import jax.numpy as jnp
import optax

from jax_autorec.nn import blocks, embeddings, lookups, quantizers
from jax_autorec.nn import model as model_lib
from jax_autorec.optim import tables as tables_lib
from jax_autorec.train import state as state_lib
from jax_autorec.types import Array, Batch, PyTree


class Forward(NamedTuple):
  """What one forward pass gives.

  Attributes:
    logits: [B].
    batch_stats: running statistics after it.
    row_masks: table name -> bool [B, C_s, D], which elements of its rows were
      not switched off; of the tables where some can be.
    added: [], what modules add to the loss (the collection 'losses'): this
      replica's part of a sum over replicas.
  """

  logits: Array
  batch_stats: PyTree
  row_masks: dict[str, Array]
  added: Array | float = 0.0


def example_weights(batch: Batch, axis_name: str | None) -> Array:
  """Weights [B] that sum to one over the global batch; 0 for padding."""
  weights = jnp.where(batch.mask, batch.weights, 0)
  total = blocks.psum(weights.sum(), axis_name)
  # A batch without any weight (all padding) has loss and gradient zero.
  return weights / jnp.where(total > 0, total, 1)


def look_up(
  model: model_lib.CTRModel,
  tables: Mapping[str, Array],
  constants: Mapping[str, Array] | None,
  batch: Batch,
) -> tuple[dict[str, Array], dict[str, Array]]:
  """Row numbers by id space, and the rows of every table, of a batch."""
  architecture = model.architecture
  flat_ids = lookups.flatten_ids(architecture, batch, constants)
  return flat_ids, lookups.lookup(tables, flat_ids, architecture)


def apply_model(
  model: model_lib.CTRModel,
  state: state_lib.TrainState,
  params: PyTree,
  rows: Mapping[str, Array],
  batch: Batch,
  key: Array,
  collections: Mapping[str, PyTree],
) -> Forward:
  """Forward pass in training mode; running statistics are returned.

  Args:
    model: what to apply.
    state: its running statistics and constants.
    params: its parameters, in place of the state's.
    rows: gathered rows.
    batch: B rows.
    key: of dropout.
    collections: further ones ('arch', of a supernet).
  """
  logits, updated = model.apply(
    {
      'params': params,
      'batch_stats': state.batch_stats,
      **model_lib.constants_collection(state.constants),
      **collections,
    },
    batch,
    rows=rows,
    train=True,
    mutable=['batch_stats', embeddings.ROW_MASKS, quantizers.LOSSES],
    rngs={'dropout': key},
  )
  masks = updated.get(embeddings.ROW_MASKS, {}).get(model_lib.EMBEDDINGS, {})
  added = sum(jax.tree.leaves(updated.get(quantizers.LOSSES, {})))
  return Forward(logits, updated.get('batch_stats', {}), masks, added)


def apply_gradients(
  state: state_lib.TrainState,
  optimizer: state_lib.Optimizer,
  dense_grads: PyTree,
  flat_ids: Mapping[str, Array],
  row_grads: Mapping[str, Array],
  batch_stats: PyTree,
  axis_name: str | None,
  row_masks: Mapping[str, Array] | None = None,
) -> tuple[state_lib.TrainState, Array]:
  """One update of all weights.

  Args:
    state: the state before.
    optimizer: its optimisers.
    dense_grads: this replica's part of the gradients of `state.params`.
    flat_ids: id space -> int32 [B, C_s].
    row_grads: table name -> [B, C_s, D], this replica's rows.
    batch_stats: running statistics after the step.
    axis_name: replica axis, or None.
    row_masks: of `Forward`; elements that were switched off, and what the
      optimiser keeps of them, stay as they are.

  Returns:
    The state after; the global gradient norm before clipping.
  """
  dense_grads = blocks.psum(dense_grads, axis_name)
  dense_grads = optimizer.decay(dense_grads, state.params)
  ids = {space: x.reshape(-1) for space, x in flat_ids.items()}
  flat = lambda x: x.reshape(-1, x.shape[-1])
  grads, masks = jax.tree.map(flat, (dict(row_grads), dict(row_masks or {})))
  if axis_name is not None:
    # Rows of all replicas, never their mean: every replica then makes the same
    # exact update.
    gather = functools.partial(lax.all_gather, axis_name=axis_name, tiled=True)
    ids, grads, masks = jax.tree.map(gather, (ids, grads, masks))
  table_state, table_grads = optimizer.tables.reduce(
    state.table_optimizer, state.tables, ids, grads, masks
  )
  norm = jnp.sqrt(
    optax.tree.norm(dense_grads, squared=True)
    + optax.tree.norm(tables_lib.values(table_grads), squared=True)
  )
  if optimizer.clip_norm is not None:
    factor = jnp.minimum(1, optimizer.clip_norm / jnp.maximum(norm, 1e-12))
    dense_grads = jax.tree.map(lambda g: g * factor, dense_grads)
    table_grads = tables_lib.scale(table_grads, factor)
  updates, dense_state = optimizer.dense.update(
    dense_grads, state.dense_optimizer, state.params
  )
  scale = state.learning_rate_scale
  updates = jax.tree.map(lambda u: u * scale.astype(u.dtype), updates)
  tables, table_state = optimizer.tables.update(
    state.tables, table_state, table_grads, scale
  )
  state = state.replace(
    step=state.step + 1,
    params=optax.apply_updates(state.params, updates),
    tables=tables,
    batch_stats=batch_stats,
    dense_optimizer=dense_state,
    table_optimizer=table_state,
  )
  return state, norm


def make_train_step(
  model: model_lib.CTRModel,
  optimizer: state_lib.Optimizer,
  collections: Mapping[str, PyTree] | None = None,
) -> Callable[..., tuple[state_lib.TrainState, dict[str, Array]]]:
  """The step of plain training.

  Args:
    model: a model with all choices closed; its `axis_name` is the step's.
    optimizer: of its weights.
    collections: constant further collections.

  Returns:
    (state, batch) -> (state, {'loss', 'grad_norm'}); loss is the weighted mean
    log loss of the batch before the update, in nats, without what modules add.
  """
  axis_name = model.axis_name

  def step(state, batch):
    key = jax.random.fold_in(state.key, state.step)
    weights = example_weights(batch, axis_name)
    flat_ids, rows = look_up(model, state.tables, state.constants, batch)

    def objective(params, rows):
      out = apply_model(
        model, state, params, rows, batch, key, collections or {}
      )
      losses = optax.sigmoid_binary_cross_entropy(out.logits, batch.labels)
      loss = jnp.sum(weights * losses)
      return loss + out.added, (loss, out)

    (dense_grads, row_grads), (loss, out) = jax.grad(
      objective, argnums=(0, 1), has_aux=True
    )(state.params, rows)
    state, norm = apply_gradients(
      state,
      optimizer,
      dense_grads,
      flat_ids,
      row_grads,
      out.batch_stats,
      axis_name,
      out.row_masks,
    )
    return state, {'loss': blocks.psum(loss, axis_name), 'grad_norm': norm}

  return step


def make_predict(
  model: model_lib.CTRModel,
) -> Callable[[PyTree, Mapping[str, Array], PyTree, Batch], Array]:
  """(params, tables, batch_stats, batch) -> logits [B], evaluation mode.

  Further collections are the last argument: 'constants', where the
  architecture has arrays; 'arch', of a supernet.
  """
  single = model.clone(axis_name=None)

  def predict(params, tables, batch_stats, batch, collections=None):
    collections = collections or {}
    constants = collections.get('constants', {}).get(model_lib.EMBEDDINGS)
    _, rows = look_up(model, tables, constants, batch)
    return single.apply(
      {'params': params, 'batch_stats': batch_stats, **collections},
      batch,
      rows=rows,
      train=False,
    )

  return predict
