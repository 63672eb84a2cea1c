"""Embeddings against plain loops over rows and fields."""

import dataclasses
import re

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from jax_autorec import fields as fields_lib
from jax_autorec import interactions as plans
from jax_autorec import numeric, sizes, spaces
from jax_autorec import schema as schema_lib
from jax_autorec.nn import embeddings, lookups
from jax_autorec.nn import model as model_lib
from jax_autorec.train import settings as settings_lib
from jax_autorec.train import state as state_lib

_SCHEMA = schema_lib.Schema(
  (
    schema_lib.Field('user', vocab_size=9),
    schema_lib.Field('price', 'numeric'),
    schema_lib.Field('tags', vocab_size=7, max_length=3),
    schema_lib.Field('item', vocab_size=5),
    schema_lib.Field('age', 'numeric'),
  )
)
_ROWS = 8


def _batch(seed=0):
  """Every tags cell has 0 to 3 values; every third numeric cell is missing."""
  rng = np.random.default_rng(seed)
  batch = state_lib.example_batch(_SCHEMA, _ROWS)
  ids = np.stack(
    [rng.integers(0, size, _ROWS) for size in (9, 7, 7, 7, 5)], 1
  ).astype(np.int32)
  lengths = np.arange(_ROWS)[:, None] % 4
  ids[:, 1:4] = np.where(np.arange(3) < lengths, ids[:, 1:4], -1)
  missing = np.arange(2 * _ROWS).reshape(_ROWS, 2) % 3 == 0
  numeric = np.where(missing, 0, rng.normal(size=missing.shape))
  return batch._replace(
    ids=ids, numeric=numeric.astype(np.float32), missing=missing
  )


def _architecture(dims=(4,) * 5, projection='linear', pooling='mean'):
  """Reads all views: 'main', 'order3' and 'first_order'."""
  space = spaces.fm(_SCHEMA, dim=4, pooling=pooling, triples='all')
  dims = dict(zip(('user', 'tags', 'item', 'price', 'age'), dims))
  fields = tuple(
    dataclasses.replace(plan, dim=dims[plan.name]) for plan in space.fields
  )
  return dataclasses.replace(space, fields=fields, projection=projection)


def _random(tree, seed=1):
  rng = np.random.default_rng(seed)
  return jax.tree.map(
    lambda x: jnp.asarray(rng.normal(size=x.shape), jnp.float32), tree
  )


def _loops(architecture, params, batch, view):
  """[B, F, D] in float64."""
  params = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
  first_order = view == 'first_order'
  dim = 1 if first_order else architecture.dim
  out = np.zeros((_ROWS, len(architecture.fields), dim))

  def put(field, row, vector, projections, place):
    if len(vector) < dim and architecture.projection == 'linear':
      vector = vector @ params[f'{projections}_projection'][place]
    out[row, architecture.field_index[field], : len(vector)] = vector

  columns = {'user': [0], 'tags': [1, 2, 3], 'item': [4]}
  starts, places = {}, {}
  for plan in architecture.categorical:
    width = 1 if first_order else plan.dim
    table = view if first_order else f'{view}_dim_{width}'
    start = starts.get(table, 0)
    for row in range(_ROWS):
      ids = [i for i in batch.ids[row, columns[plan.name]] if i >= 0]
      vector = sum(
        (params[table][start + i] for i in ids), start=np.zeros(width)
      )
      if plan.pooling == 'mean' and ids:
        vector = vector / len(ids)
      put(plan.name, row, vector, table, places.get(table, 0))
    starts[table] = start + plan.vocab_size
    places[table] = places.get(table, 0) + 1
  for column, plan in enumerate(architecture.numeric):
    name = f'{view}_numeric_dim_{1 if first_order else plan.dim}'
    place = places.get(name, 0)
    for row in range(_ROWS):
      vector = params[name][place] * batch.numeric[row, column]
      if batch.missing[row, column]:
        vector = params[f'{name}_missing'][place]
      put(plan.name, row, vector, name, place)
    places[name] = place + 1
  return out


