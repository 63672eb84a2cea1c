"""PEP: entries are pruned while they are trained, by learnt thresholds.

Liu et al., 'Learnable Embedding Sizes for Recommender Systems', ICLR 2021,
arXiv:2101.07577. An entry v is read as sign(v) relu(|v| - sigmoid(s)); the
thresholds s follow the training loss together with the weights, and a decay
that raises them. Once the share of entries that are not zero falls to a target
the pattern is kept, and retrained from where its entries first started (a
lottery ticket).

The pattern is unstructured (`search.patterns`): its bits count.

Deviations from the authors' code:
- s starts at -10, not -150, where sigmoid(s) and its gradient are zero in
  float32 and nothing but Adam's decay moves s: some 140,000 steps at their
  rate. It has a learning rate of its own, and its decay is part of its gradient
  (coupled): decoupled, it would not move either.
- The granularity is named. Theirs is told from the shape of s, which mistakes
  a width equal to the number of fields.
- An id's own s is what it adds to a shared one. Only the rows of a batch are
  updated, so a rare id's whole s would hardly rise; the shared part does.
- Density is measured at evaluations, so the search can end below its target;
  entries are then taken back by falling |v| - sigmoid(s), and the target is met
  exactly, a budget as `patterns.keep_largest` can.
- Everything is judged on the validation split, by an exact AUC (theirs: the
  mean over batches of the test split).
"""

from absl import logging
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jax_autorec import choices as choices_lib
from jax_autorec.search import base, patterns


def pep(
  tx: optax.GradientTransformation,
  *,
  density: float = 0.1,
  max_params: float | None = None,
) -> base.Selector:
  """Selects the entries that outlast their thresholds.

  Args:
    tx: optimiser of s. Weights grow while thresholds do, so s has to move
      faster than they. (A rate of some 60 over the number of steps is from
      trials that were not recorded.) Its decay, `optax.add_decayed_weights`,
      comes before Adam.
    density: share of the entries that is kept.
    max_params: budget of `ep_total` in place of `density`.

  Returns:
    A selector for the slot 'fields' of `field_spaces.open_thresholds`.
  """
  patterns.check(density, max_params)

  def init(choice, key, train):
    del key, train
    return jax.tree.map(jnp.array, choice), ()

  def sample(arch, memory, batch, phase, step, key):
    del memory, batch, phase, step, key
    return base.Draw(choice=arch)

  def margins(arch, context):
    """Blocks of |v| - sigmoid(s), above 0 where an entry is not zero."""
    space, tables = context.architecture, context.train.tables
    own = tables.get(choices_lib.ROW_CHOICE)
    sizes = [plan.vocab_size for plan in space.categorical]
    ends, threshold = np.cumsum(sizes), np.asarray(arch['threshold'])
    for start, rows in patterns.rows(tables[patterns.main_table(space)]):
      places = np.arange(start, start + len(rows))
      one = threshold
      if len(threshold) > 1:
        one = threshold[np.searchsorted(ends, places, 'right')]
      if own is not None:
        added = np.asarray(own[start : start + len(rows)])
        one = one + space.choice.row_scale * added
      yield (np.abs(rows) - _sigmoid(one)).astype(np.float32)

  def count(arch, context):
    """Entries that are not zero, by field [F]; all entries."""
    space = context.architecture
    kept = np.zeros(len(space.categorical), np.int64)
    for fields, block in patterns.by_field(space, margins(arch, context)):
      np.add.at(kept, fields, (block > 0).sum(1))
    return kept, sum(p.vocab_size for p in space.categorical) * space.dim

  def measure(arch, memory, context):
    del memory
    kept, entries = count(arch, context)
    share = float(kept.sum() / entries)
    space = context.architecture
    ends = patterns.is_reached(space, kept, density, max_params)
    return {'density': share}, ends

  def derive(arch, memory, context):
    space = context.architecture
    initial = context.initial and context.initial()
    found = patterns.keep_largest(
      space,
      lambda: margins(arch, context),
      density,
      max_params,
      initial and initial[patterns.main_table(space)],
    )
    kept, entries = count(arch, context)
    if not patterns.is_reached(space, kept, density, max_params):
      logging.warning(
        'PEP has %d of %d entries left, more than are to be kept: the %d of '
        'the largest margins are. Raise search.travel or search.decay, or '
        'search longer.',
        *(kept.sum(), entries, sum(p.num_values for p in found.categorical)),
      )
    return found

  def record(arch, memory):
    del memory
    values = _sigmoid(arch['threshold']).reshape(-1).tolist()
    return {'levels': {'thresholds': values}}

  return base.Selector(
    init,
    sample,
    base.unchanged,
    derive,
    tx,
    split='train',
    record=record,
    measure=measure,
    check=lambda space: patterns.check_space(space, max_params),
  )


def _sigmoid(values):
  return 1 / (1 + np.exp(-np.asarray(values, np.float32)))
