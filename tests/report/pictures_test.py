from absl.testing import absltest

from jax_autorec.report import pictures


class LevelsTest(absltest.TestCase):
  def test_what_a_search_records_is_drawn(self):
    metrics = [
      {'stage': 'search', 'step': step, 'levels': {'height': [step, 1.0]}}
      for step in (100, 200)
    ]
    metrics[1]['density'] = 0.5
    report = {'method': 'autofis', 'test': {'auc': 0.7, 'logloss': 0.5}}
    title = 'What is searched, over the search'
    sections = dict(pictures.sections(report, [], {}, None))
    self.assertEmpty(sections[title])
    sections = dict(pictures.sections(report, metrics, {}, None))
    names = {name for name, _, _ in sections[title]}
    self.assertEqual(names, {'Height', 'Share of the entries left'})


if __name__ == '__main__':
  absltest.main()
