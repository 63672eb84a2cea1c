"""DARTS over sizes: every id of a stream has logits of its own.

The baseline of ESAPN's published code after Liu, Simonyan and Yang (ICLR 2019):
an id's vector is the softmax-weighted sum of its candidate widths; logits
follow the loss of the batch before the present one, to first order, the rest
that of the present one.
"""

import jax
import jax.numpy as jnp

from jax_autorec import choices as choices_lib
from jax_autorec import errors
from jax_autorec.optim import row_sparse
from jax_autorec.search import online
from jax_autorec.train import steps


def row_darts(learning_rate: float = 1e-4) -> online.Online:
  """Mixes the rows of every entity of `choices.MixedRows` by logits per id.

  Args:
    learning_rate: of the logits, by row-sparse Adam.
  """
  optimizer = row_sparse.adam(learning_rate)

  def init(tools, train, key):
    del train, key
    architecture = tools.model.architecture
    if not isinstance(architecture.choice, choices_lib.MixedRows):
      raise errors.ConfigError(
        'DARTS over sizes mixes rows: open them by field_spaces.open_rows(..., '
        "how='mix')."
      )
    own = {}
    for plan in architecture.fields:
      shape = (plan.vocab_size, len(architecture.choice.dims))
      logits = jnp.zeros(shape, jnp.float32)
      own[plan.name] = {
        'logits': logits,
        'moments': optimizer.init(logits),
        'slots': row_sparse.init_slots(plan.vocab_size),
      }
    return own

  def gathered(own, tools, ids):
    return [
      online.read(own[name]['logits'], column)
      for name, column in online.columns(tools, ids)
    ]

  def mixture(logits):
    return {'weights': jax.nn.softmax(jnp.stack(logits, 1))}

  def standing(own, tools, batch):
    return mixture(gathered(own, tools, online.entity_ids(tools, batch)))

  def choose(own, tools, train, batch, key):
    del key
    return own, train, standing(own, tools, batch)

  def adapt(own, tools, train, previous, batch, losses, key):
    del batch, losses, key
    ids = online.entity_ids(tools, previous)
    _, rows = tools.look_up(train, previous)
    weights = steps.example_weights(previous, None)

    def objective(logits):
      found = tools.losses(train, rows, mixture(logits), previous)
      return jnp.sum(weights * found)

    grads = jax.grad(objective)(gathered(own, tools, ids))
    result = {}
    for (name, column), grad in zip(online.columns(tools, ids), grads):
      one = own[name]
      logits, moments, slots = row_sparse.update(
        optimizer, one['logits'], one['moments'], one['slots'], column, grad
      )
      result[name] = {'logits': logits, 'moments': moments, 'slots': slots}
    return result

  def remember(own, tools, batch, choice, losses):
    del tools, batch, choice, losses
    return own

  return online.Online(
    *(init, choose, adapt, remember, standing, None),
    record=lambda own: {},
    about={'method': 'row_darts', 'learning_rate': learning_rate},
    kept=lambda own: {name: one['logits'] for name, one in own.items()},
  )
