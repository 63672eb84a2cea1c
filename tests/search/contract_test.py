"""What every search method must keep to; a new method is one row."""

import dataclasses
import functools
import json
import pathlib
import subprocess
import sys
from unittest import mock

from absl.testing import absltest, parameterized
import jax
import numpy as np
import optax

from jax_autorec import architecture as arch_lib
from jax_autorec import choices as choices_lib
from jax_autorec import (
  field_spaces,
  group_spaces,
  head_spaces,
  numeric,
  optim,
  pipeline,
  quantization,
  search,
  spaces,
)
from jax_autorec import interactions as interactions_lib
from jax_autorec import schema as schema_lib
from jax_autorec.data import batches, planted
from jax_autorec.nn import blocks
from jax_autorec.nn import model as model_lib
from jax_autorec.search import controls, supernet
from jax_autorec.train import models as models_lib
from jax_autorec.train import parallel, retraining
from jax_autorec.train import settings as settings_lib
from jax_autorec.train import state as state_lib

_STEPS = 32  # Four epochs of eight.


def _autofis(space):
  del space
  c = optim.grda_c(1.1, interactions_lib.Products.gate_init, 1.0, 0.8, _STEPS)
  return {'interactions': search.autofis(optim.grda(1.0, c, 0.8))}


def _autodim(**options):
  return lambda space: {
    'fields': search.autodim(optax.adam(0.1), _STEPS, warmup=4, **options)
  }


def _open_dims(model, **options):
  def space(schema):
    plain = spaces.build(model, schema, dim=4, **_MLP.get(model, {}))
    return field_spaces.open_dims(plain, (1, 2, 4), **options)

  return space


_MLP = {'deepfm': {'hidden': (8,)}}


def _pep(space):
  del space
  tx = optax.chain(optax.add_decayed_weights(0.1), optax.adam(0.5))
  return {'fields': search.pep(tx, density=0.3)}


def _columns(schema):
  return field_spaces.open_columns(spaces.deepfm(schema, dim=4, hidden=(8,)))


def _blocks(schema, **options):
  plain = spaces.fm(schema, dim=4)
  return field_spaces.open_blocks(plain, (0.3, 0.7), (1, 3), **options)


def _nis(**options):
  def selectors(space):
    nis = search.nis(
      optax.adam(0.05),
      space.choice,
      _STEPS,
      budget=0.5 * space.choice.all_entries,
      full_steps=8,
      mixed_steps=8,
      samples=2,
      **options,
    )
    return {'fields': nis}

  return selectors


_DIMS = (2, 4)


def _buckets(schema):
  frequencies = {
    field.name: [0, 0, *range(field.vocab_size - 2, 0, -1)]
    for field in schema.categorical
  }
  return field_spaces.open_buckets(spaces.fm(schema), _DIMS, frequencies)


def _autoemb(space):
  # Counts from the vocabulary's size on down have buckets by octave.
  starts = space.choice.starts
  counts = [[float(2**-k) for k in range(len(own))] for own in starts]
  return {'fields': search.autoemb(optax.adam(1e-2), counts, hidden=8)}


def _groups(schema, model='fm', **options):
  plain = spaces.build(model, schema, dim=4, **_MLP.get(model, {}))
  return group_spaces.open_groups(plain, (2, 3, 3), **options)


def _joint(schema):
  plain = spaces.deepfm(
    schema,
    dim=4,
    pairs='open',
    hidden=(8, 4),
    numeric=numeric.AutoDis(buckets=4),
  )
  opened = head_spaces.open_hidden(plain, (0.25, 0.5))
  return field_spaces.open_dims(opened, (1, 2, 4))


def _hidden(space):
  return search.engines.darts(
    search.engines.hidden(space), optax.adam(0.1), price=0.1
  )


