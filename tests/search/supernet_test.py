"""The search step: which batch moves what, and the gradient of policies."""

import itertools

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jax_autorec import errors, optim, pipeline, search, spaces
from jax_autorec import schema as schema_lib
from jax_autorec.data import planted
from jax_autorec.nn import model as model_lib
from jax_autorec.search import base, supernet, unroll
from jax_autorec.train import parallel
from jax_autorec.train import settings as settings_lib
from jax_autorec.train import state as state_lib
from jax_autorec.types import Batch

_SCHEMA = schema_lib.Schema(
  tuple(schema_lib.Field(name, vocab_size=7) for name in 'abcd')
)


def _batch(seed, rows=16, lead=()):
  rng = np.random.default_rng(seed)
  shape = (*lead, rows)
  return Batch(
    ids=rng.integers(0, 7, (*shape, 4)).astype(np.int32),
    numeric=np.zeros((*shape, 0), np.float32),
    missing=np.zeros((*shape, 0), bool),
    labels=(rng.random(shape) < 0.4).astype(np.float32),
    weights=np.ones(shape, np.float32),
    mask=np.broadcast_to(np.arange(rows) < rows - 2, shape),
  )


def _gates(split, tx=None, period=1, warmup=0):
  """AutoFIS's selector, on either level."""
  selector = search.autofis(tx or optax.sgd(0.5))
  return selector._replace(split=split, schedule=base.Schedule(period, warmup))


def _setup(selector, mode='none', name='fm', **options):
  architecture = spaces.build(name, _SCHEMA, dim=3, pairs='open', **options)
  options = settings_lib.Settings(
    table_optimizer='sgd', learning_rate=0.05, batch_size=16, parallel=mode
  )
  model = model_lib.build(architecture, axis_name=parallel.axis_name(mode))
  optimizer = settings_lib.make_optimizer(options, architecture)
  selectors = {'interactions': selector}
  state = supernet.init(
    model,
    optimizer,
    selectors,
    state_lib.example_batch(_SCHEMA),
    jax.random.key(0),
    0.5,
  )
  return state, supernet.make_step(model, optimizer, selectors), selectors


def _gate(state):
  return np.asarray(state.arch['interactions']['pairs']['gate'])


