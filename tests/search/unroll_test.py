"""Exact second order through dense weights and gathered rows."""

import dataclasses

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jax_autorec import field_spaces, search, spaces
from jax_autorec import schema as schema_lib
from jax_autorec.nn import lookups
from jax_autorec.nn import model as model_lib
from jax_autorec.search import base, supernet, unroll
from jax_autorec.train import parallel
from jax_autorec.train import settings as settings_lib
from jax_autorec.train import state as state_lib

_SCHEMA = schema_lib.Schema(
  (
    schema_lib.Field('user', vocab_size=9),
    schema_lib.Field('tags', vocab_size=7, max_length=2),
    schema_lib.Field('price', 'numeric'),
  )
)
_RATE = 0.7
_ROWS = 16


def _batch(seed, lead=()):
  """Ids repeat, within a batch and between batches; two rows are padding."""
  rng = np.random.default_rng(seed)
  shape = (*lead, _ROWS)
  batch = state_lib.example_batch(_SCHEMA, _ROWS)
  ids = np.stack([rng.integers(0, n, shape) for n in (9, 7, 7)], -1)
  ids[..., 2] = np.where(rng.random(shape) < 0.3, -1, ids[..., 2])
  return batch._replace(
    ids=ids.astype(np.int32),
    numeric=rng.normal(size=(*shape, 1)).astype(np.float32),
    missing=np.zeros((*shape, 1), bool),
    labels=(rng.random(shape) < 0.4).astype(np.float32),
    weights=rng.uniform(0.5, 2, shape).astype(np.float32),
    mask=np.broadcast_to(np.arange(_ROWS) < _ROWS - 2, shape),
  )


def _plain_selector(inner, tx=None):
  """Logits of widths without noise, so that an oracle can follow."""

  def sample(arch, memory, batch, phase, step, key):
    del memory, batch, phase, step, key
    return base.Draw(choice={'weights': jax.nn.softmax(arch['logits'])})

  selector = search.autodim(tx or optax.sgd(1.0), 10)
  selector = selector._replace(
    sample=sample, schedule=base.EVERY_STEP, **_inner(inner)
  )

  def init(choice, key, train):
    arch, memory = search.autodim(optax.sgd(1.0), 10).init(choice, key, train)
    start = jnp.array([[0.3, -0.2], [-0.5, 0.4]])
    return jax.tree.map(lambda x: x + start, arch), memory

  return selector._replace(init=init)


def _inner(inner):
  """A selector's attributes of it."""
  implicit = isinstance(inner, unroll.Implicit)
  return {'implicit' if implicit else 'inner_rate': inner}


def _setup(inner, table_optimizer='sgd', mode='none', selector=None):
  plain = spaces.deepfm(_SCHEMA, dim=4, hidden=(5,), dropout=0.0)
  space = field_spaces.open_dims(plain, (2, 4))
  options = settings_lib.Settings(
    table_optimizer=table_optimizer, learning_rate=0.01, batch_size=_ROWS
  )
  model = model_lib.build(space, axis_name=parallel.axis_name(mode))
  optimizer = settings_lib.make_optimizer(options, space)
  selectors = {'fields': selector or _plain_selector(inner)}
  state = supernet.init(
    model,
    optimizer,
    selectors,
    state_lib.example_batch(_SCHEMA),
    jax.random.key(0),
    0.5,
  )
  return state, supernet.make_step(model, optimizer, selectors), model


def _whole(model, state):
  """All weights, whole tables too, and their loss, without this library."""
  single = model.clone(axis_name=None)
  weights = {
    'params': state.train.params,
    'tables': state.train.tables,
  }

  def loss(weights, logits, batch):
    params = dict(weights['params'])
    inner = params.get(model_lib.EMBEDDINGS, {})
    params[model_lib.EMBEDDINGS] = {**inner, **weights['tables']}
    out, _ = single.apply(
      {
        'params': params,
        'batch_stats': state.train.batch_stats,
        'arch': {'fields': {'weights': jax.nn.softmax(logits)}},
      },
      batch,
      train=True,
      mutable=['batch_stats'],
      rngs={'dropout': jax.random.key(0)},
    )
    each = optax.sigmoid_binary_cross_entropy(out, batch.labels)
    live = batch.weights * batch.mask
    return jnp.sum(live * each) / live.sum()

  return weights, loss


