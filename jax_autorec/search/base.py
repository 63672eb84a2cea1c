"""What a search method is: a `Selector`, pure functions over its own trees."""

from collections.abc import Callable
from typing import Any, NamedTuple

import optax

from jax_autorec.types import Array, PyTree

SPLITS = ('train', 'valid')


class Draw(NamedTuple):
  """One sample of a slot's choice.

  Attributes:
    choice: what modules read of the 'arch' collection for this slot.
    log_prob: [] or [B], log probability of the choice; 0 where `choice` is
      differentiable in what is trained.
    baseline: [] or [B], what an average draw would have cost.
    cost: [] or [B], price of the choice itself, added to the loss.
  """

  choice: PyTree
  log_prob: Array | float = 0.0
  baseline: Array | float = 0.0
  cost: Array | float = 0.0


class Schedule(NamedTuple):
  """When a selector is updated.

  Attributes:
    period: every so many steps.
    warmup: steps before the first update.
  """

  period: int = 1
  warmup: int = 0


EVERY_STEP = Schedule()


def unchanged(memory, params, draw, loss, batch):
  """An `observe` that remembers nothing."""
  del draw, loss, batch
  return memory, params


def nothing(arch, memory):
  """A `record` that shows nothing."""
  del arch, memory
  return {}


class Selector(NamedTuple):
  """How one slot's choices are drawn, learnt and settled.

  Attributes:
    init: (choice, key) -> arch, memory. `choice` is where the module put it;
      `arch` is trained, `memory` is not.
    sample: (arch, memory, batch, phase, step, key) -> `Draw`. `phase` is
      'weights' or 'arch'.
    observe: (memory, params, draw, losses, batch) -> memory, params; after an
      update of `arch`. Losses and batch are those of all replicas.
    derive: (arch, memory, params, architecture) -> architecture with this
      slot closed; on the host. It is given the whole architecture, of which
      it edits its own slot: a slot can span several interactions.
    tx: optimiser of `arch`.
    split: 'train': `arch` follows the same gradient as the weights (single
      level); 'valid': the loss of validation batches (bi-level).
    schedule: when `arch` is updated.
    record: (arch, memory) -> JSON values for the records, on the host.
  """

  init: Callable[..., tuple[PyTree, PyTree]]
  sample: Callable[..., Draw]
  observe: Callable[..., tuple[PyTree, PyTree]]
  derive: Callable[..., Any]
  tx: optax.GradientTransformation
  split: str = 'train'
  schedule: Schedule = EVERY_STEP
  record: Callable[..., dict[str, Any]] = nothing