# Name -> (space of a schema, selectors of a space).
_METHODS = {
  'autofis_fm': (
    lambda schema: spaces.fm(schema, dim=4, pairs='open'),
    _autofis,
  ),
  'autofis_ipnn': (
    lambda schema: spaces.ipnn(schema, dim=4, pairs='open', hidden=(8,)),
    _autofis,
  ),
  # What modules add to the loss goes through the search's step too.
  'autofis_quantized': (
    lambda schema: quantization.quantize(
      spaces.fm(schema, dim=4, pairs='open'), 'vq', 2, [(0.3, 4), (0.7, 2)]
    ),
    _autofis,
  ),
  'autofis_order_3': (
    lambda schema: spaces.deepfm(
      schema, dim=4, pairs='open', triples='open', hidden=(8,)
    ),
    _autofis,
  ),
  'autodim_fm': (_open_dims('fm'), _autodim(period=3)),
  'autodim_second_order': (
    _open_dims('deepfm', tables='separate', transforms='shared'),
    _autodim(period=2, inner_rate=0.01, schedule='published'),
  ),
  'ad_s': (
    _open_dims('deepfm', transform='zero_pad'),
    _autodim(period=1, split='train'),
  ),
  'sseds': (_columns, lambda space: {'fields': search.sseds(0.5)}),
  'autosrh': (
    lambda schema: field_spaces.open_columns(spaces.fm(schema, dim=4), 3),
    lambda space: {'fields': search.autosrh(warmup=8, period=2, density=0.3)},
  ),
  'nis_single': (
    functools.partial(_blocks, mode='single', combine='concatenate'),
    _nis(),
  ),
  'nis_multi': (_blocks, _nis(reward='ce', period=2)),
  'nis_prefix': (
    functools.partial(_blocks, prefix=True, shared_row=True),
    _nis(baseline='critic'),
  ),
  'optembed': (
    lambda schema: field_spaces.open_row_mask(spaces.fm(schema, dim=4)),
    lambda space: {
      'fields': search.optembed(
        optax.sgd(1.0),
        penalty=0.01,
        population=4,
        generations=2,
        mutations=2,
        crossovers=2,
        price=0.1,
      )
    },
  ),
  **{
    f'pep_{granularity}': (
      lambda schema, granularity=granularity: field_spaces.open_thresholds(
        spaces.fm(schema, dim=4), granularity=granularity
      ),
      _pep,
    )
    for granularity in ('field_dim', 'feature')
  },
  'autoemb': (_buckets, _autoemb),
  'autogroup_soft': (
    functools.partial(_groups, model='deepfm'),
    lambda space: {
      'interactions': search.autogroup(optax.adam(0.2), period=2, warmup=4)
    },
  ),
  'autogroup_hard': (
    functools.partial(_groups, form='elementary', copies=(1, 2, 1)),
    lambda space: {
      'interactions': search.autogroup(
        optax.adam(0.2), selection='hard', split='alternate', samples=2
      )
    },
  ),
  'autogroup_second_order': (
    functools.partial(_groups, compensation=0.01, normalize=False),
    lambda space: {
      'interactions': search.autogroup(
        optax.adam(0.2),
        selection='hard',
        sizes={plan.name: plan.order for plan in space.interactions},
        inner_rate=0.1,
      )
    },
  ),
  'reinforce_gates': (
    lambda schema: spaces.fm(schema, dim=4, pairs='open'),
    lambda space: {
      'interactions': search.engines.reinforce(
        search.engines.gates(), optax.adam(0.1), samples=2, warmup=8
      )
    },
  ),
  'darts_implicit': (
    _open_dims('fm'),
    lambda space: {
      'fields': search.engines.darts(
        search.engines.widths(space),
        optax.adam(0.1),
        implicit=search.engines.Implicit('cg', 2),
        period=2,
      )
    },
  ),
  # Several slots of one model: single level beside bi-level, of every engine.
  'autodim_autofis_hidden': (
    _joint,
    lambda space: (
      _autodim(period=3)(space) | _autofis(space) | {'mlp': _hidden(space)}
    ),
  ),
  'nis_autofis': (
    lambda schema: field_spaces.open_blocks(
      spaces.fm(schema, dim=4, pairs='open'), (0.3, 0.7), (1, 3)
    ),
    lambda space: _nis(reward='ce')(space) | _autofis(space),
  ),
}


