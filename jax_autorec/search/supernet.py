"""One step that trains weights and the choices of any selectors together."""

from collections.abc import Callable, Mapping
import functools
from typing import Any

import flax.struct
import jax
from jax import lax
import jax.numpy as jnp
import optax

from jax_autorec import architecture as arch_lib
from jax_autorec import errors
from jax_autorec.nn import blocks, embeddings
from jax_autorec.nn import model as model_lib
from jax_autorec.search import base
from jax_autorec.train import state as state_lib
from jax_autorec.train import steps
from jax_autorec.types import Array, Batch, PyTree

# Which stream of random bits a draw takes, apart from dropout's.
_DRAW_STREAM, _ARCH_STREAM = 1, 2


@flax.struct.dataclass
class SearchState:
  """A training state and what the selectors train and remember.

  Attributes:
    train: weights and all that belongs to them.
    arch: slot -> trained tree.
    memory: slot -> remembered tree.
    arch_optimizer: slot -> optimiser state.
  """

  train: state_lib.TrainState
  arch: dict[str, PyTree]
  memory: dict[str, PyTree]
  arch_optimizer: dict[str, PyTree]


def _at(tree: Mapping[str, Any], path: str) -> Any:
  for part in path.split('/'):
    if part not in tree:
      raise errors.ConfigError(
        f'No open choice at {path!r}; open are: {", ".join(tree) or "none"}.'
      )
    tree = tree[part]
  return tree


def _collection(choices: Mapping[str, PyTree]) -> dict[str, Any]:
  """Slot paths -> the nested 'arch' collection that modules read."""
  tree: dict[str, Any] = {}
  for path, choice in choices.items():
    *parents, last = path.split('/')
    node = tree
    for part in parents:
      node = node.setdefault(part, {})
    node[last] = choice
  return {'arch': tree} if tree else {}


def init(
  model: model_lib.CTRModel,
  optimizer: state_lib.Optimizer,
  selectors: Mapping[str, base.Selector],
  batch: Batch,
  key: Array,
  table_std: float = embeddings.INIT_STD,
) -> SearchState:
  """A fresh search state.

  Args:
    model: a supernet.
    optimizer: of its weights.
    selectors: path into the 'arch' collection -> selector.
    batch: any batch of the right shapes.
    key: PRNG key.
    table_std: standard deviation of fresh tables.
  """
  train_key, *keys = jax.random.split(key, 1 + len(selectors))
  train, collections = state_lib.init(
    model, optimizer, batch, train_key, table_std
  )
  open_choices = collections.get('arch', {})
  arch, memory, opt = {}, {}, {}
  for (slot, selector), slot_key in zip(sorted(selectors.items()), keys):
    if selector.split not in base.SPLITS:
      raise errors.ConfigError(
        f'Selector of {slot!r} has split {selector.split!r}; expected one of '
        f'{", ".join(base.SPLITS)}.'
      )
    arch[slot], memory[slot] = selector.init(_at(open_choices, slot), slot_key)
    opt[slot] = selector.tx.init(arch[slot])
  for path, _ in jax.tree_util.tree_flatten_with_path(open_choices)[0]:
    path = jax.tree_util.keystr(path, simple=True, separator='/')
    if not any(f'{path}/'.startswith(f'{slot}/') for slot in selectors):
      raise errors.ConfigError(
        f'No selector decides the open choice {path!r}; there are selectors '
        f'for: {", ".join(selectors) or "none"}.'
      )
  return SearchState(train, arch, memory, opt)


def sample_all(selectors, arch, memory, batch, phase, step, key):
  """Slot -> `Draw`, each from a key of its own."""
  return {
    slot: selectors[slot].sample(
      arch[slot], memory[slot], batch, phase, step, jax.random.fold_in(key, i)
    )
    for i, slot in enumerate(sorted(selectors))
  }


def surrogate(losses: Array, draws: Mapping[str, base.Draw]) -> Array:
  """[B]: its gradient is that of the expected loss plus cost.

  Differentiable draws take the plain gradient, policies the score function's
  (REINFORCE with a baseline), and both may act in one model.
  """
  value = losses + sum(draw.cost for draw in draws.values())
  score = sum(
    lax.stop_gradient(value - draw.baseline) * draw.log_prob
    for draw in draws.values()
  )
  return value + score


