"""The road from a space to test metrics, in memory and through a workdir."""

import dataclasses
import functools
import json
import pathlib
import subprocess
import sys
from unittest import mock

from absl.testing import absltest, parameterized
import jax
import numpy as np

from jax_autorec import errors, metrics, optim, pipeline, search, spaces
from jax_autorec import schema as schema_lib
from jax_autorec.data import batches, dataset, planted
from jax_autorec.nn import quantizers
from jax_autorec.train import settings as settings_lib

_STEPS = 24  # Three epochs of eight.
_SETTINGS = settings_lib.Settings(
  epochs=6,
  batch_size=200,
  learning_rate=0.05,
  table_std=0.1,
  patience=2,
  steps_per_dispatch=4,
  save_seconds=0.0,
)
# Fast enough to overfit before it ends.
_RETRAIN = dataclasses.replace(_SETTINGS, learning_rate=0.3)


@functools.cache
def _data():
  return planted.generate(
    num_rows=2000, num_fields=4, num_pairs=2, num_numeric=1, max_values=20
  )


def _turned(split):
  return dataclasses.replace(split, labels=1 - split.labels)


def _road(data, workdir=None):
  """Architecture, model and what was found."""
  c = optim.grda_c(1.1, 0.6, 1.0, 0.8, _STEPS)
  found = pipeline.run_search(
    spaces.deepfm(data.schema, dim=4, pairs='open', hidden=(6,)),
    {'interactions': search.autofis(optim.grda(1.0, c, 0.8))},
    data,
    _SETTINGS,
    num_steps=_STEPS,
    workdir=workdir,
  )
  architecture = pipeline.derive(found)
  model = pipeline.retrain(
    architecture, data, _RETRAIN, seed=1, workdir=workdir
  )
  return architecture, model, found


@functools.cache
def _expected():
  return _road(_data())


def _assert_same_model(test, model, expected):
  test.assertEqual(model.architecture, expected.architecture)
  test.assertEqual(model.valid, expected.valid)
  test.assertEqual(model.info['best_step'], expected.info['best_step'])
  jax.tree.map(
    np.testing.assert_array_equal,
    (model.params, model.tables, model.batch_stats),
    (expected.params, expected.tables, expected.batch_stats),
  )


class _Killed(BaseException):
  pass


def _kill_after(count):
  """Ends the process's work, in effect, when so many chunks were read."""
  chunk, calls = batches.Batches.chunk, iter(range(count))

  def killing(self, start, size):
    if next(calls, None) is None:
      raise _Killed
    return chunk(self, start, size)

  return mock.patch.object(batches.Batches, 'chunk', killing)


