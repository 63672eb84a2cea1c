"""Base models as architectures; products of some may be open.

Defaults are the settings of the BARS benchmark on its Frappe data, with which
numbers of parameters are the benchmark's to the unit.
"""

from jax_autorec.spaces.attention import autoint, autoint_plus
from jax_autorec.spaces.catalog import MODELS, build, options
from jax_autorec.spaces.crosses import (
  cin,
  crossnet,
  crossnet_v2,
  dcn,
  dcn_v2,
  hofm,
  nfm,
  xdeepfm,
)
from jax_autorec.spaces.pairs import (
  afm,
  ffm,
  fibinet,
  fmfm,
  fwfm,
)
from jax_autorec.spaces.parts import all_terms, field_plans
from jax_autorec.spaces.products import (
  deepfm,
  fm,
  ipnn,
  lr,
  wide_deep,
)
from jax_autorec.spaces.towers import (
  dlrm,
  finalmlp,
  masknet,
  masknet_serial,
  rater,
)

__all__ = [
  'MODELS',
  'afm',
  'all_terms',
  'autoint',
  'autoint_plus',
  'build',
  'cin',
  'crossnet',
  'crossnet_v2',
  'dcn',
  'dcn_v2',
  'deepfm',
  'dlrm',
  'ffm',
  'fibinet',
  'field_plans',
  'finalmlp',
  'fm',
  'fmfm',
  'fwfm',
  'hofm',
  'ipnn',
  'lr',
  'masknet',
  'masknet_serial',
  'nfm',
  'options',
  'rater',
  'wide_deep',
  'xdeepfm',
]
