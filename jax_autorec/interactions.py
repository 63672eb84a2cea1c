"""Explicit interactions of fields, as plain data.

A plan says what it reads of the fields (`views`) and where its output goes
(`to`); the module of its kind (`nn.interactions`) makes the output. A new
interaction is a plan here, a module there and a line in both registries.
"""

from collections.abc import Sequence
import dataclasses
from typing import ClassVar

from jax_autorec import errors, fields
from jax_autorec.fields import FieldPlan

GATES = ('none', 'weights', 'open')
TARGETS = ('logit', 'head', 'output')
VIEWS = ('vectors', 'weights', 'values')
NORMS = ('none', 'batch', 'layer')
LINEARS = ('none', 'felv', 'filv')
MATRICES = ('matrixed', 'vectorized')
CROSSES = ('vector', 'matrix')
BILINEARS = ('all', 'each', 'pair')
MODES = ('serial', 'parallel')
PRODUCTS = ('dot', 'cat')


@dataclasses.dataclass(frozen=True)
class View:
  """What is read of the fields: vectors, weights or the values themselves.

  Views of one name have the same tables, whoever reads them.

  Attributes:
    name: of the view; names of its tables begin with it.
    kind: 'vectors': [B, F, copies * D], D the common width; 'weights': a number
      per field, [B, F]; 'values': those of the numeric fields, [B, N], 0 where
      missing. Vectors and weights have tables of their own.
    copies: vectors per field, side by side in one row of a table.
    fields: names of the fields that it is made of, in field order; None for
      all (of 'values', all numeric ones).
  """

  name: str
  kind: str = 'vectors'
  copies: int = 1
  fields: tuple[str, ...] | None = None

  def __post_init__(self):
    fields.check(self.kind, VIEWS, f'Kind of view {self.name!r}')

  def has(self, field: str) -> bool:
    """Whether a field takes part."""
    return self.fields is None or field in self.fields


MAIN = View('main')  # What most models call embeddings.
FIRST_ORDER = View('first_order', 'weights')
VALUES = View('values', 'values')


def join(first: View, second: View) -> View:
  """One view for two readers of the same name.

  Raises:
    ConfigError: where they differ in more than in the fields.
  """
  whose = None
  if first.fields is not None and second.fields is not None:
    whose = first.fields + tuple(
      name for name in second.fields if name not in first.fields
    )
  joined = dataclasses.replace(first, fields=whose)
  if joined != dataclasses.replace(second, fields=whose):
    raise errors.ConfigError(
      f'View {first.name!r} is read as {first} and as {second}; expected one '
      'kind and one number of copies.'
    )
  return joined


class Interaction:
  """What every plan of an interaction has.

  Attributes:
    kind: name of the plan and of its module.
    name: of the interaction among those of an architecture; scope of its
      parameters.
    to: where the output goes. 'logit': [B], added to the logit; 'head':
      [B, K], inputs of the MLP; 'output': [B, K], inputs of the output layer,
      beside the MLP's last hidden layer if there is one.
  """

  kind: ClassVar[str]
  name: str
  to: str

  def views(self, plans: Sequence[FieldPlan]) -> tuple[View, ...]:
    """What it reads, given the fields of the architecture."""
    del plans
    return (MAIN,)

  def check(self, plans: Sequence[FieldPlan]) -> None:
    """Raises a ConfigError unless it suits the fields of an architecture."""

  @property
  def is_open(self) -> bool:
    """Whether a search has anything to decide about it."""
    return False

  @property
  def has_offset(self) -> bool:
    """Whether its output [B] to the logit brings a trained offset along."""
    return False


@dataclasses.dataclass(frozen=True)
class FactorizationMachine(Interaction):
  """All pairwise inner products, summed in O(fields x dim).

  (Rendle, ICDM 2010): sum over i < j of <e_i, e_j>, no gates, no
  normalisation.
  """

  kind: ClassVar[str] = 'fm'
  name: str = 'fm'
  to: str = 'logit'

  def __post_init__(self):
    fields.check(self.to, ('logit',), 'Target of the factorization machine')


