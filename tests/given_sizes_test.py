"""What models keep to whose sizes are given, not searched: one row each."""

import json
import os
import pathlib
import subprocess
import sys

from absl.testing import absltest
import jax

from jax_autorec import quantization, sizes, spaces
from jax_autorec.data import planted
from jax_autorec.train import models as models_lib
from jax_autorec.train import retraining
from jax_autorec.train import settings as settings_lib

_SETTINGS = settings_lib.Settings(
  epochs=2,
  batch_size=200,
  learning_rate=0.02,
  table_optimizer='adam',
  table_std=0.1,
)


def _mixed(model, **options):
  return sizes.mixed_dims(
    model, 0.4, threshold=0, max_params=0.6 * model.ep_total, **options
  )


# Nothing is searched: name -> closed architecture of a data set.
_CLOSED = {
  'mde': lambda data: _mixed(
    spaces.deepfm(data.schema, dim=8, hidden=(8,)),
  ),
  'mde_by_frequency': lambda data: _mixed(
    spaces.fm(data.schema, dim=8), frequencies=data.frequencies, num_blocks=4
  ),
  'qr': lambda data: sizes.quotient_remainder(
    spaces.fm(data.schema, dim=8), threshold=0
  ),
  'hash': lambda data: sizes.hashed(spaces.fm(data.schema, dim=8), threshold=0),
  'qr_concat': lambda data: sizes.quotient_remainder(
    spaces.ipnn(data.schema, dim=8, hidden=(8,)), combine='concat', threshold=0
  ),
  **{
    f'{name}_{kind}': (
      lambda data, kind=kind, tiers=tiers: quantization.quantize(
        spaces.fm(data.schema, dim=8), kind, 4, tiers
      )
    )
    for name, kind, tiers in (
      ('dpq', 'sx', [(1.0, 8)]),
      ('dpq', 'vq', [(1.0, 8)]),
      ('mgqe', 'vq', [(0.2, 8), (0.8, 4)]),
    )
  },
}

# Sizes of all arrays on disk, and metrics of a model that is read there.
_FRESH = """
import json, pathlib, sys
import numpy as np
from jax_autorec.data import planted
from jax_autorec.train import models
data = planted.generate(**json.loads(sys.argv[1]))
results = {}
for directory in sys.argv[2:]:
  model = models.load(directory)
  entries = {}
  for path in pathlib.Path(directory).glob('*.npz'):
    with np.load(path) as file:
      entries |= {f'{path.stem}/{k}': file[k].size for k in file.files}
  valid = models.evaluate(model, data.valid, 200)
  results[pathlib.Path(directory).name] = [valid, entries, model.total_params]
print(json.dumps(results))
"""


class GivenSizesTest(absltest.TestCase):
  def test_saved_models_are_small_and_the_same_in_a_fresh_process(self):
    options = dict(num_rows=2000, num_fields=4, num_pairs=2, max_values=400)
    data = planted.generate(**options)
    root = pathlib.Path(self.create_tempdir().full_path)
    models = {}
    for name, close in _CLOSED.items():
      architecture = close(data)
      self.assertFalse(architecture.is_open)
      trained = retraining.retrain(architecture, data, _SETTINGS, seed=1)
      models[name] = retraining.pack(trained)
      models_lib.save(models[name], root / name)
    done = subprocess.run(
      [
        *(sys.executable, '-c', _FRESH, json.dumps(options)),
        *(root / name for name in models),
      ],
      env=os.environ | {'JAX_PLATFORMS': 'cpu'},
      capture_output=True,
      text=True,
      check=False,
    )
    self.assertEqual(done.returncode, 0, done.stderr)
    for name, (valid, entries, total) in json.loads(done.stdout).items():
      model = models[name]
      self.assertEqual(valid, models_lib.evaluate(model, data.valid, 200))
      self.assertEqual(valid['auc'], model.valid['auc'])
      architecture = model.architecture
      arrays = sum(x.size for x in architecture.arrays.values())
      self.assertEqual(
        sum(entries.values()), total + _statistics(model) + arrays
      )
      first_order = architecture.first_order_params
      vectors = {
        key: size
        for key, size in entries.items()
        if key.startswith('weights/tables/') and 'first_order' not in key
      }
      self.assertEqual(
        sum(vectors.values()), architecture.embedding_params - first_order
      )
      # Nothing of the size of a whole table of the full width is there.
      ids = sum(field.vocab_size for field in data.schema.categorical)
      self.assertLess(sum(vectors.values()), 0.75 * 8 * ids, name)
      self.assertLess(max(entries.values()), 0.75 * 8 * ids, name)


def _statistics(model):
  return sum(x.size for x in jax.tree.leaves(model.batch_stats))


if __name__ == '__main__':
  absltest.main()