def make_step(
  model: model_lib.CTRModel,
  optimizer: state_lib.Optimizer,
  selectors: Mapping[str, base.Selector],
) -> Callable[..., tuple[SearchState, dict[str, Array]]]:
  """The step of a search.

  Args:
    model: a supernet; its `axis_name` is the step's.
    optimizer: of the weights.
    selectors: slot -> selector.

  Returns:
    (state, (train batch, valid batch or None)) -> (state, metrics). First the
    bi-level selectors are updated on the validation batch, at weights that
    stay as they are; then weights and single-level selectors together on the
    train batch.
  """
  axis_name = model.axis_name
  levels = {
    split: {k: s for k, s in selectors.items() if s.split == split}
    for split in base.SPLITS
  }

  def losses_of(train, params, rows, draws, batch, key):
    choices = {slot: draw.choice for slot, draw in draws.items()}
    out = steps.apply_model(
      model,
      params,
      rows,
      train.batch_stats,
      batch,
      key,
      _collection(choices),
    )
    losses = optax.sigmoid_binary_cross_entropy(out.logits, batch.labels)
    return losses, out.batch_stats

  def update_level(level, state, step, grads, draws, losses, batch):
    """New arch, memories and optimiser states of a level's selectors."""
    arch, memory = dict(state.arch), dict(state.memory)
    opt, params = dict(state.arch_optimizer), state.train.params
    if axis_name is not None:
      # What is remembered of a batch must not differ between replicas.
      gather = functools.partial(
        lax.all_gather, axis_name=axis_name, tiled=True
      )
      losses, batch = jax.tree.map(gather, (losses, batch))
    for slot, selector in level.items():
      updates, new_opt = selector.tx.update(grads[slot], opt[slot], arch[slot])
      new_arch = optax.apply_updates(arch[slot], updates)
      new_memory, new_params = selector.observe(
        memory[slot], params, draws[slot], losses, batch
      )
      due = (step >= selector.schedule.warmup) & (
        (step - selector.schedule.warmup) % selector.schedule.period == 0
      )
      keep = lambda new, old, due=due: jax.tree.map(
        lambda a, b: jnp.where(due, a, b), new, old
      )
      arch[slot] = keep(new_arch, arch[slot])
      opt[slot] = keep(new_opt, opt[slot])
      memory[slot] = keep(new_memory, memory[slot])
      params = keep(new_params, params)
    return state.replace(
      arch=arch,
      memory=memory,
      arch_optimizer=opt,
      train=state.train.replace(params=params),
    )

  def valid_phase(state, batch, key):
    train = state.train
    weights = steps.example_weights(batch, axis_name)
    flat_ids = embeddings.flatten_ids(model.architecture, batch)
    rows = embeddings.lookup(train.tables, flat_ids, model.architecture)
    # Dropout takes other bits than in the train phase of the same step.
    key = jax.random.fold_in(key, _ARCH_STREAM)
    draw_key = jax.random.fold_in(key, _DRAW_STREAM)

    def objective(level_arch):
      arch = {**state.arch, **level_arch}
      draws = sample_all(
        selectors, arch, state.memory, batch, 'arch', train.step, draw_key
      )
      # Batch statistics as in training, but no running average moves.
      losses, _ = losses_of(train, train.params, rows, draws, batch, key)
      level_draws = {slot: draws[slot] for slot in levels['valid']}
      value = jnp.sum(weights * surrogate(losses, level_draws))
      return value, (draws, losses)

    level_arch = {slot: state.arch[slot] for slot in levels['valid']}
    grads, (draws, losses) = jax.grad(objective, has_aux=True)(level_arch)
    grads = blocks.psum(grads, axis_name)
    loss = blocks.psum(jnp.sum(weights * losses), axis_name)
    state = update_level(
      levels['valid'], state, train.step, grads, draws, losses, batch
    )
    return state, loss

  def step(state, batches):
    train_batch, valid_batch = batches
    key = jax.random.fold_in(state.train.key, state.train.step)
    metrics = {}
    if levels['valid']:
      state, metrics['valid_batch_loss'] = valid_phase(state, valid_batch, key)
    train = state.train
    weights = steps.example_weights(train_batch, axis_name)
    flat_ids = embeddings.flatten_ids(model.architecture, train_batch)
    rows = embeddings.lookup(train.tables, flat_ids, model.architecture)
    draw_key = jax.random.fold_in(key, _DRAW_STREAM)

    def objective(params, rows, level_arch):
      arch = {**state.arch, **level_arch}
      draws = sample_all(
        selectors,
        arch,
        state.memory,
        train_batch,
        'weights',
        train.step,
        draw_key,
      )
      losses, stats = losses_of(train, params, rows, draws, train_batch, key)
      level_draws = {slot: draws[slot] for slot in levels['train']}
      value = jnp.sum(weights * surrogate(losses, level_draws))
      return value, (draws, losses, stats)

    level_arch = {slot: state.arch[slot] for slot in levels['train']}
    grads, (draws, losses, stats) = jax.grad(
      objective, argnums=(0, 1, 2), has_aux=True
    )(train.params, rows, level_arch)
    dense_grads, row_grads, arch_grads = grads
    new_train, norm = steps.apply_gradients(
      train, optimizer, dense_grads, flat_ids, row_grads, stats, axis_name
    )
    state = state.replace(train=new_train)
    if levels['train']:
      arch_grads = blocks.psum(arch_grads, axis_name)
      state = update_level(
        levels['train'],
        state,
        train.step,
        arch_grads,
        draws,
        losses,
        train_batch,
      )
    metrics['loss'] = blocks.psum(jnp.sum(weights * losses), axis_name)
    metrics['grad_norm'] = norm
    return state, metrics

  return step


def current_choices(
  state: SearchState, selectors: Mapping[str, base.Selector]
) -> dict[str, Any]:
  """The 'arch' collection as the search stands, for an evaluation.

  Draws take a fixed key: an evaluation of the same state gives the same value.
  """
  draws = sample_all(
    selectors,
    state.arch,
    state.memory,
    None,
    'arch',
    state.train.step,
    jax.random.fold_in(state.train.key, 0),
  )
  return _collection({slot: draw.choice for slot, draw in draws.items()})


def recorded(
  state: SearchState, selectors: Mapping[str, base.Selector]
) -> dict[str, Any]:
  """What the selectors show of themselves, as plain values."""
  arch, memory = jax.device_get((state.arch, state.memory))
  values: dict[str, Any] = {}
  for slot in sorted(selectors):
    values.update(selectors[slot].record(arch[slot], memory[slot]))
  return values


def derive(
  state: SearchState,
  selectors: Mapping[str, base.Selector],
  architecture: arch_lib.Architecture,
) -> arch_lib.Architecture:
  """Settles every slot; the architecture comes back closed."""
  arch, memory = jax.device_get((state.arch, state.memory))
  for slot in sorted(selectors):
    architecture = selectors[slot].derive(
      arch[slot], memory[slot], state.train.params, architecture
    )
  if architecture.is_open:
    raise errors.ConfigError(
      'Choices are left open: give a selector for every open slot.'
    )
  return architecture
