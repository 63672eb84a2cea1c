"""The one table of methods; each has a file of its own here and a config."""

from experiments.methods import (
  autodim,
  autofis,
  autosrh,
  fde,
  optembed,
  pep,
  random_dims,
  sseds,
)
from experiments.methods.base import Method, Task, plain

METHODS: dict[str, Method] = {
  'base': Method(plain),
  'autofis': autofis.METHOD,
  'fde': fde.METHOD,
  'ras': random_dims.METHOD,
  'autodim': autodim.METHOD,
  'sseds': sseds.METHOD,
  'autosrh': autosrh.METHOD,
  'pep': pep.METHOD,
  'optembed': optembed.METHOD,
}

__all__ = ['METHODS', 'Method', 'Task', 'plain']
