"""What every search method must keep to; a new method is one row."""

import functools

from absl.testing import absltest, parameterized
import jax
import numpy as np

from jax_autorec import architecture as arch_lib
from jax_autorec import optim, pipeline, search, spaces
from jax_autorec.data import planted
from jax_autorec.nn import model as model_lib
from jax_autorec.search import controls
from jax_autorec.train import settings as settings_lib

_STEPS = 30


def _autofis():
  c = optim.grda_c(1.1, arch_lib.Products.gate_init, 1.0, 0.8, _STEPS)
  return {'interactions': search.autofis(optim.grda(1.0, c, 0.8))}


# Name -> (space of a schema, selectors).
_METHODS = {
  'autofis_fm': (
    lambda schema: spaces.fm(schema, dim=4, pairs='open'),
    _autofis,
  ),
  'autofis_deepfm': (
    lambda schema: spaces.deepfm(schema, dim=4, pairs='open', hidden=(8,)),
    _autofis,
  ),
  'autofis_ipnn': (
    lambda schema: spaces.ipnn(schema, dim=4, pairs='open', hidden=(8,)),
    _autofis,
  ),
  'autofis_order_3': (
    lambda schema: spaces.fm(schema, dim=4, pairs='open', triples='open'),
    _autofis,
  ),
}


def _data(seed=0):
  return planted.generate(
    num_rows=2000, num_fields=4, num_pairs=2, max_values=20, seed=seed
  )


def _settings(**options):
  return settings_lib.Settings(
    epochs=2,
    batch_size=256,
    learning_rate=0.02,
    table_optimizer='adam',
    table_std=0.1,
    **options,
  )


def _search(name, data=None, **options):
  space, selectors = _METHODS[name]
  data = data or _data()
  return pipeline.run_search(
    space(data.schema),
    selectors(),
    data,
    _settings(),
    num_steps=_STEPS,
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
  def test_killed_search_ends_with_the_same_bits(self, name):
    expected = _found(name)
    workdir = self.create_tempdir().full_path
    space, selectors = _METHODS[name]
    data = _data()
    # Stops after half the steps, as a kill between two saves would.
    pipeline.run_search(
      space(data.schema),
      selectors(),
      data,
      _settings(),
      num_steps=16,
      seed=3,
      workdir=workdir,
    )
    found = _search(name, workdir=workdir)
    jax.tree.map(
      np.testing.assert_array_equal, found.state.arch, expected.state.arch
    )
    jax.tree.map(
      np.testing.assert_array_equal,
      found.state.train.tables,
      expected.state.train.tables,
    )

  @parameterized.parameters(*_METHODS)
  def test_test_split_decides_nothing(self, name):
    """Labels of the test split flipped: not a bit changes."""
    data = _data()
    expected = _found(name)
    data.test.labels[:] = 1 - data.test.labels
    found = _search(name, data)
    jax.tree.map(
      np.testing.assert_array_equal, found.state.arch, expected.state.arch
    )
    model = pipeline.retrain(pipeline.derive(found), data, _settings(), seed=1)
    again = pipeline.retrain(
      pipeline.derive(expected), _data(), _settings(), seed=1
    )
    self.assertEqual(model.valid, again.valid)

  @parameterized.parameters(*_METHODS)
  def test_records_are_plain_values(self, name):
    found = _found(name)
    for selector_slot, selector in found.selectors.items():
      values = selector.record(
        jax.device_get(found.state.arch[selector_slot]),
        jax.device_get(found.state.memory[selector_slot]),
      )
      for leaf in jax.tree.leaves(values):
        self.assertIsInstance(leaf, int | float | str | bool)


class AutofisTest(absltest.TestCase):
  def test_finds_the_only_planted_pair(self):
    data = planted.generate(
      num_rows=100_000, num_fields=5, num_pairs=1, std=1.0
    )
    settings = settings_lib.Settings(
      batch_size=2000,
      learning_rate=0.02,
      table_optimizer='dense_adam',
      table_std=0.1,
      embedding_l2=1e-4,
    )
    c = optim.grda_c(4.0, arch_lib.Products.gate_init, 1.0, 0.8, 240)
    found = pipeline.run_search(
      spaces.fm(data.schema, dim=8, pairs='open'),
      {'interactions': search.autofis(optim.grda(1.0, c, 0.8))},
      data,
      settings,
      num_steps=240,
    )
    kept = pipeline.derive(found).interactions[0].terms
    self.assertEqual(set(kept), {tuple(p) for p in data.truth['pairs']})

  def test_derives_exactly_the_open_gates(self):
    schema = _data().schema
    space = spaces.fm(schema, dim=4, pairs='open', triples='open')
    gates = {
      'pairs': {'gate': np.array([0, 0.2, 0, -0.1, 0, 0], np.float32)},
      'triples': {'gate': np.zeros(4, np.float32)},
    }
    selector = search.autofis(optim.grda(1.0, 0.1, 0.8), keep_gates=True)
    derived = selector.derive(gates, (), {}, space)
    (plan,) = derived.interactions
    terms = space.interactions[0].terms
    self.assertEqual(plan.terms, (terms[1], terms[3]))
    np.testing.assert_allclose(plan.initial_gates, [0.2, -0.1], rtol=1e-6)
    model = model_lib.build(derived)
    data = _data()
    from jax_autorec.train import state as state_lib

    params = model.init(
      jax.random.key(0), state_lib.example_batch(data.schema)
    )['params']
    np.testing.assert_allclose(
      params['interactions']['pairs']['gate'], [0.2, -0.1], rtol=1e-6
    )

  def test_nothing_left_is_an_error_that_says_what_to_try(self):
    schema = _data().schema
    space = spaces.fm(schema, dim=4, pairs='open')
    gates = {'pairs': {'gate': np.zeros(6, np.float32)}}
    with self.assertRaisesRegex(Exception, 'closed all 6 gates: lower'):
      search.autofis(optim.grda(1.0, 0.1, 0.8)).derive(gates, (), {}, space)


class ControlsTest(absltest.TestCase):
  def test_random_subset_has_the_size_found_and_follows_its_seed(self):
    schema = _data().schema
    space = spaces.fm(schema, dim=4, pairs='open', triples='open')
    found = spaces.fm(
      schema,
      dim=4,
      pairs=space.interactions[0].terms[:2],
      triples=space.interactions[1].terms[:1],
    )
    drawn = {controls.random_subset(space, found, seed) for seed in range(20)}
    self.assertGreater(len(drawn), 5)
    for control in drawn:
      pairs, triples = control.interactions
      self.assertLen(set(pairs.terms), 2)
      self.assertLen(set(triples.terms), 1)
      self.assertTrue(pairs.normalize)
    self.assertEqual(
      controls.random_subset(space, found, 4),
      controls.random_subset(space, found, 4),
    )


if __name__ == '__main__':
  absltest.main()