# All whose state is not that of another: what differs in the rest is the model.
_RESUMED = tuple(
  name
  for name in _METHODS
  if name
  not in (
    'autofis_ipnn',
    'autofis_quantized',
    'autofis_order_3',
    'nis_single',
    'pep_field_dim',
    'autogroup_second_order',
  )
)

# One of each method, for the tests that compile programs of their own.
_ONE_EACH = (
  'autofis_fm',
  'autodim_fm',
  'autodim_second_order',
  'sseds',
  'autosrh',
  'nis_multi',
  'pep_feature',
  'optembed',
  'autoemb',
  'autogroup_soft',
  'autogroup_hard',
)


def _data(seed=0):
  """Four fields of ids, and a number that says nothing."""
  data = planted.generate(
    num_rows=2000, num_fields=4, num_pairs=2, max_values=20, seed=seed
  )
  rng = np.random.default_rng(seed)

  def with_numbers(split):
    missing = rng.random((split.num_rows, 1)) < 0.2
    numbers = np.where(missing, 0, rng.normal(size=missing.shape))
    return dataclasses.replace(
      split, numeric=numbers.astype(np.float32), missing=missing
    )

  number = schema_lib.Field('number', 'numeric')
  schema = schema_lib.Schema((*data.schema.fields, number))
  splits = {
    name: with_numbers(getattr(data, name))
    for name in ('train', 'valid', 'test')
  }
  return dataclasses.replace(data, schema=schema, **splits)


def _settings(**options):
  return settings_lib.Settings(
    epochs=2,
    batch_size=200,
    learning_rate=0.02,
    table_optimizer='adam',
    table_std=0.1,
    **options,
  )


def _search(name, data=None, num_steps=_STEPS, **options):
  space, selectors = _METHODS[name]
  data = data or _data()
  space = space(data.schema)
  return pipeline.run_search(
    space,
    selectors(space),
    data,
    _settings(),
    num_steps=num_steps,
    seed=3,
    **options,
  )


# Name -> what its search read, chunk by chunk, as the bytes of rows.
_READ = {}


@functools.cache
def _found(name):
  """One search per method, for the tests that only look at it."""
  read, chunk = [], batches.Batches.chunk

  def recording(self, first, count):
    stacked = chunk(self, first, count)
    # The rows of planted data differ in their ids, but for a few.
    read.append({row.tobytes() for row in stacked.ids.reshape(-1, 4)})
    return stacked

  with mock.patch.object(batches.Batches, 'chunk', recording):
    found = _search(name)
  _READ[name] = read
  return found


@functools.cache
def _derived(name):
  return pipeline.derive(_found(name), _data())


@functools.cache
def _retrained(name):
  return retraining.retrain(_derived(name), _data(), _settings(), seed=1)


# Methods whose derived tables are smaller than those that are searched.
_SHRINKING = ('sseds', 'autosrh', 'pep_feature', 'optembed', 'nis_multi')


def _narrow_dims(arch):
  """Logits of AutoDim for one wide field, and narrow ones."""
  logits = np.zeros_like(arch['logits'])
  logits[0, -1] = logits[1:, 0] = 1
  return {'logits': logits}


def _narrow_buckets(arch):
  """A controller of AutoEmb that prefers the narrowest width."""
  params = arch['params']
  output = params['output'] | {'bias': np.array([9.0, 0.0], np.float32)}
  return {'params': params | {'output': output}}


# Methods for which a short search may leave all at the widest: what stands in
# for what they found.
_NARROWED = {'autodim_fm': _narrow_dims, 'autoemb': _narrow_buckets}


