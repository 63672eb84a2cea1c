"""What a searched architecture is compared with: same space, no search."""

from collections.abc import Sequence
import dataclasses
import itertools

import jax
import numpy as np

from jax_autorec import architecture as arch_lib
from jax_autorec import errors, field_spaces, head_spaces
from jax_autorec import interactions as interactions_lib
from jax_autorec.nn import model as model_lib
from jax_autorec.search import patterns
from jax_autorec.train import state as state_lib


def keep_all(space: arch_lib.Architecture) -> arch_lib.Architecture:
  """Every open product kept, normalised and gated: no selection.

  Much of a search's gain over the plain model is the normalisation and the
  gates that its space brings along; this control has them too. Of open groups
  one per order, of all fields.
  """

  def choose(plan):
    if isinstance(plan, interactions_lib.Groups):
      return (tuple(field.name for field in space.vector_fields),)
    return plan.terms

  return _close(space, choose)


def random_subset(
  space: arch_lib.Architecture,
  found: arch_lib.Architecture,
  seed: int,
) -> arch_lib.Architecture:
  """As many products, of each order, as were found, drawn evenly.

  Of groups as many, with as many members.

  Args:
    space: the open architecture.
    found: what a search made of it.
    seed: of the draw.
  """
  rng = np.random.default_rng(seed)
  known = {plan.name: plan for plan in found.interactions}
  names = [field.name for field in space.vector_fields]

  def draw(candidates, size):
    places = rng.choice(len(candidates), size, replace=False)
    return tuple(candidates[i] for i in sorted(places))

  def choose(plan):
    if plan.name not in known:
      return ()
    if isinstance(plan, interactions_lib.Groups):
      groups = known[plan.name].groups
      return tuple(draw(names, len(group)) for group in groups)
    return draw(plan.terms, len(known[plan.name].terms))

  return _close(space, choose)


def random_dims(
  architecture: arch_lib.Architecture,
  dims: Sequence[int],
  found: arch_lib.Architecture,
  seed: int,
  transform: str = 'linear',
) -> arch_lib.Architecture:
  """A width per field, drawn from candidates, at the size that was found.

  Every field draws evenly from the candidates. Then single fields, in random
  order, go to the next candidate as long as that brings `ep_total` (codes
  packed) nearer to the size that was found.

  Args:
    architecture: closed but for interactions and the head; its widths do not
      matter.
    dims: candidates.
    found: what a search made of it.
    seed: of the draws.
    transform: how fields meet at the largest candidate.
  """
  rng = np.random.default_rng(seed)
  dims, count = sorted(dims), len(architecture.categorical)
  space = field_spaces.open_dims(architecture, dims, transform=transform)
  constant, parts = field_spaces.dim_sizes(space)
  wanted = found.packed.ep_total - constant
  fields, places = np.arange(count), rng.integers(0, len(dims), count)
  moved = True
  while moved:
    moved = False
    for field in rng.permutation(count):
      over = parts[fields, places].sum() - wanted
      place = int(np.clip(places[field] - np.sign(over), 0, len(dims) - 1))
      change = parts[field, place] - parts[field, places[field]]
      if abs(over + change) < abs(over):
        places[field], moved = place, True
  return field_spaces.with_dims(space, [dims[place] for place in places])


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

  wanted = found.packed.ep_total
  wanted -= field_spaces.without_vectors(space).ep_total
  draws = [draw() for _ in range(1000)]
  nearest = min(draws, key=lambda kept: abs(entries(kept) - wanted))
  return field_spaces.with_blocks(space, nearest)


def random_entries(
  space: arch_lib.Architecture,
  found: arch_lib.Architecture,
  seed: int,
) -> arch_lib.Architecture:
  """Entries of the tables drawn evenly, at the `ep_total` that was found.

  Args:
    space: with a choice whose entries are kept by their size (PEP, AutoSrh).
    found: what a search made of it.
    seed: of the draws.
  """

  def scores():
    rng = np.random.default_rng(seed)
    for plan in space.categorical:
      yield rng.random((plan.vocab_size, space.dim), np.float32)

  return patterns.keep_largest(
    space, scores, density=1.0, max_params=found.packed.ep_total
  )


