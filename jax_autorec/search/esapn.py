"""ESAPN: rows that grow while a stream goes on, by a policy per entity.

Liu et al., SIGIR 2020 (arXiv:2004.08371), and its published code. Every id
starts at the smallest width. A policy sees how often the id came and its
present width, and lets the width stay or grow by one step; a grown row starts
as the smaller one, mapped through the chain of `nn.field_choices.GrowingRows`,
so that no prediction changes. Widths never shrink.

A policy is trained by REINFORCE on rewards R = (what the id's loss was) -
(its loss under the sampled action), of the batch that has just arrived.

What is different here, and why:

- As published, the loss of the reward is taken right after rows have grown. But
  growing changes no prediction, so that loss does not depend on the action and
  the expected gradient of the policy is exactly zero (the published code gets
  differences from its normalisation, which sees all sizes of all rows, trained
  or not). `reward='grown'` is that. The default, 'hindsight', asks about the
  growth that has been: for an id that has grown to size k, 'grow' at size k - 1
  has the loss of the row as it is now, and 'stay' that of the nearest row that
  size k - 1 can make. The batch has not been learnt from, so what a wider row
  has learnt beyond the narrower one counts for it if it holds on new data, and
  against it if it was noise.
- Hindsight favours growth: 'stay' is judged by a wide row made narrow, not by
  one that was trained narrow and could have put more into its entries. A price
  makes up for it; without one, all that is well known grows.
- Hindsight needs ids that have grown, so actions are drawn from the policy,
  which starts with a small chance of growing; the published code takes the most
  likely action. A policy that has learnt is nearly deterministic either way.
- The action is one per id and batch. The published code draws one for each
  occurrence, writes the last and counts one.
- Exploring writes nothing: sampled rows of a reward live in the step alone.
  (There, the copy to restore them from is an alias.)
- An id at the largest width has no action, hence no log probability. A policy
  learns of an id once it has grown, from hindsight, and of nothing before.
- A policy's step comes after the batch is predicted, at the weights that
  predicted it; the published loop takes it before, from the previous batch.
- Policies see frequencies by the quarter octave (`blocks.FrequencyNet`), where
  the published ones have an embedding for each; their layers are normalised
  over the units of a row (LayerNorm), not over a batch.
- Growing can have a price, so that a row which learns next to nothing more
  stays.
- Rates are free. The paper's policies learn by Adam at 1e-4; those of the
  config at 2e-3.
- Losses are means over a batch; normalisation has one call, learns in the
  weights' update alone and predicts with its running moments; each entity has
  a loss history of its own.
"""

import dataclasses
import math
from typing import NamedTuple

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np
import optax

from jax_autorec import choices as choices_lib
from jax_autorec import errors
from jax_autorec import fields as fields_lib
from jax_autorec.nn import blocks, embeddings, row_chains
from jax_autorec.nn import model as model_lib
from jax_autorec.optim import row_sparse
from jax_autorec.optim import tables as tables_lib
from jax_autorec.search import online as online_lib
from jax_autorec.types import Array

REWARDS = ('hindsight', 'grown')
BASELINES = ('mean', 'last', 'both')


def baseline(history: Array, counts: Array, kind: str) -> Array:
  """What a loss is compared with: [B].

  Args:
    history: [B, T], see `online.pushed`.
    counts: [B], occurrences so far; 0 gives 0.
    kind: 'mean' of the last T losses, or the 'last' one.
  """
  length = history.shape[1]
  if kind == 'mean':
    known = jnp.clip(counts, 1, length)
    return history.sum(1) / known
  places = (counts - 1) % length
  return jnp.take_along_axis(history, places[:, None], 1)[:, 0]


def reinforce(
  logits: Array, actions: Array, rewards: Array, weights: Array
) -> Array:
  """Its gradient is minus that of the expected reward: [].

  Args:
    logits: [B, 2].
    actions: integers [B], drawn from their softmax.
    rewards: [B].
    weights: [B], 0 where there was nothing to decide.
  """
  chosen = -jax.nn.log_softmax(logits)
  chosen = jnp.take_along_axis(chosen, actions[:, None], 1)[:, 0]
  return jnp.sum(lax.stop_gradient(rewards * weights) * chosen)


