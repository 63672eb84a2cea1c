"""The interactions of an architecture, each by the module of its kind."""

from collections.abc import Callable, Mapping, Sequence

import flax.linen as nn

from jax_autorec import architecture as arch_lib
from jax_autorec import fields as fields_lib
from jax_autorec import interactions as plans
from jax_autorec.fields import FieldPlan
from jax_autorec.nn import (
  attention,
  block_graph,
  crosses,
  groups,
  pairs,
  products,
  towers,
)
from jax_autorec.types import Array

# (views, mask [B], train=bool) -> [B] to the logit, [B, K] elsewhere.
Run = Callable[..., Array]

_GATE_COLLECTIONS = {'none': None, 'weights': 'params', 'open': 'arch'}


def _fm(plan, fields, axis_name):
  del plan, fields, axis_name
  return lambda views, mask, *, train: products.fm_sum(views['main'])


def _products(plan, fields, axis_name):
  known = fields_lib.with_vectors(fields)
  index = {field.name: place for place, field in enumerate(known)}
  module = products.Products(
    terms=tuple(tuple(index[n] for n in term) for term in plan.terms),
    normalize=plan.normalize,
    gates=_GATE_COLLECTIONS[plan.gates],
    gate_init=plan.initial_gates or plan.gate_init,
    axis_name=axis_name,
    name=plan.name,
  )
  run = module.total if plan.to == 'logit' else module
  (view,) = plan.views(fields)
  return lambda views, mask, *, train: run(views[view.name], mask, train=train)


def _named(module):
  """The module in the scope of its interaction."""
  return lambda plan, *options: module(plan, *options, name=plan.name)


def _blocks(plan, fields, axis_name):
  del axis_name  # No block has statistics of a batch.
  dim = max(field.dim for field in fields)
  module = block_graph.BlockGraph(
    plan.blocks, plan.ends(fields), dim, name=plan.name
  )
  names = {view.kind: view.name for view in plan.views(fields)}

  def run(views, mask, *, train):
    del mask, train
    read = {kind: views[name] for kind, name in names.items()}
    if 'vectors' in read:
      read['vectors'] = towers.of_ids(read['vectors'], fields)
    return module(read)

  return run


def _groups(plan, fields, axis_name):
  names = plan.members(fields)
  index = {name: place for place, name in enumerate(names)}
  members = tuple(tuple(index[n] for n in group) for group in plan.groups)
  module = groups.Groups(
    order=plan.order,
    num_fields=len(names),
    members=members or plan.num_open,
    form=plan.form,
    compensation=plan.compensation,
    normalize=plan.normalize,
    axis_name=axis_name,
    name=plan.name,
  )
  return lambda views, mask, *, train: module(
    views[plan.name], mask, train=train
  )


# Kind of a plan -> what makes its module, or else its output, of the plan, the
# fields of the architecture and the replica axis.
MODULES: dict[str, Callable[..., Run]] = {
  'fm': _fm,
  'products': _products,
  'field_aware': _named(pairs.FieldAware),
  'field_weighted': _named(pairs.FieldWeighted),
  'field_matrixed': _named(pairs.FieldMatrixed),
  'polynomial': _named(crosses.Polynomial),
  'attentional_pooling': _named(pairs.AttentionalPooling),
  'cross': _named(crosses.Cross),
  'compressed': _named(crosses.Compressed),
  'self_attention': _named(attention.SelfAttention),
  'bilinear': _named(pairs.Bilinear),
  'mask_blocks': _named(towers.MaskBlocks),
  'two_towers': _named(towers.TwoTowers),
  'numbers_and_vectors': _named(towers.NumbersAndVectors),
  'blocks': _blocks,
  'groups': _groups,
}


def build(
  plan: plans.Interaction,
  fields: Sequence[FieldPlan],
  axis_name: str | None = None,
) -> Run:
  """What makes the output of one interaction; to be called in a module.

  Args:
    plan: of the interaction.
    fields: of the architecture; the order of vectors in views is that of those
      that have any.
    axis_name: replica axis; None except under `pmap`.

  Returns:
    (views, mask bool [B], train=bool) -> [B] where `plan.to` is 'logit', else
    [B, K].
  """
  return MODULES[plan.kind](plan, fields, axis_name)


class InteractionStage(nn.Module):
  """The explicit interactions of an architecture, by name.

  Attributes:
    architecture: its `interactions`.
    axis_name: replica axis; None except under `pmap`.
  """

  architecture: arch_lib.Architecture
  axis_name: str | None = None

  @nn.compact
  def __call__(
    self, views: Mapping[str, Array], mask: Array, *, train: bool
  ) -> list[Array]:
    """Per interaction, in their order: [B] to the logit, [B, K] elsewhere."""
    plan = self.architecture
    return [
      build(interaction, plan.fields, self.axis_name)(views, mask, train=train)
      for interaction in plan.interactions
    ]
