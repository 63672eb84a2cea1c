"""Steps against plain dense autodiff with optax, in float64."""

import functools

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jax_autorec import quantization, spaces
from jax_autorec import schema as schema_lib
from jax_autorec.nn import lookups
from jax_autorec.nn import model as model_lib
from jax_autorec.train import parallel, settings, steps
from jax_autorec.train import state as state_lib
from jax_autorec.types import Batch

_ROWS = 12


def _schema(vocab=9):
  return schema_lib.Schema(
    (
      schema_lib.Field('user', vocab_size=vocab),
      schema_lib.Field('tags', vocab_size=7, max_length=2),
      schema_lib.Field('price', 'numeric'),
    )
  )


def _batch(seed=0, rows=_ROWS, live=9, vocab=9):
  """Rows of unequal weights; the last ones are padding full of garbage."""
  rng = np.random.default_rng(seed)
  ids = rng.integers(0, [min(vocab, 6), 7, 7], (rows, 3)).astype(np.int32)
  ids[:, 2] = np.where(rng.random(rows) < 0.5, -1, ids[:, 2])
  return Batch(
    ids=ids,
    numeric=rng.normal(size=(rows, 1)).astype(np.float32),
    missing=rng.random((rows, 1)) < 0.3,
    labels=(rng.random(rows) < 0.5).astype(np.float32),
    weights=rng.uniform(0.2, 3, rows).astype(np.float32),
    mask=np.arange(rows) < live,
  )


def _setup(architecture, **options):
  train = settings.Settings(
    batch_size=_ROWS, table_std=0.5, learning_rate=0.05, **options
  )
  model = model_lib.build(architecture)
  optimizer = settings.make_optimizer(train, architecture)
  state, _ = state_lib.init(
    model, optimizer, _batch(), jax.random.key(0), train.table_std
  )
  return train, model, optimizer, state


@functools.cache
def _deepfm():
  """A model with BatchNorm, dropout and gates, and its compiled step."""
  architecture = spaces.deepfm(_schema(), dim=3, hidden=(5,), pairs='all')
  _, model, optimizer, state = _setup(architecture, embedding_l2=0.1)
  return model, state, jax.jit(steps.make_train_step(model, optimizer))


def _in_float64(tree):
  widen = lambda x: (
    x.astype(jnp.float64) if jnp.issubdtype(x.dtype, jnp.floating) else x
  )
  return jax.tree.map(widen, tree)


def _mean_loss(model, params, tables, stats, batch):
  """Weighted mean log loss of live rows, with whole tables as parameters."""
  tables_and_rest = {
    **params,
    'embeddings': {**params.get('embeddings', {}), **tables},
  }
  logits = model.apply(
    {'params': tables_and_rest, 'batch_stats': stats},
    batch,
    train=True,
    mutable=['batch_stats'],
  )[0]
  weights = batch.weights * batch.mask
  losses = jnp.logaddexp(0, logits) - batch.labels * logits
  return (weights * losses).sum() / weights.sum()


def _clipped(grads, bound):
  norm = jnp.sqrt(sum((g**2).sum() for g in jax.tree.leaves(grads)))
  return jax.tree.map(lambda g: g * jnp.minimum(1, bound / norm), grads), norm


def _touched(architecture, batch):
  """Table name -> bool [R, 1], rows that live rows of the batch look up."""
  touched = {}
  for table in architecture.tables:
    ids = np.asarray(lookups.flatten_ids(architecture, batch)[table.space])
    touched[table.name] = np.isin(np.arange(table.num_rows), ids)[:, None]
  return touched


