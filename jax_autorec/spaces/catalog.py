"""Base models by name."""

import inspect
from typing import Any

from jax_autorec import architecture as arch_lib
from jax_autorec import errors
from jax_autorec import schema as schema_lib
from jax_autorec.spaces import attention, crosses, pairs, products, towers

MODELS = {
  'lr': products.lr,
  'fm': products.fm,
  'ffm': pairs.ffm,
  'fwfm': pairs.fwfm,
  'fmfm': pairs.fmfm,
  'hofm': crosses.hofm,
  'afm': pairs.afm,
  'nfm': crosses.nfm,
  'crossnet': crosses.crossnet,
  'crossnet_v2': crosses.crossnet_v2,
  'cin': crosses.cin,
  'autoint': attention.autoint,
  'wide_deep': products.wide_deep,
  'deepfm': products.deepfm,
  'ipnn': products.ipnn,
  'dcn': crosses.dcn,
  'dcn_v2': crosses.dcn_v2,
  'xdeepfm': crosses.xdeepfm,
  'autoint_plus': attention.autoint_plus,
  'fibinet': pairs.fibinet,
  'masknet': towers.masknet,
  'masknet_serial': towers.masknet_serial,
  'finalmlp': towers.finalmlp,
  'dlrm': towers.dlrm,
  'rater': towers.rater,
}


def options(name: str) -> dict[str, Any]:
  """What a model's factory takes beside the schema, with its defaults.

  Raises:
    ConfigError: for an unknown name; lists the known and the nearest.
  """
  if name not in MODELS:
    raise errors.ConfigError(
      f'No model {name!r}; the models are: {", ".join(MODELS)}.'
      f'{errors.nearest(name, MODELS)}'
    )
  parameters = inspect.signature(MODELS[name]).parameters.values()
  return {p.name: p.default for p in parameters if p.kind == p.KEYWORD_ONLY}


def build(
  name: str, schema: schema_lib.Schema, **given: Any
) -> arch_lib.Architecture:
  """The architecture of a model by name, for a fitted schema.

  Args:
    name: of `MODELS`.
    schema: fitted schema.
    **given: options of its factory.

  Raises:
    ConfigError: for an unknown name or option; lists the known and the nearest.
  """
  known = options(name)
  for option in given:
    if option not in known:
      raise errors.ConfigError(
        f'Model {name!r} has no option {option!r}; there are: '
        f'{", ".join(known)}.{errors.nearest(option, known)}'
      )
  return MODELS[name](schema, **given)
