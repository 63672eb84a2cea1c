"""Models against a plain float64 implementation, and their invariants."""

import dataclasses
import inspect
import itertools

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from jax_autorec import errors, field_spaces, spaces
from jax_autorec import fields as fields_lib
from jax_autorec import schema as schema_lib
from jax_autorec.nn import embeddings, interactions, lookups
from jax_autorec.nn import model as model_lib
from jax_autorec.train import state as state_lib
from jax_autorec.types import Batch

_SCHEMA = schema_lib.Schema(
  (
    schema_lib.Field('user', vocab_size=9),
    schema_lib.Field('price', 'numeric'),
    schema_lib.Field('tags', vocab_size=7, max_length=3),
    schema_lib.Field('item', vocab_size=5),
    schema_lib.Field('age', 'numeric'),
  )
)
_ROWS = 6


def _batch(schema=_SCHEMA, seed=0):
  rng = np.random.default_rng(seed)
  columns = []
  for field in schema.categorical:
    ids = rng.integers(0, field.vocab_size, (_ROWS, field.max_length))
    for row in range(_ROWS):
      ids[row, rng.integers(1, field.max_length + 1) :] = -1
    columns.append(ids)
  num_numeric = len(schema.numeric)
  missing = rng.random((_ROWS, num_numeric)) < 0.3
  return Batch(
    ids=np.concatenate(columns, 1).astype(np.int32),
    numeric=np.where(missing, 0, rng.normal(size=(_ROWS, num_numeric))).astype(
      np.float32
    ),
    missing=missing,
    labels=(rng.random(_ROWS) < 0.5).astype(np.float32),
    weights=np.ones(_ROWS, np.float32),
    mask=np.ones(_ROWS, bool),
  )


def _random(tree, seed=1):
  """Leaves away from special points; variances positive."""
  leaves, structure = jax.tree.flatten_with_path(tree)
  rng = np.random.default_rng(seed)
  values = [
    rng.uniform(0.5, 2, x.shape)
    if 'var' in jax.tree_util.keystr(path)
    else rng.normal(size=x.shape)
    for path, x in leaves
  ]
  return jax.tree.unflatten(
    structure, [jnp.asarray(v, jnp.float32) for v in values]
  )


def _model(architecture, batch):
  model = model_lib.build(architecture)
  variables = jax.jit(model.init)(jax.random.key(0), batch)
  return model, _random(variables)


def _views(architecture, params, batch):
  """In float64; `embeddings_test` holds their loops."""
  module = embeddings.FieldEmbeddings(architecture)
  views = module.apply({'params': params['embeddings']}, batch)
  return jax.tree.map(lambda x: np.asarray(x, np.float64), views)


def _mlp(sent, params, stats, head):
  x = np.concatenate(sent['head'], 1) if sent['head'] else np.zeros((_ROWS, 0))
  for i in range(len(head.hidden)):
    layer = params[f'dense_{i}']
    x = x @ layer['kernel'] + layer['bias']
    if head.norm == 'batch':
      norm, moments = params[f'norm_{i}'], stats[f'norm_{i}']
      x = (x - moments['mean']) / np.sqrt(moments['var'] + 1e-5)
      x = x * norm['scale'] + norm['bias']
    if head.norm == 'layer':
      norm = params[f'norm_{i}']
      x = (x - x.mean(1, keepdims=True)) / np.sqrt(
        x.var(1, keepdims=True) + 1e-5
      )
      x = x * norm['scale'] + norm['bias']
    x = np.maximum(x, 0)
  output = params['output']
  x = np.concatenate([x, *sent['output']], 1)
  return (x @ output['kernel'] + output['bias'])[:, 0]


