"""Training of closed architectures, and packing of what was trained."""

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

from jax_autorec import errors, quantization, spaces
from jax_autorec import schema as schema_lib
from jax_autorec.data import batches, dataset, planted
from jax_autorec.nn import quantizers
from jax_autorec.train import models as models_lib
from jax_autorec.train import retraining
from jax_autorec.train import settings as settings_lib

_SETTINGS = settings_lib.Settings(
  epochs=6,
  batch_size=200,
  learning_rate=0.05,
  table_std=0.1,
  patience=2,
  steps_per_dispatch=4,
  save_seconds=0.0,
)


@functools.cache
def _data():
  return planted.generate(
    num_rows=2000, num_fields=4, num_pairs=2, num_numeric=1, max_values=20
  )


def _overfitted(workdir=None):
  """Trained fast enough to overfit before it ends."""
  pairs = [('field_0', 'field_1'), ('field_1', 'field_2')]
  architecture = spaces.deepfm(_data().schema, dim=4, pairs=pairs, hidden=(6,))
  settings = dataclasses.replace(_SETTINGS, learning_rate=0.3)
  return retraining.retrain(
    architecture, _data(), settings, seed=1, workdir=workdir
  )


@functools.cache
def _model():
  return _overfitted()


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


class RetrainTest(absltest.TestCase):
  def test_model_is_that_of_its_best_evaluation(self):
    model = _model()
    valid = models_lib.evaluate(model, _data().valid, 77)
    self.assertAlmostEqual(valid['auc'], model.valid['auc'], places=9)
    self.assertAlmostEqual(valid['logloss'], model.valid['logloss'], places=6)
    self.assertLess(model.info['best_step'], model.info['steps'])
    self.assertGreater(model.info['examples_per_second'], 0)

  def test_killed_after_its_best_it_still_has_it(self):
    workdir = self.create_tempdir().full_path
    best = _model().info['best_step']
    # Several saves later, of which two are kept.
    self.assertGreaterEqual(_model().info['steps'] - best, 16)
    with _kill_after(best // 4 + 4), self.assertRaises(_Killed):
      _overfitted(workdir)
    _assert_same_model(self, _overfitted(workdir), _model())

  def test_workdir_of_another_run_is_refused(self):
    workdir, data = self.create_tempdir().full_path, _data()
    architecture = spaces.lr(data.schema)
    short = dataclasses.replace(_SETTINGS, epochs=1)
    retraining.retrain(architecture, data, short, workdir=workdir)
    changed = dataclasses.replace(short, learning_rate=0.1)
    with self.assertRaisesRegex(
      errors.CheckpointError, 'differs in learning_rate, seed'
    ):
      retraining.retrain(architecture, data, changed, seed=5, workdir=workdir)
    smaller = data.head(400)
    with self.assertRaisesRegex(errors.CheckpointError, 'differs in data'):
      retraining.retrain(architecture, smaller, short, workdir=workdir)
    # More epochs are a continuation.
    longer = dataclasses.replace(short, epochs=2, parallel='none')
    model = retraining.retrain(architecture, data, longer, workdir=workdir)
    whole = retraining.retrain(architecture, data, longer)
    _assert_same_model(self, model, whole)

  def test_open_architecture_is_not_retrained(self):
    space = spaces.fm(_data().schema, pairs='open')
    with self.assertRaisesRegex(errors.ConfigError, 'derive it first'):
      retraining.retrain(space, _data(), _SETTINGS)


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
  plan = quantization.quantize(plain, kind, 4, tiers, shared=shared)
  settings = dataclasses.replace(_SETTINGS, epochs=2)
  return retraining.retrain(plan, _lists(), settings, workdir=workdir)


_trained = functools.cache(_quantized)

# Prints the sizes of all arrays of a saved model, and its metrics.
_LOADED = """
import sys
import jax
import numpy as np
from jax_autorec.data import dataset
from jax_autorec.train import models
model = models.load(sys.argv[1])
arrays = jax.tree.leaves((model.params, model.tables, model.batch_stats))
arrays += list(model.architecture.arrays.values())
split = dataset.Split(**np.load(sys.argv[2]))
print([x.size for x in arrays], models.evaluate(model, split, 128)['auc'])
"""


class PackTest(parameterized.TestCase):
  @parameterized.parameters(*_QUANTIZED)
  def test_a_packed_model_is_the_same_model(self, name):
    model, data = _trained(name), _lists()
    packed = retraining.pack(model)
    for size in (128, 77):
      logits = [
        models_lib.predict(
          m.architecture, (m.params, m.tables, m.batch_stats), data.valid, size
        )
        for m in (model, packed)
      ]
      np.testing.assert_array_equal(*logits)
    self.assertIs(retraining.pack(packed), packed)
    self.assertEqual(packed.valid, model.valid)

  @parameterized.parameters(*_QUANTIZED)
  def test_a_packed_model_has_the_size_that_was_planned(self, name):
    model = _trained(name)
    packed = retraining.pack(model)
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
    packed = retraining.pack(_trained(name))
    plan, trained = packed.architecture, 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(packed.params):
      path = jax.tree_util.keystr(path, simple=True, separator='/')
      if path.startswith('embeddings/') and '/first_order' not in path:
        trained += leaf.size
    trained += plan.embedding_params
    self.assertEqual(trained + plan.index_bytes / 4, plan.ep_total)
    self.assertLess(trained, packed.total_params)

  def test_ids_of_the_tail_have_codes_of_the_tail(self):
    model = _trained('mgqe')
    packed = retraining.pack(model).architecture
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
    packed, directory = retraining.pack(_trained('mgqe')), self.create_tempdir()
    models_lib.save(packed, directory.full_path)
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
    self.assertEqual(float(auc), models_lib.evaluate(packed, split, 128)['auc'])
    # Of the fields with codebooks; 5 ids keep rows.
    self.assertLess(max(sizes), 70 * 8)

  def test_a_plain_model_is_left_alone(self):
    model = _model()
    self.assertIs(retraining.pack(model), model)

  def test_killed_and_continued_the_packed_model_has_the_same_bits(self):
    workdir = self.create_tempdir().full_path
    with _kill_after(3), self.assertRaises(_Killed):
      _quantized('mgqe', workdir)
    model, expected = _quantized('mgqe', workdir), _trained('mgqe')
    _assert_same_model(self, model, expected)
    jax.tree.map(
      np.testing.assert_array_equal,
      retraining.pack(model).architecture.arrays,
      retraining.pack(expected).architecture.arrays,
    )
    lines = (pathlib.Path(workdir) / 'metrics.jsonl').read_text().splitlines()
    entropies = [json.loads(line)['code_entropy'] for line in lines]
    self.assertNotEmpty(entropies)
    for found in entropies:
      self.assertEqual(set(found), {'user', 'tags'})
      self.assertBetween(min(found.values()), 0.1, 1)


if __name__ == '__main__':
  absltest.main()
