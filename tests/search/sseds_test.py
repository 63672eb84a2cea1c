"""SSEDS: saliency against differences of the loss, budgets, noise fields."""

import dataclasses
import functools

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from jax_autorec import data as data_lib
from jax_autorec import (
  errors,
  field_spaces,
  numeric,
  numeric_spaces,
  pipeline,
  search,
  spaces,
)
from jax_autorec import schema as schema_lib
from jax_autorec.data import batches, planted
from jax_autorec.nn import model as model_lib
from jax_autorec.search import base, supernet
from jax_autorec.search.sseds import keep_columns, mean_saliency
from jax_autorec.train import models as models_lib
from jax_autorec.train import settings as settings_lib
from jax_autorec.train import state as state_lib

_DIM = 6


def _settings():
  return settings_lib.Settings(
    batch_size=500, learning_rate=0.02, table_std=0.1, embedding_l2=1e-4
  )


@functools.cache
def _found(share=0.15, seed=1):
  """Two of six fields are in no pair, and have no effect of their own."""
  data = planted.generate(
    num_rows=20_000,
    num_fields=6,
    num_pairs=2,
    max_values=30,
    first_order_std=0.0,
    std=1.5,
    seed=seed,
  )
  space = field_spaces.open_columns(spaces.fm(data.schema, dim=_DIM))
  selectors = {'fields': search.sseds(share)}
  found = pipeline.run_search(
    space, selectors, data, _settings(), num_steps=128, seed=seed
  )
  return data, found


def _dims(architecture):
  return [
    0 if plan.pieces == () else plan.dim for plan in architecture.categorical
  ]


class SaliencyTest(absltest.TestCase):
  def test_slopes_are_differences_of_the_validation_loss(self):
    data, found = _found()
    model = model_lib.build(found.space)
    predict = jax.jit(supernet.make_predict(model, found.selectors))
    rows = data.valid.num_rows
    seen = []

    class Spy:
      def derive(self, arch, memory, context):
        ones = np.ones((6, _DIM), np.float32)
        ((grads, _),) = context.gradients({'mask': ones})
        seen.append(grads['mask'])
        return field_spaces.with_dims(context.architecture, [1] * 6)

    spied = {'fields': found.selectors['fields']._replace(derive=Spy().derive)}
    pipeline.derive(
      pipeline.Found(found.space, spied, found.state, {}), data, rows
    )
    batch = next(batches.in_order(data.valid, rows))

    def loss(mask):
      logits = predict(found.state, batch, {'fields': {'mask': mask}})
      logits = np.asarray(logits, np.float64)
      return np.mean(np.logaddexp(0, logits) - batch.labels * logits)

    for field, column in ((0, 0), (2, 3), (5, 5)):
      bump = np.zeros((6, _DIM), np.float32)
      bump[field, column] = 0.02
      slope = (loss(1 + bump) - loss(1 - bump)) / 0.04
      self.assertGreater(abs(slope), 1e-4)
      np.testing.assert_allclose(seen[0][field, column], slope, rtol=0.01)

  def test_average_is_of_sizes_by_weight_and_sums_to_one(self):
    rng = np.random.default_rng(0)
    grads, weights = rng.normal(size=(7, 3, 4)), rng.uniform(1, 9, 7)
    saliency = mean_saliency(zip(grads, weights))
    np.testing.assert_allclose(saliency.sum(), 1)
    expected = np.average(np.abs(grads), axis=0, weights=weights)
    np.testing.assert_allclose(saliency, expected / expected.sum())
    with self.assertRaisesRegex(errors.ConfigError, 'train longer'):
      mean_saliency(zip(np.zeros((2, 3, 4)), (1, 1)))

  def test_a_short_last_batch_decides_nothing(self):
    """Slopes of 500 rows, and of 10: one column has a true one."""
    rng = np.random.default_rng(1)
    trials, right = 200, 0
    for _ in range(trials):
      rows = np.array([500, 500, 500, 500, 10])
      grads = rng.normal(size=(5, 1, 20)) / np.sqrt(rows)[:, None, None]
      grads[:, 0, 7] += 0.15
      right += np.argmax(mean_saliency(zip(grads, rows))) == 7
    self.assertGreater(right, 0.95 * trials)

  def test_a_batch_weighs_what_its_rows_do(self):
    """The last has 1 of 5 rows; weights count, padding does not."""
    data, found = _found()
    rows = dataclasses.replace(
      data.valid.head(9), weights=np.float32([1, 2, 3, 4, 5, 6, 7, 8, 9])
    )
    seen = []

    def derive(arch, memory, context):
      choice = {'mask': memory['ones']}
      seen.extend(weight for _, weight in context.gradients(choice))
      return field_spaces.with_dims(context.architecture, [1] * 6)

    spied = {'fields': found.selectors['fields']._replace(derive=derive)}
    pipeline.derive(
      pipeline.Found(found.space, spied, found.state, {}),
      dataclasses.replace(data, valid=rows),
      5,
    )
    self.assertEqual(seen, [15, 30])

  def test_a_dead_column_is_not_salient_and_never_kept(self):
    """A column of zeros, in a field that is kept, under an ample budget."""
    data, found = _found()
    (name,) = [t for t in found.state.train.tables if t != 'first_order']
    start = found.space.categorical[0].vocab_size
    end = start + found.space.categorical[1].vocab_size
    tables = dict(found.state.train.tables)
    tables[name] = tables[name].at[start:end, 2].set(0.0)
    state = found.state.replace(train=found.state.train.replace(tables=tables))
    ample = {'fields': search.sseds(1.0)}
    derived = pipeline.derive(
      pipeline.Found(found.space, ample, state, {}), data
    )
    self.assertEqual(_dims(derived), [_DIM, _DIM - 1] + [_DIM] * 4)


