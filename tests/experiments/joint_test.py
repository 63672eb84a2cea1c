"""Several searches of one model, one after the other."""

import json
import pathlib
from unittest import mock

from absl.testing import absltest

from experiments import settings as settings_lib
from experiments import stages
from experiments.configs import joint
from jax_autorec import pipeline


def _values():
  config = joint.get_config('planted,tiny')
  config.data.max_rows = 4000
  config.search.update({'parts': ('hidden', 'autofis'), 'order': 'in_turn'})
  config.search.autofis.ratio = 0.5
  values = settings_lib.resolve(config)
  return settings_lib.fit_batch_size(values, 3200)


class InTurnTest(absltest.TestCase):
  def test_a_stop_between_searches_changes_nothing(self):
    values = _values()
    data = stages.load_data(values, '')
    expected = stages.derive(values, data, 'none', None)
    steps = stages.make_task(values, data).steps
    self.assertEqual(expected.info['steps'], 2 * steps)
    # What the first search settled is what the second was given.
    self.assertFalse(expected.architecture.is_open)
    self.assertTrue(expected.space.interaction('pairs').is_open)
    self.assertEqual(expected.space.head, expected.architecture.head)
    workdir = pathlib.Path(self.create_tempdir().full_path)
    run_search = pipeline.run_search

    def stopping(*args, stage, **kwargs):
      if stage == 'search autofis':
        raise KeyboardInterrupt
      return run_search(*args, stage=stage, **kwargs)

    with mock.patch.object(pipeline, 'run_search', stopping):
      with self.assertRaises(KeyboardInterrupt):
        stages.derive(values, data, 'none', workdir)
    lines = (workdir / 'metrics.jsonl').read_text('utf-8').splitlines()
    self.assertEqual({json.loads(l)['stage'] for l in lines}, {'search hidden'})
    found = stages.derive(values, data, 'none', workdir)
    self.assertEqual(found.architecture, expected.architecture)
    # The first search was done: nothing more is recorded of it.
    after = (workdir / 'metrics.jsonl').read_text('utf-8').splitlines()
    kinds = [json.loads(line)['stage'] for line in after]
    self.assertEqual(kinds.count('search hidden'), len(lines))
    self.assertGreater(kinds.count('search autofis'), 0)


if __name__ == '__main__':
  absltest.main()
