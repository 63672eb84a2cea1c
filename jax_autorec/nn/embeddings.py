"""Field embeddings: rows of fused tables in, named views of vectors out.

A model accepts gathered rows in place of tables (`nn.lookups` says why).
"""

from collections.abc import Mapping, Sequence
import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jax_autorec import architecture as arch_lib
from jax_autorec import choices as choices_lib
from jax_autorec import fields as fields_lib
from jax_autorec import interactions
from jax_autorec import numeric as numeric_lib
from jax_autorec.nn import field_choices, initializers, lookups, quantizers
from jax_autorec.nn import numeric as numeric_nn
from jax_autorec.types import Array, Batch, PyTree

ROW_MASKS = 'row_masks'  # Collection of what parts of rows are switched on.
PROJECTION = '_projection'  # Suffix of maps to the common width, in 'params'.


def scale_vectors(
  architecture: arch_lib.Architecture, params: PyTree, stddev: float
) -> PyTree:
  """Fresh parameters of `FieldEmbeddings`, vectors like N(0, stddev).

  Codebooks have to be about as large as the queries: of centroids that all lie
  far away, or all close together, one is nearest to every query. Vectors and
  weights of numbers are what rows are to ids, and start as those do.
  """
  scale = lambda x: x * (stddev / lookups.INIT_STD)
  stacks = architecture.codebooks

  def scaled(path, value):
    names = [entry.key for entry in path]
    return scale(value) if names[0] in stacks or is_vector(names) else value

  return jax.tree.map_with_path(scaled, params)


def is_soft(names: Sequence[str]) -> bool:
  """Whether a parameter of `FieldEmbeddings` is a vector of soft buckets."""
  kind = f'_{numeric_lib.AutoDis.kind}_'
  return kind in names[0] and names[-1] in numeric_nn.VECTORS


def is_vector(names: Sequence[str]) -> bool:
  """Whether a parameter of `FieldEmbeddings` decays as those of ids do.

  Vectors and weights of numeric fields do; maps to the common width, and those
  from numbers to inputs, do not.

  Args:
    names: path of the parameter.
  """
  return is_soft(names) or (
    len(names) == 1 and not names[0].endswith(PROJECTION)
  )


def is_score(names: Sequence[str]) -> bool:
  """Whether a parameter maps numbers to weights of soft buckets.

  Such never decay. (The authors of AutoDis decay them by 1e-6; ours start from
  quantiles, from which decay would draw them away.)

  Args:
    names: path of the parameter in `FieldEmbeddings`.
  """
  kind = f'_{numeric_lib.AutoDis.kind}_'
  return kind in names[0] and len(names) > 1 and not is_soft(names)


def usage_entropy(
  architecture: arch_lib.Architecture, batch_stats: PyTree
) -> dict[str, float]:
  """Quantised field -> how evenly recent values used its centroids, 0 to 1.

  Near 0 the codebook has collapsed; see `quantizers.entropy`. Empty for an
  architecture without queries.

  Args:
    architecture: names the fields.
    batch_stats: of `FieldEmbeddings`.
  """
  found = {}
  for stack, plans in architecture.codebooks.items():
    if plans[0].quantizer.packed:
      continue
    usage = jax.device_get(batch_stats[stack]['usage'])
    for plan, own in zip(plans, usage):
      found[plan.name] = quantizers.entropy(own)
  return found


def _pool(rows: Array, live: Array, plans: list[fields_lib.FieldPlan]) -> Array:
  """One vector per part: rows [B, C, D], live [B, C] -> [B, P, D].

  Args:
    rows: zeros where a value has no row.
    live: which values there are, whether or not they have a row here.
    plans: the field of each part.
  """
  if all(plan.max_length == 1 for plan in plans):
    return rows
  # Unlike those of slices, the gradients of a split are joined, not padded.
  ends = np.cumsum([plan.max_length for plan in plans])[:-1]
  pooled = []
  for plan, own, there in zip(
    plans, jnp.split(rows, ends, 1), jnp.split(live, ends, 1)
  ):
    total = own.sum(1, keepdims=True)
    if plan.pooling == 'mean':
      count = there.sum(1)[:, None, None]
      total = total / jnp.maximum(count, 1).astype(rows.dtype)
    pooled.append(total)
  return jnp.concatenate(pooled, 1)