def esapn(
  tx: optax.GradientTransformation,
  *,
  reward: str = 'hindsight',
  base: str = 'both',
  history: int = 5,
  explore: float = 0.01,
  price: float = 0.0,
  hidden: int = 512,
) -> online_lib.Online:
  """Grows the rows of every entity of `choices.GrowingRows`.

  Args:
    tx: optimiser of the policies; the paper's is Adam, 1e-4.
    reward: 'hindsight' or 'grown', see above.
    base: what losses are compared with: the 'mean' of an id's last losses or
      the 'last' one, as published; or 'both': of hindsight, whose two actions
      have known losses, the expectation over them in place of a sample.
    history: T, losses that are kept per id.
    explore: chance of growing before anything is learnt, in (0, 1).
    price: what growing by a size costs, in units of the loss: a row that learns
      next to nothing more stays as it is. 0 is the paper's, and all that the
      reward 'grown' allows.
    hidden: width of the policies' hidden layer.

  Raises:
    ConfigError: for an unknown reward or baseline, values out of range, or a
      price that nothing could outweigh.
  """
  fields_lib.check(reward, REWARDS, 'Reward of ESAPN')
  fields_lib.check(base, BASELINES, 'Baseline of ESAPN')
  if reward == 'grown' and base == 'both':
    raise errors.ConfigError(
      "The reward 'grown' has one loss for both actions, so base='both' would "
      "learn nothing; expected base 'mean' or 'last'."
    )
  if not 0 < explore < 1:
    raise errors.ConfigError(
      f'ESAPN explores with chance {explore}; expected it in (0, 1).'
    )
  for value, what in ((history, 'losses per id'), (hidden, 'hidden units')):
    if not isinstance(value, int) or value < 1:
      raise errors.ConfigError(
        f'ESAPN has {value!r} {what}; expected an integer of at least 1.'
      )
  if not 0 <= price < math.inf:
    raise errors.ConfigError(
      f'Growing by a size costs {price}; expected at least 0.'
    )
  if reward == 'grown' and price:
    raise errors.ConfigError(
      f"The reward 'grown' has one loss for both actions, so that the price "
      f'of {price} alone would drive the policy, towards never growing; '
      'expected price=0.'
    )
  net = blocks.FrequencyNet(2, hidden)

  def init(tools, train, key):
    architecture = tools.model.architecture
    if not isinstance(architecture.choice, choices_lib.GrowingRows):
      raise errors.ConfigError(
        'ESAPN grows rows: open them by '
        "field_spaces.open_rows(..., how='grow')."
      )
    if not isinstance(train.table_optimizer, tables_lib.SparseState):
      raise errors.ConfigError(
        "ESAPN resets the moments of single rows: set table_optimizer to 'adam'"
        ', or another that is row-sparse.'
      )
    if len(train.tables) != 1:
      raise errors.ConfigError(
        f'ESAPN grows the rows of one table, and there are {list(train.tables)}'
        ': build the model without a first order, as spaces.rater does.'
      )
    own = {}
    for plan in architecture.fields:
      key, net_key = jax.random.split(key)
      inputs = jnp.zeros((1, len(architecture.choice.dims)))
      params = net.init(net_key, jnp.zeros((1,), jnp.int32), inputs)
      odds = jnp.log(jnp.array([1 - explore, explore], jnp.float32))
      params['params']['output']['bias'] = odds
      own[plan.name] = {
        'size': jnp.zeros((plan.vocab_size,), jnp.uint8),
        'count': jnp.zeros((plan.vocab_size,), jnp.int32),
        'losses': jnp.zeros((plan.vocab_size, history), jnp.float32),
        'policy': params,
        'optimizer': jax.jit(tx.init)(params),
      }
    return own

  def sizes_of(own, tools, ids):
    sizes = [
      online_lib.read(own[name]['size'], column)
      for name, column in online_lib.columns(tools, ids)
    ]
    return jnp.stack(sizes, 1).astype(jnp.int32)

  def logits_of(params, ids, counts, sizes, num_sizes):
    counts = online_lib.read(counts, ids)
    return net.apply(params, counts, jax.nn.one_hot(sizes, num_sizes))

  def standing(own, tools, batch):
    ids = online_lib.entity_ids(tools, batch)
    return {'size': sizes_of(own, tools, ids)}

  def drawn(own, tools, ids, sizes, key):
    """Whether rows grow, bool [B, F]: the same for equal ids."""
    num_sizes = len(tools.model.architecture.choice.dims)
    grows = []
    for place, (name, column) in enumerate(online_lib.columns(tools, ids)):
      one, size = own[name], sizes[:, place]
      logits = logits_of(one['policy'], column, one['count'], size, num_sizes)
      chance = jax.nn.softmax(logits)[:, 1]
      own_key = jax.random.fold_in(key, place)
      noise = jax.vmap(
        lambda i, key=own_key: jax.random.uniform(jax.random.fold_in(key, i))
      )(column)
      grows.append((noise < chance) & (column >= 0) & (size < num_sizes - 1))
    return jnp.stack(grows, 1)

  def choose(own, tools, train, batch, key):
    ids = online_lib.entity_ids(tools, batch)
    sizes = sizes_of(own, tools, ids)
    grows = drawn(own, tools, ids, sizes, key)
    train = _grow_rows(tools, train, batch, sizes, grows)
    sizes, own = sizes + grows, dict(own)
    for place, (name, column) in enumerate(online_lib.columns(tools, ids)):
      size = online_lib.written(own[name]['size'], column, sizes[:, place])
      own[name] = own[name] | {'size': size}
    return own, train, {'size': sizes}

  def hindsight(own, tools, train, batch, losses):
    """What the policies see of rows as they are and one size less."""
    ids = online_lib.entity_ids(tools, batch)
    sizes = sizes_of(own, tools, ids)
    dims = tools.model.architecture.choice.dims
    chain = train.params[model_lib.FIELDS]
    _, rows = tools.look_up(train, batch)
    ((name, values),) = rows.items()
    vectors = row_chains.widen(chain, dims, values, sizes)
    narrowed = row_chains.narrowed(chain, dims, vectors, sizes)
    choice = {'size': jnp.full_like(sizes, len(dims) - 1)}
    for place, (_, column) in enumerate(online_lib.columns(tools, ids)):
      is_own = (np.arange(ids.shape[1]) == place)[None, :, None]
      given = jnp.where(is_own, narrowed, vectors)
      stayed = tools.losses(train, {name: given}, choice, batch)
      size = sizes[:, place]
      yield _Seen(column, size - 1, stayed, losses + price, size > 0, None)

  def grown(own, tools, train, batch, key):
    """The same as published: rows grow, and the loss is what it was."""
    ids = online_lib.entity_ids(tools, batch)
    sizes = sizes_of(own, tools, ids)
    dims = tools.model.architecture.choice.dims
    grows = drawn(own, tools, ids, sizes, key)
    chain = train.params[model_lib.FIELDS]
    _, rows = tools.look_up(train, batch)
    ((name, values),) = rows.items()
    rows = {name: row_chains.grow(chain, dims, values, sizes, grows)}
    losses = tools.losses(train, rows, {'size': sizes + grows}, batch)
    for place, (_, column) in enumerate(online_lib.columns(tools, ids)):
      size, own_grows = sizes[:, place], grows[:, place]
      is_free = size < len(dims) - 1
      yield _Seen(column, size, losses, losses + price, is_free, own_grows)

  def policy_loss(params, one, seen, weights, num_sizes, key):
    """Its gradient is that of the expected loss under the policy's actions."""
    logits = logits_of(params, seen.ids, one['count'], seen.sizes, num_sizes)
    chances = jax.nn.softmax(logits)
    if base == 'both':
      expected = chances[:, 0] * seen.stayed + chances[:, 1] * seen.grew
      return jnp.sum(weights * expected)
    grows = seen.grows
    if grows is None:
      grows = jax.random.uniform(key, weights.shape) < chances[:, 1]
    past = online_lib.read(one['losses'], seen.ids)
    count = online_lib.read(one['count'], seen.ids)
    if seen.grows is None:
      # Of an id's first row there is no earlier loss to compare with.
      weights = jnp.where(count > 0, weights, 0)
    before = baseline(past, count, base)
    rewards = before - jnp.where(grows, seen.grew, seen.stayed)
    return reinforce(logits, grows.astype(jnp.int32), rewards, weights)

  def adapt(own, tools, train, previous, batch, losses, key):
    if reward == 'hindsight':
      every = hindsight(own, tools, train, batch, losses)
    else:
      batch = previous
      every = grown(own, tools, train, batch, key)
    num_sizes = len(tools.model.architecture.choice.dims)
    result = {}
    for place, (plan, seen) in enumerate(
      zip(tools.model.architecture.fields, every)
    ):
      one = own[plan.name]
      # A mean over all rows: what few rows tell weighs as little.
      weights = batch.mask * batch.weights * seen.is_free / len(batch.mask)
      own_key = jax.random.fold_in(key, place)
      grads = jax.grad(policy_loss)(
        one['policy'], one, seen, weights, num_sizes, own_key
      )
      updates, optimizer = tx.update(grads, one['optimizer'], one['policy'])
      params = optax.apply_updates(one['policy'], updates)
      result[plan.name] = one | {'policy': params, 'optimizer': optimizer}
    return result

  def remember(own, tools, batch, choice, losses):
    del choice
    ids, own = online_lib.entity_ids(tools, batch), dict(own)
    for name, column in online_lib.columns(tools, ids):
      one = own[name]
      past, count = online_lib.pushed(
        one['losses'], one['count'], column, losses
      )
      own[name] = one | {'losses': past, 'count': count}
    return own

  def record(own):
    sizes = {
      name: np.bincount(np.asarray(one['size'])).tolist()
      for name, one in own.items()
    }
    return {'sizes': sizes}

  about = {
    'method': 'esapn',
    'reward': reward,
    'base': base,
    'history': history,
    'explore': explore,
    'price': price,
    'hidden': hidden,
  }
  return online_lib.Online(
    init, choose, adapt, remember, standing, _derive, record, about
  )


