"""What trained models predict and weigh."""

import functools

from absl.testing import absltest
import numpy as np

from jax_autorec import errors, metrics, spaces
from jax_autorec.data import planted
from jax_autorec.train import models as models_lib
from jax_autorec.train import retraining
from jax_autorec.train import settings as settings_lib


@functools.cache
def _data():
  return planted.generate(
    num_rows=2000, num_fields=4, num_pairs=2, num_numeric=1, max_values=20
  )


@functools.cache
def _model():
  pairs = [('field_0', 'field_1'), ('field_1', 'field_2')]
  architecture = spaces.deepfm(_data().schema, dim=4, pairs=pairs, hidden=(6,))
  settings = settings_lib.Settings(epochs=1, batch_size=200, table_std=0.1)
  return retraining.retrain(architecture, _data(), settings, seed=1)


class ModelTest(absltest.TestCase):
  def test_predictions_are_in_row_order_whatever_the_batch(self):
    model = _model()
    variables = (model.params, model.tables, model.batch_stats)
    split = _data().test
    logits = [
      models_lib.predict(model.architecture, variables, split, size)
      for size in (64, 200)
    ]
    self.assertEqual(logits[0].shape, (200,))
    np.testing.assert_allclose(*logits, rtol=1e-4, atol=1e-5)
    self.assertAlmostEqual(
      models_lib.evaluate(model, split)['auc'],
      metrics.auc(split.labels, logits[1]),
    )

  def test_tables_of_another_model_are_refused(self):
    directory = self.create_tempdir().full_path
    models_lib.save(_model(), directory)
    self.assertEqual(
      models_lib.load(directory).architecture, _model().architecture
    )
    other = spaces.deepfm(_data().schema, dim=2, pairs='fm', hidden=(6,))
    other.save(directory)
    with self.assertRaisesRegex(errors.CheckpointError, 'different models'):
      models_lib.load(directory)

  def test_sizes_count_every_scalar(self):
    model = _model()
    tables = sum(
      field.vocab_size * (4 + 1) for field in _data().schema.categorical
    )
    kept = len(model.architecture.interactions[0].terms)
    # Numeric vectors and their missing twins, gates, MLP of 5 x 4 -> 6 -> 1
    # with a norm.
    others = 2 * (4 + 1) + kept + (20 * 6 + 6) + 2 * 6 + (6 + 1)
    self.assertEqual(model.total_params, tables + others)
    self.assertEqual(models_lib.array_bytes(model.tables), 4 * tables)


if __name__ == '__main__':
  absltest.main()
