"""The engines on a toy that can be enumerated, and on other methods' spaces."""

import dataclasses
import itertools

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jax_autorec import (
  errors,
  field_spaces,
  group_spaces,
  head_spaces,
  pipeline,
  spaces,
)
from jax_autorec import schema as schema_lib
from jax_autorec.data import planted
from jax_autorec.nn import model as model_lib
from jax_autorec.search import base, engines, supernet, unroll
from jax_autorec.train import settings as settings_lib
from jax_autorec.train import state as state_lib

_LOGITS = np.array([[0.3, -0.5], [1.0, 0.2]])
_LOSSES = np.array([[0.7, 0.1], [0.4, 0.9]])


def _schema():
  return schema_lib.Schema(
    tuple(
      schema_lib.Field(name, vocab_size=size)
      for name, size in zip('abcd', (9, 20, 30, 5))
    )
  )


class GradientTest(parameterized.TestCase):
  @parameterized.parameters(0.0, 0.6, -3.0)
  def test_policy_gradient_is_that_of_the_enumerated_mean(self, baseline):
    """Exactly, in expectation, whatever it is compared with."""

    def mean(logits):
      first, second = jax.nn.softmax(logits)
      return first @ jnp.asarray(_LOSSES) @ second

    def surrogate(logits, options):
      one = base.Draw((), engines.log_prob(logits, options), baseline)
      losses = jnp.full(3, _LOSSES[tuple(options)])
      return supernet.surrogate(losses, {'slot': one}).mean()

    with jax.enable_x64(True):
      logits = jnp.asarray(_LOGITS)
      total = 0.0
      for options in itertools.product((0, 1), repeat=2):
        options = np.array(options)
        share = np.exp(engines.log_prob(logits, options))
        total += share * np.asarray(jax.grad(surrogate)(logits, options))
      expected = jax.grad(mean)(logits)
    np.testing.assert_allclose(total, expected, rtol=1e-10)

  def test_draws_are_as_likely_as_they_say(self):
    keys = jax.random.split(jax.random.key(0), 4000)
    logits = jnp.asarray(_LOGITS, jnp.float32)
    drawn = jax.vmap(lambda key: engines.draw(logits, key))(keys)
    for options in itertools.product((0, 1), repeat=2):
      seen = (np.asarray(drawn) == np.array(options)).all(1).mean()
      share = np.exp(engines.log_prob(logits, np.array(options)))
      self.assertLess(abs(seen - share), 5 * np.sqrt(share / 4000))

  def test_a_bandit_finds_its_best_arm(self):
    """By the selector alone: rewards are -losses of a table."""
    decisions = engines.Decisions(
      lambda choice: choice.shape, lambda w: w, None, lambda w: 0.0
    )
    selector = engines.reinforce(decisions, optax.adam(0.1), samples=1)
    arch, memory = selector.init(jnp.zeros((2, 2)), None, None)
    table = jnp.asarray(_LOSSES, jnp.float32)
    state = selector.tx.init(arch)

    def step(carry, key):
      arch, memory, state = carry

      def loss(arch):
        one = selector.sample(arch, memory, None, 'arch', 0, key)
        losses = (one.choice[0] @ table @ one.choice[1])[None]
        return supernet.surrogate(losses, {'x': one}).mean(), (one, losses)

      grads, (one, losses) = jax.grad(loss, has_aux=True)(arch)
      updates, state = selector.tx.update(grads, state)
      seen = base.Seen(one, losses, -losses, None)
      memory, _ = selector.observe(memory, None, seen)
      return (optax.apply_updates(arch, updates), memory, state), ()

    keys = jax.random.split(jax.random.key(1), 300)
    (arch, _, _), _ = jax.lax.scan(step, (arch, memory, state), keys)
    np.testing.assert_array_equal(engines.likeliest(arch), [0, 1])


