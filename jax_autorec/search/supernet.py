"""One step that trains weights and the choices of any selectors together."""

from collections.abc import Callable, Iterable, Mapping
import functools
from typing import Any, NamedTuple

import flax.struct
import jax
from jax import lax
import jax.numpy as jnp
import optax

from jax_autorec import architecture as arch_lib
from jax_autorec import errors
from jax_autorec import rows as rows_lib
from jax_autorec.nn import blocks, lookups
from jax_autorec.nn import model as model_lib
from jax_autorec.search import base, unroll
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
  table_std: float = lookups.INIT_STD,
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
    _check(slot, selector)
    arch[slot], memory[slot] = selector.init(
      _at(open_choices, slot), slot_key, train
    )
    opt[slot] = selector.tx.init(arch[slot])
  for path, _ in jax.tree_util.tree_flatten_with_path(open_choices)[0]:
    path = jax.tree_util.keystr(path, simple=True, separator='/')
    if not any(f'{path}/'.startswith(f'{slot}/') for slot in selectors):
      raise errors.ConfigError(
        f'No selector decides the open choice {path!r}; there are selectors '
        f'for: {", ".join(selectors) or "none"}.'
      )
  return SearchState(train, arch, memory, opt)


def initial_tables(
  architecture: arch_lib.Architecture,
  selectors: Mapping[str, base.Selector],
  key: Array,
  table_std: float,
) -> dict[str, Array]:
  """The tables that `init` starts from, for the same key, drawn anew."""
  train_key, *_ = jax.random.split(key, 1 + len(selectors))
  return state_lib.initial_tables(architecture, train_key, table_std)


def measured(
  state: SearchState,
  selectors: Mapping[str, base.Selector],
  architecture: arch_lib.Architecture,
) -> tuple[dict[str, Any], bool]:
  """What selectors find of whole tables; whether the search may end."""
  arch, memory = jax.device_get((state.arch, state.memory))
  values: dict[str, Any] = {}
  ends = []
  for slot in sorted(selectors):
    measure = selectors[slot].measure
    if measure is not None:
      context = base.Context(architecture, state.train)
      own, may_end = measure(arch[slot], memory[slot], context)
      values.update(own)
      ends.append(may_end)
  return values, bool(ends) and all(ends)


def _check(slot: str, selector: base.Selector) -> None:
  if selector.split not in base.SPLITS:
    raise errors.ConfigError(
      f'Selector of {slot!r} has split {selector.split!r}; expected one of '
      f'{", ".join(base.SPLITS)}.'
    )
  unfit = (
    selector.inner is not None
    or selector.samples > 1
    or selector.reward is not None
    or selector.aux_loss is not None
  )
  if selector.split == 'train' and unfit:
    raise errors.ConfigError(
      f'Selector of {slot!r} is single level and has an inner_rate, an '
      'implicit gradient, samples, a reward or an aux_loss, which need '
      "split='valid'."
    )
  if selector.split == 'alternate' and selector.inner is not None:
    raise errors.ConfigError(
      f'Selector of {slot!r} alternates on train batches and has an '
      "inner_rate or an implicit gradient, which needs split='valid'."
    )
  if selector.implicit is not None:
    selector.implicit.check()
    if selector.inner_rate is not None:
      raise errors.ConfigError(
        f'Selector of {slot!r} has an inner_rate of {selector.inner_rate} and '
        'an implicit gradient; expected one of them.'
      )


def _inner(
  selectors: Mapping[str, base.Selector],
) -> float | unroll.Implicit | None:
  """The one answer of the weights that gradients are taken through."""
  answers = {s.inner for s in selectors.values()} - {None}
  if not answers:
    return None
  # All are drawn once, in the one pass that is differentiated twice.
  many = [slot for slot, s in selectors.items() if s.samples > 1]
  if len(answers) > 1 or many:
    raise errors.ConfigError(
      f'Selectors of second order have inner rates {sorted(answers, key=str)}, '
      f'and {many} have more than one sample; where one is of second order, '
      'expected one rate, and one sample of all.'
    )
  return answers.pop()