class ScaleTest(absltest.TestCase):
  def test_vectors_of_numbers_start_as_those_of_ids(self):
    """Of every embedding, and the weights of the first order."""
    schema = schema_lib.Schema(
      tuple(
        schema_lib.Field(f'{name}{i}', 'numeric')
        for name in ('plain', 'field', 'autodis')
        for i in range(30)
      )
      + (schema_lib.Field('id', vocab_size=99),)
    )
    kinds = {
      'field': numeric.FieldEmbedding(),
      'autodis': numeric.AutoDis(buckets=4, use_bias=False),
    }
    given = {
      f'{name}{i}': kind for name, kind in kinds.items() for i in range(30)
    }
    space = spaces.fm(schema, dim=8, numeric=given)
    quantiles = np.linspace(-1, 1, 5, dtype=np.float32)
    arrays = {f'autodis{i}.quantiles': quantiles for i in range(30)}
    space = dataclasses.replace(space, arrays=arrays)
    optimizer = settings_lib.make_optimizer(settings_lib.Settings(), space)
    state, _ = state_lib.init(
      model_lib.build(space),
      optimizer,
      state_lib.example_batch(schema),
      jax.random.key(0),
      0.3,
    )
    params = state.params[model_lib.EMBEDDINGS]
    named = jax.tree_util.tree_leaves_with_path(params)
    scaled, kept = {}, {}
    for path, leaf in named:
      names = [entry.key for entry in path]
      where = scaled if embeddings.is_vector(names) else kept
      where['/'.join(names)] = float(leaf.std())
    self.assertLen(scaled, 6, scaled)
    for name, std in scaled.items():
      self.assertBetween(std / 0.3, 0.7, 1.3, name)
    # Maps of numbers to scores stay as they are, and are no vectors.
    self.assertNotEmpty(kept)
    for path, _ in named:
      names = [entry.key for entry in path]
      self.assertEqual(
        embeddings.is_score(names), not embeddings.is_vector(names)
      )


class FieldEmbeddingsTest(parameterized.TestCase):
  @parameterized.parameters(
    dict(pooling='mean'),
    dict(pooling='sum'),
    dict(dims=(2, 4, 2, 4, 3)),
    dict(dims=(2, 4, 3, 2, 2), projection='zero_pad', pooling='sum'),
  )
  def test_views_against_loops(self, **options):
    architecture, batch = _architecture(**options), _batch()
    module = embeddings.FieldEmbeddings(architecture)
    params = _random(jax.jit(module.init)(jax.random.key(0), batch)['params'])
    views = module.apply({'params': params}, batch)
    self.assertCountEqual(views, ['main', 'order3', 'first_order'])
    for view, got in views.items():
      expected = _loops(architecture, params, batch, view)
      if view == 'first_order':
        expected = expected[..., 0]
      np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)

  def test_gradients_of_gathered_rows_add_up_to_those_of_tables(self):
    architecture, batch = _architecture(dims=(2, 4, 4, 4, 4)), _batch()
    batch.mask[-2:] = False
    module = embeddings.FieldEmbeddings(architecture)
    params = _random(jax.jit(module.init)(jax.random.key(0), batch)['params'])

    def loss(params, rows=None):
      views = module.apply({'params': params}, batch, rows)
      return sum(jnp.sin(view).sum() for view in views.values())

    flat_ids = lookups.flatten_ids(architecture, batch)
    rows = lookups.lookup(params, flat_ids, architecture)
    row_grads = jax.jit(jax.grad(loss, argnums=1))(params, rows)
    grads = jax.jit(jax.grad(loss))(params)
    for table in architecture.tables:
      # Padding has the number of rows: one more row takes its gradients.
      full = np.zeros((table.num_rows + 1, table.dim))
      np.add.at(full, flat_ids[table.space], row_grads[table.name])
      np.testing.assert_allclose(
        grads[table.name], full[:-1], rtol=1e-5, atol=1e-6
      )
      self.assertTrue(np.any(full[:-1]))

  def test_one_look_up_per_width_however_many_fields(self):
    def gathers(num_fields):
      schema = schema_lib.Schema(
        tuple(
          schema_lib.Field(f'f{i}', vocab_size=5) for i in range(num_fields)
        )
      )
      space = spaces.deepfm(schema, dim=4, hidden=(2,))
      batch = state_lib.example_batch(schema)
      tables = lookups.init_tables(space, jax.random.key(0))
      ids = lookups.flatten_ids(space, batch)
      rows = lambda tables: lookups.lookup(tables, ids, space)
      return str(jax.make_jaxpr(rows)(tables)).count(' gather[')

    self.assertGreater(gathers(3), 0)
    self.assertEqual(gathers(3), gathers(30))


