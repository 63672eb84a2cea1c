"""An architecture: plain data that says how every part of a model is built.

An open choice is a part of the plan (`gates='open'`, or one of `choices`);
closing every choice gives the final model. The same `nn.model.build` makes a
supernet of the one and the model of the other.
"""

from collections.abc import Mapping
import dataclasses
import hashlib
import json
import os
import pathlib
from typing import Any

import numpy as np

from jax_autorec import choices as choices_lib
from jax_autorec import errors, files
from jax_autorec import fields as fields_lib
from jax_autorec import interactions as interactions_lib
from jax_autorec.fields import FieldPlan, TablePlan
from jax_autorec.interactions import Interaction, View

INITIAL = 'initial/'  # Prefix of arrays that training starts from.
PROJECTIONS = ('linear', 'affine', 'zero_pad')
ACTIVATIONS = ('relu', 'tanh')

# What pages and tables call sizes; each is a property of that name, of an
# architecture or (the last) of a model.
SIZE_NAMES = {
  'vector_params': 'vectors',
  'first_order_params': 'first-order weights',
  'embedding_params': 'embedding parameters',
  'vectors_total': 'vectors in all',
  'ep_total': 'embedding parameters in all',
  'total_params': 'trained parameters',
}
SIZE_NOTE = (
  'Vectors: entries of their tables. Embedding parameters: those and '
  'first-order weights. In all: with projections, codebooks, what makes '
  'vectors of numbers and, in bits / 32, codes, patterns, permutations and '
  'edges. Trained parameters: of the whole model; what counts in bits is not '
  'trained.'
)


@dataclasses.dataclass(frozen=True)
class HeadPlan:
  """How views and interactions become one logit.

  logit = bias + first order + interactions to 'logit' + output layer. The
  output layer is linear and reads the MLP's last hidden layer and the
  interactions to 'output'; it exists if there are any. The MLP exists if
  `hidden` is not empty and reads the flat embeddings (if `flat_embeddings`)
  and the interactions to 'head'. The bias is that of the output layer or of an
  interaction, where one brings it along.

  Attributes:
    first_order: one scalar weight per id, and per numeric field.
    hidden: widths of the MLP's hidden layers.
    flat_embeddings: whether the MLP reads all field vectors.
    norm: 'none', 'batch' or 'layer', before each activation.
    dropout: share of hidden units that training drops, in [0, 1).
    activation: 'relu' or 'tanh'.
    norm_inputs: batch normalisation of what the MLP reads.
    candidates: open: per hidden layer the widths that it may have, increasing
      up to that in `hidden`; the first units of a layer are those of a
      narrower one. Empty where widths are settled.
  """

  first_order: bool = True
  hidden: tuple[int, ...] = ()
  flat_embeddings: bool = True
  norm: str = 'none'
  dropout: float = 0.0
  activation: str = 'relu'
  norm_inputs: bool = False
  candidates: tuple[tuple[int, ...], ...] = ()

  def __post_init__(self):
    object.__setattr__(self, 'hidden', tuple(self.hidden))
    object.__setattr__(self, 'candidates', tuple(map(tuple, self.candidates)))
    self._check_candidates()
    fields_lib.check(self.norm, interactions_lib.NORMS, 'Norm of the head')
    fields_lib.check(self.activation, ACTIVATIONS, 'Activation of the head')
    if not 0 <= self.dropout < 1:
      raise errors.ConfigError(
        f'Dropout of the head is {self.dropout}; expected 0 <= dropout < 1.'
      )

  def _check_candidates(self):
    if not self.candidates:
      return
    for own in self.candidates:
      if list(own) != sorted(set(own)) or not own or own[0] < 1:
        raise errors.ConfigError(
          f'Candidate widths of a hidden layer are {own}; expected increasing '
          'ones of at least 1.'
        )
    if tuple(own[-1] for own in self.candidates) != self.hidden:
      raise errors.ConfigError(
        f'Candidate widths are {self.candidates} for hidden layers of '
        f'{self.hidden}; expected as many, each up to the width of its layer.'
      )
    if self.norm == 'layer':
      raise errors.ConfigError(
        "Hidden layers of open widths have norm 'layer', which would see the "
        "units that a narrower one lacks; expected 'none' or 'batch'."
      )


