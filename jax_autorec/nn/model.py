"""A click-through-rate model from an architecture."""

from collections.abc import Mapping
import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from jax_autorec import architecture as arch_lib
from jax_autorec.nn import (
  blocks,
  embeddings,
  field_choices,
  interactions,
)
from jax_autorec.types import Array, Batch

EMBEDDINGS = 'embeddings'  # Scope of tables and numeric vectors in 'params'.
FIELDS = 'fields'  # Scope of what is open about field vectors.
MLP = 'mlp'  # Scope of the hidden layers and the output layer.
SQUASH = 'squash'  # Scope of the normalisation of field vectors.


class CTRModel(nn.Module):
  """Embedding stage -> interaction stage -> head.

  Collections: 'params'; 'batch_stats'; 'arch' while choices are open;
  'constants' where the architecture has arrays; 'losses', of quantised fields:
  what is added to the loss, this replica's part.

  Attributes:
    architecture: what to build.
    axis_name: replica axis; None except under `pmap`.
  """

  architecture: arch_lib.Architecture
  axis_name: str | None = None

  @nn.compact
  def __call__(
    self,
    batch: Batch,
    *,
    train: bool = False,
    rows: Mapping[str, Array] | None = None,
  ) -> Array:
    """Logits [B] of a batch.

    Args:
      batch: B rows; labels and weights are not read.
      train: batch statistics and dropout; needs an rng 'dropout' then.
      rows: gathered rows in place of the tables (`lookups.lookup`).
    """
    plan = self.architecture
    choice = None
    if plan.choice is not None:
      choice = field_choices.build(
        plan.choice, plan.categorical, self.axis_name, name=FIELDS
      )
    views = embeddings.FieldEmbeddings(
      plan, choice, self.axis_name, name=EMBEDDINGS
    )(batch, rows, train=train)
    batch_size = batch.ids.shape[0]
    if plan.squash and 'main' in views:
      vectors = views['main']
      flat = vectors.reshape(batch_size, math.prod(vectors.shape[1:]))
      norm = blocks.BatchNorm(axis_name=self.axis_name, name=SQUASH)
      flat = norm(flat, batch.mask, train=train)
      views['main'] = jnp.tanh(flat).reshape(vectors.shape)
    logits = jnp.zeros((batch_size,), jnp.float32)
    sent = {'head': [], 'output': []}
    if plan.head.hidden and plan.head.flat_embeddings and 'main' in views:
      width = len(plan.vector_fields) * plan.dim
      sent['head'].append(views['main'].reshape(batch_size, width))
    if 'numbers' in views and plan.head.hidden:
      sent['head'].append(views['numbers'])
    elif 'numbers' in views:
      # Without an MLP they can but be weighed.
      numbers = nn.Dense(1, use_bias=False, name='numbers')(views['numbers'])
      logits = logits + numbers[:, 0]
    stage = interactions.InteractionStage(
      plan, self.axis_name, name='interactions'
    )
    outputs = stage(views, batch.mask, train=train)
    for interaction, output in zip(plan.interactions, outputs):
      if interaction.to == 'logit':
        logits = logits + output
      else:
        sent[interaction.to].append(output)
    if plan.head.first_order:
      logits = logits + views['first_order'].sum(1)
    if plan.head.hidden or sent['output']:
      logits = logits + blocks.MLP(
        plan.head.hidden,
        plan.head.norm,
        plan.head.dropout,
        plan.head.activation,
        plan.head.norm_inputs,
        self.axis_name,
        candidates=plan.head.candidates,
        name=MLP,
      )(sent['head'], batch.mask, train=train, beside=sent['output'])
    elif not any(interaction.has_offset for interaction in plan.interactions):
      logits = logits + self.param('bias', nn.initializers.zeros, (1,))
    return logits


def build(
  architecture: arch_lib.Architecture, *, axis_name: str | None = None
) -> CTRModel:
  """The model of an architecture: a supernet where choices are open."""
  return CTRModel(architecture, axis_name)


def constants(architecture: arch_lib.Architecture) -> dict[str, Array]:
  """The arrays that look-ups of an architecture need, on a device."""
  return {
    name: jnp.asarray(array) for name, array in architecture.constants.items()
  }


def constants_collection(arrays: Mapping[str, Array]) -> dict[str, Any]:
  """The collection that they are for `apply`; nothing where there are none."""
  return {'constants': {EMBEDDINGS: dict(arrays)}} if arrays else {}
