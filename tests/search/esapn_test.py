"""ESAPN: growth, rewards and policies, and the published code's defects."""

import functools
import json
import os
import pathlib
import subprocess
import sys

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

from jax_autorec import errors, field_spaces, search, spaces, streaming
from jax_autorec import schema as schema_lib
from jax_autorec.data import batches as batches_lib
from jax_autorec.data import dataset as dataset_lib
from jax_autorec.nn import model as model_lib
from jax_autorec.search import online
from jax_autorec.search.esapn import baseline, reinforce
from jax_autorec.train import models as models_lib
from jax_autorec.train import parallel
from jax_autorec.train import settings as settings_lib
from jax_autorec.train import state as state_lib

_DIMS = (2, 4, 8)


def _stream(users=30, items=12, rows=240, seed=0):
  rng = np.random.default_rng(seed)
  ids = np.stack(
    [rng.integers(0, users, rows), rng.integers(0, items, rows)], 1
  ).astype(np.int32)
  labels = (ids.sum(1) % 3 == 0).astype(np.float32)
  return _dataset(ids, labels, users, items)


def _dataset(ids, labels, users, items):
  rows = len(ids)
  split = dataset_lib.Split(
    ids, np.zeros((rows, 0), np.float32), np.zeros((rows, 0), bool), labels
  )
  schema = schema_lib.Schema(
    (
      schema_lib.Field('user', vocab_size=users),
      schema_lib.Field('item', vocab_size=items),
    )
  )
  counts = {
    name: np.bincount(ids[:, i]) for i, name in enumerate(('user', 'item'))
  }
  empty = split.head(0)
  return dataset_lib.Dataset(
    'stream', schema, split, empty, empty, counts, {}, 'x'
  )


def _space(schema, dims=_DIMS, hidden=(8,)):
  closed = spaces.rater(schema, dim=dims[-1], width=dims[-1], hidden=hidden)
  return field_spaces.open_rows(closed, dims)


def _settings(**options):
  return settings_lib.Settings(
    batch_size=20, learning_rate=1e-2, table_std=0.3, **options
  )


@functools.cache
def _parts(**options):
  return _Parts(**options)


class _Parts:
  """A method with the tools, state and batches of a small stream."""

  def __init__(self, **options):
    self.stream = _stream()
    space = _space(self.stream.schema)
    optimizer = settings_lib.make_optimizer(_settings(), space)
    self.tools = online.tools(model_lib.build(space), optimizer, 'square')
    options = {'explore': 0.5, 'hidden': 8} | options
    self.method = search.esapn(optax.adam(1e-2), **options)
    self.step = jax.jit(online.make_step(self.tools, self.method, 'square'))
    self.predict = jax.jit(online.make_predict(self.tools, self.method))
    self.state = online.init(
      self.tools,
      self.method,
      state_lib.example_batch(self.stream.schema),
      240,
      jax.random.key(0),
      0.3,
    )
    self.source = batches_lib.Batches(self.stream.train, 20, shuffle=False)

  def batch(self, number):
    return self.source.batch(0, number)

  def run(self, steps):
    """States after each of the first steps."""
    state = self.state
    for number in range(steps):
      before = self.batch(max(number - 1, 0))
      state, _ = self.step(state, (self.batch(number), before))
      yield state


@functools.cache
def _found():
  stream = _stream()
  return stream, streaming.run_stream(
    _space(stream.schema),
    search.esapn(optax.adam(1e-2), explore=0.2, hidden=8),
    stream,
    _settings(),
  )