class LevelsTest(parameterized.TestCase):
  @parameterized.parameters('none', 'pmap')
  def test_alternating_is_bilevel_on_the_train_batch(self, mode):
    """On one device and on eight."""
    states = []
    train = _batch(5, lead=(1,))
    for split, run_mode, valid in (
      ('valid', 'none', train),
      ('alternate', mode, None),
    ):
      state, step, _ = _setup(_gates(split), run_mode)
      program = parallel.compile_steps(step, run_mode)
      state, _ = program.run(program.place(state), (train, valid))
      states.append(program.fetch(state))
    expected, got = states
    np.testing.assert_allclose(_gate(got), _gate(expected), rtol=1e-5)
    self.assertFalse(np.allclose(_gate(got), 0.6, atol=1e-4))
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
      got.train.tables,
      expected.train.tables,
    )

  def test_alternating_goes_with_its_like_alone(self):
    with self.assertRaisesRegex(errors.ConfigError, 'inner_rate'):
      _setup(_gates('alternate')._replace(inner_rate=0.1))
    both = {'a': _gates('alternate'), 'b': _gates('valid')}
    model = model_lib.build(spaces.build('fm', _SCHEMA, pairs='open'))
    with self.assertRaisesRegex(errors.ConfigError, 'expected all alike'):
      supernet.make_step(model, None, both)

  @parameterized.parameters(
    (dict(solver='lu'), "'lu'.*'cg', 'neumann'"),
    (dict(damping=0.0), 'damping'),
    (dict(rate=-1.0), 'rate'),
    (dict(iterations=0), 'iterations'),
  )
  def test_implicit_gradients_out_of_range(self, options, message):
    implicit = unroll.Implicit(**options)
    with self.assertRaisesRegex(errors.ConfigError, message):
      _setup(_gates('valid')._replace(implicit=implicit))

  def test_implicit_gradients_are_bilevel_and_the_only_ones(self):
    gates = _gates('valid')._replace(implicit=unroll.Implicit())
    for split in ('alternate', 'train'):
      with self.assertRaisesRegex(errors.ConfigError, 'implicit gradient'):
        _setup(gates._replace(split=split))
    with self.assertRaisesRegex(errors.ConfigError, 'one of them'):
      _setup(gates._replace(inner_rate=0.1))

  def test_bilevel_gates_see_validation_batches_alone(self):
    state, step, _ = _setup(_gates('valid'))
    step = jax.jit(step)
    train, valid, other = _batch(0), _batch(1), _batch(2)
    first, _ = step(state, (train, valid))
    swapped, _ = step(state, (other, valid))
    np.testing.assert_array_equal(_gate(first), _gate(swapped))
    self.assertFalse(np.array_equal(_gate(first), _gate(state)))
    changed, _ = step(state, (train, other))
    self.assertFalse(np.array_equal(_gate(first), _gate(changed)))

  def test_weights_see_train_batches_alone(self):
    """With gates that do not move, the validation batch leaves no trace."""
    state, step, _ = _setup(_gates('valid', optax.set_to_zero()))
    step = jax.jit(step)
    first, _ = step(state, (_batch(0), _batch(1)))
    second, _ = step(state, (_batch(0), _batch(2)))
    jax.tree.map(
      np.testing.assert_array_equal, first.train.tables, second.train.tables
    )
    jax.tree.map(
      np.testing.assert_array_equal,
      first.train.batch_stats,
      second.train.batch_stats,
    )

  def test_single_level_gates_follow_the_training_loss(self):
    """Central differences of the train loss, at fixed weights."""
    state, step, _ = _setup(_gates('train', optax.sgd(1.0)))
    batch = _batch(0)
    new, metrics = jax.jit(step)(state, (batch, None))
    gradient = _gate(state) - _gate(new)

    def loss(gate):
      moved = state.replace(
        arch={'interactions': {'pairs': {'gate': jnp.asarray(gate)}}}
      )
      return float(jax.jit(step)(moved, (batch, None))[1]['loss'])

    for i in range(6):
      bump = np.zeros(6, np.float32)
      bump[i] = 0.05
      slope = (loss(_gate(state) + bump) - loss(_gate(state) - bump)) / 0.1
      self.assertAlmostEqual(gradient[i], slope, delta=2e-4)
    self.assertAlmostEqual(float(metrics['loss']), loss(_gate(state)), 5)

  def test_period_and_warmup(self):
    state, step, _ = _setup(_gates('train', period=3, warmup=2))
    step = jax.jit(step)
    moved = []
    for i in range(9):
      new, _ = step(state, (_batch(i), None))
      moved.append(not np.array_equal(_gate(new), _gate(state)))
      state = new
    self.assertEqual(
      moved, [False, False, True, False, False, True, False, False, True]
    )

  def test_memory_is_observed_when_due_alone(self):
    def observe(memory, train, seen):
      del seen
      return memory + 1, train

    selector = _gates('train', period=2)._replace(observe=observe)
    state, step, _ = _setup(selector)
    state = state.replace(memory={'interactions': jnp.int32(0)})
    step = jax.jit(step)
    for i in range(3):
      state, _ = step(state, (_batch(i), None))
    self.assertEqual(state.memory['interactions'], 2)

  def test_observed_weights_are_taken_in_every_step(self):
    def observe(memory, train, seen):
      del seen
      params = jax.tree.map(lambda p: p + 8, train.params)
      return memory, train.replace(params=params)

    selector = _gates('train')._replace(observe=observe)
    state, step, _ = _setup(selector)
    step, biases = jax.jit(step), []
    for i in range(3):
      state, _ = step(state, (_batch(i), None))
      biases.append(float(state.train.params['bias'][0]))
    np.testing.assert_allclose(biases, [8, 16, 24], atol=0.5)
    selector = selector._replace(schedule=base.Schedule(period=2))
    state, step, _ = _setup(selector)
    with self.assertRaisesRegex(errors.ConfigError, 'EVERY_STEP'):
      jax.eval_shape(step, state, (_batch(0), None))

  def test_choices_that_are_not_finite_end_a_search(self):
    """The last update shows in no loss."""
    state, step, _ = _setup(_gates('train'))
    _, metrics = jax.jit(step)(state, (_batch(0), None))
    self.assertTrue(np.isfinite(float(metrics['arch_norm'])))
    data = planted.generate(num_rows=1000, num_fields=4, num_pairs=2)
    with self.assertRaisesRegex(errors.TrainingError, 'arch_norm of step 0'):
      pipeline.run_search(
        spaces.fm(data.schema, dim=3, pairs='open'),
        {'interactions': _gates('train', optax.scale(np.nan))},
        data,
        settings_lib.Settings(batch_size=100),
        num_steps=1,
      )

  @parameterized.parameters(
    (lambda s: {}, "open choice 'interactions/pairs/gate'.*for: none"),
    (lambda s: {'fields': s}, "at 'fields'; open are: interactions"),
    (
      lambda s: {'interactions': s._replace(split='test')},
      "split 'test'.*train, valid",
    ),
  )
  def test_selectors_must_fit_the_open_choices(self, selectors, message):
    architecture = spaces.build('fm', _SCHEMA, dim=3, pairs='open')
    options = settings_lib.Settings(batch_size=16)
    with self.assertRaisesRegex(errors.ConfigError, message):
      supernet.init(
        model_lib.build(architecture),
        settings_lib.make_optimizer(options, architecture),
        selectors(_gates('train')),
        state_lib.example_batch(_SCHEMA),
        jax.random.key(0),
      )

  def test_open_slot_without_selector(self):
    state, _, _ = _setup(_gates('train'))
    architecture = spaces.build('fm', _SCHEMA, dim=3, pairs='open')
    with self.assertRaisesRegex(errors.ConfigError, 'left open'):
      supernet.derive(state, {}, architecture)