class BaselineTest(parameterized.TestCase):
  def test_it_is_the_mean_of_earlier_costs(self):
    """Debiased; the first update has none and moves nothing."""
    decisions = engines.Decisions(
      lambda choice: choice.shape, lambda w: w, None, lambda w: 0.25
    )
    selector = engines.reinforce(
      decisions, optax.sgd(1.0), decay=0.8, price=2.0, samples=1
    )
    arch, memory = selector.init(jnp.zeros((2, 2)), None, None)
    key = jax.random.key(0)
    first = selector.sample(arch, memory, None, 'arch', 0, key)
    self.assertEqual(float(first.log_prob), 0)
    self.assertAlmostEqual(float(first.cost), 0.5)
    weighted, total = 0.0, 0.0
    for reward in (-0.7, -0.2, -0.9):
      seen = base.Seen(first, None, jnp.array([reward]), None)
      memory, _ = selector.observe(memory, None, seen)
      weighted = 0.8 * weighted + 0.2 * (0.5 - reward)
      total = 0.8 * total + 0.2
      one = selector.sample(arch, memory, None, 'arch', 0, key)
      self.assertAlmostEqual(float(one.baseline), weighted / total, places=5)
      self.assertAlmostEqual(float(one.log_prob), 2 * np.log(0.5), places=5)

  def test_entropy_is_a_bonus_in_nats(self):
    decisions = engines.Decisions(
      lambda choice: choice.shape, lambda w: w, None, lambda w: 0.0
    )
    selector = engines.reinforce(
      decisions, optax.sgd(1.0), entropy_weight=0.3, samples=1
    )
    logits = jnp.asarray(_LOGITS, jnp.float32)
    p = np.exp(_LOGITS) / np.exp(_LOGITS).sum(1, keepdims=True)
    expected = 0.3 * (p * np.log(p)).sum()
    got = selector.aux_loss(logits, None, None)
    self.assertAlmostEqual(float(got), expected, places=5)
    # Its gradient leads away from the corner.
    grads = jax.grad(selector.aux_loss)(logits, None, None)
    self.assertGreater(float(grads[1, 0]), 0)

  def test_a_lower_temperature_is_nearer_to_one_option(self):
    decisions = engines.Decisions(
      lambda choice: choice.shape, lambda w: w, None, lambda w: 0.0
    )
    for temperature in (1.0, 0.2):
      selector = engines.darts(
        decisions, optax.sgd(1.0), temperature=temperature
      )
      logits = jnp.asarray(_LOGITS, jnp.float32)
      got = selector.sample(logits, (), None, 'weights', 0, None).choice
      expected = jax.nn.softmax(logits / temperature)
      np.testing.assert_allclose(got, expected, rtol=1e-6)
      # What a page shows is what is trained.
      (entropy,) = selector.record(logits, ()).values()
      mean = -(expected * jnp.log(expected)).sum() / 2
      self.assertAlmostEqual(entropy, float(mean), places=5)