class GrowthTest(parameterized.TestCase):
  def test_sizes_never_shrink_and_end_at_the_largest(self):
    parts = _parts()
    last = {name: np.zeros(n) for name, n in (('user', 30), ('item', 12))}
    for state in parts.run(12):
      for name, before in last.items():
        size = np.asarray(state.own[name]['size']).astype(int)
        self.assertTrue(np.all(size >= before))
        self.assertTrue(np.all(size <= before + 1))
        self.assertLess(size.max(), len(_DIMS))
        last[name] = size
    self.assertEqual(last['item'].max(), 2)

  def test_growing_changes_no_prediction_and_resets_moments(self):
    parts = _parts()
    *_, state = parts.run(3)
    batch = parts.batch(4)
    before = parts.predict(state, batch)
    own, train, choice = parts.method.choose(
      state.own, parts.tools, state.train, batch, jax.random.key(8)
    )
    after = parts.predict(state.replace(own=own, train=train), batch)
    np.testing.assert_allclose(after, before, atol=1e-6 * np.abs(before).max())
    standing = parts.method.standing(own, parts.tools, batch)
    np.testing.assert_array_equal(standing['size'], choice['size'])
    changed = {
      name: np.asarray(own[name]['size']) != np.asarray(old['size'])
      for name, old in state.own.items()
    }
    grown = np.concatenate([changed['user'], changed['item']])
    self.assertBetween(grown.sum(), 5, 30)
    ((name, table),) = train.tables.items()
    rows = np.asarray(state.train.tables[name])
    # Other rows and their moments keep their bits.
    np.testing.assert_array_equal(np.asarray(table)[~grown], rows[~grown])
    self.assertTrue(np.all(np.any(np.asarray(table) != rows, 1)[grown]))
    moments = train.table_optimizer.tables[name].moments
    old = state.train.table_optimizer.tables[name].moments
    for kind, values in moments.items():
      self.assertTrue(np.all(np.asarray(values)[grown] == 0))
      np.testing.assert_array_equal(
        np.asarray(values)[~grown], np.asarray(old[kind])[~grown]
      )

  def test_an_id_grows_once_in_a_batch_however_often_it_comes(self):
    """And all its occurrences see the same row (defect: last write wins)."""
    parts = _parts()
    batch = parts.batch(0)
    batch = batch._replace(ids=np.tile(batch.ids[:4], (5, 1)))
    own, _, choice = parts.method.choose(
      parts.state.own, parts.tools, parts.state.train, batch, jax.random.key(1)
    )
    sizes = np.asarray(choice['size']).reshape(5, 4, 2)
    self.assertTrue(np.all(sizes == sizes[:1]))
    self.assertEqual(set(sizes.ravel()), {0, 1})
    for place, name in enumerate(('user', 'item')):
      kept = np.asarray(own[name]['size'])[batch.ids[:4, place]]
      np.testing.assert_array_equal(kept, sizes[0, :, place])

  def test_padding_neither_grows_nor_counts(self):
    parts = _parts()
    batch = parts.batch(0)._replace(mask=np.zeros(20, bool))
    state, _ = parts.step(parts.state, (batch, batch))
    for one in state.own.values():
      self.assertEqual(int(one['size'].sum() + one['count'].sum()), 0)


