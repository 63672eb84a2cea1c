"""Interactions of rising order: polynomials, cross layers, CIN."""

import dataclasses
from typing import ClassVar

from jax_autorec import fields
from jax_autorec.interactions import base

CROSSES = ('vector', 'matrix')


@dataclasses.dataclass(frozen=True)
class Polynomial(base.Interaction):
  """Products of all sets of so many fields, summed in O(fields x dim).

  Per dimension, the elementary symmetric polynomial of the field vectors: the
  ANOVA kernel of higher-order factorization machines (Blondel et al., NIPS
  2016) and, of order 2, the bi-interaction pooling of NFM (He & Chua, SIGIR
  2017).

  Attributes:
    order: fields of each product, 2 to 5.
    own_table: whether it reads vectors of its own; those of 'main' if not.
    to: 'logit': summed over dimensions; else [B, D].
  """

  kind: ClassVar[str] = 'polynomial'
  name: str
  order: int = 2
  own_table: bool = False
  to: str = 'logit'

  def __post_init__(self):
    base.check_target(self, *base.TARGETS)
    fields.check(self.order, (2, 3, 4, 5), f'Order of {self.name!r}')

  def views(self, plans):
    del plans
    return (base.View(f'order{self.order}') if self.own_table else base.MAIN,)


@dataclasses.dataclass(frozen=True)
class Cross(base.Interaction):
  """Layers that multiply with the input again: [B, F * D].

  Attributes:
    layers: how many.
    weights: 'vector': x <- x_0 (x . w) + b + x (DCN; Wang et al., ADKDD 2017);
      'matrix': x <- x_0 * (x W + b) + x (DCN-V2; Wang et al., WWW 2021).
  """

  kind: ClassVar[str] = 'cross'
  name: str = 'cross'
  layers: int = 3
  weights: str = 'matrix'
  to: str = 'output'

  def __post_init__(self):
    base.check_target(self, 'head', 'output')
    base.check_sizes(self, 'layers', [self.layers])
    fields.check(self.weights, CROSSES, f'Weights of {self.name!r}')


@dataclasses.dataclass(frozen=True)
class Compressed(base.Interaction):
  """Compressed interaction network (xDeepFM; Lian et al., KDD 2018).

  Layer k makes, of every vector before and every field vector, weighted sums
  of their products per dimension. As in the BARS benchmark: no activation, and
  no half of a layer that is kept from the next; the paper has both.

  Attributes:
    sizes: vectors of each layer.
    to: 'logit': the vectors, summed over dimensions, through a linear map with
      an offset; else the sums, [B, sum of sizes].
  """

  kind: ClassVar[str] = 'compressed'
  name: str = 'cin'
  sizes: tuple[int, ...] = (64,)
  to: str = 'logit'

  def __post_init__(self):
    object.__setattr__(self, 'sizes', tuple(self.sizes))
    base.check_target(self, *base.TARGETS)
    base.check_sizes(self, 'sizes', self.sizes)

  @property
  def has_offset(self):
    return self.to == 'logit'
