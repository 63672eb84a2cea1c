from html import parser

from absl.testing import absltest

from jax_autorec import report

_HOSTILE = '<script>alert("&")</script>'


class _Page(parser.HTMLParser):
  """Tags, attributes, classes of cells and text, as a browser has them."""

  def __init__(self, text):
    super().__init__()
    self.tags, self.classes, self.links, self.text = [], [], [], ''
    self.feed(text)

  def handle_starttag(self, tag, attrs):
    self.tags.append(tag)
    attrs = dict(attrs)
    self.links += [attrs[k] for k in ('src', 'href') if k in attrs]
    if tag in ('td', 'tr') and attrs.get('class'):
      self.classes.append(attrs['class'])

  def handle_data(self, data):
    self.text += data


def _point(name, size, score):
  point = {'name': name, 'size': size, 'score': score}
  return point | {'spread': 0.0, 'marked': False}


def _page(**changes):
  group = {
    'name': 'frappe, fm',
    'headings': ['method', 'test AUC'],
    'rows': [['FDE(8)', '0.81'], ['X', '0.82']],
    'marked': [1],
    'points': [_point('FDE(8)', 8e3, 0.81), _point(_HOSTILE, 2e3, 0.82)],
    'front': [1],
    'families': [
      (
        'Against FDE(8)',
        ['method', 'verdict'],
        [['X', 'better'], ['Y', 'tie'], ['Z', 'worse']],
      )
    ],
  }
  return {
    'title': 'Comparison',
    'subtitle': 'two',
    'is_tiny': False,
    'tiles': [('cells done', '2 of 3')],
    'groups': [group | changes],
    'notes': ['A note.'],
    'tests': 'How it was tested.',
    'within': None,
    'missing': [f'fm+y, seed 1: {_HOSTILE}'],
    'made': [('command', 'compare'), ('seeds', '1, 2')],
  }


class PageTest(absltest.TestCase):
  def test_all_is_on_one_page(self):
    page = _Page(report.render_comparison(_page()))
    for text in (
      '2 of 3',
      '0.82',
      'Against FDE(8)',
      'How it was',
      'fm+y',
      '1, 2',
    ):
      self.assertIn(text, page.text)
    self.assertEqual(page.tags.count('svg'), 1)
    marks = [name for name in page.classes if name != 'name']
    self.assertEqual(marks, ['result', 'better', 'worse'])
    # Self-contained: no other file, no address.
    self.assertEmpty([x for x in page.links if not x.startswith('#')])
    self.assertNotIn('link', page.tags)

  def test_text_of_others_is_text(self):
    page = _Page(report.render_comparison(_page()))
    self.assertNotIn('script', page.tags)
    self.assertIn(_HOSTILE, page.text)

  def test_one_point_is_no_plot(self):
    page = _page(points=[_point('FDE(8)', 8e3, 0.81)], front=[0], families=[])
    page = _Page(report.render_comparison(page))
    self.assertNotIn('svg', page.tags)
    self.assertNotIn('How it was tested', page.text)

  def test_nothing_finished_is_still_a_page(self):
    page = _Page(report.render_comparison(_page() | {'groups': []}))
    self.assertIn('fm+y', page.text)

  def test_how_it_was_made(self):
    run = {'machine': 'x86, 2 cores', 'versions': {'jax': '1', 'flax': '2'}}
    other = run | {'machine': 'arm, 8 cores'}
    day = 86400.0
    found = report.how_made(
      [(run, 3 * day), (other, day), (run, 2 * day)], (1, 2), 'compare --x'
    )
    self.assertEqual(
      found,
      [
        ('command', 'compare --x'),
        ('seeds', '1, 2'),
        ('runs finished', '1970-01-02 to 1970-01-04'),
        ('machine', 'arm, 8 cores'),
        ('machine', 'x86, 2 cores'),
        ('versions', 'jax 1, flax 2'),
      ],
    )
    self.assertLen(report.how_made([], (), 'c'), 1)
    (dates,) = [v for n, v in report.how_made([(run, day)] * 2, (1,), 'c')[2:3]]
    self.assertEqual(dates, '1970-01-02')


if __name__ == '__main__':
  absltest.main()
