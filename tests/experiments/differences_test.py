import pathlib

from absl.testing import absltest, parameterized
import numpy as np
from scipy import stats

from experiments import differences
from jax_autorec import comparison, errors, metrics


def _line(name, role, aucs, size=10.0, valid=None, places=()):
  """aucs: seed -> AUC."""
  values = {
    seed: {
      'auc': auc,
      'logloss': 1 - auc,
      'valid_auc': auc if valid is None else valid,
      'size': size,
    }
    for seed, auc in aucs.items()
  }
  places = {seed: pathlib.Path(place) for seed, place in dict(places).items()}
  return differences.Line(f'fm+{name}', name, role, values, places)


def _seeds(mean, noise=1e-4, seeds=(1, 2, 3, 4, 5), start=0):
  rng = np.random.default_rng(start)
  return {s: mean + noise * rng.normal() for s in seeds}


def _by(found, reference, row):
  (line,) = (
    d for d in found if d['reference'] == reference and d['method'] == row
  )
  return line


_BEST = 'the best single width'
_LARGE = 'the best control at equal or larger size'


class ReferencesTest(absltest.TestCase):
  def test_the_best_is_chosen_on_validation(self):
    lines = [
      _line('FDE(2)', 'uniform', {1: 0.9, 2: 0.9}, 2, valid=0.5),
      _line('FDE(8)', 'uniform', {1: 0.7, 2: 0.7}, 8, valid=0.6),
      _line('X', '', {1: 0.8, 2: 0.8}, 4),
    ]
    found = differences.references(lines, 'FDE(2)')
    self.assertEqual(found['FDE(2)'](lines[2]).method, 'FDE(2)')
    self.assertEqual(found[_BEST](lines[2]).method, 'FDE(8)')

  def test_seeds_that_not_all_have_do_not_choose(self):
    lines = [
      _line('a', 'uniform', {1: 0.7, 2: 0.99}),
      _line('b', 'uniform', {1: 0.8}),
    ]
    self.assertEqual(differences.best_on_validation(lines).method, 'b')
    lines[1] = _line('b', 'uniform', {3: 0.8})
    self.assertEqual(differences.best_on_validation(lines).method, 'a')
    self.assertIsNone(differences.best_on_validation([]))

  def test_controls_at_equal_or_larger_size(self):
    lines = [
      _line('small', 'uniform', {1: 0.9}, 3),
      _line('equal', 'control', {1: 0.7}, 5),
      _line('large', 'uniform', {1: 0.8}, 9),
      _line('method', '', {1: 0.99}, 9),
      _line('X', '', {1: 0.8}, 5),
    ]
    control = differences.references(lines, None)[_LARGE]
    self.assertEqual(control(lines[4]).method, 'large')
    self.assertEqual(control(lines[0]).method, 'large')
    # No control is compared with itself, and none is larger than the largest.
    self.assertIsNone(control(lines[2]))

  def test_tables_without_references_have_none(self):
    lines = [_line('a', '', {1: 0.9}), _line('b', '', {1: 0.8})]
    self.assertEmpty(differences.references(lines, None))


