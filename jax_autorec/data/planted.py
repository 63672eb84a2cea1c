"""Clicks from known field pairs: data whose truth can be recovered."""

from collections.abc import Mapping, Sequence
import dataclasses
import hashlib
import itertools
import json
import math
from typing import Any

import numpy as np

from jax_autorec import errors, metrics
from jax_autorec import schema as schema_lib
from jax_autorec.data import dataset as dataset_lib

_LEAST = {
  'num_rows': 100,
  'num_fields': 1,
  'num_pairs': 0,
  'num_triples': 0,
  'num_numeric': 0,
  'min_values': 2,
  'max_values': 2,
  'zipf': 0.0,
  'std': 0.0,
  'first_order_std': 0.0,
  'intercept': -np.inf,
  'seed': 0,
}


@dataclasses.dataclass(frozen=True)
class Settings:
  """What is planted.

  Logit = intercept + sum of first-order effects + sum of pair terms (+ triple
  terms + numeric steps). Every field has one vector per value, of a width of
  its own; a pair term is the inner product of two fields' vectors, scaled to
  `std`. Vectors are centred under the distribution of the field's values, so a
  term has no marginal effect of either field: only the pair shows it. A
  factorisation model of the largest width can represent the truth exactly.

  Attributes:
    num_rows: rows of all splits together, 80 / 10 / 10 %.
    num_fields: categorical fields.
    num_pairs: planted pairs.
    num_triples: planted triples.
    num_numeric: numeric fields, each a step at a hidden quantile.
    min_values: fewest values of a field.
    max_values: most values of a field.
    zipf: exponent of the values' frequencies, 1 / rank^zipf.
    std: standard deviation of each pair, triple and numeric term.
    first_order_std: the same of each field's own effect.
    widths: each field's width is drawn from these.
    intercept: logit of an average row.
    seed: of everything.
  """

  num_rows: int = 150_000
  num_fields: int = 10
  num_pairs: int = 7
  num_triples: int = 0
  num_numeric: int = 0
  min_values: int = 8
  max_values: int = 60
  zipf: float = 1.0
  std: float = 1.0
  first_order_std: float = 0.5
  widths: tuple[int, ...] = (2, 4, 8)
  intercept: float = -0.5
  seed: int = 0

  def __post_init__(self):
    for name, least in _LEAST.items():
      value = getattr(self, name)
      kind = type(getattr(Settings, name))
      if not isinstance(value, (int, kind)) or not least <= value < np.inf:
        raise errors.ConfigError(
          f'Planted data: {name} is {value!r}; expected {kind.__name__} of at '
          f'least {least}.'
        )
    if not self.widths or not all(
      isinstance(width, int) and width > 0 for width in self.widths
    ):
      raise errors.ConfigError(
        f'Planted data: widths are {self.widths!r}; expected integers above 0.'
      )
    if self.num_triples > math.comb(self.num_fields, 3):
      raise errors.ConfigError(
        f'{self.num_triples} planted triples of {self.num_fields} fields; '
        f'there are {math.comb(self.num_fields, 3)}.'
      )
    most = self.num_fields * (self.num_fields - 1) // 2
    if not 0 <= self.num_pairs <= most:
      raise errors.ConfigError(
        f'{self.num_pairs} planted pairs of {self.num_fields} fields; there '
        f'are {most}.'
      )
    if self.min_values > self.max_values:
      raise errors.ConfigError(
        f'Planted data of {self.min_values} to {self.max_values} values; '
        'expected min_values of at most max_values.'
      )


PRESETS = {
  'planted': {},
  'planted_hard': {
    'min_values': 10,
    'max_values': 400,
    'zipf': 1.2,
    'std': 0.5,
  },
  # Cells of a triple are many: few values, for rows enough in each.
  'planted_triples': {
    'num_pairs': 4,
    'num_triples': 4,
    'num_fields': 8,
    'max_values': 16,
    'zipf': 0.5,
    'widths': (2, 4),
  },
}


