"""What a trained model makes of numbers, along their axis."""

from typing import Any

import numpy as np

from jax_autorec import numeric
from jax_autorec.data import dataset as dataset_lib
from jax_autorec.nn import embeddings
from jax_autorec.nn import model as model_lib
from jax_autorec.nn import numeric as numeric_nn
from jax_autorec.train import models
from jax_autorec.train import state as state_lib

_TAIL = 0.005  # Share of the train rows that is left out at either end.
_QUANTILES = 20


def numbers(
  model: models.Model, train: dataset_lib.Split, num_points: int = 64
) -> dict[str, dict[str, Any]]:
  """Similarities of the vectors of a field's values, and their soft buckets.

  Args:
    model: trained; of several vectors of a field those of the first view.
    train: its train split, of which quantiles are told.
    num_points: values per field, evenly from one end of the middle 99 % of the
      train rows to the other.

  Returns:
    Numeric field that has vectors -> 'title' of its embedding; 'values' [G], as
    the model reads them; 'similarity' [G][G], cosines of their vectors;
    'quantiles', 19 of the train values; and, of AutoDis, 'weights' [G][H].
  """
  architecture = model.architecture
  for view in architecture.views.values():
    if view.kind != 'vectors':
      continue
    read = view.of(architecture.fields)
    plans = [plan for plan in read if plan.kind == 'numeric']
    if plans:
      break
  else:
    return {}
  places = [architecture.numeric.index(plan) for plan in plans]
  grid = np.zeros((num_points, len(architecture.numeric)), np.float32)
  quantiles = {}
  for place in places:
    known = ~np.asarray(train.missing[:, place])
    values = np.asarray(train.numeric[:, place], np.float64)[known]
    values = values if len(values) else np.zeros(1)
    low, high = np.quantile(values, [_TAIL, 1 - _TAIL])
    if low == high:
      low, high = low - 0.5, high + 0.5
    grid[:, place] = np.linspace(low, high, num_points)
    shares = np.arange(1, _QUANTILES) / _QUANTILES
    quantiles[place] = np.quantile(values, shares)
  vectors, weights = _apply(model, view, grid)
  result = {}
  for plan, place in zip(plans, places):
    own = vectors[:, read.index(plan)]
    norms = np.linalg.norm(own, axis=1, keepdims=True)
    unit = own / np.maximum(norms, 1e-30)
    result[plan.name] = {
      'title': plan.numeric.title,
      'values': _rounded(grid[:, place], 5),
      'similarity': _rounded(unit @ unit.T, 3),
      'quantiles': _rounded(quantiles[place], 5),
    }
    if plan.name in weights:
      result[plan.name]['weights'] = _rounded(weights[plan.name], 4)
  return result


def _rounded(values, digits):
  return np.round(np.asarray(values, np.float64), digits).tolist()


def _apply(model, view, grid):
  """Vectors float64 [G, F, D] and soft weights by field, of a grid [G, N]."""
  architecture = model.architecture
  params = model.params.get(model_lib.EMBEDDINGS, {})
  stats = model.batch_stats.get(model_lib.EMBEDDINGS, {})
  width = sum(plan.max_length for plan in architecture.categorical)
  batch = state_lib.empty_batch(len(grid), width, grid.shape[1])
  batch = batch._replace(numeric=grid, missing=np.zeros(grid.shape, bool))
  views = embeddings.FieldEmbeddings(architecture).apply(
    {
      'params': {**params, **model.tables},
      'batch_stats': stats,
      'constants': model_lib.constants(architecture),
    },
    batch,
  )
  weights = {}
  for group in embeddings.numeric_groups(architecture, view):
    if isinstance(group.kind, numeric.AutoDis):
      module = embeddings.soft_buckets(architecture, group)
      found = module.apply(
        {'params': params[group.name]},
        grid[:, list(group.places)],
        method=numeric_nn.AutoDis.weights,
      )
      for i, place in enumerate(group.places):
        weights[architecture.numeric[place].name] = np.asarray(found[:, i])
  return np.asarray(views[view.name], np.float64), weights