def _reference(architecture, variables, batch):
  views = _views(architecture, variables['params'], batch)
  given = variables
  variables = jax.tree.map(lambda x: np.asarray(x, np.float64), variables)
  params = variables['params']
  stats = variables.get('batch_stats', {})
  logits = np.zeros(_ROWS)
  sent = {'head': [], 'output': []}
  if architecture.head.hidden and architecture.head.flat_embeddings:
    sent['head'].append(views['main'].reshape(_ROWS, -1))
  index = architecture.field_index
  for place, plan in enumerate(architecture.interactions):
    if plan.kind not in ('fm', 'products'):
      # Their own tests hold their loops.
      stage = interactions.InteractionStage(architecture)
      own = {
        collection: values.get('interactions', {})
        for collection, values in given.items()
      }
      mask = np.ones(_ROWS, bool)
      output = stage.apply(own, views, mask, train=False)[place]
      if plan.to == 'logit':
        logits = logits + output
      else:
        sent[plan.to].append(output)
      continue
    terms = getattr(plan, 'terms', itertools.combinations(index, 2))
    view = views['order3' if getattr(plan, 'order', 2) == 3 else 'main']
    products = np.stack(
      [
        np.prod([view[:, index[n]] for n in term], axis=0).sum(1)
        for term in terms
      ],
      1,
    )
    if getattr(plan, 'normalize', False):
      moments = stats['interactions'][plan.name]['norm']
      products = (products - moments['mean']) / np.sqrt(moments['var'] + 1e-3)
      products = products * params['interactions'][plan.name]['gate']
    if plan.to == 'head':
      sent['head'].append(products)
    else:
      logits = logits + products.sum(1)
  if architecture.head.first_order:
    logits = logits + views['first_order'].sum(1)
  if 'mlp' in params:
    logits = logits + _mlp(
      sent, params['mlp'], stats.get('mlp', {}), architecture.head
    )
  if 'bias' in params:
    logits = logits + params['bias']
  return logits


def _permuted(first, second, variables):
  """The variables of one architecture for another with its fields permuted."""
  params = dict(variables['params'])
  params['embeddings'] = dict(params['embeddings'])
  for name, values in params['embeddings'].items():
    if 'numeric' in name:
      order = [p.name for p in first.numeric]
      places = [order.index(p.name) for p in second.numeric]
    else:
      rows, start = {}, 0
      for plan in first.categorical:
        rows[plan.name] = range(start, start + plan.vocab_size)
        start += plan.vocab_size
      places = [row for plan in second.categorical for row in rows[plan.name]]
    params['embeddings'][name] = values[np.array(places)]
  order = [p.name for p in first.fields]
  places = [order.index(p.name) for p in second.fields]
  inputs = [4 * place + d for place in places for d in range(4)]
  stats = dict(variables.get('batch_stats', {}))
  for old, new in zip(first.interactions, second.interactions):
    if not hasattr(old, 'terms'):
      continue
    sets = [frozenset(term) for term in old.terms]
    places = np.array([sets.index(frozenset(term)) for term in new.terms])
    inputs += [4 * len(first.fields) + place for place in places]
    move = lambda x, places=places: x[places]
    for collection in (params, stats):
      collection['interactions'] = collection['interactions'] | {
        old.name: jax.tree.map(move, collection['interactions'][old.name])
      }
  if 'mlp' in params:
    dense = params['mlp']['dense_0']
    dense = dense | {'kernel': dense['kernel'][np.array(inputs)]}
    params['mlp'] = params['mlp'] | {'dense_0': dense}
  return {'params': params, 'batch_stats': stats}