class PolicyTest(absltest.TestCase):
  def test_what_other_slots_cost_has_no_part_in_a_score(self):
    """The mean gradient is the expected loss's; other prices do not spread it.

    Two policies whose draws interact, each with a price of its own.
    """
    losses = jnp.array([[0.2, 0.9], [0.5, 0.1]])
    prices = jnp.array([0.0, 0.3]), jnp.array([0.7, 0.1])
    logits = jnp.array([[0.4, -0.2], [0.1, 0.6]])

    def expected(logits):
      p, q = jax.nn.softmax(logits)
      return p @ losses @ q + p @ prices[0] + q @ prices[1]

    def one(logits, i, j, prices):
      draws = {
        slot: base.Draw(
          choice=(),
          log_prob=jax.nn.log_softmax(own)[option],
          baseline=0.4,
          cost=price[option],
        )
        for slot, own, option, price in zip('ab', logits, (i, j), prices)
      }
      return supernet.surrogate(losses[i, j][None], draws).mean()

    p, q = jax.nn.softmax(logits)
    mean = sum(
      p[i] * q[j] * jax.grad(one)(logits, i, j, prices)
      for i in range(2)
      for j in range(2)
    )
    np.testing.assert_allclose(mean, jax.grad(expected)(logits), rtol=1e-5)
    dear = prices[0], prices[1] + 5
    np.testing.assert_allclose(
      jax.grad(one)(logits, 0, 1, dear)[0],
      jax.grad(one)(logits, 0, 1, prices)[0],
    )

  def test_surrogate_is_the_gradient_of_the_expected_loss(self):
    """Mean score-function gradient over draws against enumeration."""
    logits = jnp.array([0.3, -0.5, 0.8])
    losses = jnp.array([[0.2, 0.9, 0.4], [1.0, 0.1, 0.7]])  # [B, choices]
    cost = jnp.array([0.0, 0.3, 0.1])

    def expected(logits):
      return (jax.nn.softmax(logits) * (losses.mean(0) + cost)).sum()

    def one(logits, choice, baseline):
      draw = base.Draw(
        choice=choice,
        log_prob=jax.nn.log_softmax(logits)[choice],
        baseline=baseline,
        cost=cost[choice],
      )
      return supernet.surrogate(losses[:, choice], {'slot': draw}).mean()

    exact = jax.grad(expected)(logits)
    for baseline in (0.0, 0.55):
      grads = jnp.stack(
        [jax.grad(one)(logits, choice, baseline) for choice in range(3)]
      )
      mean = (jax.nn.softmax(logits)[:, None] * grads).sum(0)
      np.testing.assert_allclose(mean, exact, rtol=1e-5)

  def test_a_step_moves_along_the_gradient_of_the_expected_loss(self):
    """A policy over which of six pairs to keep: all 64 draws, weighed."""
    prices = jnp.linspace(0.02, 0.3, 6)

    def init(choice, key, train):
      del choice, key
      return jnp.linspace(-1, 1.2, 6), (jnp.zeros(6), jnp.float32(0))

    def log_prob(logits, bits):
      return -jax.nn.softplus(jnp.where(bits > 0, -logits, logits)).sum()

    def sample(logits, memory, batch, phase, step, key):
      del batch, phase, step, key
      bits, _ = memory
      choice = {'pairs': {'gate': bits}}
      return base.Draw(choice, log_prob(logits, bits), 0.4, bits @ prices)

    def observe(memory, train, seen):
      return (memory[0], -seen.rewards[0]), train

    selector = base.Selector(
      init, sample, observe, None, optax.sgd(1.0), split='valid'
    )
    state, step, _ = _setup(selector)
    step = jax.jit(step)
    logits = state.arch['interactions']
    draws = np.array(list(itertools.product((0, 1), repeat=6)), np.float32)
    moves, losses = [], []
    for bits in draws:
      memory = (bits, np.float32(0))
      drawn = state.replace(memory={'interactions': memory})
      new, _ = step(drawn, (_batch(0), _batch(1)))
      moves.append(logits - new.arch['interactions'])
      losses.append(float(new.memory['interactions'][1]))
    losses = jnp.array(losses)

    def expected(logits):
      shares = jnp.exp(jax.vmap(lambda bits: log_prob(logits, bits))(draws))
      return shares @ (losses + draws @ prices)

    shares = jnp.exp(jax.vmap(lambda bits: log_prob(logits, bits))(draws))
    self.assertAlmostEqual(float(shares.sum()), 1, places=5)
    exact = jax.grad(expected)(logits)
    self.assertGreater(float(jnp.abs(exact).min()), 1e-3)
    np.testing.assert_allclose(
      shares @ jnp.stack(moves), exact, rtol=1e-3, atol=1e-6
    )

  def test_rewards_of_an_update_differ_by_choices_alone(self):
    """Draws that are equal are rewarded alike, whatever dropout does."""

    def sample(gates, memory, batch, phase, step, key):
      del memory, batch, phase, step, key
      return base.Draw({'pairs': {'gate': jnp.ones_like(gates)}}, gates.sum())

    def observe(memory, train, seen):
      del memory
      return seen.rewards, train

    selector = base.Selector(
      lambda choice, key, train: (jnp.zeros(6), jnp.zeros(3)),
      sample,
      observe,
      None,
      optax.sgd(1.0),
      split='valid',
      samples=3,
      reward=lambda logits, batch: logits.mean(),
    )
    options = {'name': 'deepfm', 'hidden': (8,), 'dropout': 0.5}
    state, step, _ = _setup(selector, **options)
    step, rewards = jax.jit(step), []
    for i in range(2):
      state, _ = step(state, (_batch(i), _batch(9)))
      rewards.append(np.asarray(state.memory['interactions']))
    self.assertLess(np.ptp(rewards[1]), 1e-6)
    self.assertGreater(abs(rewards[0][0] - rewards[1][0]), 1e-3)


