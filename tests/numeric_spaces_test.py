"""What is fitted, against sorted lists and counts; and the road from there."""

import dataclasses
import os
import pathlib
import subprocess
import sys
from unittest import mock

from absl.testing import absltest, parameterized
import jax
import numpy as np
import optax
import pytest

from jax_autorec import architecture as arch_lib
from jax_autorec import data as data_lib
from jax_autorec import (
  errors,
  field_spaces,
  interactions,
  numeric,
  numeric_spaces,
  pipeline,
  search,
  spaces,
  types,
)
from jax_autorec import schema as schema_lib
from jax_autorec.data import encode
from jax_autorec.nn import embeddings
from jax_autorec.nn import model as model_lib
from jax_autorec.train import learned, models, retraining
from jax_autorec.train import settings as settings_lib

_ROWS = 400
_KINDS = {
  'field': numeric.FieldEmbedding(),
  'autodis': numeric.AutoDis(buckets=4),
  'published': numeric.AutoDis(
    buckets=4, form='A', use_bias=False, adaptive=True, aggregation='top_k'
  ),
  'edd': numeric.EqualWidth(4),
  'efd': numeric.EqualFrequency(4),
  'ld': numeric.LogSquare(),
  'td': numeric.TreeLeaves(4),
  'powers': numeric.Powers(),
  'mlp': numeric.BottomMLP((4, 3)),
}
_SETTINGS = settings_lib.Settings(
  epochs=1, batch_size=200, table_std=0.1, learning_rate=0.01
)


def _split(seed, num_numbers, rows=_ROWS):
  rng = np.random.default_rng(seed)
  numbers = np.floor(np.exp(2 * rng.normal(size=(rows, num_numbers))))
  missing = rng.random(numbers.shape) < 0.1
  logits = np.where(missing, 0, np.minimum(numbers, 5) - 2).sum(1)
  labels = rng.random(rows) < 1 / (1 + np.exp(-logits))
  return data_lib.Split(
    ids=rng.integers(0, 4, (rows, 2)).astype(np.int32),
    numeric=np.where(missing, 0, numbers).astype(np.float32),
    missing=missing,
    labels=labels.astype(np.float32),
  )


def _data(names):
  fields = [schema_lib.Field(n, vocab_size=4) for n in ('user', 'item')]
  fields += [schema_lib.Field(name, 'numeric') for name in names]
  splits = {
    split: _split(seed, len(names))
    for seed, split in enumerate(('train', 'valid', 'test'))
  }
  schema = schema_lib.Schema(tuple(fields))
  return data_lib.Dataset(
    'numbers', schema, **splits, frequencies={}, counts={}
  )


def _rows(values, labels=None):
  """One numeric field's train rows, NaN where missing."""
  values = np.asarray(values, np.float64)[:, None]
  labels = np.zeros(len(values)) if labels is None else labels
  return data_lib.Split(
    ids=np.zeros((len(values), 0), np.int32),
    numeric=np.nan_to_num(values).astype(np.float32),
    missing=np.isnan(values),
    labels=np.asarray(labels, np.float32),
  )


def _fit(plan, values, labels=None, scale=None):
  schema = schema_lib.Schema((schema_lib.Field('x', 'numeric'),))
  space = spaces.lr(schema, numeric=plan)
  scales = {'x': scale} if scale else None
  fitted = numeric_spaces.fit(space, _rows(values, labels), scales)
  arrays = {k.removeprefix('x.'): v for k, v in fitted.arrays.items()}
  return fitted.fields[0], arrays


def _ids(arrays, values):
  values = np.asarray(values, np.float32)
  places = np.searchsorted(arrays['edges'], values, side='right')
  return arrays['buckets'][places]


