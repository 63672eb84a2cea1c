"""All that a training step reads and writes, as one pytree."""

from collections.abc import Callable
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jax_autorec import architecture as arch_lib
from jax_autorec import schema as schema_lib
from jax_autorec.nn import embeddings, lookups
from jax_autorec.nn import model as model_lib
from jax_autorec.optim import tables as tables_lib
from jax_autorec.types import Array, Batch, PyTree


class Optimizer(NamedTuple):
  """How weights are updated.

  Attributes:
    dense: of all parameters that are not tables.
    tables: of the tables.
    clip_norm: bound on the global norm of all gradients together, or None.
    decay: (grads, params) -> grads of those parameters, with their L2 terms;
      before clipping.
  """

  dense: optax.GradientTransformation
  tables: tables_lib.TableOptimizer
  clip_norm: float | None = None
  decay: Callable[[PyTree, PyTree], PyTree] = lambda grads, params: grads


@flax.struct.dataclass
class TrainState:
  """Weights, optimiser states, statistics, keys and position of a training.

  Attributes:
    step: int32 [], steps done; the data position follows from it.
    key: PRNG key that the keys of all steps are folded from.
    params: parameters but for the tables.
    tables: table name -> [R, D].
    batch_stats: running statistics.
    dense_optimizer: state of `Optimizer.dense`.
    table_optimizer: state of `Optimizer.tables`.
    learning_rate_scale: float32 [], the plateau rule's factor.
    constants: arrays that look-ups need, which no step changes.
  """

  step: Array
  key: Array
  params: PyTree
  tables: dict[str, Array]
  batch_stats: PyTree
  dense_optimizer: PyTree
  table_optimizer: PyTree
  learning_rate_scale: Array
  constants: dict[str, Array]


def example_batch(schema: schema_lib.Schema, batch_size: int = 2) -> Batch:
  """A batch of the right shapes and dtypes: all cells missing."""
  return empty_batch(batch_size, schema.num_id_columns, len(schema.numeric))


def empty_batch(batch_size: int, num_columns: int, num_numeric: int) -> Batch:
  """The same for so many columns of ids and numeric fields."""
  return Batch(
    ids=np.zeros((batch_size, num_columns), np.int32),
    numeric=np.zeros((batch_size, num_numeric), np.float32),
    missing=np.ones((batch_size, num_numeric), bool),
    labels=np.zeros((batch_size,), np.float32),
    weights=np.ones((batch_size,), np.float32),
    mask=np.ones((batch_size,), bool),
  )


def initial_tables(
  architecture: arch_lib.Architecture, key: Array, table_std: float
) -> dict[str, Array]:
  """The tables that `init` starts from, for the same key, drawn anew."""
  init_key, _ = jax.random.split(key)
  table_key, _ = jax.random.split(init_key)
  return lookups.init_tables(architecture, table_key, table_std)


def init_dense(
  model: model_lib.CTRModel,
  batch: Batch,
  key: Array,
  constants: dict[str, Array],
) -> dict[str, PyTree]:
  """Every collection of a fresh model, without its tables."""
  architecture = model.architecture
  flat_ids = lookups.flatten_ids(architecture, batch, constants)
  rows = {
    table.name: jnp.zeros(
      flat_ids[table.space].shape + (table.dim,), jnp.float32
    )
    for table in architecture.tables
  }
  # Initialisation runs outside any replica axis.
  single = model.clone(axis_name=None)
  return single.init(key, batch, rows=rows, train=False)


def init_variables(
  model: model_lib.CTRModel, batch: Batch, key: Array, table_std: float
) -> tuple[dict[str, Array], dict[str, PyTree]]:
  """Fresh tables, and every other collection of a model.

  Tables are made one by one and in place, outside `model.init`, so that a
  table nearly as large as the memory can be made.
  """
  table_key, dense_key = jax.random.split(key)
  architecture = model.architecture
  tables = lookups.init_tables(architecture, table_key, table_std)

  def init(key, batch, constants):
    return init_dense(model, batch, key, constants)

  constants = model_lib.constants(architecture)
  variables = dict(jax.jit(init)(dense_key, batch, constants))
  params = variables['params'] = dict(variables.get('params', {}))
  if model_lib.EMBEDDINGS in params:
    params[model_lib.EMBEDDINGS] = embeddings.scale_vectors(
      architecture, params[model_lib.EMBEDDINGS], table_std
    )
  variables.setdefault('batch_stats', {})
  return tables, variables


def init(
  model: model_lib.CTRModel,
  optimizer: Optimizer,
  batch: Batch,
  key: Array,
  table_std: float = lookups.INIT_STD,
) -> tuple[TrainState, dict[str, PyTree]]:
  """A fresh training state, and collections that are none of weights'.

  Args:
    model: what to train.
    optimizer: of its weights.
    batch: any batch of the right shapes.
    key: PRNG key.
    table_std: standard deviation of fresh tables.

  Returns:
    The state; the remaining collections ('arch' where choices are open).
  """
  init_key, step_key = jax.random.split(key)
  tables, variables = init_variables(model, batch, init_key, table_std)
  params = variables.pop('params')
  state = TrainState(
    step=jnp.zeros((), jnp.int32),
    key=step_key,
    params=params,
    tables=tables,
    batch_stats=variables.pop('batch_stats'),
    # A jitted init gives buffers of its own: an aliased one cannot be donated.
    dense_optimizer=jax.jit(optimizer.dense.init)(params),
    table_optimizer=optimizer.tables.init(tables),
    learning_rate_scale=jnp.ones((), jnp.float32),
    constants=model_lib.constants(model.architecture),
  )
  return state, variables
