"""How fast a DeepFM training step is, beside the floor that its MLP sets.

Prints one JSON line per case: {"case", "vocab", "ms_per_step", "base_ms",
"ratio", "examples_per_second", "peak_bytes"}. Cases are interleaved, in rounds
over all of them, and medians taken, since the same step drifts by half between
runs on shared machines; `ratio` is the median over rounds of ms over those of
the floor, or of another case, in the same round. 39 fields, d = 16 (32 where
widths are searched), MLP 400 x 3, batch 4096, ids 1 / rank distributed.

  row_sparse      rows of the batch updated (row-wise Adagrad)
  dense           whole tables updated every step (Adam, as most libraries do)
  mlp_only        the same MLP on a resident [4096, 624] array, gradients of
                  weights and input, scanned alike: the floor
  plain           as row_sparse; the base of autofis_search
  autofis_search  the search step over all 741 pairs
  autofis_order_3 the same, and over all 9139 triples, with vectors of their own
  autogroup_plain 15, 130 and 180 groups of orders 1 to 3, of half the fields
  autogroup       the same groups, open; memberships every 10 steps
  fde_32          plain, d = 32; the base of the searches of widths
  autodim         five candidates, shared table, the logits every 10 steps
  autodim_first   the same in every step
  autodim_second  the same by the exact second order; its base is autodim_first
  nis, autoemb, sseds, autosrh, pep, optembed, dpq, mgqe
                  the steps of these methods
  stream_fixed    a stream of two fields of ids, every row at the width of 32
  esapn           the same with rows that grow

`--compare=vocab` takes each case at the first vocabulary as its base.

  python -m experiments.benchmark
  python -m experiments.benchmark --cases=row_sparse --vocab=1e8
  python -m experiments.benchmark --cases=autodim,autodim_second --vocab=1e5,1e7
"""

import functools
import itertools
import json
import random
import resource
import statistics
import subprocess
import sys
import time

from absl import flags

from experiments import cli
from jax_autorec import errors

_CASES = flags.DEFINE_list(
  'cases',
  ['mlp_only', 'row_sparse', 'dense', 'plain', 'autofis_search', 'huge'],
  'Cases; "huge" is row_sparse at 1e8 in a process of its own.',
)
_VOCAB = flags.DEFINE_list('vocab', ['1e5', '1e6', '1e7'], 'Vocabularies.')
_ROUNDS = flags.DEFINE_integer('rounds', 9, 'Rounds over all cases.')
_STEPS = flags.DEFINE_integer(
  'steps', 10, 'Steps per dispatch; a multiple of 10 for autodim.'
)
_COMPARE = flags.DEFINE_enum(
  'compare', 'case', ['case', 'vocab'], 'What the ratio is taken to.'
)
_CHECKPOINT = flags.DEFINE_string(
  'checkpoint', None, 'A directory to also save one checkpoint to (huge).'
)

_SIZES = flags.DEFINE_enum(
  'sizes',
  'log',
  ['log', 'equal'],
  'Vocabularies of the fields: log-spaced as in real logs, or all equal.',
)

_FIELDS, _DIM, _BATCH, _HIDDEN = 39, 16, 4096, (400, 400, 400)
_DIMS = (2, 8, 16, 24, 32)
_SMALLEST = 4  # Vocabulary of the smallest field.