class TrainStepTest(parameterized.TestCase):
  def test_bars_protocol_is_plain_adam_on_loss_and_l2(self):
    """Whole tables decay, padding weighs nothing, all gradients are clipped."""
    # Without BatchNorm: Adam blows up the rounding noise of offsets before it.
    architecture = spaces.deepfm(
      _schema(), dim=3, hidden=(5,), norm='none', dropout=0.0
    )
    rates = {'main_dim_3': 0.3, 'first_order': 0.1}
    clip_norm, norms = 1.2, []
    with jax.enable_x64(True):
      _, model, optimizer, state = _setup(
        architecture,
        table_optimizer='dense_adam',
        embedding_l2=0.3,
        first_order_l2=0.1,
        l2=0.2,
        clip_norm=clip_norm,
      )
      state = _in_float64(state)
      step = jax.jit(steps.make_train_step(model, optimizer))

      def objective(weights, batch):
        params, tables = weights
        loss = _mean_loss(model, params, tables, state.batch_stats, batch)
        decay = sum(
          (0.05 if name.startswith('first_order') else 0.15) * (x**2).sum()
          for name, x in params['embeddings'].items()
        )
        decay += 0.1 * optax.tree.norm(params['mlp'], squared=True)
        for name, table in tables.items():
          decay += 0.5 * rates[name] * (table**2).sum()
        return loss + decay, loss

      expected = (state.params, state.tables)
      adam = optax.adam(0.05)
      adam_state = adam.init(expected)

      @jax.jit
      def oracle(weights, adam_state, batch):
        (_, loss), grads = jax.value_and_grad(objective, has_aux=True)(
          weights, batch
        )
        grads, norm = _clipped(grads, clip_norm)
        updates, adam_state = adam.update(grads, adam_state)
        return optax.apply_updates(weights, updates), adam_state, loss, norm

      for i in range(4):
        batch = _in_float64(jax.tree.map(jnp.asarray, _batch(seed=i)))
        expected, adam_state, loss, norm = oracle(expected, adam_state, batch)
        state, metrics = step(state, batch)
        np.testing.assert_allclose(metrics['loss'], loss, rtol=1e-12)
        np.testing.assert_allclose(metrics['grad_norm'], norm, rtol=1e-10)
        norms.append(float(norm))
    self.assertBetween(clip_norm, min(norms), max(norms))
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-10),
      (state.params, state.tables),
      expected,
    )
    self.assertEqual(state.step, 4)

  @parameterized.parameters('sgd', 'adagrad')
  def test_sparse_rules_follow_the_dense_gradient_on_touched_rows(self, rule):
    architecture = spaces.fm(_schema(), dim=3)
    # Rates that float32 holds exactly.
    l2, clip_norm, rate, scale = 0.3, 0.05, 0.25, 0.5
    with jax.enable_x64(True):
      _, model, optimizer, state = _setup(
        architecture,
        table_optimizer=rule,
        table_learning_rate=rate,
        embedding_l2=l2,
        clip_norm=clip_norm,
      )
      state = _in_float64(state)
      state = state.replace(learning_rate_scale=jnp.float32(scale))
      step = jax.jit(steps.make_train_step(model, optimizer))
      expected = jax.tree.map(np.array, state.tables)
      gradient = jax.jit(
        jax.grad(functools.partial(_mean_loss, model), argnums=(0, 1))
      )
      squares = jax.tree.map(
        lambda t: np.full(t.shape, float(np.float32(0.1))), expected
      )
      for i in range(3):
        batch = _in_float64(jax.tree.map(jnp.asarray, _batch(seed=i)))
        grads = gradient(state.params, state.tables, {}, batch)
        # The numeric field's vectors decay with the embeddings.
        dense = {
          **grads[0],
          'embeddings': jax.tree.map(
            lambda g, p: g + l2 * p,
            grads[0]['embeddings'],
            state.params['embeddings'],
          ),
        }
        (_, tables), norm = _clipped((dense, grads[1]), clip_norm)
        self.assertGreater(norm, clip_norm)
        for name, rows in _touched(architecture, batch).items():
          grad = np.where(rows, tables[name] + l2 * expected[name], 0)
          if rule == 'adagrad':
            squares[name] += grad**2
            grad = grad / np.sqrt(squares[name] + 1e-7)
          expected[name] = expected[name] - scale * rate * grad
        state, _ = step(state, batch)
        for name, table in expected.items():
          np.testing.assert_allclose(
            state.tables[name], table, rtol=1e-9, atol=1e-11
          )

  def test_padded_rows_change_nothing_at_all(self):
    _, state, step = _deepfm()
    batch, other = _batch(), _batch(seed=7)
    garbage = jax.tree.map(
      lambda x, y: np.concatenate([x[:9], y[9:]]), batch, other
    )
    self.assertFalse(np.array_equal(garbage.ids, batch.ids))
    states = [step(state, b) for b in (batch, garbage)]
    for a, b in zip(*map(jax.tree.leaves, states)):
      np.testing.assert_array_equal(_bits(a), _bits(b))

  def test_padded_rows_may_hold_anything(self):
    _, state, step = _deepfm()
    batch = _batch()
    garbage = batch._replace(
      numeric=np.where(batch.mask[:, None], batch.numeric, np.nan),
      weights=np.where(batch.mask, batch.weights, np.inf),
    )
    states = [step(state, b) for b in (batch, garbage)]
    for a, b in zip(*map(jax.tree.leaves, states)):
      np.testing.assert_array_equal(_bits(a), _bits(b))

  def test_a_batch_of_padding_alone_is_harmless(self):
    _, state, step = _deepfm()
    state, _ = step(state, _batch())
    after, metrics = step(state, _batch(live=0))
    self.assertEqual(metrics['loss'], 0)
    jax.tree.map(
      np.testing.assert_array_equal, after.batch_stats, state.batch_stats
    )
    for name, table in state.tables.items():
      np.testing.assert_array_equal(after.tables[name], table)
    for leaf in jax.tree.leaves(after.params):
      self.assertTrue(np.isfinite(leaf).all())

  def test_weights_count_as_repetitions(self):
    """A row of weight 2 trains like the row given twice."""
    architecture = spaces.fm(_schema(), dim=3)
    _, model, optimizer, state = _setup(architecture, table_optimizer='sgd')
    step = jax.jit(steps.make_train_step(model, optimizer))
    batch = _batch()._replace(weights=np.ones(_ROWS, np.float32))
    twice = jax.tree.map(lambda x: np.concatenate([x[:9], x[:3]]), batch)
    heavy = batch._replace(
      weights=np.where(np.arange(_ROWS) < 3, 2, 1).astype(np.float32)
    )
    (a, first), (b, second) = step(state, twice), step(state, heavy)
    np.testing.assert_allclose(first['loss'], second['loss'], rtol=1e-6)
    for x, y in zip(*map(jax.tree.leaves, (a.tables, b.tables))):
      np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-7)


