"""Settings of a training, and the optimiser that they describe."""

import dataclasses
import math
from typing import Any

import jax
import optax

from jax_autorec import architecture as arch_lib
from jax_autorec import choices as choices_lib
from jax_autorec import errors
from jax_autorec.nn import embeddings, lookups
from jax_autorec.nn import model as model_lib
from jax_autorec.optim import row_sparse
from jax_autorec.optim import tables as tables_lib
from jax_autorec.train import loop, parallel
from jax_autorec.train import state as state_lib

TABLE_OPTIMIZERS = (
  'dense_adam',
  'adam',
  'rowwise_adagrad',
  'adagrad',
  'sgd',
)


@dataclasses.dataclass(frozen=True)
class Settings:
  """How a model is trained; the defaults are the BARS protocol's.

  Attributes:
    epochs: at most.
    batch_size: rows per step, over all devices.
    learning_rate: of Adam, for everything that is not a table.
    table_learning_rate: of the table optimiser; None for `learning_rate`.
    table_optimizer: 'dense_adam' updates, and decays, whole tables each step
      (the BARS protocol; its cost grows with the vocabulary); the others
      update the rows of the batch alone.
    table_std: standard deviation of fresh tables; the BARS protocol's 1e-4
      leaves products of vectors near zero for the first hundreds of steps.
    embedding_l2: lambda of (lambda / 2) * sum(theta^2) over embeddings and
      first-order weights: of whole tables with 'dense_adam', of the touched
      rows otherwise.
    first_order_l2: the same over first-order weights; None for embedding_l2.
      A weight per id needs less holding back than a vector.
    l2: the same over all other weights.
    clip_norm: bound on the global gradient norm, or None. L2 terms count as
      gradient, but for those of touched rows, which are added afterwards.
    patience: evaluations without improvement that stop; 0 never stops.
    plateau_factor: what such an evaluation multiplies the learning rate by.
    steps_per_dispatch: steps in one compiled call.
    save_seconds: seconds between checkpoints.
    parallel: 'none', 'jit' or 'pmap'.
  """

  epochs: int = 100
  batch_size: int = 4096
  learning_rate: float = 1e-3
  table_learning_rate: float | None = None
  table_optimizer: str = 'adam'
  table_std: float = lookups.INIT_STD
  embedding_l2: float = 0.0
  first_order_l2: float | None = None
  l2: float = 0.0
  clip_norm: float | None = 10.0
  patience: int = 2
  plateau_factor: float = 0.1
  steps_per_dispatch: int = 10
  save_seconds: float = 30.0
  parallel: str = 'none'

  def __post_init__(self):
    for name in ('epochs', 'batch_size', 'steps_per_dispatch'):
      value = getattr(self, name)
      if not isinstance(value, int) or value < 1:
        raise errors.ConfigError(
          f'{name} is {value!r}; expected an integer of at least 1.'
        )
    for name in ('learning_rate', 'table_learning_rate', 'clip_norm'):
      value = getattr(self, name)
      may_be_none = name != 'learning_rate'
      if value is None and may_be_none:
        continue
      if not _is_number(value) or value <= 0:
        raise errors.ConfigError(
          f'{name} is {value!r}; expected more than 0'
          f'{", or None" if may_be_none else ""}.'
        )
    for name in (
      'embedding_l2',
      'first_order_l2',
      'l2',
      'patience',
      'save_seconds',
      'table_std',
    ):
      value = getattr(self, name)
      if value is None and name == 'first_order_l2':
        continue
      if not _is_number(value) or value < 0:
        raise errors.ConfigError(f'{name} is {value!r}; expected at least 0.')
    if not 0 < self.plateau_factor <= 1:
      raise errors.ConfigError(
        f'plateau_factor is {self.plateau_factor!r}; expected more than 0 and '
        'at most 1.'
      )
    if self.table_optimizer not in TABLE_OPTIMIZERS:
      raise errors.ConfigError(
        f'table_optimizer is {self.table_optimizer!r}; expected one of '
        f'{", ".join(TABLE_OPTIMIZERS)}.'
      )
    parallel.axis_name(self.parallel)

  @property
  def stopping(self) -> loop.Stopping:
    return loop.Stopping(self.patience, self.plateau_factor)

  def to_dict(self) -> dict[str, Any]:
    return dataclasses.asdict(self)


def _is_number(value: Any) -> bool:
  return isinstance(value, int | float) and math.isfinite(value)


def make_optimizer(
  settings: Settings, architecture: arch_lib.Architecture
) -> state_lib.Optimizer:
  """The optimisers of dense parameters and tables that settings describe."""

  first_order_l2 = settings.first_order_l2
  if first_order_l2 is None:
    first_order_l2 = settings.embedding_l2

  codebooks = {
    stack: plans[0].quantizer.kind
    for stack, plans in architecture.codebooks.items()
  }

  def decay(grads, params):
    def decayed(path, grad, param):
      names = [entry.key for entry in path]
      rate = settings.l2
      if names[0] == model_lib.EMBEDDINGS and names[1] in codebooks:
        # Values of 'sx' are the vectors of ids; keys have no scale, and values
        # of 'vq' follow queries, which decay.
        is_values = codebooks[names[1]] == 'sx' and names[-1] == 'values'
        rate = settings.embedding_l2 if is_values else 0.0
      elif names[0] == model_lib.EMBEDDINGS and embeddings.is_vector(names[1:]):
        # Numeric fields' vectors decay like those of ids.
        is_first_order = names[1].startswith('first_order')
        rate = first_order_l2 if is_first_order else settings.embedding_l2
      elif names[0] == model_lib.EMBEDDINGS and embeddings.is_score(names[1:]):
        rate = 0.0
      return grad + rate * param if rate else grad

    return jax.tree.map_with_path(decayed, grads, params)

  rate = settings.table_learning_rate
  if rate is None:
    rate = settings.learning_rate
  spaces = lookups.spaces(architecture)
  l2 = {
    table.name: first_order_l2
    if table.view == 'first_order'
    else settings.embedding_l2
    for table in architecture.tables
  }
  # Decay would draw the factors of a product away from 1, and every vector to
  # 0 with them.
  l2 |= {table.name: 0.0 for table in architecture.tables if table.mean}
  # What is open about single rows is no weight.
  l2 |= {
    table.name: 0.0
    for table in architecture.tables
    if table.name == choices_lib.ROW_CHOICE
  }
  if settings.table_optimizer == 'dense_adam':
    tables = tables_lib.dense(optax.adam(rate), spaces, l2)
  else:
    make = getattr(row_sparse, settings.table_optimizer)
    tables = tables_lib.row_sparse(
      {name: make(rate, weight_decay=decay) for name, decay in l2.items()},
      spaces,
      lookups.capacities(architecture, settings.batch_size),
    )
  return state_lib.Optimizer(
    optax.adam(settings.learning_rate), tables, settings.clip_norm, decay
  )
