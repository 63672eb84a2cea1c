"""What every report.json has, and how it is written."""

from collections.abc import Mapping
import functools
import hashlib
import importlib.metadata
import json
import pathlib
import tempfile
from typing import Any

import jax
import numpy as np

from jax_autorec import data as data_lib
from jax_autorec import files
from jax_autorec.train import models as models_lib


def write_json(path: pathlib.Path, values: Any) -> None:
  """Writes JSON, whole or not at all."""
  files.write_text(path, json.dumps(values, indent=1) + '\n')


def versions() -> dict[str, str]:
  """Of the packages and the code that results depend on; the device."""
  names = ('jax', 'flax', 'optax', 'numpy')
  found = {name: importlib.metadata.version(name) for name in names}
  return found | {'device': jax.devices()[0].device_kind, 'code': code()}


@functools.cache
def code() -> str:
  """A fingerprint of the sources that results depend on, 12 hex digits.

  As they are when it is first asked for; without pages and configs, whose
  values a run keeps.
  """
  root, digest = pathlib.Path(__file__).parents[1], hashlib.sha256()
  for package in ('jax_autorec', 'experiments'):
    for path in sorted((root / package).rglob('*.py')):
      if {'report', 'configs'} & {*path.relative_to(root).parts}:
        continue
      digest.update(str(path.relative_to(root)).encode())
      digest.update(path.read_bytes())
  return digest.hexdigest()[:12]


def save(model: models_lib.Model, workdir: pathlib.Path) -> int:
  """Saves a run's model in its workdir; returns the bytes of its arrays."""
  return _saved_bytes(model, workdir / 'model')


def file_bytes(model: models_lib.Model) -> int:
  """What `save` would return, of a model that is not kept."""
  with tempfile.TemporaryDirectory() as directory:
    return _saved_bytes(model, directory)


def _saved_bytes(model, directory):
  path = models_lib.save(model, directory)
  return sum(p.stat().st_size for p in path.parent.glob('*.npz'))


def size(
  sizes: Mapping[str, Mapping[str, Any]], total_params: int
) -> dict[str, Any]:
  """What a report says of the size of a model.

  Args:
    sizes: of `models.size`: 'searched', where something was, 'trained' and
      'derived', where the result is another model than what was trained.
    total_params: trained scalars of the result.

  Returns:
    The sizes; those of the result by themselves, and bytes beside it.
  """
  trained = sizes['trained']['bytes']
  result = sizes.get('derived', sizes['trained'])
  held = {
    'tables': trained['tables'],
    'optimizer': trained['optimizer'],
    'checkpoint': trained['file'],
    'index': result['bytes']['index'],
  }
  if 'derived' in sizes:
    held['model'] = result['bytes']['file']
  return {
    **{key: value for key, value in result.items() if key != 'bytes'},
    'total_params': total_params,
    'bytes': held,
    'sizes': dict(sizes),
  }


def write_predictions(
  path: pathlib.Path, split: data_lib.Split, logits: np.ndarray
) -> None:
  """Keeps what a run predicted, to be compared with other runs.

  Args:
    path: of a file with logits float32 [R], labels uint8 [R], weights, if rows
      have any, and 'rows', a fingerprint.
    split: the rows.
    logits: [R].
  """
  labels = np.asarray(split.labels, np.uint8)
  arrays = {'logits': logits, 'labels': labels}
  if split.weights is not None:
    arrays['weights'] = np.asarray(split.weights)
  # Runs of equal fingerprint are of the same rows, in the same order.
  rows = hashlib.sha256(np.ascontiguousarray(split.ids))
  for array in (np.asarray(split.numeric), labels):
    rows.update(np.ascontiguousarray(array))
  with files.replacing(path) as file:
    np.savez_compressed(file, rows=rows.hexdigest(), **arrays)
