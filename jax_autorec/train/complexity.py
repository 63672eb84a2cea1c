"""What a prediction costs, by XLA's own count."""

import jax
import jax.numpy as jnp

from jax_autorec import architecture as arch_lib
from jax_autorec import schema as schema_lib
from jax_autorec.nn import model as model_lib
from jax_autorec.train import state as state_lib
from jax_autorec.train import steps

_ROWS = 64  # What does not depend on rows weighs the less, the more there are.


def flops(
  architecture: arch_lib.Architecture, schema: schema_lib.Schema
) -> float:
  """Floating-point operations of the prediction of one row.

  XLA counts those of the whole program, products of vectors included, before
  it optimises: nothing is compiled, and the count is the same on all devices.
  Look-ups cost none.

  Args:
    architecture: closed.
    schema: of its fields.
  """
  model = model_lib.build(architecture)
  batch = state_lib.example_batch(schema, _ROWS)
  constants = model_lib.constants(architecture)

  def shapes(key):
    variables = state_lib.init_dense(model, batch, key, constants)
    return variables.get('params', {}), variables.get('batch_stats', {})

  params, batch_stats = jax.eval_shape(shapes, jax.random.key(0))
  tables = {
    table.name: jax.ShapeDtypeStruct((table.num_rows, table.dim), jnp.float32)
    for table in architecture.tables
  }
  collections = model_lib.constants_collection(constants)
  lowered = jax.jit(steps.make_predict(model)).lower(
    params, tables, batch_stats, batch, collections
  )
  # Some back ends count what they have compiled alone.
  cost = lowered.cost_analysis() or lowered.compile().cost_analysis()
  return cost['flops'] / _ROWS
