"""How fast a DeepFM training step is, beside the floor that its MLP sets.

Prints one JSON line per case: {"case", "vocab", "ms_per_step", "base_ms",
"ratio", "examples_per_second", "peak_bytes"}. Cases are interleaved, in rounds
over all of them, and medians taken, since the same step drifts by half between
runs on shared machines; `ratio` is the median over rounds of ms over those of
the floor in the same round. 39 fields, d = 16, MLP 400 x 3, batch 4096, ids
1 / rank distributed.

  row_sparse      rows of the batch updated (row-wise Adagrad)
  dense           whole tables updated every step (Adam, as most libraries do)
  mlp_only        the same MLP on a resident [4096, 624] array, gradients of
                  weights and input, scanned alike: the floor
  plain           as row_sparse; the base of autofis_search
  autofis_search  the search step over all 741 pairs

  python -m experiments.benchmark
  python -m experiments.benchmark --cases=row_sparse --vocab=1e8
"""

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
_STEPS = flags.DEFINE_integer('steps', 8, 'Steps per dispatch.')
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
_SMALLEST = 4  # Vocabulary of the smallest field.


def _schema(vocab):
  """Fields of log-spaced or equal vocabularies that sum to `vocab`."""
  import numpy as np
  from scipy import optimize

  from jax_autorec import schema as schema_lib

  if _SIZES.value == 'equal':
    sizes = np.full(_FIELDS, vocab // _FIELDS)
  else:
    spaced = lambda log: np.geomspace(_SMALLEST, np.exp(log), _FIELDS)
    largest = optimize.brentq(lambda x: spaced(x).sum() - vocab, 0, 40)
    sizes = spaced(largest).astype(int)
  sizes[-1] += vocab - sizes.sum()
  return schema_lib.Schema(
    tuple(
      schema_lib.Field(f'field_{i}', vocab_size=int(size))
      for i, size in enumerate(sizes)
    )
  )


def _batches(schema, steps):
  """Batches stacked [steps, B, ...] with ids of density 1 / rank."""
  import numpy as np

  from jax_autorec.types import Batch

  rng = np.random.default_rng(0)
  sizes = np.array([field.vocab_size for field in schema.fields])
  uniform = rng.random((steps, _BATCH, _FIELDS))
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


class _Case:
  """A compiled program with its state: `run` does one dispatch."""

  def __init__(self, name, vocab, steps):
    import jax

    from jax_autorec import spaces
    from jax_autorec.nn import model as model_lib
    from jax_autorec.optim import grda, grda_c
    from jax_autorec.search import autofis, supernet
    from jax_autorec.train import parallel
    from jax_autorec.train import settings as settings_lib
    from jax_autorec.train import state as state_lib
    from jax_autorec.train import steps as steps_lib

    self.name, self.vocab, self.steps = name, vocab, steps
    schema = _schema(vocab)
    search = name == 'autofis_search'
    architecture = spaces.deepfm(
      schema,
      dim=_DIM,
      hidden=_HIDDEN,
      norm='none',
      dropout=0.0,
      pairs='open' if search else 'fm',
    )
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
    if search:
      selectors = {
        'interactions': autofis(
          grda(1.0, grda_c(2.0, 0.6, 1.0, 0.8, 10_000), 0.8)
        )
      }
      self.state = supernet.init(model, optimizer, selectors, example, key)
      step = supernet.make_step(model, optimizer, selectors)
      batches = (batches, None)
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


def main(argv: list[str]) -> None:
  """Runs the cases."""
  del argv
  known = set(flags.FLAGS['cases'].default)
  unknown = set(_CASES.value) - known
  if unknown:
    raise errors.ConfigError(
      f'No case {sorted(unknown)}; the cases are: {", ".join(sorted(known))}.'
    )
  vocabularies = [int(float(v)) for v in _VOCAB.value]
  if _CASES.value == ['huge']:
    _huge(vocabularies[0])
    return
  cases = [_Floor(_STEPS.value)]
  names = list(_CASES.value)
  if 'autofis_search' in names and 'plain' not in names:
    names.append('plain')  # What it is measured against.
  for name in names:
    if name in ('row_sparse', 'dense'):
      cases += [_Case(name, vocab, _STEPS.value) for vocab in vocabularies]
    elif name in ('plain', 'autofis_search'):
      cases.append(_Case(name, vocabularies[0], _STEPS.value))
  times = {id(case): [] for case in cases}
  order = random.Random(0)
  for _ in range(_ROUNDS.value):
    # What runs before a case is not always the same, nor kind to it.
    for case in order.sample(cases, len(cases)):
      times[id(case)].append(case.run())
  floor = times[id(cases[0])]
  plain = [times[id(c)] for c in cases if c.name == 'plain']
  for case in cases:
    base = plain[0] if case.name == 'autofis_search' else floor
    _print(case, times[id(case)], base)
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