@dataclasses.dataclass(frozen=True)
class Products(Interaction):
  """Products of chosen pairs or triples of fields.

  Attributes:
    terms: tuples of field names in field order, all of one length: 2 for
      inner products, 3 for sum_d e_i e_j e_k over a table of their own.
    normalize: batch normalisation of every product, without scale or offset.
    gates: 'none'; 'weights': one trained factor per product; 'open': factors
      that a search decides on.
    to: 'logit': products are summed into the logit; 'head': they are inputs
      of the MLP.
    gate_init: where gates start.
    initial_gates: per term, where its gate starts instead (kept from a
      search); empty for `gate_init`.
  """

  kind: ClassVar[str] = 'products'
  name: str
  terms: tuple[tuple[str, ...], ...]
  normalize: bool = False
  gates: str = 'none'
  to: str = 'logit'
  gate_init: float = 0.6
  initial_gates: tuple[float, ...] = ()

  def __post_init__(self):
    object.__setattr__(self, 'terms', tuple(tuple(t) for t in self.terms))
    object.__setattr__(self, 'initial_gates', tuple(self.initial_gates))
    fields.check(self.gates, GATES, f'Gates of products {self.name!r}')
    fields.check(self.to, TARGETS, f'Target of products {self.name!r}')
    lengths = {len(term) for term in self.terms}
    if lengths - {2, 3} or len(lengths) != 1:
      raise errors.ConfigError(
        f'Products {self.name!r} have terms of {sorted(lengths)} fields; '
        'expected at least one term, all pairs or all triples.'
      )
    if len(set(self.terms)) < len(self.terms):
      raise errors.ConfigError(f'Products {self.name!r} repeat a term.')
    if self.initial_gates and len(self.initial_gates) != len(self.terms):
      raise errors.ConfigError(
        f'Products {self.name!r} have {len(self.initial_gates)} initial gates '
        f'for {len(self.terms)} terms.'
      )

  @property
  def order(self) -> int:
    return len(self.terms[0])

  @property
  def is_open(self) -> bool:
    return self.gates == 'open'

  def views(self, plans):
    del plans
    return (MAIN if self.order == 2 else View(f'order{self.order}'),)

  def check(self, plans):
    check_terms(f'products {self.name!r}', self.terms, plans)


def check_terms(
  what: str, terms: Sequence[Sequence[str]], plans: Sequence[FieldPlan]
) -> None:
  """Refuses terms of unknown fields, or not in field order."""
  index = {plan.name: place for place, plan in enumerate(plans)}
  for term in terms:
    unknown = [name for name in term if name not in index]
    if unknown:
      raise errors.ConfigError(
        f'{what.capitalize()} name fields {unknown} that are not among '
        f'{list(index)}.'
      )
    places = [index[name] for name in term]
    if places != sorted(set(places)):
      raise errors.ConfigError(
        f'Term {tuple(term)} of {what} is not in field order.'
      )


@dataclasses.dataclass(frozen=True)
class FieldAware(Interaction):
  """Inner products of vectors that each field has for each other field.

  (Juan et al., RecSys 2016): sum over i < j of <e_i^(j), e_j^(i)>, the F - 1
  vectors of an id in one row of a table of their own.
  """

  kind: ClassVar[str] = 'field_aware'
  name: str = 'ffm'
  to: str = 'logit'

  def __post_init__(self):
    _check_target(self, 'logit')

  def views(self, plans):
    return (View('field_aware', copies=max(len(plans) - 1, 1)),)

  def check(self, plans):
    _check_two_fields(self, plans)


@dataclasses.dataclass(frozen=True)
class FieldWeighted(Interaction):
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
    _check_target(self, 'logit')
    fields.check(self.linear, LINEARS, f'Linear part of {self.name!r}')

  def views(self, plans):
    del plans
    return (MAIN, View('linear')) if self.linear == 'felv' else (MAIN,)

  def check(self, plans):
    _check_two_fields(self, plans)


@dataclasses.dataclass(frozen=True)
class FieldMatrixed(Interaction):
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
    _check_target(self, 'logit')
    fields.check(self.matrices, MATRICES, f'Matrices of {self.name!r}')

  def check(self, plans):
    _check_two_fields(self, plans)


@dataclasses.dataclass(frozen=True)
class Polynomial(Interaction):
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
    _check_target(self, *TARGETS)
    fields.check(self.order, (2, 3, 4, 5), f'Order of {self.name!r}')

  def views(self, plans):
    del plans
    return (View(f'order{self.order}') if self.own_table else MAIN,)


@dataclasses.dataclass(frozen=True)
class AttentionalPooling(Interaction):
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
    _check_target(self, 'logit')
    _check_sizes(self, 'size', [self.size])
    _check_dropout(self, self.dropout)

  def check(self, plans):
    _check_two_fields(self, plans)


@dataclasses.dataclass(frozen=True)
class Cross(Interaction):
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
    _check_target(self, 'head', 'output')
    _check_sizes(self, 'layers', [self.layers])
    fields.check(self.weights, CROSSES, f'Weights of {self.name!r}')


@dataclasses.dataclass(frozen=True)
class Compressed(Interaction):
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
    _check_target(self, *TARGETS)
    _check_sizes(self, 'sizes', self.sizes)

  @property
  def has_offset(self):
    return self.to == 'logit'


@dataclasses.dataclass(frozen=True)
class SelfAttention(Interaction):
  """Layers of self-attention over fields (AutoInt; Song et al., CIKM 2019).

  relu(norm(attention + x W)); W is left out where widths are equal, as in the
  BARS benchmark; the paper has it in every layer.

  Attributes:
    layers: how many.
    heads: of each layer.
    size: width of a field after a layer, all heads together.
    scale: whether scores are divided by the root of a head's width.
    layer_norm: whether a layer ends with layer normalisation, before relu.
    dropout: share of attention's weights, and of its output, that training
      drops.
    to: 'logit': through a linear map with an offset; else [B, F * size].
  """

  kind: ClassVar[str] = 'self_attention'
  name: str = 'attention'
  layers: int = 2
  heads: int = 2
  size: int = 32
  scale: bool = True
  layer_norm: bool = False
  dropout: float = 0.0
  to: str = 'logit'

  def __post_init__(self):
    _check_target(self, *TARGETS)
    _check_sizes(self, 'layers', [self.layers])
    _check_sizes(self, 'heads', [self.heads])
    _check_divides(self, self.heads, [self.size])
    _check_dropout(self, self.dropout)

  @property
  def has_offset(self):
    return self.to == 'logit'


