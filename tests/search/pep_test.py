"""PEP: the density that ends it, the ticket that is kept, noise fields."""

import dataclasses
import functools

from absl.testing import absltest, parameterized
import jax
import numpy as np
import optax

from jax_autorec import architecture as arch_lib
from jax_autorec import choices as choices_lib
from jax_autorec import errors, field_spaces, pipeline, search, spaces
from jax_autorec.data import planted
from jax_autorec.nn import lookups
from jax_autorec.search import base, patterns, supernet
from jax_autorec.train import models as models_lib
from jax_autorec.train import retraining
from jax_autorec.train import settings as settings_lib

_DIM, _DENSITY = 6, 0.3


def _data():
  """Two of six fields are in no pair, and have no effect of their own."""
  return planted.generate(
    num_rows=20_000,
    num_fields=6,
    num_pairs=2,
    max_values=30,
    first_order_std=0.0,
    std=1.5,
    seed=1,
  )


def _search(num_steps=480, granularity='field_dim', rate=0.2, **options):
  data = _data()
  tx = optax.chain(optax.add_decayed_weights(1e-2), optax.adam(rate))
  space = field_spaces.open_thresholds(
    spaces.fm(data.schema, dim=_DIM), granularity=granularity, row_scale=5.0
  )
  return pipeline.run_search(
    space,
    {'fields': search.pep(tx, density=_DENSITY)},
    data,
    settings_lib.Settings(
      batch_size=500, learning_rate=0.02, table_std=0.1, embedding_l2=1e-4
    ),
    num_steps=num_steps,
    seed=1,
    **options,
  )


@functools.cache
def _found(granularity='field_dim'):
  return _search(granularity=granularity)


def _margins(found):
  """|v| - sigmoid(s) of the whole table, in float64: [R, D]."""
  tables = found.state.train.tables
  table = np.asarray(tables[patterns.main_table(found.space)], np.float64)
  s = np.asarray(found.state.arch['fields']['threshold'], np.float64)
  sizes = [plan.vocab_size for plan in found.space.categorical]
  if len(s) > 1:
    s = np.repeat(s, sizes, axis=0)
  if choices_lib.ROW_CHOICE in tables:
    s = s + 5.0 * np.asarray(tables[choices_lib.ROW_CHOICE], np.float64)
  return np.abs(table) - 1 / (1 + np.exp(-s))


def _kept(architecture):
  """The bits of all fields: [R, D]."""
  return np.concatenate(
    [
      np.unpackbits(architecture.arrays[f'{plan.name}.bits'], 1, _DIM)
      if plan.num_values
      else np.zeros((plan.vocab_size, _DIM), np.uint8)
      for plan in architecture.categorical
    ]
  ).astype(bool)


class SearchTest(parameterized.TestCase):
  @parameterized.parameters('field_dim', 'feature')
  def test_ends_with_the_first_density_below_the_target(self, granularity):
    found = _found(granularity)
    self.assertLess(found.info['steps'], 480)
    self.assertEqual(found.info['steps'] % 32, 0)
    measure = found.selectors['fields'].measure
    context = base.Context(found.space, found.state.train)
    values, ends = measure(
      jax.device_get(found.state.arch['fields']), (), context
    )
    self.assertTrue(ends)
    self.assertAlmostEqual(values['density'], (_margins(found) > 0).mean(), 6)
    # One epoch earlier it was not there.
    earlier = _search(found.info['steps'] - 32, granularity)
    self.assertGreater((_margins(earlier) > 0).mean(), _DENSITY)

  def test_stopped_and_continued_ends_at_the_same_place(self):
    workdir = self.create_tempdir().full_path
    _search(64, workdir=workdir)
    again = _search(workdir=workdir)
    self.assertEqual(again.info['steps'], _found().info['steps'])
    jax.tree.map(
      np.testing.assert_array_equal,
      again.state.train.tables,
      _found().state.train.tables,
    )
    # A run that has ended stays ended.
    third = _search(workdir=workdir)
    self.assertEqual(third.info['steps'], again.info['steps'])

  def test_a_target_out_of_reach(self):
    found = _search(32, rate=1e-3)
    with self.assertLogs('absl', 'WARNING') as logs:
      kept = _kept(pipeline.derive(found))
    self.assertIn('Raise search.travel', logs.output[0])
    self.assertEqual(kept.sum(), round(_DENSITY * kept.size))


