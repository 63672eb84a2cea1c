"""Plain types shared by all layers."""

from typing import Any, NamedTuple

import jax
import numpy as np

Array = jax.Array | np.ndarray
PyTree = Any


class Batch(NamedTuple):
  """Rows as a model reads them.

  B rows; C id columns, a field of `max_length` L taking L of them in the order
  of the schema's categorical fields; N numeric fields. Leaves may carry a
  leading axis of steps when several batches are stacked for `lax.scan`.

  Attributes:
    ids: int32 [B, C], ids local to their field; -1 pads a multi-valued field.
    numeric: float32 [B, N], scaled values, 0 where missing.
    missing: bool [B, N], which numeric cells were empty.
    labels: float32 [B], 0 or 1.
    weights: float32 [B], sample weights (1 where the data has none).
    mask: bool [B], False for the rows that only pad the last batch.
  """

  ids: Array
  numeric: Array
  missing: Array
  labels: Array
  weights: Array
  mask: Array
