"""Two engines that search any slot: a policy gradient, and DARTS.

What is open is described once (`Decisions`): many decisions, each among some
options. There are such for gates, members of groups, widths of fields, of ids
of like frequency and of hidden layers, blocks and columns; none for thresholds
and masks of rows (PEP, OptEmbed), which are numbers, nor for graphs of blocks.
An engine then settles them. REINFORCE (Williams, 1992; Zoph and Le, ICLR 2017)
draws hard choices from independent categorical distributions and follows the
score function's gradient, with a moving mean as its baseline. DARTS (Liu et
al., ICLR 2019) mixes all options by a softmax; the gradient is that of the
first order or, with an `inner_rate`, exactly that of the second
(`search.unroll`; the paper takes a finite difference), or implicit. Both follow
validation batches and take the likeliest options in the end.

Rewards of a draw are minus the loss unless told otherwise. A controller that
reads its earlier decisions (an RNN) is not here: decisions are independent.
"""

from collections.abc import Callable
import dataclasses
import math
from typing import Any, NamedTuple

from absl import logging
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jax_autorec import architecture as arch_lib
from jax_autorec import errors, field_spaces, group_spaces, head_spaces
from jax_autorec import fields as fields_lib
from jax_autorec import interactions as interactions_lib
from jax_autorec.search import base
from jax_autorec.search.unroll import Implicit
from jax_autorec.types import Array, PyTree


class Decisions(NamedTuple):
  """What is to be decided about a slot.

  Trees below have a leaf [..., K] for every [...] decisions among K options.

  Attributes:
    shapes: choice, where the module put it -> tree of shapes.
    mix: tree of weights, which sum to 1 over options -> the choice that modules
      read. Hard choices are weights of 0 and 1.
    derive: (tree of options [...], architecture) -> architecture, closed.
    size: tree of weights -> [], the share of the whole that they keep.
    record: tree of weights -> JSON values, what a report shows of them.
    allowed: tree of bool [..., K], options that there are; None for all.
    is_hard: whether modules can read hard choices alone.
  """

  shapes: Callable[[PyTree], PyTree]
  mix: Callable[[PyTree], PyTree]
  derive: Callable[[PyTree, arch_lib.Architecture], arch_lib.Architecture]
  size: Callable[[PyTree], Array]
  record: Callable[[PyTree], dict[str, Any]] = lambda weights: {}
  allowed: PyTree = None
  is_hard: bool = False


def gates() -> Decisions:
  """Every open product on or off: AutoFIS's space (slot 'interactions').

  A gate that is on has the value that gates of a fresh model have.
  """
  on = interactions_lib.Products.gate_init

  def derive(options, architecture):
    plans = []
    for plan in architecture.interactions:
      if not interactions_lib.has_open_gates(plan):
        plans.append(plan)
        continue
      kept = np.flatnonzero(options[plan.name])
      if len(kept):
        terms = tuple(plan.terms[i] for i in kept)
        plans.append(dataclasses.replace(plan, terms=terms, gates='weights'))
    if not any(isinstance(p, interactions_lib.Products) for p in plans):
      logging.warning(
        'The search switched all products off: what is left is the model '
        'without them. Lower its price, or search fewer steps, to keep some.'
      )
    return dataclasses.replace(architecture, interactions=tuple(plans))

  return Decisions(
    lambda choice: {n: (len(leaf['gate']), 2) for n, leaf in choice.items()},
    lambda weights: {n: {'gate': on * w[:, 1]} for n, w in weights.items()},
    derive,
    _share_on,
  )


def widths(architecture: arch_lib.Architecture) -> Decisions:
  """The width of every field: AutoDim's space (slot 'fields').

  Candidates of shared tables have their first columns in common, so a mixture
  can weigh these more than others and say little of the widths
  (`search.autodim`): hard choices, a low temperature or separate tables do not.

  Args:
    architecture: with an open choice of widths; its numbers are fitted
      (`numeric_spaces.fit`), since shares are of sizes.
  """
  dims = architecture.choice.dims
  _, parts = field_spaces.dim_sizes(architecture)
  parts = np.float32(parts / parts[:, -1].sum())
  return Decisions(
    lambda choice: choice['weights'].shape,
    lambda weights: {'weights': weights},
    lambda options, architecture: field_spaces.with_dims(
      architecture, [dims[option] for option in options]
    ),
    lambda weights: (weights * parts).sum(),
    lambda weights: {'dim_weights': weights.tolist()},
  )