@dataclasses.dataclass(frozen=True)
class Architecture:
  """A model as data.

  Attributes:
    fields: one plan per field, categorical ones in the order of `Batch.ids`,
      numeric ones in the order of `Batch.numeric`.
    interactions: explicit interactions, each with a name of its own.
    head: what makes the logit.
    projection: how rows of unequal dims meet at the common width: 'linear';
      'affine', with an offset for the ids that have a row there; or
      'zero_pad'. Rows of the common width stay as they are.
    squash: whether the field vectors pass a batch normalisation, with a scale
      and an offset, and tanh.
    width: common width of the field vectors; 0 for the largest dim.
    choice: what is open about the vectors of the categorical fields, if
      anything is.
    arrays: what plans need beyond plain values: '{field}.remap' and so on,
      see `FieldPlan`, `Quantizer` and `numeric`. 'initial/{table}' is where
      training starts.
  """

  fields: tuple[FieldPlan, ...]
  interactions: tuple[Interaction, ...]
  head: HeadPlan
  projection: str = 'linear'
  width: int = 0
  choice: choices_lib.FieldChoice | None = None
  squash: bool = False
  arrays: Mapping[str, np.ndarray] = dataclasses.field(
    default_factory=dict, compare=False, repr=False
  )

  def __post_init__(self):
    fields_lib.check(self.projection, PROJECTIONS, 'Projection')
    self._check_widths()
    self._check_quantizers()
    names = [plan.name for plan in self.interactions]
    if len(set(names)) < len(names):
      raise errors.ConfigError(f'Interactions share a name: {names}.')
    for plan in self.interactions:
      plan.check(self.fields)
      if plan.to == 'head' and not self.head.hidden:
        raise errors.ConfigError(
          f'Interaction {plan.name!r} feeds the head, which has no MLP.'
        )
    without = [
      plan.name
      for plan in self.interactions
      if any(
        view.kind == 'vectors' and not view.of(self.fields)
        for view in plan.views(self.fields)
      )
    ]
    if without:
      raise errors.ConfigError(
        f'Interactions {without} have no vectors to read: no field is '
        'categorical, and the numeric ones have no embedding.'
      )
    fed = [plan.to for plan in self.interactions]
    if self.head.hidden and not self.head.flat_embeddings and 'head' not in fed:
      raise errors.ConfigError(
        'The MLP has no input: set head.flat_embeddings, or send an '
        "interaction to 'head'."
      )

  def _check_widths(self):
    for plan in self.categorical if self.choice else ():
      if plan.pieces is not None or plan.dim != self.choice.table_dim:
        raise errors.ConfigError(
          f'Field {plan.name!r} has rows of width {plan.dim} while its width '
          f'is open; expected whole rows of {self.choice.table_dim}.'
        )
    more = [view.name for view in self._further_vectors]
    if (self.choice or self.squash) and more:
      raise errors.ConfigError(
        'Field vectors that are squashed, or have open choices, are those of '
        f"the view 'main' alone; the interactions also read {more}."
      )
    plans = self.numeric if self.choice else self.fields
    largest = max([plan.dim for plan in plans], default=0)
    if largest > self.dim:
      raise errors.ConfigError(
        f'The common width is {self.dim}, less than the largest dim {largest}.'
      )

  def _check_quantizers(self):
    plans = [plan for plan in self.categorical if plan.quantizer]
    if not plans:
      return
    views = self.views
    if self.choice is not None or 'main' not in views or self._further_vectors:
      raise errors.ConfigError(
        "Quantised fields have no open widths, and vectors of the view 'main' "
        f'alone; the views are {", ".join(views)}.'
      )
    if len({plan.quantizer.packed for plan in plans}) > 1:
      raise errors.ConfigError(
        'Some quantised fields are packed and some are not; expected all alike.'
      )
    for plan in plans:
      codes = self.arrays.get(f'{plan.name}.codes')
      if codes is not None and codes.nbytes != plan.quantizer.code_bytes:
        raise errors.ConfigError(
          f'The codes of field {plan.name!r} have {codes.nbytes} bytes; '
          f'expected {plan.quantizer.code_bytes}.'
        )

  @property
  def vector_fields(self) -> tuple[FieldPlan, ...]:
    """Those that have vectors: all but numeric ones without an embedding."""
    return fields_lib.with_vectors(self.fields)

  @property
  def field_index(self) -> dict[str, int]:
    """Name -> place among the fields that have vectors."""
    return {plan.name: i for i, plan in enumerate(self.vector_fields)}

  @property
  def categorical(self) -> tuple[FieldPlan, ...]:
    return tuple(f for f in self.fields if f.kind == 'categorical')

  @property
  def numeric(self) -> tuple[FieldPlan, ...]:
    return tuple(f for f in self.fields if f.kind == 'numeric')

  @property
  def bucketed(self) -> tuple[FieldPlan, ...]:
    """Numeric fields of intervals, whose ids follow those of a batch."""
    return tuple(plan for plan in self.numeric if plan.is_bucketed)

  def is_fitted(self, plan: FieldPlan) -> bool:
    """Whether a field's numeric embedding knows what it has to of the data."""
    names = plan.numeric.arrays if plan.numeric else ()
    return all(f'{plan.name}.{name}' in self.arrays for name in names)

  @property
  def dim(self) -> int:
    """Common width of the field vectors."""
    if self.choice is not None:
      return self.choice.width
    return self.width or max(plan.dim for plan in self.fields)

  @property
  def views(self) -> dict[str, View]:
    """What the interactions and the head read of the fields, by name.

    'main' comes first and 'first_order' last, where they are read. A view that
    no field takes part in is not there.
    """
    read = []
    if self.head.hidden and self.head.flat_embeddings:
      read.append(interactions_lib.MAIN)
    for plan in self.interactions:
      read += plan.views(self.fields)
    read.sort(key=lambda view: view.name != interactions_lib.MAIN.name)
    read.append(interactions_lib.NUMBERS)
    if self.head.first_order:
      read.append(interactions_lib.FIRST_ORDER)
    views: dict[str, View] = {}
    for view in read:
      if not view.of(self.fields):
        continue
      known = views.get(view.name, view)
      views[view.name] = interactions_lib.join(known, view)
    return views

  @property
  def _further_vectors(self) -> list[View]:
    """Views of vectors that are not the one vector of each id."""
    ids = [plan.name for plan in self.categorical]
    is_main = lambda view: (
      view.name == 'main' and view.copies == 1 and all(map(view.has, ids))
    )
    return [
      view
      for view in self.views.values()
      if view.kind == 'vectors' and not is_main(view)
    ]

  def num_vectors(self, field: str) -> int:
    """Vectors that a field has in all views together."""
    return sum(
      view.copies
      for view in self.views.values()
      if view.kind == 'vectors' and view.has(field)
    )

  @property
  def tables(self) -> tuple[TablePlan, ...]:
    """The embedding tables: one per view and distinct width.

    Sparse fields share a table of single entries, and factors of products
    have tables of their own, since they start elsewhere. Buckets of numeric
    fields have some, too, which nothing open about ids concerns. What is open
    about single rows is a table as well.

    Raises:
      ConfigError: where the buckets of a numeric field are not known yet.
    """
    groups: dict[tuple[Any, ...], list[fields_lib.Part]] = {}
    for view in self.views.values():
      in_view: dict[tuple[Any, ...], list[fields_lib.Part]] = {}
      looked_up = (*self.categorical, *self.bucketed)
      if view.kind not in ('vectors', 'weights'):
        looked_up = ()
      for plan in view.of(looked_up):
        own = _parts(plan, view)
        for dim, role, part in own:
          in_view.setdefault((dim, role, view.name), []).append(part)
      groups |= {key: in_view[key] for key in sorted(in_view)}
    names = {'': '{view}_dim_{dim}', 'factor': '{view}_factor_dim_{dim}'}
    names |= {'weights': '{view}', 'sparse': '{view}_sparse'}
    names |= {'buckets': '{view}_buckets_dim_{dim}'}
    names |= {'weights_buckets': '{view}_buckets'}
    stacks = self.codebooks
    names |= {stack: f'{{view}}_queries_{stack}' for stack in stacks}
    tables = [
      TablePlan(
        name=names[role].format(view=view, dim=dim),
        view=view,
        dim=dim,
        parts=tuple(parts),
        mean=1.0 if role == 'factor' else 0.0,
        codebooks=role if role in stacks else '',
      )
      for (dim, role, view), parts in groups.items()
    ]
    row_dim = getattr(self.choice, 'row_dim', 0)
    if row_dim:
      parts = tuple(
        fields_lib.Part(plan, plan.all_pieces[0]) for plan in self.categorical
      )
      name = choices_lib.ROW_CHOICE
      tables.append(TablePlan(name, name, row_dim, parts))
    return tuple(tables)

  @property
  def main_table(self) -> TablePlan:
    """The one table of the vectors of categorical fields.

    Raises:
      ValueError: where they lie in several, or in none.
    """
    (table,) = [
      table
      for table in self.tables
      if table.view == 'main' and not table.of_buckets
    ]
    return table

  @property
  def codebooks(self) -> dict[str, tuple[FieldPlan, ...]]:
    """Name -> the quantised fields whose codebooks are of one shape."""
    stacks: dict[str, tuple[FieldPlan, ...]] = {}
    for plan in self.categorical:
      if plan.quantizer:
        stack = plan.quantizer.stack(plan.dim)
        stacks[stack] = (*stacks.get(stack, ()), plan)
    return stacks

  @property
  def packed(self) -> 'Architecture':
    """With codes in place of queries; the arrays of codes are still to come."""
    return dataclasses.replace(
      self,
      fields=tuple(
        dataclasses.replace(
          plan, quantizer=dataclasses.replace(plan.quantizer, packed=True)
        )
        if plan.quantizer
        else plan
        for plan in self.fields
      ),
    )

  @property
  def embedding_params(self) -> int:
    """Entries of all tables: `vector_params` and `first_order_params`."""
    return sum(table.num_rows * table.dim for table in self.tables)

  @property
  def first_order_params(self) -> int:
    """Entries of the first-order table."""
    tables = [table for table in self.tables if table.view == 'first_order']
    return sum(table.num_rows for table in tables)

  @property
  def vector_params(self) -> int:
    """Entries of the tables of vectors: what papers count."""
    return self.embedding_params - self.first_order_params

  @property
  def projection_params(self) -> int:
    """Entries of the maps that bring narrow rows to the common width.

    0 where an open choice has maps of its own: those are measured
    (`models.size`).
    """
    return sum(map(self._projection_params, self.fields))

  @property
  def numeric_params(self) -> float:
    """Entries of what makes vectors of numbers, but for tables of buckets."""
    return round(sum(map(self._numeric_params, self.numeric)))

  def _numeric_params(self, plan: FieldPlan) -> float:
    """A field's part; of what several share, an even one."""
    alike = [p for p in self.numeric if p.numeric == plan.numeric]
    if plan.has_vectors:
      alike = [p for p in alike if p.dim == plan.dim]
    kinds = ('vectors', 'numbers')
    total = 0.0
    for view in self.views.values():
      if view.kind in kinds and plan in view.of(self.fields):
        total += plan.numeric.num_params(view.copies * plan.dim)
        total += plan.numeric.num_shared_params / len(view.of(alike))
    return total

  def _projection_params(self, plan: FieldPlan) -> int:
    if self.projection == 'zero_pad' or self.choice is not None:
      return 0
    offset = self.projection == 'affine'
    views = [
      view
      for view in self.views.values()
      if view.kind == 'vectors' and plan in view.of(self.fields)
    ]
    # The vectors of a view share their map.
    return len(views) * sum(
      (piece_dim + offset) * self.dim
      for piece_dim in _projected(plan)
      if piece_dim < self.dim
    )

  @property
  def index_bytes(self) -> int:
    """Bytes of permutations, patterns, packed codes and edges of buckets."""
    return sum(plan.index_bytes for plan in self.fields)

  @property
  def codebook_params(self) -> int:
    """Entries of the codebooks of quantised fields."""
    return sum(plan.codebook_params for plan in self.categorical)

  @property
  def vectors_total(self) -> float:
    """`vector_params` and all else that vectors need, in float32 entries."""
    return self.ep_total - self.first_order_params

  @property
  def ep_total(self) -> float:
    """`embedding_params` and all else that vectors need, in float32 entries.

    That is: projections, codebooks, vectors and maps of numbers, and the index,
    in bits / 32. What budgets are given in.
    """
    extra = self.projection_params + self.codebook_params + self.numeric_params
    extra += self.index_bytes / 4
    return self.embedding_params + extra

  @property
  def field_sizes(self) -> dict[str, float]:
    """Field -> its part of `vectors_total`, which is their sum."""
    sizes = {
      plan.name: self._projection_params(plan)
      + plan.codebook_params
      + plan.index_bytes / 4
      + (self._numeric_params(plan) if plan.numeric else 0)
      for plan in self.fields
    }
    for table in self.tables:
      for part in table.parts if table.view != 'first_order' else ():
        sizes[part.field.name] += part.num_rows * table.dim
    return sizes

  @property
  def kept_arrays(self) -> dict[str, np.ndarray]:
    """Arrays that a trained model needs: all but what training started from."""
    return {
      name: array
      for name, array in self.arrays.items()
      if not name.startswith(INITIAL)
    }

  @property
  def constants(self) -> dict[str, np.ndarray]:
    """The arrays that look-ups need on a device.

    What numeric embeddings were fitted by is small, and a part of the program.
    """
    of_numbers = {
      f'{plan.name}.{name}'
      for plan in self.numeric
      for name in plan.numeric.arrays
    }
    return {
      name: array
      for name, array in self.kept_arrays.items()
      if name not in of_numbers
    }

  @property
  def is_open(self) -> bool:
    """Whether a search has anything left to decide."""
    return (
      self.choice is not None
      or bool(self.head.candidates)
      or any(plan.is_open for plan in self.interactions)
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
      'fields': [plan.to_dict() for plan in self.fields],
      'interactions': [
        {'kind': plan.kind, **dataclasses.asdict(plan)}
        for plan in self.interactions
      ],
      'head': dataclasses.asdict(self.head),
      'projection': self.projection,
      'width': self.width,
      'choice': self.choice
      and {'kind': self.choice.kind, **dataclasses.asdict(self.choice)},
      'squash': self.squash,
      'arrays': {
        name: hashlib.sha256(np.ascontiguousarray(array)).hexdigest()
        for name, array in sorted(self.arrays.items())
      },
    }

  @classmethod
  def from_dict(
    cls,
    values: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray] | None = None,
  ) -> 'Architecture':
    """The architecture of `to_dict`, which leaves arrays out.

    Raises:
      ConfigError: for values of another version, or arrays of another hash.
    """
    try:
      interactions = []
      for plan in values['interactions']:
        plan = dict(plan)
        kind = plan.pop('kind')
        kinds = interactions_lib.KINDS
        fields_lib.check(kind, tuple(kinds), 'Kind of an interaction')
        interactions.append(kinds[kind](**plan))
      choice = values['choice']
      if choice is not None:
        choice = dict(choice)
        kind = choice.pop('kind')
        fields_lib.check(kind, tuple(choices_lib.CHOICES), 'Kind of a choice')
        choice = choices_lib.CHOICES[kind](**choice)
      result = cls(
        fields=tuple(FieldPlan(**plan) for plan in values['fields']),
        interactions=tuple(interactions),
        head=HeadPlan(**values['head']),
        projection=values['projection'],
        width=values['width'],
        choice=choice,
        squash=values['squash'],
        arrays=dict(arrays or {}),
      )
      if result.to_dict()['arrays'] != values['arrays']:
        raise errors.ConfigError(
          f'The arrays {sorted(values["arrays"])} of the architecture are not '
          f'those given, {sorted(result.arrays)}, or were changed.'
        )
      return result
    except (KeyError, TypeError) as error:
      raise errors.ConfigError(
        f'Not an architecture of this version: {error}.'
      ) from error

  def save(self, directory: str | os.PathLike[str]) -> pathlib.Path:
    """Writes `architecture.json` into a directory, whole or not at all.

    Where there are arrays, `architecture.npz` is written before it.
    """
    path = pathlib.Path(directory) / 'architecture.json'
    path.parent.mkdir(parents=True, exist_ok=True)
    if self.arrays:
      with files.replacing(path.with_suffix('.npz')) as file:
        np.savez(file, **self.arrays)
    files.write_text(path, json.dumps(self.to_dict(), indent=1) + '\n')
    return path

  @classmethod
  def load(cls, directory: str | os.PathLike[str]) -> 'Architecture':
    """Reads the `architecture.json` of a directory, and its arrays."""
    path = pathlib.Path(directory) / 'architecture.json'
    try:
      values = json.loads(path.read_text('utf-8'))
    except FileNotFoundError as error:
      raise errors.ConfigError(
        f'{path} does not exist: run the search first.'
      ) from error
    except ValueError as error:
      raise errors.ConfigError(f'{path} is not JSON: {error}.') from error
    arrays = {}
    if values.get('arrays'):
      try:
        with np.load(path.with_suffix('.npz')) as file:
          arrays = dict(file)
      except (OSError, ValueError) as error:
        raise errors.ConfigError(
          f'{path} needs {path.with_suffix(".npz")}, which cannot be read: '
          f'{error}.'
        ) from error
    return cls.from_dict(values, arrays)


