"""NIS: its policy by enumeration, its gradient, its steps, planted blocks."""

import functools
import itertools

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jax_autorec import choices as choices_lib
from jax_autorec import errors, field_spaces, pipeline, search, spaces
from jax_autorec import schema as schema_lib
from jax_autorec.data import dataset as dataset_lib
from jax_autorec.nn import lookups
from jax_autorec.nn import model as model_lib
from jax_autorec.optim import row_sparse
from jax_autorec.optim import tables as tables_lib
from jax_autorec.search import supernet
from jax_autorec.search.nis import overrun, policy
from jax_autorec.train import parallel
from jax_autorec.train import settings as settings_lib
from jax_autorec.train import state as state_lib
from jax_autorec.types import Batch

# Fields of two, one and three blocks of rows.
_ROWS = ((3, 7), (4,), (2, 5, 9))
_MODES = {
  'single': dict(mode='single'),
  'multi': dict(mode='multi'),
  'prefix': dict(mode='multi', prefix=True),
  'projected': dict(mode='single', combine='project'),
  'shared_row': dict(mode='multi', combine='project', shared_row=True),
  'shared_row_beside': dict(mode='single', shared_row=True),
}


def _blocks(rows=_ROWS, columns=(2, 1, 3), **options):
  options = {'combine': 'concatenate'} | options
  return choices_lib.Blocks(rows, columns, **options)


def _choices(blocks, field):
  """Every choice of a field, as rows of its blocks of columns."""
  bounds, count = (0, *blocks.rows[field]), len(blocks.columns)
  if blocks.mode == 'single':
    own = {(0,) * count}
    for rows, wide in itertools.product(bounds[1:], range(1, count + 1)):
      own.add((rows,) * wide + (0,) * (count - wide))
    return sorted(own)
  own = itertools.product(bounds, repeat=count)
  if blocks.prefix:
    own = (kept for kept in own if list(kept) == sorted(kept, reverse=True))
  return sorted(own)


def _entries(blocks, field, kept):
  """By a mask over the table, element by element."""
  size, width = blocks.rows[field][-1], sum(blocks.columns)
  total, column = 0, 0
  for rows, dim in zip(kept, blocks.columns):
    for _, place in itertools.product(range(dim), range(size)):
      total += place < rows
    column += dim
    if rows and blocks.combine == 'project':
      total += dim * width
    if 0 < rows < size and blocks.shared_row:
      total += width if blocks.combine == 'project' else dim
  return total


def _logits(choices, seed=0, scale=1.0):
  rng = np.random.default_rng(seed)
  return jnp.asarray(scale * rng.normal(size=choices.shape), jnp.float32)


def _enumerated(blocks, choices, logits):
  """Per field: decisions -> (probability, rows kept), in float64."""
  logits, result = np.asarray(logits, np.float64), []
  num_places, size = choices.shape[1:]
  for field in range(choices.shape[0]):
    own = {}
    for decisions in itertools.product(range(size), repeat=num_places):
      counts = np.concatenate([choices.counts[d] for d in decisions])
      if counts.max() > len(blocks.rows[field]):
        continue
      if blocks.prefix and list(counts) != sorted(counts, reverse=True):
        continue
      kept = tuple(([0, *blocks.rows[field]])[c] for c in counts)
      weight = sum(logits[field, l, d] for l, d in enumerate(decisions))
      own[decisions] = np.exp(weight), kept
    total = sum(weight for weight, _ in own.values())
    result.append({d: (w / total, kept) for d, (w, kept) in own.items()})
  return result


