"""What a search method is: a `Selector`, pure functions over its own trees."""

from collections.abc import Callable, Iterable, Sequence
import dataclasses
import math
from typing import Any, NamedTuple

import optax

from jax_autorec import architecture as arch_lib
from jax_autorec import errors
from jax_autorec.search import unroll
from jax_autorec.train import state as state_lib
from jax_autorec.types import Array, Batch, PyTree

SPLITS = ('train', 'valid', 'alternate')
PHASES = ('weights', 'arch', 'eval')


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


@dataclasses.dataclass(frozen=True)
class Schedule:
  """When a selector is updated.

  Attributes:
    period: every so many steps, at least 1.
    warmup: steps before the first update.
  """

  period: int = 1
  warmup: int = 0

  def __post_init__(self):
    errors.expect(
      self.period >= 1, 'period of a search', self.period, 'at least 1 step'
    )
    errors.expect(
      self.warmup >= 0, 'warmup of a search', self.warmup, 'at least 0 steps'
    )


EVERY_STEP = Schedule()


class Seen(NamedTuple):
  """What an update of a selector saw, of all replicas.

  Attributes:
    draws: its draws, stacked [S, ...] over samples.
    losses: [S, B], the loss of every example under each draw.
    rewards: [S], of `Selector.reward`; minus the mean loss without one.
    batch: B rows.
  """

  draws: Draw
  losses: Array
  rewards: Array
  batch: Batch


class Context(NamedTuple):
  """What a choice is settled with.

  Attributes:
    architecture: with this slot still open.
    train: weights, tables and statistics after the search.
    evaluate: choice of this slot -> metrics on the validation split, with the
      searched weights and the other slots as they stand; None where the
      validation split is not at hand.
    gradients: choice of this slot -> of every batch of the validation split
      the gradient of its mean loss with respect to the choice, in evaluation
      mode, and what its rows weigh together; None as `evaluate`.
    initial: () -> the tables that the search started from, drawn anew; None
      where that is not known.
  """

  architecture: arch_lib.Architecture
  train: state_lib.TrainState
  evaluate: Callable[[PyTree], dict[str, float]] | None = None
  gradients: Callable[[PyTree], Iterable[tuple[PyTree, float]]] | None = None
  initial: Callable[[], dict[str, Array]] | None = None


def unchanged(memory, train, seen):
  """An `observe` that remembers nothing."""
  del seen
  return memory, train


def accept(space):
  """A `check` that refuses nothing."""
  del space


def nothing(arch, memory):
  """A `record` that shows nothing."""
  del arch, memory
  return {}


class Selector(NamedTuple):
  """How one slot's choices are drawn, learnt and settled.

  Attributes:
    init: (choice, key, train) -> arch, memory. `choice` is where the module
      put it, `train` the fresh `TrainState`; `arch` is trained, `memory` is
      not.
    sample: (arch, memory, batch, phase, step, key) -> `Draw`. `phase` is
      'weights' for a step of the weights, 'arch' for one of `arch`, 'eval' for
      an evaluation: what stands, without noise.
    observe: (memory, train, seen) -> memory, train; after an update of `arch`.
      A selector that is not updated in every step must leave `train` alone.
    derive: (arch, memory, context) -> architecture with this slot closed; on
      the host. It is given the whole architecture, of which it edits its own
      slot: a slot can span several interactions.
    tx: optimiser of `arch`.
    split: 'train': `arch` follows the same gradient as the weights (single
      level); 'valid': the loss of validation batches (bi-level); 'alternate':
      the train batch of the weights, in a pass and with draws of its own.
    schedule: when `arch` is updated.
    record: (arch, memory) -> JSON values for the records, on the host.
    inner_rate: of a bi-level selector: None for first order (weights are taken
      as they are); else the rate xi of the step of the weights that its
      gradient is taken through, exactly (second order).
    implicit: in place of it, how the weights answer at last.
    samples: draws per update whose gradients are averaged.
    reward: (logits, batch) -> [], higher is better, that policies are learnt
      from; None for minus the loss of each example.
    aux_loss: (arch, memory, seen) -> [], a further loss of `arch`: that of a
      learned critic, say. `seen` has one sample.
    measure: (arch, memory, context) -> JSON values for the records, and
      whether the search may end; at every evaluation, on the host. It may read
      whole tables, in blocks. The search ends once all that measure agree.
    only_derives: True if nothing is learnt before `derive`: where that holds
      for all selectors the search is a plain training. It stops as one, and
      `derive` reads the weights of its best evaluation.
    check: (architecture) -> None; refuses a space that could not be settled,
      a budget that it cannot meet, before anything is trained.
  """

  init: Callable[..., tuple[PyTree, PyTree]]
  sample: Callable[..., Draw]
  observe: Callable[..., tuple[PyTree, PyTree]]
  derive: Callable[[PyTree, PyTree, Context], arch_lib.Architecture]
  tx: optax.GradientTransformation
  split: str = 'train'
  schedule: Schedule = EVERY_STEP
  record: Callable[..., dict[str, Any]] = nothing
  inner_rate: float | None = None
  implicit: unroll.Implicit | None = None
  samples: int = 1
  reward: Callable[..., Array] | None = None
  aux_loss: Callable[..., Array] | None = None
  measure: Callable[..., tuple[dict[str, Any], bool]] | None = None
  only_derives: bool = False
  check: Callable[[arch_lib.Architecture], None] = accept

  @property
  def inner(self) -> float | unroll.Implicit | None:
    """What the gradient of `arch` is taken through; None for first order."""
    return self.inner_rate if self.implicit is None else self.implicit


