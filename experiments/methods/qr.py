"""QR: an id's vector is made of the rows of its quotient and its remainder."""

from experiments.methods import base
from jax_autorec import architecture as arch_lib
from jax_autorec import sizes


def _space(task: base.Task) -> arch_lib.Architecture:
  options = task.search
  return sizes.quotient_remainder(
    base.widest(task),
    collisions=options['collisions'],
    combine=options['combine'],
    threshold=options['threshold'],
    max_params=base.max_params(task),
  )


def _hashed(task, space, found):
  """The hashing trick at the size found."""
  del space
  return sizes.hashed(
    base.widest(task),
    threshold=task.search['threshold'],
    max_params=found.ep_total,
  )


METHOD = base.Method(
  _space,
  base=base.widest,
  controls={'uniform': base.uniform, 'hash': _hashed},
)
