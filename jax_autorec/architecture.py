"""An architecture: plain data that says how every part of a model is built.

An open choice is a part of the plan (`gates='open'`, later a tuple of
candidate dims); closing every choice gives the final model. The same
`nn.model.build` makes a supernet of the one and the model of the other.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import json
import os
import pathlib
from typing import Any, ClassVar

from jax_autorec import errors
from jax_autorec import schema as schema_lib

POOLINGS = ('sum', 'mean')
PROJECTIONS = ('linear', 'zero_pad')
GATES = ('none', 'weights', 'open')
TARGETS = ('logit', 'head')
NORMS = ('none', 'batch', 'layer')


def _check(value: Any, allowed: Sequence[Any], what: str) -> None:
  if value not in allowed:
    raise errors.ConfigError(
      f'{what} is {value!r}; expected one of {", ".join(map(repr, allowed))}.'
    )


@dataclasses.dataclass(frozen=True)
class FieldPlan:
  """How one input field becomes vectors.

  Attributes:
    name: the field's name.
    kind: 'categorical' or 'numeric'.
    dim: width of its vectors, at least 1.
    vocab_size: rows of its part of a table; 0 for a numeric field.
    max_length: values per row; several are pooled.
    pooling: 'sum' or 'mean' over the values of a multi-valued field.
  """

  name: str
  kind: str
  dim: int
  vocab_size: int = 0
  max_length: int = 1
  pooling: str = 'mean'

  def __post_init__(self):
    _check(self.kind, schema_lib.KINDS, f'Kind of field {self.name!r}')
    _check(self.pooling, POOLINGS, f'Pooling of field {self.name!r}')
    if not isinstance(self.dim, int) or self.dim < 1:
      raise errors.ConfigError(
        f'Dim of field {self.name!r} is {self.dim!r}; expected an integer of '
        'at least 1.'
      )
    if self.kind == 'categorical' and self.vocab_size < 1:
      raise errors.ConfigError(
        f'Field {self.name!r} has a vocabulary of {self.vocab_size}; build '
        'the architecture from a fitted schema.'
      )


@dataclasses.dataclass(frozen=True)
class FactorizationMachine:
  """All pairwise inner products, summed in O(fields x dim).

  (Rendle, ICDM 2010): sum over i < j of <e_i, e_j>, no gates, no
  normalisation.
  """

  kind: ClassVar[str] = 'fm'
  name: str = 'fm'
  to: str = 'logit'

  def __post_init__(self):
    _check(self.to, ('logit',), 'Target of the factorization machine')


@dataclasses.dataclass(frozen=True)
class Products:
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
    _check(self.gates, GATES, f'Gates of products {self.name!r}')
    _check(self.to, TARGETS, f'Target of products {self.name!r}')
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


@dataclasses.dataclass(frozen=True)
class TablePlan:
  """One fused embedding table: the rows of several fields, one under another.

  Attributes:
    name: key of the table among the parameters.
    view: what is made of its rows: 'main', 'order3' or 'first_order'.
    dim: row width.
    fields: names of its fields, in row order.
    num_rows: sum of their vocabularies.
  """

  name: str
  view: str
  dim: int
  fields: tuple[str, ...]
  num_rows: int

  @property
  def space(self) -> str:
    """Names the ids that index it: tables of the same fields share them."""
    return '+'.join(name.replace('+', '++') for name in self.fields)


Interaction = FactorizationMachine | Products
_INTERACTIONS = {cls.kind: cls for cls in (FactorizationMachine, Products)}


@dataclasses.dataclass(frozen=True)
class HeadPlan:
  """How views and interactions become one logit.

  logit = bias + first order + interactions to 'logit' + MLP(inputs), where the
  MLP exists if `hidden` is not empty and reads the flat embeddings (if
  `flat_embeddings`) and the interactions to 'head'.

  Attributes:
    first_order: one scalar weight per id, and per numeric field.
    hidden: widths of the MLP's hidden layers.
    flat_embeddings: whether the MLP reads all field vectors.
    norm: 'none', 'batch' or 'layer', before each activation.
    dropout: share of hidden units that training drops, in [0, 1).
  """

  first_order: bool = True
  hidden: tuple[int, ...] = ()
  flat_embeddings: bool = True
  norm: str = 'none'
  dropout: float = 0.0

  def __post_init__(self):
    object.__setattr__(self, 'hidden', tuple(self.hidden))
    _check(self.norm, NORMS, 'Norm of the head')
    if not 0 <= self.dropout < 1:
      raise errors.ConfigError(
        f'Dropout of the head is {self.dropout}; expected 0 <= dropout < 1.'
      )


@dataclasses.dataclass(frozen=True)
class Architecture:
  """A model as data.

  Attributes:
    fields: one plan per field, categorical ones in the order of `Batch.ids`,
      numeric ones in the order of `Batch.numeric`.
    interactions: explicit interactions, each with a name of its own.
    head: what makes the logit.
    projection: how fields of unequal dims meet at the largest: 'linear' or
      'zero_pad'. Unused where all dims are equal.
  """

  fields: tuple[FieldPlan, ...]
  interactions: tuple[Interaction, ...]
  head: HeadPlan
  projection: str = 'linear'

  def __post_init__(self):
    _check(self.projection, PROJECTIONS, 'Projection')
    index = self.field_index
    names = [plan.name for plan in self.interactions]
    if len(set(names)) < len(names):
      raise errors.ConfigError(f'Interactions share a name: {names}.')
    for plan in self.interactions:
      for term in getattr(plan, 'terms', ()):
        unknown = [name for name in term if name not in index]
        if unknown:
          raise errors.ConfigError(
            f'Products {plan.name!r} name fields {unknown} that are not among '
            f'{list(index)}.'
          )
        places = [index[name] for name in term]
        if places != sorted(set(places)):
          raise errors.ConfigError(
            f'Term {term} of products {plan.name!r} is not in field order.'
          )
      if getattr(plan, 'to', 'logit') == 'head' and not self.head.hidden:
        raise errors.ConfigError(
          f'Interaction {plan.name!r} feeds the head, which has no MLP.'
        )
    fed = [getattr(plan, 'to', 'logit') for plan in self.interactions]
    if self.head.hidden and not self.head.flat_embeddings and 'head' not in fed:
      raise errors.ConfigError(
        'The MLP has no input: set head.flat_embeddings, or send an '
        "interaction to 'head'."
      )

  @property
  def field_index(self) -> dict[str, int]:
    return {plan.name: i for i, plan in enumerate(self.fields)}

  @property
  def categorical(self) -> tuple[FieldPlan, ...]:
    return tuple(f for f in self.fields if f.kind == 'categorical')

  @property
  def numeric(self) -> tuple[FieldPlan, ...]:
    return tuple(f for f in self.fields if f.kind == 'numeric')

  @property
  def dim(self) -> int:
    """Common width of the field vectors."""
    return max(plan.dim for plan in self.fields)

  @property
  def views(self) -> tuple[str, ...]:
    """What the interactions and the head read of the fields."""
    views = []
    reads_flat = bool(self.head.hidden) and self.head.flat_embeddings
    orders = [getattr(plan, 'order', 2) for plan in self.interactions]
    if reads_flat or 2 in orders:
      views.append('main')
    if 3 in orders:
      views.append('order3')
    if self.head.first_order:
      views.append('first_order')
    return tuple(views)

  @property
  def tables(self) -> tuple[TablePlan, ...]:
    """The embedding tables: one per view and distinct width."""
    tables = []
    for view in self.views:
      widths = {
        plan.name: 1 if view == 'first_order' else plan.dim
        for plan in self.categorical
      }
      for dim in sorted(set(widths.values())):
        plans = [plan for plan in self.categorical if widths[plan.name] == dim]
        tables.append(
          TablePlan(
            name=view if view == 'first_order' else f'{view}_dim_{dim}',
            view=view,
            dim=dim,
            fields=tuple(plan.name for plan in plans),
            num_rows=sum(plan.vocab_size for plan in plans),
          )
        )
    return tuple(tables)

  @property
  def embedding_params(self) -> int:
    """Entries of all tables, first order included; no projections."""
    return sum(table.num_rows * table.dim for table in self.tables)

  @property
  def projection_params(self) -> int:
    """Entries of the maps that bring narrow fields to the common width."""
    if self.projection != 'linear':
      return 0
    views = [view for view in self.views if view != 'first_order']
    return len(views) * sum(
      plan.dim * self.dim for plan in self.fields if plan.dim < self.dim
    )

  @property
  def is_open(self) -> bool:
    """Whether a search has anything left to decide."""
    return any(
      getattr(plan, 'gates', None) == 'open' for plan in self.interactions
    )

  def interaction(self, name: str) -> Interaction:
    for plan in self.interactions:
      if plan.name == name:
        return plan
    known = ', '.join(plan.name for plan in self.interactions) or 'none'
    raise errors.ConfigError(f'No interaction {name!r}; there are: {known}.')

  def with_interaction(self, plan: Interaction) -> 'Architecture':
    """This architecture with the interaction of `plan`'s name replaced."""
    self.interaction(plan.name)
    return dataclasses.replace(
      self,
      interactions=tuple(
        plan if old.name == plan.name else old for old in self.interactions
      ),
    )

  def to_dict(self) -> dict[str, Any]:
    return {
      'fields': [dataclasses.asdict(plan) for plan in self.fields],
      'interactions': [
        {'kind': plan.kind, **dataclasses.asdict(plan)}
        for plan in self.interactions
      ],
      'head': dataclasses.asdict(self.head),
      'projection': self.projection,
    }

  @classmethod
  def from_dict(cls, values: Mapping[str, Any]) -> 'Architecture':
    try:
      interactions = []
      for plan in values['interactions']:
        plan = dict(plan)
        kind = plan.pop('kind')
        _check(kind, tuple(_INTERACTIONS), 'Kind of an interaction')
        interactions.append(_INTERACTIONS[kind](**plan))
      return cls(
        fields=tuple(FieldPlan(**plan) for plan in values['fields']),
        interactions=tuple(interactions),
        head=HeadPlan(**values['head']),
        projection=values['projection'],
      )
    except (KeyError, TypeError) as error:
      raise errors.ConfigError(
        f'Not an architecture of this version: {error}.'
      ) from error

  def save(self, directory: str | os.PathLike[str]) -> pathlib.Path:
    """Writes `architecture.json` into a directory, whole or not at all."""
    path = pathlib.Path(directory) / 'architecture.json'
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix('.json.partial')
    partial.write_text(json.dumps(self.to_dict(), indent=1) + '\n', 'utf-8')
    os.replace(partial, path)
    return path

  @classmethod
  def load(cls, directory: str | os.PathLike[str]) -> 'Architecture':
    """Reads the `architecture.json` of a directory."""
    path = pathlib.Path(directory) / 'architecture.json'
    try:
      values = json.loads(path.read_text('utf-8'))
    except FileNotFoundError as error:
      raise errors.ConfigError(
        f'{path} does not exist: run the search first.'
      ) from error
    except ValueError as error:
      raise errors.ConfigError(f'{path} is not JSON: {error}.') from error
    return cls.from_dict(values)