def generate(name: str = 'planted', **overrides) -> dataset_lib.Dataset:
  """Makes a planted data set.

  Args:
    name: one of `PRESETS`.
    **overrides: of `Settings`.

  Returns:
    Encoded splits with `truth`: 'pairs' and 'triples' by field name, 'dims'
    (the width of each field's vectors; 0 where it is in no term), 'numeric'
    (the hidden thresholds), and for 'valid' and 'test' the 'auc' and 'logloss'
    of the true logits, which no model beats but by chance.
  """
  if name not in PRESETS:
    raise errors.ConfigError(
      f'No planted data {name!r}; there are: {", ".join(PRESETS)}.'
    )
  try:
    settings = Settings(**(PRESETS[name] | overrides))
  except TypeError as error:
    raise errors.ConfigError(f'Planted data: {error}.') from error
  rng = np.random.default_rng(settings.seed)
  num_rows, num_fields = settings.num_rows, settings.num_fields
  names = [f'field_{i}' for i in range(num_fields)]
  # Vocabularies of real fields spread over orders of magnitude: log-uniform.
  low, high = np.log(settings.min_values), np.log(settings.max_values + 1)
  sizes = np.exp(rng.uniform(low, high, num_fields)).astype(int)
  shares = [zipf(size, settings.zipf) for size in sizes]
  values = np.stack([rng.choice(len(p), num_rows, p=p) for p in shares], axis=1)
  logits = np.full(num_rows, settings.intercept)
  for field, share in enumerate(shares):
    effect = standard(rng.normal(size=(len(share), 1)), share)
    logits += settings.first_order_std * effect[values[:, field], 0]
  pairs = _choose(rng, num_fields, 2, settings.num_pairs)
  triples = _choose(rng, num_fields, 3, settings.num_triples)
  widths = rng.choice(settings.widths, num_fields)
  tables = [
    _vectors(rng, share, width, max(settings.widths))
    for share, width in zip(shares, widths)
  ]
  for term in pairs + triples:
    logits += settings.std * _term(term, tables, shares, values)
  numeric, thresholds = _numeric(rng, settings, num_rows)
  for column, threshold in enumerate(thresholds):
    # A step of standard deviation 1 at an even threshold has height 2.
    above = numeric[:, column] > threshold
    logits += settings.std * (above - above.mean()) / above.std()
  planted = {field for term in pairs + triples for field in term}
  return assemble(
    name,
    dataclasses.asdict(settings),
    values,
    sizes,
    numeric,
    logits,
    draw_labels(rng, logits),
    {
      'pairs': [[names[f] for f in term] for term in pairs],
      'triples': [[names[f] for f in term] for term in triples],
      'dims': {
        name: int(widths[field]) if field in planted else 0
        for field, name in enumerate(names)
      },
      'numeric': {f'number_{i}': float(t) for i, t in enumerate(thresholds)},
    },
  )


def draw_labels(rng: np.random.Generator, logits: np.ndarray) -> np.ndarray:
  """Clicks float32 [R] with the probabilities that logits [R] say."""
  return (rng.random(len(logits)) < 1 / (1 + np.exp(-logits))).astype(
    np.float32
  )


