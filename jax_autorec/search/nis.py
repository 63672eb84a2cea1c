"""NIS: which rows and columns of its table does each field deserve?

Neural Input Search, Joglekar et al., KDD 2020, arXiv:1907.04471. Tables, ids by
falling frequency, are cut into blocks (`choices.Blocks`). A policy draws which
blocks each field keeps; weights follow the training loss under such draws, the
policy the quality of validation batches less the price of memory. Its mode is
retrained on tables of that size.

The paper trains its controller with A3C; this is the same gradient by a single
worker. The search runs its whole length: the paper's end at a low entropy would
save time alone, since choices that are nearly certain stand still.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jax_autorec import choices as choices_lib
from jax_autorec import errors, field_spaces
from jax_autorec import fields as fields_lib
from jax_autorec.search import base, rewards
from jax_autorec.types import Array

BASELINES = ('ema', 'critic')

_NEVER = -1e9  # A logit; an infinite one would make NaN of 0 times it.


class Policy(NamedTuple):
  """A distribution over what fields keep, from logits [F, L, K].

  A field makes L decisions among K each, which its logits weigh; where they are
  ordered, none is larger than the one before it, and the weight of a sequence
  is the product of its decisions', so that zeros mean evenly.

  Attributes:
    allowed: bool [F, L, K].
    is_ordered: whether decisions of a field do not increase.
    counts: int [K, T / L], how many blocks of rows a decision keeps of its
      blocks of columns.
    ends: int32 [F, S + 1], how many ids so many blocks of rows hold.
    prices: float32 [F, T, S + 1], entries of so many blocks of rows.
  """

  allowed: np.ndarray
  is_ordered: bool
  counts: np.ndarray
  ends: np.ndarray
  prices: np.ndarray

  @property
  def shape(self) -> tuple[int, ...]:
    """Of the logits."""
    return self.allowed.shape

  def _masked(self, logits):
    """Logits, and which decision [K] may follow which: [K, K]."""
    size = self.shape[2]
    follows = np.ones((size, size), bool)
    if self.is_ordered:
      follows = np.tril(follows)
    return jnp.where(self.allowed, logits, _NEVER), follows

  def conditionals(self, logits: Array) -> list[Array]:
    """Log probabilities of decisions given the one before: L of [F, K, K].

    Before the first stands the largest.
    """
    logits, follows = self._masked(logits)
    ahead, tables = jnp.zeros(logits[:, 0].shape), []
    for place in reversed(range(self.shape[1])):
      weights = (logits[:, place] + ahead)[:, None]
      weights = jnp.where(follows, weights, _NEVER)
      tables.append(jax.nn.log_softmax(weights))
      ahead = jax.nn.logsumexp(weights, -1)
    return tables[::-1]

  def sample(self, logits: Array, key: Array) -> tuple[Array, Array]:
    """Decisions int32 [F, L], and the log probability of all together, []."""
    num_fields, num_places, size = self.shape
    last = jnp.full(num_fields, size - 1)
    fields, total, decisions = np.arange(num_fields), 0.0, []
    keys = jax.random.split(key, num_places)
    for table, place_key in zip(self.conditionals(logits), keys):
      weights = table[fields, last]
      last = jax.random.categorical(place_key, weights)
      total += weights[fields, last].sum()
      decisions.append(last)
    return jnp.stack(decisions, 1), total

  def _shares(self, tables):
    """Probabilities [F, K] of the decision before each, and of the last."""
    share = jnp.zeros((self.shape[0], self.shape[2])).at[:, -1].set(1)
    shares = [share]
    for table in tables:
      shares.append(jnp.einsum('fk,fkj->fj', shares[-1], jnp.exp(table)))
    return shares

  def entropy(self, logits: Array) -> Array:
    """Of every field's choice: [F], in nats."""
    tables = self.conditionals(logits)
    return -sum(
      jnp.einsum('fk,fkj,fkj->f', share, jnp.exp(table), table)
      for share, table in zip(self._shares(tables), tables)
    )

  def marginals(self, logits: Array) -> Array:
    """How likely so many blocks of rows are kept: [F, T, S + 1]."""
    num_counts = self.ends.shape[1]
    one_hot = self.counts[:, :, None] == np.arange(num_counts)
    shares = jnp.stack(self._shares(self.conditionals(logits))[1:], 1)
    kept = jnp.einsum('flk,kts->flts', shares, one_hot.astype(np.float32))
    return kept.reshape(self.prices.shape)

  def mode(self, logits: Array) -> Array:
    """The most likely decisions, int32 [F, L]; of equals the largest."""
    logits, follows = self._masked(logits)
    size, ahead, choices = self.shape[2], jnp.zeros(logits[:, 0].shape), []
    for place in reversed(range(self.shape[1])):
      weights = (logits[:, place] + ahead)[:, None]
      weights = jnp.where(follows, weights, 2 * _NEVER)
      choices.append(size - 1 - jnp.argmax(weights[..., ::-1], -1))
      ahead = weights.max(-1)
    last, decisions = jnp.full(self.shape[0], size - 1), []
    for choice in choices[::-1]:
      last = choice[np.arange(self.shape[0]), last]
      decisions.append(last)
    return jnp.stack(decisions, 1)

  def kept(self, decisions: Array) -> tuple[Array, Array]:
    """Rows of every block of columns, int32 [F, T], and entries of all, []."""
    num_fields, num_columns = self.prices.shape[:2]
    counts = jnp.asarray(self.counts)[decisions]
    counts = counts.reshape(num_fields, num_columns)
    fields, columns = np.ogrid[:num_fields, :num_columns]
    entries = jnp.asarray(self.prices)[fields, columns, counts]
    return jnp.asarray(self.ends)[fields, counts], entries.sum()


