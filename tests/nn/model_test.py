"""Models against a plain float64 implementation, and their invariants."""

import itertools

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from jax_autorec import schema as schema_lib
from jax_autorec import spaces
from jax_autorec.nn import embeddings
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


def _mlp(x, params, stats, head):
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
  return (x @ output['kernel'] + output['bias'])[:, 0]


def _reference(architecture, variables, batch):
  views = _views(architecture, variables['params'], batch)
  variables = jax.tree.map(lambda x: np.asarray(x, np.float64), variables)
  params = variables['params']
  stats = variables.get('batch_stats', {})
  logits = np.zeros(_ROWS)
  inputs = [views['main'].reshape(_ROWS, -1)] if 'main' in views else []
  index = architecture.field_index
  for plan in architecture.interactions:
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
      inputs.append(products)
    else:
      logits = logits + products.sum(1)
  if architecture.head.first_order:
    logits = logits + views['first_order'].sum(1)
  if architecture.head.hidden:
    logits = logits + _mlp(
      np.concatenate(inputs, 1),
      params['mlp'],
      stats.get('mlp', {}),
      architecture.head,
    )
  else:
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
    rows = embeddings.lookup(
      tables, embeddings.flatten_ids(architecture, batch), architecture
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
# V = 90239, F = 3, d = 10.
_COUNTS = {
  'lr': (5_390, 90_240),
  'fm': (59_280, 992_630),
  'wide_deep': (423_280, 1_328_630),
  'deepfm': (423_280, 1_328_630),
  'ipnn': (433_491, 1_237_191),
}


class ParameterCountTest(parameterized.TestCase):
  @parameterized.parameters(*_COUNTS)
  def test_counts_of_the_benchmark(self, name):
    for vocab, num_fields, expected in zip(
      (5389, 90239), (10, 3), _COUNTS[name]
    ):
      sizes = [vocab // num_fields] * num_fields
      sizes[0] += vocab - sum(sizes)
      schema = schema_lib.Schema(
        tuple(
          schema_lib.Field(f'f{i}', vocab_size=size)
          for i, size in enumerate(sizes)
        )
      )
      architecture = spaces.build(name, schema)
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
