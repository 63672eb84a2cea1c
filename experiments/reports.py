"""What every report.json has, and how it is written."""

import importlib.metadata
import json
import pathlib
from typing import Any

import jax

from jax_autorec import files


def write_json(path: pathlib.Path, values: Any) -> None:
  """Writes JSON, whole or not at all."""
  files.write_text(path, json.dumps(values, indent=1) + '\n')


def versions() -> dict[str, str]:
  """Of the packages that results depend on; the device."""
  names = ('jax', 'flax', 'optax', 'numpy')
  found = {name: importlib.metadata.version(name) for name in names}
  return found | {'device': jax.devices()[0].device_kind}