class PolicyTest(parameterized.TestCase):
  @parameterized.parameters(*_MODES)
  def test_choices_are_all_that_there_are(self, name):
    blocks = _blocks(**_MODES[name])
    choices = policy(blocks)
    found = _enumerated(blocks, choices, jnp.zeros(choices.shape))
    for field, own in enumerate(found):
      kept = sorted(kept for _, kept in own.values())
      self.assertEqual(kept, _choices(blocks, field))
      shares = [share for share, _ in own.values()]
      np.testing.assert_allclose(shares, 1 / len(kept))
    if name == 'single':  # Nothing, and S x T.
      self.assertEqual([len(own) for own in found], [7, 4, 10])
    if name == 'multi':  # (S + 1)^T.
      self.assertEqual([len(own) for own in found], [27, 8, 64])

  @parameterized.parameters('single', 'multi', 'prefix', 'shared_row')
  def test_shares_entropy_and_mode_by_enumeration(self, name):
    blocks = _blocks(**_MODES[name])
    choices = policy(blocks)
    logits = _logits(choices)
    found = _enumerated(blocks, choices, logits)
    entropy = [-sum(p * np.log(p) for p, _ in own.values()) for own in found]
    np.testing.assert_allclose(choices.entropy(logits), entropy, rtol=1e-5)
    marginals = np.zeros(choices.prices.shape)
    modes = []
    for field, own in enumerate(found):
      bounds = [0, *blocks.rows[field]]
      for share, kept in own.values():
        for column, rows in enumerate(kept):
          marginals[field, column, bounds.index(rows)] += share
      modes.append(max(own.values())[1])
    np.testing.assert_allclose(
      choices.marginals(logits), marginals, rtol=1e-4, atol=1e-6
    )
    kept, entries = choices.kept(choices.mode(logits))
    np.testing.assert_array_equal(kept, modes)
    self.assertEqual(
      entries, sum(_entries(blocks, f, kept) for f, kept in enumerate(modes))
    )

  @parameterized.parameters('single', 'multi', 'prefix')
  def test_draws_come_as_often_as_their_probability_says(self, name):
    blocks = _blocks(**_MODES[name])
    choices = policy(blocks)
    logits = _logits(choices)
    found = _enumerated(blocks, choices, logits)
    keys = jax.random.split(jax.random.key(0), 20_000)
    draw = jax.jit(jax.vmap(lambda key: choices.sample(logits, key)))
    decisions, log_probs = jax.device_get(draw(keys))
    for row, log_prob in zip(decisions[:50], log_probs):
      shares = [found[f][tuple(own)][0] for f, own in enumerate(row)]
      self.assertAlmostEqual(log_prob, np.log(shares).sum(), places=4)
    for field, own in enumerate(found):
      drawn = [tuple(row) for row in decisions[:, field].tolist()]
      for choice, (share, _) in own.items():
        error = np.sqrt(share * (1 - share) / len(drawn))
        got = drawn.count(choice) / len(drawn)
        self.assertLess(abs(got - share), 4.5 * error, choice)

  @parameterized.parameters('single', 'multi', 'prefix')
  def test_of_equals_the_mode_keeps_most(self, name):
    blocks = _blocks(**_MODES[name])
    choices = policy(blocks)
    kept, entries = choices.kept(choices.mode(jnp.zeros(choices.shape)))
    np.testing.assert_array_equal(kept, [[rows[-1]] * 3 for rows in _ROWS])
    self.assertEqual(entries, blocks.all_entries)

  def test_gradients_are_finite_where_choices_are_certain(self):
    for name in ('single', 'prefix'):
      choices = policy(_blocks(**_MODES[name]))
      logits = _logits(choices, scale=200.0)

      def loss(logits, choices=choices):
        _, log_prob = choices.sample(logits, jax.random.key(0))
        return log_prob + choices.entropy(logits).sum()

      self.assertTrue(np.all(np.isfinite(jax.jit(jax.grad(loss))(logits))))


