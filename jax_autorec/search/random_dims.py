"""RaS: random search over the widths of fields.

Every field takes one of the candidate widths, evenly and independently; the
draw that does best on the validation split is kept (the baseline 'RaS' of
Zhao et al., WWW 2021, arXiv:2006.14827).
"""

from collections.abc import Sequence
import math

import numpy as np

from jax_autorec import architecture as arch_lib
from jax_autorec import errors, sizes, spaces
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
    seconds: of training, after which no further proposal is made; None for no
      bound. With the seconds of another search the comparison is fair.
    seed: of the draws.
    transform: how fields meet at the largest candidate, 'linear' or
      'zero_pad'.
    max_params: budget of `ep_total` (see `sizes.budget`) that every proposal
      meets: the first of a thousand draws within the last tenth of it, or else
      the first that meets it. None for none.

  Raises:
    ConfigError: where the narrowest candidates, or a thousand draws, do not
      meet the budget.
  """
  if trials < 1:
    raise errors.ConfigError(f'{trials} trials; expected at least 1.')
  open_space = spaces.open_dims(architecture, sorted(dims), transform=transform)
  count = len(architecture.categorical)
  if max_params is not None:
    narrowest = spaces.with_dims(open_space, [min(dims)] * count)
    sizes.check_budget(narrowest, max_params, 'give narrower candidates')

  def ask(scored):
    spent = sum(one.seconds for one in scored)
    if len(scored) == trials or (scored and spent >= (seconds or math.inf)):
      return None
    # The proposal follows from its number alone, so a search can be resumed.
    rng = np.random.default_rng((seed, len(scored)))
    meets = None
    for _ in range(1000):
      drawn = rng.choice(np.array(dims), count).tolist()
      proposal = spaces.with_dims(open_space, drawn)
      if max_params is None:
        return proposal
      share = proposal.ep_total / max_params
      if 0.9 <= share <= 1:
        return proposal
      if share <= 1 and meets is None:
        meets = proposal
    if meets is None:
      raise errors.ConfigError(
        f'None of a thousand draws of widths from {tuple(dims)} has an '
        f'ep_total of at most {max_params:.0f}: raise the budget, or give '
        'narrower candidates.'
      )
    return meets

  return base.Population(ask, base.best)
