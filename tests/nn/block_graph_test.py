"""Blocks against plain numpy; graphs against the models that they rebuild."""

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from jax_autorec import architecture as arch_lib
from jax_autorec import interactions, spaces
from jax_autorec import schema as schema_lib
from jax_autorec.interactions import Block
from jax_autorec.nn import block_graph
from jax_autorec.nn import model as model_lib
from jax_autorec.types import Batch

_DIM = 5
_CATEGORICAL = tuple(schema_lib.Field(n, vocab_size=9) for n in 'abcd')
_NUMERIC = tuple(schema_lib.Field(n, kind='numeric') for n in 'uvw')


def _random(tree, seed=0):
  """Entries away from the zeros and ones that things start with."""
  rng = np.random.default_rng(seed)
  draw = lambda x: rng.normal(0, 0.5, x.shape).astype(np.float32)
  return jax.tree.map(draw, tree)


def _inputs(vectors=3, flat=4, seed=1):
  rng = np.random.default_rng(seed)
  return (
    rng.normal(size=(6, vectors, _DIM)).astype(np.float32),
    rng.normal(size=(6, flat)).astype(np.float32),
  )


def _run(module, inputs):
  inputs = [jnp.asarray(x) for x in inputs]
  params = _random(module.init(jax.random.key(0), inputs).get('params', {}))
  found = module.apply({'params': params}, inputs)
  wide = jax.tree.map(lambda x: x.astype(np.float64), params)
  return np.asarray(found), wide


def _all_vectors(params, vectors, flat):
  own = params['project']
  projected = flat.astype(np.float64) @ own['kernel'] + own['bias']
  return np.concatenate([projected[:, None], vectors], 1)


class BlockTest(parameterized.TestCase):
  @parameterized.parameters(True, False)
  def test_dp_is_the_triangle_of_the_gram_matrix(self, with_flat):
    vectors, flat = _inputs()
    inputs = [vectors, flat] if with_flat else [vectors]
    found, params = _run(block_graph.DotProducts(_DIM), inputs)
    if with_flat:
      vectors = _all_vectors(params, vectors, flat)
    count = vectors.shape[1]
    gram = np.einsum('bid,bjd->bij', vectors, vectors)
    rows, columns = np.triu_indices(count)
    squares = rows == columns
    expected = np.concatenate(
      [gram[:, rows[~squares], columns[~squares]],
       gram[:, rows[squares], columns[squares]]], 1
    )  # fmt: skip
    self.assertEqual(found.shape, (6, count * (count + 1) // 2))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)

  def test_dp_of_one_vector_is_its_square(self):
    vectors, _ = _inputs(vectors=1)
    found, _ = _run(block_graph.DotProducts(_DIM), [vectors])
    np.testing.assert_allclose(found, (vectors**2).sum(-1), rtol=1e-5)

  def test_gradients_of_dp(self):
    """Squares weigh twice: the pairs' rule of differentiation must not see
    them."""
    vectors, _ = _inputs()
    module = block_graph.DotProducts(_DIM)
    weights = np.arange(1.0, 7.0, dtype=np.float32)

    def total(x):
      return (module.apply({}, [x]) * weights[None]).sum()

    def plain(x):
      gram = jnp.einsum('bid,bjd->bij', x, x)
      left, right = np.array([(0, 1), (0, 2), (1, 2), (0, 0), (1, 1), (2, 2)]).T
      return (gram[:, left, right] * weights[None]).sum()

    np.testing.assert_allclose(
      jax.grad(total)(vectors), jax.grad(plain)(vectors), rtol=1e-4, atol=1e-5
    )

  def test_fm_is_the_formula(self):
    vectors, flat = _inputs()
    found, params = _run(
      block_graph.FactorizationMachine(_DIM), [vectors, flat]
    )
    own = _all_vectors(params, vectors, flat)
    joined = np.concatenate([vectors.reshape(6, -1), flat], 1)
    expected = joined @ params['first_order']['kernel'][:, 0]
    for i in range(own.shape[1]):
      for j in range(i):
        expected = expected + (own[:, i] * own[:, j]).sum(-1)
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-4, atol=1e-4)

  def test_cross_and_hidden(self):
    vectors, flat = _inputs()
    x = np.concatenate([vectors.reshape(6, -1), flat], 1)
    found, params = _run(block_graph.Cross(), [vectors, flat])
    expected = x * (x @ params['scale']['kernel']) + params['bias'] + x
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    found, params = _run(block_graph.Hidden(7), [vectors, flat])
    own = params['Dense_0']
    expected = np.maximum(x @ own['kernel'] + own['bias'], 0)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)

  def test_attention(self):
    vectors, flat = _inputs()
    found, params = _run(block_graph.Attention(_DIM), [vectors, flat])
    own = _all_vectors(params, vectors, flat)
    query, key, value, residual = (
      own @ params[name]['kernel']
      for name in ('query', 'key', 'value', 'residual')
    )
    scores = np.exp(query @ key.swapaxes(1, 2) / np.sqrt(_DIM))
    shares = scores / scores.sum(-1, keepdims=True)
    expected = np.maximum(shares @ value + residual, 0)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def _batch(numeric):
  rng = np.random.default_rng(3)
  size = 7
  return Batch(
    ids=rng.integers(0, 9, (size, len(_CATEGORICAL))).astype(np.int32),
    numeric=rng.normal(size=(size, numeric)).astype(np.float32),
    missing=np.zeros((size, numeric), bool),
    labels=np.zeros(size, np.float32),
    weights=np.ones(size, np.float32),
    mask=np.ones(size, bool),
  )


