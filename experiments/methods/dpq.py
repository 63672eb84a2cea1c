"""DPQ-SX and DPQ-VQ: codes and codebooks in place of rows."""

from experiments.methods import base
from jax_autorec import architecture as arch_lib
from jax_autorec import quantization


def _space(task: base.Task) -> arch_lib.Architecture:
  options = task.search
  return quantization.quantize(
    base.widest(task),
    options['kind'],
    options['groups'],
    [(1.0, options['centroids'])],
    shared=options['shared'],
  )


METHOD = base.Method(
  _space, base=base.widest, controls={'uniform': base.uniform}
)