def buckets(architecture: arch_lib.Architecture) -> Decisions:
  """The width of ids of like frequency: AutoEmb's space (slot 'fields').

  Args:
    architecture: with open buckets; what is said of `widths` holds here, but
      that candidates have columns of their own.
  """
  choice = architecture.choice
  counts = [len(own) for own in choice.starts]
  # Rows of every bucket; 0 of those that pad the fields of fewer.
  rows = np.zeros((len(counts), max(counts)), np.float32)
  for own, starts, plan in zip(rows, choice.starts, architecture.categorical):
    own[: len(starts)] = np.diff([*starts, plan.vocab_size])
  entries = rows[..., None] * np.array(choice.dims, np.float32)
  entries /= entries[..., -1].sum()

  def derive(options, architecture):
    dims = [
      [choice.dims[option] for option in own[:count]]
      for own, count in zip(options, counts)
    ]
    return field_spaces.with_buckets(architecture, dims)

  return Decisions(
    lambda choice: choice['weights'].shape,
    lambda weights: {'weights': weights},
    derive,
    lambda weights: (weights * entries).sum(),
  )


def blocks(architecture: arch_lib.Architecture) -> Decisions:
  """The rows and columns of every field: NIS's space (slot 'fields').

  Hard choices alone: a block is there or it is not. Of blocks of mode 'multi'
  each block of columns is decided for itself.

  Args:
    architecture: with open blocks, without `prefix`.
  """
  choice = architecture.choice
  if choice.prefix:
    raise errors.ConfigError(
      'Engines decide every block of columns for itself, and with prefix none '
      'may keep more rows than the one before it: set prefix to False.'
    )
  num_fields, num_columns = len(choice.rows), len(choice.columns)
  most = max(map(len, choice.rows))
  # Blocks of rows that an option keeps of the columns of a decision: [K, T],
  # for each of L decisions with T columns.
  if choice.mode == 'single':
    sizes = [[0] * num_columns] + [
      [s + 1] * t + [0] * (num_columns - t)
      for t in range(1, num_columns + 1)
      for s in range(most)
    ]
    sizes, shape = np.array(sizes), (num_fields, 1)
  else:
    sizes = np.arange(most + 1)[:, None]
    shape = (num_fields, num_columns)
  ends = [[0, *own, *[own[-1]] * (most - len(own))] for own in choice.rows]
  # What a field with fewer blocks of rows does not have is no option.
  lengths = np.array([len(own) for own in choice.rows])
  allowed = sizes.max(1) <= lengths[:, None]
  allowed = np.broadcast_to(allowed[:, None], (*shape, len(sizes)))
  rows = np.array(ends, np.int32)[:, sizes]  # [F, K, T]
  columns = np.arange(num_columns).reshape(shape[1], -1)  # [L, T]
  entries = np.array(
    [
      [
        [
          sum(choice.entries(f, t, int(n)) for t, n in zip(own, option))
          for option in rows[f]
        ]
        for own in columns
      ]
      for f in range(num_fields)
    ],
    np.float32,
  )
  fields = np.arange(num_fields)[:, None]

  def kept(options):
    """Rows of every block of columns, [F, T]."""
    return rows[fields, options].reshape(num_fields, num_columns)

  def mix(weights):
    options = jnp.argmax(weights, -1)
    found = jnp.asarray(rows)[fields, options]
    return {'kept': found.reshape(num_fields, num_columns)}

  def derive(options, architecture):
    found = kept(options)
    if not found.any():
      raise errors.ConfigError(
        'The search left no field any row: lower its price, or search fewer '
        'steps.'
      )
    return field_spaces.with_blocks(architecture, found.tolist())

  return Decisions(
    lambda choice: entries.shape,
    mix,
    derive,
    lambda weights: (weights * entries).sum() / choice.all_entries,
    allowed=allowed,
    is_hard=True,
  )


def columns(architecture: arch_lib.Architecture) -> Decisions:
  """Every column of every field on or off: SSEDS's space (slot 'fields').

  A field is retrained at as many columns as were on.

  Args:
    architecture: with open columns, one group of ids per field.
  """
  choice = architecture.choice
  if choice.num_groups != len(choice.starts):
    raise errors.ConfigError(
      f'{choice.num_groups} groups of ids of {len(choice.starts)} fields; '
      'engines settle the columns of whole fields: open one group of each.'
    )
  rows = np.array([p.vocab_size for p in architecture.categorical], np.float32)
  share = rows[:, None] / (rows.sum() * choice.dim)

  def derive(options, architecture):
    kept = np.asarray(options).sum(1)
    if not kept.any():
      raise errors.ConfigError(
        'The search switched all columns off: lower its price, or search fewer '
        'steps.'
      )
    return field_spaces.with_dims(architecture, kept.tolist())

  return Decisions(
    lambda choice: (*choice['mask'].shape, 2),
    lambda weights: {'mask': weights[..., 1]},
    derive,
    lambda weights: (weights[..., 1] * share).sum(),
  )


