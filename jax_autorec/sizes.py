"""Sizes of embedding tables in closed form, and what a budget of them means.

Nothing here is learnt: widths follow from the numbers of rows or from counts of
the train split (mixed dimensions), rows from the number of ids that share one
(quotient and remainder, hashing). All are controls for what searches find.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
import math
from typing import NamedTuple

import numpy as np

from jax_autorec import architecture as arch_lib
from jax_autorec import errors
from jax_autorec import fields as fields_lib

_COMBINES = ('product', 'sum', 'concat')
_FILLED = 0.9  # Of a budget, where single blocks can go ahead of others.


def budget(
  max_params: float | None = None, max_bytes: float | None = None
) -> float | None:
  """The most that `Architecture.ep_total` may be, in float32 entries.

  The one notion of a budget: all that the vectors of a final model need, be it
  tables (first order included), projections, codebooks, codes or permutations.

  Args:
    max_params: in entries of float32; codes count as bits / 32.
    max_bytes: the same in bytes, in its place.

  Returns:
    Entries; None where neither is given.

  Raises:
    ConfigError: where both are given, or nothing could be kept.
  """
  if max_params is not None and max_bytes is not None:
    raise errors.ConfigError(
      f'A budget of max_params={max_params} and of max_bytes={max_bytes}: give '
      'one of them.'
    )
  entries = max_bytes / 4 if max_bytes is not None else max_params
  if entries is not None and not entries >= 1:
    raise errors.ConfigError(
      f'A budget of {entries:g} float32 entries; expected at least 1.'
    )
  return entries


def check_budget(
  smallest: arch_lib.Architecture, max_params: float, advice: str
) -> None:
  """Refuses a budget that a method cannot meet.

  Args:
    smallest: the least that the method can propose.
    max_params: budget of `ep_total`.
    advice: what to change but the budget, as 'lower `x`'.
  """
  if smallest.ep_total > max_params:
    raise errors.ConfigError(
      f'A budget of {max_params:.0f} float32 entries cannot be met: the '
      f'smallest architecture needs {smallest.ep_total:.0f}, of which '
      f'{smallest.first_order_params} are first-order weights. Raise the '
      f'budget, or {advice}.'
    )


class Block(NamedTuple):
  """Neighbouring ids of a field that get rows of one width.

  Attributes:
    field: its name.
    start: first id.
    stop: the id after the last.
    rows: rows that its popularity is spread over, as if it were the whole
      field: one over the mean probability of its ids.
  """

  field: str
  start: int
  stop: int
  rows: float


def blocks(
  plan: fields_lib.FieldPlan, counts: np.ndarray | None, num_blocks: int = 1
) -> list[Block]:
  """Blocks of a field's ids of equal popularity.

  Args:
    plan: of the field.
    counts: int64 [vocab_size], train counts per id, falling from the first
      value on; None for one block of all ids, evenly popular.
    num_blocks: how many; fewer where one id alone is more popular than a
      block should be.
  """
  size = plan.vocab_size
  if counts is not None:
    counts = fields_lib.check_counts(plan, counts)
  if counts is None or not counts.any():
    return [Block(plan.name, 0, size, size)]
  total = int(counts.sum())
  goals = np.arange(1, num_blocks) * total
  # The id at which a block's share is reached is its last.
  cuts = np.searchsorted(np.cumsum(counts) * num_blocks, goals) + 1
  stops = np.unique([*cuts[cuts < size], size])
  starts = [0, *stops[:-1]]
  # Reserved ids lie first, though few rows may have them: those that none has
  # do not make the first values look rare.
  seen = [max(int((counts[a:b] > 0).sum()), 1) for a, b in zip(starts, stops)]
  shares = [counts[a:b].sum() / total for a, b in zip(starts, stops)]
  mean = np.array(shares) / seen
  mean = np.maximum.accumulate(mean[::-1])[::-1]
  return [
    Block(plan.name, int(start), int(stop), float(1 / probability))
    for start, stop, probability in zip(starts, stops, mean)
  ]


def power_rule(
  rows: Sequence[float],
  alpha: float,
  scale: float,
  max_dim: int | None = None,
  power_of_two: bool = False,
) -> np.ndarray:
  """Widths scale x rows^-alpha, rounded, at least 1: int64 [B].

  (Ginart et al., arXiv:1909.11810, algorithms 1 and 2, with probabilities
  1 / rows.)

  Args:
    rows: [B], of each table or block.
    alpha: at least 0; 0 gives all one width.
    scale: lambda of the paper.
    max_dim: what no width exceeds, if given.
    power_of_two: to the nearest power of two, once rounded.
  """
  dims = scale * np.asarray(rows, np.float64) ** -alpha
  dims = np.maximum(np.rint(dims), 1)
  if power_of_two:
    dims = 2 ** np.rint(np.log2(dims))
  if max_dim is not None:
    dims = np.minimum(dims, max_dim)
  return dims.astype(np.int64)


def mixed_dims(
  architecture: arch_lib.Architecture,
  alpha: float,
  *,
  frequencies: Mapping[str, np.ndarray] | None = None,
  num_blocks: int = 1,
  threshold: int = 200,
  power_of_two: bool = False,
  max_params: float | None = None,
) -> arch_lib.Architecture:
  """MDE: widths fall with the number of rows, by a power law.

  (Ginart et al., arXiv:1909.11810.) By default a field is one block, its
  popularity spread evenly over its rows (the CTR form). Given frequencies, the
  ids of a field are cut into blocks of equal popularity, each with a width of
  its own (the frequency form); blocks of different fields follow one rule.
  Narrow rows are projected, without an offset, to the largest width in use.

  Without a budget the block of the fewest rows gets the full width, as in the
  authors' code, and others follow. With one, widths are as large as it allows:
  lambda is solved for what is left once widths are clipped to the full one and
  projections, which the paper's budget omits, are counted. Where that leaves
  more than a tenth of the budget, since all blocks of a size would grow
  together or a large one doubles, lambda rises on for the blocks whose next
  width fits, and the others stay. Of blocks of equal rows the first ones go
  first, so the last can be a step narrower. What is left in the end holds the
  next width of no block; with `power_of_two` that can be nearly half of the
  budget, where one block is most of it.

  Args:
    architecture: closed, of one width, which is the full one.
    alpha: exponent, at least 0; the authors' code takes .3.
    frequencies: field name -> int64 [vocab_size], train counts per id.
    num_blocks: per field, where frequencies are given; 8 to 16 are enough.
    threshold: fields of at most so many rows keep the full width.
    power_of_two: rounds to the nearest one.
    max_params: budget of `ep_total`, see `budget`.

  Raises:
    ConfigError: for a negative alpha, blocks without frequencies, frequencies
      that are not those of the fields, or a budget that rows of width 1 exceed.
  """
  if not 0 <= alpha < math.inf or threshold < 0 or num_blocks < 1:
    raise errors.ConfigError(
      f'Mixed dims of alpha {alpha}, threshold {threshold} and {num_blocks} '
      'blocks; expected at least 0, 0 and 1.'
    )
  if num_blocks > 1 and frequencies is None:
    raise errors.ConfigError(
      f'{num_blocks} blocks of equal popularity need the frequencies of ids: '
      'give those of the data set, or one block.'
    )
  plans = _closed_fields(architecture)
  full = architecture.dim
  cut = []
  for plan in plans:
    counts = None if frequencies is None else frequencies.get(plan.name, ())
    cut += blocks(plan, counts, num_blocks)
  kept = {plan.name for plan in plans if plan.vocab_size <= threshold}
  rows = np.array([block.rows for block in cut])
  whole = np.array([block.field in kept for block in cut])

  def widths(scale):
    dims = power_rule(rows, alpha, scale, full, power_of_two)
    return np.where(whole, full, dims)

  def close(dims):
    return _with_blocks(architecture, cut, dims)

  if max_params is None:
    return close(widths(full * rows.min() ** alpha))
  check_budget(close(widths(0.0)), max_params, 'lower `threshold`')
  # Widths change at these alone: at lambda = (d - 1/2) rows^alpha. A full width
  # that is no power of two follows where the next power would.
  steps = np.arange(2, (2 * full if power_of_two else full) + 1) - 0.5
  scales = np.unique(np.outer(rows**alpha, steps)) * (1 + 1e-9)
  lengths = np.array([block.stop - block.start for block in cut])
  lengths = lengths * [architecture.num_vectors(block.field) for block in cut]

  def tables(scale):
    return int(lengths @ widths(scale)) + architecture.first_order_params

  # Tables grow with lambda; projections come on top, and go where a width
  # becomes the largest: the last lambda that fits lies below the bound.
  place = _first(lambda i: tables(scales[i]) > max_params, len(scales))
  while place and close(widths(scales[place - 1])).ep_total > max_params:
    place -= 1
  dims = widths(scales[place - 1] if place else 0.0)
  # What is left holds no further step of the rule; it may hold those of some
  # blocks.
  stays = np.zeros(len(dims), bool)
  for scale in scales[place:]:
    if stays.all() or close(dims).ep_total >= _FILLED * max_params:
      break
    following = widths(scale)
    for i in np.flatnonzero((following > dims) & ~stays):
      wider = np.where(np.arange(len(dims)) == i, following, dims)
      stays[i] = close(wider).ep_total > max_params
      dims = dims if stays[i] else wider
  return close(dims)


def _first(is_true: Callable[[int], bool], count: int) -> int:
  """The first of 0, 1, ... that a condition holds from on; count if none."""
  low, high = 0, count
  while low < high:
    middle = (low + high) // 2
    if is_true(middle):
      high = middle
    else:
      low = middle + 1
  return low


def _closed_fields(architecture):
  """The categorical fields, of whole rows."""
  if architecture.choice is not None:
    raise errors.ConfigError(
      'Sizes are given to fields of which nothing is open; close the choice '
      f'{architecture.choice.kind!r} first.'
    )
  if not architecture.categorical:
    raise errors.ConfigError(
      'The architecture has no categorical field whose size could be chosen.'
    )
  for plan in architecture.categorical:
    if plan.pieces is not None or plan.num_values:
      raise errors.ConfigError(
        f'Field {plan.name!r} has pieces already; expected whole rows.'
      )
  return architecture.categorical


def _with_blocks(architecture, cut, dims):
  """Every block with rows of its width; equal neighbours are one piece."""
  pieces: dict[str, list[fields_lib.Piece]] = {}
  for block, dim in zip(cut, dims.tolist()):
    own = pieces.setdefault(block.field, [])
    start = block.start
    if own and own[-1].dim == dim:
      start = own.pop().start
    own.append(fields_lib.Piece(start, block.stop, dim))
  widest = int(dims.max())
  fields = []
  for plan in architecture.fields:
    if plan.kind == 'numeric':
      fields.append(dataclasses.replace(plan, dim=widest))
      continue
    own = tuple(pieces[plan.name])
    dim = max(piece.dim for piece in own)
    own = own if len(own) > 1 else None
    fields.append(dataclasses.replace(plan, dim=dim, pieces=own))
  return dataclasses.replace(
    architecture, fields=tuple(fields), width=0, projection='linear'
  )


def quotient_remainder(
  architecture: arch_lib.Architecture,
  *,
  collisions: int = 4,
  combine: str = 'product',
  threshold: int = 200,
  max_params: float | None = None,
) -> arch_lib.Architecture:
  """QR: an id's vector is made of the rows of its quotient and its remainder.

  (Shi et al., KDD 2020, arXiv:1909.02107.) Id i reads row i div c of a table of
  ceil(V / c) rows and row i mod c of one of c, a pair that no other id has.

  Rows are combined before a field's values are pooled, which for 'product'
  is not the same as the authors' code, that multiplies pooled rows: there two
  values of a field could not be told from two others. Factors of a product
  start around 1, so that fresh vectors are spread as those of a whole table;
  in the authors' code both lie between sqrt(1 / rows) and 1. First-order
  weights stay one per id.

  Args:
    architecture: closed, of one width.
    collisions: c, of every field; ids that share a row of the quotient. 1, or
      as many as there are ids, leaves a field whole.
    combine: 'product', 'sum', or 'concat' of two halves of the width.
    threshold: fields of at most so many rows stay whole.
    max_params: budget of `ep_total`, see `budget`, in place of `collisions`:
      the smallest c that meets it, at most sqrt(V) in each field (beyond, the
      tables grow again); then fields take one less in turn, the largest first,
      as long as any can. Where that leaves more than a tenth of the budget,
      since halving a field is the least that c = 2 can do, the most frequent
      ids of fields, the largest first, get rows of their own.

  Raises:
    ConfigError: for collisions below 1, an unknown combination, 'concat' of
      width 1, or a budget that c = sqrt(V) exceeds.
  """
  fields_lib.check(combine, _COMBINES, 'Combination of quotient and remainder')
  if collisions < 1 or threshold < 0:
    raise errors.ConfigError(
      f'{collisions} collisions and threshold {threshold}; expected at least 1 '
      'and 0.'
    )
  plans = [
    plan for plan in _closed_fields(architecture) if plan.vocab_size > threshold
  ]
  if combine == 'concat' and architecture.dim < 2:
    raise errors.ConfigError(
      'Vectors of width 1 have no halves to concatenate: widen them.'
    )

  def build(counts: Mapping[str, int], whole: Mapping[str, int] | None = None):
    whole = whole or {}
    return _replace_plans(
      architecture,
      {
        plan.name: _divided(
          plan, counts[plan.name], combine, whole.get(plan.name, 0)
        )
        for plan in plans
      },
      'zero_pad' if combine == 'concat' else architecture.projection,
    )

  if max_params is None:
    return build({plan.name: collisions for plan in plans})
  most = {plan.name: math.isqrt(plan.vocab_size) for plan in plans}
  check_budget(build(most), max_params, 'lower `threshold`')
  common = lambda c: {name: min(c, root) for name, root in most.items()}
  c = 1 + _first(
    lambda i: build(common(i + 1)).ep_total <= max_params,
    max(most.values(), default=1) - 1,
  )
  counts = common(c)
  by_size = sorted(plans, key=lambda plan: -plan.vocab_size)
  before = None
  while counts != before:
    before = counts
    for plan in by_size:
      fewer = counts | {plan.name: max(counts[plan.name] - 1, 1)}
      if build(fewer).ep_total <= max_params:
        counts = fewer
  whole: dict[str, int] = {}

  def exceeds(name, own):
    return build(counts, whole | {name: own}).ep_total > max_params

  for plan in by_size:
    if build(counts, whole).ep_total >= _FILLED * max_params:
      break
    beyond = _first(functools.partial(exceeds, plan.name), plan.vocab_size)
    whole[plan.name] = beyond - 1
  return build(counts, whole)


def _divided(plan, collisions, combine, whole=0):
  """A field as quotients and remainders, where that makes it smaller.

  Its first `whole` ids have rows of their own.
  """
  size, dim, column = plan.vocab_size, plan.dim, 0
  if not 1 < collisions < size - whole:
    return plan
  first = second = dim
  if combine == 'concat':
    second = dim // 2
    first = column = dim - second
  pieces = (
    fields_lib.Piece(whole, size, first, divide=collisions),
    fields_lib.Piece(whole, size, second, column, modulo=collisions),
  )
  if whole:
    pieces = (fields_lib.Piece(0, whole, dim), *pieces)
  if sum(piece.num_rows * piece.dim for piece in pieces) >= size * dim:
    return plan
  combine = 'product' if combine == 'product' else 'sum'
  return dataclasses.replace(plan, pieces=pieces, combine=combine)


def hashed(
  architecture: arch_lib.Architecture,
  *,
  collisions: float = 4.0,
  threshold: int = 200,
  max_params: float | None = None,
) -> arch_lib.Architecture:
  """The hashing trick: ids that are equal modulo the rows share a vector.

  (Weinberger et al., ICML 2009.) Ids go by falling frequency, so the most
  frequent ones share rows with rare ones alone: kinder than random hashing.

  Args:
    architecture: closed, of one width.
    collisions: ids per row of every field, at least 1.
    threshold: fields of at most so many rows stay whole.
    max_params: budget of `ep_total`, see `budget`, in place of `collisions`.

  Raises:
    ConfigError: for collisions below 1, or a budget that one row per field
      exceeds.
  """
  if collisions < 1 or threshold < 0:
    raise errors.ConfigError(
      f'{collisions} collisions and threshold {threshold}; expected at least 1 '
      'and 0.'
    )
  plans = [
    plan for plan in _closed_fields(architecture) if plan.vocab_size > threshold
  ]

  def build(ids_per_row):
    changed = {}
    for plan in plans:
      rows = math.ceil(plan.vocab_size / ids_per_row)
      if rows < plan.vocab_size:
        piece = fields_lib.Piece(0, plan.vocab_size, plan.dim, modulo=rows)
        plan = dataclasses.replace(plan, pieces=(piece,))
      changed[plan.name] = plan
    return _replace_plans(architecture, changed, architecture.projection)

  if max_params is None:
    return build(collisions)
  low, high = 1.0, float(max([plan.vocab_size for plan in plans], default=1))
  check_budget(build(high), max_params, 'lower `threshold`')
  if build(low).ep_total <= max_params:
    return build(low)
  while high > low * (1 + 1e-9):
    middle = math.sqrt(low * high)
    if build(middle).ep_total <= max_params:
      high = middle
    else:
      low = middle
  return build(high)


def _replace_plans(architecture, changed, projection):
  fields = tuple(changed.get(plan.name, plan) for plan in architecture.fields)
  return dataclasses.replace(architecture, fields=fields, projection=projection)