_PAIRS = [('user', 'item'), ('tags', 'price'), ('tags', 'age')]
_TRIPLES = [('user', 'tags', 'age'), ('user', 'item', 'price')]
_ARCHITECTURES = {
  'lr': ('lr', {}),
  'fm': ('fm', dict(dim=4)),
  'fm_some_pairs': ('fm', dict(dim=4, pairs=_PAIRS)),
  'fm_order_3': ('fm', dict(dim=4, pairs='all', triples=_TRIPLES)),
  'wide_deep': ('wide_deep', dict(dim=4, hidden=(8, 4))),
  'deepfm_layer_norm': ('deepfm', dict(dim=4, hidden=(8, 4), norm='layer')),
  'deepfm_all_pairs': ('deepfm', dict(dim=4, hidden=(8,), pairs='all')),
  'ipnn': ('ipnn', dict(dim=4, hidden=(8, 4))),
  'ipnn_some_pairs': ('ipnn', dict(dim=4, hidden=(8,), pairs=_PAIRS)),
  'fwfm_with_weights': ('fwfm', dict(dim=4, linear='lw')),
  'nfm': ('nfm', dict(dim=4, hidden=(8, 4))),
  'crossnet': ('crossnet', dict(dim=4, layers=2)),
  'dcn_v2': ('dcn_v2', dict(dim=4, layers=2, hidden=(8, 4))),
  'xdeepfm': ('xdeepfm', dict(dim=4, sizes=(3, 2), hidden=(8,))),
  'autoint': ('autoint', dict(dim=4, layers=1, size=8)),
  'dlrm_dot': ('dlrm', dict(dim=4, product='dot', bottom=(3,), hidden=(8,))),
}


