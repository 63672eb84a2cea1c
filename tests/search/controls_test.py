from absl.testing import absltest, parameterized
import numpy as np

from jax_autorec import field_spaces, group_spaces, head_spaces, spaces
from jax_autorec import schema as schema_lib
from jax_autorec.search import controls, patterns

_SCHEMA = schema_lib.Schema(
  tuple(schema_lib.Field(name, vocab_size=9) for name in 'abcdef')
)

_LARGE = schema_lib.Schema(
  tuple(
    schema_lib.Field(name, vocab_size=size)
    for name, size in zip('abcdef', (500, 300, 90, 40, 10, 3))
  )
)


class ControlsTest(parameterized.TestCase):
  def test_keep_all_closes_and_changes_nothing_else(self):
    space = spaces.deepfm(_SCHEMA, dim=4, pairs='open', triples='open')
    self.assertEqual(
      controls.keep_all(space),
      spaces.deepfm(_SCHEMA, dim=4, pairs='all', triples='all'),
    )

  def test_random_subset_has_the_size_found_and_follows_its_seed(self):
    space = spaces.fm(_SCHEMA, dim=4, pairs='open', triples='open')
    pairs, triples = space.interactions
    found = spaces.fm(
      _SCHEMA, dim=4, pairs=pairs.terms[:5], triples=triples.terms[:3]
    )
    counts = dict.fromkeys(pairs.terms, 0)
    for seed in range(300):
      control = controls.random_subset(space, found, seed)
      self.assertFalse(control.is_open)
      drawn, drawn_triples = control.interactions
      self.assertLen(drawn_triples.terms, 3)
      self.assertLen(drawn.terms, 5)
      self.assertEqual((drawn.normalize, drawn.gates), (True, 'weights'))
      for term in drawn.terms:
        counts[term] += 1
    # Each of 15 pairs comes in a third of the draws: 100 +- 8.
    self.assertBetween(min(counts.values()), 60, 100)
    self.assertBetween(max(counts.values()), 100, 140)
    first, again, other = (
      controls.random_subset(space, found, seed) for seed in (4, 4, 5)
    )
    self.assertEqual(first, again)
    self.assertNotEqual(first, other)

  def test_groups_of_all_fields_and_random_ones_of_the_sizes_found(self):
    space = group_spaces.open_groups(spaces.fm(_SCHEMA), (2, 3, 4))
    names = tuple(field.name for field in _SCHEMA.fields)
    whole = controls.keep_all(space)
    self.assertFalse(whole.is_open)
    self.assertEqual(
      [plan.groups for plan in whole.interactions], [(names,)] * 3
    )
    found = group_spaces.with_groups(
      space,
      {
        'groups_1': [('a',)],
        'groups_2': [('a', 'b'), ('b', 'c', 'd', 'f')],
        'groups_3': [],
      },
    )
    drawn = [controls.random_subset(space, found, seed) for seed in range(30)]
    for control in drawn:
      sizes = [[len(g) for g in plan.groups] for plan in control.interactions]
      self.assertEqual(sizes, [[1], [2, 4]])
      # The constructor has seen that they are fields, in their order.
    self.assertGreater(len({str(one.to_dict()) for one in drawn}), 20)
    self.assertEqual(controls.random_subset(space, found, 3), drawn[3])

  def test_an_order_without_survivors_is_left_out(self):
    space = spaces.fm(_SCHEMA, dim=4, pairs='open', triples='open')
    found = spaces.fm(_SCHEMA, dim=4, pairs=space.interactions[0].terms[:5])
    (plan,) = controls.random_subset(space, found, 0).interactions
    self.assertEqual((plan.name, plan.order), ('pairs', 2))

  def test_random_widths_have_the_size_found(self):
    schema = schema_lib.Schema(
      tuple(
        schema_lib.Field(f'field_{i}', vocab_size=10 + 37 * i)
        for i in range(12)
      )
    )
    model, dims = spaces.fm(schema, dim=8), (1, 2, 4, 8)
    space = field_spaces.open_dims(model, dims)
    draw = lambda found, seed: controls.random_dims(model, dims, found, seed)
    for chosen in ([8, 1, 2, 4] * 3, [1] * 10 + [2, 1], [8] * 11 + [4]):
      found = field_spaces.with_dims(space, chosen)
      drawn = [draw(found, seed) for seed in range(5)]
      for control in drawn:
        self.assertFalse(control.is_open)
        self.assertLess(abs(control.ep_total / found.ep_total - 1), 0.02)
      self.assertEqual(drawn[3], draw(found, 3))
    self.assertLen({str(one.to_dict()) for one in drawn}, 5)

  @parameterized.parameters(
    dict(mode='single'),
    dict(mode='multi', combine='concatenate'),
    dict(mode='multi', prefix=True, shared_row=True),
  )
  def test_random_blocks_have_the_size_found(self, **options):
    space = field_spaces.open_blocks(
      spaces.fm(_LARGE, dim=8), (0.1, 0.2, 0.3, 0.4), (2, 2, 4), **options
    )
    size = lambda model: model.embedding_params + model.projection_params
    full = space.choice.all_entries
    for rows, columns in ((1, 1), (2, 3)):
      kept = [
        [ends[min(rows, len(ends)) - 1]] * columns + [0] * (3 - columns)
        for ends in space.choice.rows
      ]
      found = field_spaces.with_blocks(space, kept)
      drawn = [controls.random_blocks(space, found, s) for s in (0, 0, 1)]
      for control in drawn:
        self.assertFalse(control.is_open)
        self.assertLess(abs(size(control) - size(found)), 0.03 * full)
      self.assertEqual(drawn[0], drawn[1])
      self.assertNotEqual(drawn[0], drawn[2])

  def test_random_entries_have_the_size_found(self):
    model = spaces.fm(_LARGE, dim=8)
    space = field_spaces.open_thresholds(model)
    rng = np.random.default_rng(0)
    scores = [
      rng.random((plan.vocab_size, 8), np.float32) for plan in model.categorical
    ]
    # Of a field that is left out, the random control may hold entries.
    scores[2][:] = -np.inf
    found = patterns.keep_largest(space, lambda: scores, density=0.3)
    drawn = [controls.random_entries(space, found, s) for s in (0, 0, 1)]
    for control in drawn:
      self.assertFalse(control.is_open)
      self.assertLessEqual(control.ep_total, found.ep_total)
      self.assertGreater(control.ep_total, found.ep_total - 1)
      # Every field has its share of what is drawn evenly.
      held = [p.num_values / p.vocab_size for p in control.categorical[:3]]
      self.assertLess(max(held) - min(held), 0.4)
    self.assertEqual(drawn[0], drawn[1])
    self.assertNotEqual(drawn[0], drawn[2])

  def test_random_hidden_widths_have_the_weights_found(self):
    plain = spaces.deepfm(_SCHEMA, dim=4, hidden=(64, 64, 64))
    space = head_spaces.open_hidden(plain, (0.25, 0.5, 0.75))
    found = head_spaces.with_hidden(space, (16, 64, 48))
    drawn = [controls.random_hidden(space, found, seed) for seed in range(9)]
    # Six fields of width 4 go in.
    weights = lambda a, b, c: 24 * a + a * b + b * c + c
    for one in drawn:
      self.assertNotEqual(one, found)
      ratio = weights(*one.head.hidden) / weights(16, 64, 48)
      self.assertBetween(ratio, 0.9, 1.1)
    self.assertGreater(len({one.head.hidden for one in drawn}), 2)
    self.assertEqual(controls.random_hidden(space, found, 0), drawn[0])
    # All at the widest: nothing else is as large, and the nearest is taken.
    widest = head_spaces.with_hidden(space, (64, 64, 64))
    self.assertEqual(
      controls.random_hidden(space, widest, 0).head.hidden, (64, 64, 48)
    )

  def test_random_rows_have_the_size_found(self):
    space = field_spaces.open_row_mask(spaces.fm(_LARGE, dim=16))
    for share, dim in ((0.05, 4), (0.4, 12), (1.0, 16)):
      kept = [
        np.arange(plan.vocab_size) < share * plan.vocab_size
        for plan in space.categorical
      ]
      found = field_spaces.with_row_mask(space, kept, [dim] * len(kept))
      drawn = [controls.random_rows(space, found, s) for s in (0, 0, 1)]
      for control in drawn:
        self.assertFalse(control.is_open)
        self.assertLess(abs(control.ep_total / found.ep_total - 1), 0.05)
      self.assertEqual(drawn[0], drawn[1])
      self.assertNotEqual(drawn[0], drawn[2])
      if share < 1:
        self.assertGreater(len({plan.dim for plan in drawn[0].categorical}), 1)


if __name__ == '__main__':
  absltest.main()