class RoadTest(parameterized.TestCase):
  def test_validation_chooses_and_the_test_split_does_not_exist(self):
    _, expected, _ = _expected()
    data = _data()
    _assert_same_model(
      self, _road(dataclasses.replace(data, test=None))[1], expected
    )
    auc = pipeline.evaluate(expected, data.test)['auc']
    turned = pipeline.evaluate(expected, _turned(data.test))['auc']
    self.assertAlmostEqual(turned, 1 - auc, places=12)
    other = pipeline.retrain(
      expected.architecture,
      dataclasses.replace(data, valid=_turned(data.valid)),
      _RETRAIN,
      seed=1,
    )
    self.assertNotEqual(other.info['best_step'], expected.info['best_step'])

  def test_model_is_that_of_its_best_evaluation(self):
    _, model, _ = _expected()
    valid = pipeline.evaluate(model, _data().valid, 77)
    self.assertAlmostEqual(valid['auc'], model.valid['auc'], places=9)
    self.assertAlmostEqual(valid['logloss'], model.valid['logloss'], places=6)
    self.assertLess(model.info['best_step'], model.info['steps'])
    self.assertGreater(model.info['examples_per_second'], 0)

  def test_predictions_are_in_row_order_whatever_the_batch(self):
    _, model, _ = _expected()
    variables = (model.params, model.tables, model.batch_stats)
    split = _data().test
    logits = [
      pipeline.predict(model.architecture, variables, split, size)
      for size in (64, 200)
    ]
    self.assertEqual(logits[0].shape, (200,))
    np.testing.assert_allclose(*logits, rtol=1e-4, atol=1e-5)
    self.assertAlmostEqual(
      pipeline.evaluate(model, split)['auc'],
      metrics.auc(split.labels, logits[1]),
    )

  @parameterized.parameters(3, 10)
  def test_killed_anywhere_the_same_calls_end_with_the_same_bits(self, count):
    """Chunks 1 to 6 are the search's, the others those of retraining."""
    workdir = self.create_tempdir().full_path
    with _kill_after(count), self.assertRaises(_Killed):
      _road(_data(), workdir)
    architecture, model, found = _road(_data(), workdir)
    expected_architecture, expected, expected_found = _expected()
    self.assertEqual(architecture, expected_architecture)
    jax.tree.map(
      np.testing.assert_array_equal, found.state.arch, expected_found.state.arch
    )
    _assert_same_model(self, model, expected)
    lines = (pathlib.Path(workdir) / 'metrics.jsonl').read_text().splitlines()
    rows = [(x['stage'], x['step']) for x in map(json.loads, lines)]
    steps = range(8, model.info['steps'] + 1, 8)
    self.assertEqual(
      rows,
      [('search', step) for step in range(0, 25, 4)]
      + [('retrain', step) for step in steps],
    )

  def test_workdir_of_another_run_is_refused(self):
    workdir, data = self.create_tempdir().full_path, _data()
    architecture = spaces.lr(data.schema)
    short = dataclasses.replace(_SETTINGS, epochs=1)
    pipeline.retrain(architecture, data, short, workdir=workdir)
    changed = dataclasses.replace(short, learning_rate=0.1)
    with self.assertRaisesRegex(
      errors.CheckpointError, 'differs in learning_rate, seed'
    ):
      pipeline.retrain(architecture, data, changed, seed=5, workdir=workdir)
    smaller = data.head(400)
    with self.assertRaisesRegex(errors.CheckpointError, 'differs in data'):
      pipeline.retrain(architecture, smaller, short, workdir=workdir)
    # More epochs are a continuation.
    longer = dataclasses.replace(short, epochs=2, parallel='none')
    model = pipeline.retrain(architecture, data, longer, workdir=workdir)
    whole = pipeline.retrain(architecture, data, longer)
    _assert_same_model(self, model, whole)

  def test_open_architecture_is_not_retrained(self):
    space = spaces.fm(_data().schema, pairs='open')
    with self.assertRaisesRegex(errors.ConfigError, 'derive it first'):
      pipeline.retrain(space, _data(), _SETTINGS)

  def test_search_of_no_steps(self):
    space = spaces.fm(_data().schema, pairs='open')
    with self.assertRaisesRegex(errors.ConfigError, '0 steps'):
      pipeline.run_search(space, {}, _data(), _SETTINGS, num_steps=0)

  def test_sizes_count_every_scalar(self):
    _, model, _ = _expected()
    tables = sum(
      field.vocab_size * (4 + 1) for field in _data().schema.categorical
    )
    kept = len(model.architecture.interactions[0].terms)
    # Numeric vectors and their missing twins, gates, MLP of 5 x 4 -> 6 -> 1
    # with a norm.
    others = 2 * (4 + 1) + kept + (20 * 6 + 6) + 2 * 6 + (6 + 1)
    self.assertEqual(model.total_params, tables + others)
    self.assertEqual(pipeline.array_bytes(model.tables), 4 * tables)


# Vectors of values, of which some rows have two, and of numbers.
_LISTS = schema_lib.Schema(
  (
    schema_lib.Field('user', vocab_size=130),
    schema_lib.Field('tags', vocab_size=70, max_length=2),
    schema_lib.Field('price', 'numeric'),
    schema_lib.Field('sex', vocab_size=5),
  )
)


