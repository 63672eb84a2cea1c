"""Interactions of all pairs of fields, each pair with weights of its own."""

import dataclasses
from typing import ClassVar

from jax_autorec import errors, fields
from jax_autorec.interactions import base

LINEARS = ('none', 'felv', 'filv')
MATRICES = ('matrixed', 'vectorized')
BILINEARS = ('all', 'each', 'pair')


@dataclasses.dataclass(frozen=True)
class FieldAware(base.Interaction):
  """Inner products of vectors that each field has for each other field.

  (Juan et al., RecSys 2016): sum over i < j of <e_i^(j), e_j^(i)>, the F - 1
  vectors of an id in one row of a table of their own.
  """

  kind: ClassVar[str] = 'field_aware'
  name: str = 'ffm'
  to: str = 'logit'

  def __post_init__(self):
    base.check_target(self, 'logit')

  def views(self, plans):
    count = len(fields.with_vectors(plans))
    return (base.View('field_aware', copies=max(count - 1, 1)),)

  def check(self, plans):
    base.check_two_fields(self, plans)


@dataclasses.dataclass(frozen=True)
class FieldWeighted(base.Interaction):
  """Inner products with a trained weight for each pair of fields.

  (Pan et al., WWW 2018): sum over i < j of r_ij <e_i, e_j>, and a linear part.

  Attributes:
    linear: 'none'; 'felv': <e_i, u> of each id, u from a second table of
      vectors; 'filv': <e_i, u_i> with one u_i per field. The paper's LW is the
      head's first order.
  """

  kind: ClassVar[str] = 'field_weighted'
  name: str = 'fwfm'
  linear: str = 'none'
  to: str = 'logit'

  def __post_init__(self):
    base.check_target(self, 'logit')
    fields.check(self.linear, LINEARS, f'Linear part of {self.name!r}')

  def views(self, plans):
    del plans
    read = (base.MAIN, base.View('linear'))
    return read if self.linear == 'felv' else read[:1]

  def check(self, plans):
    base.check_two_fields(self, plans)


@dataclasses.dataclass(frozen=True)
class FieldMatrixed(base.Interaction):
  """Inner products through a trained matrix for each pair of fields.

  (Sun et al., WWW 2021): sum over i < j of (e_i M_ij) . e_j.

  Attributes:
    matrices: 'matrixed': full, D x D; 'vectorized': diagonal.
  """

  kind: ClassVar[str] = 'field_matrixed'
  name: str = 'fmfm'
  matrices: str = 'matrixed'
  to: str = 'logit'

  def __post_init__(self):
    base.check_target(self, 'logit')
    fields.check(self.matrices, MATRICES, f'Matrices of {self.name!r}')

  def check(self, plans):
    base.check_two_fields(self, plans)


@dataclasses.dataclass(frozen=True)
class AttentionalPooling(base.Interaction):
  """Products of all pairs, pooled by attention (AFM; Xiao et al., IJCAI 2017).

  p^T sum over i < j of a_ij (e_i * e_j), a the softmax over pairs of
  h^T relu((e_i * e_j) W + b).

  Attributes:
    size: width of the attention's hidden layer.
    attention: without it, the plain sum of all products.
    dropout: share of the attention's weights, and of the pooled vector, that
      training drops.
  """

  kind: ClassVar[str] = 'attentional_pooling'
  name: str = 'afm'
  size: int = 16
  attention: bool = True
  dropout: float = 0.0
  to: str = 'logit'

  def __post_init__(self):
    base.check_target(self, 'logit')
    base.check_sizes(self, 'size', [self.size])
    base.check_dropout(self, self.dropout)

  def check(self, plans):
    base.check_two_fields(self, plans)


@dataclasses.dataclass(frozen=True)
class Bilinear(base.Interaction):
  """(e_i W) * e_j of all pairs i < j, of field vectors and of weighted ones.

  (FiBiNET; Huang et al., RecSys 2019.) The weighted ones, e_i times a number
  that a squeeze-and-excitation network makes of all fields' means, go through
  the same matrices. [B, 2 * P * D], or [B, P * D] without them.

  Attributes:
    matrices: 'all': one W; 'each': one per left field; 'pair': one per pair.
    reduction: fields per unit of the network's hidden layer; 0 for no network.
  """

  kind: ClassVar[str] = 'bilinear'
  name: str = 'bilinear'
  matrices: str = 'all'
  reduction: float = 2.0
  to: str = 'head'

  def __post_init__(self):
    base.check_target(self, 'head', 'output')
    fields.check(self.matrices, BILINEARS, f'Matrices of {self.name!r}')
    if self.reduction < 0:
      raise errors.ConfigError(
        f'Reduction of {self.name!r} is {self.reduction}; expected 0 or more.'
      )

  def check(self, plans):
    base.check_two_fields(self, plans)
