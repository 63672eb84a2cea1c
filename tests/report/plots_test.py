import re
from xml.etree import ElementTree

from absl.testing import absltest, parameterized

from jax_autorec.report import plots

_SVG = '{http://www.w3.org/2000/svg}'


def _texts(svg):
  """(text, x, y) of all labels; those that are turned have no x and y."""
  root = ElementTree.fromstring(svg)
  return [
    (node.text, float(node.get('x', 'nan')), float(node.get('y', 'nan')))
    for node in root.iter(f'{_SVG}text')
  ]


def _paths(svg, style):
  root = ElementTree.fromstring(svg)
  nodes = root.iter(f'{_SVG}path')
  return [node for node in nodes if style in (node.get('style') or '')]


def _widths(paths):
  """Extents along x of closed paths."""
  found = []
  for path in paths:
    x = [float(v) for v in re.findall(r'[ML] (\S+) \S+', path.get('d'))]
    found.append(max(x) - min(x))
  return found


class PlotsTest(parameterized.TestCase):
  def test_candidate_map_marks_the_heaviest_of_every_field(self):
    weights = [[0.2, 0.5, 0.3], [0.6, 0.3, 0.1]]
    svg = plots.candidate_map(['user', 'city'], (2, 8, 32), weights)
    labels = [text for text, _, _ in _texts(svg)]
    for text in ('user', 'city', '2', '8', '32', 'candidate width'):
      self.assertIn(text, labels)
    root = ElementTree.fromstring(svg)
    marks = [
      (float(node.get('x')), float(node.get('y')))
      for node in root.iter(f'{_SVG}use')
      if plots.RED.lower() in (node.get('style') or '')
    ]
    self.assertLen(marks, 2)
    (first_x, first_y), (second_x, second_y) = marks
    self.assertGreater(first_x, second_x)
    self.assertLess(first_y, second_y)

  def test_along_values_draws_a_line_per_bucket_and_marks_quantiles(self):
    values = [-1.0, -0.5, 0.0, 0.5, 1.0]
    similarity = [[1 - abs(a - b) for b in values] for a in values]
    weights = [[0.1, 0.2, 0.7], [0.2, 0.2, 0.6], [0.3, 0.4, 0.3]] * 2
    plain = plots.along_values(values, similarity, [-0.2, 0.3, 9.0])
    both = plots.along_values(values, similarity, [-0.2, 0.3, 9.0], weights[:5])
    labels = [text for text, _, _ in _texts(both)]
    self.assertIn('cosine of the vectors', labels)
    self.assertIn('weight of a soft bucket', labels)
    self.assertNotIn(
      'weight of a soft bucket', [t for t, _, _ in _texts(plain)]
    )
    # Three lines more, and the two quantiles that are inside once more.
    thick = 'stroke-width: 1.3'
    self.assertLen(_paths(both, thick), 3)
    self.assertEmpty(_paths(plain, thick))
    marks = lambda svg: len(_paths(svg, 'stroke: #000000; stroke-width: 0.9'))
    self.assertEqual(marks(both) - marks(plain), 2)

  def test_points_without_a_front(self):
    points = [
      dict(name=n, size=s, score=a, spread=0, marked=n == 'trial 2')
      for n, s, a in (('trial 1', 900, 0.7), ('trial 2', 4000, 0.72))
    ]
    svg = plots.scores_by_size(
      points, [], 'AUC', kinds=('kept', 'others'), size_label='entries'
    )
    labels = [text for text, _, _ in _texts(svg)]
    for text in ('trial 1', 'trial 2', 'kept', 'others'):
      self.assertIn(text, labels)
    self.assertIn('entries (log scale)', labels)
    self.assertNotIn('Pareto front', labels)

  def test_octaves_are_even_steps_and_gaps_stay_empty(self):
    svg = plots.by_frequency(
      [1, 2, 8], {'a': [2.0, 3.0, 9.0], 'b': [1.0, float('nan'), 4.0]}, 'width'
    )
    place = {
      text: x for text, x, _ in _texts(svg) if text in ('1+', '2+', '8+')
    }
    self.assertLen(place, 3)
    ratio = (place['8+'] - place['2+']) / (place['2+'] - place['1+'])
    self.assertAlmostEqual(ratio, 2, places=1)
    self.assertContainsSubset(
      {'a', 'b', 'width', 'frequency'}, {text for text, *_ in _texts(svg)}
    )

  def test_pair_map_tells_kept_pruned_and_planted_apart(self):
    fields = ['a', 'b', 'c', 'd']
    values = {('a', 'b'): 0.5, ('a', 'c'): 0.0, ('b', 'c'): 0.0}
    svg = plots.pair_map(fields, values, [('a', 'b'), ('c', 'd')])
    self.assertLen(_paths(svg, f'stroke: {plots.RED.lower()}'), 2)
    self.assertLen(_paths(svg, 'fill: #eeeeee'), 2)

  @parameterized.parameters(4, 20, 40)
  def test_labels_of_the_pair_map_do_not_overlap(self, num_fields):
    fields = [f'a_rather_long_field_name_{i:02d}' for i in range(num_fields)]
    values = {(fields[0], name): 0.5 for name in fields[1:]}
    texts = _texts(plots.pair_map(fields, values, []))
    rows = sorted(y for text, _, y in texts if text in fields and y == y)
    self.assertLen(rows, num_fields)
    height = 8 if num_fields <= 20 else 6.5
    gaps = [after - before for before, after in zip(rows, rows[1:])]
    self.assertGreater(min(gaps), height)

  def test_labels_lie_inside_the_picture(self):
    fields = [f'a_rather_long_field_name_{i:02d}' for i in range(40)]
    values = {(fields[0], name): 0.5 for name in fields[1:]}
    svg = plots.pair_map(fields, values, [])
    width = float(ElementTree.fromstring(svg).get('viewBox').split()[2])
    # Ends of right-aligned labels; a letter is about .6 of its size wide.
    ends = [x for text, x, _ in _texts(svg) if text in fields and x == x]
    self.assertGreater(min(ends), len(fields[0]) * 6.5 * 0.55)
    self.assertLess(max(ends), width / 2)

  def test_gates_are_counted_by_truth_or_by_fate(self):
    steps, gates = [0, 5], [[0.6, 0.6, 0.6], [0.9, 0.0, 0.0]]
    texts = [t for t, _, _ in _texts(plots.gates_over_time(steps, gates, None))]
    self.assertContainsSubset({'kept (1)', 'pruned (2)'}, texts)
    planted = [True, True, False]
    svg = plots.gates_over_time(steps, gates, planted)
    texts = [t for t, _, _ in _texts(svg)]
    self.assertContainsSubset({'planted (2)', 'not planted (1)'}, texts)

  def test_many_gates_stay_small(self):
    rows = [[0.6 - 0.001 * i * s for i in range(741)] for s in range(50)]
    svg = plots.gates_over_time(list(range(50)), rows, None)
    self.assertLess(len(svg), 400_000)

  def test_scores_by_size_are_placed_and_named(self):
    points = [
      {
        'name': name,
        'size': size,
        'score': score,
        'spread': 0.001,
        'marked': name == 'AutoX',
      }
      for name, size, score in (
        ('FDE(2)', 1e3, 0.70),
        ('AutoX', 1e4, 0.75),
        ('FDE(8)', 1e5, 0.74),
      )
    ]
    svg = plots.scores_by_size(points, [0, 1], 'test AUC')
    texts = {text: (x, y) for text, x, y in _texts(svg)}
    self.assertContainsSubset(
      {'FDE(2)', 'AutoX', 'FDE(8)', 'methods', 'controls', 'Pareto front'},
      texts,
    )
    # A power of ten each, without mathematics.
    ticks = [texts[tick][0] for tick in ('1k', '10k', '100k')]
    self.assertAlmostEqual(ticks[1] - ticks[0], ticks[2] - ticks[1], delta=3)
    self.assertLess(texts['AutoX'][1], texts['FDE(2)'][1])

  def test_names_of_points_do_not_cover_each_other(self):
    points = [
      {
        'name': f'Method {i}',
        'size': 1e4 * 1.04**i,
        'score': 0.8 + 1e-4 * (i % 3),
        'spread': 0.0,
        'marked': i % 2,
      }
      for i in range(8)
    ]
    texts = _texts(plots.scores_by_size(points, [0], 'test AUC'))
    boxes = [(x, y) for text, x, y in texts if text.startswith('Method')]
    self.assertLen(boxes, 8)
    for i, (x, y) in enumerate(boxes):
      for other_x, other_y in boxes[:i]:
        apart = abs(x - other_x) > 36 or abs(y - other_y) > 7
        self.assertTrue(apart, boxes)

  def test_bars_show_the_largest_and_keep_namesakes(self):
    # Both shorten to the same text.
    names = ['x' * 40 + c + 'y' * 40 for c in 'ab'] + ['small', 'middle']
    svg = plots.bars(names, [3.0, 2.0, 0.5, 1.0], 'size', most=3)
    widths = _widths(_paths(svg, f'fill: {plots.BLUE.lower()}'))
    self.assertLen(widths, 3)
    smallest = min(widths)
    for width, expected in zip(sorted(widths), (1, 2, 3)):
      self.assertAlmostEqual(width / smallest, expected, places=3)
    self.assertNotIn('small', [text for text, _, _ in _texts(svg)])

  def test_unmarked_bars_are_of_another_colour(self):
    svg = plots.bars(['a', 'b', 'c'], [1, 2, 3], 'x', [True, False, True])
    self.assertLen(_paths(svg, f'fill: {plots.ORANGE.lower()}'), 1)

  def test_the_best_possible_is_drawn_where_known(self):
    known = plots.levels(['a', 'b'], [0.7, 0.8], 'AUC', 0.9)
    unknown = plots.levels(['a', 'b'], [0.7, 0.8], 'AUC', None)
    self.assertIn('best possible', [text for text, _, _ in _texts(known)])
    self.assertNotIn('best possible', unknown)

  def test_any_name_is_drawn_as_it_is(self):
    names = ['price_$_a$', r'$\frac$', '<b>&amp;', '--><x>', '名前']
    values = {(names[0], name): 0.5 for name in names[1:]}
    texts = [t for t, _, _ in _texts(plots.pair_map(names, values, []))]
    self.assertContainsSubset(names, texts)

  def test_series_leave_lines_without_an_epoch_out(self):
    lines = [
      {'stage': 'search', 'step': 0, 'names': {}},
      {'stage': 'search', 'step': 5, 'epoch': 0.5, 'loss': 1.0},
      {'stage': 'search', 'step': 10, 'epoch': 1.0, 'valid_auc': 0.7},
      {'stage': 'retrain', 'step': 10, 'epoch': 1.0, 'valid_auc': 0.6},
      {'stage': 'retrain', 'step': 20, 'epoch': 2.0, 'valid_auc': 0.8},
    ]
    self.assertEqual(
      plots.series_by_stage(lines, 'valid_auc'),
      {'search': ([1.0], [0.7]), 'retrain': ([1.0, 2.0], [0.6, 0.8])},
    )


if __name__ == '__main__':
  absltest.main()