def members() -> Decisions:
  """Who belongs to each group: AutoGroup's space (slot 'interactions')."""

  def derive(options, architecture):
    names = np.array([plan.name for plan in architecture.vector_fields])
    return group_spaces.with_groups(
      architecture,
      {
        name: [tuple(names[own > 0].tolist()) for own in chosen.T]
        for name, chosen in options.items()
      },
    )

  return Decisions(
    lambda choice: {
      name: (*leaf['member'].shape, 2) for name, leaf in choice.items()
    },
    lambda weights: {n: {'member': w[..., 1]} for n, w in weights.items()},
    derive,
    _share_on,
  )


def _share_on(weights):
  """Of decisions between off and on, the share that is on."""
  leaves = jax.tree.leaves(weights)
  count = sum(math.prod(w.shape[:-1]) for w in leaves)
  return sum(w[..., 1].sum() for w in leaves) / count


def hidden(architecture: arch_lib.Architecture) -> Decisions:
  """The width of every hidden layer of the MLP (slot 'mlp').

  A mixture of widths leaves its last units a small factor, which larger weights
  make up for: soft choices want a price, or a low temperature. The price is of
  all units, whatever their layer.

  Args:
    architecture: with open widths of hidden layers.
  """
  candidates = architecture.head.candidates
  dims = {
    f'hidden_{i}': np.array(own, np.float32) for i, own in enumerate(candidates)
  }
  total = sum(own[-1] for own in candidates)

  def derive(options, architecture):
    chosen = tuple(int(own[options[name]]) for name, own in dims.items())
    return head_spaces.with_hidden(architecture, chosen)

  def expected(weights):
    return [weights[name] @ own for name, own in dims.items()]

  return Decisions(
    lambda choice: {name: leaf.shape for name, leaf in choice.items()},
    lambda weights: weights,
    derive,
    lambda weights: sum(expected(weights)) / total,
    lambda weights: {
      'levels': {
        'mean width of hidden layers': [float(x) for x in expected(weights)]
      }
    },
  )


_NEVER = -1e9  # A logit; an infinite one would make NaN of 0 times it.


def _fresh(decisions, choice):
  logits = jax.tree.map(
    lambda shape: jnp.zeros(shape, jnp.float32),
    decisions.shapes(choice),
    is_leaf=lambda shape: isinstance(shape, tuple),
  )
  if decisions.allowed is None:
    return logits
  # Their gradient is 0: what is no option stays none.
  return jax.tree.map(
    lambda l, own: jnp.where(own, l, _NEVER), logits, decisions.allowed
  )


def _hard(logits: PyTree, options: PyTree) -> PyTree:
  return jax.tree.map(
    lambda l, o: jax.nn.one_hot(o, l.shape[-1], dtype=l.dtype), logits, options
  )


def likeliest(logits: PyTree) -> PyTree:
  """The option of each decision, int [...]; of equals the first."""
  return jax.tree.map(lambda l: jnp.argmax(l, -1), logits)


def draw(logits: PyTree, key: Array) -> PyTree:
  """Options drawn independently, int [...]."""
  leaves, tree = jax.tree.flatten(logits)
  drawn = [
    jax.random.categorical(jax.random.fold_in(key, i), leaf)
    for i, leaf in enumerate(leaves)
  ]
  return jax.tree.unflatten(tree, drawn)


def log_prob(logits: PyTree, options: PyTree) -> Array:
  """Log probability of all options together, []."""
  parts = jax.tree.map(
    lambda l, hard: (jax.nn.log_softmax(l) * hard).sum(),
    logits,
    _hard(logits, options),
  )
  return sum(jax.tree.leaves(parts))


def entropy(logits: PyTree) -> Array:
  """Of all decisions together, in nats, []."""
  parts = jax.tree.map(
    lambda l: -(jax.nn.softmax(l) * jax.nn.log_softmax(l)).sum(), logits
  )
  return sum(jax.tree.leaves(parts))


def _check(price):
  errors.expect(0 <= price < math.inf, 'price', price, 'at least 0')


def _settle(decisions, temperature=1.0):
  def derive(arch, memory, context):
    del memory
    options = jax.tree.map(np.asarray, likeliest(arch))
    return decisions.derive(options, context.architecture)

  def record(arch, memory):
    del memory
    sizes = sum(math.prod(leaf.shape[:-1]) for leaf in jax.tree.leaves(arch))
    arch = jax.tree.map(lambda l: l / temperature, arch)
    weights = jax.device_get(jax.tree.map(jax.nn.softmax, arch))
    mean = float(entropy(arch)) / sizes
    return {'choice_entropy': mean} | decisions.record(weights)

  return derive, record


