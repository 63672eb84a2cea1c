"""AutoDim: which width does each field deserve?

Zhao et al., WWW 2021, arXiv:2006.14827. Every field sees a Gumbel-softmax
mixture of candidate widths (`nn.field_choices.MixedDims`); the mixture's
logits follow the validation loss, the weights the training loss. The widest
weight wins, and the model is retrained on tables of the chosen widths.

The temperature is low from the first step on, unless told otherwise. A warm
mixture can weigh its candidates so that the leading columns, which all of them
share, count for more than the others: that helps it, and says nothing of the
widths. On MovieLens-1M it drew users and movies to a width of 2, though of
widths drawn one at a time those of 8 and more did better. (The published
schedule falls over the first 1.08 epochs of Criteo, in batches of 2000; how
many epochs its search takes is not known.)

AD-s, the paper's single-level ablation, is the same network with logits that
follow the training loss together with the weights.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jax_autorec import errors, field_spaces
from jax_autorec.search import base
from jax_autorec.types import Array

SCHEDULES = ('constant', 'linear', 'published')


def temperature(
  step: Array, num_steps: int, schedule: str = 'constant', floor: float = 0.1
) -> Array:
  """Temperature of the Gumbel-softmax.

  Args:
    step: steps since the warm-up; before it, negative.
    num_steps: steps of the search after the warm-up.
    schedule: 'published': max(0.01, 1 - 0.00005 step), which reaches its floor
      after 19,800 steps whatever the length of the search; 'linear': from 1 to
      `floor` over the whole search; 'constant': `floor` from the first step on,
      warm-up included.
    floor: of 'constant' and 'linear'. At the published 0.01, gradients of the
      logits are a hundred times as large, and draws are nearly one-hot.

  Returns:
    float32 [].
  """
  step = jnp.maximum(step, 0).astype(jnp.float32)
  if schedule == 'published':
    return jnp.maximum(0.01, 1 - 0.00005 * step)
  if schedule == 'constant':
    return jnp.float32(floor)
  return jnp.maximum(floor, 1 - (1 - floor) * step / max(num_steps, 1))


def autodim(
  tx: optax.GradientTransformation,
  num_steps: int,
  *,
  period: int = 10,
  warmup: int = 0,
  schedule: str = 'constant',
  floor: float = 0.1,
  inner_rate: float | None = None,
  split: str = 'valid',
  draws: int = 64,
  tolerance: float = 1.0,
) -> base.Selector:
  """Selects a width for every categorical field.

  Args:
    tx: optimiser of the logits. Few updates leave them where they start: its
      rate times the number of updates should be about 2 to 8.
    num_steps: steps of the search, warm-up included, that the temperature
      falls over.
    period: steps between updates of the logits. The paper finds narrow,
      underfitted fields for small ones and wide ones for large.
    warmup: steps before the first update: young candidates cannot be compared.
    schedule: of the temperature, see `temperature`.
    floor: of the temperature.
    inner_rate: None for first order, as in the paper; else xi of the second.
    split: 'valid', or 'train' for AD-s.
    draws: per batch, of which each is seen by as many rows: gradients of the
      logits spread less, for a few hundredths of a step. In published code all
      rows see one.
    tolerance: of widths whose weight is at least so much of the field's largest
      the narrowest is taken; 1 for the heaviest, as published. Of a field that
      needs no more than its narrowest width the weights are told apart by
      chance alone.

  Returns:
    A selector for the slot 'fields'.
  """
  if schedule not in SCHEDULES:
    raise errors.ConfigError(
      f'Temperature schedule is {schedule!r}; expected one of '
      f'{", ".join(SCHEDULES)}.'
    )
  if draws < 1 or not 0 < tolerance <= 1:
    raise errors.ConfigError(
      f'AutoDim got {draws} draws and tolerance {tolerance}; expected at least '
      '1, and more than 0, at most 1.'
    )
  errors.expect(0 < floor < math.inf, 'floor', floor, 'more than 0')
  errors.expect(
    inner_rate is None or 0 < inner_rate < math.inf,
    'inner_rate',
    inner_rate,
    'more than 0, or None for first order',
  )
  updates = base.Schedule(period, warmup)
  if warmup >= num_steps:
    raise errors.ConfigError(
      f'AutoDim warms up for {warmup} of {num_steps} steps, so nothing would '
      'be searched: search longer, or warm up less.'
    )

  def init(choice, key, train):
    del key, train
    # Equal logits: any other start prefers some widths before it has looked.
    return {'logits': jnp.zeros_like(choice['weights'])}, ()

  def sample(arch, memory, batch, phase, step, key):
    del memory, batch
    logits = arch['logits']
    if phase == 'eval':
      return base.Draw(choice={'weights': jax.nn.softmax(logits)})
    shape = (draws, *logits.shape) if draws > 1 else logits.shape
    noise = jax.random.gumbel(key, shape, logits.dtype)
    tau = temperature(step - warmup, num_steps - warmup, schedule, floor)
    logits = jnp.broadcast_to(jax.nn.log_softmax(logits), shape)
    weights = jax.nn.softmax((logits + noise) / tau)
    return base.Draw(choice={'weights': weights})

  def derive(arch, memory, context):
    del memory
    architecture = context.architecture
    dims = architecture.choice.dims
    weights = np.asarray(jax.nn.softmax(jnp.asarray(arch['logits'])))
    chosen = weights >= tolerance * weights.max(1, keepdims=True)
    # The first of them: `dims` are increasing.
    return field_spaces.with_dims(
      architecture, [dims[n] for n in chosen.argmax(1)]
    )

  def record(arch, memory):
    del memory
    weights = jax.nn.softmax(arch['logits'])
    entropy = -(weights * jnp.log(weights + 1e-30)).sum(1).mean()
    return {
      'dim_weights': weights.tolist(),
      'levels': {'mean entropy of the weights, nats': [float(entropy)]},
    }

  return base.Selector(
    init,
    sample,
    base.unchanged,
    derive,
    tx,
    split=split,
    schedule=updates,
    record=record,
    inner_rate=inner_rate,
  )