class DeriveTest(parameterized.TestCase):
  @parameterized.parameters('field_dim', 'feature')
  def test_the_largest_margins_are_kept(self, granularity):
    found = _found(granularity)
    kept, margins = _kept(pipeline.derive(found)), _margins(found)
    count = round(_DENSITY * kept.size)
    self.assertEqual(kept.sum(), count)
    # All that are not zero, and of the others the nearest.
    self.assertTrue(np.all(kept[margins > 1e-6]))
    self.assertGreater(margins[kept].min(), margins[~kept].max() - 1e-6)

  def test_retraining_starts_from_where_the_entries_started(self):
    found = _found()
    derived = pipeline.derive(found)
    fresh = _search(1)  # Too few steps to matter: its start is the same.
    seed, table_std = found.start
    self.assertEqual((seed, table_std), fresh.start)
    start = supernet.initial_tables(
      found.space, found.selectors, jax.random.key(seed), table_std
    )
    name = patterns.main_table(found.space)
    expected = np.asarray(start[name])[_kept(derived)]
    tables = lookups.init_tables(derived, jax.random.key(77), 0.5)
    np.testing.assert_array_equal(tables['main_sparse'][:, 0], expected)
    # And it is where the search started: one step of Adam away.
    moved = np.abs(np.asarray(fresh.state.train.tables[name]) - start[name])
    self.assertLess(moved.max(), 0.021)
    self.assertGreater(np.std(expected), 0.05)

  def test_a_saved_model_has_no_start(self):
    derived = pipeline.derive(_found())
    model = retraining.retrain(
      derived, _data(), settings_lib.Settings(epochs=1, batch_size=500)
    )
    directory = self.create_tempdir().full_path
    models_lib.save(model, directory)
    loaded = models_lib.load(directory)
    names = set(loaded.architecture.arrays)
    self.assertFalse([n for n in names if n.startswith(arch_lib.INITIAL)])
    self.assertEqual(names, set(derived.constants))
    self.assertEqual(
      sum(x.size for x in loaded.tables.values()), derived.embedding_params
    )

  def test_a_budget_ends_the_search_and_is_met(self):
    """P5. Fields that have closed altogether cost no pattern."""
    found = _found()
    raised = np.array(found.state.arch['fields']['threshold'])
    raised[4] = 50.0
    arch = {'threshold': raised}
    state = found.state.replace(arch={'fields': arch})
    found = dataclasses.replace(found, state=state)
    space = found.space
    margins, sizes = _margins(found), [p.vocab_size for p in space.categorical]
    counts = [int((m > 0).sum()) for m in np.split(margins, np.cumsum(sizes))]
    index = sum(n * 5 / 4 for n, kept in zip(sizes, counts) if kept)
    self.assertEqual(counts[4], 0)
    budget = sum(sizes) + sum(counts) + index
    context = base.Context(space, found.state.train)
    for extra, expected in ((0, True), (-1, False), (60, True)):
      selector = search.pep(optax.adam(0.1), max_params=budget + extra)
      self.assertEqual(selector.measure(arch, (), context)[1], expected)
      derived = selector.derive(arch, (), context)
      self.assertBetween(derived.ep_total, budget + extra - 1, budget + extra)

  def test_a_budget_that_holds_nothing_is_refused_before_the_search(self):
    selectors = {'fields': search.pep(optax.adam(0.1), max_params=9)}
    with self.assertRaisesRegex(errors.ConfigError, 'cannot be met'):
      pipeline.run_search(_found().space, selectors, _data())
    with self.assertRaisesRegex(errors.ConfigError, 'budget of -3'):
      search.pep(optax.adam(0.1), max_params=-3)

  def test_noise_fields_keep_least(self):
    """P2."""
    derived, true = pipeline.derive(_found()), _data().truth['dims']
    share = {
      plan.name: plan.num_values / (plan.vocab_size * _DIM)
      for plan in derived.categorical
    }
    noise = [share[name] for name in share if not true[name]]
    signal = [share[name] for name in share if true[name]]
    self.assertLess(max(noise), 0.25 * min(signal))


if __name__ == '__main__':
  absltest.main()