@functools.cache
def _lists():
  """3000 rows whose clicks follow the ids, with missing values."""
  rng = np.random.default_rng(0)
  ids = rng.integers(0, [130, 70, 70, 5], (3000, 4)).astype(np.int32)
  ids[:, 2] = np.where(rng.random(3000) < 0.5, -1, ids[:, 2])
  numeric = rng.normal(size=(3000, 1)).astype(np.float32)
  effects = rng.normal(size=(130, 70))[ids[:, 0], ids[:, 1]]
  labels = (effects + rng.normal(size=3000) > 0).astype(np.float32)
  missing = rng.random((3000, 1)) < 0.2
  columns = (ids, numeric, missing, labels)
  splits = [
    dataset.Split(*(column[a:b] for column in columns))
    for a, b in ((0, 2000), (2000, 2500), (2500, 3000))
  ]
  return dataset.Dataset('lists', _LISTS, *splits, frequencies={}, counts={})


_QUANTIZED = {
  'vq': ('deepfm', 'vq', [(1.0, 8)], False),
  'sx': ('fm', 'sx', [(1.0, 8)], True),
  'mgqe': ('ipnn', 'vq', [(0.2, 16), (0.8, 4)], False),
}


def _quantized(name, workdir=None):
  model, kind, tiers, shared = _QUANTIZED[name]
  options = {} if model == 'fm' else {'hidden': (6,)}
  plain = spaces.build(model, _LISTS, dim=8, **options)
  plan = spaces.quantize(plain, kind, 4, tiers, shared=shared)
  settings = dataclasses.replace(_SETTINGS, epochs=2)
  return pipeline.retrain(plan, _lists(), settings, workdir=workdir)


_trained = functools.cache(_quantized)

# Prints the sizes of all arrays of a saved model, and its metrics.
_LOADED = """
import sys
import jax
import numpy as np
from jax_autorec import pipeline
from jax_autorec.data import dataset
model = pipeline.load(sys.argv[1])
arrays = jax.tree.leaves((model.params, model.tables, model.batch_stats))
arrays += list(model.architecture.arrays.values())
split = dataset.Split(**np.load(sys.argv[2]))
print([x.size for x in arrays], pipeline.evaluate(model, split, 128)['auc'])
"""