class CostTest(parameterized.TestCase):
  @parameterized.parameters(*_MODES)
  def test_entries_are_the_elements_of_the_mask(self, name):
    blocks = _blocks(**_MODES[name])
    for field in range(len(_ROWS)):
      for kept in _choices(blocks, field):
        got = sum(
          blocks.entries(field, column, rows)
          for column, rows in enumerate(kept)
        )
        self.assertEqual(got, _entries(blocks, field, kept), kept)

  def test_the_slides_example(self):
    """1M x 192 + 2M x 128 + 2M x 64 is 576M of 2560M."""
    million = 10**6
    ends = tuple(rows * million for rows in (1, 3, 5, 7, 10))
    blocks = _blocks((ends,), (64,) * 4)
    kept = (5 * million, 3 * million, million, 0)
    entries = [blocks.entries(0, t, rows) for t, rows in enumerate(kept)]
    self.assertEqual(sum(entries), 576 * million)
    self.assertEqual(blocks.all_entries, 2560 * million)
    # The same, a millionth of it, as a mask.
    mask = np.arange(10)[:, None] < np.repeat(np.array(kept) // million, 64)
    self.assertEqual(mask.sum(), 576)
    self.assertEqual((mask.sum(1) == (192,)).sum(), 1)
    self.assertEqual((mask.sum(1) == 128).sum(), 2)
    self.assertEqual((mask.sum(1) == 64).sum(), 2)

  def test_the_budget_is_free(self):
    self.assertEqual(overrun(jnp.float32(576), 576), 0)
    self.assertEqual(overrun(jnp.float32(3), 576), 0)
    self.assertEqual(overrun(jnp.float32(1152), 576), 1)
    self.assertAlmostEqual(float(overrun(jnp.float32(720), 576)), 0.25)


_COST = 0.6


_TOY_LOGITS = np.array([[[0.3, -0.4, 0.8, 0.1, -0.2]]], np.float32)


def _toy_reward(rows):
  return 1 - ((rows - 6) / 8) ** 2


@functools.cache
def _toy_gradients(cost_weight, budget):
  """(keys, memory) -> gradients for draws of one categorical."""
  blocks = _blocks(((2, 5, 9, 10),), (2,), mode='single')
  selector = search.nis(
    optax.sgd(1.0), blocks, 10, budget=budget, cost_weight=cost_weight
  )

  def one(logits, key, memory):
    draw = selector.sample(
      {'logits': logits}, memory, None, 'arch', jnp.int32(5), key
    )
    value = _toy_reward(draw.choice['kept'][0, 0])
    # Two examples, of which the reward is one value.
    losses = jnp.array([0.3, 0.9])
    draws, rewards = {'fields': draw}, {'fields': value}
    return supernet.surrogate(losses, draws, rewards).mean()

  grads = jax.vmap(jax.grad(one), (None, 0, None))
  return jax.jit(functools.partial(grads, _TOY_LOGITS))


class GradientTest(parameterized.TestCase):
  def _toy(self, cost_weight, baseline, budget=5.0):
    """Gradients for many draws, and the exact one."""
    seen = np.float32(1 - 0.95)
    memory = {'updates': jnp.int32(1), 'loss': seen * baseline}
    keys = jax.random.split(jax.random.key(1), 40_000)
    grads = _toy_gradients(cost_weight, budget)(keys, memory)
    grads = np.asarray(grads, np.float64).reshape(len(keys), -1)
    rows = np.array([0, 2, 5, 9, 10])
    values = _toy_reward(rows)
    values -= cost_weight * np.maximum(2 * rows / budget - 1, 0)
    shares = np.asarray(jax.nn.softmax(_TOY_LOGITS[0, 0]), np.float64)
    # Steps go downwards.
    return grads, -shares * (values - shares @ values)

  @parameterized.product(cost_weight=(0.0, _COST), baseline=(0.0, -0.7))
  def test_is_that_of_the_expected_reward(self, cost_weight, baseline):
    grads, exact = self._toy(cost_weight, baseline)
    error = grads.std(0, ddof=1) / np.sqrt(len(grads))
    self.assertGreater(np.abs(exact / error).max(), 15)
    np.testing.assert_array_less(np.abs(grads.mean(0) - exact), 3 * error)

  def test_a_baseline_lowers_the_variance(self):
    plain, _ = self._toy(0.0, 0.0)
    compared, _ = self._toy(0.0, -0.7)
    self.assertLess(compared.var(0).sum(), 0.5 * plain.var(0).sum())

  def test_no_price_leaves_no_trace_of_the_cost(self):
    """With the same draws, whatever the budget."""
    small, exact = self._toy(0.0, -0.7, budget=1e-3)
    large, _ = self._toy(0.0, -0.7, budget=1e6)
    np.testing.assert_array_equal(small, large)
    dear, _ = self._toy(_COST, -0.7, budget=1e-3)
    self.assertGreater(np.abs(dear.mean(0) - exact).max(), 1)


_SCHEMA = schema_lib.Schema(
  (
    schema_lib.Field('user', vocab_size=9),
    schema_lib.Field('tags', vocab_size=7, max_length=2),
    schema_lib.Field('place', vocab_size=4),
  )
)
_BATCH = 16


def _batch(seed, lead=(), vocabs=(9, 7, 7, 4)):
  """Ids repeat; the last rows are padding."""
  rng = np.random.default_rng(seed)
  shape = (*lead, _BATCH)
  ids = np.stack([rng.integers(0, size, shape) for size in vocabs], -1)
  ids[..., 2] = np.where(rng.random(shape) < 0.3, -1, ids[..., 2])
  return Batch(
    ids=ids.astype(np.int32),
    numeric=np.zeros((*shape, 0), np.float32),
    missing=np.zeros((*shape, 0), bool),
    labels=(rng.random(shape) < 0.4).astype(np.float32),
    weights=rng.uniform(0.5, 2, shape).astype(np.float32),
    mask=np.broadcast_to(np.arange(_BATCH) < _BATCH - 2, shape),
  )


def _space(schema=_SCHEMA, **options):
  return field_spaces.open_blocks(
    spaces.fm(schema, dim=6), (0.3, 0.3, 0.4), (2, 4), **options
  )


def _frozen(architecture):
  """An optimiser that moves no weight."""
  return state_lib.Optimizer(
    optax.set_to_zero(),
    tables_lib.row_sparse(row_sparse.sgd(0.0), lookups.spaces(architecture)),
  )


def _setup(
  tx=None, mode='none', optimizer=None, table_optimizer='sgd', **options
):
  space = _space(shared_row=True)
  options = dict(budget=40.0, samples=3) | options
  selectors = {
    'fields': search.nis(tx or optax.sgd(2.0), space.choice, 100, **options)
  }
  model = model_lib.build(space, axis_name=parallel.axis_name(mode))
  train = settings_lib.Settings(
    table_optimizer=table_optimizer, learning_rate=0.05, batch_size=_BATCH
  )
  optimizer = optimizer or settings_lib.make_optimizer(train, space)
  state = supernet.init(
    model,
    optimizer,
    selectors,
    state_lib.example_batch(_SCHEMA),
    jax.random.key(0),
    0.5,
  )
  return state, supernet.make_step(model, optimizer, selectors), selectors


def _choose(state, kept, scale=60.0):
  """The state with a policy that draws one choice, all but certainly."""
  space = _space(shared_row=True)
  choices = policy(space.choice)
  logits = np.zeros(choices.shape, np.float32)
  for field, own in enumerate(kept):
    for column, rows in enumerate(own):
      logits[field, column, choices.ends[field].tolist().index(rows)] = scale
  return state.replace(arch={'fields': {'logits': jnp.asarray(logits)}})


@functools.cache
def _compiled_setup(tx='sgd', is_frozen=True, mode='none', **options):
  """As `_setup`, with a compiled program of one dispatch of several steps."""
  tx = {
    'sgd': optax.sgd(2.0),
    'none': optax.set_to_zero(),
    # An average with weight .05 of the new, and logits that stand still.
    'critic': optax.partition(
      {'critic': optax.sgd(0.025), 'logits': optax.set_to_zero()},
      lambda tree: {key: key for key in tree},
    ),
  }[tx]
  optimizer = _frozen(_space(shared_row=True)) if is_frozen else None
  state, step, _ = _setup(tx, mode, optimizer, **options)
  if mode != 'none':
    return state, parallel.compile_steps(step, mode)
  return state, jax.jit(step)


def _logits_of(state):
  return np.asarray(state.arch['fields']['logits'])


class StepTest(parameterized.TestCase):
  def test_an_update_of_the_policy_moves_no_weight(self):
    start, step = _compiled_setup(entropy=0.0)
    state = start
    for i in range(3):
      state, _ = step(state, (_batch(i), _batch(10 + i)))
    for part in ('params', 'tables', 'batch_stats'):
      jax.tree.map(
        np.testing.assert_array_equal,
        getattr(state.train, part),
        getattr(start.train, part),
      )
    moved = _logits_of(state) - _logits_of(start)
    self.assertGreater(np.abs(moved).max(), 1e-3)

  def test_the_first_update_only_finds_what_to_compare_with(self):
    start, step = _compiled_setup(entropy=0.0)
    state, _ = step(start, (_batch(0), _batch(1)))
    np.testing.assert_array_equal(_logits_of(state), _logits_of(start))
    memory = state.memory['fields']
    self.assertEqual(memory['updates'], 1)
    self.assertNotEqual(memory['loss'], 0)

  def test_the_policy_sees_validation_batches_alone(self):
    state, step = _compiled_setup(entropy=0.0)
    state, _ = step(state, (_batch(0), _batch(1)))
    first, _ = step(state, (_batch(2), _batch(3)))
    swapped, _ = step(state, (_batch(4), _batch(3)))
    changed, _ = step(state, (_batch(2), _batch(5)))
    np.testing.assert_array_equal(_logits_of(first), _logits_of(swapped))
    self.assertFalse(np.array_equal(_logits_of(first), _logits_of(changed)))

  def test_the_critic_learns_the_mean_reward(self):
    """As the average does with the decay that its rate stands for."""
    runs = {}
    for baseline in ('ema', 'critic'):
      state, step = _compiled_setup(
        'critic', baseline=baseline, samples=1, reward='ce'
      )
      losses = []
      for i in range(12):
        state, _ = step(state, (_batch(0), _batch(i)))
        losses.append(float(state.memory['fields']['loss']))
      runs[baseline] = losses, state.arch['fields'].get('critic')
    means, (firsts, critic) = runs['ema'][0], runs['critic']
    # Of the averages, m <- 0.95 m + 0.05 x: minus each reward.
    each = (np.array(means) - 0.95 * np.array([0, *means[:-1]])) / 0.05
    self.assertGreater(each.min(), 0.2)  # A log loss.
    np.testing.assert_allclose(firsts, each[0], rtol=1e-4)
    expected = each[0]
    for value in each[1:]:
      expected += 0.05 * (value - expected)
    self.assertAlmostEqual(firsts[-1] + float(critic), expected, places=4)
    self.assertGreater(abs(expected - each[0]), 1e-3)

  def test_what_is_switched_off_keeps_every_bit(self):
    """Though momentum of earlier steps would move it."""
    state, step = _compiled_setup(
      'none', is_frozen=False, table_optimizer='adam', full_steps=1
    )
    state, _ = step(state, (_batch(0), _batch(1)))  # All on: moments.
    kept = ((5, 0), (4, 7), (0, 3))
    state = _choose(state, kept)
    new, _ = step(state, (_batch(0), _batch(1)))
    # Nor does the validation batch leave a trace in the weights.
    other, _ = step(state, (_batch(0), _batch(2)))
    jax.tree.map(
      np.testing.assert_array_equal, new.train.tables, other.train.tables
    )
    (table,) = [t for t in _space().tables if t.view == 'main']
    offsets, looked_up = (0, 9, 16, 20), np.zeros((20, 6), bool)
    flat = np.asarray(lookups.flatten_ids(_space(), _batch(0))[table.space])
    looked_up[flat[flat < 20]] = True
    is_on = np.zeros((20, 6), bool)
    for offset, (narrow, wide) in zip(offsets, kept):
      is_on[offset : offset + narrow, :2] = True
      is_on[offset : offset + wide, 2:] = True
    self.assertGreater((looked_up & ~is_on).sum(), 20)
    before, after = state.train, new.train
    pairs = [(before.tables, after.tables)]
    moments = [t.table_optimizer.tables[table.name] for t in (before, after)]
    for key, old in moments[0].moments.items():
      self.assertTrue(np.all(np.any(old != 0, 1)[looked_up.any(1)]))
      pairs.append(({table.name: old}, {table.name: moments[1].moments[key]}))
    for old, moved in pairs:
      changed = np.asarray(old[table.name] != moved[table.name])
      np.testing.assert_array_equal(changed, looked_up & is_on)

  def test_warm_ups(self):
    """All blocks, then even draws, ever fewer; then the policy."""
    state, _, selectors = _setup(full_steps=20, mixed_steps=40)
    state = _choose(state, ((5, 0), (4, 7), (0, 3)), scale=0.0)
    nis = selectors['fields']

    @jax.jit
    def is_full(step, key, arch):
      draw = nis.sample(
        arch, state.memory['fields'], None, 'weights', step, key
      )
      return jnp.all(draw.choice['kept'] == jnp.array([[9], [7], [4]]))

    keys = jax.random.split(jax.random.key(0), 4000)
    shares = [
      1
      - float(
        jax.vmap(is_full, (None, 0, None))(
          jnp.int32(step), keys, state.arch['fields']
        ).mean()
      )
      for step in (0, 19, 20, 40, 59)
    ]
    self.assertEqual(shares[:2], [0, 0])
    # A draw is everything by chance, once in (S + 1)^2 per field.
    chance = 1 - 1 / (4 * 4 * 3) ** 2
    np.testing.assert_allclose(
      shares[2:], np.array([0.5, 0.25, 0.0125]) * chance, atol=0.025
    )
    certain = _choose(state, ((5, 0), (4, 7), (0, 3)))
    draw = nis.sample(
      certain.arch['fields'],
      state.memory['fields'],
      None,
      'weights',
      jnp.int32(60),
      keys[0],
    )
    np.testing.assert_array_equal(draw.choice['kept'], [[5, 0], [4, 7], [0, 3]])

  def test_an_evaluation_takes_the_mode(self):
    state, _, selectors = _setup()
    kept = ((5, 0), (4, 7), (0, 3))
    state = _choose(state, kept, scale=0.1)
    for seed in range(5):
      draw = selectors['fields'].sample(
        state.arch['fields'],
        state.memory['fields'],
        None,
        'eval',
        jnp.int32(0),
        jax.random.key(seed),
      )
      np.testing.assert_array_equal(draw.choice['kept'], kept)

  def test_the_entropy_holds_the_policy_open_and_fades(self):
    """Without a difference of rewards it alone moves the logits."""
    start, step = _compiled_setup(cost_weight=0.0, entropy=1.0, samples=1)
    # All scores are equal: an AUC of one half.
    zeros = jax.tree.map(
      jnp.zeros_like, (start.train.tables, start.train.params)
    )
    train = start.train.replace(tables=zeros[0], params=zeros[1])
    start = _choose(start.replace(train=train), [[0, 0]] * 3, 1.0)
    changes = []
    for updates in (1, 51, 100):
      seen = np.float32(1 - 0.95**updates)
      memory = {'updates': jnp.int32(updates), 'loss': -0.5 * seen}
      state = start.replace(memory={'fields': memory})
      new, _ = step(state, (_batch(0), _batch(1)))
      changes.append(_logits_of(new) - _logits_of(start))
    self.assertTrue(np.all(changes[0][:, :, 0] < -1e-2))
    np.testing.assert_allclose(changes[1], 49 / 99 * changes[0], rtol=1e-3)
    np.testing.assert_allclose(changes[2], 0, atol=1e-5)

  @parameterized.parameters('jit', 'pmap')
  def test_eight_devices_agree_with_one(self, mode):
    train, valid = _batch(1, (3,)), _batch(2, (3,))
    state, step = _compiled_setup(is_frozen=False)
    start = state
    for i in range(3):
      one = jax.tree.map(lambda x, i=i: x[i], (train, valid))
      state, metrics = step(state, one)
    placed, program = _compiled_setup(is_frozen=False, mode=mode)
    # What is run is donated.
    placed = program.place(jax.tree.map(jnp.copy, placed))
    placed, losses = program.run(placed, (train, valid))
    got = program.fetch(placed)
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
      (got.arch, got.memory, got.train.tables, losses['loss'][-1]),
      (state.arch, state.memory, state.train.tables, metrics['loss']),
    )
    self.assertFalse(np.allclose(_logits_of(state), _logits_of(start)))

  def test_no_cost_grows_with_the_vocabulary(self):
    def compiled(vocab):
      schema = schema_lib.Schema(
        (schema_lib.Field('user', vocab_size=vocab), *_SCHEMA.fields[1:])
      )
      space = _space(schema)
      selectors = {
        'fields': search.nis(optax.adam(1e-2), space.choice, 9, budget=99.0)
      }
      train = settings_lib.Settings(batch_size=_BATCH)
      model = model_lib.build(space)
      optimizer = settings_lib.make_optimizer(train, space)
      example = state_lib.example_batch(schema)
      state = jax.eval_shape(
        lambda: supernet.init(
          model, optimizer, selectors, example, jax.random.key(0)
        )
      )
      step = supernet.make_step(model, optimizer, selectors)
      program = parallel.compile_steps(step)
      lead = lambda batch: jax.tree.map(lambda x: x[None], batch)
      batches = lead(_batch(0)), lead(_batch(1))
      return program.run.lower(state, batches).compile()

    small, large = compiled(1000), compiled(100_000)
    memory = [c.memory_analysis().temp_size_in_bytes for c in (small, large)]
    self.assertLess(memory[1], 1.01 * memory[0])
    flops = [c.cost_analysis()['flops'] for c in (small, large)]
    self.assertLess(flops[1], 1.01 * flops[0])
    self.assertNotRegex(large.as_text(), r'\[1000\d\d,[^\]]*\]\S* copy\(')