class NumericGroup(NamedTuple):
  """Numeric fields of one embedding and width, which one module serves.

  Attributes:
    name: scope of its parameters.
    kind: the embedding.
    dim: width of the vectors.
    places: of the fields among the numeric ones.
  """

  name: str
  kind: numeric_lib.Embedding
  dim: int
  places: tuple[int, ...]


def numeric_groups(
  architecture: arch_lib.Architecture, view: interactions.View
) -> list[NumericGroup]:
  """The groups of numeric fields of a view, but for those of intervals.

  Args:
    architecture: names the fields.
    view: of weights or vectors; widths are those of all copies.
  """
  kinds: dict[tuple[int, numeric_lib.Embedding], list[int]] = {}
  read = view.of(architecture.fields)
  for place, plan in enumerate(architecture.numeric):
    if plan.is_bucketed or plan not in read:
      continue
    # A weight is the value's, whatever its vector is.
    key = (1, numeric_lib.FieldEmbedding())
    if view.kind == 'vectors':
      key = (view.copies * plan.dim, plan.numeric)
    kinds.setdefault(key, []).append(place)
  groups, names = [], []
  for (dim, kind), places in sorted(kinds.items(), key=lambda item: item[0][0]):
    is_plain = isinstance(kind, numeric_lib.FieldEmbedding)
    name = f'{view.name}_{"numeric" if is_plain else kind.kind}_dim_{dim}'
    # Of several with other options, all but the first have a number.
    before = names.count(name)
    names.append(name)
    name = f'{name}_{before}' if before else name
    groups.append(NumericGroup(name, kind, dim, tuple(places)))
  return groups


def soft_buckets(
  architecture: arch_lib.Architecture, group: NumericGroup, **options: Any
) -> numeric_nn.AutoDis:
  """The module of a group of AutoDis, with what its fields were fitted by.

  Args:
    architecture: with the arrays.
    group: of `numeric_groups`.
    **options: 'name' or 'parent'.
  """
  plans = [architecture.numeric[place] for place in group.places]
  arrays = [_stacked(architecture, plans, name) for name in group.kind.arrays]
  return numeric_nn.AutoDis(group.kind, group.dim, *arrays, **options)


def _stacked(architecture, plans, name):
  """An array of several numeric fields: [N, ...]."""
  return np.stack(
    [lookups.fitted_array(architecture, plan, name) for plan in plans]
  )


def _has_row(ids: Array, parts: list[fields_lib.Part]) -> Array:
  """Which values have a row in the piece of their part: bool [B, C].

  Args:
    ids: int32 [B, C], those of `lookups.known_ids`.
    parts: whose values they are, in order.
  """
  ranges = [
    (part.piece.start, part.piece.stop) if part.piece else (0, 2**31 - 1)
    for part in parts
    for _ in range(part.field.max_length)
  ]
  starts, stops = np.array(ranges, np.int32).T
  return (ids >= starts[None]) & (ids < stops[None])


def _in_field_order(
  groups: Mapping[str, Array], parts: list[list[tuple[str, int]]]
) -> Array:
  """Sums the parts of every field: [B, F, D], without needless copies.

  Args:
    groups: name -> [B, P, D].
    parts: per field, the group and place there of each of its parts.
  """
  starts, total = {}, 0
  for name, group in groups.items():
    starts[name] = total
    total += group.shape[1]
  joined = list(groups.values())
  joined = joined[0] if len(joined) == 1 else jnp.concatenate(joined, 1)
  most = max(len(own) for own in parts)
  places = [
    [starts[name] + place for name, place in own] + [total] * (most - len(own))
    for own in parts
  ]
  if any(total in own for own in places):
    joined = jnp.pad(joined, ((0, 0), (0, 1), (0, 0)))
  layers = np.array(places, np.int32).T
  taken = [
    joined if list(layer) == list(range(joined.shape[1])) else joined[:, layer]
    for layer in layers
  ]
  return functools.reduce(jnp.add, taken)


