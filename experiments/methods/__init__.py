"""The one table of methods; each has a file of its own here and a config."""

from experiments.methods import (
  autodim,
  autoemb,
  autofis,
  esapn,
  fde,
  random_dims,
)
from experiments.methods.base import Method, Task, plain

METHODS: dict[str, Method] = {
  'base': Method(plain),
  'autofis': autofis.METHOD,
  'fde': fde.METHOD,
  'ras': random_dims.METHOD,
  'autodim': autodim.METHOD,
  'autoemb': autoemb.METHOD,
  'esapn': esapn.METHOD,
}

__all__ = ['METHODS', 'Method', 'Task', 'plain']