def sample_all(selectors, arch, memory, batch, phase, step, key):
  """Slot -> `Draw`, each from a key of its own."""
  return {
    slot: selectors[slot].sample(
      arch[slot], memory[slot], batch, phase, step, jax.random.fold_in(key, i)
    )
    for i, slot in enumerate(sorted(selectors))
  }


def surrogate(
  losses: Array,
  draws: Mapping[str, base.Draw],
  rewards: Mapping[str, Array] | None = None,
) -> Array:
  """[B]: its gradient is that of the expected loss plus cost.

  Differentiable draws take the plain gradient, policies the score function's
  (REINFORCE with a baseline), and both may act in one model. The price of
  another slot does not depend on a policy's draw, so it has no part in its
  score, which it would only make noisier.

  Args:
    losses: [B].
    draws: slot -> draw.
    rewards: slot -> [], what the policy of that slot is to raise in place of
      lowering the losses.
  """
  value = losses + sum(draw.cost for draw in draws.values())
  score = 0.0
  for slot, draw in draws.items():
    own = draw.cost + losses
    if rewards and slot in rewards:
      own = draw.cost - rewards[slot]
    score += lax.stop_gradient(own - draw.baseline) * draw.log_prob
  return value + score


class _Forward(NamedTuple):
  """What a step has seen of the train batch, for its updates."""

  flat_ids: dict[str, Array]
  rows: dict[str, Array]
  loss: Array
  loss_at: Callable[..., Array]
  dense_grads: PyTree
  row_grads: dict[str, Array]
  arch_grads: dict[str, PyTree]
  seen: dict[str, base.Seen]
  batch_stats: PyTree
  row_masks: dict[str, Array]


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
    (state, (train batch, valid batch or None)) -> (state, metrics). The
    bi-level selectors that are due are updated on the validation batch (those
    that alternate on the train batch), at weights that stay as they are;
    weights and single-level selectors together on the train batch. Both
    updates start from the same weights. Where no bi-level selector is of second
    order theirs comes first, so the weights follow the choices after it; else
    the weights' gradient, which the second order needs as well, is taken once,
    at the choices before it.
  """
  axis_name = model.axis_name
  levels = {
    'train': {k: s for k, s in selectors.items() if s.split == 'train'},
    'valid': {k: s for k, s in selectors.items() if s.split != 'train'},
  }
  apart = {s.split for s in levels['valid'].values()}
  if len(apart) > 1:
    raise errors.ConfigError(
      'Some selectors follow validation batches and some alternate on train '
      'batches; expected all alike.'
    )
  unrolled = {k: s for k, s in levels['valid'].items() if s.inner is not None}
  inner = _inner(levels['valid'])
  always = all(s.schedule == base.EVERY_STEP for s in levels['valid'].values())
  gather = functools.partial(lax.all_gather, axis_name=axis_name, tiled=True)

  def is_due(schedule, step):
    since = step - schedule.warmup
    return (since >= 0) & (since % schedule.period == 0)

  def forward(state, params, rows, draws, batch, key):
    choices = {slot: draw.choice for slot, draw in draws.items()}
    out = steps.apply_model(
      model, state.train, params, rows, batch, key, _collection(choices)
    )
    losses = optax.sigmoid_binary_cross_entropy(out.logits, batch.labels)
    return out, losses

  def global_view(logits, losses, batch):
    """Of all replicas: what is remembered must not differ between them."""
    if axis_name is None:
      return logits, losses, batch
    return jax.tree.map(gather, (logits, losses, batch))

  def update_level(level, state, step, grads, seen):
    """New arch, memories and optimiser states of a level's selectors."""
    arch, memory = dict(state.arch), dict(state.memory)
    opt, train = dict(state.arch_optimizer), state.train
    for slot, selector in level.items():
      updates, new_opt = selector.tx.update(grads[slot], opt[slot], arch[slot])
      new_arch = optax.apply_updates(arch[slot], updates)
      new_memory, new_train = selector.observe(memory[slot], train, seen[slot])
      new = new_arch, new_opt, new_memory
      if selector.schedule != base.EVERY_STEP:
        if new_train is not train:
          raise errors.ConfigError(
            f'The selector of {slot!r} changes weights and is not updated in '
            'every step; expected the schedule EVERY_STEP.'
          )
        due = is_due(selector.schedule, step)
        old = arch[slot], opt[slot], memory[slot]
        new = jax.tree.map(functools.partial(jnp.where, due), new, old)
      arch[slot], opt[slot], memory[slot] = new
      train = new_train
    return state.replace(
      arch=arch, memory=memory, arch_optimizer=opt, train=train
    )

  def one_sample(state, batch, weights, key, draw_key, params, rows):
    """Gradients for one draw of the bi-level selectors, and what was seen."""
    train = state.train
    draw_key = jax.random.fold_in(draw_key, _DRAW_STREAM)

    def objective(level_arch, params, rows):
      arch = {**state.arch, **level_arch}
      draws = sample_all(
        selectors, arch, state.memory, batch, 'arch', train.step, draw_key
      )
      # Batch statistics as in training, but no running average moves.
      out, losses = forward(state, params, rows, draws, batch, key)
      view = global_view(out.logits, losses, batch)
      rewards = {
        slot: selector.reward(view[0], view[2])
        for slot, selector in levels['valid'].items()
        if selector.reward is not None
      }
      level_draws = {slot: draws[slot] for slot in levels['valid']}
      value = jnp.sum(weights * surrogate(losses, level_draws, rewards))
      seen = {}
      for slot, selector in levels['valid'].items():
        mean = -blocks.psum(jnp.sum(weights * losses), axis_name)
        reward = rewards.get(slot, mean)
        one = base.Seen(draws[slot], view[1], reward, view[2])
        seen[slot] = lax.stop_gradient(one)
        if selector.aux_loss is not None:
          # Every replica has the whole of it; gradients are summed below.
          aux = selector.aux_loss(arch[slot], state.memory[slot], seen[slot])
          value += aux / blocks.psum(1, axis_name)
      return value, seen

    level_arch = {slot: state.arch[slot] for slot in levels['valid']}
    argnums = (0, 1, 2) if unrolled else (0,)
    grads, seen = jax.grad(objective, argnums, has_aux=True)(
      level_arch, params, rows
    )
    return grads, seen

  def valid_phase(state, batch, key, passed=None, joined=None):
    """Updates the bi-level selectors; `passed` where some are unrolled."""
    weights = steps.example_weights(batch, axis_name)
    train = state.train
    _, rows = steps.look_up(model, train.tables, train.constants, batch)
    # Dropout takes other bits than in the train phase of the same step.
    key = jax.random.fold_in(key, _ARCH_STREAM)

    def sample(index):
      # One dropout mask for all draws: rewards then differ by choices alone.
      (grads, *_), seen = one_sample(
        state,
        batch,
        weights,
        jax.random.fold_in(key, 0),
        jax.random.fold_in(key, index),
        train.params,
        rows,
      )
      return grads, seen

    if unrolled:
      grads, mixed, seen = unroll.gradient(
        model,
        inner,
        joined,
        train,
        passed.rows,
        passed.dense_grads,
        passed.loss_at,
        rows,
        functools.partial(one_sample, state, batch, weights, key, key),
        {slot: state.arch[slot] for slot in unrolled},
      )
      for slot, product in mixed.items():
        grads[slot] = jax.tree.map(jnp.subtract, grads[slot], product)
      seen = jax.tree.map(lambda x: jnp.asarray(x)[None], seen)
    else:
      samples = max(s.samples for s in levels['valid'].values())
      grads, seen = lax.map(sample, jnp.arange(samples))
      grads = jax.tree.map(lambda g: g.mean(0), grads)
    grads = blocks.psum(grads, axis_name)
    return update_level(levels['valid'], state, train.step, grads, seen)

  def maybe_valid_phase(state, batch, key, passed=None, joined=None):
    if always:
      return valid_phase(state, batch, key, passed, joined)
    dues = [
      is_due(s.schedule, state.train.step) for s in levels['valid'].values()
    ]

    # Only what the phase writes goes through the branches: a table would be
    # copied.
    def update(written):
      new = valid_phase(state.replace(**written), batch, key, passed, joined)
      if new.train is not state.train:
        raise errors.ConfigError(
          'A selector changes weights beside one that is not updated in every '
          'step; expected the schedule EVERY_STEP of all.'
        )
      return {name: getattr(new, name) for name in written}

    names = ('arch', 'memory', 'arch_optimizer')
    written = {name: getattr(state, name) for name in names}
    due = functools.reduce(jnp.logical_or, dues)
    return state.replace(**lax.cond(due, update, lambda old: old, written))

  def train_forward(state, batch, key):
    """One forward and backward pass over the train batch."""
    train = state.train
    weights = steps.example_weights(batch, axis_name)
    flat_ids, rows = steps.look_up(model, train.tables, train.constants, batch)
    draw_key = jax.random.fold_in(key, _DRAW_STREAM)

    def objective(params, rows, level_arch):
      arch = {**state.arch, **level_arch}
      draws = sample_all(
        selectors, arch, state.memory, batch, 'weights', train.step, draw_key
      )
      out, losses = forward(state, params, rows, draws, batch, key)
      level_draws = {slot: draws[slot] for slot in levels['train']}
      value = jnp.sum(weights * surrogate(losses, level_draws)) + out.added
      return value, (draws, out, losses)

    level_arch = {slot: state.arch[slot] for slot in levels['train']}
    grads, (draws, out, losses) = jax.grad(
      objective, argnums=(0, 1, 2), has_aux=True
    )(train.params, rows, level_arch)
    loss = blocks.psum(jnp.sum(weights * losses), axis_name)
    view = global_view(out.logits, losses, batch)
    seen = {
      slot: jax.tree.map(
        lambda x: jnp.asarray(x)[None],
        base.Seen(draws[slot], view[1], -loss, view[2]),
      )
      for slot in levels['train']
    }

    def loss_at(params, rows, level_arch):
      """The loss alone, of any bi-level choices, for the second order."""
      arch = {**state.arch, **level_arch}
      draws = sample_all(
        selectors, arch, state.memory, batch, 'weights', train.step, draw_key
      )
      out, losses = forward(state, params, rows, draws, batch, key)
      return jnp.sum(weights * losses) + out.added

    return _Forward(
      flat_ids,
      rows,
      loss,
      loss_at,
      *grads,
      seen,
      out.batch_stats,
      out.row_masks,
    )

  def step(state, batches):
    train_batch, valid_batch = batches
    if apart == {'alternate'}:
      valid_batch = train_batch
    key = jax.random.fold_in(state.train.key, state.train.step)
    if unrolled:
      passed = train_forward(state, train_batch, key)
      train, joined = unroll.join(
        model, state.train, passed.flat_ids, passed.row_grads, valid_batch
      )
      state = state.replace(train=train)
      state = maybe_valid_phase(state, valid_batch, key, passed, joined)
      # What the phase reads of tables and slot maps it reads before they are
      # replaced: XLA would copy them whole.
      known = jax.tree.leaves((state.arch, joined.train, joined.valid))
      flat_ids = {
        space: rows_lib.after(ids, *known)
        for space, ids in passed.flat_ids.items()
      }
      passed = passed._replace(flat_ids=flat_ids)
    else:
      if levels['valid']:
        state = maybe_valid_phase(state, valid_batch, key)
      passed = train_forward(state, train_batch, key)
    new_train, norm = steps.apply_gradients(
      state.train,
      optimizer,
      passed.dense_grads,
      passed.flat_ids,
      passed.row_grads,
      passed.batch_stats,
      axis_name,
      passed.row_masks,
    )
    step_done = state.train.step
    state = state.replace(train=new_train)
    if levels['train']:
      grads = blocks.psum(passed.arch_grads, axis_name)
      state = update_level(
        levels['train'], state, step_done, grads, passed.seen
      )
    # Choices that are not finite may show in no loss before the search ends.
    size = optax.tree.norm(state.arch)
    return state, {'loss': passed.loss, 'grad_norm': norm, 'arch_norm': size}

  return step


