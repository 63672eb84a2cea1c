"""Opens the widths of the MLP of an architecture, and settles them."""

from collections.abc import Sequence
import dataclasses

from jax_autorec import architecture as arch_lib
from jax_autorec import errors


def open_hidden(
  architecture: arch_lib.Architecture, shares: Sequence[float]
) -> arch_lib.Architecture:
  """Leaves the width of every hidden layer to a search.

  Args:
    architecture: with an MLP, whose widths are the largest.
    shares: candidates, in shares of a layer's width, in (0, 1]; the whole is
      one of them in any case, and each has a unit at least.
  """
  head = architecture.head
  if not head.hidden:
    raise errors.ConfigError(
      'The model has no MLP whose widths to choose: take one with hidden '
      "layers, as 'deepfm' has them."
    )
  for share in shares:
    errors.expect(
      0 < share <= 1, 'share of a hidden layer', share, 'more than 0, at most 1'
    )
  candidates = tuple(
    tuple(sorted({max(1, round(share * width)) for share in (*shares, 1.0)}))
    for width in head.hidden
  )
  head = dataclasses.replace(head, candidates=candidates)
  return dataclasses.replace(architecture, head=head)


def with_hidden(
  architecture: arch_lib.Architecture, hidden: Sequence[int]
) -> arch_lib.Architecture:
  """The architecture with the widths of its hidden layers settled.

  Args:
    architecture: with open ones.
    hidden: a candidate for each.
  """
  head = architecture.head
  known = (
    bool(head.candidates)
    and len(hidden) == len(head.candidates)
    and all(width in own for width, own in zip(hidden, head.candidates))
  )
  if not known:
    raise errors.ConfigError(
      f'Widths of hidden layers are {tuple(hidden)}; expected one of each of '
      f'{head.candidates}.'
    )
  head = dataclasses.replace(head, hidden=tuple(hidden), candidates=())
  return dataclasses.replace(architecture, head=head)
