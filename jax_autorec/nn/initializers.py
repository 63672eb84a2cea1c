"""Initial values of tables too large to be drawn at once."""

from collections.abc import Callable

import jax
from jax import lax
import jax.numpy as jnp

from jax_autorec.types import Array

_BLOCK_ENTRIES = 2**22


def normal_by_blocks(stddev: float) -> Callable[..., Array]:
  """A Flax initialiser: N(0, stddev), drawn block by block and in place.

  `jax.nn.initializers.normal` holds the random bits of the whole table beside
  it; this one needs the table and a few blocks of 16 MiB.

  Args:
    stddev: standard deviation.

  Returns:
    (key, shape [R, D], dtype) -> [R, D].
  """

  def init(key, shape, dtype=jnp.float32):
    num_rows, dim = shape
    block = min(num_rows, max(1, _BLOCK_ENTRIES // dim))

    def fill(i, table):
      # The last block is moved back to end with the table.
      start = jnp.minimum(i * block, num_rows - block)
      values = stddev * jax.random.normal(
        jax.random.fold_in(key, i), (block, dim), dtype
      )
      return lax.dynamic_update_slice(table, values, (start, 0))

    return lax.fori_loop(
      0, -(-num_rows // block), fill, jnp.zeros(shape, dtype)
    )

  return init
