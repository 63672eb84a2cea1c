import json
from unittest import mock

from absl.testing import absltest
import numpy as np

from jax_autorec import errors, pipeline, search, sizes, spaces
from jax_autorec.data import planted
from jax_autorec.search import base
from jax_autorec.train import settings as settings_lib


class ScheduleTest(absltest.TestCase):
  def test_out_of_range(self):
    with self.assertRaisesRegex(errors.ConfigError, 'period.* is 0; expected'):
      search.Schedule(period=0)
    with self.assertRaisesRegex(errors.ConfigError, 'warmup.* is -1; expected'):
      search.Schedule(warmup=-1)


class EachTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.data = planted.generate(
      num_rows=1500, num_fields=3, num_pairs=2, max_values=30
    )
    model = spaces.fm(self.data.schema, dim=6)
    close = lambda a: sizes.mixed_dims(model, a, threshold=0)
    self.proposals = [({'alpha': a}, close(a)) for a in (0.0, 1e-9, 0.9)]

  def test_equal_architectures_are_asked_for_once_and_the_best_is_kept(self):
    population, scored = search.each(self.proposals), []
    for auc in (0.6, 0.8):
      proposal = population.ask(scored)
      scored.append(base.Scored(proposal, {'auc': auc}))
    self.assertIsNone(population.ask(scored))
    self.assertEqual(
      [population.about(n) for n in range(2)],
      [{'alpha': 0.0}, {'alpha': 0.9}],
    )
    self.assertEqual(population.derive(scored), self.proposals[2][1])

  def test_stopped_and_continued_ends_with_the_same_trials(self):
    settings = settings_lib.Settings(
      epochs=2, batch_size=300, learning_rate=0.02, table_std=0.1
    )
    run = lambda **options: pipeline.run_population(
      search.each(self.proposals), self.data, settings, seed=1, **options
    )
    expected = run()
    workdir = self.create_tempdir().full_path
    retrain, calls = pipeline.retrain, []

    def stop(*arguments, **options):
      calls.append(options['stage'])
      if len(calls) == 2:
        raise KeyboardInterrupt
      return retrain(*arguments, **options)

    with mock.patch.object(pipeline, 'retrain', stop):
      with self.assertRaises(KeyboardInterrupt):
        run(workdir=workdir)
      # Neither the first trial again, nor a test split that has changed.
      self.data.test.labels[:] = 1 - self.data.test.labels
      found = run(workdir=workdir)
    self.assertEqual(calls, ['trial 1', 'trial 2', 'trial 2'])
    self.assertEqual(found.architecture, expected.architecture)
    for one, other in zip(found.trials, expected.trials, strict=True):
      one, other = json.loads(json.dumps([one, other]))
      self.assertEqual(one | {'seconds': 0}, other | {'seconds': 0})
    aucs = [trial['valid']['auc'] for trial in found.trials]
    best = found.trials[int(np.argmax(aucs))]
    self.assertEqual(
      json.loads(json.dumps(found.architecture.to_dict())),
      json.loads(json.dumps(best['architecture'])),
    )
    self.assertEqual([t['alpha'] for t in found.trials], [0.0, 0.9])
    self.assertEqual(
      [t['ep_total'] for t in found.trials],
      [self.proposals[n][1].ep_total for n in (0, 2)],
    )


if __name__ == '__main__':
  absltest.main()