class RewardTest(parameterized.TestCase):
  @parameterized.parameters('mean', 'last')
  def test_a_constant_loss_has_reward_zero(self, base):
    history, counts = jnp.zeros((5, 3)), jnp.zeros((5,), jnp.int32)
    for n in (1, 2, 7):
      ids = jnp.array([0, 1, 1, 4], jnp.int32)
      losses = jnp.full((4,), 0.625)
      for _ in range(n):
        history, counts = online.pushed(history, counts, ids, losses)
      before = baseline(history[ids], counts[ids], base)
      np.testing.assert_array_equal(before - losses, 0)
    grads = jax.grad(reinforce)(
      jnp.ones((4, 2)), jnp.ones(4, jnp.int32), before - losses, jnp.ones(4)
    )
    np.testing.assert_array_equal(grads, 0)

  def test_baselines(self):
    history = jnp.array([[4.0, 5.0, 3.0], [1.0, 2.0, 0.0]])
    counts = jnp.array([5, 2])
    np.testing.assert_allclose(baseline(history, counts, 'mean'), [4.0, 1.5])
    np.testing.assert_allclose(baseline(history, counts, 'last'), [5.0, 2.0])

  def test_each_entity_keeps_its_own_losses(self):
    """Defect: the item's last loss was read from the users' by item id."""
    parts = _parts()
    batch = parts.batch(0)
    losses = np.arange(20, dtype=np.float32)
    own = parts.method.remember(parts.state.own, parts.tools, batch, {}, losses)
    for place, name in enumerate(('user', 'item')):
      one = own[name]
      for i in range(len(one['count'])):
        mine = losses[batch.ids[:, place] == i]
        self.assertEqual(one['count'][i], len(mine))
        last = sorted(mine[-5:])
        kept = np.asarray(one['losses'][i])
        np.testing.assert_array_equal(
          sorted(kept[kept > 0]), [x for x in last if x > 0]
        )

  def test_reinforce_is_the_gradient_of_the_expected_reward(self):
    """Both actions enumerated; the baseline leaves the mean unchanged."""
    logits = jnp.array([[0.3, -0.8], [1.0, 2.0]])
    rewards = np.array([[0.2, -0.5], [1.5, 0.7]])
    chances = np.asarray(jax.nn.softmax(logits))
    for base in (0.0, 3.0):
      total = 0.0
      for first in (0, 1):
        for second in (0, 1):
          actions = jnp.array([first, second])
          found = rewards[[0, 1], actions] - base
          grad = jax.grad(reinforce)(
            logits, actions, jnp.asarray(found, jnp.float32), jnp.ones(2)
          )
          total += chances[0, first] * chances[1, second] * np.asarray(grad)
      mean = (chances * rewards).sum(1, keepdims=True)
      np.testing.assert_allclose(total, -chances * (rewards - mean), atol=1e-5)

  def test_what_has_no_action_has_no_gradient(self):
    """Defect: -log pi of the action that is masked at the largest size."""
    parts = _parts(reward='grown', base='mean', price=0.0)
    own = {
      name: one | {'size': jnp.full_like(one['size'], 2)}
      for name, one in parts.state.own.items()
    }
    for one in own.values():
      one['losses'], one['count'] = one['losses'] + 9, one['count'] + 3
    batch = parts.batch(0)
    adapted = parts.method.adapt(
      own,
      parts.tools,
      parts.state.train,
      batch,
      batch,
      jnp.zeros(20),
      jax.random.key(0),
    )
    jax.tree.map(
      np.testing.assert_array_equal,
      {name: one['policy'] for name, one in adapted.items()},
      {name: one['policy'] for name, one in own.items()},
    )
    own = {name: one | {'size': one['size'] - 1} for name, one in own.items()}
    adapted = parts.method.adapt(
      own,
      parts.tools,
      parts.state.train,
      batch,
      batch,
      jnp.zeros(20),
      jax.random.key(0),
    )
    moved = adapted['user']['policy']['params']['output']['bias']
    start = own['user']['policy']['params']['output']['bias']
    self.assertTrue(np.any(moved != start))
    # Exploring wrote nothing (defect: the copy to restore from is an alias).
    for name, one in adapted.items():
      for kept in ('size', 'count', 'losses'):
        np.testing.assert_array_equal(one[kept], own[name][kept])

  def test_as_published_the_reward_does_not_depend_on_the_action(self):
    """Why the sizes of that reward respond to nothing."""
    parts = _parts()
    *_, state = parts.run(3)
    batch, seen = parts.batch(4), []
    losses = lambda state: np.asarray(
      jnp.square(jax.nn.sigmoid(parts.predict(state, batch)) - batch.labels)
    )
    for key in range(3):
      own, train, choice = parts.method.choose(
        state.own, parts.tools, state.train, batch, jax.random.key(key)
      )
      seen.append(np.asarray(choice['size']))
      np.testing.assert_allclose(
        losses(state.replace(own=own, train=train)), losses(state), atol=1e-6
      )
    self.assertTrue(np.any(seen[0] != seen[1]))

  def test_hindsight_moves_the_policy_towards_what_did_better(self):
    """Losses that say so are given in place of the model's."""
    for losses, sign in ((jnp.full(20, -5.0), 1), (jnp.full(20, 5.0), -1)):
      parts = _parts(price=0.0)
      own = {
        name: one | {'size': jnp.ones_like(one['size'])}
        for name, one in parts.state.own.items()
      }
      batch = parts.batch(0)
      adapted = parts.method.adapt(
        own,
        parts.tools,
        parts.state.train,
        batch,
        batch,
        losses,
        jax.random.key(0),
      )
      for name, one in adapted.items():
        bias = lambda tree: tree['policy']['params']['output']['bias']
        self.assertGreater(sign * (bias(one) - bias(own[name]))[1], 0)

  @parameterized.parameters(
    ({'reward': 'grow'}, "'hindsight', 'grown'"),
    ({'base': 'none'}, "'mean', 'last', 'both'"),
    ({'base': 'both', 'reward': 'grown'}, 'learn nothing'),
    ({'explore': 0.0}, r'\(0, 1\)'),
    ({'price': -1.0}, 'costs -1.0'),
    ({'price': float('nan')}, 'costs nan'),
    ({'hidden': 0}, '0 hidden units'),
    ({'history': 1.5}, '1.5 losses per id'),
    ({'history': 0}, '0 losses per id'),
    (
      {'reward': 'grown', 'base': 'last', 'price': 1e-3},
      'drive the policy',
    ),
  )
  def test_slips_are_refused(self, options, message):
    with self.assertRaisesRegex(errors.ConfigError, message):
      search.esapn(optax.adam(1e-2), **options)

  def test_the_default_has_a_baseline(self):
    """Defect: with the default the published code has none, and crashes."""
    self.assertTrue(np.isfinite(_found()[1].logits).all())


