"""Methods that follow a stream: each row is predicted, then learnt from.

A step takes the next rows of the stream. It predicts and scores them with the
weights, running statistics and choices that earlier rows have left
(prequential evaluation), and only then do weights and choices learn from them.
What a method keeps per id lies in arrays with a row per id, of which a step
reads and writes the rows of its batch alone.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.struct
import jax
from jax import lax
import jax.numpy as jnp
import optax

from jax_autorec import architecture as arch_lib
from jax_autorec import errors
from jax_autorec import rows as rows_lib
from jax_autorec.nn import lookups
from jax_autorec.nn import model as model_lib
from jax_autorec.train import state as state_lib
from jax_autorec.train import steps
from jax_autorec.types import Array, Batch, PyTree

# Which stream of random bits choices take, apart from what is learnt of them.
_CHOOSE = 1


def _square(logits, labels):
  return jnp.square(jax.nn.sigmoid(logits) - labels)


LOSSES: dict[str, Callable[[Array, Array], Array]] = {
  'square': _square,
  'log': optax.sigmoid_binary_cross_entropy,
}


class Tools(NamedTuple):
  """What a method may ask of the model; nothing here changes it.

  Attributes:
    model: the model.
    optimizer: of its weights.
    look_up: (train, batch) -> row numbers by id space, rows by table.
    losses: (train, rows, choice, batch) -> [B], with the running statistics.
  """

  model: model_lib.CTRModel
  optimizer: state_lib.Optimizer
  look_up: Callable[..., tuple[dict[str, Array], dict[str, Array]]]
  losses: Callable[..., Array]


class Derived(NamedTuple):
  """A closed model of what stands at one moment of a stream.

  Attributes:
    architecture: closed.
    params: parameters but for the tables.
    tables: table -> [R, D].
    batch_stats: running statistics.
  """

  architecture: arch_lib.Architecture
  params: PyTree
  tables: dict[str, Array]
  batch_stats: PyTree


class Online(NamedTuple):
  """How a method chooses as a stream goes on. `own` is all that it keeps.

  In a step they are called in this order, with the present batch B_k and the
  one before it.

  Attributes:
    init: (tools, train, key) -> own.
    choose: (own, tools, train, batch, key) -> own, train, choice; before the
      batch is predicted. `train` may come back with rows of another form that
      predict the same. Labels must not be read.
    adapt: (own, tools, train, previous, batch, losses, key) -> own; what is
      learnt about choices, at the weights that predicted the batch. So what
      learns of the previous batch does so after the present one was predicted,
      where ESAPN's published loop does it before.
    remember: (own, tools, batch, choice, losses) -> own; after the weights'
      update.
    standing: (own, tools, batch) -> choice, for predictions that change
      nothing.
    derive: (own, tools, train) -> `Derived`; on the host. None where a stream
      ends without choices to settle.
    record: (own) -> JSON values for the records, on the host.
    about: the method and its options, but for its optimiser, as JSON values: a
      checkpoint of another method, or of other options, is not continued.
    kept: (own) -> what predictions need beside the model's own parameters.
  """

  init: Callable[..., PyTree]
  choose: Callable[..., tuple[PyTree, state_lib.TrainState, PyTree]]
  adapt: Callable[..., PyTree]
  remember: Callable[..., PyTree]
  standing: Callable[..., PyTree]
  derive: Callable[..., Derived] | None
  record: Callable[[PyTree], dict[str, Any]]
  about: Mapping[str, Any]
  kept: Callable[[PyTree], PyTree] = lambda own: {}


def fixed() -> Online:
  """Nothing is chosen: a closed architecture follows the stream."""
  return Online(
    init=lambda tools, train, key: {},
    choose=lambda own, tools, train, batch, key: (own, train, {}),
    adapt=lambda own, *seen: own,
    remember=lambda own, tools, batch, choice, losses: own,
    standing=lambda own, tools, batch: {},
    derive=lambda own, tools, train: Derived(
      tools.model.architecture, train.params, train.tables, train.batch_stats
    ),
    record=lambda own: {},
    about={'method': 'fixed'},
  )


@flax.struct.dataclass
class StreamState:
  """All that a step of a stream reads and writes.

  Attributes:
    train: weights and all that belongs to them.
    own: what the method keeps.
    logits: float32 [rows of the stream, padded to whole batches], predictions
      as they were made.
  """

  train: state_lib.TrainState
  own: PyTree
  logits: Array


def entity_ids(given: Tools, batch: Batch) -> Array:
  """Ids int32 [B, F] of the entities; -1 for padding."""
  return lookups.known_ids(given.model.architecture, batch)


def columns(given: Tools, ids: Array) -> list[tuple[str, Array]]:
  """Each entity's name and ids [B]."""
  fields = given.model.architecture.fields
  return [(plan.name, ids[:, i]) for i, plan in enumerate(fields)]


