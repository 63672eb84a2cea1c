"""Second order and implicit gradients of a bi-level search, exact products.

Liu, Simonyan and Yang, DARTS, ICLR 2019, section 2.3: the choices a follow the
validation loss at the weights w' = w - xi grad_w L_train(w, a), of which

  dL_valid(w'(a), a)/da = grad_a L_valid(w', a)
                          - xi (d/dw grad_a L_train(w, a)) v,
  v = grad_w' L_valid(w', a).

The paper approximates the product by a finite difference. Here it is one
forward derivative (jvp) of grad_a L_train along v, which is exact. Weights are
the dense ones and the rows that the train batch looked up: a row that both
batches look up moves for both, and no table is read or written. The inner step
is plain gradient descent on the loss alone, without decay.

Near the end of training the weights answer the choices as a whole, not by one
step (Lorraine, Vicol and Duvenaud, AISTATS 2020, arXiv:1911.02590, theorem 1):

  dL_valid(w(a), a)/da = grad_a L_valid
                         - (d/dw grad_a L_train) H^-1 grad_w L_valid,

H the second derivative of L_train by the weights, all at the weights as they
are (`Implicit`). Here it is that of the train batch, of the dense weights and
of the batch's rows: no other row has a part in its loss. It is singular and,
far from a minimum, indefinite, so `damping` is added to its diagonal.

The cost of either is that of the two batches, whatever the vocabulary.
"""

from collections.abc import Callable
import functools
import math
from typing import NamedTuple

import jax
from jax import lax
import jax.numpy as jnp

from jax_autorec import errors
from jax_autorec.nn import blocks, lookups
from jax_autorec.nn import model as model_lib
from jax_autorec.optim import row_sparse
from jax_autorec.optim import tables as tables_lib
from jax_autorec.train import state as state_lib
from jax_autorec.types import Array, Batch, PyTree


class Implicit(NamedTuple):
  """How H^-1 is applied to a vector; each iteration is one product with H.

  Attributes:
    solver: 'cg', conjugate gradients, which want H + damping to be positive
      definite, and end where it is not; or 'neumann', the sum over
      k < `iterations` of rate (1 - rate (H + damping))^k, which wants rate
      times its largest eigenvalue to be below 2 and its least above 0, or it
      grows with the iterations; it is one unrolled step at `iterations` of 1.
    iterations: at most; conjugate gradients end at a residual of 1e-5 of the
      first.
    damping: added to the diagonal of H, whose least eigenvalue is below 0 far
      from a minimum (-56 for a small FM after a few steps).
    rate: of the Neumann series; and of the one step that conjugate gradients
      fall back to where the first direction has no positive curvature.
  """

  solver: str = 'cg'
  iterations: int = 10
  damping: float = 0.1
  rate: float = 0.1

  def check(self) -> None:
    """Refuses values that are out of range.

    Raises:
      ConfigError: names the value.
    """
    errors.expect(
      self.solver in SOLVERS,
      'solver of an implicit gradient',
      self.solver,
      f'one of {", ".join(map(repr, SOLVERS))}',
    )
    errors.expect(self.iterations >= 1, 'iterations', self.iterations, '>= 1')
    for name in ('damping', 'rate'):
      value = getattr(self, name)
      errors.expect(0 < value < math.inf, name, value, 'more than 0')


class Joined(NamedTuple):
  """The rows of a train batch and where a validation batch finds them.

  Attributes:
    sums: table -> [U, D], summed gradients of the distinct train rows.
    train: space -> int32 [N], place of each train id among them.
    valid: space -> int32 [M], the same of validation ids; U where it is none
      of them.
  """

  sums: dict[str, Array]
  train: dict[str, Array]
  valid: dict[str, Array]


def join(
  model: model_lib.CTRModel,
  train: state_lib.TrainState,
  flat_ids: dict[str, Array],
  row_grads: dict[str, Array],
  valid_batch: Batch,
) -> tuple[state_lib.TrainState, Joined]:
  """Joins the rows of two batches; the cost is that of their ids.

  Args:
    model: names the tables; under pmap its replicas' rows are gathered.
    train: the state; its slot maps are used.
    flat_ids: of the train batch.
    row_grads: of the train batch, table -> [B, C, D].
    valid_batch: the other batch.

  Returns:
    The state with its slot maps after; the rows.
  """
  architecture, axis_name = model.architecture, model.axis_name
  gather = functools.partial(_gather, axis_name=axis_name)
  spaces = lookups.spaces(architecture)
  slots = tables_lib.slots(train.table_optimizer, train.tables, spaces)
  other_ids = lookups.flatten_ids(architecture, valid_batch, train.constants)
  distinct, own, other = {}, {}, {}
  for space, ids in flat_ids.items():
    every = gather(ids.reshape(-1))
    capacity = min(len(every), len(slots[space]))
    slots[space], distinct[space] = row_sparse.unique(
      slots[space], every, capacity
    )
    ids, wanted = ids.reshape(-1), other_ids[space].reshape(-1)
    slots[space], places = row_sparse.join(
      slots[space], distinct[space], jnp.concatenate([ids, wanted])
    )
    own[space], other[space] = places[: len(ids)], places[len(ids) :]
  sums = {
    name: row_sparse.sum_rows(
      distinct[spaces[name]], gather(grads.reshape(-1, grads.shape[-1]))
    )
    for name, grads in row_grads.items()
  }
  state = tables_lib.with_slots(train.table_optimizer, slots)
  return train.replace(table_optimizer=state), Joined(sums, own, other)