def _oracle(model, state, train_batch, valid_batch, rate):
  """The gradient through one step of whole tables, by plain autodiff."""
  weights, loss = _whole(model, state)

  def unrolled(logits):
    grads = jax.grad(loss)(weights, logits, train_batch)
    moved = jax.tree.map(lambda w, g: w - rate * g, weights, grads)
    return loss(moved, logits, valid_batch)

  return jax.jit(jax.grad(unrolled))(state.arch['fields']['logits'])


def _implicit_oracle(model, state, train_batch, valid_batch, damping):
  """The implicit gradient of whole tables, by a Hessian that is written out.

  Also the damped Hessian's eigenvalues.
  """
  tree, loss = _whole(model, state)
  weights, unravel = jax.flatten_util.ravel_pytree(tree)
  flat = lambda weights, *rest: loss(unravel(weights), *rest)
  logits = state.arch['fields']['logits']

  @jax.jit
  def parts(weights, logits):
    vector, by_arch = jax.grad(flat, (0, 1))(weights, logits, valid_batch)
    hessian = jax.hessian(flat)(weights, logits, train_batch)
    mixed = jax.jacfwd(jax.grad(flat, 1))(weights, logits, train_batch)
    return vector, by_arch, hessian, mixed

  vector, by_arch, hessian, mixed = jax.tree.map(
    lambda x: np.asarray(x, np.float64), parts(weights, logits)
  )
  damped = hessian + damping * np.eye(len(weights))
  return (
    by_arch - mixed @ np.linalg.solve(damped, vector),
    np.linalg.eigvalsh(damped),
  )