_COUNTS = {
  'user': np.array([2, 0, 9, 5, 4, 2, 1, 1, 1]),
  'tags': np.array([0, 0, 4, 4, 2, 1, 1]),
  'item': np.array([1, 1, 8, 4, 2]),
}
_CLOSED = {
  'mixed': lambda m: sizes.mixed_dims(m, 0.6, threshold=0),
  'mixed_by_frequency': lambda m: sizes.mixed_dims(
    m, 0.6, frequencies=_COUNTS, num_blocks=3, threshold=0
  ),
  'product': lambda m: sizes.quotient_remainder(m, collisions=3, threshold=5),
  'sum': lambda m: sizes.quotient_remainder(
    m, collisions=2, combine='sum', threshold=5
  ),
  'concat': lambda m: sizes.quotient_remainder(
    m, collisions=3, combine='concat', threshold=5
  ),
  # The first id of a field has a row of its own.
  **{
    f'{combine}_behind_a_whole_row': (
      lambda m, combine=combine: dataclasses.replace(
        m,
        projection='zero_pad' if combine == 'concat' else 'linear',
        fields=tuple(
          sizes._divided(plan, 2, combine, whole=1)
          if plan.vocab_size > 5
          else plan
          for plan in m.fields
        ),
      )
    )
    for combine in ('product', 'sum', 'concat')
  },
  'hashed': lambda m: sizes.hashed(m, collisions=2.5, threshold=5),
}


def _vector(architecture, params, plan, view, value):
  """What an id's rows amount to, [D] in float64, one piece after another."""
  dim = architecture.dim
  total = np.zeros(dim)
  factors, placed, name = {}, 0, None
  for table in architecture.tables:
    start, place = 0, 0
    for part in table.parts if table.view == view else ():
      piece = part.piece
      if part.field.name == plan.name:
        row = np.zeros(piece.dim)
        if piece.start <= value < piece.stop:
          number = (value - piece.start) // piece.divide
          number = number % piece.modulo if piece.modulo else number
          row = params[table.name][start + number]
        if plan.combine == 'product':
          factors.setdefault((piece.start, piece.stop), []).append(row)
          name, placed = f'{view}_product_{plan.name}', 0
        else:
          total += _widened(architecture, params, row, table.name, place, piece)
      start += piece.num_rows
      place += part.field.combine == 'sum'
  if factors:
    products = [np.prod(own, axis=0) for own in factors.values()]
    row, piece = np.sum(products, axis=0), plan.pieces[0]
    total += _widened(architecture, params, row, name, placed, piece)
  return total


def _widened(architecture, params, row, name, place, piece):
  dim = architecture.dim
  if len(row) == dim:
    return row
  if architecture.projection == 'linear':
    return row @ params[f'{name}_projection'][place]
  return np.r_[np.zeros(piece.column), row, np.zeros(dim)][:dim]


class PiecesTest(parameterized.TestCase):
  @parameterized.product(name=list(_CLOSED), pooling=['mean', 'sum'])
  def test_looked_up_vectors_against_loops(self, name, pooling):
    """Values of a field are pooled after their pieces are combined."""
    whole, batch = _architecture(pooling=pooling), _batch()
    architecture = _CLOSED[name](whole)
    self.assertNotEqual(architecture, whole)
    module = embeddings.FieldEmbeddings(architecture)
    params = _random(jax.jit(module.init)(jax.random.key(0), batch)['params'])
    views = jax.jit(module.apply)({'params': params}, batch)
    doubles = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    columns = {'user': [0], 'tags': [1, 2, 3], 'item': [4]}
    for view in ('main', 'order3'):
      for plan in architecture.categorical:
        for row in range(_ROWS):
          values = [i for i in batch.ids[row, columns[plan.name]] if i >= 0]
          expected = sum(
            (_vector(architecture, doubles, plan, view, i) for i in values),
            start=np.zeros(architecture.dim),
          )
          if pooling == 'mean':
            expected = expected / max(len(values), 1)
          got = views[view][row, architecture.field_index[plan.name]]
          np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
    # What the model holds is what the architecture says.
    maps = [v.size for k, v in params.items() if k.endswith('_projection')]
    tables = [params[table.name].size for table in architecture.tables]
    self.assertEqual(sum(maps), architecture.projection_params)
    self.assertEqual(sum(tables), architecture.embedding_params)
    numbers = [
      v.size
      for k, v in params.items()
      if '_numeric_' in k and not k.startswith('first_order')
      if not k.endswith('_projection')
    ]
    self.assertEqual(sum(numbers), architecture.numeric_params)
    held = sum(maps) + sum(tables) + sum(numbers)
    self.assertEqual(architecture.ep_total, held)

  def test_factors_of_a_product_leave_fresh_vectors_their_spread(self):
    schema = schema_lib.Schema((schema_lib.Field('a', vocab_size=9000),))
    model = spaces.wide_deep(schema, dim=8, hidden=(2,))
    architecture = sizes.quotient_remainder(model, collisions=40)
    tables = lookups.init_tables(architecture, jax.random.key(0), 0.05)
    batch = state_lib.example_batch(schema, 9000)._replace(
      ids=np.arange(9000, dtype=np.int32)[:, None]
    )
    ids = lookups.flatten_ids(architecture, batch)
    rows = lookups.lookup(tables, ids, architecture)
    module = embeddings.FieldEmbeddings(architecture)
    (vectors,) = [module.apply({'params': tables}, batch, rows)['main'][:, 0]]
    self.assertAlmostEqual(float(vectors.std()), 0.05, delta=0.005)
    self.assertAlmostEqual(float(vectors.mean()), 0, delta=0.005)