def policy(blocks: choices_lib.Blocks) -> Policy:
  """The policy over the choices that blocks leave.

  'single': one decision: nothing, or s blocks of rows of the first t blocks of
  columns. 'multi': a number of blocks of rows for each block of columns.
  """
  num_columns = len(blocks.columns)
  most = max(map(len, blocks.rows))
  ends = np.array(
    [[0, *own, *[own[-1]] * (most - len(own))] for own in blocks.rows],
    np.int32,
  )
  prices = np.array(
    [
      [
        [blocks.entries(f, t, int(end)) for end in own]
        for t in range(num_columns)
      ]
      for f, own in enumerate(ends)
    ],
    np.float32,
  )
  exists = np.arange(most + 1) <= np.array([[len(own)] for own in blocks.rows])
  if blocks.mode == 'multi':
    allowed = np.repeat(exists[:, None], num_columns, 1)
    counts = np.arange(most + 1)[:, None]
    return Policy(allowed, blocks.prefix, counts, ends, prices)
  pairs = [(0, 0)]
  pairs += [(s + 1, t + 1) for t in range(num_columns) for s in range(most)]
  counts = np.array([[s] * t + [0] * (num_columns - t) for s, t in pairs])
  allowed = exists[:, [s for s, _ in pairs]][:, None]
  return Policy(allowed, False, counts, ends, prices)


def overrun(entries: Array, budget: float) -> Array:
  """Share of the budget by which it is exceeded: max(x / B - 1, 0)."""
  return jnp.maximum(entries / budget - 1, 0)


