"""Interactions made of MLPs: mask blocks, two towers, numbers and vectors."""

import dataclasses
from typing import ClassVar

from jax_autorec import errors, fields
from jax_autorec.interactions import base

MODES = ('serial', 'parallel')
PRODUCTS = ('dot', 'cat')


@dataclasses.dataclass(frozen=True)
class MaskBlocks(base.Interaction):
  """Layers whose inputs are masked by a network of the field vectors.

  (MaskNet; Wang et al., DLP-KDD 2021.) A block is relu(norm((h * mask) W)),
  mask a network of one hidden layer of the flat vectors.

  Attributes:
    mode: 'serial': each block's output is the next one's h; 'parallel': h is
      the flat vectors for all, and their outputs are joined.
    sizes: widths of the blocks.
    reduction: width of a mask's hidden layer, in widths of h.
    layer_norm: whether blocks have layer normalisation, before relu.
    norm_vectors: layer normalisation of each field's vector in the first h.
    dropout: share of a block's outputs that training drops.
  """

  kind: ClassVar[str] = 'mask_blocks'
  name: str = 'mask_blocks'
  mode: str = 'parallel'
  sizes: tuple[int, ...] = (64, 64, 64)
  reduction: float = 2.0
  layer_norm: bool = True
  norm_vectors: bool = False
  dropout: float = 0.0
  to: str = 'head'

  def __post_init__(self):
    object.__setattr__(self, 'sizes', tuple(self.sizes))
    base.check_target(self, 'head', 'output')
    fields.check(self.mode, MODES, f'Mode of {self.name!r}')
    base.check_sizes(self, 'sizes', self.sizes)
    base.check_dropout(self, self.dropout)
    if self.reduction <= 0:
      raise errors.ConfigError(
        f'Reduction of {self.name!r} is {self.reduction}; expected more than 0.'
      )


@dataclasses.dataclass(frozen=True)
class TwoTowers(base.Interaction):
  """Two MLPs of gated field vectors and their products, head by head.

  (FinalMLP; Mao et al., AAAI 2023): o1 . w1 + o2 . w2 + the sum over heads of
  o1_h^T W_h o2_h, with offsets. Before each tower the flat vectors are
  multiplied by 2 sigmoid(gate), a network of a context.

  Attributes:
    hidden: of both towers, the widths of their layers.
    norm: of the towers; 'none', 'batch' or 'layer'.
    dropout: of both towers.
    gate_hidden: widths of the hidden layers of gates; None for no gates.
    contexts: of both gates, the fields whose vectors, from tables of their
      own, are its context; without any, a trained vector.
    heads: of the products; both towers' last widths are multiples.
  """

  kind: ClassVar[str] = 'two_towers'
  name: str = 'towers'
  hidden: tuple[tuple[int, ...], tuple[int, ...]] = ((64,), (64,))
  norm: str = 'none'
  dropout: tuple[float, float] = (0.0, 0.0)
  gate_hidden: tuple[int, ...] | None = (64,)
  contexts: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
  heads: int = 1
  to: str = 'logit'

  def __post_init__(self):
    object.__setattr__(self, 'hidden', tuple(map(tuple, self.hidden)))
    object.__setattr__(self, 'contexts', tuple(map(tuple, self.contexts)))
    object.__setattr__(self, 'dropout', tuple(self.dropout))
    if self.gate_hidden is not None:
      object.__setattr__(self, 'gate_hidden', tuple(self.gate_hidden))
    base.check_target(self, 'logit')
    fields.check(self.norm, base.NORMS, f'Norm of {self.name!r}')
    for what in ('hidden', 'contexts', 'dropout'):
      if len(getattr(self, what)) != 2:
        raise errors.ConfigError(
          f'{what!r} of {self.name!r} is {getattr(self, what)}; expected one '
          'value for each of two towers.'
        )
    for hidden, dropout in zip(self.hidden, self.dropout):
      base.check_sizes(self, 'hidden', hidden)
      base.check_dropout(self, dropout)
    base.check_divides(self, self.heads, [hidden[-1] for hidden in self.hidden])

  @property
  def has_offset(self):
    return True

  def views(self, plans):
    del plans
    contexts = self.contexts if self.gate_hidden is not None else ((), ())
    names = self.context_views
    return base.MAIN, *(
      base.View(name, fields=own) for name, own in zip(names, contexts) if own
    )

  @property
  def context_views(self) -> tuple[str, str]:
    return f'{self.name}_context_0', f'{self.name}_context_1'

  def check(self, plans):
    for context in self.contexts:
      terms = (context,) if context else ()
      base.check_terms(f'contexts of {self.name!r}', terms, plans)


@dataclasses.dataclass(frozen=True)
class NumbersAndVectors(base.Interaction):
  """One vector of all numbers beside the vectors of ids, and their products.

  (DLRM; Naumov et al., 2019.) An MLP makes one vector of the values of the
  numeric fields, which have no vectors of their own.

  Attributes:
    product: 'dot': inner products of all pairs of vectors, and the vector of
      the numbers; 'cat': all vectors, side by side.
    hidden: widths of the MLP's hidden layers; a last layer to the common
      width, with relu, follows.
    norm: of the MLP's hidden layers.
    dropout: share of hidden units that training drops.
  """

  kind: ClassVar[str] = 'numbers_and_vectors'
  name: str = 'dlrm'
  product: str = 'dot'
  hidden: tuple[int, ...] = (64, 64, 64)
  norm: str = 'none'
  dropout: float = 0.0
  to: str = 'head'

  def __post_init__(self):
    object.__setattr__(self, 'hidden', tuple(self.hidden))
    base.check_target(self, 'head', 'output')
    fields.check(self.product, PRODUCTS, f'Product of {self.name!r}')
    fields.check(self.norm, base.NORMS, f'Norm of {self.name!r}')
    base.check_dropout(self, self.dropout)

  def views(self, plans):
    ids = tuple(plan.name for plan in plans if plan.kind == 'categorical')
    if len(ids) == len(plans):
      return (base.MAIN,)
    return (dataclasses.replace(base.MAIN, fields=ids), base.VALUES)

  def check(self, plans):
    num_ids = sum(plan.kind == 'categorical' for plan in plans)
    num_vectors = num_ids + (num_ids < len(plans))
    if not num_ids or (self.product == 'dot' and num_vectors < 2):
      raise errors.ConfigError(
        f'Interaction {self.name!r} has {num_vectors} vectors, {num_ids} of '
        'them of categorical fields; expected at least two, or one for '
        "'cat'."
      )