def _bits(x):
  if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
    return np.asarray(jax.random.key_data(x))
  return np.asarray(x)


class AddedLossTest(absltest.TestCase):
  def test_modules_add_to_the_gradient_and_not_to_the_loss(self):
    """Values of VQ follow their queries, of live rows whatever their weight."""
    plain = spaces.fm(_schema(), dim=4)
    architecture = quantization.quantize(
      plain, 'vq', 1, [(1.0, 2)], fields=('user', 'tags')
    )
    _, model, optimizer, state = _setup(
      architecture, table_optimizer='sgd', embedding_l2=0.5
    )
    optimizer = optimizer._replace(dense=optax.sgd(1.0), clip_norm=None)
    state = state.replace(dense_optimizer=optimizer.dense.init(state.params))
    step = jax.jit(steps.make_train_step(model, optimizer))
    ((stack, _),) = architecture.codebooks.items()
    values = np.asarray(state.params['embeddings'][stack]['values'])
    batches = [_batch(), _batch()._replace(weights=np.ones(_ROWS, np.float32))]
    after = [step(state, batch) for batch in batches]
    moved = [
      np.asarray(new.params['embeddings'][stack]['values']) - values
      for new, _ in after
    ]
    np.testing.assert_array_equal(*moved)
    table = np.asarray(state.tables[f'main_queries_{stack}'], np.float64)
    ids = np.where(_batch().mask[:, None], _batch().ids, -1)
    offsets, expected = (0, 9), np.zeros_like(values)
    for field, columns in enumerate(([0], [1, 2])):
      own = ids[:, columns]
      queries = table[own[own >= 0] + offsets[field]]
      books = values[field, 0].astype(np.float64)
      scores = -np.square(queries[:, None] - books[None]).sum(-1)
      scores = (scores - scores.mean(0)) / scores.std(0)
      codes = scores.argmax(1)
      for k in range(2):
        gaps = (queries - books[k])[codes == k]
        expected[field, 0, k] = 2 * gaps.sum(0) / queries.size
    # Decay is for what they follow.
    np.testing.assert_allclose(moved[0], expected, rtol=1e-4, atol=1e-6)
    logits = model.apply(
      {
        'params': {
          'embeddings': {**state.params['embeddings'], **state.tables},
          'bias': state.params['bias'],
        },
        'batch_stats': state.batch_stats,
      },
      batches[1],
      train=True,
      mutable=['batch_stats'],
    )[0][:9]
    losses = np.logaddexp(0, logits) - batches[1].labels[:9] * logits
    np.testing.assert_allclose(after[1][1]['loss'], losses.mean(), rtol=1e-5)