def _model(fields, blocks, first_order=True):
  return arch_lib.Architecture(
    fields,
    (interactions.BlockGraph(blocks),),
    arch_lib.HeadPlan(first_order=first_order),
  )


def _apply(architecture, batch, params=None):
  """Logits, and the parameters that they are of."""
  model = model_lib.build(architecture)
  if params is None:
    params = _random(model.init(jax.random.key(0), batch)['params'])
  arrays = jax.tree.map(jnp.asarray, params)
  return model.apply({'params': arrays}, batch), params


def _column(*parts):
  return np.concatenate([np.reshape(x, (-1, 1)) for x in parts])


class GraphTest(parameterized.TestCase):
  def test_a_graph_is_a_factorization_machine(self):
    schema, batch = schema_lib.Schema(_CATEGORICAL), _batch(0)
    expected, own = _apply(spaces.fm(schema, dim=_DIM), batch)
    plan = _model(spaces.field_plans(schema, _DIM), [Block('fm', ['vectors'])])
    _, params = _apply(plan, batch)
    params['embeddings'] = own['embeddings']
    block = params['interactions']['blocks']['block_0']
    block['first_order']['kernel'] *= 0
    params['mlp']['output'] = {'kernel': np.ones((1, 1)), 'bias': own['bias']}
    found, _ = _apply(plan, batch, params)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)

  def test_a_graph_is_a_deepfm(self):
    schema, batch = schema_lib.Schema(_CATEGORICAL), _batch(0)
    base = spaces.deepfm(
      schema, dim=_DIM, hidden=(6, 4), norm='none', dropout=0.0
    )
    expected, own = _apply(base, batch)
    blocks = [
      Block('fm', ['vectors']),
      Block('mlp', ['vectors'], 6),
      Block('mlp', [1], 4),
    ]
    plan = _model(spaces.field_plans(schema, _DIM), blocks)
    _, params = _apply(plan, batch)
    params['embeddings'] = own['embeddings']
    graph = params['interactions']['blocks']
    graph['block_0']['first_order']['kernel'] *= 0
    graph['block_1']['Dense_0'] = own['mlp']['dense_0']
    graph['block_2']['Dense_0'] = own['mlp']['dense_1']
    output = own['mlp']['output']
    params['mlp']['output'] = {
      'kernel': _column(1.0, output['kernel']),
      'bias': output['bias'],
    }
    found, _ = _apply(plan, batch, params)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)

  def test_a_graph_is_dlrm(self):
    """Products of all pairs of the vectors and of what a layer makes of the
    numbers; both into another layer."""
    schema = schema_lib.Schema(_CATEGORICAL + _NUMERIC)
    batch = _batch(3)
    blocks = [
      Block('mlp', ['values'], _DIM),
      Block('dp', ['vectors', 0]),
      Block('mlp', [0, 1], 6),
    ]
    plan = _model(spaces.field_plans(schema, _DIM), blocks, first_order=False)
    _, params = _apply(plan, batch)
    graph = params['interactions']['blocks']
    graph['block_1']['project'] = {
      'kernel': np.eye(_DIM, dtype=np.float32),
      'bias': np.zeros(_DIM, np.float32),
    }
    pairs, kernel = 10, graph['block_2']['Dense_0']['kernel']
    kernel[_DIM + pairs :] = 0  # DLRM has no squares.
    found, _ = _apply(plan, batch, params)

    wide = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    graph = wide['interactions']['blocks']
    layer = lambda x, own: np.maximum(x @ own['kernel'] + own['bias'], 0)
    bottom = layer(batch.numeric, graph['block_0']['Dense_0'])
    (table,) = wide['embeddings'].values()
    rows = table[batch.ids + 9 * np.arange(4)]
    all_vectors = np.concatenate([bottom[:, None], rows], 1)
    products = [
      (all_vectors[:, i] * all_vectors[:, j]).sum(-1)
      for i in range(5)
      for j in range(i + 1, 5)
    ]
    own = graph['block_2']['Dense_0']
    own = {'kernel': own['kernel'][: _DIM + pairs], 'bias': own['bias']}
    top = layer(np.concatenate([bottom, np.stack(products, 1)], 1), own)
    output = wide['mlp']['output']
    expected = top @ output['kernel'][:, 0] + output['bias']
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)

  def test_what_no_block_reads_is_the_output(self):
    schema = schema_lib.Schema(_CATEGORICAL + _NUMERIC)
    fields = spaces.field_plans(schema, _DIM)
    for blocks, width, ends in (
      ([], 3 + 4 * _DIM, ('values', 'vectors')),
      ([Block('fm', ['values'])], 4 * _DIM + 1, ('vectors', 0)),
      ([Block('attention', ['vectors'])], 3 + 4 * _DIM, ('values', 0)),
    ):
      plan = _model(fields, blocks)
      _, params = _apply(plan, _batch(3))
      self.assertEqual(params['mlp']['output']['kernel'].shape, (width, 1))
      self.assertEqual(plan.interactions[0].ends(fields), ends)

  def test_numeric_fields_alone(self):
    fields = spaces.field_plans(schema_lib.Schema(_NUMERIC), _DIM)
    batch = _batch(3)._replace(ids=np.zeros((7, 0), np.int32))
    logits, params = _apply(_model(fields, [Block('dp', ['values'])]), batch)
    self.assertEqual(logits.shape, (7,))
    block = params['interactions']['blocks']['block_0']
    self.assertEqual(block['project']['kernel'].shape, (3, _DIM))


if __name__ == '__main__':
  absltest.main()
