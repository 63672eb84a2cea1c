"""RaS: random search over the widths of fields.

Every field takes one of the candidate widths, evenly and independently; the
draw that does best on the validation split is kept (the baseline 'RaS' of
Zhao et al., WWW 2021, arXiv:2006.14827).
"""

from collections.abc import Sequence
import math

import numpy as np

from jax_autorec import architecture as arch_lib
from jax_autorec import errors, field_spaces, sizes
from jax_autorec.search import base


def random_dims(
  architecture: arch_lib.Architecture,
  dims: Sequence[int],
  *,
  trials: int = 10,
  seconds: float | None = None,
  seed: int = 0,
  transform: str = 'linear',
  max_params: float | None = None,
) -> base.Population:
  """Proposes widths at random.

  Args:
    architecture: closed; its widths do not matter.
    dims: candidate widths.
    trials: number of proposals at most; the paper gives none.
    seconds: of training, after which no further proposal is made, so that the
      last may go beyond; None for no bound. With the seconds of another search
      the comparison is fair.
    seed: of the draws.
    transform: how fields meet at the largest candidate, 'linear' or
      'zero_pad'.
    max_params: budget of `ep_total` (see `sizes.budget`) that every proposal
      meets, with at most a tenth to spare where widths allow that: fields
      drawn at random go to smaller candidates, or larger ones, until it does.
      None for none.

  Raises:
    ConfigError: where not even the smallest candidates meet the budget.
  """
  if trials < 1:
    raise errors.ConfigError(f'{trials} trials; expected at least 1.')
  if seconds is None:
    seconds = math.inf
  errors.expect(seconds > 0, 'seconds', seconds, 'more than 0, or None')
  open_space = field_spaces.open_dims(
    architecture, sorted(dims), transform=transform
  )
  count = len(architecture.categorical)
  if max_params is not None:
    constant, parts = field_spaces.dim_sizes(open_space)
    cheapest = [open_space.choice.dims[n] for n in parts.argmin(1)]
    smallest = field_spaces.with_dims(open_space, cheapest)
    sizes.check_budget(smallest, max_params, 'give narrower candidates')

  def ask(scored):
    spent = sum(one.seconds for one in scored)
    if len(scored) == trials or (scored and spent >= seconds):
      return None
    # The proposal follows from its number alone, so a search can be resumed.
    rng = np.random.default_rng((seed, len(scored)))
    places = rng.integers(0, len(dims), count)
    if max_params is not None:
      places = _within(parts, places, max_params - constant, rng)
    drawn = [open_space.choice.dims[place] for place in places]
    return field_spaces.with_dims(open_space, drawn)

  return base.Population(ask, base.best, total=trials, bears_divergence=True)


def _within(parts, places, budget, rng):
  """Moves fields, drawn at random, until a draw fills a budget and meets it.

  Args:
    parts: [F, N], size of each field at each candidate.
    places: int [F], the draw.
    budget: at least the sum of the smallest.
    rng: of the moves.
  """
  places, fields = places.copy(), np.arange(len(places))

  def total():
    return parts[fields, places].sum()

  while total() > budget:
    cheaper = parts < parts[fields, places][:, None]
    field = rng.choice(np.flatnonzero(cheaper.any(1)))
    places[field] = rng.choice(np.flatnonzero(cheaper[field]))
  if parts.max(1).sum() <= budget:
    return places  # Everything fits: the budget says nothing.
  while (spare := budget - total()) > 0.1 * budget:
    added = parts - parts[fields, places][:, None]
    fits = (added > 0) & (added <= spare)
    if not fits.any():
      break
    field = rng.choice(np.flatnonzero(fits.any(1)))
    places[field] = rng.choice(np.flatnonzero(fits[field]))
  return places