class _Seen(NamedTuple):
  """What a policy learns from, of the B rows of a batch and one entity.

  Attributes:
    ids: [B].
    sizes: [B], in which the action would be taken.
    stayed: [B], losses where it is to stay.
    grew: [B], losses where it is to grow.
    is_free: bool [B], whether there is any action.
    grows: bool [B], the action that was drawn, or None to draw one.
  """

  ids: Array
  sizes: Array
  stayed: Array
  grew: Array
  is_free: Array
  grows: Array | None


def _grow_rows(tools, train, batch, sizes, grows):
  """The state with rows at their next size, and their moments anew."""
  dims = tools.model.architecture.choice.dims
  flat_ids, rows = tools.look_up(train, batch)
  ((name, values),) = rows.items()
  ((space, places),) = flat_ids.items()
  chain = train.params[model_lib.FIELDS]
  grown = row_chains.grow(chain, dims, values, sizes, grows)
  table = train.tables[name]
  places = jnp.where(grows, places, len(table)).reshape(-1)
  table = table.at[places].set(grown.reshape(-1, table.shape[1]), mode='drop')
  state = train.table_optimizer
  fresh = tools.optimizer.tables.init({name: jnp.zeros((1, dims[-1]))})
  moments = row_sparse.reset_rows(
    state.tables[name], fresh.tables[name], places
  )
  return train.replace(
    tables={name: table},
    table_optimizer=state._replace(tables={name: moments}),
  )


