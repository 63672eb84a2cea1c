"""What a searched architecture is compared with: same space, no search."""

import dataclasses

import numpy as np

from jax_autorec import architecture as arch_lib
from jax_autorec import spaces


def keep_all(space: arch_lib.Architecture) -> arch_lib.Architecture:
  """Every open product kept, normalised and gated: no selection.

  Much of a search's gain over the plain model is the normalisation and the
  gates that its space brings along; this control has them too.
  """
  return _close(space, lambda plan: plan.terms)


def random_subset(
  space: arch_lib.Architecture,
  found: arch_lib.Architecture,
  seed: int,
) -> arch_lib.Architecture:
  """As many products, of each order, as were found, drawn evenly.

  Args:
    space: the open architecture.
    found: what a search made of it.
    seed: of the draw.
  """
  rng = np.random.default_rng(seed)
  sizes = {
    plan.name: len(getattr(plan, 'terms', ())) for plan in found.interactions
  }

  def choose(plan):
    size = sizes.get(plan.name, 0)
    places = rng.choice(len(plan.terms), size, replace=False)
    return tuple(plan.terms[i] for i in sorted(places))

  return _close(space, choose)


def random_dims(
  space: arch_lib.Architecture,
  found: arch_lib.Architecture,
  seed: int,
) -> arch_lib.Architecture:
  """Widths drawn evenly from the candidates, at the size that was found.

  Of a thousand draws the one whose tables have the number of entries nearest
  to that of `found`.

  Args:
    space: with an open choice of widths.
    found: what a search made of it.
    seed: of the draws.
  """
  rng = np.random.default_rng(seed)
  vocabularies = np.array([plan.vocab_size for plan in space.categorical])
  own = np.array([plan.dim for plan in found.categorical])
  draws = rng.choice(np.array(space.choice.dims), (1000, len(own)))
  distance = np.abs(draws @ vocabularies - own @ vocabularies)
  return spaces.with_dims(space, draws[distance.argmin()].tolist())


def _close(space, choose):
  plans = []
  for plan in space.interactions:
    if getattr(plan, 'gates', None) == 'open':
      terms = choose(plan)
      if not terms:
        continue
      plan = dataclasses.replace(plan, terms=terms, gates='weights')
    plans.append(plan)
  return dataclasses.replace(space, interactions=tuple(plans))
