"""Search methods and what they are made of."""

from jax_autorec.search.autodim import autodim
from jax_autorec.search.autofis import autofis
from jax_autorec.search.base import Draw, Schedule, Selector

__all__ = ['Draw', 'Schedule', 'Selector', 'autodim', 'autofis']