# What a saved model holds, in a process that knows nothing else.
_LIST = """
import json, sys
import jax
from jax_autorec.train import models
model = models.load(sys.argv[1])
named = jax.tree_util.tree_leaves_with_path(model.params)
maps = [
  x.size
  for path, x in named
  if jax.tree_util.keystr(path, simple=True).endswith('_projection')
]
index = model.architecture.arrays.values()
everything = [model.params, model.tables, model.batch_stats, list(index)]
print(json.dumps({
  'largest': max(x.size for x in jax.tree.leaves(everything)),
  'tables': sum(x.size for x in model.tables.values()),
  'maps': sum(maps),
  'index': sum(x.nbytes for x in index),
}))
"""


class DerivedTest(parameterized.TestCase):
  def test_a_fresh_process_finds_no_array_of_the_full_size(self):
    _, found = _found()
    model = streaming.settle(found, _settings())
    directory = self.create_tempdir().full_path
    models_lib.save(model, directory)
    done = subprocess.run(
      [sys.executable, '-c', _LIST, directory],
      cwd=pathlib.Path(__file__).parents[2],
      env=os.environ | {'JAX_PLATFORMS': 'cpu'},
      capture_output=True,
      text=True,
      check=False,
    )
    self.assertEqual(done.returncode, 0, done.stderr)
    held, architecture = json.loads(done.stdout), model.architecture
    self.assertLess(held['largest'], 0.9 * (30 + 12) * _DIMS[-1])
    self.assertEqual(held['tables'], architecture.embedding_params)
    self.assertEqual(held['maps'], architecture.projection_params)
    self.assertGreater(held['maps'], 0)
    self.assertEqual(held['index'], architecture.index_bytes)

  def test_predicts_what_the_stream_would(self):
    stream, found = _found()
    model = streaming.settle(found, _settings())
    parts = _parts()
    batch = parts.batch(2)
    expected = online.make_predict(parts.tools, found.online)(
      found.state, batch
    )
    got = models_lib.predict(
      model.architecture,
      (model.params, model.tables, model.batch_stats),
      stream.train,
      20,
    )[40:60]
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)

  def test_rows_are_stored_at_their_size_alone(self):
    _, found = _found()
    model = streaming.settle(found, _settings())
    sizes = np.concatenate(
      [np.asarray(found.state.own[n]['size']) for n in ('user', 'item')]
    )
    self.assertLen(set(sizes), 3)
    entries = int(np.array(_DIMS)[sizes].sum())
    self.assertEqual(model.architecture.embedding_params, entries)
    held = model.size()['bytes']
    self.assertEqual(held['tables'], 4 * entries)
    self.assertEqual(held['index'], 4 * 42)
    self.assertLess(entries, found.info['size']['bytes']['tables'] / 4)
    directory = self.create_tempdir().full_path
    models_lib.save(model, directory)
    loaded = models_lib.load(directory)
    for table in loaded.tables.values():
      self.assertLess(len(table), 42)
    stream, _ = _found()
    parts = lambda m: (m.params, m.tables, m.batch_stats)
    np.testing.assert_array_equal(
      models_lib.predict(loaded.architecture, parts(loaded), stream.train, 20),
      models_lib.predict(model.architecture, parts(model), stream.train, 20),
    )


