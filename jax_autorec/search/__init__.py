"""Search methods and what they are made of."""

from jax_autorec.search.autodim import autodim
from jax_autorec.search.autofis import autofis
from jax_autorec.search.autosrh import autosrh
from jax_autorec.search.base import Draw, Population, Schedule, Selector
from jax_autorec.search.optembed import optembed
from jax_autorec.search.pep import pep
from jax_autorec.search.random_dims import random_dims
from jax_autorec.search.sseds import sseds

__all__ = [
  'Draw',
  'Population',
  'Schedule',
  'Selector',
  'autodim',
  'autofis',
  'autosrh',
  'optembed',
  'pep',
  'random_dims',
  'sseds',
]
