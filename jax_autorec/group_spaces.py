"""Groups of fields in place of the interactions of a base model."""

from collections.abc import Mapping, Sequence
import dataclasses

from jax_autorec import architecture as arch_lib
from jax_autorec import errors
from jax_autorec import interactions as interactions_lib


def open_groups(
  architecture: arch_lib.Architecture,
  counts: Sequence[int],
  *,
  copies: int | Sequence[int] = 1,
  form: str = 'power',
  compensation: float = 1.0,
  normalize: bool = True,
) -> arch_lib.Architecture:
  """A base model that reads open groups of fields and nothing else (AutoGroup).

  First-order weights stay, as in the authors' code. Groups feed the MLP in
  place of the field vectors; without an MLP, the output layer.

  Args:
    architecture: fm, deepfm, ... by name.
    counts: groups of order 1, 2, ...; 0 for none of that order.
    copies: widths of the orders' vectors, in common widths; one for all or one
      per order.
    form: see `interactions.Groups`.
    compensation: of the form 'power'.
    normalize: batch normalisation of the vectors. Without it, powers of small
      vectors vanish.

  Returns:
    The architecture with interactions 'groups_1', 'groups_2', ...
  """
  counts = tuple(counts)
  if not counts or min(counts) < 0 or not any(counts):
    raise errors.ConfigError(
      f'Numbers of groups are {counts}; expected one per order, none below 0 '
      'and at least one above.'
    )
  if isinstance(copies, int):
    copies = (copies,) * len(counts)
  if len(copies) != len(counts):
    raise errors.ConfigError(
      f'Widths of groups are {tuple(copies)} times the common width, for '
      f'{len(counts)} orders; expected one for all or one per order.'
    )
  too_high = [
    order
    for order, count in enumerate(counts, 1)
    if count and order > len(architecture.vector_fields)
  ]
  if too_high:
    raise errors.ConfigError(
      f'Groups of order {too_high[0]} of {len(architecture.vector_fields)} '
      'fields that have vectors; expected orders up to their number.'
    )
  head = dataclasses.replace(architecture.head, flat_embeddings=False)
  groups = tuple(
    interactions_lib.Groups(
      f'groups_{order}',
      order,
      num_open=count,
      copies=own,
      form=form,
      compensation=compensation,
      normalize=normalize,
      to='head' if head.hidden else 'output',
    )
    for order, (count, own) in enumerate(zip(counts, copies), 1)
    if count
  )
  return dataclasses.replace(architecture, interactions=groups, head=head)


def with_groups(
  space: arch_lib.Architecture,
  members: Mapping[str, Sequence[Sequence[str]]],
) -> arch_lib.Architecture:
  """Open groups settled: name of the interaction -> members of each group.

  Groups too small to say anything are left out, as are orders without any.

  Raises:
    ConfigError: where nothing is left of all that were open.
  """
  plans = []
  for plan in space.interactions:
    is_ours = isinstance(plan, interactions_lib.Groups) and plan.is_open
    plans.append(plan.with_groups(members[plan.name]) if is_ours else plan)
  kept = tuple(plan for plan in plans if plan is not None)
  if not any(isinstance(plan, interactions_lib.Groups) for plan in kept):
    raise errors.ConfigError(
      'No group has members enough to interact: search fewer steps, or with a '
      'lower rate.'
    )
  return dataclasses.replace(space, interactions=kept)
