"""FDE: one width for every field, nothing searched."""

from experiments.methods import base

METHOD = base.Method(base.widest, base=base.widest)