class FitTest(parameterized.TestCase):
  def test_equal_width(self):
    plan, arrays = _fit(numeric.EqualWidth(4), [0, 8, np.nan, 1, 2])
    np.testing.assert_allclose(arrays['edges'], [2, 4, 6])
    self.assertEqual(plan.vocab_size, 5)
    self.assertEqual(
      _ids(arrays, [-9, 1.9, 2, 7, 99]).tolist(), [1, 1, 2, 4, 4]
    )

  def test_equal_frequency(self):
    values = np.random.default_rng(0).normal(size=1000)
    plan, arrays = _fit(numeric.EqualFrequency(5), values)
    counts = np.bincount(_ids(arrays, values), minlength=plan.vocab_size)
    self.assertEqual(counts.tolist(), [0, 200, 200, 200, 200, 200])
    # Half of the rows are 0: their quantiles are one edge at most.
    values = np.append(np.zeros(500), np.arange(1, 501))
    plan, arrays = _fit(numeric.EqualFrequency(4), values)
    self.assertEqual(plan.vocab_size, 4)
    counts = np.bincount(_ids(arrays, values))
    self.assertEqual(counts.tolist(), [0, 500, 250, 250])

  @parameterized.parameters('none', 'log', 'standard', 'minmax')
  def test_log_square_of_raw_values(self, scaler):
    raw = np.array([-3, -1, 0, 1, 2, 3, 4, 5, 10, 50, 400, 401, 70_000.0])
    spec = data_lib.Column('x', 'numeric', scaler=scaler)
    scale = encode.fit_numeric(spec, raw)
    plan, arrays = _fit(numeric.LogSquare(), scale.scaled(raw), scale=scale)
    expected = encode.NumericMap('log_square').bins(raw)
    ids = _ids(arrays, scale.scaled(raw))
    # As many buckets as the rule has values in between, and equal ids for equal
    # ones.
    pairs = {(int(a), int(b)) for a, b in zip(expected, ids)}
    self.assertLen(pairs, len(set(expected)))
    self.assertLen(pairs, len(set(ids)))
    self.assertEqual(plan.vocab_size, 1 + len(range(-3, expected.max() + 1)))
    # New values between those of the train split.
    new = np.array([-2, 2.5, 6, 20, 1000, -3.5, 1e6])
    known = dict(zip(expected.tolist(), ids.tolist()))
    bins = encode.NumericMap('log_square').bins(new)
    for bucket, own in zip(bins, _ids(arrays, scale.scaled(new))):
      if int(bucket) in known:
        self.assertEqual(own, known[int(bucket)])
    # Beyond the largest, the last one.
    self.assertEqual(_ids(arrays, scale.scaled(new))[-1], ids[-1])

  def test_log_square_is_for_counts(self):
    with self.assertRaisesRegex(errors.ConfigError, 'LD is for counts'):
      _fit(numeric.LogSquare(), [-5000.0, 3.0])

  def test_tree_leaves_find_a_step(self):
    rng = np.random.default_rng(0)
    values = rng.normal(size=4000)
    labels = (values > 0.4) ^ (rng.random(4000) < 0.05)
    plan, arrays = _fit(numeric.TreeLeaves(2), values, labels)
    self.assertEqual(plan.vocab_size, 3)
    np.testing.assert_allclose(arrays['edges'], 0.4, atol=0.02)
    plan, arrays = _fit(numeric.TreeLeaves(6, trees=2), values, labels)
    self.assertBetween(len(arrays['edges']), 2, 10)
    # Nothing to split by.
    plan, arrays = _fit(numeric.TreeLeaves(6), values, np.zeros(4000))
    self.assertEqual((plan.vocab_size, len(arrays['edges'])), (2, 0))

  def test_tree_leaves_need_lightgbm(self):
    with mock.patch.dict(sys.modules, lightgbm=None):
      with self.assertRaisesRegex(errors.ConfigError, r'jax_autorec\[trees\]'):
        _fit(numeric.TreeLeaves(), [0.0, 1.0])

  def test_quantiles_of_autodis(self):
    values = np.random.default_rng(0).normal(size=1001)
    _, arrays = _fit(numeric.AutoDis(buckets=4, adaptive=True), values)
    expected = np.quantile(values, [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(arrays['quantiles'], expected, atol=0.02)
    places = np.linspace(values.min(), values.max(), 16)
    below = [(values <= place).mean() for place in places.astype(np.float32)]
    np.testing.assert_allclose(arrays['statistics'][:-1], below, atol=2e-3)
    self.assertAlmostEqual(arrays['statistics'][-1], values.mean(), places=5)

  @parameterized.parameters(
    ([0] * 90 + list(range(1, 11)), 4),  # Mostly one value.
    ([0, 1] * 50, 9),  # Fewer values than buckets.
    ([5] * 10, 3),  # A constant.
    ([5], 1),
  )
  def test_crossing_points_are_distinct(self, values, count):
    points = numeric_spaces.crossing_points(np.array(values, float), count)
    self.assertLen(points, count)
    self.assertTrue(np.all(np.diff(points) > 0))
    if len(set(values)) > count:
      # None parts what is one value, and none has nothing on a side.
      self.assertTrue(set(points).isdisjoint(values))
      self.assertLen(set(np.searchsorted(points, values)), count + 1)

  def test_powers(self):
    values = np.append(np.zeros(500), np.arange(1.0, 501))
    _, arrays = _fit(numeric.Powers(), values)
    got = np.interp([0, 250, 500, 900], arrays['grid'], arrays['shares'])
    np.testing.assert_allclose(got, [0.25, 0.75, 1, 1], atol=0.01)

  def test_only_train_rows_are_read_and_once(self):
    data = _data(list(_KINDS))
    space = spaces.fm(data.schema, dim=4, numeric=_KINDS)
    fitted = numeric_spaces.fit(space, data.train)
    broken = _split(7, len(_KINDS))
    other = dataclasses.replace(data, valid=broken, test=broken)
    again = numeric_spaces.fit(space, other.train)
    self.assertEqual(again.to_dict(), fitted.to_dict())
    # What is fitted stays as it is.
    kept = numeric_spaces.fit(fitted, broken)
    self.assertEqual(kept.to_dict(), fitted.to_dict())
    moved = numeric_spaces.fit(space, broken)
    self.assertNotEqual(moved.to_dict(), fitted.to_dict())

  def test_missing_values_are_not_fitted(self):
    values = np.arange(100.0)
    for name, plan in _KINDS.items():
      if name in ('field', 'mlp', 'td'):
        continue
      holes = np.append(values, np.full(50, np.nan))
      _, arrays = _fit(plan, holes)
      _, expected = _fit(plan, values)
      for key, array in expected.items():
        np.testing.assert_array_equal(arrays[key], array)

  def test_a_field_without_values_is_refused(self):
    with self.assertRaisesRegex(errors.ConfigError, "'x' has no value"):
      _fit(numeric.AutoDis(), [np.nan, np.nan])

  def test_sizes_are_known_once_fitted(self):
    data = _data(list(_KINDS))
    space = spaces.fm(data.schema, dim=4, numeric=_KINDS)
    with self.assertRaisesRegex(errors.ConfigError, "'edd' .* not fitted"):
      space.embedding_params  # noqa: B018

  def test_names_of_fields_that_are_not_numeric_are_refused(self):
    data = _data(['price'])
    for name in ('user', 'cost'):
      with self.assertRaisesRegex(errors.ConfigError, f'{name}.*are: price'):
        spaces.fm(data.schema, numeric={name: numeric.AutoDis()})


_LOAD = """
import sys
import numpy as np
from jax_autorec import data as data_lib
from jax_autorec.train import models
model = models.load(sys.argv[1])
with np.load(sys.argv[2]) as file:
  split = data_lib.Split(**file)
print(*models.predictions(model, split)[:20].astype(float))
"""


# Models whose views, targets or terms differ: fields of several vectors, tables
# of their own, some fields alone, values.
_TRAINED = ('lr', 'deepfm', 'ipnn', 'ffm', 'fwfm', 'finalmlp', 'dlrm')


def _space(name, schema):
  """A small model with every embedding, each in a field of its own."""
  small = {
    'dim': 4,
    'hidden': (4,),
    'bottom': (4,),
    'towers': ((4,), (4,)),
    'gate_hidden': (4,),
    'contexts': (('user', 'autodis', 'edd'), ('field',)),
    'heads': 2,
    'size': 4,
    'layers': 2,
  }
  if name.startswith(('cin', 'xdeepfm', 'masknet')):
    small['sizes'] = (4, 4)
  known = spaces.options(name)
  options = {key: value for key, value in small.items() if key in known}
  return spaces.build(name, schema, numeric=_KINDS, **options)


def _batch(split, rows=8):
  return types.Batch(
    ids=split.ids[:rows],
    numeric=split.numeric[:rows],
    missing=split.missing[:rows],
    labels=split.labels[:rows],
    weights=np.ones(rows, np.float32),
    mask=np.ones(rows, bool),
  )


class RoadTest(parameterized.TestCase):
  @parameterized.parameters(*_TRAINED)
  def test_base_models_train_with_every_embedding(self, name):
    """Each in a field of its own; sizes are those of what is held."""
    data = _data(list(_KINDS))
    space = _space(name, data.schema)
    model = retraining.retrain(space, data, _SETTINGS)
    architecture = model.architecture
    self.assertTrue(np.isfinite(models.predictions(model, data.test)).all())
    self.assertTrue(all(map(architecture.is_fitted, architecture.numeric)))
    tables = sum(x.size for x in model.tables.values())
    self.assertEqual(architecture.embedding_params, tables)
    vectors = {
      name: tree
      for name, tree in model.params.get('embeddings', {}).items()
      if not name.startswith('first_order')
    }
    held = sum(x.size for x in jax.tree.leaves(vectors))
    counted = architecture.numeric_params + architecture.projection_params
    self.assertEqual(counted, held)
    total = sum(architecture.field_sizes.values())
    self.assertAlmostEqual(total, architecture.vectors_total, places=3)

  @parameterized.parameters(*sorted(set(spaces.MODELS) - set(_TRAINED)))
  def test_all_others_can_be_differentiated(self, name):
    """Traced without a compilation; sizes are those of what is held."""
    data = _data(list(_KINDS))
    space = numeric_spaces.fit(_space(name, data.schema), data.train)
    model = model_lib.build(space)
    batch = _batch(data.train)
    start = lambda key: model.init(key, batch)
    variables = jax.eval_shape(start, jax.random.key(0))

    def loss(params, variables, key):
      variables = {**variables, 'params': params}
      logits, _ = model.apply(
        variables,
        batch,
        train=True,
        rngs={'dropout': key},
        mutable=['batch_stats'],
      )
      return logits.sum()

    grads = jax.eval_shape(
      jax.grad(loss), variables['params'], variables, jax.random.key(0)
    )
    self.assertEqual(
      jax.tree.structure(grads), jax.tree.structure(variables['params'])
    )
    vectors = {
      name: tree
      for name, tree in variables['params']['embeddings'].items()
      if not name.startswith('first_order')
    }
    held = sum(x.size for x in jax.tree.leaves(vectors))
    counted = space.numeric_params + space.projection_params
    self.assertEqual(counted + space.vector_params, held)

  def test_field_aware_products_against_loops(self):
    """Each field with vectors has one for each other; numbers are weighed."""
    data = _data(list(_KINDS))
    space = numeric_spaces.fit(_space('ffm', data.schema), data.train)
    batch = _batch(data.train)
    model = model_lib.build(space)
    variables = model.init(jax.random.key(0), batch)
    draw = lambda x: 0.3 * jax.random.normal(jax.random.key(x.size), x.shape)
    variables = jax.tree.map(draw, variables)
    params = variables['params']
    views = embeddings.FieldEmbeddings(space).apply(
      {'params': params['embeddings']}, batch
    )
    want = views['first_order'].sum(1) + params['bias'][0]
    want += (views['numbers'] @ params['numbers']['kernel'])[:, 0]
    count = len(_KINDS)  # Two fields of ids more, two without vectors less.
    vectors = views['field_aware'].reshape(len(want), count, count - 1, 4)
    for i in range(count):
      for j in range(i + 1, count):
        want += (vectors[:, i, j - 1] * vectors[:, j, i]).sum(1)
    got = model.apply(variables, batch)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)

  @parameterized.parameters('blocks', 'numbers_and_vectors')
  def test_ids_alone_beside_an_mlp_that_reads_all(self, kind):
    data = _data(list(_KINDS))
    space = _space('wide_deep', data.schema)
    plan = {
      'blocks': interactions.BlockGraph(
        (interactions.Block('mlp', ('vectors', 'values'), 5),)
      ),
      'numbers_and_vectors': interactions.NumbersAndVectors(
        product='cat', hidden=(4,)
      ),
    }[kind]
    space = dataclasses.replace(space, interactions=(plan,))
    space = numeric_spaces.fit(space, data.train)
    model = model_lib.build(space)
    start = lambda key: model.init(key, _batch(data.train))
    params = jax.eval_shape(start, jax.random.key(0))['params']
    flat = 4 * len(space.vector_fields) + 6  # And what powers and MLP give.
    if kind == 'blocks':
      block = params['interactions']['blocks']['block_0']['Dense_0']['kernel']
      self.assertEqual(block.shape, (2 * 4 + len(_KINDS), 5))
    else:
      flat += (2 + 1) * 4
    self.assertEqual(params['mlp']['dense_0']['kernel'].shape, (flat, 4))

  def test_a_model_serves_in_a_fresh_process(self):
    data = _data(list(_KINDS))
    space = spaces.deepfm(data.schema, dim=4, hidden=(4,), numeric=_KINDS)
    model = retraining.retrain(space, data, _SETTINGS)
    logits = models.predictions(model, data.test)[:20]
    directory = pathlib.Path(self.create_tempdir())
    models.save(model, directory)
    loaded = arch_lib.Architecture.load(directory)
    self.assertEqual(loaded, model.architecture)
    self.assertCountEqual(loaded.arrays, model.architecture.arrays)
    parts = {
      name: getattr(data.test, name)
      for name in ('ids', 'numeric', 'missing', 'labels')
    }
    np.savez(directory / 'test.npz', **parts)
    # lightgbm and the train split are gone.
    code = "import sys; sys.modules['lightgbm'] = None\n" + _LOAD
    done = subprocess.run(
      [sys.executable, '-c', code, directory, directory / 'test.npz'],
      capture_output=True,
      text=True,
      check=True,
      cwd=pathlib.Path(__file__).parents[1],
      env=os.environ | {'JAX_PLATFORMS': 'cpu'},
    )
    got = np.array(done.stdout.split(), float)
    np.testing.assert_allclose(got, logits, rtol=1e-5, atol=1e-6)
    # What it makes of numbers can be told, of the fields that have vectors.
    found = learned.numbers(model, data.train, num_points=6)
    self.assertCountEqual(found, set(_KINDS) - {'powers', 'mlp'})
    own = found['autodis']
    self.assertEqual(np.shape(own['similarity']), (6, 6))
    np.testing.assert_allclose(np.diag(own['similarity']), 1, atol=1e-3)
    np.testing.assert_allclose(np.sum(own['weights'], 1), 1, atol=1e-3)
    self.assertNotIn('weights', found['efd'])

  def test_second_order_search_of_widths_and_pmap(self):
    """Unrolled steps, and replicas, see numbers' parameters and rows."""
    names = ['field', 'autodis', 'efd', 'mlp']
    data = _data(names)
    found = {}
    for how in ('none', 'pmap'):
      settings = dataclasses.replace(_SETTINGS, parallel=how)
      plain = spaces.fm(
        data.schema, dim=4, numeric={name: _KINDS[name] for name in names}
      )
      space = field_spaces.open_dims(plain, (2, 4))
      selector = search.autodim(
        optax.adam(0.1), 4, warmup=0, period=1, inner_rate=0.1
      )
      result = pipeline.run_search(
        space, {'fields': selector}, data, settings, num_steps=4
      )
      train = result.state.train
      found[how] = jax.device_get((train.params, train.tables))
      architecture = pipeline.derive(result)
      self.assertFalse(architecture.is_open)
      self.assertIn('efd.edges', architecture.arrays)
    for one, other in zip(*map(jax.tree.leaves, found.values())):
      np.testing.assert_allclose(one, other, rtol=2e-3, atol=2e-4)


_PLANTED = settings_lib.Settings(
  epochs=20,
  batch_size=1000,
  learning_rate=0.01,
  table_optimizer='dense_adam',
  table_std=0.1,
  embedding_l2=1e-4,
  first_order_l2=1e-5,
)
_COMPARISONS = ('field', 'edd', 'efd', 'ld', 'td', 'powers', 'mlp')


def _excess(shape, kinds, seed, buckets=20, num_rows=50_000, **changed):
  """Kind -> test log loss above what the true logits have, in nats.

  A factorization machine with as many buckets wherever there are any, and the
  same settings for all.
  """
  data = data_lib.load(f'planted_{shape}', seed=seed, num_rows=num_rows)
  settings = dataclasses.replace(_PLANTED, **changed)
  found = {}
  for kind in kinds:
    has_buckets = hasattr(numeric.EMBEDDINGS[kind], 'buckets')
    plan = numeric.make(kind, **({'buckets': buckets} if has_buckets else {}))
    space = spaces.fm(data.schema, dim=4, numeric=plan)
    model = retraining.retrain(space, data, settings, seed=seed)
    loss = models.evaluate(model, data.test)['logloss']
    found[kind] = loss - data.truth['test']['logloss']
  return found


class PlantedTest(parameterized.TestCase):
  def test_autodis_beats_what_comes_nearest_on_a_wave(self):
    """Few rows and few buckets; the slow test has all others, and steps."""
    small = dict(buckets=10, num_rows=10_000, batch_size=250, epochs=8)
    near = ('edd', 'efd', 'td')
    found = _excess('sine', ('autodis', *near), seed=1, **small)
    self.assertLess(found['autodis'], 0.8 * min(found[kind] for kind in near))

  # The mark within: the outer decorator makes new functions of the inner.
  @parameterized.parameters('step', 'sine')
  @pytest.mark.slow
  def test_autodis_beats_all_others(self, shape):
    """In the mean over ten seeds, and in at least nine of them."""
    kinds = ('autodis', *_COMPARISONS)
    seeds = [_excess(shape, kinds, seed) for seed in range(11, 21)]
    for kind in _COMPARISONS:
      gains = [found[kind] - found['autodis'] for found in seeds]
      wins = sum(gain > 0 for gain in gains)
      self.assertGreaterEqual(wins, 9, f'{kind}: {gains}')
      # Paired: two standard errors.
      error = np.std(gains, ddof=1) / np.sqrt(len(gains))
      self.assertGreater(np.mean(gains), 2 * error, kind)


if __name__ == '__main__':
  absltest.main()
