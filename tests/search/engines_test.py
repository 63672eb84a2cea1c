"""The engines on a toy that can be enumerated, and on other methods' spaces."""

import itertools

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jax_autorec import (
  errors,
  field_spaces,
  head_spaces,
  optim,
  pipeline,
  spaces,
)
from jax_autorec.data import planted
from jax_autorec.search import base, engines, supernet, unroll
from jax_autorec.train import settings as settings_lib

_LOGITS = np.array([[0.3, -0.5], [1.0, 0.2]])
_LOSSES = np.array([[0.7, 0.1], [0.4, 0.9]])


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
      'darts', engines.widths((1, 2, 4)), optax.adam(0.1), **inner
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

  @parameterized.parameters('reinforce', 'darts')
  def test_hidden_layers_that_cost_too_much_are_narrow(self, name):
    data = planted.generate(num_rows=2000, num_fields=4, num_pairs=2)
    plain = spaces.deepfm(data.schema, dim=4, hidden=(16, 8))
    space = head_spaces.open_hidden(plain, (0.25, 0.5))
    settings = settings_lib.Settings(batch_size=200, table_std=0.1)

    decisions = engines.hidden(space.head.candidates)
    selector = engines.engine(name, decisions, optax.adam(0.2), price=5.0)
    found = pipeline.run_search(
      space, {'mlp': selector}, data, settings, num_steps=48
    )
    self.assertEqual(pipeline.derive(found).head.hidden, (4, 2))
    recorded = supernet.recorded(found.state, found.selectors)
    (expected,) = recorded['levels'].values()
    # An even mixture has 28 / 3 and 14 / 3.
    self.assertLess(expected[0], 8)
    self.assertLess(expected[1], 4)

  def test_all_off_and_wrong_options_are_refused(self):
    data = planted.generate(num_rows=100, num_fields=4, num_pairs=2)
    space = spaces.fm(data.schema, pairs='open')
    selector = engines.darts(engines.gates(), optim.grda(1.0, 0.1, 0.8))
    off = {'pairs': np.array([[1.0, 0.0]] * 6)}
    with self.assertRaisesRegex(errors.ConfigError, 'all products off'):
      selector.derive(off, (), base.Context(space, None))
    for options, message in (
      (dict(price=-1.0), 'price'),
      (dict(decay=1.0), 'decay'),
      (dict(samples=0), 'samples'),
    ):
      with self.assertRaisesRegex(errors.ConfigError, message):
        engines.reinforce(engines.gates(), optax.sgd(1.0), **options)
    with self.assertRaisesRegex(errors.ConfigError, 'inner_rate'):
      engines.darts(engines.gates(), optax.sgd(1.0), inner_rate=0.0)
    with self.assertRaisesRegex(errors.ConfigError, "'bandit'"):
      engines.engine('bandit', engines.gates(), optax.sgd(1.0))


if __name__ == '__main__':
  absltest.main()