def _gather(array, axis_name):
  if axis_name is None:
    return array
  return lax.all_gather(array, axis_name, tiled=True)


def _at(rows: Array, places: Array, like: Array) -> Array:
  """rows [U, D] at places [N], zeros beyond, shaped like [B, C, D]."""
  return rows.at[places].get(mode='fill', fill_value=0).reshape(like.shape)


def _neumann(product, vector, inner):
  def body(_, carry):
    term, total = carry
    term = jax.tree.map(lambda t, p: t - inner.rate * p, term, product(term))
    return term, jax.tree.map(jnp.add, total, term)

  _, total = lax.fori_loop(1, inner.iterations, body, (vector, vector))
  return jax.tree.map(lambda x: inner.rate * x, total)


def _dot(one, other):
  return sum(map(jnp.vdot, jax.tree.leaves(one), jax.tree.leaves(other)))


def _conjugate(product, vector, inner):
  """Conjugate gradients from zero, as far as the matrix is positive.

  At a direction of no positive curvature the quadratic has no minimum: what
  was reached is the answer (Steihaug, 1983), at first the direction itself, as
  of one unrolled step.
  """
  move = lambda start, step, way: jax.tree.map(
    lambda s, w: s + step * w, start, way
  )
  square = _dot(vector, vector)

  def goes_on(carry):
    k, _, _, _, left, is_positive = carry
    return (k < inner.iterations) & (left > 1e-10 * square) & is_positive

  def body(carry):
    k, solution, residual, way, left, _ = carry
    image = product(way)
    curvature = _dot(way, image)
    is_positive = curvature > 0
    step = jnp.where(
      is_positive,
      left / jnp.where(is_positive, curvature, 1),
      jnp.where(k == 0, inner.rate, 0.0),
    )
    solution = move(solution, step, way)
    residual = move(residual, -step, image)
    now = _dot(residual, residual)
    way = move(residual, now / jnp.where(left > 0, left, 1), way)
    return k + 1, solution, residual, way, now, is_positive

  zeros = jax.tree.map(jnp.zeros_like, vector)
  start = (0, zeros, vector, vector, square, square > 0)
  return lax.while_loop(goes_on, body, start)[1]


SOLVERS = {'cg': _conjugate, 'neumann': _neumann}


def gradient(
  model: model_lib.CTRModel,
  inner: float | Implicit,
  joined: Joined,
  train: state_lib.TrainState,
  train_rows: dict[str, Array],
  dense_grads: PyTree,
  train_loss: Callable[..., Array],
  valid_rows: dict[str, Array],
  valid_grads: Callable[..., tuple[tuple[PyTree, PyTree, PyTree], PyTree]],
  arch: PyTree,
) -> tuple[PyTree, PyTree, PyTree]:
  """The gradient of the choices through the weights that answer them.

  Args:
    model: under pmap gradients are summed over its replicas.
    inner: xi, of one step of the weights; or how the weights answer at last.
    joined: of `join`.
    train: the state before the step.
    train_rows: table -> [B, C, D].
    dense_grads: of the train loss; this replica's part.
    train_loss: (params, rows, arch) -> [], this replica's part.
    valid_rows: table -> [B, C, D].
    valid_grads: (params, rows) -> ((arch, params, rows gradients), aux).
    arch: the choices to be unrolled.

  Returns:
    Gradients of all choices (this replica's part; at w', or at w of an implicit
    one), what to subtract from those of `arch` (the same), and aux.
  """
  axis_name = model.axis_name
  spaces = lookups.spaces(model.architecture)

  def summed(grads, places):
    """Gradients of looked-up rows, table -> [U, D], all replicas'."""
    sums = {}
    for name, own in grads.items():
      flat = _gather(own.reshape(-1, own.shape[-1]), axis_name)
      at = _gather(places[spaces[name]], axis_name)
      sums[name] = jnp.zeros_like(joined.sums[name])
      sums[name] = sums[name].at[at].add(flat, mode='drop')
    return sums

  def derivative(argnums, vector):
    """Of the train loss's gradients, along (dense, rows [U, D])."""
    dense, sums = vector
    rows = {
      name: _at(sums[name], joined.train[spaces[name]], own)
      for name, own in train_rows.items()
    }
    return jax.jvp(
      lambda *weights: jax.grad(train_loss, argnums)(*weights, arch),
      (train.params, train_rows),
      (dense, rows),
    )[1]

  implicit = isinstance(inner, Implicit)
  params, rows = train.params, dict(valid_rows)
  if not implicit:
    grads = blocks.psum(dense_grads, axis_name)
    params = jax.tree.map(lambda w, g: w - inner * g, params, grads)
    for name, own in valid_rows.items():
      step = _at(joined.sums[name], joined.valid[spaces[name]], own)
      rows[name] = own - inner * step
  (arch_grads, params_grads, rows_grads), aux = valid_grads(params, rows)
  vector = (
    blocks.psum(params_grads, axis_name),
    summed(rows_grads, joined.valid),
  )
  if not implicit:
    mixed = derivative(2, vector)
    return arch_grads, jax.tree.map(lambda x: inner * x, mixed), aux

  def product(vector):
    """(H + damping) times a vector, the same on all replicas."""
    dense, own = derivative((0, 1), vector)
    image = blocks.psum(dense, axis_name), summed(own, joined.train)
    return jax.tree.map(lambda h, v: h + inner.damping * v, image, vector)

  answer = SOLVERS[inner.solver](product, vector, inner)
  return arch_grads, derivative(2, answer), aux