def _schema(vocab, num_fields):
  """Fields of log-spaced or equal vocabularies that sum to `vocab`."""
  import numpy as np
  from scipy import optimize

  from jax_autorec import schema as schema_lib

  if _SIZES.value == 'equal':
    sizes = np.full(num_fields, vocab // num_fields)
  else:
    spaced = lambda log: np.geomspace(_SMALLEST, np.exp(log), num_fields)
    largest = optimize.brentq(lambda x: spaced(x).sum() - vocab, 0, 40)
    sizes = spaced(largest).astype(int)
  sizes[-1] += vocab - sizes.sum()
  return schema_lib.Schema(
    tuple(
      schema_lib.Field(f'field_{i}', vocab_size=int(size))
      for i, size in enumerate(sizes)
    )
  )


def _batches(schema, steps, seed=0):
  """Batches stacked [steps, B, ...] with ids of density 1 / rank."""
  import numpy as np

  from jax_autorec.types import Batch

  rng = np.random.default_rng(seed)
  sizes = np.array([field.vocab_size for field in schema.fields])
  uniform = rng.random((steps, _BATCH, len(sizes)))
  ids = np.minimum(np.floor(sizes**uniform) - 1, sizes - 1).astype(np.int32)
  shape = steps, _BATCH
  return Batch(
    ids=ids,
    numeric=np.zeros((*shape, 0), np.float32),
    missing=np.zeros((*shape, 0), bool),
    labels=(rng.random(shape) < 0.25).astype(np.float32),
    weights=np.ones(shape, np.float32),
    mask=np.ones(shape, bool),
  )


def _frequencies(schema):
  return {
    field.name: [0, 0, *range(field.vocab_size - 2, 0, -1)]
    for field in schema.categorical
  }


def _deepfm(schema, dim=_DIM, **options):
  from jax_autorec import spaces

  return spaces.deepfm(
    schema, dim=dim, hidden=_HIDDEN, norm='none', dropout=0.0, **options
  )


def _autofis(schema, **options):
  from jax_autorec import search
  from jax_autorec.optim import grda, grda_c

  tx = grda(1.0, grda_c(2.0, 0.6, 1.0, 0.8, 10_000), 0.8)
  space = _deepfm(schema, pairs='open', **options)
  return space, {'interactions': search.autofis(tx)}


def _autogroup(schema, is_open=True, **options):
  import optax

  from jax_autorec import group_spaces, search

  space = group_spaces.open_groups(_deepfm(schema), (15, 130, 180))
  if is_open:
    selector = search.autogroup(optax.adam(1e-3), **options)
    return space, {'interactions': selector}
  # Half of the fields each.
  names = [plan.name for plan in space.fields]
  members = {
    plan.name: [names[i % 2 :: 2] for i in range(plan.num_open)]
    for plan in space.interactions
  }
  return group_spaces.with_groups(space, members), None


def _autodim(schema, **options):
  import optax

  from jax_autorec import field_spaces, search

  selector = search.autodim(optax.adam(1e-3), 10_000, **options)
  return field_spaces.open_dims(_deepfm(schema, _DIMS[-1]), _DIMS), {
    'fields': selector
  }


def _nis(schema):
  import optax

  from jax_autorec import field_spaces, search

  columns = [b - a for a, b in itertools.pairwise((0, *_DIMS))]
  space = field_spaces.open_blocks(
    _deepfm(schema, _DIMS[-1]), (0.1, 0.2, 0.2, 0.2, 0.3), columns
  )
  budget = 0.25 * space.choice.all_entries
  selector = search.nis(optax.adam(1e-3), space.choice, 10_000, budget=budget)
  return space, {'fields': selector}


def _autoemb(schema):
  import optax

  from jax_autorec import field_spaces, search

  space = field_spaces.open_buckets(
    _deepfm(schema, _DIMS[-1]), _DIMS, _frequencies(schema)
  )
  counts = [[2.0**-k for k in range(len(s))] for s in space.choice.starts]
  return space, {'fields': search.autoemb(optax.adam(1e-3), counts)}


def _sseds(schema):
  from jax_autorec import field_spaces, search

  space = field_spaces.open_columns(_deepfm(schema, _DIMS[-1]))
  return space, {'fields': search.sseds(0.1)}


def _autosrh(schema):
  from jax_autorec import field_spaces, search

  space = field_spaces.open_columns(_deepfm(schema, _DIMS[-1]), 10)
  return space, {'fields': search.autosrh()}


def _pep(schema):
  import optax

  from jax_autorec import field_spaces, search

  space = field_spaces.open_thresholds(_deepfm(schema, _DIMS[-1]))
  return space, {'fields': search.pep(optax.adam(1e-3))}


def _optembed(schema):
  import optax

  from jax_autorec import field_spaces, search

  space = field_spaces.open_row_mask(_deepfm(schema, _DIMS[-1]))
  return space, {'fields': search.optembed(optax.sgd(1e-3))}


def _quantized(schema, kind, tiers):
  from jax_autorec import quantization

  plain = _deepfm(schema, _DIMS[-1])
  return quantization.quantize(plain, kind, 16, tiers), None


def _stream(schema, grows):
  import optax

  from jax_autorec import field_spaces, search, spaces

  plain = spaces.rater(schema, dim=_DIMS[-1])
  if not grows:
    return plain, search.fixed()
  return field_spaces.open_rows(plain, _DIMS), search.esapn(optax.adam(1e-3))


# Name -> (space and selectors of a schema, name of its base); of a stream, its
# method in place of selectors.
_CASE_TABLE = {
  'row_sparse': (lambda s: (_deepfm(s), None), 'mlp_only'),
  'dense': (lambda s: (_deepfm(s), None), 'mlp_only'),
  'plain': (lambda s: (_deepfm(s), None), 'mlp_only'),
  'autofis_search': (_autofis, 'plain'),
  'autofis_order_3': (functools.partial(_autofis, triples='open'), 'plain'),
  'autogroup': (functools.partial(_autogroup, period=10), 'autogroup_plain'),
  'autogroup_plain': (functools.partial(_autogroup, is_open=False), 'plain'),
  'fde_32': (lambda s: (_deepfm(s, _DIMS[-1]), None), 'mlp_only'),
  'autodim': (functools.partial(_autodim, period=10), 'fde_32'),
  'autodim_first': (functools.partial(_autodim, period=1), 'fde_32'),
  'autodim_second': (
    functools.partial(_autodim, period=1, inner_rate=1.0),
    'autodim_first',
  ),
  'nis': (_nis, 'fde_32'),
  'autoemb': (_autoemb, 'fde_32'),
  'sseds': (_sseds, 'fde_32'),
  'autosrh': (_autosrh, 'fde_32'),
  'pep': (_pep, 'fde_32'),
  'optembed': (_optembed, 'fde_32'),
  'dpq': (lambda s: _quantized(s, 'sx', [(1.0, 32)]), 'fde_32'),
  'mgqe': (lambda s: _quantized(s, 'vq', [(0.1, 64), (0.9, 16)]), 'fde_32'),
  'stream_fixed': (functools.partial(_stream, grows=False), 'mlp_only'),
  'esapn': (functools.partial(_stream, grows=True), 'stream_fixed'),
}


class _Case:
  """A compiled program with its state: `run` does one dispatch."""

  def __init__(self, name, vocab, steps):
    import jax

    from jax_autorec.nn import model as model_lib
    from jax_autorec.search import online, supernet
    from jax_autorec.train import parallel
    from jax_autorec.train import settings as settings_lib
    from jax_autorec.train import state as state_lib
    from jax_autorec.train import steps as steps_lib

    self.name, self.vocab, self.steps = name, vocab, steps
    make, self.base = _CASE_TABLE[name]
    is_stream = 'stream_fixed' in (name, self.base)
    schema = _schema(vocab, 2 if is_stream else _FIELDS)
    architecture, method = make(schema)
    settings = settings_lib.Settings(
      batch_size=_BATCH,
      table_optimizer='dense_adam' if name == 'dense' else 'rowwise_adagrad',
      clip_norm=None,
    )
    model = model_lib.build(architecture)
    optimizer = settings_lib.make_optimizer(settings, architecture)
    example = state_lib.example_batch(schema)
    key = jax.random.key(0)
    batches = _batches(schema, steps)
    if is_stream:
      tools = online.tools(model, optimizer, 'log')
      self.state = online.init(tools, method, example, steps * _BATCH, key)
      step = online.make_step(tools, method, 'log')
      batches = (batches, _batches(schema, steps, seed=1))
    elif method:
      self.state = supernet.init(model, optimizer, method, example, key)
      step = supernet.make_step(model, optimizer, method)
      bilevel = any(s.split == 'valid' for s in method.values())
      other = _batches(schema, steps, seed=1) if bilevel else None
      batches = (batches, other)
    else:
      self.state, _ = state_lib.init(model, optimizer, example, key)
      step = steps_lib.make_train_step(model, optimizer)
    self._program = parallel.compile_steps(step)
    self._batches = jax.device_put(batches)
    self.run()

  def run(self):
    import jax

    start = time.perf_counter()
    self.state, metrics = self._program.run(self.state, self._batches)
    jax.block_until_ready((self.state, metrics))
    return 1e3 * (time.perf_counter() - start) / self.steps


class _Floor:
  """The MLP alone."""

  def __init__(self, steps):
    import jax
    import jax.numpy as jnp
    import optax

    from jax_autorec.nn import blocks

    self.name, self.vocab, self.steps = 'mlp_only', 0, steps
    mlp = blocks.MLP(_HIDDEN)
    x = jax.random.normal(jax.random.key(0), (_BATCH, _FIELDS * _DIM))
    mask = jnp.ones((_BATCH,), bool)
    params = mlp.init(jax.random.key(1), x, mask, train=False)
    labels = (jax.random.uniform(jax.random.key(2), (_BATCH,)) < 0.25) * 1.0

    def step(carry, _):
      params, x = carry

      def loss(params, x):
        logits = mlp.apply(params, x, mask, train=True)
        return optax.sigmoid_binary_cross_entropy(logits, labels).mean()

      grads = jax.grad(loss, argnums=(0, 1))(params, x)
      carry = jax.tree.map(lambda p, g: p - 1e-3 * g, carry, grads)
      return carry, ()

    self._run = jax.jit(
      lambda carry: jax.lax.scan(step, carry, None, length=steps)[0],
      donate_argnums=0,
    )
    self._carry = params, x
    self.run()

  def run(self):
    import jax

    start = time.perf_counter()
    self._carry = jax.block_until_ready(self._run(self._carry))
    return 1e3 * (time.perf_counter() - start) / self.steps


def _print(case, times, base, peak=None):
  ms = statistics.median(times)
  ratios = [a / b for a, b in zip(times, base)] if base else []
  line = {
    'case': case.name,
    'vocab': case.vocab,
    'ms_per_step': round(ms, 3),
    'base_ms': round(statistics.median(base), 3) if base else None,
    'ratio': round(statistics.median(ratios), 4) if base else None,
    'examples_per_second': round(_BATCH / ms * 1e3),
    'peak_bytes': peak or _peak(),
  }
  print(json.dumps(line), flush=True)


def _peak():
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _huge(vocab):
  """One large vocabulary, with its memory: alone in this process."""
  floor = _Floor(_STEPS.value)
  case = _Case('row_sparse', vocab, _STEPS.value)
  times = [(case.run(), floor.run()) for _ in range(_ROUNDS.value)]
  if _CHECKPOINT.value:
    from jax_autorec.train import checkpoints

    saved = checkpoints.Checkpoints(_CHECKPOINT.value)
    saved.save(1, case.state, {})
    saved.close()
  _print(case, [t for t, _ in times], [b for _, b in times])


def _names() -> list[str]:
  """Cases to time, with those that they are measured against."""
  names = [n for n in _CASES.value if n not in ('mlp_only', 'huge')]
  if _COMPARE.value == 'case':
    for name in names:
      base = _CASE_TABLE[name][1]
      if base != 'mlp_only' and base not in names:
        names.append(base)
  return names


def main(argv: list[str]) -> None:
  """Runs the cases."""
  del argv
  known = {'mlp_only', 'huge', *_CASE_TABLE}
  unknown = set(_CASES.value) - known
  if unknown:
    raise errors.ConfigError(
      f'No case {sorted(unknown)}; the cases are: {", ".join(sorted(known))}.'
    )
  vocabularies = [int(float(v)) for v in _VOCAB.value]
  if _CASES.value == ['huge']:
    _huge(vocabularies[0])
    return
  floor = _Floor(_STEPS.value)
  cases = [floor]
  for name in _names():
    # What is to be shown not to depend on the vocabulary is timed at all.
    is_swept = name in ('row_sparse', 'dense') or _COMPARE.value == 'vocab'
    swept = vocabularies if is_swept else vocabularies[:1]
    cases += [_Case(name, vocab, _STEPS.value) for vocab in swept]
  times = {(case.name, case.vocab): [] for case in cases}
  order = random.Random(0)
  for _ in range(_ROUNDS.value):
    # What runs before a case is not always the same, nor kind to it.
    for case in order.sample(cases, len(cases)):
      times[case.name, case.vocab].append(case.run())
  for case in cases:
    base = (floor.name, floor.vocab)
    if _COMPARE.value == 'vocab' and case is not floor:
      base = case.name, vocabularies[0]
    elif case is not floor and case.base != floor.name:
      base = case.base, vocabularies[0]
    _print(case, times[case.name, case.vocab], times[base])
  if 'huge' in _CASES.value:
    # Its own process: memory is the question, and the peak is per process.
    cases.clear()
    import tempfile

    with tempfile.TemporaryDirectory() as directory:
      subprocess.run(
        [
          sys.executable,
          '-m',
          'experiments.benchmark',
          '--cases=huge',
          '--vocab=1e8',
          '--rounds=3',
          f'--checkpoint={directory}/checkpoint',
        ],
        check=True,
      )


if __name__ == '__main__':
  cli.run(main)