class AffineTest(absltest.TestCase):
  def test_offsets_are_for_values_that_have_a_row(self):
    """Against a loop; a field of three values over three pieces."""
    pieces = (
      fields_lib.Piece(0, 3, 1),
      fields_lib.Piece(3, 5, 2),
      fields_lib.Piece(5, 7, 4),
    )
    space = spaces.wide_deep(_SCHEMA, dim=4, hidden=(3,))
    fields = tuple(
      dataclasses.replace(plan, pieces=pieces) if plan.name == 'tags' else plan
      for plan in space.fields
    )
    architecture = dataclasses.replace(
      space, fields=fields, projection='affine'
    )
    batch = _batch()
    module = embeddings.FieldEmbeddings(architecture)
    params = _random(module.init(jax.random.key(0), batch)['params'])
    got = module.apply({'params': params}, batch)['main'][:, 1]
    values = {k: np.asarray(v, np.float64) for k, v in params.items()}
    # The widest rows lie between those of user and item, as wide, and stay.
    tables = {
      1: values['main_dim_1'],
      2: values['main_dim_2'],
      4: values['main_dim_4'][9:11],
    }
    for row, ids in enumerate(batch.ids[:, 1:4]):
      vectors = []
      for i in ids[ids >= 0]:
        piece = next(p for p in pieces if p.start <= i < p.stop)
        vector = tables[piece.dim][i - piece.start]
        if piece.dim < 4:
          kernel = values[f'main_dim_{piece.dim}_projection'][0]
          offset = values[f'main_dim_{piece.dim}_offset_projection'][0]
          vector = vector @ kernel + offset
        vectors.append(vector)
      expected = np.mean(vectors, 0) if vectors else np.zeros(4)
      np.testing.assert_allclose(got[row], expected, rtol=1e-5, atol=1e-6)
    tags = 3 * 1 + 2 * 2 + 2 * 4
    self.assertEqual(
      architecture.embedding_params, (9 + 5) * 4 + tags + 9 + 7 + 5
    )
    self.assertEqual(architecture.projection_params, (1 + 1 + 2 + 1) * 4)


def _sparse(model):
  """The first field's table, [9, 4], with a pattern."""
  rng = np.random.default_rng(5)
  is_set = rng.random((9, 4)) < 0.5
  bits = np.packbits(is_set, axis=1)
  starts = np.cumsum(is_set.sum(1)) - is_set.sum(1)
  arrays = {'user.bits': bits, 'user.starts': starts.astype(np.int32)}
  first, *rest = model.fields
  first = dataclasses.replace(first, dim=4, num_values=int(is_set.sum()))
  return dataclasses.replace(model, fields=(first, *rest), arrays=arrays)


def _shapes(architecture, batch):
  """Of all parameters; arrays are needed to look rows up, not for these."""
  ids = lookups.flatten_ids(architecture, batch, architecture.constants)
  rows = {
    table.name: np.zeros((*ids[table.space].shape, table.dim), np.float32)
    for table in architecture.tables
  }
  module = embeddings.FieldEmbeddings(architecture)
  shapes = jax.eval_shape(module.init, jax.random.key(0), batch, rows)
  tables = {
    table.name: jax.ShapeDtypeStruct((table.num_rows, table.dim), jnp.float32)
    for table in architecture.tables
  }
  return dict(shapes.get('params', {})) | tables