class SlotTest(parameterized.TestCase):
  @parameterized.parameters(
    ('reinforce', dict(price=0.05, entropy_weight=1e-3)),
    ('darts', dict(price=0.2)),
  )
  def test_gates_of_a_planted_pair(self, name, options):
    data = planted.generate(
      num_rows=20_000, num_fields=4, num_pairs=1, max_values=20
    )
    settings = settings_lib.Settings(
      batch_size=1000, learning_rate=0.02, table_std=0.1, steps_per_dispatch=8
    )
    selector = engines.engine(
      name, engines.gates(), optax.adam(0.05), warmup=40, **options
    )
    found = pipeline.run_search(
      spaces.fm(data.schema, dim=8, pairs='open'),
      {'interactions': selector},
      data,
      settings,
      num_steps=160,
    )
    kept = pipeline.derive(found).interactions[0].terms
    self.assertEqual(kept, tuple(tuple(pair) for pair in data.truth['pairs']))

  @parameterized.parameters(
    {'inner_rate': 0.1},
    {'implicit': unroll.Implicit('cg', 3)},
    {'implicit': unroll.Implicit('neumann', 3)},
  )
  def test_widths_of_second_order_are_settled(self, **inner):
    data = planted.generate(num_rows=2000, num_fields=4, num_pairs=2)
    space = field_spaces.open_dims(spaces.fm(data.schema, dim=4), (1, 2, 4))
    selector = engines.engine(
      'darts', engines.widths(space), optax.adam(0.1), **inner
    )
    settings = settings_lib.Settings(batch_size=200, table_std=0.1)
    found = pipeline.run_search(
      space, {'fields': selector}, data, settings, num_steps=8
    )
    derived = pipeline.derive(found)
    logits = np.asarray(found.state.arch['fields'])
    self.assertGreater(np.ptp(logits), 0)
    self.assertEqual(
      [plan.dim for plan in derived.categorical],
      [(1, 2, 4)[option] for option in logits.argmax(1)],
    )

  def _hard(self, space, slot, decisions, options):
    """What modules read of hard choices, which must be as they have it."""
    model = model_lib.build(space)
    schema = schema_lib.Schema(
      tuple(
        schema_lib.Field(plan.name, vocab_size=plan.vocab_size)
        for plan in space.fields
      )
    )
    batch = state_lib.example_batch(schema)
    variables = jax.eval_shape(
      lambda: model.init(jax.random.key(0), batch, train=False)
    )
    choice = variables['arch'][slot]
    shapes = decisions.shapes(choice)
    weights = jax.tree.map(
      lambda own, shape: np.eye(shape[-1], dtype=np.float32)[own],
      options,
      shapes,
      is_leaf=lambda own: isinstance(own, np.ndarray),
    )
    mixed = decisions.mix(weights)
    jax.tree.map(
      lambda x, y: self.assertEqual((x.shape, x.dtype), (y.shape, y.dtype)),
      mixed,
      choice,
    )
    return jax.device_get(mixed), float(decisions.size(weights))

  def _plain(self, **options):
    name = 'deepfm' if options else 'fm'
    return spaces.build(name, _schema(), dim=4, **options)

  def test_buckets(self):
    counts = {
      plan.name: [0, 0, *range(plan.vocab_size - 2, 0, -1)]
      for plan in self._plain().fields
    }
    space = field_spaces.open_buckets(self._plain(), (1, 2, 4), counts)
    lengths = [len(own) for own in space.choice.starts]
    self.assertEqual(lengths, [3, 5, 5, 2])
    decisions = engines.buckets(space)
    options = np.arange(20).reshape(4, 5) % 3
    _, size = self._hard(space, 'fields', decisions, options)
    dims = [
      [(1, 2, 4)[k] for k in own[:length]]
      for own, length in zip(options, lengths)
    ]
    self.assertEqual(
      decisions.derive(options, space), field_spaces.with_buckets(space, dims)
    )
    found = decisions.derive(options, space)
    self.assertAlmostEqual(size, found.vector_params / (64 * 4), places=6)

  def test_members(self):
    space = group_spaces.open_groups(self._plain(), (0, 3, 1))
    options = {
      'groups_2': np.array([[1, 0, 0], [1, 0, 1], [0, 1, 0], [0, 0, 1]]),
      'groups_3': np.array([[1], [0], [1], [1]]),
    }
    decisions = engines.members()
    read, size = self._hard(space, 'interactions', decisions, options)
    for name, own in options.items():
      np.testing.assert_array_equal(read[name]['member'], own)
    self.assertAlmostEqual(size, 8 / 16)
    found = decisions.derive(options, space)
    groups = {plan.name: plan.groups for plan in found.interactions}
    self.assertEqual(groups['groups_3'], (('a', 'c', 'd'),))
    # A group of one says nothing.
    self.assertEqual(groups['groups_2'], (('a', 'b'), ('b', 'd')))

  def _blocks(self, mode, **options):
    """Fields of one, two and three blocks of rows, of two of columns."""
    opened = field_spaces.open_blocks(
      self._plain(), (0.2, 0.3, 0.5), (1, 3), mode=mode, **options
    )
    rows = ((9,), (4, 20), (6, 15, 30), (1, 2, 5))
    choice = dataclasses.replace(opened.choice, rows=rows)
    return dataclasses.replace(opened, choice=choice)

  @parameterized.parameters('project', 'concatenate')
  def test_blocks_of_single_sizes(self, combine):
    space = self._blocks('single', combine=combine)
    decisions = engines.blocks(space)
    # All of the first column; nothing; two parts of all columns; all of all.
    options = np.array([[1], [0], [5], [6]])
    read, size = self._hard(space, 'fields', decisions, options)
    expected = [[9, 0], [0, 0], [15, 15], [5, 5]]
    self.assertEqual(read['kept'].tolist(), expected)
    found = decisions.derive(options, space)
    self.assertEqual(found, field_spaces.with_blocks(space, expected))
    entries = found.vector_params + found.projection_params
    self.assertAlmostEqual(size, entries / space.choice.all_entries, places=6)
    with self.assertRaisesRegex(errors.ConfigError, "'reinforce'"):
      engines.darts(decisions, optax.sgd(1.0))
    with self.assertRaisesRegex(errors.ConfigError, 'no field any row'):
      decisions.derive(np.zeros((4, 1), int), space)

  def test_blocks_of_several_sizes(self):
    space = self._blocks('multi')
    decisions = engines.blocks(space)
    options = np.array([[1, 0], [0, 2], [3, 1], [2, 2]])
    read, size = self._hard(space, 'fields', decisions, options)
    expected = [[9, 0], [0, 20], [30, 6], [2, 2]]
    self.assertEqual(read['kept'].tolist(), expected)
    found = decisions.derive(options, space)
    self.assertEqual(found, field_spaces.with_blocks(space, expected))
    entries = found.vector_params + found.projection_params
    self.assertAlmostEqual(size, entries / space.choice.all_entries, places=6)
    with self.assertRaisesRegex(errors.ConfigError, 'prefix to False'):
      engines.blocks(self._blocks('multi', prefix=True))

  def test_blocks_that_a_field_lacks_are_no_option(self):
    """Else a field of few values would have more ways to keep them all."""
    decisions = engines.blocks(self._blocks('single'))
    selector = engines.reinforce(decisions, optax.adam(0.1))
    choice = {'kept': np.zeros((4, 2), np.int32)}
    logits, memory = selector.init(choice, None, None)
    for chances, count in zip(jax.nn.softmax(logits)[:, 0], (3, 5, 7, 7)):
      self.assertEqual(int((chances > 0).sum()), count)
      np.testing.assert_allclose(chances.max(), 1 / count, rtol=1e-5)

    # They stay none: neither draws nor their gradients know them.
    def loss(logits):
      one = selector.sample(logits, memory, None, 'arch', 0, jax.random.key(0))
      entropy = engines.entropy(logits)
      return (
        engines.log_prob(logits, engines.draw(logits, jax.random.key(1)))
        + entropy
        + one.cost
      )

    grads = np.asarray(jax.grad(loss)(logits))
    self.assertTrue(np.isfinite(grads).all())
    np.testing.assert_array_equal(grads[np.asarray(logits) < 0], 0)

  def test_columns(self):
    space = field_spaces.open_columns(self._plain())
    decisions = engines.columns(space)
    options = np.array([[1, 1, 1, 1], [0, 0, 0, 0], [0, 1, 0, 1], [0, 0, 1, 0]])
    read, size = self._hard(space, 'fields', decisions, options)
    np.testing.assert_array_equal(read['mask'], options)
    found = decisions.derive(options, space)
    self.assertEqual(found, field_spaces.with_dims(space, [4, 0, 2, 1]))
    self.assertAlmostEqual(size, found.vector_params / (64 * 4), places=6)
    with self.assertRaisesRegex(errors.ConfigError, 'all columns off'):
      decisions.derive(0 * options, space)
    with self.assertRaisesRegex(errors.ConfigError, 'one group of each'):
      engines.columns(field_spaces.open_columns(self._plain(), 3))

  def test_widths(self):
    space = field_spaces.open_dims(self._plain(), (1, 2, 4))
    decisions = engines.widths(space)
    options = np.array([0, 1, 2, 2])
    _, size = self._hard(space, 'fields', decisions, options)
    found = decisions.derive(options, space)
    self.assertEqual(found, field_spaces.with_dims(space, [1, 2, 4, 4]))
    largest = field_spaces.with_dims(space, [4] * 4)
    self.assertAlmostEqual(
      size, found.vectors_total / largest.vectors_total, places=6
    )

  def test_hidden_layers(self):
    space = head_spaces.open_hidden(self._plain(hidden=(16, 8)), (0.25, 0.5))
    decisions = engines.hidden(space)
    options = {'hidden_0': np.array(1), 'hidden_1': np.array(0)}
    _, size = self._hard(space, 'mlp', decisions, options)
    self.assertAlmostEqual(size, (8 + 2) / (16 + 8))
    found = decisions.derive(options, space)
    self.assertEqual(found, self._plain(hidden=(8, 2)))
    half = {'hidden_0': np.full(3, 1 / 3), 'hidden_1': np.array([0, 0, 1.0])}
    (levels,) = decisions.record(half)['levels'].values()
    np.testing.assert_allclose(levels, [28 / 3, 8])

  def test_what_costs_too_much_is_left_out(self):
    """An engine moves the MLP's widths; a price decides them here."""
    data = planted.generate(num_rows=2000, num_fields=4, num_pairs=2)
    plain = spaces.deepfm(data.schema, dim=4, hidden=(16, 8))
    space = head_spaces.open_hidden(plain, (0.25, 0.5))
    decisions = engines.hidden(space)
    selector = engines.darts(decisions, optax.adam(0.2), price=5.0)
    found = pipeline.run_search(
      space,
      {'mlp': selector},
      data,
      settings_lib.Settings(batch_size=200, table_std=0.1),
      num_steps=16,
    )
    self.assertEqual(pipeline.derive(found).head.hidden, (4, 2))

  def test_all_products_off(self):
    """The model without them is what is left, and it is said."""
    space = spaces.deepfm(_schema(), pairs='open', hidden=(3,))
    selector = engines.darts(engines.gates(), optax.sgd(1.0))
    off = {'pairs': np.array([[1.0, 0.0]] * 6)}
    with self.assertLogs(level='WARNING'):
      found = selector.derive(off, (), base.Context(space, None))
    self.assertEqual(found, spaces.wide_deep(_schema(), hidden=(3,)))

  def test_wrong_options_are_refused(self):
    for options, message in (
      (dict(price=-1.0), 'price'),
      (dict(decay=1.0), 'decay'),
      (dict(samples=0), 'samples'),
    ):
      with self.assertRaisesRegex(errors.ConfigError, message):
        engines.reinforce(engines.gates(), optax.sgd(1.0), **options)
    with self.assertRaisesRegex(errors.ConfigError, 'temperature'):
      engines.darts(engines.gates(), optax.sgd(1.0), temperature=0.0)
    with self.assertRaisesRegex(errors.ConfigError, 'inner_rate'):
      engines.darts(engines.gates(), optax.sgd(1.0), inner_rate=0.0)
    with self.assertRaisesRegex(errors.ConfigError, "'bandit'"):
      engines.engine('bandit', engines.gates(), optax.sgd(1.0))


if __name__ == '__main__':
  absltest.main()
