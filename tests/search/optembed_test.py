"""OptEmbed: what is returned was measured; rows, widths and their count."""

import functools
from unittest import mock

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jax_autorec import errors, field_spaces, pipeline, search, spaces
from jax_autorec import schema as schema_lib
from jax_autorec.data import batches, planted
from jax_autorec.nn import model as model_lib
from jax_autorec.search import base, patterns, supernet
from jax_autorec.search.optembed import Evolution, evolve, kept_rows
from jax_autorec.train import models as models_lib
from jax_autorec.train import settings as settings_lib
from jax_autorec.train import steps

_DIM = 6


def _target(dims):
  """Best at (3, 7, 1, 5, 2); no two neighbours tie with it."""
  return -sum(abs(a - b) for a, b in zip(dims, (3, 7, 1, 5, 2)))


class EvolveTest(parameterized.TestCase):
  @parameterized.parameters(*range(5))
  def test_the_best_that_was_measured_is_returned(self, seed):
    """As it was measured, each once; and it beats as many random draws."""
    rng, measured = np.random.default_rng(seed), []

    def score(dims):
      self.assertIsInstance(dims, tuple)
      measured.append((dims, _target(dims) + rng.normal(scale=0.1)))
      return measured[-1][1]

    best = evolve(score, lambda dims: True, 5, 8, Evolution(seed=seed))
    self.assertLen({dims for dims, _ in measured}, len(measured))
    self.assertEqual(best, max(measured, key=lambda pair: pair[1])[0])
    for dims, _ in measured:
      self.assertTrue(all(1 <= dim <= 8 for dim in dims))
    draws = rng.integers(1, 9, (len(measured), 5))
    self.assertGreater(_target(best), max(_target(d) for d in draws))

  def test_draws_follow_from_the_seed(self):
    runs = []
    for seed in (3, 3, 4):
      seen = []
      evolve(
        lambda dims, seen=seen: seen.append(dims) or _target(dims),
        lambda dims: True,
        5,
        8,
        Evolution(generations=3, seed=seed),
      )
      runs.append(seen)
    self.assertEqual(runs[0], runs[1])
    self.assertNotEqual(runs[0], runs[2])

  def test_a_crossover_is_cut_between_fields(self):
    """Its children are the head of one candidate and the tail of another."""
    seen = []
    evolve(
      lambda dims: seen.append(dims) or float(len(seen)),
      lambda dims: True,
      4,
      50,
      Evolution(population=2, generations=1, mutations=0, crossovers=40),
    )
    parents, children = seen[:2], seen[2:]
    cuts = set()
    for child in children:
      for one, other in (parents, parents[::-1]):
        cuts |= {c for c in (1, 2, 3) if child == one[:c] + other[c:]}
      self.assertTrue(
        any(
          child == one[:c] + other[c:]
          for one, other in (parents, parents[::-1])
          for c in (1, 2, 3)
        )
      )
    self.assertEqual(cuts, {1, 2, 3})

  def test_every_candidate_meets_the_budget(self):
    sizes, seen = np.array([50, 3, 20, 8, 100]), []
    fits = lambda dims: sizes @ dims <= 400

    def score(dims):
      seen.append(dims)
      return float(sizes @ dims)  # Larger is better, up to the budget.

    best = evolve(score, fits, 5, 8, Evolution())
    self.assertTrue(all(fits(dims) for dims in seen))
    self.assertGreaterEqual(sizes @ best, 0.9 * 400)
    with self.assertRaisesRegex(errors.ConfigError, 'Not even widths of 1'):
      evolve(score, lambda dims: False, 5, 8, Evolution())

  def test_senseless_rules(self):
    with self.assertRaisesRegex(errors.ConfigError, 'An evolution of 1'):
      Evolution(population=1)
    with self.assertRaisesRegex(errors.ConfigError, 'penalty'):
      search.optembed(optax.sgd(1.0), penalty=-1.0)


@functools.cache
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


def _selectors(**options):
  rules = dict(population=6, generations=8, mutations=6, crossovers=6)
  return {
    'fields': search.optembed(
      optax.sgd(2.0), penalty=0.002, **(rules | options)
    )
  }


@functools.cache
def _found():
  data = _data()
  return pipeline.run_search(
    field_spaces.open_row_mask(spaces.fm(data.schema, dim=_DIM)),
    _selectors(price=0.1),
    data,
    settings_lib.Settings(
      batch_size=500, learning_rate=0.02, table_std=0.1, embedding_l2=1e-4
    ),
    num_steps=256,
    seed=1,
  )


def _with(selectors):
  found = _found()
  return pipeline.Found(found.space, selectors, found.state, {})


def _kept():
  found = _found()
  return kept_rows(
    found.space,
    found.state.train.tables,
    np.asarray(found.state.arch['fields']['threshold']),
  )


