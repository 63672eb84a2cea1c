"""Optimisers that are useful outside this library as well."""

from jax_autorec.optim import row_sparse
from jax_autorec.optim.grda import grda, grda_c

__all__ = ['grda', 'grda_c', 'row_sparse']
