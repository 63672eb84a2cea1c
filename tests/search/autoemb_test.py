"""AutoEmb: weights on the simplex, of frequency and history alone."""

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jax_autorec import choices as choices_lib
from jax_autorec import errors, field_spaces, search, spaces
from jax_autorec import schema as schema_lib
from jax_autorec.nn import model as model_lib
from jax_autorec.search import base, online
from jax_autorec.train import settings as settings_lib
from jax_autorec.train import state as state_lib


def _schema():
  return schema_lib.Schema(
    tuple(schema_lib.Field(name, vocab_size=9) for name in ('user', 'item'))
  )


class StreamTest(parameterized.TestCase):
  def _parts(self):
    space = spaces.rater(_schema(), dim=4, hidden=(8,))
    space = field_spaces.open_rows(space, (2, 4), 'mix')
    settings = settings_lib.Settings(batch_size=6)
    tools = online.tools(
      model_lib.build(space),
      settings_lib.make_optimizer(settings, space),
      'square',
    )
    method = search.autoemb_stream(optax.adam(1e-1), hidden=8)
    batch = state_lib.example_batch(_schema(), 6)
    ids = np.array([[2, 2], [2, 3], [3, 4], [4, 2], [5, 5], [6, 6]], np.int32)
    batch = batch._replace(
      ids=ids, labels=np.array([1, 0, 1, 1, 0, 1], np.float32)
    )
    state = online.init(tools, method, batch, 60, jax.random.key(0), 0.3)
    return method, tools, state, batch

  def test_weights_follow_from_frequency_and_history_alone(self):
    method, tools, state, batch = self._parts()
    step = jax.jit(online.make_step(tools, method, 'square'))
    for _ in range(4):
      state, _ = step(state, (batch, batch))
    weights = np.asarray(
      method.standing(state.own, tools, batch)['weights'], np.float64
    )
    self.assertEqual(weights.shape, (6, 2, 2))
    self.assertTrue(np.all(weights > 0))
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-6)
    user = weights[:, 0]
    # Users 3 to 6 came once a batch, user 2 twice.
    np.testing.assert_allclose(user[2:], user[2:3] + 0 * user[2:], rtol=1e-6)
    self.assertGreater(np.abs(user[0] - user[2]).max(), 1e-4)
    np.testing.assert_array_equal(
      state.own['user']['count'][2:7], [8, 4, 4, 4, 4]
    )

  def test_only_controllers_learn_and_from_the_batch_before(self):
    method, tools, state, batch = self._parts()
    other = batch._replace(labels=1 - batch.labels)
    adapt = lambda previous, batch: method.adapt(
      state.own,
      tools,
      state.train,
      previous,
      batch,
      jnp.zeros(6),
      jax.random.key(0),
    )
    one, same, differs = (
      adapt(batch, batch),
      adapt(batch, other),
      adapt(other, batch),
    )
    bias = lambda own: np.asarray(
      own['user']['controller']['params']['output']['bias']
    )
    np.testing.assert_array_equal(bias(one), bias(same))
    self.assertTrue(np.any(bias(one) != bias(differs)))
    self.assertTrue(np.any(bias(one) != bias(state.own)))
    for name, kept in one.items():
      for part in ('weights', 'count'):
        np.testing.assert_array_equal(kept[part], state.own[name][part])


class BucketsTest(parameterized.TestCase):
  def _space(self, min_vocab=0):
    counts = {'user': [0, 0, 9, 8, 7, 3, 2, 1, 1], 'item': [0, 5] + [1] * 7}
    space = spaces.fm(_schema(), dim=4)
    return field_spaces.open_buckets(space, (2, 4), counts, min_vocab)

  def test_ids_of_an_octave_share_a_bucket(self):
    self.assertEqual(self._space().choice.starts, ((0, 4, 5, 7), (0,)))
    self.assertEqual(self._space(10).choice.starts, ((0,), (0,)))

  def test_each_bucket_takes_its_widest_weight(self):
    space = self._space()
    counts = [[8.0, 7.0, 2.5, 1.0], [1.0]]
    selector = search.autoemb(optax.adam(1e-2), counts, hidden=8)
    choice = {'weights': jnp.zeros((2, 4, 2))}
    arch, memory = selector.init(choice, jax.random.key(0), None)
    kernel = arch['params']['output']['kernel']
    noise = jax.random.normal(jax.random.key(5), kernel.shape)
    arch['params']['output']['kernel'] = noise
    weights = np.asarray(
      selector.sample(arch, memory, None, 'eval', 0, None).choice['weights']
    )
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-5)
    chosen = weights.argmax(-1)
    closed = selector.derive(arch, memory, base.Context(space, None))
    by_id = {}
    for field, starts in zip(closed.fields, space.choice.starts):
      by_id[field.name] = [
        p.dim for p in field.pieces for _ in range(p.start, p.stop)
      ]
      place = ['user', 'item'].index(field.name)
      bucket = np.searchsorted(starts, np.arange(9), 'right') - 1
      expected = np.array([2, 4])[chosen[place][bucket]]
      np.testing.assert_array_equal(by_id[field.name], expected)
    self.assertEqual(
      closed.embedding_params, sum(map(sum, by_id.values())) + 18
    )
    self.assertEqual(set(by_id['user']), {2, 4})

  def test_slips_are_refused(self):
    selector = search.autoemb(optax.adam(1e-2), [[1.0]], hidden=8)
    with self.assertRaisesRegex(errors.ConfigError, '2 and 4'):
      selector.init({'weights': jnp.zeros((2, 4, 2))}, jax.random.key(0), None)
    with self.assertRaisesRegex(errors.ConfigError, 'first is 0'):
      choices_lib.MixedBuckets((2, 4), ((1, 3),))


if __name__ == '__main__':
  absltest.main()