def tools(
  model: model_lib.CTRModel, optimizer: state_lib.Optimizer, loss: str
) -> Tools:
  """What methods are given.

  Raises:
    ConfigError: for an unknown loss, a model of replicas, or fields that hold
      several values.
  """
  if loss not in LOSSES:
    raise errors.ConfigError(
      f'Loss of a stream is {loss!r}; expected one of {", ".join(LOSSES)}.'
    )
  if model.axis_name is not None:
    raise errors.ConfigError(
      "Streams do not run with parallel 'pmap', whose replicas would remember "
      "different ids; expected 'none' or 'jit'."
    )
  other = [p.name for p in model.architecture.fields if p.max_length > 1]
  other += [p.name for p in model.architecture.numeric]
  if other:
    raise errors.ConfigError(
      f'A stream has fields of several values, or numeric ones: '
      f'{", ".join(other)}; expected entities: categorical fields of one value.'
    )

  def look_up(train, batch):
    return steps.look_up(model, train.tables, train.constants, batch)

  def losses(train, rows, choice, batch):
    logits = model.apply(
      {
        'params': train.params,
        'batch_stats': train.batch_stats,
        **_collection(choice),
      },
      batch,
      rows=rows,
      train=False,
    )
    return LOSSES[loss](logits, batch.labels)

  return Tools(model, optimizer, look_up, losses)


def _collection(choice: PyTree) -> dict[str, Any]:
  return {'arch': {model_lib.FIELDS: choice}} if choice else {}


def init(
  given: Tools,
  online: Online,
  batch: Batch,
  num_logits: int,
  key: Array,
  table_std: float = lookups.INIT_STD,
) -> StreamState:
  """A fresh state.

  Args:
    given: of `tools`.
    online: the method.
    batch: any batch of the right shapes.
    num_logits: rows of the stream, padded to whole batches.
    key: PRNG key.
    table_std: standard deviation of fresh tables.
  """
  train_key, own_key = jax.random.split(key)
  train, _ = state_lib.init(
    given.model, given.optimizer, batch, train_key, table_std
  )
  own = online.init(given, train, own_key)
  return StreamState(train, own, jnp.zeros((num_logits,), jnp.float32))