class SelectorTest(parameterized.TestCase):
  def test_derives_the_mode_and_closes(self):
    space = _space(combine='concatenate')
    nis = search.nis(optax.sgd(1.0), space.choice, 10, budget=9.0)
    choices = policy(space.choice)
    logits = _logits(choices)
    arch = {'logits': logits}
    context = search.base.Context(space, None)
    derived = nis.derive(arch, None, context)
    kept, entries = choices.kept(choices.mode(logits))
    self.assertEqual(derived, field_spaces.with_blocks(space, kept.tolist()))
    self.assertEqual(
      derived.embedding_params - derived.first_order_params, entries
    )
    shown = nis.record(arch, None)
    self.assertAlmostEqual(
      sum(shown['block_entries']), shown['expected_entries'], places=2
    )

  def test_nothing_kept_is_an_error(self):
    space = _space()
    nis = search.nis(optax.sgd(1.0), space.choice, 10, budget=9.0)
    logits = jnp.zeros(policy(space.choice).shape).at[..., 0].set(1)
    with self.assertRaisesRegex(errors.ConfigError, 'no field any row.*budget'):
      nis.derive({'logits': logits}, None, search.base.Context(space, None))

  @parameterized.parameters(
    (dict(reward='recall'), "'recall'.*'auc', 'ce'"),
    (dict(baseline='mean'), "'mean'.*'ema', 'critic'"),
    (dict(budget=0.0), 'budget of NIS is 0'),
    (dict(cost_weight=-0.1), 'cost_weight of NIS is -0.1'),
    (dict(cost_weight=float('nan')), 'cost_weight of NIS is nan'),
    (dict(full_steps=-1), 'full_steps of NIS is -1'),
    (dict(mixed_steps=-1), 'mixed_steps of NIS is -1'),
    (dict(mixed_share=1.5), 'mixed_share of NIS is 1.5; expected 0 to 1'),
    (dict(samples=0), 'samples of NIS is 0'),
    (dict(decay=1.0), 'decay of NIS is 1.0'),
    (dict(entropy=-1e-3), 'entropy of NIS is -0.001'),
    (dict(period=0), 'period of a search is 0'),
    (dict(full_steps=6, mixed_steps=4), '10 of 10 steps'),
  )
  def test_a_slip_is_named(self, options, message):
    options = dict(budget=5.0) | options
    with self.assertRaisesRegex(errors.ConfigError, message):
      search.nis(optax.sgd(1.0), _space().choice, 10, **options)