class QuadraticTest(parameterized.TestCase):
  @parameterized.parameters(
    {'inner': inner}
    for inner in (
      0.0,
      0.3,
      unroll.Implicit(iterations=6, damping=1e-9),
      unroll.Implicit(iterations=6, damping=0.4),
      unroll.Implicit('neumann', 200, damping=0.4, rate=0.3),
      unroll.Implicit('neumann', 1, rate=0.3),
    )
  )
  def test_equals_the_closed_form(self, inner):
    """L_train = |w - A a|^2 / 2, L_valid = |w' - t - D a|^2 / 2.

    Of dense weights and of rows, for which D is 0. Every look-up of a row
    counts. So a row that n look-ups of the train batch share has
    w' = w - xi n (w - C a), and dL_valid/da is (xi A - D)'(w' - t - D a) of
    the dense weights, of which D is the first order, and xi C' sum n (w' - t)
    over the rows that the validation batch looks up, once for each of its
    look-ups. Implicit ones take w for w', and the inverses of 1 + damping and
    n + damping for xi: without damping A' (w - t) for D = 0, at w = A a that of
    the solved problem.
    """
    rng = np.random.default_rng(0)
    names, dim, size = 'abcde', 3, 2
    schema = schema_lib.Schema((schema_lib.Field('id', vocab_size=5),))
    plain = spaces.fm(schema, dim=dim)
    plain = dataclasses.replace(
      plain, head=dataclasses.replace(plain.head, first_order=False)
    )
    model = model_lib.build(plain)
    settings = settings_lib.Settings(table_optimizer='sgd', batch_size=8)
    optimizer = settings_lib.make_optimizer(settings, plain)
    example = state_lib.example_batch(schema, 8)
    train_ids = np.array([0, 0, 0, 1, 2, 2, 4, 4])
    valid_ids = np.array([0, 1, 1, 3, 3, 3, 4, 2])
    table = rng.normal(size=(len(names), dim))
    weights, offset = rng.normal(size=4), rng.normal(size=4)
    by_arch, rows_by_arch = rng.normal(size=(4, size)), rng.normal(size=(3, 2))
    arch, row_offset = rng.normal(size=size), rng.normal(size=dim)
    direct = rng.normal(size=(4, size))
    with jax.enable_x64(True):
      train, _ = state_lib.init(model, optimizer, example, jax.random.key(0))
      train = train.replace(
        params={'w': jnp.array(weights)},
        tables={'main_dim_3': jnp.array(table)},
      )
      batch = lambda ids: example._replace(ids=ids[:, None].astype(np.int32))
      look_up = lambda ids: {'main_dim_3': jnp.array(table)[ids][:, None]}

      def train_loss(params, rows, arch):
        dense = params['w'] - by_arch @ arch
        own = rows['main_dim_3'] - (rows_by_arch @ arch)[None, None]
        return 0.5 * (dense @ dense) + 0.5 * jnp.sum(own**2)

      def valid_grads(params, rows):
        def loss(arch, params, rows):
          dense = params['w'] - offset - direct @ arch
          own = rows['main_dim_3'] - row_offset[None, None]
          return 0.5 * (dense @ dense) + 0.5 * jnp.sum(own**2)

        return jax.grad(loss, (0, 1, 2))(jnp.array(arch), params, rows), ()

      rows = look_up(train_ids)
      dense_grads, row_grads = jax.grad(train_loss, (0, 1))(
        train.params, rows, jnp.array(arch)
      )
      flat_ids = lookups.flatten_ids(plain, batch(train_ids))
      _, joined = unroll.join(
        model, train, flat_ids, row_grads, batch(valid_ids)
      )
      grads, minus, _ = unroll.gradient(
        model,
        inner,
        joined,
        train,
        rows,
        dense_grads,
        train_loss,
        look_up(valid_ids),
        valid_grads,
        jnp.array(arch),
      )
    got = np.asarray(grads) - np.asarray(minus)
    counts = np.bincount(train_ids, minlength=len(names))
    if isinstance(inner, unroll.Implicit):
      step, rate, row_rates = 0.0, inner.rate, np.full(len(names), inner.rate)
      if inner.iterations > 1:
        rate, row_rates = 1 / (1 + inner.damping), 1 / (counts + inner.damping)
    else:
      step, rate, row_rates = inner, inner, np.full(len(names), inner)
    moved = weights - step * (weights - by_arch @ arch)
    expected = (rate * by_arch - direct).T @ (moved - offset - direct @ arch)
    target = rows_by_arch @ arch
    moved_table = table - step * counts[:, None] * (table - target)
    for valid_id in valid_ids:
      pull = row_rates[valid_id] * (moved_table[valid_id] - row_offset)
      expected += counts[valid_id] * rows_by_arch.T @ pull
    np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-12)


class ConjugateTest(parameterized.TestCase):
  def _solve(self, matrix, vector, **options):
    inner = unroll.Implicit('cg', **{'iterations': 9, 'rate': 0.3, **options})
    with jax.enable_x64(True):
      matrix, vector = jnp.asarray(matrix), jnp.asarray(vector)
      return np.asarray(
        unroll.SOLVERS['cg'](lambda v: matrix @ v, vector, inner)
      )

  def test_a_positive_matrix_is_solved(self):
    rng = np.random.default_rng(0)
    root = rng.normal(size=(6, 6))
    matrix, vector = root @ root.T + np.eye(6), rng.normal(size=6)
    expected = np.linalg.solve(matrix, vector)
    np.testing.assert_allclose(
      self._solve(matrix, vector), expected, rtol=1e-4, atol=1e-5
    )

  def test_it_ends_where_curvature_does(self):
    """Up to there it is the minimum over the directions seen so far."""
    matrix, vector = np.diag([4.0, 1.0, -6.0]), np.array([3.0, 2.0, 1.0])
    step = vector @ vector / (vector @ matrix @ vector)
    residual = vector - step * matrix @ vector
    way = residual + residual @ residual / (vector @ vector) * vector
    self.assertLess(way @ matrix @ way, 0)
    np.testing.assert_allclose(
      self._solve(matrix, vector), step * vector, rtol=1e-12
    )

  def test_at_once_it_is_one_unrolled_step(self):
    matrix, vector = np.diag([-4.0, 1.0]), np.array([3.0, 2.0])
    np.testing.assert_allclose(
      self._solve(matrix, vector), 0.3 * vector, rtol=1e-12
    )
    np.testing.assert_array_equal(self._solve(matrix, 0 * vector), 0)