def random_rows(
  space: arch_lib.Architecture,
  found: arch_lib.Architecture,
  seed: int,
) -> arch_lib.Architecture:
  """Rows and widths drawn at random, at the size that was found.

  Of a thousand draws the one nearest to it in `ep_total`. Fields differ in
  both; an exponent that the whole draw shares makes it small or large. As with
  what OptEmbed derives, a field keeps all its rows where the permutation that
  leaving some out needs, an entry per id, would take more than they do.

  Args:
    space: with an open choice of rows.
    found: what a search made of it.
    seed: of the draws.
  """
  rng = np.random.default_rng(seed)
  rows = np.array([plan.vocab_size for plan in space.categorical])
  width = space.choice.width
  wanted = found.packed.ep_total
  wanted -= field_spaces.without_vectors(space).ep_total

  def draw():
    exponent = 2.0 ** rng.uniform(-3, 5)
    parts = rng.random((2, len(rows))) ** exponent
    dims = 1 + np.floor(parts[0] * width).astype(int)
    counts = np.maximum(1, np.round(parts[1] * rows)).astype(int)
    whole = counts * dims + rows >= rows * dims
    counts = np.where(whole, rows, counts)
    return dims, counts, int((counts * dims + np.where(whole, 0, rows)).sum())

  draws = [draw() for _ in range(1000)]
  dims, counts, _ = min(draws, key=lambda drawn: abs(drawn[2] - wanted))
  kept = [
    np.isin(np.arange(total), rng.choice(total, count, replace=False))
    for total, count in zip(rows, counts)
  ]
  return field_spaces.with_row_mask(space, kept, dims.tolist())


def random_hidden(
  space: arch_lib.Architecture,
  found: arch_lib.Architecture,
  seed: int,
) -> arch_lib.Architecture:
  """Widths of hidden layers drawn evenly, at the size that was found.

  Of a thousand draws, but for what was found itself, the first whose MLP has as
  many weights, within a tenth. Few layers and candidates may leave none: then
  the nearest.

  Args:
    space: with open widths of hidden layers.
    found: what a search made of it.
    seed: of the draws.
  """
  rng = np.random.default_rng(seed)
  candidates, inputs = space.head.candidates, _mlp_inputs(space)

  def weights(widths):
    return sum(a * b for a, b in itertools.pairwise((inputs, *widths, 1)))

  draws = [
    tuple(own[rng.integers(len(own))] for own in candidates)
    for _ in range(1000)
  ]
  draws = [widths for widths in draws if widths != found.head.hidden]
  if not draws:
    raise errors.ConfigError(
      f'Candidates {candidates} leave no widths but those found: give more of '
      'them, or leave this control out.'
    )
  wanted = weights(found.head.hidden)
  distance = lambda widths: abs(weights(widths) / wanted - 1)
  near = [widths for widths in draws if distance(widths) <= 0.1]
  chosen = near[0] if near else min(draws, key=distance)
  return head_spaces.with_hidden(space, chosen)


def _mlp_inputs(architecture):
  """How many numbers the first hidden layer reads."""
  model = model_lib.build(architecture)
  columns = sum(plan.max_length for plan in architecture.categorical)
  batch = state_lib.empty_batch(2, columns, len(architecture.numeric))
  params = jax.eval_shape(
    lambda: state_lib.init_dense(
      model, batch, jax.random.key(0), model_lib.constants(architecture)
    )['params']
  )
  return params[model_lib.MLP]['dense_0']['kernel'].shape[0]


def _close(space, choose):
  plans = []
  for plan in space.interactions:
    if plan.is_open:
      chosen = choose(plan)
      if not chosen:
        continue
      if isinstance(plan, interactions_lib.Groups):
        plan = plan.with_groups(chosen)
      else:
        plan = dataclasses.replace(plan, terms=chosen, gates='weights')
    plans.append(plan)
  return dataclasses.replace(space, interactions=tuple(plans))