def _narrowed(name):
  """A small model that was derived and retrained."""
  if name not in _NARROWED:
    return _retrained(name)
  found = _found(name)
  arch = {'fields': _NARROWED[name](found.state.arch['fields'])}
  found = dataclasses.replace(found, state=found.state.replace(arch=arch))
  derived = pipeline.derive(found, _data())
  return retraining.retrain(derived, _data(), _settings(), seed=1)


# Methods that train no choices, and whose choices also follow a decay or an
# entropy of their own.
_SETTLED = ('sseds',)
_DECAYED = ('autosrh', 'nis_single', 'nis_multi', 'nis_prefix')

# Methods whose fields can come in any order, and those of them whose steps
# draw nothing: draws go by a field's place. (What AutoDim draws apart, its own
# test shows.)
_WITHOUT_DRAWS = ('autosrh', 'pep_feature', 'autoemb')
_ORDERED = ('autodim_fm', 'sseds', 'nis_multi', 'optembed', *_WITHOUT_DRAWS)


def _reordered(data, order):
  """A data set whose fields come in another order."""
  fields = tuple(data.schema.categorical[i] for i in order)
  splits = {
    name: dataclasses.replace(split, ids=split.ids[:, list(order)])
    for name in ('train', 'valid', 'test')
    for split in [getattr(data, name)]
  }
  fields += data.schema.numeric
  schema = dataclasses.replace(data.schema, fields=fields)
  return dataclasses.replace(data, schema=schema, **splits)


def _mover(space, order):
  """Puts what an array holds by field, along its first axis, in an order."""
  count, width = len(order), space.choice.width

  def places(sizes, start=0):
    parts = np.split(start + np.arange(sum(sizes)), np.cumsum(sizes)[:-1])
    return np.concatenate([*[np.arange(start)], *[parts[i] for i in order]])

  known = [
    places([1] * count),
    places([plan.vocab_size for plan in space.categorical]),
    # Inputs of an MLP, those of numbers last; of a controller, behind the
    # embedding of a frequency.
    np.arange(width * (count + len(space.numeric))),
    places([1] * count, blocks.FrequencyNet.width),
  ]
  if isinstance(space.choice, choices_lib.ColumnMask):
    known.append(places([len(own) for own in space.choice.starts]))
  known[2][: width * count] = places([width] * count)
  by_size = {len(index): index for index in known}

  def move(array):
    index = by_size.get(len(array)) if np.ndim(array) else None
    return array if index is None else array[index]

  return move


def _moved(name, data, move):
  """What a search found, on data whose fields come in another order.

  Returns:
    The state, after three more steps where these draw nothing; logits and the
    derived architecture, before them.
  """
  make_space, make_selectors = _METHODS[name]
  found, space = _found(name), make_space(data.schema)
  selectors = make_selectors(space)
  if name == 'optembed':
    # Widths are drawn by place: rows alone are settled, at the full width.
    selectors['fields'] = search.optembed(
      optax.sgd(1.0), penalty=0.01, price=0.0, population=2, generations=0
    )
  model = model_lib.build(space)
  settings = dataclasses.replace(_settings(), table_optimizer='sgd')
  optimizer = settings_lib.make_optimizer(settings, space)
  optimizer = optimizer._replace(dense=optax.sgd(0.1))
  state = supernet.init(
    model,
    optimizer,
    selectors,
    state_lib.example_batch(data.schema),
    jax.random.key(0),
    0.1,
  )
  old = jax.device_get(found.state)
  parts = ('params', 'tables', 'batch_stats')
  train = {part: jax.tree.map(move, getattr(old.train, part)) for part in parts}
  state = state.replace(
    train=state.train.replace(step=old.train.step, **train),
    arch=jax.tree.map(move, old.arch),
    memory=jax.tree.map(move, old.memory),
  )
  batch = batches.Batches(data.valid, 200).batch(0, 0)
  logits = jax.jit(supernet.make_predict(model, selectors))(state, batch)
  # Of equal scores the first candidate's counts, that of the full width.
  with mock.patch.object(models_lib, 'measure', lambda *_: {'auc': 0.5}):
    derived = pipeline.derive(pipeline.Found(space, selectors, state, {}), data)
  if name in _WITHOUT_DRAWS:
    step = jax.jit(supernet.make_step(model, optimizer, selectors))
    for _ in range(3):
      state, _ = step(state, (batch, batch))
  return state, logits, derived