class UnrollTest(parameterized.TestCase):
  @parameterized.parameters('sgd', 'adam', 'dense_adam')
  def test_equals_the_gradient_through_whole_tables(self, table_optimizer):
    state, step, model = _setup(_RATE, table_optimizer)
    train_batch, valid_batch = _batch(1), _batch(2)
    expected = _oracle(model, state, train_batch, valid_batch, _RATE)
    first_order = _oracle(model, state, train_batch, valid_batch, 0.0)
    before = state.arch['fields']['logits']
    new, _ = jax.jit(step)(state, (train_batch, valid_batch))
    got = before - new.arch['fields']['logits']
    np.testing.assert_allclose(got, expected, rtol=2e-3, atol=1e-6)
    # The second order is no small correction here.
    self.assertGreater(np.abs(expected - first_order).max(), 1e-3)

  @parameterized.parameters('cg', 'neumann')
  def test_implicit_equals_a_solve_with_the_whole_hessian(self, solver):
    # The model's own curvature is between -56 and 38.
    damping = 70.0
    inner = unroll.Implicit(solver, 100, damping, 0.015)
    state, step, model = _setup(inner, 'adam')
    batches = _batch(1), _batch(2)
    expected, eigenvalues = _implicit_oracle(model, state, *batches, damping)
    # Else the solvers would have nothing to find.
    self.assertGreater(eigenvalues.min(), 0)
    self.assertLess(eigenvalues.max() * inner.rate, 2)
    self.assertGreater(eigenvalues.max(), 1.1 * damping)
    new, _ = jax.jit(step)(state, batches)
    got = state.arch['fields']['logits'] - new.arch['fields']['logits']
    np.testing.assert_allclose(got, expected, rtol=2e-3, atol=1e-6)
    first_order = _oracle(model, state, *batches, 0.0)
    self.assertGreater(np.abs(expected - first_order).max(), 1e-3)

  @parameterized.parameters(0.0, None)
  def test_first_order_takes_weights_as_they_are(self, rate):
    state, step, model = _setup(rate)
    train_batch, valid_batch = _batch(1), _batch(2)
    expected = _oracle(model, state, train_batch, valid_batch, 0.0)
    new, _ = jax.jit(step)(state, (train_batch, valid_batch))
    got = state.arch['fields']['logits'] - new.arch['fields']['logits']
    np.testing.assert_allclose(got, expected, rtol=2e-3, atol=1e-6)
    self.assertGreater(np.abs(expected).max(), 1e-3)

  def test_weights_and_statistics_move_as_without_a_search(self):
    """The inner step is a thought: only its gradient remains."""
    train_batch = _batch(1)
    results = []
    for seed in (2, 3):
      state, step, _ = _setup(_RATE)
      new, _ = jax.jit(step)(state, (train_batch, _batch(seed)))
      results.append(
        (new.train.params, new.train.tables, new.train.batch_stats)
      )
    jax.tree.map(np.testing.assert_array_equal, *results)

  @parameterized.parameters(
    {'mode': 'jit', 'inner': None},
    {'mode': 'jit', 'inner': _RATE},
    {'mode': 'pmap', 'inner': _RATE},
    {
      'mode': 'pmap',
      'inner': unroll.Implicit(iterations=4, damping=1.0),
    },
  )
  def test_eight_devices_agree_with_one(self, mode, inner):
    """AutoDim's own draws, many of which a batch sees."""
    batches = _batch(1, (3,)), _batch(2, (3,))
    selector = search.autodim(optax.sgd(1.0), 10, period=1, floor=0.5)._replace(
      **_inner(inner)
    )
    runs = []
    for run_mode in ('none', mode):
      state, step, _ = _setup(inner, 'sgd', run_mode, selector)
      program = parallel.compile_steps(step, run_mode)
      state, _ = program.run(program.place(state), batches)
      state = program.fetch(state)
      runs.append((state.arch, state.train.tables))
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-5),
      *runs,
    )


if __name__ == '__main__':
  absltest.main()
