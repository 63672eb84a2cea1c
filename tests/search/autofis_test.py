"""AutoFIS through the search step: the exact rule, recovery, derivation."""

import dataclasses

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jax_autorec import errors, optim, pipeline, search, spaces
from jax_autorec import interactions as interactions_lib
from jax_autorec import schema as schema_lib
from jax_autorec.data import planted
from jax_autorec.nn import model as model_lib
from jax_autorec.search import base, supernet
from jax_autorec.train import settings as settings_lib
from jax_autorec.train import state as state_lib
from jax_autorec.types import Batch

_SIZES = {'a': 7, 'b': 5, 'c': 6, 'd': 4}


def _schema(names='abcd'):
  return schema_lib.Schema(
    tuple(schema_lib.Field(name, vocab_size=_SIZES[name]) for name in names)
  )


def _batch(seed, names='abcd', rows=24):
  rng = np.random.default_rng(seed)
  ids = {name: rng.integers(0, size, rows) for name, size in _SIZES.items()}
  return Batch(
    ids=np.stack([ids[name] for name in names], 1).astype(np.int32),
    numeric=np.zeros((rows, 0)),
    missing=np.zeros((rows, 0), bool),
    labels=(rng.random(rows) < 0.4).astype(np.float64),
    weights=rng.uniform(0.5, 2, rows),
    mask=np.arange(rows) < rows - 3,
  )


def _search(names='abcd', c=0.4, mu=0.7):
  """State, in float64, and compiled step of an AutoFM with SGD tables."""
  space = spaces.fm(_schema(names), dim=3, pairs='open')
  settings = settings_lib.Settings(
    table_optimizer='sgd',
    table_learning_rate=0.25,
    batch_size=24,
    clip_norm=None,
  )
  model = model_lib.build(space)
  optimizer = settings_lib.make_optimizer(settings, space)
  optimizer = optimizer._replace(dense=optax.sgd(0.25))
  selectors = {'interactions': search.autofis(optim.grda(0.5, c, mu))}
  state = supernet.init(
    model,
    optimizer,
    selectors,
    state_lib.example_batch(_schema(names)),
    jax.random.key(0),
    0.5,
  )
  state = jax.tree.map(
    lambda x: (
      x.astype(jnp.float64) if jnp.issubdtype(x.dtype, jnp.floating) else x
    ),
    state,
  )
  return model, state, jax.jit(supernet.make_step(model, optimizer, selectors))


def _gate(state):
  return np.asarray(state.arch['interactions']['pairs']['gate'])