class ModelTest(parameterized.TestCase):
  @parameterized.named_parameters(
    (name, *spec) for name, spec in _ARCHITECTURES.items()
  )
  def test_logits_against_float64_loops(self, name, options):
    architecture = spaces.build(name, _SCHEMA, **options)
    batch = _batch()
    model, variables = _model(architecture, batch)
    got = model.apply(variables, batch)
    np.testing.assert_allclose(
      got, _reference(architecture, variables, batch), rtol=2e-5, atol=2e-5
    )

  @parameterized.parameters('deepfm', 'ipnn')
  def test_padding_changes_nothing_in_training(self, name):
    """Neither logits, running statistics nor dropout of the live rows."""
    architecture = spaces.build(
      name, _SCHEMA, dim=4, hidden=(8, 8), pairs='all', norm='batch'
    )
    batch = _batch()
    model, variables = _model(architecture, batch)
    padded = jax.tree.map(
      lambda x, y: np.concatenate([x, y]), batch, _batch(seed=3)
    )
    padded.mask[_ROWS:] = False

    @jax.jit
    def run(batch, seed):
      return model.apply(
        variables,
        batch,
        train=True,
        mutable=['batch_stats'],
        rngs={'dropout': jax.random.key(seed)},
      )

    (logits, stats), (got, got_stats) = run(batch, 0), run(padded, 0)
    np.testing.assert_allclose(got[:_ROWS], logits, rtol=1e-4, atol=1e-5)
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
      got_stats,
      stats,
    )
    self.assertFalse(np.allclose(run(batch, 1)[0], logits))
    self.assertFalse(np.allclose(model.apply(variables, batch), logits))

  @parameterized.parameters('fm', 'deepfm', 'ipnn')
  def test_gathered_rows_in_place_of_tables(self, name):
    architecture = spaces.build(name, _SCHEMA, dim=4)
    batch = _batch()
    model, variables = _model(architecture, batch)
    params = dict(variables['params'])
    inner = dict(params['embeddings'])
    tables = {t.name: inner.pop(t.name) for t in architecture.tables}
    rows = lookups.lookup(
      tables, lookups.flatten_ids(architecture, batch), architecture
    )
    params['embeddings'] = inner
    got = model.apply({**variables, 'params': params}, batch, rows=rows)
    np.testing.assert_array_equal(got, model.apply(variables, batch))

  def test_derived_model_computes_kept_pairs_alone(self):
    """Gates of pruned pairs at zero, or pairs left out: the same logits."""
    batch = _batch()
    full = spaces.build('fm', _SCHEMA, dim=4, pairs='all')
    kept = spaces.build('fm', _SCHEMA, dim=4, pairs=_PAIRS)
    model, variables = _model(full, batch)
    places = [full.interactions[0].terms.index(p) for p in _PAIRS]
    gate = np.zeros(10, np.float32)
    gate[places] = [0.5, -1.0, 2.0]
    params = {
      **variables['params'],
      'interactions': {'pairs': {'gate': jnp.asarray(gate)}},
    }
    norm = variables['batch_stats']['interactions']['pairs']['norm']
    small = {
      'params': {
        **variables['params'],
        'interactions': {'pairs': {'gate': jnp.asarray(gate[places])}},
      },
      'batch_stats': {
        'interactions': {
          'pairs': {'norm': {k: v[np.array(places)] for k, v in norm.items()}}
        }
      },
    }
    np.testing.assert_allclose(
      model_lib.build(kept).apply(small, batch),
      model.apply({**variables, 'params': params}, batch),
      rtol=1e-4,
      atol=1e-5,
    )

  def test_pruned_pairs_cost_nothing(self):
    def flops(pairs):
      names = [f'f{i}' for i in range(20)]
      schema = schema_lib.Schema(
        tuple(schema_lib.Field(name, vocab_size=3) for name in names)
      )
      model = model_lib.build(spaces.fm(schema, dim=16, pairs=pairs))
      batch = state_lib.example_batch(schema, 32)
      variables = jax.jit(model.init)(jax.random.key(0), batch)
      self.assertLen(
        variables['params']['interactions']['pairs']['gate'],
        190 if pairs == 'all' else len(pairs),
      )
      apply = jax.jit(lambda variables: model.apply(variables, batch))
      return apply.lower(variables).compile().cost_analysis()['flops']

    # All: 400 products of width 16 for each of 32 rows, and more.
    self.assertGreater(flops('all'), 32 * 400 * 16)
    kept = [('f0', 'f7'), ('f2', 'f3'), ('f2', 'f19')]
    self.assertLess(flops(kept), 0.2 * flops('all'))

  @parameterized.parameters(
    ('fm', dict(pairs='all', triples='all')),
    ('deepfm', dict(hidden=(8,))),
    ('ipnn', dict(hidden=(8,), pairs=_PAIRS)),
  )
  def test_field_order_does_not_matter(self, name, options):
    """Fields permuted with all their parameters: the same logits."""
    fields = [_SCHEMA.fields[i] for i in (3, 4, 0, 2, 1)]
    permuted = schema_lib.Schema(tuple(fields))
    first = spaces.build(name, _SCHEMA, dim=4, **options)
    index = spaces.build('lr', permuted).field_index
    if options.get('pairs') is _PAIRS:
      moved_pairs = [sorted(pair, key=index.get) for pair in reversed(_PAIRS)]
      options = options | {'pairs': moved_pairs}
    second = spaces.build(name, permuted, dim=4, **options)
    batch = _batch()
    columns = {'user': [0], 'tags': [1, 2, 3], 'item': [4]}
    moved_batch = batch._replace(
      ids=batch.ids[:, [c for f in fields for c in columns.get(f.name, [])]],
      numeric=batch.numeric[:, ::-1],
      missing=batch.missing[:, ::-1],
    )
    model, variables = _model(first, batch)
    np.testing.assert_allclose(
      model_lib.build(second).apply(
        _permuted(first, second, variables), moved_batch
      ),
      model.apply(variables, batch),
      rtol=1e-4,
      atol=1e-5,
    )

  @parameterized.parameters('lr', 'fm', 'wide_deep', 'deepfm', 'ipnn')
  def test_no_rows_no_logits(self, name):
    options = {'pairs': 'all'} if name in ('fm', 'deepfm', 'ipnn') else {}
    triples = {'triples': 'all'} if name == 'ipnn' else {}
    architecture = spaces.build(name, _SCHEMA, **options, **triples)
    batch = _batch()
    model, variables = _model(architecture, batch)
    empty = jax.tree.map(lambda x: x[:0], batch)
    self.assertEqual(model.apply(variables, empty).shape, (0,))

  def test_pads_and_unknown_ids(self):
    batch = _batch()
    architecture = spaces.build('fm', _SCHEMA, dim=4)
    model, variables = _model(architecture, batch)
    beyond = batch._replace(ids=batch.ids.copy())
    beyond.ids[:, 0] = 1_000_000
    unknown = batch._replace(ids=batch.ids.copy())
    unknown.ids[:, 0] = schema_lib.UNKNOWN_ID
    np.testing.assert_array_equal(
      model.apply(variables, beyond), model.apply(variables, unknown)
    )