_HEAD, _VALUES = 20, 200


def _planted(seed, num_rows=24_000):
  """Zipf ids of which the most frequent tenth alone carries signal.

  Pairs of head values click by a product of vectors of width 2, in two of three
  fields; all others are noise. No field has an effect of its own.
  """
  rng = np.random.default_rng(seed)
  shares = 1 / np.arange(1, _VALUES + 1) ** 1.1
  shares /= shares.sum()
  values = rng.choice(_VALUES, (num_rows, 3), p=shares)
  vectors = np.zeros((2, _VALUES, 2))
  for own in vectors:
    drawn = rng.normal(size=(_HEAD, 2))
    head = shares[:_HEAD] / shares[:_HEAD].sum()
    drawn -= head @ drawn
    own[:_HEAD] = drawn / np.sqrt(head @ drawn**2)
  logits = 2 * (vectors[0][values[:, 0]] * vectors[1][values[:, 1]]).sum(1)
  labels = rng.random(num_rows) < 1 / (1 + np.exp(-logits))
  ids = (values + schema_lib.FIRST_VALUE_ID).astype(np.int32)
  ends = [0, num_rows * 8 // 10, num_rows * 9 // 10, num_rows]
  splits = [
    dataset_lib.Split(
      ids=ids[a:b],
      numeric=np.zeros((b - a, 0), np.float32),
      missing=np.zeros((b - a, 0), bool),
      labels=labels[a:b].astype(np.float32),
    )
    for a, b in itertools.pairwise(ends)
  ]
  size = schema_lib.FIRST_VALUE_ID + _VALUES
  schema = schema_lib.Schema(
    tuple(schema_lib.Field(name, vocab_size=size) for name in 'abn')
  )
  counts = {
    name: np.bincount(splits[0].ids[:, column], minlength=size)
    for column, name in enumerate('abn')
  }
  return dataset_lib.Dataset(
    'planted_head', schema, *splits, counts, {}, f'head {seed}'
  )


def _searched(seed, cost_weight, kind='multi', budget=0.05, steps=400):
  """Rows kept of each block of columns of fields a, b and n."""
  data = _planted(seed)
  space = field_spaces.open_blocks(
    spaces.fm(data.schema, dim=4),
    (0.1, 0.3, 0.6),
    (2, 2),
    mode=kind,
    combine='concatenate',
  )
  selector = search.nis(
    optax.adam(5e-2),
    space.choice,
    steps,
    budget=budget * space.choice.all_entries,
    cost_weight=cost_weight,
    full_steps=steps // 4,
    mixed_steps=steps // 8,
    samples=8,
    entropy=1e-4,
  )
  train = settings_lib.Settings(
    batch_size=1024, learning_rate=0.02, table_std=0.1, embedding_l2=1e-4
  )
  found = pipeline.run_search(
    space, {'fields': selector}, data, train, num_steps=steps, seed=seed
  )
  return pipeline.derive(found)


def _rows(architecture, name):
  """Most rows that a field keeps of any column."""
  (plan,) = [p for p in architecture.fields if p.name == name]
  return max([piece.stop for piece in plan.pieces], default=0)


class PlantedTest(parameterized.TestCase):
  def test_the_head_is_kept_and_the_tail_is_not(self):
    derived = _searched(0, 0.05, steps=200)
    for name in 'ab':
      self.assertEqual(_rows(derived, name), _HEAD + schema_lib.FIRST_VALUE_ID)
    self.assertEqual(_rows(derived, 'n'), 0)

  # The mark within: the outer decorator makes new functions of the inner.
  @parameterized.parameters('single', 'multi')
  @pytest.mark.slow
  def test_in_eight_of_ten_seeds(self, kind):
    right = 0
    for seed in range(10):
      derived = _searched(seed, 0.05, kind)
      heads = [_rows(derived, name) for name in 'ab']
      right += heads == [_HEAD + schema_lib.FIRST_VALUE_ID] * 2
    self.assertGreaterEqual(right, 8)

  @pytest.mark.slow
  def test_a_higher_price_buys_no_more(self):
    sizes = []
    for price in (0.0, 0.003, 0.01, 0.05, 0.2):
      found = [_searched(seed, price) for seed in range(3)]
      # First-order weights are not chosen of.
      own = [a.embedding_params - a.first_order_params for a in found]
      sizes.append(np.mean(own))
    self.assertEqual(sizes, sorted(sizes, reverse=True))
    self.assertGreater(sizes[0], 2 * sizes[-1])


if __name__ == '__main__':
  absltest.main()
