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


def random_blocks(
  space: arch_lib.Architecture,
  found: arch_lib.Architecture,
  seed: int,
) -> arch_lib.Architecture:
  """Blocks drawn at random, at the size that was found.

  Of a thousand draws the one nearest to it in entries of tables and linear
  maps. Each draw has a fullness of its own, even on (0, 1), that all its
  choices share: how many blocks are kept is binomial. Even draws would all be
  of middling size.

  Args:
    space: with open blocks.
    found: what a search made of it.
    seed: of the draws.
  """
  rng = np.random.default_rng(seed)
  choice = space.choice
  columns = range(len(choice.columns))

  def draw():
    fullness, kept = rng.uniform(), []
    for ends in choice.rows:
      if choice.mode == 'single':
        rows = rng.binomial(len(ends), fullness)
        wide = rng.binomial(len(columns), fullness)
        counts = [rows if t < wide else 0 for t in columns]
      else:
        counts = rng.binomial(len(ends), fullness, len(columns)).tolist()
        counts = sorted(counts, reverse=True) if choice.prefix else counts
      kept.append([(0, *ends)[count] for count in counts])
    return kept

  def entries(kept):
    return sum(
      choice.entries(field, column, rows)
      for field, own in enumerate(kept)
      for column, rows in enumerate(own)
    )

  wanted = found.embedding_params - found.first_order_params
  wanted += found.projection_params
  draws = [draw() for _ in range(1000)]
  nearest = min(draws, key=lambda kept: abs(entries(kept) - wanted))
  return spaces.with_blocks(space, nearest)


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