class DeriveTest(parameterized.TestCase):
  def test_rows_below_the_threshold_are_dropped(self):
    found = _found()
    table = np.asarray(
      found.state.train.tables[patterns.main_table(found.space)], np.float64
    )
    threshold = np.asarray(found.state.arch['fields']['threshold'])
    self.assertGreater(threshold.min(), 0.3)
    first, derived = 0, pipeline.derive(found, _data())
    for own, t, plan in zip(_kept(), threshold, derived.categorical):
      norms = np.abs(table[first : first + len(own)]).sum(1)
      np.testing.assert_array_equal(own, norms > t)
      first += len(own)
      order = derived.arrays.get(f'{plan.name}.remap', np.arange(len(own)))
      held = sum(piece.num_rows for piece in plan.all_pieces)
      if own.any() and (len(own) - own.sum()) * plan.dim <= len(own):
        # The permutation would take more than the rows.
        own = np.ones_like(own)
      self.assertEqual(held, own.sum())
      self.assertEqual(plan.remap, bool(own.any() and not own.all()))
      np.testing.assert_array_equal(order[own], np.arange(held))
      self.assertCountEqual(order, np.arange(len(own)))
    self.assertTrue(any(own.any() and not own.all() for own in _kept()))

  def test_the_derived_model_is_the_supernet_that_was_scored(self):
    """With its weights carried over, it gives the same logits."""
    found, dims = _found(), [3, 6, 1, 4, 2, 5]
    space, kept = found.space, _kept()
    derived = field_spaces.with_row_mask(space, kept, dims)
    train = found.state.train
    table = np.asarray(train.tables[patterns.main_table(space)])
    ends = np.cumsum([len(own) for own in kept])[:-1]
    rows = {
      plan.name: own_rows[own][:, :dim]
      for plan, own_rows, own, dim in zip(
        space.categorical, np.split(table, ends), kept, dims
      )
    }
    # A permutation is of ids, whatever is read by them.
    order = np.concatenate(
      [
        start + derived.arrays.get(f'{plan.name}.remap', np.arange(len(own)))
        for plan, own, start in zip(space.categorical, kept, [0, *ends])
      ]
    )
    first_order = np.empty_like(train.tables['first_order'])
    first_order[order] = train.tables['first_order']
    tables = {'first_order': jnp.asarray(first_order)}
    for plan in derived.tables:
      if plan.view == 'main':
        parts = [rows[part.field.name] for part in plan.parts]
        tables[plan.name] = jnp.asarray(np.concatenate(parts))
        self.assertEqual(tables[plan.name].shape, (plan.num_rows, plan.dim))
    batch = batches.Batches(_data().valid, 500, shuffle=False).batch(0, 0)
    choice = {
      'threshold': found.state.arch['fields']['threshold'],
      'length': np.array([dims], np.int32),
    }
    predict = supernet.make_predict(model_lib.build(space), found.selectors)
    expected = jax.jit(predict)(found.state, batch, {'fields': choice})
    got = jax.jit(steps.make_predict(model_lib.build(derived)))(
      train.params,
      tables,
      {},
      batch,
      model_lib.constants_collection(model_lib.constants(derived)),
    )
    self.assertGreater(float(jnp.std(expected)), 0.3)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)

  def test_rows_of_a_field_that_stays_whole_are_scored_as_they_are(self):
    """Where a permutation does not pay, the search sees no zeros either."""
    space, scored = _found().space, []

    def evaluate(choice):
      scored.append(choice)
      return {'auc': 0.5}

    kept = _kept()
    dims = lambda length: tuple(np.asarray(length)[0])
    whole = lambda own, dim: own.sum() * dim + len(own) >= len(own) * dim
    found = _with(_selectors(price=0.0, generations=1))
    (selector,) = found.selectors.values()
    arch = jax.device_get(found.state.arch['fields'])
    context = base.Context(space, found.state.train, evaluate)
    selector.derive(arch, (), context)
    seen = set()
    for choice in scored:
      for field, (own, dim) in enumerate(zip(kept, dims(choice['length']))):
        is_whole = bool(own.any() and whole(own, dim))
        expected = -1 if is_whole else arch['threshold'][field]
        self.assertAlmostEqual(choice['threshold'][field], expected, places=6)
        seen.add(is_whole)
    self.assertEqual(seen, {False, True})

  def test_scored_sizes_are_those_of_the_derived_model(self):
    """P5: within the budget, and as near as one more column allows."""
    whole = field_spaces.with_row_mask(_found().space, _kept(), [_DIM] * 6)
    budget = 0.6 * whole.ep_total
    found = _with(_selectors(price=0.0, max_params=budget, generations=30))
    derived = pipeline.derive(found, _data())
    self.assertLessEqual(derived.ep_total, budget)
    self.assertGreaterEqual(derived.ep_total, 0.8 * budget)

  def test_a_budget_that_holds_nothing_is_refused_before_the_search(self):
    space = _found().space
    rows = [plan.vocab_size for plan in space.categorical]
    # The smallest field at a width of 1.
    _selectors(max_params=sum(rows) + min(rows))['fields'].check(space)
    selectors = _selectors(max_params=sum(rows) + min(rows) - 1)
    with self.assertRaisesRegex(errors.ConfigError, 'cannot be met'):
      pipeline.run_search(space, selectors, _data())
    with self.assertRaisesRegex(errors.ConfigError, 'budget of -3'):
      _selectors(max_params=-3)

  def test_what_memory_costs_decides_the_widths(self):
    sizes = [
      pipeline.derive(_with(_selectors(price=price)), _data()).embedding_params
      for price in (0.0, 0.1, 100.0)
    ]
    self.assertEqual(sizes, sorted(sizes, reverse=True))
    ones = field_spaces.with_row_mask(_found().space, _kept(), [1] * 6)
    self.assertLess(sizes[2], 2 * ones.embedding_params)

  def test_stopped_and_continued_scores_nothing_twice(self):
    workdir = self.create_tempdir().full_path
    score, count = models_lib.measure, 0

    def killing(*arguments):
      nonlocal count
      count += 1
      if count == 12:
        raise KeyboardInterrupt
      return score(*arguments)

    with mock.patch.object(models_lib, 'measure', killing):
      with self.assertRaises(KeyboardInterrupt):
        pipeline.derive(_found(), _data(), workdir=workdir)
    count = 100
    derived = None
    with mock.patch.object(models_lib, 'measure', killing):
      derived = pipeline.derive(_found(), _data(), workdir=workdir)
    later = count - 100
    count = 100
    with mock.patch.object(models_lib, 'measure', killing):
      whole = pipeline.derive(_found(), _data())
      again = pipeline.derive(_found(), _data(), workdir=workdir)
    self.assertEqual(later + 11, count - 100)
    self.assertEqual(derived.to_dict(), whole.to_dict())
    self.assertEqual(again.to_dict(), whole.to_dict())

  def test_noise_fields_get_least(self):
    """P2: of their entries."""
    derived, true = pipeline.derive(_found(), _data()), _data().truth['dims']
    share = {
      plan.name: sum(p.num_rows * p.dim for p in plan.all_pieces)
      / (plan.vocab_size * _DIM)
      for plan in derived.categorical
    }
    noise = [share[name] for name in share if not true[name]]
    signal = [share[name] for name in share if true[name]]
    self.assertLess(max(noise), min(signal))

  def test_without_data_nothing_is_scored(self):
    with self.assertRaisesRegex(errors.ConfigError, 'give `derive` the data'):
      pipeline.derive(_found())

  def test_no_row_left(self):
    found = _found()
    arch = {'fields': {'threshold': jnp.full(6, 1e6)}}
    state = found.state.replace(arch=arch)
    with self.assertRaisesRegex(errors.ConfigError, 'keeps no row'):
      pipeline.derive(
        pipeline.Found(found.space, found.selectors, state, {}), _data()
      )