def make_predict(
  model: model_lib.CTRModel, selectors: Mapping[str, base.Selector]
) -> Callable[[SearchState, Batch], Array]:
  """(state, batch) -> logits [B] of the choices as the search stands.

  The last argument, if given, replaces choices: slot -> choice.
  """
  predict = steps.make_predict(model)

  def apply(state, batch, given=None):
    train = state.train
    # Draws take a fixed key: the same state gives the same value.
    key = jax.random.fold_in(train.key, 0)
    draws = sample_all(
      selectors, state.arch, state.memory, batch, 'eval', train.step, key
    )
    choices = {slot: draw.choice for slot, draw in draws.items()}
    collections = _collection(choices | (given or {}))
    collections |= model_lib.constants_collection(train.constants)
    return predict(
      train.params, train.tables, train.batch_stats, batch, collections
    )

  return apply


def make_gradient(
  model: model_lib.CTRModel, selectors: Mapping[str, base.Selector]
) -> Callable[[Mapping[str, PyTree], SearchState, Batch], dict[str, PyTree]]:
  """(slot -> choice, state, batch) -> gradient of the batch's mean loss.

  With respect to the choices given, which replace those that stand; the model
  is in evaluation mode.
  """
  apply = make_predict(model, selectors)

  def loss(choices, state, batch):
    logits = apply(state, batch, choices)
    losses = optax.sigmoid_binary_cross_entropy(logits, batch.labels)
    return jnp.sum(steps.example_weights(batch, None) * losses)

  return jax.grad(loss)