def reinforce(
  decisions: Decisions,
  tx: optax.GradientTransformation,
  *,
  price: float = 0.0,
  samples: int = 4,
  decay: float = 0.95,
  entropy_weight: float = 0.0,
  period: int = 1,
  warmup: int = 0,
  reward: Callable[..., Array] | None = None,
) -> base.Selector:
  """Hard selection by a policy gradient.

  Args:
    decisions: what is open.
    tx: optimiser of the logits.
    price: of the whole, in nats of loss or units of the reward; what is kept of
      it costs its share.
    samples: draws per update.
    decay: weight of the old in the baseline, the mean cost of earlier draws.
    entropy_weight: of the entropy of all decisions, in nats, as a bonus.
    period: steps between updates of the logits.
    warmup: steps before the first update; weights train under even draws.
    reward: as of `Selector.reward`.
  """
  _check(price)
  errors.expect(0 <= decay < 1, 'decay', decay, 'at least 0, less than 1')
  errors.expect(samples >= 1, 'samples', samples, 'at least 1')

  def init(choice, key, train):
    del key, train
    memory = {'updates': jnp.int32(0), 'loss': jnp.float32(0)}
    return _fresh(decisions, choice), memory

  def sample(arch, memory, batch, phase, step, key):
    del batch, step
    options = likeliest(arch) if phase == 'eval' else draw(arch, key)
    weights = _hard(arch, options)
    choice = decisions.mix(weights)
    if phase != 'arch':
      return base.Draw(choice)
    # The first update finds what to compare with, and moves nothing.
    is_known = memory['updates'] > 0
    score = jnp.where(is_known, log_prob(arch, options), 0.0)
    seen = 1 - decay ** memory['updates'].astype(jnp.float32)
    expected = memory['loss'] / jnp.where(is_known, seen, 1)
    return base.Draw(choice, score, expected, price * decisions.size(weights))

  def observe(memory, train, seen):
    loss = jnp.mean(seen.draws.cost - seen.rewards)
    mean = decay * memory['loss'] + (1 - decay) * loss
    return {'updates': memory['updates'] + 1, 'loss': mean}, train

  def aux_loss(arch, memory, seen):
    del memory, seen
    return -entropy_weight * entropy(arch)

  derive, record = _settle(decisions)
  return base.Selector(
    init,
    sample,
    observe,
    derive,
    tx,
    split='valid',
    schedule=base.Schedule(period, warmup),
    record=record,
    samples=samples,
    reward=reward,
    aux_loss=aux_loss if entropy_weight else None,
  )


def darts(
  decisions: Decisions,
  tx: optax.GradientTransformation,
  *,
  price: float = 0.0,
  temperature: float = 1.0,
  inner_rate: float | None = None,
  implicit: Implicit | None = None,
  period: int = 1,
  warmup: int = 0,
) -> base.Selector:
  """Soft selection by the gradient of the mixture.

  Args:
    decisions: what is open.
    tx: optimiser of the logits; the paper's is Adam, 3e-4, (.5, .999), with a
      decay of 1e-3.
    price: of the whole, in nats; the share that is kept is a mixture's.
    temperature: logits are divided by it; below 1 mixtures are nearer to one
      option. The paper has none.
    inner_rate: None for first order; else xi of the exact second.
    implicit: in place of it, how the weights answer at last; each iteration
      costs a forward and a backward pass over the train batch, and more.
    period: steps between updates of the logits.
    warmup: steps before the first update.
  """
  _check(price)
  errors.expect(
    0 < temperature < math.inf, 'temperature', temperature, 'more than 0'
  )
  errors.expect(
    inner_rate is None or 0 < inner_rate < math.inf,
    'inner_rate',
    inner_rate,
    'more than 0, or None for first order',
  )
  if decisions.is_hard:
    raise errors.ConfigError(
      'DARTS mixes options, and what is open here is there or not: take the '
      "engine 'reinforce'."
    )

  def init(choice, key, train):
    del key, train
    return _fresh(decisions, choice), ()

  def sample(arch, memory, batch, phase, step, key):
    del memory, batch, phase, step, key
    weights = jax.tree.map(lambda l: jax.nn.softmax(l / temperature), arch)
    return base.Draw(
      decisions.mix(weights), cost=price * decisions.size(weights)
    )

  derive, record = _settle(decisions, temperature)
  return base.Selector(
    init,
    sample,
    base.unchanged,
    derive,
    tx,
    split='valid',
    schedule=base.Schedule(period, warmup),
    record=record,
    inner_rate=inner_rate,
    implicit=implicit,
  )


ENGINES = {'reinforce': reinforce, 'darts': darts}


def engine(
  name: str,
  decisions: Decisions,
  tx: optax.GradientTransformation,
  **options: Any,
) -> base.Selector:
  """The selector of an engine by name; options are its own."""
  fields_lib.check(name, tuple(ENGINES), 'Engine of a search')
  return ENGINES[name](decisions, tx, **options)