class ShareTest(absltest.TestCase):
  def test_it_is_of_the_tables_of_ids(self):
    """Buckets of numbers have no columns to choose, however many they are."""
    fields = [schema_lib.Field(name, vocab_size=10) for name in 'ab']
    schema = schema_lib.Schema((*fields, schema_lib.Field('x', 'numeric')))
    plain = spaces.fm(schema, dim=4, numeric=numeric.EqualWidth(40))
    values = np.linspace(0, 1, 50, dtype=np.float32)[:, None]
    train = data_lib.Split(
      ids=np.zeros((50, 2), np.int32),
      numeric=values,
      missing=np.zeros((50, 1), bool),
      labels=np.zeros(50, np.float32),
    )
    space = field_spaces.open_columns(numeric_spaces.fit(plain, train))
    selector = search.sseds(0.5)
    _, memory = selector.init({'mask': jnp.ones((2, 4))}, None, None)
    slopes = np.array([[4.0, 3.0, 2.0, 0.1], [1.0, 0.5, 0.2, 0.1]])
    context = base.Context(
      space, None, None, lambda choice: [({'mask': slopes}, 1.0)]
    )
    found = selector.derive((), memory, context)
    # Half of the 8 columns.
    self.assertEqual([plan.dim for plan in found.categorical], [3, 1])