def nis(
  tx: optax.GradientTransformation,
  blocks: choices_lib.Blocks,
  num_steps: int,
  *,
  budget: float,
  cost_weight: float = 0.1,
  period: int = 1,
  full_steps: int = 0,
  mixed_steps: int = 0,
  mixed_share: float = 0.5,
  samples: int = 4,
  reward: str = 'auc',
  baseline: str = 'ema',
  decay: float = 0.95,
  entropy: float = 1e-3,
) -> base.Selector:
  """Selects the blocks that every categorical field keeps.

  The reward of a draw is its quality on a validation batch less
  cost_weight * max(entries / budget - 1, 0).

  Args:
    tx: optimiser of the logits, and of the critic; `optax.multi_transform`
      gives each a rate of its own, by the keys 'logits' and 'critic'.
    blocks: the open choice, `Architecture.choice`.
    num_steps: steps of the search, warm-ups included.
    budget: entries of the field vectors' tables and linear maps that cost
      nothing; first-order weights, which nothing is chosen of, do not count.
    cost_weight: lambda: what a model of twice the budget must gain, in AUC or
      nats. Rewards of draws spread by some 0.01.
    period: steps between updates of the policy.
    full_steps: first, so many steps with everything kept. Young blocks add
      noise: a policy that saw them would close them and never look again.
    mixed_steps: then so many with an even draw now and then, so that blocks
      learn to do without each other. The policy moves after both.
    mixed_share: how often such a draw is at their beginning; it falls to 0.
    samples: draws per update of the policy.
    reward: 'auc': of the batch, `rewards.auc`; 'ce': minus its log loss, less
      noisy.
    baseline: what a draw's reward is compared with: 'ema': the mean of earlier
      ones; 'critic': a value that `tx` trains by squared error.
    decay: weight of the old in that mean.
    entropy: weight of the entropy of all choices together, in nats, which
      falls to 0 over the updates.

  Returns:
    A selector for the slot 'fields'.
  """
  fields_lib.check(reward, tuple(rewards.REWARDS), 'Reward of NIS')
  fields_lib.check(baseline, BASELINES, 'Baseline of NIS')
  for name, value, holds, expected in (
    ('budget', budget, budget > 0, 'more than 0 entries'),
    ('cost_weight', cost_weight, 0 <= cost_weight < math.inf, 'at least 0'),
    ('full_steps', full_steps, full_steps >= 0, 'at least 0'),
    ('mixed_steps', mixed_steps, mixed_steps >= 0, 'at least 0'),
    ('mixed_share', mixed_share, 0 <= mixed_share <= 1, '0 to 1'),
    ('samples', samples, samples >= 1, 'at least 1'),
    ('decay', decay, 0 <= decay < 1, 'at least 0, less than 1'),
    ('entropy', entropy, 0 <= entropy < math.inf, 'at least 0'),
  ):
    errors.expect(holds, f'{name} of NIS', value, expected)
  warmup = full_steps + mixed_steps
  if warmup >= num_steps:
    raise errors.ConfigError(
      f'NIS warms up for {warmup} of {num_steps} steps, so nothing would be '
      'searched: search longer, or warm up less.'
    )
  schedule = base.Schedule(period, warmup)
  choices = policy(blocks)
  num_updates = -(-(num_steps - warmup) // period)

  def init(choice, key, train):
    del choice, key, train
    arch = {'logits': jnp.zeros(choices.shape, jnp.float32)}
    if baseline == 'critic':
      arch['critic'] = jnp.zeros((), jnp.float32)
    memory = {
      'updates': jnp.zeros((), jnp.int32),
      'loss': jnp.zeros((), jnp.float32),
    }
    return arch, memory

  def expected_loss(arch, memory):
    """What a draw's cost less its reward is compared with."""
    if baseline == 'critic':
      # From the first value on: a rate of the logits is slow for an AUC.
      return memory['loss'] + arch['critic']
    seen = 1 - decay ** memory['updates'].astype(jnp.float32)
    return memory['loss'] / jnp.where(seen > 0, seen, 1)

  def sample(arch, memory, batch, phase, step, key):
    del batch
    logits = arch['logits']
    if phase == 'eval':
      return base.Draw({'kept': choices.kept(choices.mode(logits))[0]})
    draw_key, mix_key = jax.random.split(key)
    decisions, log_prob = choices.sample(logits, draw_key)
    kept, entries = choices.kept(decisions)
    if phase == 'weights':
      # Before its first update the policy draws evenly.
      since = (step - full_steps) / max(mixed_steps, 1)
      share = jnp.where(step < full_steps, 0, mixed_share * (1 - since))
      is_full = (step < warmup) & (jax.random.uniform(mix_key) >= share)
      everything = jnp.asarray(choices.ends[:, -1:])
      return base.Draw({'kept': jnp.where(is_full, everything, kept)})
    # The first update finds what to compare with, and moves nothing.
    log_prob = jnp.where(memory['updates'] > 0, log_prob, 0.0)
    expected = jax.lax.stop_gradient(expected_loss(arch, memory))
    cost = cost_weight * overrun(entries, budget)
    return base.Draw({'kept': kept}, log_prob, expected, cost)

  def loss_seen(seen):
    return jnp.mean(seen.draws.cost - seen.rewards)

  def observe(memory, train, seen):
    loss, updates = loss_seen(seen), memory['updates']
    if baseline == 'critic':
      mean = jnp.where(updates > 0, memory['loss'], loss)
    else:
      mean = decay * memory['loss'] + (1 - decay) * loss
    return {'updates': updates + 1, 'loss': mean}, train

  def aux_loss(arch, memory, seen):
    left = 1 - memory['updates'] / num_updates
    total = -entropy * left * choices.entropy(arch['logits']).sum()
    if baseline == 'critic':
      error = loss_seen(seen) - expected_loss(arch, memory)
      total += jnp.where(memory['updates'] > 0, jnp.square(error), 0.0)
    return total

  def derive(arch, memory, context):
    del memory
    kept, entries = choices.kept(choices.mode(jnp.asarray(arch['logits'])))
    if not entries:
      raise errors.ConfigError(
        'NIS left no field any row: raise its budget, lower its cost_weight, '
        'or let blocks warm up for longer.'
      )
    return field_spaces.with_blocks(
      context.architecture, np.asarray(kept).tolist()
    )

  def record(arch, memory):
    del memory
    shares = choices.marginals(jnp.asarray(arch['logits']))
    expected = (shares * choices.prices).sum((1, 2))
    return {
      'block_shares': shares.tolist(),
      'block_entries': expected.tolist(),
      'expected_entries': float(expected.sum()),
      'choice_entropy': float(choices.entropy(arch['logits']).mean()),
    }

  return base.Selector(
    init,
    sample,
    observe,
    derive,
    tx,
    split='valid',
    schedule=schedule,
    record=record,
    samples=samples,
    reward=rewards.REWARDS[reward],
    aux_loss=aux_loss,
  )
