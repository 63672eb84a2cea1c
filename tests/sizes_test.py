"""Closed forms against vectors worked out by hand, loops and enumeration."""

import dataclasses
import itertools
import json

from absl.testing import absltest, parameterized
import numpy as np

from jax_autorec import architecture as arch_lib
from jax_autorec import errors, field_spaces, sizes, spaces
from jax_autorec import schema as schema_lib


def _schema(vocab_sizes, numeric=0):
  fields = [
    schema_lib.Field(f'f{i}', vocab_size=int(size))
    for i, size in enumerate(vocab_sizes)
  ]
  fields += [schema_lib.Field(f'n{i}', 'numeric') for i in range(numeric)]
  return schema_lib.Schema(tuple(fields))


def _model(vocab_sizes, dim=32, name='deepfm', numeric=0):
  options = {} if name == 'fm' else {'hidden': (4,)}
  return spaces.build(name, _schema(vocab_sizes, numeric), dim=dim, **options)


def _dims(architecture):
  return [plan.dim for plan in architecture.categorical]


def _random_model(seed):
  rng = np.random.default_rng(seed)
  count = rng.integers(2, 12)
  vocab_sizes = np.exp(rng.uniform(np.log(3), np.log(3e5), count)).astype(int)
  name = ('fm', 'deepfm', 'ipnn')[seed % 3]
  dim = int(rng.choice([4, 10, 32]))
  return _model(vocab_sizes, dim, name, numeric=seed % 2), rng


def _num_views(model):
  return sum(view != 'first_order' for view in model.views)


def _counts(rng, vocab_size):
  """Falling but for the reserved ids, of which the second may be absent."""
  values = np.sort(rng.pareto(0.8, vocab_size - 2) * 5 + 1)[::-1]
  return np.r_[rng.integers(0, 99), 0, values].astype(np.int64)


class BudgetTest(parameterized.TestCase):
  def test_bytes_are_float32_entries(self):
    self.assertIsNone(sizes.budget())
    self.assertEqual(sizes.budget(12), 12)
    self.assertEqual(sizes.budget(max_bytes=4002), 1000.5)

  @parameterized.parameters(
    (dict(max_params=1, max_bytes=1), 'give one of them'),
    (dict(max_params=0), 'at least 1'),
    (dict(max_bytes=float('nan')), 'at least 1'),
  )
  def test_senseless_budgets(self, options, message):
    with self.assertRaisesRegex(errors.ConfigError, message):
      sizes.budget(**options)

  def test_what_cannot_be_met_says_what_is_needed(self):
    model = _model([1000, 500], dim=4, name='fm')
    for close in (
      lambda budget: sizes.mixed_dims(model, 0.3, max_params=budget),
      lambda budget: sizes.quotient_remainder(model, max_params=budget),
      lambda budget: sizes.hashed(model, max_params=budget),
    ):
      with self.assertRaisesRegex(
        errors.ConfigError, '1500 are first-order weights.*lower `threshold`'
      ):
        close(1500)


class PowerRuleTest(parameterized.TestCase):
  @parameterized.parameters(
    (0.0, [32, 32, 32, 32], [32, 32, 32, 32]),
    (0.1, [32, 20, 13, 8], [32, 16, 16, 8]),
    (0.3, [32, 8, 2, 1], [32, 8, 2, 1]),
    (0.5, [32, 3, 1, 1], [32, 4, 1, 1]),
    (1.0, [32, 1, 1, 1], [32, 1, 1, 1]),
  )
  def test_known_widths(self, alpha, expected, powers):
    model = _model([10, 1_000, 100_000, 10_000_000])
    close = lambda **options: _dims(
      sizes.mixed_dims(model, alpha, threshold=0, **options)
    )
    self.assertEqual(close(), expected)
    self.assertEqual(close(power_of_two=True), powers)

  def test_the_papers_budget_without_clipping(self):
    rows = np.array([10, 1e3, 1e5, 1e7])
    scale = 16 * rows.sum() / (rows**0.7).sum()
    got = sizes.power_rule(rows, 0.3, scale)
    np.testing.assert_array_equal(got, [979, 246, 62, 16])
    # 166.5M entries, for a budget of 161.6M.
    self.assertAlmostEqual(got @ rows / 1e6, 166.5, places=1)


