"""A trained model: what it holds, predicts and weighs."""

from collections.abc import Callable, Mapping
import dataclasses
import os
import pathlib
from typing import Any
import zipfile

import jax
import numpy as np

from jax_autorec import architecture as arch_lib
from jax_autorec import errors, files, metrics
from jax_autorec.data import batches as batches_lib
from jax_autorec.data import dataset as dataset_lib
from jax_autorec.nn import model as model_lib
from jax_autorec.train import checkpoints, steps
from jax_autorec.types import Array, Batch, PyTree

_PARTS = ('params', 'tables', 'batch_stats')


@dataclasses.dataclass(frozen=True)
class Model:
  """A trained model: its architecture and arrays.

  Attributes:
    architecture: closed.
    params: parameters but for the tables.
    tables: table name -> [R, D].
    batch_stats: running statistics.
    valid: metrics on the validation split of the chosen weights.
    info: 'seconds', 'steps', 'best_step', 'examples_per_second' and 'size', of
      the training (see `size`); of a packed model also 'code_entropy'.
  """

  architecture: arch_lib.Architecture
  params: PyTree
  tables: Mapping[str, Any]
  batch_stats: PyTree
  valid: Mapping[str, float]
  info: Mapping[str, Any]

  @property
  def total_params(self) -> int:
    """Trained scalars: tables and everything else.

    Codes, patterns and permutations are not trained: a packed or sparse model
    can have fewer than its architecture's `ep_total`, which counts them in
    float32 entries (`index_bytes` / 4).
    """
    return sum(x.size for x in jax.tree.leaves((self.params, self.tables)))

  def size(self, file: int = 0) -> dict[str, Any]:
    """What the model holds by itself, see `size`.

    Args:
      file: bytes of the files that it is saved in.
    """
    return size(
      self.architecture, self.params, self.tables, self.batch_stats, file=file
    )


def save(model: Model, directory: str | os.PathLike[str]) -> pathlib.Path:
  """Writes a model into a directory: its architecture and `weights.npz`.

  Only what the model needs: no state of an optimiser, nothing of a search, and
  not what training started from.

  Args:
    model: of `retrain`.
    directory: made where it is missing.

  Returns:
    The path of the weights.
  """
  architecture = model.architecture
  dataclasses.replace(architecture, arrays=architecture.kept_arrays).save(
    directory
  )
  path = pathlib.Path(directory) / 'weights.npz'
  with files.replacing(path) as file:
    np.savez(
      file,
      **{
        f'{part}/{name}': np.asarray(leaf)
        for part in _PARTS
        for name, leaf in checkpoints.named_leaves(getattr(model, part), '/')
      },
    )
  return path


def load(directory: str | os.PathLike[str]) -> Model:
  """Reads a model that `save` wrote; it knows its weights alone.

  Raises:
    ConfigError: where there is none, or its architecture does not fit.
    CheckpointError: for weights that cannot be read.
  """
  architecture = arch_lib.Architecture.load(directory)
  path = pathlib.Path(directory) / 'weights.npz'
  parts: dict[str, dict[str, Any]] = {part: {} for part in _PARTS}
  try:
    with np.load(path) as file:
      for name in file.files:
        part, *parents, last = name.split('/')
        node = parts[part]
        for parent in parents:
          node = node.setdefault(parent, {})
        node[last] = jax.numpy.asarray(file[name])
  except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
    raise errors.CheckpointError(
      f'{path} cannot be read as the weights of a model: {error}.'
    ) from error
  shapes = {t.name: (t.num_rows, t.dim) for t in architecture.tables}
  held = {name: table.shape for name, table in parts['tables'].items()}
  if held != shapes:
    raise errors.CheckpointError(
      f'{path} holds tables of the shapes {held}, and its architecture has '
      f'{shapes}: they are of different models. Save the model again.'
    )
  return Model(architecture, **parts, valid={}, info={})