class FurtherViewsTest(parameterized.TestCase):
  @parameterized.named_parameters(
    ('whole', lambda m: m),
    (
      'unequal',
      lambda m: _architecture((2, 4, 3, 2, 4)),
    ),
    ('affine', lambda m: _architecture((2, 4, 3, 2, 4), 'affine')),
    ('zero_pad', lambda m: _architecture((2, 4, 3, 2, 4), 'zero_pad')),
    ('product', _CLOSED['product']),
    ('concat', _CLOSED['concat']),
    ('sparse', _sparse),
  )
  def test_several_vectors_are_as_many_views(self, closed):
    """Each of a field's vectors is what a table of its columns alone gives."""
    plain = dataclasses.replace(
      closed(_architecture()), interactions=(plans.FactorizationMachine(),)
    )
    several = dataclasses.replace(plain, interactions=(plans.FieldAware(),))
    batch, copies = _batch(), len(plain.fields) - 1
    constants = {'constants': dict(plain.constants)}
    module = embeddings.FieldEmbeddings(several)
    shapes = _shapes(several, batch)
    params = _random(shapes)
    got = jax.jit(module.apply)({'params': params, **constants}, batch)
    got = got['field_aware'].reshape(_ROWS, len(plain.fields), copies, -1)
    alone = jax.jit(embeddings.FieldEmbeddings(plain).apply)

    def column(name, value, copy):
      if 'field_aware' not in name or name.endswith('_projection'):
        return value
      width = value.shape[-1] // copies
      return value[..., copy * width : (copy + 1) * width]

    def renamed(name):
      name = name.replace('field_aware', 'main')
      width = lambda match: f'main{match[1]}_dim_{int(match[2]) // copies}'
      return re.sub(r'main(.*)_dim_(\d+)', width, name)

    for copy in range(copies):
      own = {
        renamed(name): column(name, value, copy)
        for name, value in params.items()
      }
      expected = alone({'params': own, **constants}, batch)['main']
      np.testing.assert_allclose(
        got[:, :, copy], expected, rtol=1e-5, atol=1e-6
      )
    self.assertEqual(several.vector_params, copies * plain.vector_params)
    # All vectors of a field share its map.
    maps = [v.size for k, v in shapes.items() if k.endswith('_projection')]
    self.assertEqual(several.projection_params, sum(maps))
    self.assertEqual(several.projection_params, plain.projection_params)

  def test_some_fields_and_the_numbers_themselves(self):
    plan = plans.NumbersAndVectors(name='n')
    towers = plans.TwoTowers(contexts=(('item', 'price'), ()))
    space = spaces.wide_deep(_SCHEMA, dim=4, hidden=(2,))
    head = dataclasses.replace(space.head, flat_embeddings=False)
    space = dataclasses.replace(space, interactions=(plan,), head=head)
    batch = _batch()
    batch.mask[-1] = False
    batch.numeric[-1] = np.nan
    run = lambda space: embeddings.FieldEmbeddings(space).init_with_output(
      jax.random.key(0), batch
    )
    views, variables = run(space)
    self.assertEqual(views['main'].shape, (_ROWS, 3, 4))
    expected = np.where(batch.mask[:, None], batch.numeric, 0)
    np.testing.assert_array_equal(views['values'], expected)
    # No vectors of numeric fields are held.
    numeric = [name for name in variables['params'] if 'numeric' in name]
    self.assertTrue(all('first_order' in name for name in numeric), numeric)
    # Unless another interaction reads them.
    views, _ = run(dataclasses.replace(space, interactions=(plan, towers)))
    self.assertEqual(views['main'].shape, (_ROWS, 5, 4))
    self.assertEqual(views['towers_context_0'].shape, (_ROWS, 2, 4))


class TablesTest(absltest.TestCase):
  def test_fresh_tables(self):
    architecture = _architecture(dims=(2, 4, 4, 4, 4))
    first = lookups.init_tables(architecture, jax.random.key(0), 0.5)
    module = embeddings.FieldEmbeddings(architecture)
    params = jax.jit(module.init)(jax.random.key(0), _batch())['params']
    for table in architecture.tables:
      self.assertEqual(first[table.name].shape, params[table.name].shape)
      self.assertEqual(first[table.name].dtype, params[table.name].dtype)
    # Each table, and each key, draws values of its own.
    second = lookups.init_tables(architecture, jax.random.key(1), 0.5)
    values = np.concatenate(
      [np.ravel(x) for x in jax.tree.leaves((first, second))]
    )
    self.assertLen(np.unique(values), len(values))


if __name__ == '__main__':
  absltest.main()
