"""Search methods and what they are made of."""

from jax_autorec.search import engines
from jax_autorec.search.autoctr import autoctr
from jax_autorec.search.autodim import autodim
from jax_autorec.search.autoemb import autoemb, autoemb_stream
from jax_autorec.search.autofis import autofis
from jax_autorec.search.autogroup import autogroup
from jax_autorec.search.autosrh import autosrh
from jax_autorec.search.base import Draw, Population, Schedule, Selector, each
from jax_autorec.search.esapn import esapn
from jax_autorec.search.nis import nis
from jax_autorec.search.online import Online, fixed
from jax_autorec.search.optembed import optembed
from jax_autorec.search.pep import pep
from jax_autorec.search.random_dims import random_dims
from jax_autorec.search.rewards import REWARDS
from jax_autorec.search.row_darts import row_darts
from jax_autorec.search.sseds import sseds

__all__ = [
  'REWARDS',
  'Draw',
  'Online',
  'Population',
  'Schedule',
  'Selector',
  'autoctr',
  'autodim',
  'autoemb',
  'autoemb_stream',
  'autofis',
  'autogroup',
  'autosrh',
  'each',
  'engines',
  'esapn',
  'fixed',
  'nis',
  'optembed',
  'pep',
  'random_dims',
  'row_darts',
  'sseds',
]