class ParallelSearchTest(parameterized.TestCase):
  @parameterized.parameters('jit', 'pmap')
  def test_autofis_on_eight_devices_agrees_with_one(self, mode):
    tx = optim.grda(1.0, 0.02, 0.8)

    def observe(memory, train, seen):
      mask = seen.batch.mask[0]
      loss = (seen.losses[0] * mask).sum() / mask.sum()
      return {'sum': memory['sum'] + loss}, train

    def init(choice, key, train):
      del key, train
      return choice, {'sum': jnp.float32(0)}

    selector = _gates('train', tx)._replace(init=init, observe=observe)
    batches = (_batch(5, lead=(4,)), None)
    runs = []
    for run_mode in ('none', mode):
      state, step, _ = _setup(selector, run_mode)
      program = parallel.compile_steps(step, run_mode)
      state, metrics = program.run(program.place(state), batches)
      runs.append((program.fetch(state), metrics['loss']))
    (expected, expected_loss), (got, loss) = runs
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-5)
    # What is remembered is of the whole batch, not of a replica's part.
    np.testing.assert_allclose(
      got.memory['interactions']['sum'], expected_loss.sum(), rtol=1e-5
    )
    np.testing.assert_allclose(
      _gate(got), _gate(expected), rtol=1e-4, atol=1e-6
    )
    self.assertFalse(np.allclose(_gate(got), 0.6, atol=1e-3))
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5),
      got.train.tables,
      expected.train.tables,
    )


if __name__ == '__main__':
  absltest.main()