class PackTest(parameterized.TestCase):
  @parameterized.parameters(*_QUANTIZED)
  def test_a_packed_model_is_the_same_model(self, name):
    model, data = _trained(name), _lists()
    packed = pipeline.pack(model)
    for size in (128, 77):
      logits = [
        pipeline.predict(
          m.architecture, (m.params, m.tables, m.batch_stats), data.valid, size
        )
        for m in (model, packed)
      ]
      np.testing.assert_array_equal(*logits)
    self.assertIs(pipeline.pack(packed), packed)
    self.assertEqual(packed.valid, model.valid)

  @parameterized.parameters(*_QUANTIZED)
  def test_a_packed_model_has_the_size_that_was_planned(self, name):
    model = _trained(name)
    packed = pipeline.pack(model)
    plan, sizes = packed.architecture, packed.size()
    quantized = [f.name for f in plan.categorical if f.quantizer]
    self.assertContainsSubset({'user', 'tags'}, quantized)
    codes = sum(plan.arrays[f'{name}.codes'].nbytes for name in quantized)
    self.assertEqual(plan.ep_total, model.architecture.packed.ep_total)
    self.assertEqual(sizes['bytes']['index'], codes)
    self.assertEqual(sizes['bytes']['tables'], 4 * plan.embedding_params)
    self.assertEqual(sizes['ep_total'], plan.ep_total)
    # The size of the training stays that of the training.
    trained, before = model.architecture, packed.info['size']
    self.assertEqual(before, model.info['size'])
    self.assertEqual(before['bytes']['tables'], 4 * trained.embedding_params)
    self.assertEqual(before['ep_total'], trained.ep_total)
    self.assertEqual(set(packed.info['code_entropy']), set(quantized))
    for entropy in packed.info['code_entropy'].values():
      self.assertBetween(entropy, 0.3, 1)

  @parameterized.parameters(*_QUANTIZED)
  def test_codes_are_in_all_that_vectors_need_but_are_not_trained(self, name):
    packed = pipeline.pack(_trained(name))
    plan, trained = packed.architecture, 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(packed.params):
      path = jax.tree_util.keystr(path, simple=True, separator='/')
      if path.startswith('embeddings/') and '_numeric_' not in path:
        trained += leaf.size
    trained += plan.embedding_params
    self.assertEqual(trained + plan.index_bytes / 4, plan.ep_total)
    self.assertLess(trained, packed.total_params)

  def test_ids_of_the_tail_have_codes_of_the_tail(self):
    model = _trained('mgqe')
    packed = pipeline.pack(model).architecture
    for plan in packed.categorical[:2]:
      head = plan.quantizer.tiers[0].stop
      ids = np.arange(plan.vocab_size, dtype=np.int32)
      codes = np.asarray(
        quantizers.read_codes(
          jax.numpy.asarray(packed.arrays[f'{plan.name}.codes']),
          plan.quantizer,
          ids,
        )
      )
      self.assertLess(codes[head:].max(), 4)
      self.assertBetween(codes[:head].max(), 4, 15)

  def test_blocks_change_no_code(self):
    model = _trained('mgqe')
    ((stack, plans),) = model.architecture.codebooks.items()
    module = quantizers.Codebooks(plans)
    variables = {
      'params': model.params['embeddings'][stack],
      'batch_stats': model.batch_stats['embeddings'][stack],
    }
    table = model.tables[f'main_queries_{stack}'][:130]
    whole, entropy = quantizers.encode_field(module, variables, table, 0)
    blocks = quantizers.encode_field(module, variables, table, 0, block=8)
    np.testing.assert_array_equal(blocks[0], whole)
    self.assertEqual(blocks[1], entropy)

  def test_in_another_process_there_is_no_full_table(self):
    """And the metrics are the same, from what was saved alone."""
    packed, directory = pipeline.pack(_trained('mgqe')), self.create_tempdir()
    pipeline.save(packed, directory.full_path)
    split = _lists().valid
    np.savez(
      f'{directory.full_path}/split.npz',
      **{k: v for k, v in vars(split).items() if v is not None},
    )
    done = subprocess.run(
      [sys.executable, '-c', _LOADED, directory.full_path]
      + [f'{directory.full_path}/split.npz'],
      capture_output=True,
      text=True,
      check=True,
    )
    sizes, auc = done.stdout.rsplit(None, 1)
    sizes = json.loads(sizes)
    self.assertEqual(float(auc), pipeline.evaluate(packed, split, 128)['auc'])
    # Of the fields with codebooks; 5 ids keep rows.
    self.assertLess(max(sizes), 70 * 8)

  def test_a_plain_model_is_left_alone(self):
    _, model, _ = _expected()
    self.assertIs(pipeline.pack(model), model)

  def test_killed_and_continued_the_packed_model_has_the_same_bits(self):
    workdir = self.create_tempdir().full_path
    with _kill_after(3), self.assertRaises(_Killed):
      _quantized('mgqe', workdir)
    model, expected = _quantized('mgqe', workdir), _trained('mgqe')
    _assert_same_model(self, model, expected)
    jax.tree.map(
      np.testing.assert_array_equal,
      pipeline.pack(model).architecture.arrays,
      pipeline.pack(expected).architecture.arrays,
    )
    lines = (pathlib.Path(workdir) / 'metrics.jsonl').read_text().splitlines()
    entropies = [json.loads(line)['code_entropy'] for line in lines]
    self.assertNotEmpty(entropies)
    for found in entropies:
      self.assertEqual(set(found), {'user', 'tags'})
      self.assertBetween(min(found.values()), 0.1, 1)


if __name__ == '__main__':
  absltest.main()