class BudgetTest(parameterized.TestCase):
  def _space(self, sizes, dim=8):
    schema = schema_lib.Schema(
      tuple(
        schema_lib.Field(f'f{i}', vocab_size=size)
        for i, size in enumerate(sizes)
      )
    )
    return field_spaces.open_columns(spaces.fm(schema, dim=dim))

  @parameterized.parameters(3, 7, 16, 24)
  def test_ties_fill_the_budget_exactly(self, count):
    """Equal saliency, equal sizes: so many columns, the first ones."""
    space = self._space([10, 10, 10])
    vectors = lambda a: a.embedding_params - a.first_order_params
    found = keep_columns(
      space, np.full((3, 8), 1 / 24), vectors, 10 * count + 9
    )
    dims = _dims(found)
    self.assertEqual(sum(dims), count)
    self.assertEqual(dims, [min(8, max(0, count - 8 * i)) for i in range(3)])

  @parameterized.parameters(2500, 4000, 9000)
  def test_all_that_the_columns_bring_along_is_within(self, budget):
    """P5: the model that is built holds it, and uses it."""
    rng = np.random.default_rng(budget)
    space = self._space([300, 120, 80, 45, 30, 9, 4, 260], dim=16)
    saliency = rng.dirichlet(np.ones(128)).reshape(8, 16)
    found = keep_columns(space, saliency, lambda a: a.ep_total, budget)
    self.assertLessEqual(found.ep_total, budget)
    self.assertGreaterEqual(found.ep_total, 0.9 * budget)
    model = models_lib.Model(found, *_variables(found), {}, {})
    held = sum(x.size for x in model.tables.values())
    projections = jax.tree.leaves(model.params.get('embeddings', {}))
    self.assertEqual(held, found.embedding_params)
    self.assertEqual(
      held + sum(x.size for x in projections), int(found.ep_total)
    )

  def test_the_most_salient_go_first(self):
    space = self._space([10, 20, 10], dim=2)
    saliency = np.array([[0.1, 0.05], [0.5, 0.2], [0.03, 0.12]])
    vectors = lambda a: a.embedding_params - a.first_order_params
    dims = lambda budget: _dims(keep_columns(space, saliency, vectors, budget))
    self.assertEqual(dims(40), [0, 2, 0])
    self.assertEqual(dims(50), [0, 2, 1])
    # The second of field 1 does not fit; the next ones do.
    self.assertEqual(dims(35), [0, 1, 1])
    self.assertEqual(dims(80), [2, 2, 2])

  def test_a_budget_that_holds_nothing(self):
    space = self._space([10, 20], dim=2)
    with self.assertRaisesRegex(errors.ConfigError, 'No column fits'):
      keep_columns(space, np.full((2, 2), 0.25), lambda a: a.ep_total, 35)

  def test_a_budget_that_holds_nothing_is_refused_before_the_search(self):
    space = self._space([10, 20], dim=2)
    # A column of the field of 10, and its map to both.
    least = 30 + 10 + 2
    search.sseds(max_params=least).check(space)
    with self.assertRaisesRegex(errors.ConfigError, 'needs 42, of which 30'):
      search.sseds(max_params=least - 1).check(space)
    data, found = _found()
    with self.assertRaisesRegex(errors.ConfigError, 'cannot be met'):
      pipeline.run_search(
        found.space, {'fields': search.sseds(max_params=9)}, data, _settings()
      )

  def test_senseless_options(self):
    with self.assertRaisesRegex(errors.ConfigError, 'share'):
      search.sseds(0.0)
    with self.assertRaisesRegex(errors.ConfigError, 'budget of -3'):
      search.sseds(max_params=-3)


def _variables(architecture):
  schema = schema_lib.Schema(
    tuple(
      schema_lib.Field(plan.name, vocab_size=plan.vocab_size)
      for plan in architecture.categorical
    )
  )
  tables, variables = state_lib.init_variables(
    model_lib.build(architecture),
    state_lib.example_batch(schema),
    jax.random.key(0),
    jnp.float32(0.1),
  )
  return variables['params'], tables, {}


class TrainingTest(absltest.TestCase):
  def test_it_stops_as_a_training_and_reads_the_best_weights(self):
    data, found = _found()
    settings = dataclasses.replace(
      _settings(), learning_rate=0.1, embedding_l2=0.0
    )
    overfitted = pipeline.run_search(
      found.space, found.selectors, data, settings, num_steps=3200, seed=1
    )
    self.assertLess(overfitted.info['steps'], 3200)
    best = overfitted.info['best_step']
    self.assertLess(best, overfitted.info['steps'])
    self.assertEqual(int(overfitted.state.train.step), best)


class PlantedTest(absltest.TestCase):
  def test_noise_fields_lose_their_columns(self):
    data, found = _found()
    dims = _dims(pipeline.derive(found, data, 500))
    planted_dims = list(data.truth['dims'].values())
    noise = [d for d, true in zip(dims, planted_dims) if true == 0]
    kept = [d for d, true in zip(dims, planted_dims) if true > 0]
    self.assertEqual(max(noise), 0)
    self.assertGreater(min(kept), 0)

  def test_without_data_there_is_no_slope(self):
    with self.assertRaisesRegex(errors.ConfigError, 'give `derive` the data'):
      pipeline.derive(_found()[1])


if __name__ == '__main__':
  absltest.main()
