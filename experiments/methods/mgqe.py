"""MGQE: product quantisation with fewer centroids for rare ids."""

from experiments.methods import base
from jax_autorec import architecture as arch_lib
from jax_autorec import errors, quantization


def _space(task: base.Task) -> arch_lib.Architecture:
  options = task.search
  shares, centroids = options['shares'], options['centroids']
  budget = base.max_params(task)
  if budget is not None:
    return quantization.quantize_within(
      base.widest(task),
      options['kind'],
      options['groups'],
      shares,
      budget,
      shared=options['shared'],
    )
  if len(shares) != len(centroids):
    raise errors.ConfigError(
      f'search.shares is {shares} and search.centroids {centroids}; expected '
      'one of each per tier.'
    )
  return quantization.quantize(
    base.widest(task),
    options['kind'],
    options['groups'],
    list(zip(shares, centroids)),
    shared=options['shared'],
  )


METHOD = base.Method(
  _space, base=base.widest, controls={'uniform': base.uniform}
)
