"""The one table of methods; each has a file of its own here and a config."""

from experiments.methods import (
  autoctr,
  autodim,
  autodis,
  autoemb,
  autofis,
  autogroup,
  autosrh,
  dpq,
  esapn,
  fde,
  hidden,
  joint,
  mde,
  mgqe,
  nis,
  optembed,
  pep,
  qr,
  random_dims,
  sseds,
)
from experiments.methods.base import Method, Task, Turn, plain

METHODS: dict[str, Method] = {
  'base': Method(plain),
  'autofis': autofis.METHOD,
  'autodis': autodis.METHOD,
  'autogroup': autogroup.METHOD,
  'fde': fde.METHOD,
  'mde': mde.METHOD,
  'qr': qr.METHOD,
  'ras': random_dims.METHOD,
  'autoctr': autoctr.METHOD,
  'autodim': autodim.METHOD,
  'nis': nis.METHOD,
  'dpq': dpq.METHOD,
  'mgqe': mgqe.METHOD,
  'sseds': sseds.METHOD,
  'autosrh': autosrh.METHOD,
  'pep': pep.METHOD,
  'autoemb': autoemb.METHOD,
  'esapn': esapn.METHOD,
  'optembed': optembed.METHOD,
  'hidden': hidden.METHOD,
  'joint': joint.METHOD,
}

__all__ = ['METHODS', 'Method', 'Task', 'Turn', 'plain']
