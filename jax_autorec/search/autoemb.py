"""AutoEmb: a controller weighs candidate widths by how often an id comes.

Zhao et al., ICDM 2021 (arXiv:2002.11252). Every id has columns of each
candidate width; the model sees their weighted sum (`nn.field_choices.MixedRows`
and `MixedBuckets`). The weights are a controller's, of the id's frequency; it
follows the loss of held-out rows, the rest that of the train rows.

Two forms. On a stream the controller also sees the weights that the id had
before, and follows the batch before the present one; the mixture is soft for
good. As a search over splits, ids of like train frequency share their weights;
in the end each bucket takes its widest weight, and the model is retrained on
rows of these widths: the rule is ours, the paper has none.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jax_autorec import choices as choices_lib
from jax_autorec import errors, field_spaces
from jax_autorec.nn import blocks
from jax_autorec.search import base, online
from jax_autorec.train import steps


def autoemb(
  tx: optax.GradientTransformation,
  counts: list[list[float]],
  *,
  period: int = 1,
  warmup: int = 0,
  hidden: int = 512,
) -> base.Selector:
  """Selects a width for every bucket of `choices.MixedBuckets`.

  Args:
    tx: optimiser of the controller.
    counts: per field and bucket, the mean train count of its ids.
    period: steps between updates of the controller.
    warmup: steps before the first update.
    hidden: width of the controller's hidden layer.

  Returns:
    A selector for the slot 'fields'.
  """
  # One controller for all fields, which it tells apart.
  most = max(len(own) for own in counts)
  padded = [[*own, *[0.0] * (most - len(own))] for own in counts]
  seen = np.array(padded, np.float32).reshape(-1)
  fields = np.repeat(np.eye(len(counts), dtype=np.float32), most, 0)

  def net(num_sizes):
    return blocks.FrequencyNet(num_sizes, hidden)

  def init(choice, key, train):
    del train
    num_fields, num_buckets, num_sizes = choice['weights'].shape
    if (num_fields, num_buckets) != (len(counts), most):
      raise errors.ConfigError(
        f'AutoEmb got counts of {len(counts)} fields and {most} buckets at '
        f'most; the space has {num_fields} and {num_buckets}.'
      )
    return net(num_sizes).init(key, seen, fields), ()

  def weights(arch):
    num_sizes = arch['params']['output']['bias'].shape[0]
    logits = net(num_sizes).apply(arch, seen, fields)
    return jax.nn.softmax(logits).reshape(len(counts), most, num_sizes)

  def sample(arch, memory, batch, phase, step, key):
    del memory, batch, phase, step, key
    return base.Draw(choice={'weights': weights(arch)})

  def derive(arch, memory, context):
    del memory
    dims = context.architecture.choice.dims
    best = np.argmax(np.asarray(weights(arch)), 2)
    chosen = [
      [dims[n] for n in own[: len(buckets)]]
      for own, buckets in zip(best, counts)
    ]
    return field_spaces.with_buckets(context.architecture, chosen)

  def record(arch, memory):
    del memory
    return {'bucket_weights': np.asarray(weights(arch)).tolist()}

  return base.Selector(
    init,
    sample,
    base.unchanged,
    derive,
    tx,
    split='valid',
    schedule=base.Schedule(period, warmup),
    record=record,
  )


def autoemb_stream(
  tx: optax.GradientTransformation, hidden: int = 512
) -> online.Online:
  """Mixes the rows of every entity of `choices.MixedRows`, softly.

  Args:
    tx: optimiser of the controllers, one per entity; the paper's is Adam, 1e-4.
    hidden: width of their hidden layer.
  """

  def net(num_sizes):
    return blocks.FrequencyNet(num_sizes, hidden)

  def init(tools, train, key):
    del train
    num_sizes = len(_dims(tools))
    own = {}
    for plan in tools.model.architecture.fields:
      key, net_key = jax.random.split(key)
      params = net(num_sizes).init(
        net_key, jnp.zeros((1,), jnp.int32), jnp.zeros((1, num_sizes))
      )
      # As published, an id starts as if it had been at the smallest width.
      first = jnp.zeros((plan.vocab_size, num_sizes)).at[:, 0].set(1)
      own[plan.name] = {
        'weights': first,
        'count': jnp.zeros((plan.vocab_size,), jnp.int32),
        'controller': params,
        'optimizer': jax.jit(tx.init)(params),
      }
    return own

  def mixture(params, own, tools, ids):
    weights = []
    for name, column in online.columns(tools, ids):
      counts = online.read(own[name]['count'], column)
      before = online.read(own[name]['weights'], column)
      logits = net(before.shape[1]).apply(params[name], counts, before)
      weights.append(jax.nn.softmax(logits))
    return {'weights': jnp.stack(weights, 1)}

  def standing(own, tools, batch):
    ids = online.entity_ids(tools, batch)
    params = {name: one['controller'] for name, one in own.items()}
    return mixture(params, own, tools, ids)

  def choose(own, tools, train, batch, key):
    del key
    return own, train, standing(own, tools, batch)

  def adapt(own, tools, train, previous, batch, losses, key):
    del batch, losses, key
    ids = online.entity_ids(tools, previous)
    _, rows = tools.look_up(train, previous)
    weights = steps.example_weights(previous, None)

    def objective(params):
      choice = mixture(params, own, tools, ids)
      return jnp.sum(weights * tools.losses(train, rows, choice, previous))

    params = {name: one['controller'] for name, one in own.items()}
    grads = jax.grad(objective)(params)
    result = {}
    for name, one in own.items():
      updates, state = tx.update(grads[name], one['optimizer'], params[name])
      new = optax.apply_updates(params[name], updates)
      result[name] = one | {'controller': new, 'optimizer': state}
    return result

  def remember(own, tools, batch, choice, losses):
    del losses
    ids, result = online.entity_ids(tools, batch), {}
    for place, (name, column) in enumerate(online.columns(tools, ids)):
      one, used = own[name], choice['weights'][:, place]
      result[name] = one | {
        'weights': online.written(one['weights'], column, used),
        'count': online.counted(one['count'], column),
      }
    return result

  def kept(own):
    names = ('weights', 'count', 'controller')
    return {key: [one[name] for name in names] for key, one in own.items()}

  return online.Online(
    *(init, choose, adapt, remember, standing, None),
    record=lambda own: {},
    about={'method': 'autoemb', 'hidden': hidden},
    kept=kept,
  )


def _dims(tools):
  choice = tools.model.architecture.choice
  if not isinstance(choice, choices_lib.MixedRows):
    raise errors.ConfigError(
      "AutoEmb mixes rows: open them by field_spaces.open_rows(..., how='mix')."
    )
  return choice.dims
