"""DARTS over sizes: whose logits move, and where to."""

from absl.testing import absltest
import jax
import jax.numpy as jnp
import numpy as np

from jax_autorec import errors, field_spaces, search, spaces
from jax_autorec import schema as schema_lib
from jax_autorec.nn import model as model_lib
from jax_autorec.search import online
from jax_autorec.train import settings as settings_lib
from jax_autorec.train import state as state_lib
from jax_autorec.train import steps
from jax_autorec.types import Batch

_DIMS = (2, 4, 8)
_RATE = 0.01


def _parts(how='mix'):
  """Tools, method and a fresh state of two entities."""
  schema = schema_lib.Schema(
    (
      schema_lib.Field('user', vocab_size=9),
      schema_lib.Field('item', vocab_size=6),
    )
  )
  closed = spaces.rater(schema, dim=_DIMS[-1], width=_DIMS[-1], hidden=(8,))
  space = field_spaces.open_rows(closed, _DIMS, how)
  settings = settings_lib.Settings(batch_size=8)
  optimizer = settings_lib.make_optimizer(settings, space)
  tools = online.tools(model_lib.build(space), optimizer, 'square')
  method = search.row_darts(_RATE)
  batch = state_lib.example_batch(schema)
  state = online.init(tools, method, batch, 16, jax.random.key(0), 0.5)
  return tools, method, state


def _batch(users, items, labels):
  size = len(users)
  return Batch(
    ids=np.stack([users, items], 1).astype(np.int32),
    numeric=np.zeros((size, 0), np.float32),
    missing=np.zeros((size, 0), bool),
    labels=np.array(labels, np.float32),
    weights=np.ones(size, np.float32),
    mask=np.ones(size, bool),
  )


class RowDartsTest(absltest.TestCase):
  def test_logits_of_the_batch_before_go_down_its_loss(self):
    """Against differences of the loss; the first step of Adam is its sign."""
    tools, method, state = _parts()
    previous = _batch([2, 3, 5, 2], [1, 4, 4, 1], [1, 0, 1, 0])
    batch = _batch([7, 8, 7, 8], [2, 2, 3, 3], [1, 1, 0, 0])
    own, train = state.own, state.train
    adapt = jax.jit(
      lambda own, train: method.adapt(
        own, tools, train, previous, batch, None, None
      )
    )
    new = adapt(own, train)

    @jax.jit
    def loss(own):
      _, rows = tools.look_up(train, previous)
      choice = method.standing(own, tools, previous)
      weights = steps.example_weights(previous, None)
      return jnp.sum(weights * tools.losses(train, rows, choice, previous))

    compared = 0
    for name, used in (('user', {2, 3, 5}), ('item', {1, 4})):
      logits = own[name]['logits']
      moved = np.asarray(new[name]['logits'] - logits)
      self.assertEqual(set(np.flatnonzero(np.abs(moved).max(1))), used)
      for row in used:
        for size in range(len(_DIMS)):
          around = [
            float(
              loss(
                own
                | {
                  name: own[name]
                  | {'logits': logits.at[row, size].add(sign * 0.05)}
                }
              )
            )
            for sign in (1, -1)
          ]
          slope = (around[0] - around[1]) / 0.1
          if abs(slope) > 1e-4:
            compared += 1
            expected = -_RATE * np.sign(slope)
            self.assertAlmostEqual(moved[row, size], expected, places=4)
    self.assertGreater(compared, 8)

  def test_a_batch_of_padding_moves_nothing(self):
    tools, method, state = _parts()
    batch = _batch([7, 8], [2, 3], [1, 0])
    padding = batch._replace(mask=np.zeros(2, bool))
    new = method.adapt(
      state.own, tools, state.train, padding, batch, None, None
    )
    for name in ('user', 'item'):
      np.testing.assert_array_equal(
        new[name]['logits'], state.own[name]['logits']
      )

  def test_other_rows_are_refused(self):
    with self.assertRaisesRegex(errors.ConfigError, "how='mix'"):
      _parts('grow')


if __name__ == '__main__':
  absltest.main()