def split_rows(num_rows: int) -> dict[str, slice]:
  """Which rows are whose: 80 / 10 / 10 %."""
  ends = [0, num_rows * 8 // 10, num_rows * 9 // 10, num_rows]
  return {
    split: slice(start, end)
    for split, start, end in zip(('train', 'valid', 'test'), ends, ends[1:])
  }


def assemble(
  name: str,
  settings: Mapping[str, Any],
  values: np.ndarray,
  sizes: Sequence[int],
  numeric: np.ndarray,
  logits: np.ndarray,
  labels: np.ndarray,
  truth: Mapping[str, Any],
) -> dataset_lib.Dataset:
  """The data set of generated rows, encoded as raw files would be.

  Args:
    name: of the data set.
    settings: JSON values that all of it follows from.
    values: int [R, F], raw values of the fields 'field_0', ...
    sizes: per field, the number of values that it could have.
    numeric: [R, N], of the fields 'number_0', ...
    logits: [R], the true ones.
    labels: float32 [R].
    truth: what is planted; the Bayes-optimal metrics are added.
  """
  rows = split_rows(len(labels))
  ids, vocab_sizes, frequencies = _encode(values, sizes, rows['train'])
  names = [f'field_{i}' for i in range(values.shape[1])]
  schema = schema_lib.Schema(
    tuple(
      schema_lib.Field(field, vocab_size=size)
      for field, size in zip(names, vocab_sizes)
    )
    + tuple(
      schema_lib.Field(f'number_{i}', kind='numeric')
      for i in range(numeric.shape[1])
    )
  )
  splits = {
    split: dataset_lib.Split(
      ids=np.ascontiguousarray(ids[own]),
      numeric=np.ascontiguousarray(numeric[own], np.float32),
      missing=np.zeros(numeric[own].shape, bool),
      labels=labels[own],
    )
    for split, own in rows.items()
  }
  settings_json = json.dumps([name, settings])
  return dataset_lib.Dataset(
    name=name,
    schema=schema,
    **splits,
    frequencies=dict(zip(names, frequencies)),
    counts={'read': len(labels), 'kept': len(labels), 'quarantined': 0},
    fingerprint=hashlib.sha256(settings_json.encode()).hexdigest(),
    truth={
      **truth,
      **{
        split: bayes(labels[rows[split]], logits[rows[split]])
        for split in ('valid', 'test')
      },
    },
  )


def bayes(labels: np.ndarray, logits: np.ndarray) -> dict[str, float]:
  """What the true logits [R] reach on the labels [R]."""
  return {
    'auc': metrics.auc(labels, logits),
    'logloss': metrics.logloss(labels, logits),
  }


def zipf(size: int, exponent: float) -> np.ndarray:
  """Shares [V] of values, 1 / rank^exponent, that sum to 1."""
  weights = 1 / np.arange(1, size + 1) ** exponent
  return weights / weights.sum()


def standard(vectors: np.ndarray, share: np.ndarray) -> np.ndarray:
  """Centres vectors [V, K] and scales each column to variance 1, by share."""
  vectors = vectors - share @ vectors
  return vectors / np.sqrt(share @ vectors**2)


def _choose(rng, num_fields, order, count):
  terms = list(itertools.combinations(range(num_fields), order))
  places = rng.choice(len(terms), count, replace=False)
  return [terms[i] for i in sorted(places)]


def _vectors(rng, share, width, num_columns):
  """A field's vectors [V, num_columns], zero beyond its width."""
  vectors = np.zeros((len(share), num_columns))
  columns = min(width, len(share) - 1)
  vectors[:, :columns] = standard(rng.normal(size=(len(share), columns)), share)
  return vectors


def _term(term, tables, shares, values):
  """A planted product of mean 0, standard deviation 1, no marginal effects."""
  # E[(sum_k x_k)^2] = sum over k, l of the product of the fields' second
  # moments, since fields are independent.
  moments = np.ones((tables[0].shape[1],) * 2)
  product = np.ones((len(values), tables[0].shape[1]))
  for field in term:
    table = tables[field]
    moments *= table.T @ (shares[field][:, None] * table)
    product *= table[values[:, field]]
  return product.sum(1) / np.sqrt(moments.sum())


def _numeric(rng, settings, num_rows):
  """Log-normal columns and a threshold in each, at a random quantile."""
  count = settings.num_numeric
  numeric = np.exp(rng.normal(size=(num_rows, count)))
  levels = rng.uniform(0.2, 0.8, count)
  thresholds = [np.quantile(numeric[:, i], q) for i, q in enumerate(levels)]
  return numeric, thresholds


def _encode(values, sizes, train_rows):
  """Ids by falling train frequency after the two reserved ones."""
  first = schema_lib.FIRST_VALUE_ID
  columns, vocab_sizes, frequencies = [], [], []
  for field, size in enumerate(sizes):
    counts = np.bincount(values[train_rows, field], minlength=size)
    order = np.argsort(-counts, kind='stable')
    seen = int((counts > 0).sum())
    ids = np.full(size, schema_lib.UNKNOWN_ID, np.int32)
    ids[order[:seen]] = np.arange(first, first + seen)
    columns.append(ids[values[:, field]])
    vocab_sizes.append(first + seen)
    frequencies.append(np.r_[np.zeros(first, np.int64), counts[order[:seen]]])
  return np.stack(columns, 1), vocab_sizes, frequencies
