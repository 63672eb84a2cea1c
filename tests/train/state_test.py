import functools

from absl.testing import absltest
import chex
import jax
import numpy as np

from jax_autorec import schema as schema_lib
from jax_autorec import spaces
from jax_autorec.nn import model as model_lib
from jax_autorec.train import settings, state, steps

_SCHEMA = schema_lib.Schema(
  (
    schema_lib.Field('a', vocab_size=4000),
    schema_lib.Field('b', vocab_size=60, max_length=2),
    schema_lib.Field('c', 'numeric'),
  )
)


@functools.cache
def _init(seed=0, pairs='all'):
  architecture = spaces.deepfm(_SCHEMA, dim=3, hidden=(5,), pairs=pairs)
  model = model_lib.build(architecture)
  optimizer = settings.make_optimizer(settings.Settings(), architecture)
  example = state.example_batch(_SCHEMA)
  key = jax.random.key(seed)
  return model, optimizer, state.init(model, optimizer, example, key, 0.3)


class StateTest(absltest.TestCase):
  def test_holds_tables_apart_from_other_parameters(self):
    model, _, (train, rest) = _init()
    sizes = {t.name: (t.num_rows, t.dim) for t in model.architecture.tables}
    self.assertEqual(jax.tree.map(lambda t: t.shape, train.tables), sizes)
    self.assertNoCommonElements(sizes, train.params['embeddings'])
    self.assertEqual(rest, {})
    self.assertEqual((train.step, train.learning_rate_scale), (0, 1))

  def test_open_choices_come_back_beside_the_state(self):
    _, _, (train, rest) = _init(pairs='open')
    self.assertEqual(list(rest), ['arch'])
    (gate,) = jax.tree.leaves(rest)
    self.assertEqual(gate.shape, (3,))
    self.assertNotIn('interactions', train.params)

  def test_follows_from_the_key_alone(self):
    tables = [_init(seed)[2][0].tables['main_dim_3'] for seed in (0, 0, 1)]
    np.testing.assert_array_equal(tables[0], tables[1])
    self.assertFalse(np.allclose(tables[0], tables[2], atol=0.05))
    self.assertAlmostEqual(float(tables[0].std()), 0.3, delta=0.01)
    self.assertAlmostEqual(float(tables[0].mean()), 0, delta=0.01)

  def test_every_leaf_can_be_donated_and_nothing_is_compiled_twice(self):
    model, optimizer, (train, _) = _init.__wrapped__()  # Will be donated.
    leaves = jax.tree.leaves(train)
    weak = [getattr(leaf, 'weak_type', False) for leaf in leaves]
    self.assertNotIn(True, weak)
    buffers = {leaf.unsafe_buffer_pointer() for leaf in leaves[1:]}
    self.assertLen(buffers, len(leaves) - 1)
    step = steps.make_train_step(model, optimizer)
    step = jax.jit(chex.assert_max_traces(step, n=1), donate_argnums=0)
    batch = state.example_batch(_SCHEMA, 4)
    for _ in range(3):
      before, (train, _) = train, step(train, batch)
      self.assertTrue(all(x.is_deleted() for x in jax.tree.leaves(before)))
    self.assertEqual(train.step, 3)


if __name__ == '__main__':
  absltest.main()
