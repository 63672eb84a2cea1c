"""AutoGroup: which fields should interact as a group, and at which order?

Liu et al., SIGIR 2020. Per order p a matrix of logits says how likely each
field is to be a member of each group (`interactions.Groups`); whoever's logit
is above 0 stays, and the model is retrained on those groups.

Two forms are published. On the slides memberships are relaxed (Gumbel-softmax)
and logits follow the validation loss (DARTS): `selection='soft'`,
`split='valid'`. The authors' code (in Vega) draws hard memberships, whose
gradient is that of the relaxed ones (straight-through), and alternates on
train batches: a step of the weights without noise, one of the logits with it:
`selection='hard'`, `split='alternate'`, `noise='arch'`. Any mixture works too.

Differences from that code. Of its two logits per membership the difference
alone matters, and is what is kept here. A tie is no membership there or here,
but there marks both options. The logits move first in a step, so they see a
batch before the weights have learnt it. What is found is retrained, where the
code takes the searched model itself. Its rates of 1e1 to 1e4 throw the logits
into saturation within a few steps of Adam; choose the rate so that rate times
number of updates, how far a logit can travel, is about 2 to 8.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jax_autorec import errors, fields, group_spaces
from jax_autorec import interactions as interactions_lib
from jax_autorec.search import base
from jax_autorec.types import Array

SELECTIONS = ('soft', 'hard')
NOISES = ('both', 'arch')

_SPREAD = 1e-3  # Of fresh logits: with equal ones no group would be itself.


def perturbed(logits: Array, key: Array | None) -> Array:
  """Logits and their noise: the difference of two Gumbel variables."""
  if key is None:
    return logits
  return logits + jax.random.logistic(key, logits.shape, logits.dtype)


def relaxed(logits: Array, temperature: float, key: Array | None) -> Array:
  """Gumbel-softmax weights of 'member' against 'not', of sigmoid(logits).

  Args:
    logits: any shape.
    temperature: tau; towards 0 the weights are 0 or 1.
    key: of the noise; None for none.

  Returns:
    In (0, 1), above a half with probability sigmoid(logits).
  """
  return jax.nn.sigmoid(perturbed(logits, key) / temperature)


def members(scores: Array, count: int | None = None) -> Array:
  """Who belongs: those above 0, or so many of each group; [F, N] -> {0, 1}."""
  if count is None:
    return (scores > 0).astype(scores.dtype)
  _, places = jax.lax.top_k(scores.T, count)
  return jax.nn.one_hot(places, len(scores), dtype=scores.dtype).sum(1).T


def autogroup(
  tx: optax.GradientTransformation,
  *,
  selection: str = 'soft',
  split: str = 'valid',
  noise: str = 'both',
  sizes: Mapping[str, int] | None = None,
  temperature: float = 1.0,
  period: int = 1,
  warmup: int = 0,
  samples: int = 1,
  inner_rate: float | None = None,
) -> base.Selector:
  """Selects the members of all open groups.

  Args:
    tx: optimiser of the logits.
    selection: 'soft': steps see relaxed memberships; 'hard': hard ones, with
      the gradient of the relaxed. Evaluations always see hard ones.
    noise: 'both': in steps of weights and of logits; 'arch': in those of
      the logits alone, as in the code. Weights that never saw another member
      do badly with it, so groups then lose all theirs: on planted data (six
      fields, six groups, two pairs) no group or one was left.
    split: 'valid' or 'alternate', see `Selector.split`.
    sizes: name of an interaction -> how many members each of its groups has,
      those of the highest (noisy) logits; any number where it is not named.
      Hard selection alone can have them.
    temperature: tau of the relaxation. The lower it is, the fewer logits, those
      nearly tied, have a gradient; published are .01 (Avazu) and .1 (Criteo).
    period: steps between updates of the logits.
    warmup: steps before the first update.
    samples: draws per update of the logits, of which each costs a pass.
    inner_rate: None for first order; else xi of the second (split 'valid').

  Returns:
    A selector for the slot 'interactions'.
  """
  sizes = dict(sizes or {})
  fields.check(selection, SELECTIONS, 'Selection of AutoGroup')
  fields.check(noise, NOISES, 'Noise of AutoGroup')
  fields.check(split, ('valid', 'alternate'), 'Split of AutoGroup')
  errors.expect(
    0 < temperature < np.inf, 'temperature', temperature, 'more than 0'
  )
  errors.expect(samples >= 1, 'samples', samples, 'at least 1')
  if sizes and selection == 'soft':
    raise errors.ConfigError(
      "Groups of a fixed size need hard selection: set selection to 'hard', or "
      'leave sizes out.'
    )

  def check(space):
    counts = {plan.name: len(space.vector_fields) for plan in _open(space)}
    unfit = {
      name: size
      for name, size in sizes.items()
      if not 1 <= size <= counts.get(name, 0)
    }
    if unfit:
      raise errors.ConfigError(
        f'Sizes of groups are {unfit}; expected 1 to '
        f'{len(space.vector_fields)} for some of the open '
        f'{", ".join(counts) or "none"}.'
      )

  def init(choice, key, train):
    del train
    logits = {}
    for number, (name, leaf) in enumerate(sorted(choice.items())):
      own = jax.random.fold_in(key, number)
      shape = leaf['member'].shape
      logits[name] = jax.random.uniform(
        own, shape, jnp.float32, -_SPREAD, _SPREAD
      )
    return logits, ()

  def member(name, logits, key):
    if selection == 'soft':
      return relaxed(logits, temperature, key)
    scores = perturbed(logits, key)
    soft = relaxed(scores, temperature, None)
    hard = members(scores, sizes.get(name))
    # Exactly 0 or 1: soft + (hard - soft) would round.
    return jax.lax.stop_gradient(hard) + (soft - jax.lax.stop_gradient(soft))

  def sample(arch, memory, batch, phase, step, key):
    del memory, batch, step
    is_noisy = noise == 'both' or phase == 'arch'
    choice = {}
    for number, (name, logits) in enumerate(sorted(arch.items())):
      own = jax.random.fold_in(key, number)
      if phase == 'eval':
        value = members(logits, sizes.get(name))
      else:
        value = member(name, logits, own if is_noisy else None)
      choice[name] = {'member': value}
    return base.Draw(choice)

  def derive(arch, memory, context):
    del memory
    space = context.architecture
    names = np.array([plan.name for plan in space.vector_fields])
    found = {}
    for plan in _open(space):
      chosen = members(jnp.asarray(arch[plan.name]), sizes.get(plan.name))
      found[plan.name] = [
        tuple(names[own].tolist()) for own in np.asarray(chosen).T > 0
      ]
    return group_spaces.with_groups(space, found)

  def record(arch, memory):
    del memory
    values = {name: np.asarray(logits) for name, logits in arch.items()}
    return {
      'memberships': {
        name: float((logits > 0).mean()) for name, logits in values.items()
      },
      'logit_size': {
        name: float(np.abs(logits).mean()) for name, logits in values.items()
      },
    }

  return base.Selector(
    init,
    sample,
    base.unchanged,
    derive,
    tx,
    split=split,
    schedule=base.Schedule(period, warmup),
    record=record,
    inner_rate=inner_rate,
    samples=samples,
    check=check,
  )


def _open(space):
  return [
    plan
    for plan in space.interactions
    if isinstance(plan, interactions_lib.Groups) and plan.is_open
  ]