def _parts(
  plan: FieldPlan, view: View
) -> list[tuple[int, str, fields_lib.Part]]:
  """Width, role and part of every table that a field has rows in."""
  if plan.is_bucketed and not plan.vocab_size:
    raise errors.ConfigError(
      f'The buckets of numeric field {plan.name!r} ({plan.numeric.title}) are '
      'not fitted: call numeric_spaces.fit(architecture, data.train, '
      'data.scales) first.'
    )
  whole = fields_lib.Piece(0, plan.vocab_size, 1)
  if plan.is_bucketed:
    if view.kind == 'weights':
      return [(1, 'weights_buckets', fields_lib.Part(plan, whole))]
    part = fields_lib.Part(plan, plan.all_pieces[0])
    return [(view.copies * plan.dim, 'buckets', part)]
  if view.kind == 'weights':
    return [(1, 'weights', fields_lib.Part(plan, whole))]
  if plan.num_values:
    return [(view.copies, 'sparse', fields_lib.Part(plan, None))]
  if plan.quantizer:
    if plan.quantizer.packed:
      return []
    stack = plan.quantizer.stack(plan.dim)
    return [(plan.dim, stack, fields_lib.Part(plan, plan.all_pieces[0]))]
  parts, seen = [], set()
  for piece in plan.all_pieces:
    # Of the factors of a range the first is spread around 0.
    is_factor = plan.combine == 'product' and piece.start in seen
    seen.add(piece.start)
    role = 'factor' if is_factor else ''
    part = fields_lib.Part(plan, piece)
    parts.append((view.copies * piece.dim, role, part))
  return parts


def _projected(plan: FieldPlan) -> list[int]:
  """Widths of the vectors of a field that need a map each."""
  if plan.kind == 'numeric' or plan.num_values:
    return [plan.dim]
  dims = [piece.dim for piece in plan.all_pieces]
  return dims[:1] if plan.combine == 'product' else dims
