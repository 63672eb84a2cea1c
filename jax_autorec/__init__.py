"""AutoML for deep recommender systems in JAX and Flax.

  import jax_autorec as jar

  data = jar.data.load('frappe', data_dir)
  space = jar.spaces.deepfm(data.schema, pairs='open')
  autofis = jar.search.autofis(jar.optim.grda(1.0, c=5e-4, mu=0.8))
  found = jar.run_search(space, {'interactions': autofis}, data)
  architecture = jar.derive(found)
  model = jar.retrain(architecture, data)
  print(jar.evaluate(model, data.test))

What is named here is public. All is imported when it is first used: the import
of the package itself is quick and needs none of its requirements.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from jax_autorec import (
    comparison,
    data,
    errors,
    field_spaces,
    group_spaces,
    head_spaces,
    interactions,
    metrics,
    nn,
    numeric,
    numeric_spaces,
    optim,
    quantization,
    report,
    search,
    sizes,
    spaces,
    train,
  )
  from jax_autorec.architecture import Architecture
  from jax_autorec.numeric import AutoDis
  from jax_autorec.pipeline import Found, derive, run_population, run_search
  from jax_autorec.schema import Field, Schema
  from jax_autorec.streaming import run_stream, settle
  from jax_autorec.train.models import Model, evaluate, predict
  from jax_autorec.train.retraining import pack, retrain
  from jax_autorec.train.settings import Settings

__all__ = [
  'Architecture',
  'AutoDis',
  'Field',
  'Found',
  'Model',
  'Schema',
  'Settings',
  'comparison',
  'data',
  'derive',
  'errors',
  'evaluate',
  'field_spaces',
  'group_spaces',
  'head_spaces',
  'interactions',
  'metrics',
  'nn',
  'numeric',
  'numeric_spaces',
  'optim',
  'pack',
  'predict',
  'quantization',
  'report',
  'retrain',
  'run_population',
  'run_search',
  'run_stream',
  'search',
  'settle',
  'sizes',
  'spaces',
  'train',
]

_HOME = {
  'Architecture': 'architecture',
  'AutoDis': 'numeric',
  'Field': 'schema',
  'Found': 'pipeline',
  'Model': 'train.models',
  'Schema': 'schema',
  'Settings': 'train.settings',
  'derive': 'pipeline',
  'evaluate': 'train.models',
  'pack': 'train.retraining',
  'predict': 'train.models',
  'retrain': 'train.retraining',
  'run_population': 'pipeline',
  'run_search': 'pipeline',
  'run_stream': 'streaming',
  'settle': 'streaming',
}


def __getattr__(name: str) -> Any:
  if name not in __all__:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  module = importlib.import_module(f'{__name__}.{_HOME.get(name, name)}')
  return getattr(module, name) if name in _HOME else module


def __dir__() -> list[str]:
  return __all__
