"""Rows of any width, and the chains of maps that bring them to the largest.

(ESAPN; Liu et al., SIGIR 2020, section 3.1.) Fields F have a chain each, of
affine maps from every candidate width to the next.
"""

from collections.abc import Mapping, Sequence

import jax.numpy as jnp
import numpy as np

from jax_autorec.types import Array


def widen(
  params: Mapping[str, Array],
  dims: Sequence[int],
  rows: Array,
  sizes: Array,
) -> Array:
  """Rows at any size, through the rest of the chain: [B, F, R].

  Args:
    params: of `field_choices.GrowingRows`.
    dims: candidate widths.
    rows: [B, F, R].
    sizes: integers [B, F].
  """
  out = rows[..., : dims[0]]
  for k, dim in enumerate(dims[1:]):
    # Only the last of these choices counts: a row at that size starts there.
    is_above = (sizes > k)[..., None]
    out = jnp.where(is_above, rows[..., :dim], _mapped(params, k, out))
  return out


def narrowed(
  params: Mapping[str, Array],
  dims: Sequence[int],
  vectors: Array,
  sizes: Array,
) -> Array:
  """What is nearest to a vector among those that one size less can make.

  Args:
    params: of `field_choices.GrowingRows`.
    dims: candidate widths.
    vectors: [B, F, R], of `widen`.
    sizes: integers [B, F]; at size 0 a vector stays as it is.

  Returns:
    [B, F, R], the orthogonal projections.
  """
  num_fields, width = vectors.shape[1:]
  whole = jnp.broadcast_to(jnp.eye(width), (num_fields, width, width))
  added, result = jnp.zeros((num_fields, width)), vectors
  for k in reversed(range(len(dims) - 1)):
    added = added + jnp.einsum('fe,fek->fk', params[f'offset_{k}'], whole)
    whole = jnp.einsum('fde,fek->fdk', params[f'kernel_{k}'], whole)
    gram = jnp.einsum('fdk,fek->fde', whole, whole)
    # A ridge against maps that are singular but for rounding.
    ridge = 1e-5 * jnp.trace(gram, axis1=1, axis2=2) / dims[k]
    gram = gram + ridge[:, None, None] * jnp.eye(dims[k])[None]
    centred = vectors - added[None]
    seen = jnp.einsum('bfk,fdk->bfd', centred, whole)
    solved = jnp.linalg.solve(gram, jnp.moveaxis(seen, 0, 2))
    nearest = jnp.einsum('fdb,fdk->bfk', solved, whole) + added[None]
    result = jnp.where((sizes == k + 1)[..., None], nearest, result)
  return result


def grow(
  params: Mapping[str, Array],
  dims: Sequence[int],
  rows: Array,
  sizes: Array,
  grows: Array,
) -> Array:
  """Rows as they are at the next size; what the model sees stays the same.

  Args:
    params: of `field_choices.GrowingRows`.
    dims: candidate widths.
    rows: [B, F, R].
    sizes: integers [B, F], before.
    grows: bool [B, F], which rows grow; those at the largest size cannot.

  Returns:
    [B, F, R]; entries beyond a row's width stay as they are.
  """
  result = rows
  for k, (dim, following) in enumerate(zip(dims[:-1], dims[1:])):
    mapped = _mapped(params, k, rows[..., :dim])
    grown = jnp.concatenate([mapped, rows[..., following:]], -1)
    result = jnp.where((grows & (sizes == k))[..., None], grown, result)
  return result


def chain(
  params: Mapping[str, Array], dims: Sequence[int], field: int
) -> list[tuple[np.ndarray, np.ndarray]]:
  """Per size the whole chain as one affine map, in float64: W [d, R], b [R].

  Args:
    params: of `field_choices.GrowingRows`.
    dims: candidate widths.
    field: which.
  """
  maps = [(np.eye(dims[-1]), np.zeros(dims[-1]))]
  for k in reversed(range(len(dims) - 1)):
    kernel = np.asarray(params[f'kernel_{k}'][field], np.float64)
    offset = np.asarray(params[f'offset_{k}'][field], np.float64)
    after, added = maps[0]
    maps.insert(0, (kernel @ after, offset @ after + added))
  return maps


def _mapped(params, k, rows):
  """One step of the chain: [B, F, dims[k]] -> [B, F, dims[k + 1]]."""
  mapped = jnp.einsum('bfd,fde->bfe', rows, params[f'kernel_{k}'])
  return mapped + params[f'offset_{k}'][None]