class Scored(NamedTuple):
  """A closed architecture and how it did.

  Attributes:
    architecture: what was trained.
    valid: metrics on the validation split; none if the training diverged.
    seconds: that its training took.
    flops: of the prediction of one row, where `Population.complexity` asks.
  """

  architecture: arch_lib.Architecture
  valid: dict[str, float]
  seconds: float = 0.0
  flops: float = 0.0

  @property
  def loss(self) -> float:
    """The log loss on the validation split; infinite if it diverged."""
    return self.valid.get('logloss', math.inf)


class Population(NamedTuple):
  """How closed architectures are proposed where a score is all there is.

  Attributes:
    ask: scored so far -> the next architecture, or None to end. It follows
      from its argument alone, so that a search can be resumed.
    derive: scored -> the architecture that is settled on.
    about: number of a proposal, from 0 -> JSON values that tell it from the
      others in records; of those that were asked for.
    total: of proposals at most, for the time that is left; 0 if unknown.
    metric: of the validation split, that trainings are stopped and their
      weights chosen by: 'auc' or 'logloss'.
    start: an architecture that is trained first; proposals start from its
      tables, where they have some of the same name and shape.
    complexity: whether to count the operations of every proposal.
    bears_divergence: whether a proposal that diverges is scored as such,
      without metrics. It ends the search otherwise.
  """

  ask: Callable[[list[Scored]], arch_lib.Architecture | None]
  derive: Callable[[list[Scored]], arch_lib.Architecture]
  about: Callable[[int], dict[str, Any]] = lambda number: {}
  total: int = 0
  metric: str = 'auc'
  start: arch_lib.Architecture | None = None
  complexity: bool = False
  bears_divergence: bool = False


def best(scored: list[Scored]) -> arch_lib.Architecture:
  """A `derive`: the highest AUC on the validation split.

  Raises:
    TrainingError: where all trainings diverged.
  """
  done = [one for one in scored if one.valid]
  if not done:
    raise errors.TrainingError(
      f'All {len(scored)} proposals diverged: lower the learning rate.'
    )
  return max(done, key=lambda one: one.valid['auc']).architecture


def each(
  proposals: Sequence[tuple[dict[str, Any], arch_lib.Architecture]],
) -> Population:
  """Proposes known architectures one after another; the best is kept.

  Args:
    proposals: what each is, as JSON values, and itself. Of equal architectures
      the first alone is trained.
  """
  distinct = []
  for about, architecture in proposals:
    if all(architecture != other for _, other in distinct):
      distinct.append((about, architecture))

  def ask(scored):
    done = len(scored)
    return distinct[done][1] if done < len(distinct) else None

  about = lambda number: distinct[number][0]
  return Population(ask, best, about, len(distinct), bears_divergence=True)