class MixedDimsTest(parameterized.TestCase):
  def test_that_budget_is_met_once_widths_are_clipped(self):
    rows = [10, 1_000, 100_000, 10_000_000]
    found = sizes.mixed_dims(
      _model(rows), 0.3, threshold=0, max_params=16 * sum(rows)
    )
    # The next width, 15, would cost 10 million entries more.
    self.assertEqual(_dims(found), [32, 32, 32, 14])
    self.assertLess(found.ep_total, 16 * sum(rows))
    self.assertGreater(found.ep_total + 1e7, 16 * sum(rows))

  @parameterized.parameters(range(12))
  def test_more_rows_are_never_wider_and_equal_ones_equal(self, seed):
    model, rng = _random_model(seed)
    vocab_sizes = [plan.vocab_size for plan in model.categorical]
    options = {'power_of_two': bool(seed % 2), 'threshold': 0}
    if seed % 3 == 0:
      options['max_params'] = model.ep_total * 0.6
    alpha = rng.uniform(0, 1)
    found = sizes.mixed_dims(model, alpha, **options)
    by_rows = sorted(zip(vocab_sizes, _dims(found)))
    self.assertEqual(
      [dim for _, dim in by_rows],
      sorted((dim for _, dim in by_rows), reverse=True),
    )
    # Fields in another order: widths move along.
    order = rng.permutation(len(vocab_sizes))
    fields = [model.fields[i] for i in order]
    fields += model.numeric
    moved = arch_lib.Architecture(tuple(fields), (), model.head)
    same = dataclasses.replace(model, interactions=())
    np.testing.assert_array_equal(
      _dims(sizes.mixed_dims(moved, alpha, **options)),
      np.array(_dims(sizes.mixed_dims(same, alpha, **options)))[order],
    )

  def test_an_exponent_of_0_is_one_width(self):
    model = _model([10, 70, 5000], numeric=1)
    self.assertEqual(sizes.mixed_dims(model, 0.0, threshold=0), model)
    narrow = _model([10, 70, 5000], dim=9, numeric=1)
    found = sizes.mixed_dims(
      model, 0.0, threshold=0, max_params=narrow.ep_total
    )
    self.assertEqual(found, narrow)

  def test_small_fields_keep_the_full_width(self):
    model = _model([10, 200, 201, 5000])
    found = sizes.mixed_dims(model, 0.5)
    # Lambda is that of the smallest table still.
    expected = [round(32 * (10 / rows) ** 0.5) for rows in (201, 5000)]
    self.assertEqual(_dims(found), [32, 32, *expected])
    maps = sum(dim * 32 for dim in expected)
    self.assertEqual(found.projection_params, maps)

  @parameterized.product(seed=list(range(10)), num_blocks=[1, 6])
  def test_a_budget_is_met_and_used(self, seed, num_blocks):
    """Of random vocabularies, as far as the choices go."""
    model, rng = _random_model(seed)
    alpha = rng.choice([0.0, 0.1, 0.3, 0.6])
    frequencies = None
    if num_blocks > 1:
      frequencies = {
        plan.name: _counts(rng, plan.vocab_size) for plan in model.categorical
      }
    options = dict(frequencies=frequencies, num_blocks=num_blocks, threshold=0)
    ids = sum(plan.vocab_size for plan in model.categorical)
    low = model.first_order_params + _num_views(model) * ids
    budget = rng.uniform(1.1 * low, model.ep_total)
    found = sizes.mixed_dims(model, alpha, max_params=budget, **options)
    self.assertLessEqual(found.ep_total, budget)
    total = lambda a: sum(
      piece.dim * (piece.stop - piece.start)
      for plan in a.categorical
      for piece in plan.all_pieces
    )
    # Of the lambdas of a grid none that fits gives more.
    cut = [
      block
      for plan in model.categorical
      for block in sizes.blocks(
        plan, frequencies and frequencies[plan.name], num_blocks
      )
    ]
    rows = np.array([block.rows for block in cut])
    largest, jump = 0, 1.0
    for scale in np.geomspace(0.4, model.dim * rows.max() ** alpha, 400):
      dims = sizes.power_rule(rows, alpha, scale, model.dim)
      other = sizes._with_blocks(model, cut, dims)
      if other.ep_total <= budget:
        largest = max(largest, total(other))
        jump = budget / other.ep_total
    self.assertGreaterEqual(total(found), largest)
    if jump < 1 / 0.95:
      # The choices allow it.
      self.assertGreaterEqual(found.ep_total, 0.9 * budget)

  @parameterized.product(
    vocab_sizes=[[3000] * 5, [20_000, 50, 3000, 3000, 900, 40, 10]],
    power_of_two=[False, True],
    share=[0.17, 0.3, 0.47, 0.66],
  )
  def test_single_blocks_fill_what_the_rule_leaves(
    self, vocab_sizes, power_of_two, share
  ):
    """P5: where equal fields would grow together, or the largest doubles."""
    model = _model(vocab_sizes)
    budget = share * model.ep_total
    found = sizes.mixed_dims(
      model, 0.2, threshold=0, power_of_two=power_of_two, max_params=budget
    )
    self.assertBetween(found.ep_total, 0.89 * budget, budget)
    equal = [d for d, size in zip(_dims(found), vocab_sizes) if size == 3000]
    step = min(equal) if power_of_two else 1
    self.assertLessEqual(max(equal) - min(equal), step)

  @parameterized.product(seed=list(range(20)), power_of_two=[False, True])
  def test_less_than_nine_tenths_hold_the_next_width_of_no_block(
    self, seed, power_of_two
  ):
    """P5: what powers of two, above all, cannot fill."""
    model, rng = _random_model(seed)
    ids = sum(plan.vocab_size for plan in model.categorical)
    low = model.first_order_params + _num_views(model) * ids
    found = sizes.mixed_dims(
      model,
      rng.choice([0.0, 0.1, 0.3, 0.6]),
      threshold=0,
      power_of_two=power_of_two,
      max_params=(budget := rng.uniform(1.1 * low, model.ep_total)),
    )
    self.assertLessEqual(found.ep_total, budget)
    if found.ep_total >= 0.9 * budget:
      return
    cut = [b for p in model.categorical for b in sizes.blocks(p, None)]
    for i, dim in enumerate(_dims(found)):
      wider = np.array(_dims(found))
      wider[i] = min(2 * dim if power_of_two else dim + 1, model.dim)
      if wider[i] > dim:
        other = sizes._with_blocks(model, cut, wider)
        self.assertGreater(other.ep_total, budget)

  def test_equal_fields_differ_by_a_step_the_last_ones_narrower(self):
    model = _model([3000] * 5)
    close = lambda share, **options: sizes.mixed_dims(
      model, 0.2, threshold=0, max_params=share * model.ep_total, **options
    )
    self.assertEqual(_dims(close(0.17)), [5, 5, 5, 4, 4])
    self.assertEqual(_dims(close(0.21, power_of_two=True)), [8, 8, 4, 4, 4])
    # A doubling of any would be too much.
    powers = close(0.17, power_of_two=True)
    self.assertEqual(_dims(powers), [4] * 5)
    self.assertLess(powers.ep_total, 0.9 * 0.17 * model.ep_total)

  @parameterized.parameters(range(6))
  def test_blocks_are_equally_popular(self, seed):
    rng = np.random.default_rng(seed)
    plan = _model([4000]).fields[0]
    counts = _counts(rng, 4000)
    got = sizes.blocks(plan, counts, 8)
    # One id after another, until a block has its share.
    stops, goal = [], 1
    for i in range(4000):
      if counts[: i + 1].sum() * 8 >= goal * counts.sum() and i < 3999:
        stops.append(i + 1)
        while counts[: i + 1].sum() * 8 >= goal * counts.sum():
          goal += 1
    self.assertEqual([block.stop for block in got], [*stops, 4000])
    self.assertEqual([block.start for block in got], [0, *stops])
    for block in got[1:]:
      share = counts[block.start : block.stop].sum() / counts.sum()
      probability = share / (block.stop - block.start)
      self.assertAlmostEqual(1 / block.rows, probability)
    rows = [block.rows for block in got]
    self.assertEqual(rows, sorted(rows))

  def test_ids_that_no_row_has_do_not_make_the_head_look_rare(self):
    plan = _model([6]).fields[0]
    counts = np.array([1, 0, 60, 30, 20, 10])
    first, second, *_ = sizes.blocks(plan, counts, 3)
    # Without the head's correction .25 would be less than what follows.
    self.assertEqual((first.start, first.stop), (0, 3))
    self.assertAlmostEqual(1 / first.rows, 61 / 121 / 2)
    self.assertEqual((second.start, second.stop), (3, 4))
    self.assertAlmostEqual(1 / second.rows, 30 / 121)

  def test_frequent_ids_are_wider_by_the_same_rule(self):
    rng = np.random.default_rng(3)
    model = _model([3000, 40], dim=16)
    counts = {'f0': _counts(rng, 3000), 'f1': _counts(rng, 40)}
    found = sizes.mixed_dims(
      model, 0.4, frequencies=counts, num_blocks=8, threshold=0
    )
    cut = [
      block
      for plan in model.categorical
      for block in sizes.blocks(plan, counts[plan.name], 8)
    ]
    least = min(block.rows for block in cut)
    dims = {plan.name: np.zeros(plan.vocab_size) for plan in model.categorical}
    for block in cut:
      width = max(round(16 * (least / block.rows) ** 0.4), 1)
      dims[block.field][block.start : block.stop] = width
    for plan in found.categorical:
      got = np.zeros(plan.vocab_size)
      for piece in plan.all_pieces:
        got[piece.start : piece.stop] += piece.dim
      np.testing.assert_array_equal(got, dims[plan.name])
      self.assertTrue(np.all(np.diff(got) <= 0))
      # Neighbours of one width share a table and its map.
      own = [piece.dim for piece in plan.all_pieces]
      self.assertTrue(all(a != b for a, b in itertools.pairwise(own)))
    self.assertGreater(len(found.fields[0].all_pieces), 3)

  def test_even_frequencies_are_the_form_by_rows(self):
    model = _model([50, 900, 7000])
    even = {
      plan.name: np.full(plan.vocab_size, 3) for plan in model.categorical
    }
    self.assertEqual(
      sizes.mixed_dims(model, 0.3, frequencies=even, num_blocks=5),
      sizes.mixed_dims(model, 0.3),
    )

  @parameterized.parameters(
    (dict(alpha=-0.1), 'at least 0'),
    (dict(alpha=0.3, num_blocks=4), 'need the frequencies'),
    (dict(alpha=0.3, threshold=-1), 'threshold -1'),
  )
  def test_mistakes(self, options, message):
    with self.assertRaisesRegex(errors.ConfigError, message):
      sizes.mixed_dims(_model([50]), **options)

  def test_what_is_open_or_in_pieces_is_refused(self):
    model = _model([500, 900])
    with self.assertRaisesRegex(errors.ConfigError, "close the choice 'mixed"):
      sizes.mixed_dims(field_spaces.open_dims(model, (2, 4)), 0.3)
    with self.assertRaisesRegex(errors.ConfigError, 'pieces already'):
      sizes.hashed(sizes.quotient_remainder(model))
    with self.assertRaisesRegex(errors.ConfigError, 'no categorical field'):
      sizes.mixed_dims(_model([], name='fm', numeric=2), 0.3)


