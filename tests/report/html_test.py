import html
from html import parser
import itertools
import json
import pathlib
import re
import tempfile
from unittest import mock
from xml.etree import ElementTree

from absl.testing import absltest

from jax_autorec import errors, quantization, report, spaces
from jax_autorec import schema as schema_lib
from jax_autorec.report import plots

_HOSTILE = (
  '<script>alert(1)</script>',
  '"><img src=x onerror=alert(1)>',
  '--><script>alert(2)</script>',
  '</svg><style>*{}</style>',
  "it's $\\frac$ & more",
)


class _Page(parser.HTMLParser):
  """Tags, attributes and rows of tables, as a browser would see them."""

  def __init__(self, text):
    super().__init__()
    self.tags, self.attributes, self.rows, self.text = [], [], [], []
    self._in_cell = False
    self.feed(text)

  def handle_starttag(self, tag, attrs):
    self.tags.append(tag)
    self.attributes += attrs
    if tag == 'tr':
      self.rows.append([])
    if tag in ('td', 'th'):
      self.rows[-1].append('')
      self._in_cell = True

  def handle_endtag(self, tag):
    if tag in ('td', 'th'):
      self._in_cell = False

  def handle_data(self, data):
    self.text.append(data)
    if self._in_cell:
      self.rows[-1][-1] += data

  def row(self, name):
    return next(row for row in self.rows if row and row[0] == name)


def _metrics(auc, logloss):
  return {'auc': auc, 'logloss': logloss, 'ne': logloss / 0.6, 'rows': 900}


def _control(auc, logloss):
  return {
    'test': _metrics(auc, logloss),
    'valid': _metrics(auc, logloss),
    'vector_params': 4000,
    'vectors_total': 4100.5,
    'total_params': 4321,
    'seconds': 1.5,
    'examples_per_second': 12345.6,
  }


def _values(fields, planted=()):
  """Files of a finished search over all pairs of some fields."""
  pairs = list(itertools.combinations(fields, 2))
  kept = pairs[::3]
  architecture = {
    'fields': [
      {'name': f, 'kind': 'categorical', 'vocab_size': 9 + i, 'dim': 8}
      for i, f in enumerate(fields)
    ],
    'interactions': [
      {'name': 'pairs', 'kind': 'products', 'normalize': True, 'terms': kept}
    ],
    'head': {'first_order': True, 'hidden': [64, 32], 'norm': 'batch'},
    'projection': 'zero_pad',
    'width': 0,
    'choice': None,
    'squash': False,
    'arrays': {},
  }
  result = {
    'method': 'autofis',
    'dataset': 'clicks',
    'model': 'fm',
    'seed': 3,
    'tiny': False,
    **_control(0.8, 0.45),
    'controls': {
      'lr': _control(0.7, 0.6),
      'base': _control(0.8007, 0.44),
    },
    'search': {'kept': len(kept), 'of': len(pairs), 'steps': 200},
    'seconds': {'prepare': 0.1, 'search': 2.0, 'retrain': 3.0},
    'rows': {'read': 1010, 'kept': 1000, 'quarantined': 10},
    'command': 'python -m experiments.run',
    'machine': 'x',
  }
  if planted:
    result['truth'] = {'pairs': planted}
    result['bayes'] = {'test': {'auc': 0.85, 'logloss': 0.4}}
    result['recovered'] = {
      'planted': len(planted),
      'planted_kept': 1,
      'others': len(pairs) - len(planted),
      'others_pruned': 1,
    }
  metrics = [{'stage': 'search', 'step': 0, 'names': {'pairs': pairs}}]
  for step in (100, 200):
    gates = [0.6 if p in kept else 0.2 * (200 - step) / 100 for p in pairs]
    metrics.append({'stage': 'search', 'step': step, 'gates': {'pairs': gates}})
  for stage in ('search', 'retrain', 'control:lr'):
    metrics += [
      {
        'stage': stage,
        'step': 100 * e,
        'kind': 'evaluation',
        'epoch': float(e),
        'valid_auc': 0.6 + 0.05 * e,
        'valid_logloss': 0.6 - 0.05 * e,
      }
      for e in (1, 2)
    ]
  return result, metrics, architecture, {'seed': 3}