def recorded(
  state: SearchState, selectors: Mapping[str, base.Selector]
) -> dict[str, Any]:
  """What the selectors show of themselves, as plain values."""
  arch, memory = jax.device_get((state.arch, state.memory))
  values: dict[str, Any] = {}
  for slot in sorted(selectors):
    own = selectors[slot].record(arch[slot], memory[slot])
    # What several selectors record stands side by side.
    levels = values.get('levels', {}) | own.pop('levels', {})
    values |= {
      f'{key} of {slot}' if key in values else key: value
      for key, value in own.items()
    }
    if levels:
      values['levels'] = levels
  return values


def derive(
  state: SearchState,
  selectors: Mapping[str, base.Selector],
  architecture: arch_lib.Architecture,
  evaluate: Callable[[Mapping[str, PyTree]], dict[str, float]] | None = None,
  gradients: Callable[
    [Mapping[str, PyTree]], Iterable[tuple[dict[str, PyTree], float]]
  ]
  | None = None,
  initial: Callable[[], dict[str, Array]] | None = None,
) -> arch_lib.Architecture:
  """Settles every slot; the architecture comes back closed.

  Args:
    state: at the end of a search.
    selectors: slot -> selector.
    architecture: the supernet's.
    evaluate: slot -> choice, in place of those that stand -> metrics on the
      validation split; for the methods that score choices after a search.
    gradients: the same -> of every batch of the validation split the gradient
      of its mean loss with respect to them.
    initial: () -> the tables that the search started from.
  """
  arch, memory = jax.device_get((state.arch, state.memory))
  for slot in sorted(selectors):
    own, slopes = None, None
    if evaluate is not None:
      own = lambda choice, slot=slot: evaluate({slot: choice})
    if gradients is not None:
      slopes = lambda choice, slot=slot: (
        (grads[slot], weight) for grads, weight in gradients({slot: choice})
      )
    context = base.Context(architecture, state.train, own, slopes, initial)
    architecture = selectors[slot].derive(arch[slot], memory[slot], context)
  if architecture.is_open:
    raise errors.ConfigError(
      'Choices are left open: give a selector for every open slot.'
    )
  return architecture