class FieldEmbeddings(nn.Module):
  """Turns a batch into the views that an architecture reads.

  Numeric fields follow the categorical ones. A numeric field's vector is, if
  nothing else is said, its value times a trained vector, or a trained vector of
  its own where the value is missing (BARS has no such vector and takes 0).
  Fields without vectors are in no view but the first order.

  Collections: 'params'; 'constants', of `Architecture.constants`, if any;
  'row_masks', where asked for, of what `choice` switches off.

  Attributes:
    architecture: its fields and tables.
    choice: where the vectors of the categorical fields are open, what makes
      [B, F, D] of the rows [B, F, R] that the tables hold.
    axis_name: replica axis of quantisers; None except under `pmap`.
  """

  architecture: arch_lib.Architecture
  choice: field_choices.FieldChoice | None = None
  axis_name: str | None = None

  @nn.compact
  def __call__(
    self,
    batch: Batch,
    rows: Mapping[str, Array] | None = None,
    *,
    train: bool = False,
  ) -> dict[str, Array]:
    """Views of a batch of B rows.

    Args:
      batch: the rows.
      rows: gathered rows, as of `lookups.lookup`, in place of the module's
        tables.
      train: handed to `choice` and to quantisers.

    Returns:
      By name: vectors [B, F, copies * D] of the fields that have vectors;
      weights [B, F] of all; values [B, N]; numbers [B, K], inputs of the
      numeric fields without vectors; those that exist.
    """
    architecture = self.architecture
    constants = self.variables.get('constants')
    if rows is None:
      tables = {
        table.name: self.param(
          table.name, self._init_table(table), (table.num_rows, table.dim)
        )
        for table in architecture.tables
      }
      flat_ids = lookups.flatten_ids(architecture, batch, constants)
      rows = lookups.lookup(tables, flat_ids, architecture)
    live = (batch.ids >= 0) & batch.mask[:, None]
    ids = batch.ids  # Weights do not depend on them, nor has init constants.
    if not self.is_initializing():
      ids = lookups.known_ids(architecture, batch, constants)
    own_ids, own_live = ids, live
    if architecture.bucketed:
      buckets = lookups.bucket_ids(architecture, batch)
      ids = jnp.concatenate([ids, buckets], 1)
      live = jnp.concatenate([live, buckets >= 0], 1)
    views = {}
    for name, view in architecture.views.items():
      read = view.of(architecture.fields)
      if view.kind == 'values':
        views[name] = self._cells(batch)[0][:, self._places(read)]
        continue
      if view.kind == 'numbers':
        views[name] = self._numbers(read, *self._cells(batch))
        continue
      groups: dict[str, Array] = {}
      parts: dict[str, list[tuple[str, int]]] = {plan.name: [] for plan in read}
      if self.choice is not None and name == 'main':
        table = architecture.main_table
        mask = self.choice.mask(own_ids)
        if mask is not None and not self.is_initializing():
          last = dict(reduce_fn=lambda old, new: new, init_fn=lambda: None)
          self.sow(ROW_MASKS, table.name, mask, **last)
        own = rows.get(choices_lib.ROW_CHOICE)
        values = self.choice.values(rows[table.name], own_ids, own)
        rows = {**rows, table.name: values}
      if name == 'main' and architecture.codebooks:
        self._quantized(own_live, own_ids, rows, groups, parts, train)
      self._looked_up(view, live, ids, rows, groups, parts)
      if self.choice is not None and name == 'main':
        order = [parts[plan.name] for plan in architecture.categorical]
        raw = _in_field_order(groups, order)
        groups = {'chosen': self.choice(raw, batch.mask, train=train)}
        for place, plan in enumerate(architecture.categorical):
          parts[plan.name] = [('chosen', place)]
      if architecture.bucketed:
        self._looked_up(view, live, ids, rows, groups, parts, buckets=True)
      self._numeric(view, batch, groups, parts)
      vectors = _in_field_order(groups, list(parts.values()))
      views[name] = vectors[..., 0] if view.kind == 'weights' else vectors
    return views

  def _init_table(self, table):
    init = initializers.normal_by_blocks(lookups.INIT_STD)
    return lambda key, shape: init(key, shape, jnp.float32) + table.mean

  def _looked_up(self, view, live, ids, rows, groups, parts, buckets=False):
    """Adds the groups of the tables of a view, and each field's places.

    Those of ids, or of the buckets of numeric fields.
    """
    architecture = self.architecture
    # Field -> first id of a range -> its factors, zeros for all other ids.
    factors: dict[str, dict[int, list[Array]]] = {}
    for table in architecture.tables:
      if table.view != view.name or table.codebooks:
        continue
      if table.of_buckets is not buckets:
        continue
      values, kept, kept_rows, start = rows[table.name], [], [], 0
      for part in table.parts:
        plan, end = part.field, start + part.num_columns
        own = values[:, start:end]
        if part.piece is None:
          name = f'{table.name}_{plan.name}'
          shape = (len(own), plan.max_length, plan.dim, view.copies)
          own = own.reshape(shape).swapaxes(2, 3)
          own = own.reshape(*shape[:2], view.copies * plan.dim)
          self._add(view, name, own, [part], live, ids, groups, parts)
        elif plan.combine == 'product':
          ranges = factors.setdefault(plan.name, {})
          ranges.setdefault(part.piece.start, []).append(own)
        else:
          kept.append(part)
          kept_rows.append(np.arange(start, end))
        start = end
      if kept:
        if len(kept) < len(table.parts):
          values = values[:, np.concatenate(kept_rows)]
        self._add(view, table.name, values, kept, live, ids, groups, parts)
    for plan in architecture.categorical if factors else ():
      if plan.name in factors:
        ranges = factors[plan.name].values()
        products = [functools.reduce(jnp.multiply, own) for own in ranges]
        product = functools.reduce(jnp.add, products)
        piece = plan.all_pieces[0]
        if len(products) > 1:
          piece = fields_lib.Piece(0, plan.vocab_size, piece.dim, piece.column)
        part = fields_lib.Part(plan, piece)
        name = f'{view.name}_product_{plan.name}'
        self._add(view, name, product, [part], live, ids, groups, parts)
    if not groups:
      # Fields without any row, and nothing yet to give the batch's size.
      width = 1 if view.kind == 'weights' else view.copies * architecture.dim
      shape = (len(live), 0, width)
      groups['none'] = jnp.zeros(shape, jnp.float32)

  def _quantized(self, live, ids, rows, groups, parts, train):
    """The same for quantised fields; values are replaced before pooling."""
    architecture = self.architecture
    constants = self.variables.get('constants')
    first = lookups.first_columns(architecture)
    queries = {table.codebooks: table.name for table in architecture.tables}
    for stack, plans in architecture.codebooks.items():
      module = quantizers.Codebooks(plans, self.axis_name, name=stack)
      starts = [first[plan.name] for plan in plans]
      own = [
        ids[:, start : start + plan.max_length]
        for start, plan in zip(starts, plans)
      ]
      joined = own[0] if len(own) == 1 else jnp.concatenate(own, 1)
      if plans[0].quantizer.packed:
        codes = [
          quantizers.read_codes(
            lookups.constant(constants, f'{plan.name}.codes'),
            plan.quantizer,
            column,
          )
          for plan, column in zip(plans, own)
        ]
        values = module.decode(jnp.concatenate(codes, 1), joined)
      else:
        values = module(rows[queries[stack]], joined, train=train)
      group = [fields_lib.Part(plan, plan.all_pieces[0]) for plan in plans]
      view = architecture.views['main']
      self._add(view, f'main_{stack}', values, group, live, ids, groups, parts)

  def _add(self, view, name, values, group, live, ids, groups, parts):
    """Pools and projects the rows of some parts.

    [B, C, copies * d] -> [B, P, copies * D].
    """
    first = lookups.first_columns(self.architecture)
    plans = [part.field for part in group]
    columns = np.concatenate(
      [np.arange(first[p.name], first[p.name] + p.max_length) for p in plans]
    )
    if any(plan.max_length > 1 for plan in plans):
      live = live[:, columns]
    pooled = _pool(values, live, plans)
    starts = [part.piece.column if part.piece else 0 for part in group]
    if self.architecture.choice is None:
      share = None
      if self.architecture.projection == 'affine':
        # Offsets are for the values that have a row here.
        has_row = _has_row(ids[:, columns], group)
        share = _pool(has_row.astype(values.dtype)[..., None], live, plans)
      pooled = self._project(pooled, view, name, starts, share)
    groups[name] = pooled
    for place, plan in enumerate(plans):
      parts[plan.name].append((name, place))

  def _cells(self, batch):
    """Values and missing marks [B, N]; padding rows may hold anything."""
    live = batch.mask[:, None]
    return jnp.where(live, batch.numeric, 0), batch.missing

  def _places(self, plans):
    """Of some numeric fields among all."""
    names = [plan.name for plan in self.architecture.numeric]
    return np.array([names.index(plan.name) for plan in plans], np.int32)

  def _numeric(self, view, batch, groups, parts):
    """The same for other numeric fields, by embedding and width."""
    numeric = self.architecture.numeric
    cells, missing = self._cells(batch)
    for name, kind, dim, places in numeric_groups(self.architecture, view):
      own = np.array(places)
      values, absent = cells[:, own], missing[:, own]
      if isinstance(kind, numeric_lib.AutoDis):
        group = NumericGroup(name, kind, dim, places)
        module = soft_buckets(self.architecture, group, name=name)
        vectors = module(values, absent)
      else:
        vectors = self._scaled(name, dim, values, absent)
      groups[name] = self._project(vectors, view, name, [0] * len(places))
      for place_in_group, place in enumerate(places):
        parts[numeric[place].name].append((name, place_in_group))

  def _scaled(self, name, dim, values, missing):
    """Trained vectors times values [B, N]: [B, N, D]."""
    init = nn.initializers.normal(lookups.INIT_STD)
    shape = (values.shape[1], dim)
    slope = self.param(name, init, shape, jnp.float32)
    absent = self.param(f'{name}_missing', init, shape, jnp.float32)
    scaled = values[:, :, None] * slope[None]
    return jnp.where(missing[:, :, None], absent[None], scaled)

  def _numbers(self, plans, cells, missing):
    """Inputs [B, K] of the numeric fields without vectors."""
    kinds: dict[numeric_lib.Embedding, list[fields_lib.FieldPlan]] = {}
    for plan in plans:
      kinds.setdefault(plan.numeric, []).append(plan)
    inputs = []
    for number, (kind, own) in enumerate(kinds.items()):
      places = self._places(own)
      name = f'numbers_{kind.kind}_{number}'
      if isinstance(kind, numeric_lib.Powers):
        arrays = [_stacked(self.architecture, own, a) for a in kind.arrays]
        module = numeric_nn.Powers(*arrays, name=name)
      else:
        module = numeric_nn.BottomMLP(kind.hidden, name=name)
      inputs.append(module(cells[:, places], missing[:, places]))
    return inputs[0] if len(inputs) == 1 else jnp.concatenate(inputs, 1)

  def _project(self, vectors, view, name, starts, share=None):
    """Brings a group [B, P, copies * d] to the common width of each copy.

    Args:
      vectors: the group.
      view: of the group; weights stay as they are, and copies share a map.
      name: of the group.
      starts: per part, its first column for 'zero_pad'.
      share: [B, P, 1], how much of an offset each vector gets; None for all.
    """
    architecture, copies = self.architecture, view.copies
    dim, target = vectors.shape[-1] // copies, architecture.dim
    if view.kind == 'weights' or dim == target:
      return vectors
    batch_size, num_parts, _ = vectors.shape
    if copies > 1:
      vectors = vectors.reshape(batch_size, num_parts, copies, dim)
      share = share if share is None else share[..., None]
    projected = self._mapped(vectors, name, starts, share)
    return projected.reshape(batch_size, num_parts, copies * target)

  def _mapped(self, vectors, name, starts, share):
    """The map of `_project`: [B, P, d] or [B, P, copies, d] -> [..., D]."""
    architecture, (*_, dim) = self.architecture, vectors.shape
    num_parts, target = vectors.shape[1], architecture.dim
    if architecture.projection == 'zero_pad':
      if not any(starts):
        rest = ((0, 0),) * (vectors.ndim - 1)
        return jnp.pad(vectors, (*rest, (0, target - dim)))
      rest = ((0, 0),) * (vectors.ndim - 2)
      padded = [
        jnp.pad(vectors[:, i], (*rest, (start, target - dim - start)))
        for i, start in enumerate(starts)
      ]
      return jnp.stack(padded, 1)
    kernel = self.param(
      f'{name}{PROJECTION}',
      nn.initializers.xavier_normal(in_axis=1, out_axis=2, batch_axis=0),
      (num_parts, dim, target),
      jnp.float32,
    )
    projected = jnp.einsum('bf...d,fdk->bf...k', vectors, kernel)
    if architecture.projection != 'affine':
      return projected
    offset = self.param(
      f'{name}_offset{PROJECTION}',
      nn.initializers.zeros,
      (num_parts, target),
      jnp.float32,
    )
    offset = offset.reshape(1, num_parts, *(1,) * (vectors.ndim - 3), target)
    return projected + (offset if share is None else share * offset)