class SampleTest(absltest.TestCase):
  def test_every_example_and_field_draws_a_width(self):
    selector, batch = search.optembed(optax.sgd(1.0), penalty=0.5), _data()
    batch = batches.Batches(batch.train, 4000).batch(0, 0)
    choice = {'threshold': jnp.zeros(6), 'length': jnp.full((2, 6), 5)}
    arch, memory = selector.init(choice, None, None)
    draw = selector.sample(arch, memory, batch, 'weights', 0, jax.random.key(0))
    lengths = np.asarray(draw.choice['length'])
    self.assertEqual(lengths.shape, (4000, 6))
    for field in range(6):
      counts = np.bincount(lengths[:, field], minlength=6)
      self.assertEqual(counts[0], 0)
      # 800 +- 25 each.
      self.assertBetween(counts[1:].min(), 700, 800)
    correlation = np.corrcoef(lengths.T) - np.eye(6)
    self.assertLess(np.abs(correlation).max(), 0.08)
    self.assertAlmostEqual(float(draw.cost), 0.5 * 6)
    draw = selector.sample(arch, memory, batch, 'eval', 0, jax.random.key(0))
    np.testing.assert_array_equal(draw.choice['length'], 5)


class SpacesTest(absltest.TestCase):
  def test_a_whole_field_needs_no_permutation_and_an_empty_one_no_rows(self):
    schema = schema_lib.Schema(
      tuple(schema_lib.Field(name, vocab_size=5) for name in 'abc')
    )
    space = field_spaces.open_row_mask(spaces.fm(schema, dim=4))
    kept = [np.ones(5, bool), np.zeros(5, bool), np.arange(5) % 2 == 0]
    closed = field_spaces.with_row_mask(space, kept, [4, 2, 3])
    self.assertEqual(set(closed.arrays), {'c.remap'})
    np.testing.assert_array_equal(closed.arrays['c.remap'], [0, 3, 1, 4, 2])
    self.assertEqual(closed.embedding_params, 15 + 5 * 4 + 3 * 3)
    self.assertEqual(closed.ep_total, closed.embedding_params + 5)


if __name__ == '__main__':
  absltest.main()