def _planted(seed, is_noise, rows=30_000, users=200, items=40):
  """A stream of users by Zipf, all with tastes of rank 16."""
  rng = np.random.default_rng(seed)
  share = 1 / np.arange(1, users + 1) ** 1.3
  user = rng.choice(users, rows, p=share / share.sum())
  item = rng.integers(0, items, rows)
  taste, trait = rng.normal(size=(users, 16)), rng.normal(size=(items, 16))
  logits = 1.5 * (taste[user] * trait[item]).sum(1)
  chance = 0.5 if is_noise else 1 / (1 + np.exp(-logits))
  labels = (rng.random(rows) < chance).astype(np.float32)
  ids = np.stack([user, item], 1).astype(np.int32)
  return _dataset(ids, labels, users, items)


@functools.cache
def _program():
  """Compiled once: runs differ in labels and in the rate of the policies."""
  schema = _planted(0, False).schema
  space = _space(schema, (2, 4, 8, 16), (32,))
  settings = settings_lib.Settings(
    batch_size=200, table_learning_rate=1e-2, clip_norm=None
  )
  optimizer = settings_lib.make_optimizer(settings, space)
  tools = online.tools(model_lib.build(space), optimizer, 'square')
  tx = optax.inject_hyperparams(optax.adam)(learning_rate=2e-3)
  method = search.esapn(tx, price=2e-3, hidden=64)
  step = online.make_step(tools, method, 'square')
  init = lambda key: online.init(
    tools, method, state_lib.example_batch(schema), 30_000, key, 0.1
  )
  return init, parallel.compile_steps(step)


def _mean_sizes(seed, is_noise, learns=True):
  """Mean size of users by octave of frequency; of items, all as frequent."""
  stream = _planted(seed, is_noise)
  init, program = _program()
  state = init(jax.random.key(seed))
  for one in () if learns else state.own.values():
    rates = one['optimizer'].hyperparams
    rates['learning_rate'] = jnp.zeros_like(rates['learning_rate'])
  source = batches_lib.Batches(stream.train, 200, shuffle=False)
  for first in range(0, source.steps_per_epoch, 10):
    batches = source.chunk(first, 10)
    state, _ = program.run(state, (batches, batches))
  own = state.own['user']
  sizes, counts = np.asarray(own['size']), np.asarray(own['count'])
  octave = np.log2(np.maximum(counts, 1)).astype(int)
  by_octave = [
    sizes[octave == o].mean()
    for o in range(octave.max() + 1)
    if (octave == o).sum() >= 5
  ]
  return by_octave, np.asarray(state.own['item']['size']).mean()


class PlantedTest(parameterized.TestCase):
  """That users follow frequency (P3) says little: chance alone makes them.

  A policy that never learns draws growth at each of an id's batches. What
  policies learn shows where frequencies are equal, against such a one.
  """

  def _check(self, seed):
    by_octave, signal = _mean_sizes(seed, False)
    order = stats.spearmanr(np.arange(len(by_octave)), by_octave)[0]
    _, noise = _mean_sizes(seed, True)
    _, frozen = _mean_sizes(seed, False, learns=False)
    return order > 0.8 and noise < 0.75 * frozen and signal > 1.25 * frozen

  def test_items_grow_where_there_is_signal_and_not_where_there_is_noise(self):
    self.assertTrue(self._check(0))

  def test_a_policy_that_does_not_learn_does_not_pass(self):
    _, signal = _mean_sizes(0, False, learns=False)
    _, noise = _mean_sizes(0, True, learns=False)
    self.assertBetween(noise / signal, 0.9, 1.1)
    self.assertGreater(signal, 1)

  @pytest.mark.slow
  def test_in_eight_of_ten_seeds(self):
    self.assertGreaterEqual(sum(map(self._check, range(1, 11))), 8)


if __name__ == '__main__':
  absltest.main()
