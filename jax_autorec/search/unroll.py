"""Second order of a bi-level search: exact, at the cost of the batches' rows.

Liu, Simonyan and Yang, DARTS, ICLR 2019, section 2.3: the choices a follow the
validation loss at the weights w' = w - xi grad_w L_train(w, a), of which

  dL_valid(w'(a), a)/da = grad_a L_valid(w', a)
                          - xi (d/dw grad_a L_train(w, a)) v,
  v = grad_w' L_valid(w', a).

The paper approximates the product by a finite difference. Here it is one
forward derivative (jvp) of grad_a L_train along v, which is exact. Weights are
the dense ones and the rows that the train batch looked up: a row that both
batches look up moves for both, and no table is read or written. The inner step
is plain gradient descent on the loss alone, without decay.
"""

from collections.abc import Callable
import functools
from typing import NamedTuple

import jax
from jax import lax
import jax.numpy as jnp

from jax_autorec.nn import blocks, embeddings
from jax_autorec.nn import model as model_lib
from jax_autorec.optim import row_sparse
from jax_autorec.optim import tables as tables_lib
from jax_autorec.train import state as state_lib
from jax_autorec.types import Array, Batch, PyTree


class Joined(NamedTuple):
  """The rows of a train batch and where a validation batch finds them.

  Attributes:
    sums: table -> [U, D], summed gradients of the distinct train rows.
    train: space -> int32 [N], place of each train id among them.
    valid: space -> int32 [M], the same of validation ids; U where it is none
      of them.
  """

  sums: dict[str, Array]
  train: dict[str, Array]
  valid: dict[str, Array]


def join(
  model: model_lib.CTRModel,
  train: state_lib.TrainState,
  flat_ids: dict[str, Array],
  row_grads: dict[str, Array],
  valid_batch: Batch,
) -> tuple[state_lib.TrainState, Joined]:
  """Joins the rows of two batches; the cost is that of their ids.

  Args:
    model: names the tables; under pmap its replicas' rows are gathered.
    train: the state; its slot maps are used.
    flat_ids: of the train batch.
    row_grads: of the train batch, table -> [B, C, D].
    valid_batch: the other batch.

  Returns:
    The state with its slot maps after; the rows.
  """
  architecture, axis_name = model.architecture, model.axis_name
  gather = functools.partial(_gather, axis_name=axis_name)
  spaces = embeddings.spaces(architecture)
  slots = tables_lib.slots(train.table_optimizer, train.tables, spaces)
  other_ids = embeddings.flatten_ids(architecture, valid_batch, train.constants)
  distinct, own, other = {}, {}, {}
  for space, ids in flat_ids.items():
    every = gather(ids.reshape(-1))
    capacity = min(len(every), len(slots[space]))
    slots[space], distinct[space] = row_sparse.unique(
      slots[space], every, capacity
    )
    ids, wanted = ids.reshape(-1), other_ids[space].reshape(-1)
    slots[space], places = row_sparse.join(
      slots[space], distinct[space], jnp.concatenate([ids, wanted])
    )
    own[space], other[space] = places[: len(ids)], places[len(ids) :]
  sums = {
    name: row_sparse.sum_rows(
      distinct[spaces[name]], gather(grads.reshape(-1, grads.shape[-1]))
    )
    for name, grads in row_grads.items()
  }
  state = tables_lib.with_slots(train.table_optimizer, slots)
  return train.replace(table_optimizer=state), Joined(sums, own, other)


def _gather(array, axis_name):
  if axis_name is None:
    return array
  return lax.all_gather(array, axis_name, tiled=True)


def _at(rows: Array, places: Array, like: Array) -> Array:
  """rows [U, D] at places [N], zeros beyond, shaped like [B, C, D]."""
  return rows.at[places].get(mode='fill', fill_value=0).reshape(like.shape)


def gradient(
  model: model_lib.CTRModel,
  rate: float,
  joined: Joined,
  train: state_lib.TrainState,
  train_rows: dict[str, Array],
  dense_grads: PyTree,
  train_loss: Callable[..., Array],
  valid_rows: dict[str, Array],
  valid_grads: Callable[..., tuple[tuple[PyTree, PyTree, PyTree], PyTree]],
  arch: PyTree,
) -> tuple[PyTree, PyTree, PyTree]:
  """The gradient of the choices through one step of the weights.

  Args:
    model: under pmap gradients are summed over its replicas.
    rate: xi.
    joined: of `join`.
    train: the state before the step.
    train_rows: table -> [B, C, D].
    dense_grads: of the train loss; this replica's part.
    train_loss: (params, rows, arch) -> [], this replica's part.
    valid_rows: table -> [B, C, D].
    valid_grads: (params, rows) -> ((arch, params, rows gradients), aux).
    arch: the choices to be unrolled.

  Returns:
    Gradients at w' of all choices (this replica's part), what to subtract from
    those of `arch`, and aux.
  """
  axis_name = model.axis_name
  spaces = embeddings.spaces(model.architecture)
  dense_grads = blocks.psum(dense_grads, axis_name)
  params = jax.tree.map(lambda w, g: w - rate * g, train.params, dense_grads)
  moved = {
    name: rows - rate * _at(joined.sums[name], joined.valid[spaces[name]], rows)
    for name, rows in valid_rows.items()
  }
  (arch_grads, params_grads, rows_grads), aux = valid_grads(params, moved)
  params_grads = blocks.psum(params_grads, axis_name)
  tangents = {}
  for name, grads in rows_grads.items():
    space = spaces[name]
    flat = _gather(grads.reshape(-1, grads.shape[-1]), axis_name)
    places = _gather(joined.valid[space], axis_name)
    sums = jnp.zeros_like(joined.sums[name]).at[places].add(flat, mode='drop')
    tangents[name] = _at(sums, joined.train[space], train_rows[name])
  _, mixed = jax.jvp(
    lambda params, rows: jax.grad(train_loss, 2)(params, rows, arch),
    (train.params, train_rows),
    (params_grads, tangents),
  )
  return arch_grads, jax.tree.map(lambda x: rate * x, mixed), aux