class CostTest(parameterized.TestCase):
  def _compiled(self, vocab, table_optimizer, kind=None):
    architecture = spaces.fm(_schema(vocab), dim=4)
    if kind:
      tiers = [(0.1, 8), (0.9, 4)]
      architecture = quantization.quantize(architecture, kind, 2, tiers)
    train = settings.Settings(batch_size=_ROWS, table_optimizer=table_optimizer)
    model = model_lib.build(architecture)
    optimizer = settings.make_optimizer(train, architecture)
    state = jax.eval_shape(
      lambda: state_lib.init(model, optimizer, _batch(), jax.random.key(0))[0]
    )
    program = parallel.compile_steps(steps.make_train_step(model, optimizer))
    batches = jax.tree.map(lambda x: x[None], _batch())
    return program.run.lower(state, batches).compile()

  @parameterized.parameters(
    ('adam',), ('rowwise_adagrad',), ('adam', 'vq'), ('adam', 'sx')
  )
  def test_does_not_grow_with_the_vocabulary(self, table_optimizer, kind=None):
    """Neither scratch memory nor work, nor a copy of what is donated.

    Of quantised fields nothing is done to the queries beyond the batch's.
    """
    small, large = (
      self._compiled(vocab, table_optimizer, kind) for vocab in (1000, 100_000)
    )
    memory = [c.memory_analysis() for c in (small, large)]
    self.assertEqual(*(m.temp_size_in_bytes for m in memory))
    for m in memory:
      # All but a little of the state is updated where it lies.
      fresh = m.output_size_in_bytes - m.alias_size_in_bytes
      self.assertLess(fresh, 1000)
    flops = [c.cost_analysis()['flops'] for c in (small, large)]
    self.assertLess(flops[1], 1.01 * flops[0])
    text, sizes = large.as_text(), (100_000, 100_000 + 7)
    copies = [
      line
      for line in text.splitlines()
      if ' copy(' in line
      and any(f'[{rows},' in line.split(' copy(')[0] for rows in sizes)
    ]
    self.assertEmpty(copies)

  def test_of_whole_table_updates_does(self):
    """So the measures above can tell."""
    small, large = (
      self._compiled(vocab, 'dense_adam') for vocab in (1000, 100_000)
    )
    flops = [c.cost_analysis()['flops'] for c in (small, large)]
    self.assertGreater(flops[1], 20 * flops[0])
    temp = [c.memory_analysis().temp_size_in_bytes for c in (small, large)]
    self.assertGreater(temp[1], 20 * temp[0])


class PredictTest(absltest.TestCase):
  def test_is_the_model_in_evaluation_mode(self):
    model, state, step = _deepfm()
    for i in range(3):
      state, _ = step(state, _batch(i))
    predict = jax.jit(steps.make_predict(model))
    run = functools.partial(
      predict, state.params, state.tables, state.batch_stats
    )
    params = dict(state.params)
    params['embeddings'] = {**params['embeddings'], **state.tables}
    expected = model.apply(
      {'params': params, 'batch_stats': state.batch_stats}, _batch(9)
    )
    np.testing.assert_allclose(run(_batch(9)), expected, rtol=2e-5, atol=1e-6)
    # A row's logit does not depend on its neighbours.
    alone = jax.tree.map(lambda x: x[2:4], _batch(9))
    np.testing.assert_allclose(run(alone), expected[2:4], rtol=2e-5, atol=1e-6)


if __name__ == '__main__':
  absltest.main()