def make_step(
  given: Tools, online: Online, loss: str
) -> Callable[..., tuple[StreamState, dict[str, Array]]]:
  """The step of a stream.

  Args:
    given: of `tools`.
    online: the method.
    loss: what is minimised and scored, see `LOSSES`.

  Returns:
    (state, (batch, previous batch)) -> (state, {'loss', 'grad_norm'}); the
    loss is that of the predictions, before the batch was learnt from.
  """
  model = given.model
  loss_of = LOSSES[loss]

  def step(state, batches):
    batch, previous = batches
    key = jax.random.fold_in(state.train.key, state.train.step)
    weights = steps.example_weights(batch, None)
    own, train, choice = online.choose(
      state.own, given, state.train, batch, jax.random.fold_in(key, _CHOOSE)
    )
    flat_ids, rows = given.look_up(train, batch)
    arch = _collection(choice)

    # With the running statistics: those of the batch would tell each row of
    # its neighbours, which a prediction has not got.
    logits = model.apply(
      {'params': train.params, 'batch_stats': train.batch_stats, **arch},
      batch,
      rows=rows,
      train=False,
    )
    losses = loss_of(logits, batch.labels)

    def objective(params, rows):
      out = steps.apply_model(model, train, params, rows, batch, key, arch)
      value = jnp.sum(weights * loss_of(out.logits, batch.labels))
      return value, out.batch_stats

    (dense_grads, row_grads), stats = jax.grad(
      objective, argnums=(0, 1), has_aux=True
    )(train.params, rows)
    # All that is read of a table, or of what is kept per id, is read before any
    # of it is written, by the order of the data: XLA would copy it whole.
    known = [losses, *jax.tree.leaves((choice, row_grads))]
    read_too = []

    def look_up(train, batch):
      found = given.look_up(train, batch)
      read_too.extend(jax.tree.leaves(found[1]))
      return found

    own = online.adapt(
      own,
      given._replace(look_up=look_up),
      train,
      _ordered(previous, *known),
      _ordered(batch, *known),
      losses,
      key,
    )
    flat_ids = {
      space: rows_lib.after(ids, *known, *read_too)
      for space, ids in flat_ids.items()
    }
    new_train, norm = steps.apply_gradients(
      train, given.optimizer, dense_grads, flat_ids, row_grads, stats, None
    )
    # What was learnt of what is kept per id is in arrays that are not.
    vocabularies = [plan.vocab_size for plan in model.architecture.fields]
    learnt = [
      leaf
      for leaf in jax.tree.leaves(own)
      if not leaf.ndim or leaf.shape[0] not in vocabularies
    ]
    own = online.remember(
      own, given, _ordered(batch, *known, *learnt), choice, losses
    )
    first = state.train.step * len(logits)
    kept = lax.dynamic_update_slice(state.logits, logits, (first,))
    state = StreamState(new_train, own, kept)
    return state, {'loss': jnp.sum(weights * losses), 'grad_norm': norm}

  return step


def _ordered(batch, *others):
  """The same batch, whose ids are known only after other arrays are."""
  return batch._replace(ids=rows_lib.after(batch.ids, *others))


def make_predict(
  given: Tools, online: Online
) -> Callable[[StreamState, Batch], Array]:
  """(state, batch) -> logits [B] of what stands; nothing changes."""
  predict = steps.make_predict(given.model)

  def apply(state, batch):
    train = state.train
    collections = _collection(online.standing(state.own, given, batch))
    return predict(
      train.params, train.tables, train.batch_stats, batch, collections
    )

  return apply


def counted(counts: Array, ids: Array) -> Array:
  """Counts [V] after ids [B] came once more each; -1 for none."""
  return counts.at[_dropped(counts, ids)].add(1, mode='drop')


def pushed(
  history: Array, counts: Array, ids: Array, values: Array
) -> tuple[Array, Array]:
  """The last T values of every id after a batch, duplicates in their order.

  Args:
    history: [V, T], the value of occurrence n of an id at n % T.
    counts: integers [V], occurrences before the batch.
    ids: int32 [B]; -1 for none.
    values: [B].

  Returns:
    History and counts after.
  """
  length = history.shape[1]
  order = jnp.argsort(ids, stable=True)
  ordered = ids[order]
  first = jnp.searchsorted(ordered, ordered, side='left')
  last = jnp.searchsorted(ordered, ordered, side='right')
  place = jnp.arange(len(ids))
  # Of more than T occurrences in a batch the last T stay.
  kept = last - place <= length
  seen = counts.at[jnp.maximum(ordered, 0)].get(mode='clip')
  column = (seen + place - first) % length
  rows = jnp.where(kept, _dropped(history, ordered), len(history))
  history = history.at[rows, column].set(values[order], mode='drop')
  # Counts are read before they are written.
  return history, counted(counts, rows_lib.after(ids, column))


def _dropped(array, ids):
  """Ids as a scatter drops them: a negative index would count from the end."""
  return jnp.where(ids >= 0, ids, len(array))


def read(array: Array, ids: Array) -> Array:
  """Rows [B, ...] of an array [V, ...]; zeros for -1."""
  return array.at[_dropped(array, ids)].get(mode='fill', fill_value=0)


def written(array: Array, ids: Array, values: Array) -> Array:
  """An array with the rows of a batch replaced; equal ids, equal values."""
  return array.at[_dropped(array, ids)].set(
    values.astype(array.dtype), mode='drop'
  )
