"""AutoFIS: keep the field products whose gates survive a sparse optimiser.

Liu et al., KDD 2020, arXiv:2003.11235. Search is single-level: gates and
weights both follow the training loss, from one forward and backward pass
(the official code's two optimisers race within one call; here the update is
simultaneous). All gates start at 0.6; the official code spreads them by .001
around it. Surviving gates are trained anew together with the weights.

The variant of AutoGate in Vega (the same authors') is here too: gates follow
Adam, none closes by itself, and the largest are kept. (There they also start at
0 and pass a tanh, which only bounds them; here they are the same as above.)
"""

import dataclasses

from absl import logging
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jax_autorec import errors
from jax_autorec import interactions as interactions_lib
from jax_autorec.search import base


def autofis(
  tx: optax.GradientTransformation,
  *,
  keep: float | None = None,
  keep_gates: bool = False,
) -> base.Selector:
  """Selects products by driving the gates of the others to exactly zero.

  Args:
    tx: optimiser of the gates; it must reach exact zeros, as GRDA does, unless
      `keep` is given.
    keep: share of each order's products to keep, at least one: those of the
      largest gates, whatever their sign. None for those whose gates are not 0.
    keep_gates: whether retraining starts from the gates that the search
      found. The paper speaks of keeping them; its code, and the default here,
      starts them at 0.6 again.

  Returns:
    A selector for the 'interactions' slot: all its open products, pairs and
    triples alike.
  """
  errors.expect(
    keep is None or 0 < keep <= 1,
    'keep of AutoFIS',
    keep,
    'more than 0 and at most 1, or None',
  )

  def init(choice, key, train):
    del key, train  # Gates start where the module put them.
    return jax.tree.map(jnp.array, choice), ()

  def sample(arch, memory, batch, phase, step, key):
    del memory, batch, phase, step, key
    return base.Draw(choice=arch)

  def derive(arch, memory, context):
    del memory
    architecture = context.architecture
    kept_plans, num_gates = [], 0
    for plan in architecture.interactions:
      if not interactions_lib.has_open_gates(plan):
        kept_plans.append(plan)
        continue
      gates = np.asarray(arch[plan.name]['gate'])
      num_gates += len(gates)
      kept = np.flatnonzero(gates)
      if keep is not None:
        # Of equal gates the first.
        count = max(1, round(keep * len(gates)))
        kept = np.sort(np.argsort(-np.abs(gates), kind='stable')[:count])
      if len(kept):
        kept_plans.append(_close(plan, gates, kept, keep_gates))
    if num_gates and not any(
      isinstance(plan, interactions_lib.Products) for plan in kept_plans
    ):
      logging.warning(
        'AutoFIS closed all %d gates: what is left is the model without '
        'products. Lower `search.ratio` (or `c` of the gate optimiser), or '
        'search fewer steps, to keep some.',
        num_gates,
      )
    return dataclasses.replace(architecture, interactions=tuple(kept_plans))

  def record(arch, memory):
    del memory
    gates = {name: leaf['gate'].tolist() for name, leaf in arch.items()}
    return {'gates': gates}

  return base.Selector(
    init, sample, base.unchanged, derive, tx, split='train', record=record
  )


def _close(plan, gates, kept, keep_gates):
  return dataclasses.replace(
    plan,
    terms=tuple(plan.terms[i] for i in kept),
    gates='weights',
    initial_gates=tuple(float(gates[i]) for i in kept) if keep_gates else (),
  )
