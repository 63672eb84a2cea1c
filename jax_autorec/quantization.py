"""Makes the vectors of fields of codebooks, of given sizes or of a budget."""

from collections.abc import Sequence
import dataclasses
import itertools
import math

from jax_autorec import architecture as arch_lib
from jax_autorec import errors
from jax_autorec import fields as fields_lib


def quantize(
  architecture: arch_lib.Architecture,
  kind: str,
  groups: int,
  tiers: Sequence[tuple[float, int]],
  *,
  shared: bool = False,
  fields: Sequence[str] | None = None,
) -> arch_lib.Architecture:
  """Makes the vectors of categorical fields of codebooks.

  Ids have to be numbered by falling frequency in the train split, as those of
  data sets are, where there is more than one tier.

  Args:
    architecture: closed, of plain rows.
    kind: 'sx' or 'vq', see `fields.Quantizer`.
    groups: codes per id; they divide the width of the vectors.
    tiers: (share of ids, centroids), most frequent ids first; shares add up to
      1. One for DPQ, several for MGQE.
    shared: whether all groups of a field have one codebook.
    fields: whose vectors; None for those whose codes and codebook take less
      room than their rows, while the others keep plain rows.

  Raises:
    ConfigError: for an unknown kind, groups that do not divide the width,
      shares that do not add up, or where no field would be smaller.
  """
  found = _quantized(architecture, kind, groups, tiers, shared, fields)
  if all(plan.quantizer is None for plan in found.fields):
    centroids = [size for _, size in tiers]
    raise errors.ConfigError(
      f'No field takes less room with {groups} codes of {centroids} centroids '
      'than with plain rows: give fewer, or name the fields.'
    )
  return found


def quantize_within(
  architecture: arch_lib.Architecture,
  kind: str,
  groups: int,
  shares: Sequence[float],
  max_params: float,
  *,
  shared: bool = False,
) -> arch_lib.Architecture:
  """The largest `quantize` of a budget: chooses the centroids of every tier.

  Args:
    architecture: closed, of plain rows.
    kind: 'sx' or 'vq'.
    groups: codes per id.
    shares: of ids, per tier, most frequent first.
    max_params: bound on `ep_total` of the packed model, in float32 entries. All
      fields get the largest numbers that it holds, which are powers of two;
      then single fields, the largest first, get larger ones as long as any fit.
    shared: whether all groups of a field have one codebook.

  Raises:
    ConfigError: as of `quantize`, and where nothing is small enough; says what
      is needed.
  """
  # With the fewest centroids: refuses what would be refused with any.
  quantize(
    architecture, kind, groups, [(share, 2) for share in shares], shared=shared
  )
  largest = max(plan.vocab_size for plan in architecture.categorical)
  sizes = [2**n for n in range(16, 0, -1) if 2**n < 2 * largest]
  options = []
  for centroids in itertools.combinations_with_replacement(sizes, len(shares)):
    tiers = list(zip(shares, centroids))
    found = _quantized(architecture, kind, groups, tiers, shared)
    # With many centroids it may be that no field is smaller.
    if any(plan.quantizer for plan in found.fields):
      options.append(found)
  size = lambda found: found.packed.ep_total
  fitting = [found for found in options if size(found) <= max_params]
  if not fitting:
    raise errors.ConfigError(
      f'A budget of {max_params} entries; the smallest model with {groups} '
      f'codes per id has {min(map(size, options))}: raise the budget, or give '
      'fewer groups.'
    )
  best = max(fitting, key=size)
  places = [i for i, plan in enumerate(best.fields) if plan.quantizer]
  for place in sorted(places, key=lambda i: -best.fields[i].vocab_size):
    for option in options:
      fields = list(best.fields)
      fields[place] = option.fields[place]
      found = dataclasses.replace(best, fields=tuple(fields))
      if fields[place].quantizer and size(best) < size(found) <= max_params:
        best = found
  return best


def _quantized(architecture, kind, groups, tiers, shared, fields=None):
  """`quantize`, though no field may be smaller."""
  shares = [share for share, _ in tiers]
  if not tiers or min(shares) <= 0 or abs(sum(shares) - 1) > 1e-6:
    raise errors.ConfigError(
      f'Tiers have the shares {shares}; expected positive ones that add up '
      'to 1.'
    )
  if groups < 1:
    raise errors.ConfigError(
      f'Vectors have {groups} codes each; expected at least 1.'
    )
  plans = []
  for plan in architecture.fields:
    if plan.kind == 'categorical' and (fields is None or plan.name in fields):
      quantizer = fields_lib.Quantizer(
        kind, groups, _stops(plan.vocab_size, tiers), shared, packed=True
      )
      size = quantizer.code_bytes / 4 + quantizer.codebook_params(plan.dim)
      if fields is not None or size < plan.vocab_size * plan.dim:
        quantizer = dataclasses.replace(quantizer, packed=False)
        plan = dataclasses.replace(plan, quantizer=quantizer)
    plans.append(plan)
  return dataclasses.replace(architecture, fields=tuple(plans))


def _stops(vocab_size, tiers):
  """Shares of ids, rounded up, as ranges; empty ones are left out."""
  stops, total = [], 0.0
  for share, centroids in tiers:
    total += share
    # A share such as .1 + .2 is a little more than it says.
    stop = min(vocab_size, math.ceil(total * vocab_size - 1e-6))
    stop = vocab_size if len(stops) + 1 == len(tiers) else stop
    stops.append((stop, centroids))
  starts = [0] + [stop for stop, _ in stops]
  return tuple(
    fields_lib.Tier(stop, centroids)
    for start, (stop, centroids) in zip(starts, stops)
    if stop > start
  )