# Names, shapes and sizes of all that a saved model holds.
_LIST = """
import sys
import jax
from jax_autorec.train import models
for directory in sys.argv[1:]:
  model = models.load(directory)
  arrays = jax.tree.leaves((model.params, model.tables, model.batch_stats))
  arrays += list(model.architecture.arrays.values())
  print(max(x.size for x in arrays), sum(x.size for x in model.tables.values()))
"""


def _same(first, second):
  return all(jax.tree.leaves(jax.tree.map(np.array_equal, first, second)))


class ContractTest(parameterized.TestCase):
  @parameterized.parameters(*_METHODS)
  def test_derived_architecture_is_closed_saved_and_trained(self, name):
    found, derived = _found(name), _derived(name)
    self.assertFalse(derived.is_open)
    directory = self.create_tempdir().full_path
    derived.save(directory)
    self.assertEqual(arch_lib.Architecture.load(directory), derived)
    self.assertTrue(np.isfinite(_retrained(name).valid['auc']))
    # The model is no larger than its supernet.
    closed = controls.keep_all(found.space)
    self.assertLessEqual(derived.embedding_params, closed.embedding_params)
    # What it is said to hold is what it holds.
    model = _retrained(name)
    self.assertEqual(
      sum(table.size for table in jax.tree.leaves(model.tables)),
      derived.embedding_params,
    )
    maps = [
      leaf.size
      for path, leaf in jax.tree_util.tree_leaves_with_path(model.params)
      if jax.tree_util.keystr(path, simple=True).endswith('_projection')
    ]
    self.assertEqual(sum(maps), derived.projection_params)
    held = sum(x.nbytes for x in model.architecture.constants.values())
    # What numbers need beside it is a part of the program.
    numbers = [plan.numeric for plan in derived.numeric if plan.numeric]
    held += sum(4 * own.num_constants for own in numbers)
    self.assertEqual(held, derived.index_bytes)
    self.assertEqual(sum(derived.field_sizes.values()), derived.vectors_total)
    # Settling is no draw: it gives the same again.
    self.assertEqual(pipeline.derive(_found(name), _data()), derived)

  @parameterized.parameters(*_ONE_EACH)
  def test_choices_and_weights_follow_rows_of_their_own_split(self, name):
    """A split whose rows are all padding moves nothing, bit for bit."""
    found, data = _found(name), _data()
    if any(s.split != 'valid' for s in found.selectors.values()):
      self.skipTest('Choices and weights follow one gradient here.')
    if name in _SETTLED:
      self.skipTest('Choices are settled after the search alone.')
    model = model_lib.build(found.space)
    settings = dataclasses.replace(_settings(), table_optimizer='sgd')
    optimizer = settings_lib.make_optimizer(settings, found.space)
    optimizer = optimizer._replace(dense=optax.sgd(0.1))
    selectors = {
      slot: s._replace(schedule=search.Schedule())
      for slot, s in found.selectors.items()
    }
    start = supernet.init(
      model,
      optimizer,
      selectors,
      state_lib.example_batch(data.schema),
      jax.random.key(0),
      0.1,
    )
    # Past every warm-up.
    late = start.train.replace(step=np.int32(_STEPS - 1))
    start = start.replace(train=late)
    train = batches.Batches(data.train, 50).batch(0, 0)
    valid = batches.Batches(data.valid, 50).batch(0, 0)
    padding = lambda batch: batch._replace(mask=np.zeros_like(batch.mask))
    step = jax.jit(supernet.make_step(model, optimizer, selectors))
    weights = lambda state: (state.train.params, state.train.tables)
    choices_alone = start
    for _ in range(2):  # The first may only set a baseline.
      choices_alone, _ = step(choices_alone, (padding(train), valid))
    self.assertTrue(_same(weights(choices_alone), weights(start)))
    self.assertFalse(_same(choices_alone.arch, start.arch))
    weights_alone, _ = step(start, (train, padding(valid)))
    self.assertFalse(_same(weights(weights_alone), weights(start)))
    if name not in _DECAYED:
      self.assertTrue(_same(weights_alone.arch, start.arch))

  @parameterized.parameters(*_METHODS)
  def test_rows_come_from_the_splits_that_they_belong_to(self, name):
    """The test split is never read; each batch is of one other split."""
    data, found = _data(), _found(name)
    rows = lambda split: {row.tobytes() for row in np.asarray(split.ids)}
    only_test = rows(data.test) - rows(data.train) - rows(data.valid)
    self.assertGreater(len(only_test), 20)
    kinds = set()
    for ids in _READ[name]:
      self.assertFalse(ids & only_test)
      is_train = bool(ids & (rows(data.train) - rows(data.valid)))
      is_valid = bool(ids & (rows(data.valid) - rows(data.train)))
      self.assertNotEqual(is_train, is_valid)
      kinds.add('train' if is_train else 'valid')
    bilevel = any(s.split == 'valid' for s in found.selectors.values())
    self.assertEqual(kinds, {'train', 'valid'} if bilevel else {'train'})

  @parameterized.parameters(*_RESUMED)
  def test_stopped_and_continued_ends_with_the_same_bits(self, name):
    """Though all labels of the test split are turned meanwhile."""
    expected = _found(name)
    workdir = self.create_tempdir().full_path
    data = _data()
    # Stops half-way; the second call continues.
    _search(name, data, num_steps=_STEPS // 2, workdir=workdir)
    data.test.labels[:] = 1 - data.test.labels
    found = _search(name, data, workdir=workdir)
    for part in ('arch', 'memory', 'arch_optimizer'):
      jax.tree.map(
        np.testing.assert_array_equal,
        getattr(found.state, part),
        getattr(expected.state, part),
      )
    jax.tree.map(
      np.testing.assert_array_equal,
      found.state.train.tables,
      expected.state.train.tables,
    )
    again = pipeline.derive(found, data)
    self.assertEqual(again.to_dict(), _derived(name).to_dict())

  @parameterized.parameters(*_METHODS)
  def test_choices_have_the_shapes_that_modules_read(self, name):
    """But for an axis of draws; what one weighs is per batch or per row."""
    found, data = _found(name), _data()
    model = model_lib.build(found.space)
    rows = 8
    batch = batches.Batches(data.train, rows).batch(0, 0)
    variables = jax.eval_shape(
      lambda: model.init(jax.random.key(0), batch, train=False)
    )
    for phase in ('weights', 'arch'):
      draws = supernet.sample_all(
        found.selectors,
        found.state.arch,
        found.state.memory,
        batch,
        phase,
        found.state.train.step,
        jax.random.key(0),
      )
      for slot, draw in draws.items():
        expected = variables['arch']
        for part in slot.split('/'):
          expected = expected[part]
        same = jax.tree.map(
          lambda x, y: x.shape[-y.ndim :] == y.shape and x.dtype == y.dtype,
          draw.choice,
          expected,
        )
        self.assertTrue(all(jax.tree.leaves(same)))
        for value in (draw.log_prob, draw.baseline, draw.cost):
          self.assertIn(np.shape(value), ((), (rows,)))
      self.assertEqual(
        supernet.surrogate(np.ones(rows, np.float32), draws).shape, (rows,)
      )

  @parameterized.parameters(*_METHODS)
  def test_records_are_plain_values(self, name):
    found = _found(name)
    for selector_slot, selector in found.selectors.items():
      values = selector.record(
        jax.device_get(found.state.arch[selector_slot]),
        jax.device_get(found.state.memory[selector_slot]),
      )
      self.assertEqual(json.loads(json.dumps(values)), values)

  def test_a_fresh_process_finds_no_array_of_the_full_size(self):
    names = (*_SHRINKING, *_NARROWED)
    directories = [self.create_tempdir().full_path for _ in names]
    models = [_narrowed(name) for name in names]
    for model, directory in zip(models, directories):
      models_lib.save(model, directory)
    lines = subprocess.run(
      [sys.executable, '-c', _LIST, *directories],
      cwd=pathlib.Path(__file__).parent.parent.parent,
      check=True,
      capture_output=True,
      text=True,
    ).stdout.splitlines()
    self.assertLen(lines, len(names))
    ids = sum(field.vocab_size for field in _data().schema.categorical)
    for name, model, line in zip(names, models, lines):
      largest, tables = map(int, line.split())
      self.assertLess(largest, 0.9 * model.architecture.dim * ids, name)
      self.assertEqual(tables, model.architecture.embedding_params)

  @parameterized.parameters(*_ORDERED)
  def test_fields_in_another_order_are_the_same_fields(self, name):
    """Outputs, what is settled, and steps where nothing is drawn."""
    order = (2, 0, 3, 1)
    move = _mover(_found(name).space, order)
    state, logits, derived = _moved(name, _data(), lambda array: array)
    other, again, rederived = _moved(name, _reordered(_data(), order), move)
    self.assertGreater(np.std(logits), 1e-2)
    np.testing.assert_allclose(again, logits, rtol=1e-4, atol=1e-5)
    by_name = lambda a: {plan.name: plan for plan in a.fields}
    self.assertEqual(by_name(rederived), by_name(derived))
    jax.tree.map(
      np.testing.assert_array_equal,
      dict(rederived.arrays),
      dict(derived.arrays),
    )
    if name in _WITHOUT_DRAWS:
      self.assertFalse(_same(state.arch, _found(name).state.arch))
      for part in (lambda s: s.arch, lambda s: s.train.tables):
        jax.tree.map(
          lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-5),
          part(other),
          jax.tree.map(move, jax.device_get(part(state))),
        )

  # Of AutoEmb the buckets, octaves of frequency, grow with its logarithm.
  @parameterized.parameters(*(name for name in _ONE_EACH if name != 'autoemb'))
  def test_no_step_costs_with_the_vocabulary(self, name):
    """Neither scratch memory nor work, nor a copy of what is donated."""
    small, large = (_compiled(name, vocab) for vocab in (2000, 50_000))
    memory = [c.memory_analysis() for c in (small, large)]
    self.assertEqual(*(m.temp_size_in_bytes for m in memory))
    for m in memory:
      fresh = m.output_size_in_bytes - m.alias_size_in_bytes
      self.assertLess(fresh, 1000)
    flops = [c.cost_analysis()['flops'] for c in (small, large)]
    self.assertLess(flops[1], 1.01 * flops[0])


def _compiled(name, vocab):
  """The program of a search's step over fields of some vocabulary."""
  make_space, make_selectors = _METHODS[name]
  schema = schema_lib.Schema(
    tuple(schema_lib.Field(f, vocab_size=vocab) for f in 'abcd')
  )
  space, settings = make_space(schema), _settings()
  selectors = make_selectors(space)
  model = model_lib.build(space)
  optimizer = settings_lib.make_optimizer(settings, space)
  batch = state_lib.example_batch(schema, 200)
  state = jax.eval_shape(
    lambda: supernet.init(model, optimizer, selectors, batch, jax.random.key(0))
  )
  program = parallel.compile_steps(
    supernet.make_step(model, optimizer, selectors)
  )
  stacked = jax.tree.map(lambda x: x[None], (batch, batch))
  return program.run.lower(state, stacked).compile()


if __name__ == '__main__':
  absltest.main()