def _rows_of(plan):
  """Per id, the row that it reads of each piece."""
  ids = np.arange(plan.vocab_size)
  rows = []
  for piece in plan.all_pieces:
    assert (piece.start, piece.stop) == (0, plan.vocab_size)
    number = ids // piece.divide
    rows.append(number % piece.modulo if piece.modulo else number)
    assert rows[-1].max() < piece.num_rows
  return np.stack(rows, 1)


class QuotientRemainderTest(parameterized.TestCase):
  @parameterized.parameters(2, 3, 4, 17, 31, 32, 33, 500, 999)
  def test_no_two_ids_have_a_pair_in_common(self, c):
    found = sizes.quotient_remainder(_model([1000, 150]), collisions=c)
    plan, small = found.fields
    self.assertIsNone(small.pieces)
    rows = _rows_of(plan)
    self.assertLen(np.unique(rows, axis=0), 1000)
    if plan.pieces:
      quotients, remainders = plan.pieces
      self.assertEqual(quotients.num_rows, -(-1000 // c))
      self.assertEqual(remainders.num_rows, c)
      self.assertEqual(
        found.embedding_params,
        (quotients.num_rows + c + 150) * 32 + 1150,
      )
    else:
      # Two tables would be no smaller.
      self.assertEqual(c, 999)

  @parameterized.parameters(1, 1000, 5000)
  def test_no_collisions_or_one_row_leave_a_field_whole(self, c):
    model = _model([1000, 150])
    for combine in ('product', 'sum', 'concat'):
      self.assertEqual(
        sizes.quotient_remainder(
          model, collisions=c, combine=combine
        ).categorical,
        model.categorical,
      )

  def test_concatenation_fills_the_width(self):
    found = sizes.quotient_remainder(_model([1000], dim=7), combine='concat')
    first, second = found.fields[0].pieces
    self.assertEqual((first.column, first.dim), (0, 4))
    self.assertEqual((second.column, second.dim), (4, 3))
    self.assertEqual(found.projection_params, 0)
    self.assertEqual(found.dim, 7)

  @parameterized.product(seed=list(range(10)), combine=['product', 'concat'])
  def test_a_budget_is_met_and_used(self, seed, combine):
    model, rng = _random_model(seed)
    close = lambda **options: sizes.quotient_remainder(
      model, combine=combine, threshold=0, **options
    )
    roots = [int(p.vocab_size**0.5) for p in model.categorical]
    smallest = model.first_order_params * 1.2
    smallest += 2.5 * _num_views(model) * model.dim * sum(roots)
    budget = rng.uniform(smallest, model.ep_total)
    found = close(max_params=budget)
    self.assertLessEqual(found.ep_total, budget)
    # No field alone can be given fewer collisions.
    for plan in found.categorical:
      c = plan.pieces[-2].divide if plan.pieces else 1
      whole = next(p for p in model.categorical if p.name == plan.name)
      if c > 1:
        fewer = sizes._divided(whole, c - 1, combine)
        other = sizes._replace_plans(
          model,
          {p.name: p for p in found.categorical} | {plan.name: fewer},
          found.projection,
        )
        self.assertGreater(other.ep_total, budget)
    # All but a row.
    row = _num_views(model) * model.dim
    self.assertGreater(found.ep_total, min(0.9 * budget, budget - row - 1))

  def test_many_fields_fill_nine_tenths(self):
    rng = np.random.default_rng(0)
    for _ in range(10):
      vocab_sizes = rng.integers(300, 30_000, 30)
      model = _model(vocab_sizes, dim=16)
      budget = model.ep_total * rng.uniform(0.15, 0.95)
      found = sizes.quotient_remainder(model, max_params=budget)
      self.assertBetween(found.ep_total, 0.9 * budget, budget)

  @parameterized.product(
    combine=['product', 'sum', 'concat'],
    share=[0.2, 0.5, 0.6, 0.75, 0.9, 0.97],
  )
  def test_frequent_ids_fill_what_halving_a_field_leaves(self, combine, share):
    """P5: nothing lies between c = 1 and 2 of a field that is most of all."""
    model = _model([20_000, 300])
    budget = share * model.ep_total
    found = sizes.quotient_remainder(model, combine=combine, max_params=budget)
    self.assertBetween(found.ep_total, 0.9 * budget, budget)
    large = found.fields[0]
    if len(large.pieces) == 3:
      head, quotients, remainders = large.pieces
      self.assertEqual(
        (head.start, head.dim, head.num_rows), (0, 32, head.stop)
      )
      self.assertEqual({p.start for p in large.pieces[1:]}, {head.stop})
      self.assertEqual(
        found.embedding_params - found.first_order_params,
        sum(p.num_rows * p.dim for f in found.fields for p in f.all_pieces),
      )
      self.assertEqual((quotients.stop, remainders.stop), (20_000, 20_000))
    self.assertEqual(len(large.pieces), 2 if share == 0.2 else 3)

  @parameterized.parameters(
    (dict(collisions=0), '0 collisions'),
    (dict(combine='mult'), "'product', 'sum', 'concat'"),
  )
  def test_mistakes(self, options, message):
    with self.assertRaisesRegex(errors.ConfigError, message):
      sizes.quotient_remainder(_model([500]), **options)

  def test_a_width_of_1_has_no_halves(self):
    with self.assertRaisesRegex(errors.ConfigError, 'no halves'):
      sizes.quotient_remainder(_model([500], dim=1), combine='concat')


class HashedTest(parameterized.TestCase):
  @parameterized.parameters(2.0, 3.7, 999.0, 10_000.0)
  def test_rows_and_who_shares_them(self, collisions):
    found = sizes.hashed(_model([1000, 150]), collisions=collisions)
    plan, small = found.fields
    self.assertIsNone(small.pieces)
    rows = _rows_of(plan)[:, 0]
    count = int(np.ceil(1000 / collisions))
    np.testing.assert_array_equal(rows, np.arange(1000) % count)

  @parameterized.parameters(range(10))
  def test_a_budget_is_met_and_used(self, seed):
    model, rng = _random_model(seed)
    views, least = _num_views(model), model.first_order_params
    least += views * len(model.categorical) * model.dim
    budget = rng.uniform(1.2 * least + 100, model.ep_total)
    found = sizes.hashed(model, threshold=0, max_params=budget)
    self.assertLessEqual(found.ep_total, budget)
    # One more row per field is all that ceilings leave.
    slack = views * len(model.categorical) * model.dim
    self.assertGreaterEqual(found.ep_total, budget - 2 * slack)

  def test_one_id_per_row_is_the_whole_table(self):
    model = _model([1000, 150])
    self.assertEqual(sizes.hashed(model, collisions=1.0), model)
    self.assertEqual(sizes.hashed(model, max_params=1e9), model)


class SavedTest(parameterized.TestCase):
  @parameterized.parameters('mixed', 'quotient_remainder', 'hashed')
  def test_json_and_back(self, name):
    rng = np.random.default_rng(0)
    model = _model([3000, 400], numeric=1)
    counts = {p.name: _counts(rng, p.vocab_size) for p in model.categorical}
    architecture = {
      'mixed': sizes.mixed_dims(model, 0.3, frequencies=counts, num_blocks=8),
      'quotient_remainder': sizes.quotient_remainder(model, combine='concat'),
      'hashed': sizes.hashed(model, collisions=2.5),
    }[name]
    self.assertNotEqual(architecture, model)
    values = json.loads(json.dumps(architecture.to_dict()))
    self.assertEqual(arch_lib.Architecture.from_dict(values), architecture)


if __name__ == '__main__':
  absltest.main()