class RuleTest(absltest.TestCase):
  def test_gates_and_weights_follow_one_gradient_by_their_rules(self):
    """GRDA written out in numpy, weights by dense SGD, both from old values."""
    c, mu, gamma = 0.4, 0.7, 0.5
    with jax.enable_x64(True):
      model, state, step = _search(c=c, mu=mu)

      @jax.jit
      def gradient(gate, tables, bias, batch):
        def loss(gate, tables, bias):
          logits = model.apply(
            {
              'params': {'embeddings': tables, 'bias': bias},
              'arch': {'interactions': {'pairs': {'gate': gate}}},
              'batch_stats': state.train.batch_stats,
            },
            batch,
            train=True,
            mutable=['batch_stats'],
          )[0]
          losses = jnp.logaddexp(0, logits) - batch.labels * logits
          weights = batch.weights * batch.mask
          return (weights * losses).sum() / weights.sum()

        return jax.grad(loss, argnums=(0, 1, 2))(gate, tables, bias)

      gate = _gate(state).copy()
      np.testing.assert_allclose(gate, 0.6, rtol=1e-6)
      tables, bias = dict(state.train.tables), state.train.params['bias']
      accumulator, threshold, zeros = gate.copy(), 0.0, []
      for t in range(12):
        batch = _batch(t)
        grads = gradient(gate, tables, bias, batch)
        threshold += c * gamma ** (0.5 + mu) * ((t + 1) ** mu - t**mu)
        accumulator -= gamma * np.asarray(grads[0])
        gate = np.sign(accumulator) * np.maximum(
          np.abs(accumulator) - threshold, 0
        )
        tables = jax.tree.map(lambda p, g: p - 0.25 * g, tables, grads[1])
        bias = bias - 0.25 * grads[2]
        state, _ = step(state, (batch, None))
        np.testing.assert_allclose(_gate(state), gate, rtol=1e-9, atol=1e-12)
        self.assertEqual(_gate(state)[gate == 0].tolist(), [0] * sum(gate == 0))
        zeros.append(int((gate == 0).sum()))
      for name, table in tables.items():
        np.testing.assert_allclose(
          state.train.tables[name], table, rtol=1e-8, atol=1e-10
        )
    # Some gates closed, and not all of them.
    self.assertEqual(zeros[0], 0)
    self.assertBetween(zeros[-1], 1, 5)

  def test_order_of_fields_permutes_the_gates(self):
    with jax.enable_x64(True):
      gates = {}
      _, reference, _ = _search()
      for names in ('abcd', 'cadb'):
        model, state, step = _search(names, c=0.05)
        offsets = np.cumsum([0, *_SIZES.values()])
        rows = np.concatenate(
          [
            np.arange(_SIZES[name]) + offsets[list(_SIZES).index(name)]
            for name in names
          ]
        )
        tables = {k: t[rows] for k, t in reference.train.tables.items()}
        state = state.replace(train=state.train.replace(tables=tables))
        for t in range(4):
          state, _ = step(state, (_batch(t, names), None))
        terms = model.architecture.interactions[0].terms
        gates[names] = dict(zip(map(frozenset, terms), _gate(state)))
    for pair, value in gates['abcd'].items():
      self.assertAlmostEqual(gates['cadb'][pair], value, places=8)
    self.assertGreater(np.ptp(list(gates['abcd'].values())), 1e-3)


class RecoveryTest(absltest.TestCase):
  def test_largest_gates_are_those_of_the_planted_triple(self):
    """Adam in place of GRDA."""
    data = planted.generate(
      num_rows=20_000,
      num_fields=5,
      num_pairs=0,
      num_triples=1,
      max_values=10,
      std=1.5,
    )
    settings = settings_lib.Settings(
      batch_size=1000, learning_rate=0.02, table_std=0.3, steps_per_dispatch=8
    )
    found = pipeline.run_search(
      spaces.fm(data.schema, dim=8, pairs='open', triples='open'),
      {'interactions': search.autofis(optax.adam(0.02), keep=0.1)},
      data,
      settings,
      num_steps=160,
    )
    pairs, triples = pipeline.derive(found).interactions
    self.assertLen(pairs.terms, 1)
    self.assertEqual(triples.terms, (tuple(data.truth['triples'][0]),))

  def test_finds_the_only_planted_pair(self):
    """The final threshold is the ratio asked for, times where gates start."""
    data = planted.generate(
      num_rows=20_000, num_fields=4, num_pairs=1, max_values=20
    )
    settings = settings_lib.Settings(
      batch_size=1000, learning_rate=0.02, table_std=0.1, steps_per_dispatch=8
    )
    ratio, steps = 4.0, 80
    c = optim.grda_c(
      ratio, interactions_lib.Products.gate_init, 1.0, 0.8, steps
    )
    found = pipeline.run_search(
      spaces.fm(data.schema, dim=8, pairs='open'),
      {'interactions': search.autofis(optim.grda(1.0, c, 0.8))},
      data,
      settings,
      num_steps=steps,
    )
    kept = pipeline.derive(found).interactions[0].terms
    self.assertEqual(kept, tuple(tuple(p) for p in data.truth['pairs']))
    self.assertAlmostEqual(
      float(found.state.arch_optimizer['interactions'].threshold),
      ratio * 0.6,
      places=4,
    )