class CompareTest(parameterized.TestCase):
  def test_seeds_are_paired_and_missing_ones_left_out(self):
    reference = _line('FDE', 'uniform', {1: 0.80, 2: 0.82, 3: 0.84, 9: 0.1})
    line = _line('X', '', {3: 0.86, 1: 0.81, 2: 0.835, 7: 0.99})
    found = _by(differences.compare([reference, line]), _BEST, 'X')
    test = stats.ttest_rel([0.81, 0.835, 0.86], [0.80, 0.82, 0.84])
    self.assertEqual(found['seeds'], 3)
    self.assertAlmostEqual(found['mean'], 0.045 / 3)
    self.assertAlmostEqual(found['seeds_p'], test.pvalue)
    self.assertAlmostEqual(found['logloss'], -0.045 / 3)
    self.assertEqual(found['tested'], 'seeds')

  def test_runs_without_a_common_seed_are_not_compared(self):
    lines = [_line('FDE', 'uniform', {1: 0.8}), _line('X', '', {2: 0.9})]
    self.assertEmpty(differences.compare(lines))

  def test_one_seed_gives_no_verdict(self):
    lines = [
      _line('FDE', 'uniform', _seeds(0.80, start=1), 9),
      _line('good', '', _seeds(0.81, start=2), 9),
      _line('bad', '', _seeds(0.79, start=3), 9),
    ]
    before = differences.compare(lines)
    lines.append(_line('X', '', {1: 0.9}))
    after = differences.compare(lines)
    found = _by(after, _BEST, 'X')
    self.assertEqual((found['verdict'], found['tested']), ('one seed', ''))
    self.assertIsNone(found['seeds_p'])
    self.assertEqual([d for d in after if d['method'] != 'X'], before)

  def test_controls_change_no_verdict(self):
    noise = np.random.default_rng(0).normal(size=5) * 2e-3
    near = dict(enumerate(0.8023 + noise))
    lines = [
      _line('FDE', 'uniform', dict.fromkeys(range(5), 0.80), 9),
      _line('X', '', near, 5),
    ]
    before = differences.compare(lines, 'FDE')
    controls = [
      _line(f'control{i}', 'control', _seeds(0.7, 1e-2, range(5), i), 4)
      for i in range(9)
    ]
    after = differences.compare([*lines, *controls], 'FDE')
    self.assertEqual([d for d in after if not d['role']], before)
    for found in after:
      if found['role']:
        self.assertEqual(found['verdict'], 'control')
        self.assertIsNotNone(found['seeds_p'])
        self.assertIsNone(found['seeds_holm'])

  def test_holm_by_family_and_verdicts(self):
    lines = [
      _line('FDE', 'uniform', _seeds(0.80, start=1), 9),
      _line('good', '', _seeds(0.81, start=2), 9),
      _line('bad', '', _seeds(0.79, start=3), 9),
      _line('same', '', _seeds(0.80, 1e-3, start=4), 9),
    ]
    found = differences.compare(lines, 'FDE')
    self.assertLen(found, 3 * 3)
    for reference in ('FDE', _BEST, _LARGE):
      family = [d for d in found if d['reference'] == reference]
      np.testing.assert_allclose(
        [d['seeds_holm'] for d in family],
        comparison.holm([d['seeds_p'] for d in family]),
      )
      self.assertEqual(
        [d['verdict'] for d in family], ['better', 'worse', 'tie']
      )

  def test_a_difference_that_correction_undoes_is_a_tie(self):
    noise = [0.001, -0.001, 0.002, -0.002, 0.0]
    near = {s: 0.80 + 0.0023 + n for s, n in enumerate(noise)}
    reference = _line('FDE', 'uniform', dict.fromkeys(range(5), 0.80))
    others = [
      _line(f'same{i}', '', {s: 0.8 + n for s, n in enumerate(noise)})
      for i in range(5)
    ]
    alone = differences.compare([reference, _line('X', '', near)])
    found = _by(alone, _BEST, 'X')
    self.assertBetween(found['seeds_p'], 0.01, 0.05)
    self.assertEqual(found['verdict'], 'better')
    many = differences.compare([reference, _line('X', '', near), *others])
    self.assertEqual(_by(many, _BEST, 'X')['verdict'], 'tie')


class StreamTest(absltest.TestCase):
  def _stream(self, name, role, loss, accuracy):
    line = _line(name, role, dict.fromkeys(range(5), 0.8))
    noise = np.random.default_rng(len(name)).normal(size=(2, 5)) * 1e-4
    for seed, values in line.values.items():
      values['stream_loss'] = loss + noise[0, seed]
      values['stream_accuracy'] = accuracy + noise[1, seed]
    return line

  def test_less_loss_and_more_accuracy_are_better(self):
    lines = [
      self._stream('Fixed', 'uniform', 0.24, 0.61),
      self._stream('good', '', 0.23, 0.62),
      self._stream('mixed', '', 0.25, 0.62),
      self._stream('control', 'control', 0.25, 0.62),
    ]
    found = differences.compare(lines)
    good, mixed, control = (_by(found, _BEST, x.method) for x in lines[1:])
    # AUC, which all have alike, has a verdict of its own.
    self.assertEqual(good['verdict'], 'tie')
    self.assertEqual(good['stream_loss_verdict'], 'better')
    self.assertEqual(good['stream_accuracy_verdict'], 'better')
    self.assertEqual(mixed['stream_loss_verdict'], 'worse')
    self.assertEqual(mixed['stream_accuracy_verdict'], 'better')
    self.assertEqual(control['stream_loss_verdict'], 'control')
    values = [
      [v['stream_loss'] for v in line.values.values()] for line in lines
    ]
    test = stats.ttest_rel(values[1], values[0])
    self.assertAlmostEqual(good['stream_loss_p'], test.pvalue)
    self.assertAlmostEqual(
      good['stream_loss'], np.mean(values[1]) - np.mean(values[0])
    )
    np.testing.assert_allclose(
      [good['stream_loss_holm'], mixed['stream_loss_holm']],
      comparison.holm([good['stream_loss_p'], mixed['stream_loss_p']]),
    )
    self.assertIsNone(control['stream_loss_holm'])

  def test_other_tables_have_no_such_tests(self):
    lines = [_line('FDE', 'uniform', _seeds(0.8)), _line('X', '', _seeds(0.8))]
    self.assertNotIn('stream_loss', _by(differences.compare(lines), _BEST, 'X'))


class ExamplesTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.root = pathlib.Path(self.create_tempdir())
    rng = np.random.default_rng(0)
    self.labels = (rng.random(2000) < 0.4).astype(np.uint8)
    self.rng = rng

  def _write(self, place, noise, rows='same', **more):
    logits = self.labels + noise * self.rng.normal(size=len(self.labels))
    directory = self.root / place
    directory.mkdir()
    arrays = {'logits': logits.astype(np.float32), 'labels': self.labels}
    np.savez(directory / 'predictions.npz', rows=rows, **(arrays | more))
    return logits

  def _lines(self, noise, rows=('same', 'same'), **more):
    lines = []
    for name, role, level in (('FDE', 'uniform', 1.0), ('X', '', noise)):
      aucs, places = {}, {}
      for seed, key in zip((1, 2), rows):
        place = f'{name}{seed}'
        logits = self._write(place, level, key, **more)
        aucs[seed] = metrics.auc(self.labels, logits)
        places[seed] = self.root / place
      lines.append(_line(name, role, aucs, places=places))
    return lines

  def test_examples_of_all_seeds_together(self):
    lines = self._lines(0.8)
    found = _by(differences.compare(lines), _BEST, 'X')
    self.assertEqual(found['tested'], 'seeds, examples')
    scores = {}
    for name in ('X', 'FDE'):
      scores[name] = np.stack(
        [
          np.load(self.root / f'{name}{seed}' / 'predictions.npz')['logits']
          for seed in (1, 2)
        ]
      )
    exact = comparison.delong(self.labels, scores['X'], scores['FDE'])
    self.assertAlmostEqual(found['mean'], exact['mean'], places=6)
    self.assertAlmostEqual(found['delong_p'], exact['p'], places=9)
    self.assertAlmostEqual(
      found['examples_low'], exact['low'], delta=0.3 * exact['std']
    )
    self.assertAlmostEqual(
      np.log(found['examples_p'] / exact['p']),
      0,
      delta=0.2 * -np.log(exact['p']),
    )

  def test_better_is_what_both_tests_say(self):
    lines = self._lines(0.5)
    found = _by(differences.compare(lines), _BEST, 'X')
    self.assertLess(found['examples_holm'], 1e-6)
    # Two seeds are few.
    expected = 'better' if found['seeds_holm'] < 0.05 else 'tie'
    self.assertEqual(found['verdict'], expected)
    for line in lines:
      line.values = {1: line.values[1]}
    found = _by(differences.compare(lines), _BEST, 'X')
    # One seed: the examples are tested, and decide nothing.
    self.assertEqual(
      (found['verdict'], found['tested']), ('one seed', 'examples')
    )
    self.assertLess(found['examples_p'], 1e-6)
    self.assertIsNone(found['examples_holm'])

  def test_other_rows_are_not_paired(self):
    found = _by(differences.compare(self._lines(0.5, ('a', 'b'))), _BEST, 'X')
    self.assertEqual(found['tested'], 'seeds')

  def test_a_seed_without_predictions_is_left_out(self):
    lines = self._lines(0.8)
    (self.root / 'X2' / 'predictions.npz').unlink()
    found = _by(differences.compare(lines), _BEST, 'X')
    first = [
      np.load(self.root / f'{name}1' / 'predictions.npz')['logits']
      for name in ('X', 'FDE')
    ]
    exact = comparison.delong(self.labels, *first)
    self.assertAlmostEqual(found['delong_p'], exact['p'], places=9)
    self.assertEqual(found['seeds'], 2)

  def test_weighted_rows_are_not_tested(self):
    self._write('w', 1.0, weights=np.ones(2000))
    path = self.root / 'w' / 'predictions.npz'
    self.assertIsNone(differences.read_predictions(path))
    self.assertIsNone(differences.read_predictions(self.root / 'none.npz'))

  def test_a_damaged_file_is_named(self):
    path = self.root / 'predictions.npz'
    path.write_bytes(b'PK\x03\x04 cut off')
    with self.assertRaisesRegex(errors.CheckpointError, 'predictions.npz'):
      differences.read_predictions(path)


if __name__ == '__main__':
  absltest.main()
