"""What every search method must keep to; a new method is one row."""

import functools
import json

from absl.testing import absltest, parameterized
import jax
import numpy as np
import optax

from jax_autorec import architecture as arch_lib
from jax_autorec import optim, pipeline, search, spaces
from jax_autorec.data import batches, planted
from jax_autorec.nn import model as model_lib
from jax_autorec.search import controls, supernet
from jax_autorec.train import settings as settings_lib

_STEPS = 32  # Four epochs of eight.


def _autofis():
  c = optim.grda_c(1.1, arch_lib.Products.gate_init, 1.0, 0.8, _STEPS)
  return {'interactions': search.autofis(optim.grda(1.0, c, 0.8))}


_DIMS = (2, 4)


def _buckets(schema):
  frequencies = {
    field.name: [0, 0, *range(field.vocab_size - 2, 0, -1)]
    for field in schema.categorical
  }
  return spaces.open_buckets(spaces.fm(schema), _DIMS, frequencies)


def _autoemb():
  # Counts from the vocabulary's size on down have buckets by octave.
  starts = _buckets(_data().schema).choice.starts
  counts = [[float(2**-k) for k in range(len(own))] for own in starts]
  return {'fields': search.autoemb(optax.adam(1e-2), counts, hidden=8)}


# Name -> (space of a schema, selectors).
_METHODS = {
  'autofis_fm': (
    lambda schema: spaces.fm(schema, dim=4, pairs='open'),
    _autofis,
  ),
  'autofis_ipnn': (
    lambda schema: spaces.ipnn(schema, dim=4, pairs='open', hidden=(8,)),
    _autofis,
  ),
  'autofis_order_3': (
    lambda schema: spaces.deepfm(
      schema, dim=4, pairs='open', triples='open', hidden=(8,)
    ),
    _autofis,
  ),
  'autoemb': (_buckets, _autoemb),
}


def _data(seed=0):
  return planted.generate(
    num_rows=2000, num_fields=4, num_pairs=2, max_values=20, seed=seed
  )


def _settings(**options):
  return settings_lib.Settings(
    epochs=2,
    batch_size=200,
    learning_rate=0.02,
    table_optimizer='adam',
    table_std=0.1,
    **options,
  )


def _search(name, data=None, num_steps=_STEPS, **options):
  space, selectors = _METHODS[name]
  data = data or _data()
  return pipeline.run_search(
    space(data.schema),
    selectors(),
    data,
    _settings(),
    num_steps=num_steps,
    seed=3,
    **options,
  )


@functools.cache
def _found(name):
  """One search per method, for the tests that only look at it."""
  return _search(name)


class ContractTest(parameterized.TestCase):
  @parameterized.parameters(*_METHODS)
  def test_derived_architecture_is_closed_saved_and_trained(self, name):
    data = _data()
    found = _found(name)
    derived = pipeline.derive(found)
    self.assertFalse(derived.is_open)
    directory = self.create_tempdir().full_path
    derived.save(directory)
    self.assertEqual(arch_lib.Architecture.load(directory), derived)
    model = pipeline.retrain(derived, data, _settings(), seed=1)
    self.assertTrue(np.isfinite(model.valid['auc']))
    # The model is no larger than its supernet.
    closed = controls.keep_all(found.space)
    self.assertLessEqual(derived.embedding_params, closed.embedding_params)

  @parameterized.parameters(*_METHODS)
  def test_stopped_and_continued_ends_with_the_same_bits(self, name):
    """Though all labels of the test split are turned meanwhile."""
    expected = _found(name)
    workdir = self.create_tempdir().full_path
    data = _data()
    # Stops half-way; the second call continues.
    _search(name, data, num_steps=_STEPS // 2, workdir=workdir)
    data.test.labels[:] = 1 - data.test.labels
    found = _search(name, data, workdir=workdir)
    for part in ('arch', 'memory', 'arch_optimizer'):
      jax.tree.map(
        np.testing.assert_array_equal,
        getattr(found.state, part),
        getattr(expected.state, part),
      )
    jax.tree.map(
      np.testing.assert_array_equal,
      found.state.train.tables,
      expected.state.train.tables,
    )
    self.assertEqual(pipeline.derive(found), pipeline.derive(expected))

  @parameterized.parameters(*_METHODS)
  def test_choices_have_the_shapes_that_modules_read(self, name):
    """And what a draw weighs is per batch or per row."""
    found, data = _found(name), _data()
    model = model_lib.build(found.space)
    rows = 8
    batch = batches.Batches(data.train, rows).batch(0, 0)
    variables = jax.eval_shape(
      lambda: model.init(jax.random.key(0), batch, train=False)
    )
    for phase in ('weights', 'arch'):
      draws = supernet.sample_all(
        found.selectors,
        found.state.arch,
        found.state.memory,
        batch,
        phase,
        found.state.train.step,
        jax.random.key(0),
      )
      for slot, draw in draws.items():
        expected = variables['arch']
        for part in slot.split('/'):
          expected = expected[part]
        shapes = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype), tree)
        self.assertEqual(shapes(draw.choice), shapes(expected))
        for value in (draw.log_prob, draw.baseline, draw.cost):
          self.assertIn(np.shape(value), ((), (rows,)))
      self.assertEqual(
        supernet.surrogate(np.ones(rows, np.float32), draws).shape, (rows,)
      )

  @parameterized.parameters(*_METHODS)
  def test_records_are_plain_values(self, name):
    found = _found(name)
    for selector_slot, selector in found.selectors.items():
      values = selector.record(
        jax.device_get(found.state.arch[selector_slot]),
        jax.device_get(found.state.memory[selector_slot]),
      )
      self.assertEqual(json.loads(json.dumps(values)), values)


if __name__ == '__main__':
  absltest.main()