# models.md, section 2: counts in the BARS logs; V = 5389, F = 10, d = 10 and
# V = 90239, F = 3, d = 10, with the options of the second where they differ.
_COUNTS = {
  'lr': (5_390, 90_240, {}),
  'fm': (59_280, 992_630, {}),
  'ffm': (490_400, 1_895_020, {}),
  'fwfm': (107_826, 1_804_784, {}),
  'fmfm': (59_730, 992_660, {}),
  'afm': (60_826, 992_832, dict(size=16)),
  'nfm': (384_880, 1_318_230, {}),
  'dlrm': (417_891, 1_238_391, {}),
  'wide_deep': (423_280, 1_328_630, {}),
  'deepfm': (423_280, 1_328_630, {}),
  'ipnn': (433_491, 1_237_191, {}),
  'dcn': (418_591, 1_238_661, dict(layers=4)),
  'dcn_v2': (458_391, 1_243_071, dict(layers=5)),
  'xdeepfm': (429_809, 1_351_767, dict(sizes=(64, 64, 64), norm='none')),
  'fibinet': (743_480, 1_340_790, dict(reduction=0.3)),
  'autoint': (
    306_051,
    1_047_798,
    dict(layers=2, scale=True, layer_norm=True, wide=True),
  ),
  'autoint_plus': (622_180, 1_383_799, dict(layers=2, wide=True)),
  'masknet': (571_691, None, {}),
  'masknet_serial': (None, 2_624_541, {}),
  # A later version of the benchmark's code, with an id more in each field; one
  # gate looks at the user and one at the item, which have 5,040 ids.
  'finalmlp': (
    253_392,
    1_040_902,
    dict(towers=((400,), (800,)), gate_hidden=(800,), heads=10),
  ),
}


_SMALL = {
  'hidden': (6,),
  # Layer normalisation of two units is flat but at a point.
  'sizes': (6, 5),
  'towers': ((4,), (2,)),
  'gate_hidden': (3,),
  'contexts': (('user', 'age'), ()),
  'bottom': (3,),
  'heads': 2,
  'size': 4,
  'layers': 2,
}


def _small(model, **options):
  """Options of a model that make it small."""
  known = inspect.signature(spaces.MODELS[model]).parameters
  return {k: v for k, v in (_SMALL | options).items() if k in known}


def _unequal(architecture):
  """With widths and numbers of rows of their own for fields and ids."""
  plans = []
  for plan, dim in zip(architecture.fields, (4, 2, 3, 1, 4)):
    pieces = None
    if plan.name == 'tags':
      pieces = (fields_lib.Piece(0, 3, 2), fields_lib.Piece(3, 7, 1))
    plans.append(dataclasses.replace(plan, dim=dim, pieces=pieces))
  return dataclasses.replace(architecture, fields=tuple(plans))