class HtmlTest(absltest.TestCase):
  def test_hostile_field_names_stay_text(self):
    # One more without a match, so that every hostile one is in a kept pair.
    values = _values((*_HOSTILE, 'plain', 'other'))
    text = report.render(*values)
    page = _Page(text)
    self.assertNoCommonElements(['script', 'img', 'iframe'], page.tags)
    self.assertEmpty([n for n, _ in page.attributes if n.startswith('on')])
    for svg in re.findall(r'<svg.*?</svg>', text, re.S):
      ElementTree.fromstring(svg)
    shown = ''.join(page.text)
    for name in _HOSTILE:
      self.assertIn(name, shown)
      self.assertIn(html.escape(name, quote=False)[:12], text)

  def test_a_search_over_widths_shows_what_it_thinks_of_them(self):
    result, metrics, architecture, config = _values(['user', 'city', 'day'])
    del result['search']['kept'], result['search']['of']
    result['search']['trials'] = [
      {
        'trial': number,
        'valid': _metrics(0.7 + number / 100, 0.5),
        'embedding_params': 1000 * number,
        'seconds': 1.0,
      }
      for number in (1, 2, 3)
    ]
    metrics = [line for line in metrics if 'gates' not in line]
    metrics[0] = {
      'stage': 'search',
      'step': 0,
      'field_names': ['user', 'city', 'day'],
      'choice': {'kind': 'mixed_dims', 'dims': [2, 8, 32]},
      'dim_weights': [[1 / 3] * 3] * 3,
    }
    metrics.append(
      {
        'stage': 'search',
        'step': 200,
        'dim_weights': [[0.1, 0.2, 0.7], [0.8, 0.1, 0.1], [0.3, 0.4, 0.3]],
      }
    )
    page = _Page(report.render(result, metrics, architecture, config))
    shown = ''.join(page.text)
    for text in (
      'Widths over the search',
      'weight at the end of the search',
      'mean width under the weights',
      'What was tried',
      'trial 3',
    ):
      self.assertIn(text, shown)
    self.assertNotIn('products kept', shown)

  def test_what_a_search_records_has_a_section(self):
    result, metrics, architecture, config = _values(['a', 'b', 'c'])
    plain = report.render(result, metrics, architecture, config)
    self.assertNotIn('What is searched', plain)
    levels = {'height': [1.0]}
    metrics.append({'stage': 'search', 'step': 100, 'levels': levels})
    page = report.render(result, metrics, architecture, config)
    self.assertIn('What is searched', page)

  def test_interactions_without_terms_are_described(self):
    result, metrics, architecture, config = _values('abc')
    architecture['interactions'] += [
      {'kind': 'fm', 'name': 'fm', 'to': 'logit'},
      {'kind': 'cross', 'name': 'c', 'layers': 3, 'to': 'output'},
    ]
    page = _Page(report.render(result, metrics, architecture, config))
    shown = ''.join(page.text)
    self.assertIn('all pairs, summed', shown)
    self.assertIn('cross (layers 3, to output)', shown)

  def test_page_needs_nothing_but_itself(self):
    text = report.render(*_values([f'f{i}' for i in range(20)]))
    page = _Page(text)
    for name, value in page.attributes:
      if name in ('src', 'href', 'xlink:href'):
        self.assertRegex(value, r'^(#|data:image/png;base64,)')
    self.assertNoCommonElements(['link', 'script', 'iframe'], page.tags)
    self.assertNotRegex(text, r'@import|url\((?!#)')
    addresses = set(re.findall(r'https?://[^"\s<]+', text))
    self.assertContainsSubset(
      addresses,
      {'http://www.w3.org/1999/xlink', 'http://www.w3.org/2000/svg'},
    )

  def test_forty_fields_have_all_pictures_in_a_page_of_bounded_size(self):
    fields = [f'a_field_with_a_name_{i}' for i in range(40)]
    planted = [(fields[0], fields[1]), (fields[2], fields[3])]
    text = report.render(*_values(fields, planted))
    page = _Page(text)
    names = [v for n, v in page.attributes if n == 'aria-label']
    self.assertEqual(
      names,
      [
        'test AUC',
        'test logloss',
        'Gates of the pairs',
        'Strongest pairs',
        'Field pairs',
        'AUC',
        'logloss',
        'Sizes by field',
      ],
    )
    self.assertEqual(page.tags.count('svg'), len(names))
    self.assertLess(len(text), 1_000_000)

  def test_how_evenly_codes_are_used(self):
    result, *others = _values('abcd')
    result['code_entropy'] = {'user': 0.4567}
    page = _Page(report.render(result, *others))
    row = page.row('entropy of the codes of user, of 1')
    self.assertEqual(row[1], '0.46')

  def test_a_quantised_model_shows_what_is_left_of_it(self):
    schema = schema_lib.Schema(
      (
        schema_lib.Field('user', vocab_size=300),
        schema_lib.Field('city', vocab_size=40),
        schema_lib.Field('age', kind='numeric'),
      )
    )
    plain = spaces.deepfm(schema, dim=8, hidden=(2,))
    for kind in ('sx', 'vq'):
      plan = quantization.quantize(plain, kind, 4, [(0.1, 16), (0.9, 4)])
      packed = plan.packed
      result, metrics, _, config = _values('ab')
      values = json.loads(json.dumps(packed.to_dict()))
      with mock.patch.object(plots, 'bars', return_value='') as bars:
        text = report.render(result, metrics[-1:], values, config)
      names, numbers, _ = bars.call_args.args
      sizes = dict(zip(names, numbers))
      self.assertEqual(set(sizes), {'user', 'city', 'age'})
      self.assertEqual(sum(numbers), packed.vectors_total)
      # 30 ids of 4 codes of 4 bits, then 270 of 2; 16 centroids of width 8.
      self.assertEqual(sizes['user'], (30 * 2 + 270 + 0) / 4 + 16 * 8)
      row = _Page(text).row('user')
      self.assertEqual(row[1], '300')
      self.assertEqual(
        row[2],
        '30 x 4 codes of 4 bits + 270 x 4 codes of 2 bits + 128 of codebooks',
      )

  def test_sizes_before_and_after_stand_side_by_side(self):
    result, *others = _values('abc')
    self.assertNotIn('before and after', report.render(result, *others))
    held = dict.fromkeys(
      ('tables', 'dense', 'index', 'optimizer', 'method', 'file'), 0
    )
    trained = {'vector_params': 900, 'ep_total': 1000.5, 'bytes': held}
    derived = trained | {'vector_params': 30, 'bytes': held | {'index': 7}}
    result['sizes'] = {'trained': trained, 'derived': derived}
    self.assertNotIn('A reason.', report.render(result, *others))
    result['not_searched'] = 'A reason.'
    page = _Page(report.render(result, *others))
    self.assertIn(['', 'trained', 'derived'], page.rows)
    self.assertEqual(page.row('vectors'), ['vectors', '900', '30'])
    row = page.row('bytes of codes, patterns, permutations')
    self.assertEqual(row[1:], ['0', '7'])
    self.assertIn('A reason.', ' '.join(page.text))

  def test_a_stream_of_before_sizes_were_kept_has_a_page(self):
    result, *others = _values('abc')
    part = _metrics(0.7, 0.5) | {'loss': 0.2, 'accuracy': 0.6}
    del result['controls']['lr'], result['search']
    result |= {'stream': part, 'test': part}
    result['controls']['base'] |= {'stream': part, 'test': part}
    page = _Page(report.render(result, *others))
    row = page.row('autofis')
    place = page.rows[0].index('bytes of optimiser and method')
    self.assertEqual(row[place], '')

  def test_differences_favour_the_result_where_positive(self):
    page = _Page(report.render(*_values('abcd')))
    headings = page.rows[0]
    auc = headings.index('result ahead by, AUC')
    logloss = headings.index('result ahead by, logloss')
    self.assertEqual(page.row('lr')[auc], '+0.10000')
    self.assertEqual(page.row('lr')[logloss], '+0.15000')
    self.assertEqual(page.row('base')[auc], '-0.00070')
    self.assertEqual(page.row('base')[logloss], '-0.01000')
    text = ' '.join(page.text)
    self.assertIn('Ahead of lr: +0.10000 AUC.', text)
    self.assertRegex(text, 'Not ahead of base: -0.00070 AUC, within the noise')

  def test_every_metric_of_the_test_split_is_in_the_table(self):
    result, *others = _values('abcd')
    headings = _Page(report.render(result, *others)).rows[0]
    self.assertNotIn('AUC by group', headings)
    result['test'] |= {'calibration': 1.0125, 'gauc': 0.71234}
    page = _Page(report.render(result, *others))
    headings, row = page.rows[:2]
    self.assertEqual(row[headings.index('calibration')], '1.0125')
    self.assertEqual(row[headings.index('AUC by group')], '0.71234')
    # A control without it keeps its columns in place.
    self.assertLen(page.row('lr'), len(headings))

  def test_trials_are_listed_by_validation_auc(self):
    result, *others = _values(('a', 'b', 'c'))
    result['search'] = {
      'trials': [
        {
          'trial': n + 1,
          'alpha': alpha,
          'valid': _metrics(auc, 0.5),
          'embedding_params': 700 + n,
          'ep_total': 800,
          'seconds': 1.25,
        }
        for n, (alpha, auc) in enumerate(((0.15, 0.61), (0.35, 0.64)))
      ]
    }
    text = report.render(result, *others)
    self.assertIn('Trials, validation split', text)
    cells = re.findall(r'<td>([^<]*)</td>', text.split('<h2>Trials')[1])
    self.assertEqual(cells[:3], ['2', '0.35', '0.64000'])
    self.assertEqual(cells[4:9], ['701', '1.2', '1', '0.15', '0.61000'])
    self.assertNotIn('Trials,', report.render(*_values(('a', 'b', 'c'))))

  def test_trials_of_a_search_by_loss(self):
    """The lowest loss comes first, a training that diverged last."""
    result, metrics, architecture, config = _values(('a', 'b', 'c'))
    trials = [
      {
        'trial': n + 1,
        'blocks': '0 fm(vectors)',
        'valid': valid,
        'flops': 1234.4,
        'embedding_params': 700,
        'ep_total': 700,
        'seconds': 1.25,
      }
      for n, valid in enumerate(
        (
          {},
          _metrics(0.7, 0.5) | {'logloss_error': 0.01},
          _metrics(0.6, 0.495) | {'logloss_error': 0.01},
        )
      )
    ]
    trials[0]['diverged'] = 'loss of step 3 is nan'
    result['search'] = {'metric': 'logloss', 'trials': trials}
    architecture['interactions'] = [
      {
        'kind': 'blocks',
        'name': 'blocks',
        'to': 'output',
        'blocks': [{'type': 'fm', 'inputs': ['vectors'], 'width': 0}],
      }
    ]
    architecture['head'] |= {'first_order': False, 'hidden': ()}
    text = report.render(result, metrics, architecture, config)
    cells = re.findall(r'<td>([^<]*)</td>', text.split('<h2>Trials')[1])
    self.assertEqual(
      cells[:6],
      ['3', '0 fm(vectors)', '0.60000', '0.49500', '0.01000', '1,234'],
    )
    self.assertEqual(cells[16:20], ['1', '0 fm(vectors)', 'diverged', ''])
    for words in (
      'Graph of the blocks',
      '2 of 2 are within a standard error of the best',
      '0: fm  of vectors',
      'a linear output layer',
    ):
      self.assertIn(words, text)

  def test_sizes_are_those_of_pieces(self):
    result, metrics, architecture, config = _values(('a', 'b'))
    architecture['fields'][0]['pieces'] = [
      {'start': 0, 'stop': 2, 'dim': 3, 'column': 0, 'divide': 1, 'modulo': 0},
      {'start': 2, 'stop': 9, 'dim': 1, 'column': 0, 'divide': 2, 'modulo': 0},
    ]
    with mock.patch.object(plots, 'bars', return_value='') as bars:
      report.render(result, metrics, architecture, config)
    names, numbers, _ = bars.call_args.args
    self.assertEqual(dict(zip(names, numbers)), {'a': 6 + 4, 'b': 80})

  def test_planted_data_show_the_distance_from_the_optimum(self):
    page = _Page(report.render(*_values('abcd', [('a', 'b')])))
    # (0.6 - 0.45) of (0.6 - 0.4).
    self.assertIn('75.0%', page.text)
    self.assertEqual(page.row('best possible (true logits)')[1], '0.85000')
    self.assertIn('1 of 1', page.text)

  def test_a_run_without_search_has_neither_gates_nor_controls(self):
    result, metrics, architecture, config = _values('abcd')
    for key in ('controls', 'search'):
      del result[key]
    metrics = [line for line in metrics if line['stage'] == 'retrain']
    architecture['interactions'] = [{'name': 'fm', 'kind': 'fm', 'to': 'logit'}]
    page = _Page(report.render(result, metrics, architecture, config))
    names = [v for n, v in page.attributes if n == 'aria-label']
    self.assertEqual(names, ['AUC', 'logloss', 'Sizes by field'])

  def test_groups_are_listed_by_the_names_of_their_fields(self):
    result, metrics, architecture, config = _values('abcd')
    result['method'] = 'autogroup'
    plan = {'name': 'groups_3', 'kind': 'groups', 'order': 3, 'form': 'power'}
    plan['groups'] = [['a', 'b', 'd'], ['b', 'c']]
    architecture['interactions'] = [plan]
    metrics = [line for line in metrics if line['stage'] == 'retrain']
    text = report.render(result, metrics, architecture, config)
    self.assertIn('2 groups of fields of order 3, power', text)
    self.assertIn('<li>a, b, d</li><li>b, c</li>', text)

  def test_pieces_of_tables_are_listed_and_their_entries_counted(self):
    result, metrics, architecture, config = _values('abc')
    piece = dict(start=0, stop=5, dim=2, column=0, divide=1, modulo=0)
    # The rest of the ids share a row.
    rest = piece | dict(start=5, stop=9, divide=4, column=6)
    architecture['fields'][0]['pieces'] = [piece, rest]
    architecture['fields'][1]['pieces'] = []
    metrics = [
      *metrics,
      {'stage': 'search', 'step': 100, 'expected_entries': 90.5},
      {'stage': 'search', 'step': 200, 'expected_entries': 40.5},
    ]
    page = _Page(report.render(result, metrics, architecture, config))
    self.assertEqual(page.row('a'), ['a', '9', '5 x 2 + 1 x 2', '12'])
    self.assertEqual(page.row('b'), ['b', '10', 'none', '0'])
    self.assertEqual(page.row('c'), ['c', '11', '11 x 8', '88'])
    names = [v for n, v in page.attributes if n == 'aria-label']
    self.assertIn('expected table entries', names)

  def test_same_files_give_the_same_bytes(self):
    values = _values([f'f{i}' for i in range(15)], [('f0', 'f1')])
    self.assertEqual(report.render(*values), report.render(*values))


class FilesTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.workdir = pathlib.Path(tempfile.mkdtemp())
    self.metrics = self.workdir / 'metrics.jsonl'

  def test_what_a_resumed_run_repeats_counts_once(self):
    lines = [
      {'stage': 'search', 'step': 10, 'valid_auc': 0.6},
      {'stage': 'search', 'step': 20, 'valid_auc': 0.7},
      {'stage': 'search', 'step': 20, 'valid_auc': 0.75},
      {'stage': 'retrain', 'step': 10, 'valid_auc': 0.5},
      {'stage': 'search', 'step': 15, 'valid_auc': 0.65},
    ]
    texts = [json.dumps(line) for line in lines]
    half = json.dumps(lines[0])[:20]
    self.metrics.write_text('\n'.join([*texts[:2], half, '', *texts[2:]]))
    found = report.html.read_metrics(self.metrics)
    self.assertEqual(
      [(x['stage'], x['step'], x['valid_auc']) for x in found],
      [
        ('search', 10, 0.6),
        ('search', 15, 0.65),
        ('search', 20, 0.75),
        ('retrain', 10, 0.5),
      ],
    )

  def test_an_unfinished_run_is_named(self):
    with self.assertRaisesRegex(errors.ConfigError, 'has no report.json'):
      report.write(self.workdir)

  def test_write_takes_what_lies_there(self):
    result, metrics, architecture, config = _values('abcd')
    (self.workdir / 'report.json').write_text(json.dumps(result))
    self.metrics.write_text('\n'.join(json.dumps(line) for line in metrics))
    (self.workdir / 'architecture.json').write_text(json.dumps(architecture))
    (self.workdir / 'config.json').write_text(json.dumps(config))
    path = report.write(self.workdir)
    self.assertEqual(
      path.read_text('utf-8'),
      report.render(result, _sorted(metrics), architecture, config),
    )


def _sorted(metrics):
  stages = ('search', 'retrain', 'control:lr')
  return sorted(metrics, key=lambda x: (stages.index(x['stage']), x['step']))


if __name__ == '__main__':
  absltest.main()
