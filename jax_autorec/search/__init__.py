"""Search methods and what they are made of."""

from jax_autorec.search.autodim import autodim
from jax_autorec.search.autofis import autofis
from jax_autorec.search.base import Draw, Population, Schedule, Selector, each
from jax_autorec.search.random_dims import random_dims

__all__ = [
  'Draw',
  'Population',
  'Schedule',
  'Selector',
  'autodim',
  'autofis',
  'each',
  'random_dims',
]