def predict(
  architecture: arch_lib.Architecture,
  variables: tuple[PyTree, PyTree, PyTree],
  split: dataset_lib.Split,
  batch_size: int,
  *,
  collections: PyTree = None,
  compiled=None,
) -> np.ndarray:
  """Logits float32 [R] of all rows of a split, in their order.

  Args:
    architecture: of the model.
    variables: params, tables, batch_stats.
    split: the rows.
    batch_size: rows at a time.
    collections: further collections ('arch', of a supernet).
    compiled: a jitted `steps.make_predict` to use again.
  """
  if compiled is None:
    compiled = jax.jit(steps.make_predict(model_lib.build(architecture)))
  if architecture.constants:
    arrays = model_lib.constants(architecture)
    collections = {
      **(collections or {}),
      **model_lib.constants_collection(arrays),
    }
  return all_logits(
    lambda batch: compiled(*variables, batch, collections), split, batch_size
  )


def all_logits(
  apply: Callable[[Batch], Array], split: dataset_lib.Split, batch_size: int
) -> np.ndarray:
  """Logits float32 [R] of all rows of a split, in their order.

  Args:
    apply: maps a batch to logits [B].
    split: the rows.
    batch_size: rows at a time.
  """
  logits = [apply(batch) for batch in batches_lib.in_order(split, batch_size)]
  return np.concatenate(jax.device_get(logits))[: split.num_rows]


def predictions(
  model: Model, split: dataset_lib.Split, batch_size: int = 4096
) -> np.ndarray:
  """Logits float32 [R] of a model, for `measure`; read the test split once."""
  variables = (model.params, model.tables, model.batch_stats)
  return predict(model.architecture, variables, split, batch_size)


def evaluate(
  model: Model, split: dataset_lib.Split, batch_size: int = 4096
) -> dict[str, float]:
  """Exact metrics of a model on a split.

  Call it on the test split once, for the final model: choices are made on the
  validation split.
  """
  return measure(split, predictions(model, split, batch_size))


def measure(split: dataset_lib.Split, logits: np.ndarray) -> dict[str, float]:
  """Exact metrics of logits [R] on the rows of a split."""
  return metrics.evaluate_logits(
    np.asarray(split.labels), logits, split.weights, split.groups
  )


def size(
  architecture: arch_lib.Architecture,
  params: PyTree,
  tables: Mapping[str, Any],
  batch_stats: PyTree,
  *,
  optimizer: PyTree = (),
  method: PyTree = (),
  file: int = 0,
) -> dict[str, Any]:
  """What is held at one moment: in a search, a training, or to serve.

  Args:
    architecture: open or closed.
    params: parameters but for the tables.
    tables: table name -> [R, D].
    batch_stats: running statistics.
    optimizer: state of the weights' optimisers.
    method: what a search, or an online method, trains and remembers.
    file: bytes of the checkpoint, or of the saved model.

  Returns:
    'vector_params', 'first_order_params', 'embedding_params',
    'projection_params', 'codebook_params', 'numeric_params', 'vectors_total'
    and 'ep_total' of the architecture, maps of an open choice included; 'bytes'
    of 'tables', 'dense' (all other weights), 'index', 'optimizer', 'method' and
    'file'.
  """
  # An open choice has maps of its own, which no plan tells.
  maps = 0
  if architecture.choice is not None:
    own = params.get(model_lib.FIELDS, {})
    maps = sum(x.size for x in jax.tree.leaves(own))
  return {
    'vector_params': architecture.vector_params,
    'first_order_params': architecture.first_order_params,
    'embedding_params': architecture.embedding_params,
    'projection_params': architecture.projection_params + maps,
    'codebook_params': architecture.codebook_params,
    'numeric_params': architecture.numeric_params,
    'vectors_total': architecture.vectors_total + maps,
    'ep_total': architecture.ep_total + maps,
    'bytes': {
      'tables': array_bytes(tables),
      'dense': array_bytes((params, batch_stats)),
      'index': architecture.index_bytes,
      'optimizer': array_bytes(optimizer),
      'method': array_bytes(method),
      'file': file,
    },
  }


def array_bytes(tree: PyTree) -> int:
  """Bytes of all arrays of a tree."""
  return sum(
    x.size
    * (
      8
      if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
      else x.dtype.itemsize
    )
    for x in jax.tree.leaves(tree)
  )