def _derive(own, tools, train):
  """Rows at their sizes alone; the chain is one affine map per size."""
  architecture = tools.model.architecture
  dims = architecture.choice.dims
  (name,) = train.tables
  table, params = jax.device_get((train.tables[name], train.params))
  chains = params.pop(model_lib.FIELDS)
  plans, arrays, first = [], {}, 0
  rows = {k: [] for k in range(len(dims))}
  maps = {k: [] for k in range(len(dims))}
  for place, plan in enumerate(architecture.fields):
    sizes = np.asarray(own[plan.name]['size'])
    order = np.argsort(sizes, kind='stable')
    remap = np.empty(len(order), np.int32)
    remap[order] = np.arange(len(order), dtype=np.int32)
    arrays[f'{plan.name}.remap'] = remap
    ends = np.searchsorted(sizes[order], np.arange(len(dims)), side='right')
    affine = row_chains.chain(chains, dims, place)
    pieces, start = [], 0
    for k, end in enumerate(ends.tolist()):
      if end > start:
        pieces.append(fields_lib.Piece(start, end, dims[k]))
        rows[k].append(table[first + order[start:end], : dims[k]])
        maps[k].append(affine[k])
      start = end
    first += plan.vocab_size
    plans.append(dataclasses.replace(plan, pieces=tuple(pieces), remap=True))
  closed = dataclasses.replace(
    architecture,
    fields=tuple(plans),
    choice=None,
    width=dims[-1],
    projection='affine',
    arrays=arrays,
  )
  tables, projections = {}, {}
  for k, dim in enumerate(dims):
    if not rows[k]:
      continue
    group = f'main_dim_{dim}'
    tables[group] = jnp.asarray(np.concatenate(rows[k]))
    if dim < dims[-1]:
      kernels, offsets = zip(*maps[k])
      suffix = embeddings.PROJECTION
      projections[f'{group}{suffix}'] = _stacked(kernels)
      projections[f'{group}_offset{suffix}'] = _stacked(offsets)
  params = jax.tree.map(jnp.asarray, params)
  if projections:
    params[model_lib.EMBEDDINGS] = projections
  return online_lib.Derived(closed, params, tables, train.batch_stats)


def _stacked(arrays):
  return jnp.asarray(np.stack(arrays), jnp.float32)