class CompositionTest(parameterized.TestCase):
  """Every base model with every way to make vectors."""

  @parameterized.parameters(*(name for name in spaces.MODELS if name != 'lr'))
  def test_a_step_of_training(self, name):
    """Of unequal widths, and of open ones: finite, and all is learnt."""
    plain = spaces.build(name, _SCHEMA, **_small(name, dim=4))
    found = [_unequal(plain)]
    others = [v for v in plain.views.values() if v.kind == 'vectors'][1:]
    if others or 'main' not in plain.views:
      with self.assertRaisesRegex(errors.ConfigError, "'main' alone"):
        field_spaces.open_dims(plain, (2, 4))
    else:
      found.append(field_spaces.open_dims(plain, (2, 4)))
    batch = _batch()
    for architecture in found:
      model = model_lib.build(architecture)
      shapes = jax.eval_shape(model.init, jax.random.key(0), batch)
      variables = _random(shapes)
      self.assertLen(
        shapes['params']['embeddings'].keys()
        & {t.name for t in architecture.tables},
        len(architecture.tables),
      )

      def loss(params, rest=variables, model=model):
        logits, _ = model.apply(
          {**rest, 'params': params},
          batch,
          train=True,
          mutable=['batch_stats', 'losses', 'row_masks'],
          rngs={'dropout': jax.random.key(0)},
        )
        return (jax.nn.softplus(-logits) * batch.weights).sum()

      value, grads = jax.jit(jax.value_and_grad(loss))(variables['params'])
      self.assertTrue(np.isfinite(value))
      for path, grad in jax.tree.leaves_with_path(grads):
        self.assertTrue(np.isfinite(grad).all(), path)
      for table in architecture.tables:
        self.assertTrue(np.any(grads['embeddings'][table.name]), table.name)

  @parameterized.parameters(*spaces.MODELS)
  def test_shapes_without_rows(self, name):
    architecture = spaces.build(name, _SCHEMA, **_small(name, dim=4))
    model = model_lib.build(architecture)
    variables = jax.eval_shape(model.init, jax.random.key(0), _batch())
    empty = jax.tree.map(lambda x: x[:0], _batch())
    self.assertEqual(jax.eval_shape(model.apply, variables, empty).shape, (0,))

  @parameterized.parameters(*spaces.MODELS)
  def test_sizes_are_those_of_the_tables(self, name):
    """Of unequal widths too, and with the maps to the common width."""
    architecture = _unequal(
      spaces.build(name, _SCHEMA, **_small(name, dim=4))
      if name != 'lr'
      else spaces.build(name, _SCHEMA)
    )
    model = model_lib.build(architecture)
    shapes = jax.eval_shape(model.init, jax.random.key(0), _batch())
    own = shapes['params'].get('embeddings', {})
    tables = sum(own[table.name].size for table in architecture.tables)
    self.assertEqual(architecture.embedding_params, tables)
    maps = sum(
      value.size for key, value in own.items() if key.endswith('_projection')
    )
    self.assertEqual(architecture.projection_params, maps)
    self.assertAlmostEqual(
      sum(architecture.field_sizes.values()), architecture.vectors_total
    )


class ParameterCountTest(parameterized.TestCase):
  @parameterized.parameters(*_COUNTS)
  def test_counts_of_the_benchmark(self, name):
    *counts, options = _COUNTS[name]
    for vocab, num_fields, expected in zip((5389, 90239), (10, 3), counts):
      if expected is None:
        continue
      if name == 'finalmlp':
        vocab += num_fields
      sizes = [2520, 2520] + [20] * (num_fields - 3)
      sizes.append(vocab - sum(sizes))
      schema = schema_lib.Schema(
        tuple(
          schema_lib.Field(f'f{i}', vocab_size=size)
          for i, size in enumerate(sizes)
        )
      )
      own = options if num_fields == 3 else {}
      if name == 'finalmlp' and num_fields == 10:
        own = dict(contexts=(('f0',), ('f1',)))
      architecture = spaces.build(name, schema, **own)
      model = model_lib.build(architecture)
      batch = jax.eval_shape(
        lambda s=schema: jax.tree.map(jnp.asarray, _batch(s))
      )
      shapes = jax.eval_shape(model.init, jax.random.key(0), batch)
      count = sum(x.size for x in jax.tree.leaves(shapes['params']))
      self.assertEqual(count, expected)
      tables = sum(
        shapes['params']['embeddings'][t.name].size for t in architecture.tables
      )
      self.assertEqual(architecture.embedding_params, tables)


if __name__ == '__main__':
  absltest.main()
