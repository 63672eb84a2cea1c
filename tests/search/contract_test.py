"""What every search method must keep to; a new method is one row."""

import functools
import json
import pathlib
import subprocess
import sys

from absl.testing import absltest, parameterized
import jax
import numpy as np
import optax

from jax_autorec import architecture as arch_lib
from jax_autorec import optim, pipeline, search, spaces
from jax_autorec import schema as schema_lib
from jax_autorec.data import batches, planted
from jax_autorec.nn import model as model_lib
from jax_autorec.search import controls, supernet
from jax_autorec.train import parallel
from jax_autorec.train import settings as settings_lib
from jax_autorec.train import state as state_lib

_STEPS = 32  # Four epochs of eight.


def _autofis():
  c = optim.grda_c(1.1, arch_lib.Products.gate_init, 1.0, 0.8, _STEPS)
  return {'interactions': search.autofis(optim.grda(1.0, c, 0.8))}


def _pep():
  tx = optax.chain(optax.add_decayed_weights(0.1), optax.adam(0.5))
  return {'fields': search.pep(tx, density=0.3)}


def _columns(schema):
  return spaces.open_columns(spaces.deepfm(schema, dim=4, hidden=(8,)))


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
  'sseds': (_columns, lambda: {'fields': search.sseds(0.5)}),
  'autosrh': (
    lambda schema: spaces.open_columns(spaces.fm(schema, dim=4), 3),
    lambda: {'fields': search.autosrh(warmup=8, period=2, density=0.3)},
  ),
  'optembed': (
    lambda schema: spaces.open_rows(spaces.fm(schema, dim=4)),
    lambda: {
      'fields': search.optembed(
        optax.sgd(1.0),
        penalty=0.01,
        population=4,
        generations=2,
        mutations=2,
        crossovers=2,
        price=0.1,
      )
    },
  ),
  **{
    f'pep_{granularity}': (
      lambda schema, granularity=granularity: spaces.open_thresholds(
        spaces.fm(schema, dim=4), granularity=granularity
      ),
      _pep,
    )
    for granularity in ('field_dim', 'feature')
  },
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


@functools.cache
def _derived(name):
  return pipeline.derive(_found(name), _data())


@functools.cache
def _retrained(name):
  return pipeline.retrain(_derived(name), _data(), _settings(), seed=1)


# Methods whose derived tables are smaller than those that are searched.
_SHRINKING = ('sseds', 'autosrh', 'pep_feature', 'optembed')

# Names, shapes and sizes of all that a saved model holds.
_LIST = """
import sys
import jax
from jax_autorec import pipeline
for directory in sys.argv[1:]:
  model = pipeline.load(directory)
  arrays = jax.tree.leaves((model.params, model.tables, model.batch_stats))
  arrays += list(model.architecture.arrays.values())
  print(max(x.size for x in arrays), sum(x.size for x in model.tables.values()))
"""


class ContractTest(parameterized.TestCase):
  @parameterized.parameters(*_METHODS)
  def test_derived_architecture_is_closed_saved_and_trained(self, name):
    found, derived = _found(name), _derived(name)
    self.assertFalse(derived.is_open)
    directory = self.create_tempdir().full_path
    derived.save(directory)
    self.assertEqual(arch_lib.Architecture.load(directory), derived)
    self.assertTrue(np.isfinite(_retrained(name).valid['auc']))
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
    again = pipeline.derive(found, data)
    self.assertEqual(again.to_dict(), _derived(name).to_dict())

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

  def test_a_fresh_process_finds_no_array_of_the_full_size(self):
    directories = [self.create_tempdir().full_path for _ in _SHRINKING]
    for name, directory in zip(_SHRINKING, directories):
      pipeline.save(_retrained(name), directory)
    lines = subprocess.run(
      [sys.executable, '-c', _LIST, *directories],
      cwd=pathlib.Path(__file__).parent.parent.parent,
      check=True,
      capture_output=True,
      text=True,
    ).stdout.splitlines()
    self.assertLen(lines, len(_SHRINKING))
    for name, line in zip(_SHRINKING, lines):
      largest, tables = map(int, line.split())
      full = [t.num_rows * t.dim for t in _found(name).space.tables]
      self.assertLess(largest, 0.9 * max(full), name)
      self.assertEqual(tables, _derived(name).embedding_params)

  @parameterized.parameters(*_METHODS)
  def test_no_step_costs_with_the_vocabulary(self, name):
    """Neither scratch memory nor work, nor a copy of what is donated."""
    small, large = (_compiled(name, vocab) for vocab in (2000, 50_000))
    memory = [c.memory_analysis() for c in (small, large)]
    self.assertEqual(*(m.temp_size_in_bytes for m in memory))
    for m in memory:
      fresh = m.output_size_in_bytes - m.alias_size_in_bytes
      self.assertLess(fresh, 1000)
    flops = [c.cost_analysis()['flops'] for c in (small, large)]
    self.assertLess(flops[1], 1.01 * flops[0])


def _compiled(name, vocab):
  """The program of a search's step over fields of some vocabulary."""
  make_space, make_selectors = _METHODS[name]
  schema = schema_lib.Schema(
    tuple(schema_lib.Field(f, vocab_size=vocab) for f in 'abcd')
  )
  space, selectors, settings = make_space(schema), make_selectors(), _settings()
  model = model_lib.build(space)
  optimizer = settings_lib.make_optimizer(settings, space)
  batch = state_lib.example_batch(schema, 200)
  state = jax.eval_shape(
    lambda: supernet.init(model, optimizer, selectors, batch, jax.random.key(0))
  )
  program = parallel.compile_steps(
    supernet.make_step(model, optimizer, selectors)
  )
  stacked = jax.tree.map(lambda x: x[None], (batch, batch))
  return program.run.lower(state, stacked).compile()


if __name__ == '__main__':
  absltest.main()