class DeriveTest(parameterized.TestCase):
  @parameterized.parameters(True, False)
  def test_keeps_exactly_the_open_gates(self, keep_gates):
    space = spaces.fm(_schema(), dim=4, pairs='open', triples='open')
    gates = {
      'pairs': {'gate': np.array([0, 0.2, 0, -0.1, 0, 1e-30], np.float32)},
      'triples': {'gate': np.zeros(4, np.float32)},
    }
    selector = search.autofis(optim.grda(1.0, 0.1, 0.8), keep_gates=keep_gates)
    derived = selector.derive(gates, (), base.Context(space, None))
    (plan,) = derived.interactions
    terms = space.interactions[0].terms
    self.assertEqual(plan.terms, (terms[1], terms[3], terms[5]))
    # Nothing is left of the triples, not even their table.
    self.assertNotIn('order3', derived.views)
    params = model_lib.build(derived).init(
      jax.random.key(0), state_lib.example_batch(_schema())
    )['params']
    np.testing.assert_allclose(
      params['interactions']['pairs']['gate'],
      [0.2, -0.1, 1e-30] if keep_gates else [0.6] * 3,
      rtol=1e-6,
    )

  @parameterized.parameters((0.5, (1, 3, 5)), (0.01, (3,)), (1.0, range(6)))
  def test_largest_gates_are_kept(self, keep, kept):
    """Whatever their sign, of each order, and at least one."""
    space = spaces.fm(_schema(), dim=4, pairs='open', triples='open')
    gates = {
      'pairs': {'gate': np.array([0, 0.4, 0.1, -0.9, 0, 0.2], np.float32)},
      'triples': {'gate': np.array([0.1, 0.1, 0.7, 0], np.float32)},
    }
    selector = search.autofis(optax.adam(1e-2), keep=keep)
    derived = selector.derive(gates, (), base.Context(space, None))
    pairs, triples = derived.interactions
    terms = space.interactions[0].terms
    self.assertEqual(pairs.terms, tuple(terms[i] for i in kept))
    self.assertLen(triples.terms, max(1, round(4 * keep)))
    self.assertIn(space.interactions[1].terms[2], triples.terms)

  def test_share_to_keep(self):
    for keep in (0.0, 1.5, float('nan')):
      with self.assertRaisesRegex(errors.ConfigError, 'keep of AutoFIS'):
        search.autofis(optax.adam(1e-2), keep=keep)

  def test_closed_products_are_left_alone(self):
    space = spaces.fm(_schema(), dim=4, pairs='open', triples='all')
    pairs, triples = space.interactions
    gates = {'pairs': {'gate': np.array([0, 0, 0.3, 0, 0, 0], np.float32)}}
    selector = search.autofis(optim.grda(1.0, 0.1, 0.8))
    derived = selector.derive(gates, (), base.Context(space, None))
    closed = dataclasses.replace(pairs, terms=pairs.terms[2:3], gates='weights')
    self.assertEqual(derived.interactions, (closed, triples))

  def test_nothing_left_is_the_model_without_products(self):
    """LR for FM, LR and an MLP for DeepFM; and what to try is said."""
    gates = {'pairs': {'gate': np.zeros(6, np.float32)}}
    selector = search.autofis(optim.grda(1.0, 0.1, 0.8))
    for space, plain in (
      (spaces.fm(_schema(), dim=1, pairs='open'), spaces.lr(_schema())),
      (
        spaces.deepfm(_schema(), dim=4, pairs='open', hidden=(3,)),
        spaces.wide_deep(_schema(), dim=4, hidden=(3,)),
      ),
    ):
      with self.assertLogs(level='WARNING') as logs:
        found = selector.derive(gates, (), base.Context(space, None))
      self.assertEqual(found, plain)
      self.assertIn('closed all 6 gates', logs.output[0])


if __name__ == '__main__':
  absltest.main()
