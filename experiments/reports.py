"""What every report.json has, and how it is written."""

import importlib.metadata
import json
import os
import pathlib
from typing import Any

import jax


def write_json(path: pathlib.Path, values: Any) -> None:
  """Writes JSON, whole or not at all."""
  partial = path.with_suffix('.partial')
  partial.write_text(json.dumps(values, indent=1) + '\n', 'utf-8')
  os.replace(partial, path)


def versions() -> dict[str, str]:
  """Of the packages that results depend on; the device."""
  names = ('jax', 'flax', 'optax', 'numpy')
  found = {name: importlib.metadata.version(name) for name in names}
  return found | {'device': jax.devices()[0].device_kind}