@dataclasses.dataclass(frozen=True)
class Bilinear(Interaction):
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
    _check_target(self, 'head', 'output')
    fields.check(self.matrices, BILINEARS, f'Matrices of {self.name!r}')
    if self.reduction < 0:
      raise errors.ConfigError(
        f'Reduction of {self.name!r} is {self.reduction}; expected 0 or more.'
      )

  def check(self, plans):
    _check_two_fields(self, plans)


@dataclasses.dataclass(frozen=True)
class MaskBlocks(Interaction):
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
    _check_target(self, 'head', 'output')
    fields.check(self.mode, MODES, f'Mode of {self.name!r}')
    _check_sizes(self, 'sizes', self.sizes)
    _check_dropout(self, self.dropout)
    if self.reduction <= 0:
      raise errors.ConfigError(
        f'Reduction of {self.name!r} is {self.reduction}; expected more than 0.'
      )


@dataclasses.dataclass(frozen=True)
class TwoTowers(Interaction):
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
    _check_target(self, 'logit')
    fields.check(self.norm, NORMS, f'Norm of {self.name!r}')
    for what in ('hidden', 'contexts', 'dropout'):
      if len(getattr(self, what)) != 2:
        raise errors.ConfigError(
          f'{what!r} of {self.name!r} is {getattr(self, what)}; expected one '
          'value for each of two towers.'
        )
    for hidden, dropout in zip(self.hidden, self.dropout):
      _check_sizes(self, 'hidden', hidden)
      _check_dropout(self, dropout)
    _check_divides(self, self.heads, [hidden[-1] for hidden in self.hidden])

  @property
  def has_offset(self):
    return True

  def views(self, plans):
    del plans
    contexts = self.contexts if self.gate_hidden is not None else ((), ())
    names = self.context_views
    return MAIN, *(
      View(name, fields=own) for name, own in zip(names, contexts) if own
    )

  @property
  def context_views(self) -> tuple[str, str]:
    return f'{self.name}_context_0', f'{self.name}_context_1'

  def check(self, plans):
    for context in self.contexts:
      terms = (context,) if context else ()
      check_terms(f'contexts of {self.name!r}', terms, plans)


@dataclasses.dataclass(frozen=True)
class NumbersAndVectors(Interaction):
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
    _check_target(self, 'head', 'output')
    fields.check(self.product, PRODUCTS, f'Product of {self.name!r}')
    fields.check(self.norm, NORMS, f'Norm of {self.name!r}')
    _check_dropout(self, self.dropout)

  def views(self, plans):
    ids = tuple(plan.name for plan in plans if plan.kind == 'categorical')
    if len(ids) == len(plans):
      return (MAIN,)
    return (dataclasses.replace(MAIN, fields=ids), VALUES)

  def check(self, plans):
    num_ids = sum(plan.kind == 'categorical' for plan in plans)
    num_vectors = num_ids + (num_ids < len(plans))
    if not num_ids or (self.product == 'dot' and num_vectors < 2):
      raise errors.ConfigError(
        f'Interaction {self.name!r} has {num_vectors} vectors, {num_ids} of '
        'them of categorical fields; expected at least two, or one for '
        "'cat'."
      )


def _check_target(plan, *targets):
  fields.check(plan.to, targets, f'Target of {plan.name!r}')


def _check_two_fields(plan, plans):
  if len(plans) < 2:
    raise errors.ConfigError(
      f'Interaction {plan.name!r} is one of pairs, and there is '
      f'{len(plans)} field.'
    )


def _check_sizes(plan, what, sizes):
  if not sizes or min(sizes) < 1:
    raise errors.ConfigError(
      f'{what!r} of {plan.name!r} is {sizes}; expected at least one, each 1 or '
      'more.'
    )


def _check_divides(plan, heads, sizes):
  if heads < 1 or any(size < 1 or size % heads for size in sizes):
    raise errors.ConfigError(
      f'{plan.name!r} has {heads} heads for widths of {sizes}; expected '
      'multiples of the heads.'
    )


def _check_dropout(plan, dropout):
  if not 0 <= dropout < 1:
    raise errors.ConfigError(
      f'Dropout of {plan.name!r} is {dropout}; expected 0 <= dropout < 1.'
    )


KINDS: dict[str, type[Interaction]] = {
  cls.kind: cls
  for cls in (
    FactorizationMachine,
    Products,
    FieldAware,
    FieldWeighted,
    FieldMatrixed,
    Polynomial,
    AttentionalPooling,
    Cross,
    Compressed,
    SelfAttention,
    Bilinear,
    MaskBlocks,
    TwoTowers,
    NumbersAndVectors,
  )
}
