"""Clicks from fields of known ranks: data that show which widths are needed.

What a method of embedding sizes should find is known: wide vectors where a
field's interactions need them, the least for noise, rows for the head of a
long tail, nothing in particular where validation labels say nothing.
"""

from collections.abc import Sequence
import dataclasses
import itertools

import numpy as np

from jax_autorec import errors
from jax_autorec.data import dataset as dataset_lib
from jax_autorec.data import planted


@dataclasses.dataclass(frozen=True)
class Settings:
  """What is planted.

  Logit = intercept + sum over pairs of fields of <a_m[x_m], a_k[x_k]>, scaled
  to `std`; a click is drawn with that probability, which is all the noise
  there is. Vectors of a field of rank r vary in their first r columns and are
  0 beyond, so that field m meets the others in a matrix of rank r (as long as
  another field has that rank too). They are centred under the distribution of
  values, so no field has an effect of its own. A factorization machine of the
  widths `ranks` represents the truth exactly.

  Attributes:
    num_rows: rows of all splits together, 80 / 10 / 10 %.
    ranks: of the fields, which the seed puts in an order; 0 for a field that
      the label does not depend on.
    num_values: values of every field.
    zipf: exponent of the values' frequencies, 1 / rank^zipf; 0: even.
    head_share: share of a field's values, the most frequent ones, that carry
      all the signal; vectors of the others are 0.
    duplicates: so many fields of the highest rank come twice: a copy, value
      for value, follows the other fields.
    permute_valid: whether the labels of the validation split are permuted.
    std: standard deviation of the logit.
    intercept: logit of an average row.
    seed: of everything.
  """

  num_rows: int = 200_000
  ranks: tuple[int, ...] = (1, 1, 2, 2, 8, 8, 16, 16)
  num_values: int = 200
  zipf: float = 0.0
  head_share: float = 1.0
  duplicates: int = 0
  permute_valid: bool = False
  std: float = 2.0
  intercept: float = -0.5
  seed: int = 0

  def __post_init__(self):
    object.__setattr__(self, 'ranks', tuple(self.ranks))
    if sum(rank > 0 for rank in self.ranks) < 2 or min(self.ranks) < 0:
      raise errors.ConfigError(
        f'Planted ranks are {self.ranks}; expected none below 0 and at least '
        'two above.'
      )
    if self.num_head <= max(self.ranks) or not 0 < self.head_share <= 1:
      raise errors.ConfigError(
        f'{self.num_values} planted values with a head_share of '
        f'{self.head_share} cannot have vectors of rank {max(self.ranks)}: '
        'give more values.'
      )
    highest = self.ranks.count(max(self.ranks))
    if self.num_rows < 100 or not 0 <= self.duplicates <= highest:
      raise errors.ConfigError(
        f'Planted data of {self.num_rows} rows and {self.duplicates} '
        f'duplicates; expected at least 100 rows and at most {highest} '
        'duplicates, the fields of the highest rank.'
      )

  @property
  def num_head(self) -> int:
    """Values of a field that carry signal."""
    return round(self.num_values * self.head_share)


_EVEN = (4, 4, 4, 4, 4, 4)
PRESETS = {
  'planted_ranks': {},
  'planted_noise': {'ranks': (*_EVEN, 0, 0)},
  'planted_head': {
    'ranks': _EVEN,
    'num_values': 2000,
    'zipf': 1.1,
    'head_share': 0.1,
  },
  'planted_permuted': {'permute_valid': True},
  'planted_duplicate': {'ranks': _EVEN, 'duplicates': 1},
}


def generate(name: str = 'planted_ranks', **overrides) -> dataset_lib.Dataset:
  """Makes a data set of planted ranks.

  Args:
    name: 'planted_ranks': unequal ranks; 'planted_noise': two fields that the
      label does not depend on; 'planted_head': a long tail without signal;
      'planted_permuted': validation labels that say nothing;
      'planted_duplicate': a field that comes twice.
    **overrides: of `Settings`.

  Returns:
    Encoded splits with `truth`: 'ranks' by field name; 'noise_fields', those
    of rank 0; 'duplicates', pairs of equal fields; 'pairs', those whose product
    is in the logit; 'head_share'; 'head_ids', per field the ids that carry
    signal, where some do not; 'permuted', the splits whose labels are; and for
    'valid' and 'test' the 'auc' and 'logloss' of the true logits (of a
    constant for permuted labels), which no model beats but by chance.
  """
  if name not in PRESETS:
    raise errors.ConfigError(
      f'No planted fields {name!r}; there are: {", ".join(PRESETS)}.'
    )
  try:
    settings = Settings(**(PRESETS[name] | overrides))
  except TypeError as error:
    raise errors.ConfigError(f'Planted fields: {error}.') from error
  rng = np.random.default_rng(settings.seed)
  ranks = rng.permutation(settings.ranks)
  share = planted.zipf(settings.num_values, settings.zipf)
  shape = (settings.num_rows, len(ranks))
  values = rng.choice(len(share), shape, p=share)
  tables = [
    vectors(rng, share, rank, max(ranks), settings.num_head) for rank in ranks
  ]
  logits = settings.intercept + settings.std * pair_sum(tables, share, values)
  labels = planted.draw_labels(rng, logits)
  valid = planted.split_rows(settings.num_rows)['valid']
  if settings.permute_valid:
    labels[valid] = rng.permutation(labels[valid])
  copied = np.flatnonzero(ranks == max(ranks))[: settings.duplicates]
  pairs = itertools.combinations(np.flatnonzero(ranks), 2)
  truth = {
    'ranks': _by_name([*ranks, *ranks[copied]]),
    'noise_fields': [f'field_{i}' for i in np.flatnonzero(ranks == 0)],
    'duplicates': [
      [f'field_{i}', f'field_{len(ranks) + n}'] for n, i in enumerate(copied)
    ],
    'pairs': [[f'field_{i}', f'field_{j}'] for i, j in pairs],
    'triples': [],
    'head_share': settings.head_share,
    'permuted': ['valid'] if settings.permute_valid else [],
  }
  values = np.concatenate([values, values[:, copied]], axis=1)
  data = planted.assemble(
    name,
    dataclasses.asdict(settings),
    values,
    [settings.num_values] * values.shape[1],
    np.zeros((settings.num_rows, 0)),
    logits,
    labels,
    truth,
  )
  known = dict(data.truth)
  if settings.permute_valid:
    rate = labels[valid].mean(dtype=np.float64)
    constant = np.full(data.valid.num_rows, np.log(rate / (1 - rate)))
    known['valid'] = planted.bayes(data.valid.labels, constant)
  if settings.num_head < settings.num_values:
    in_head = values[: data.train.num_rows] < settings.num_head
    known['head_ids'] = {
      f'field_{i}': np.unique(data.train.ids[in_head[:, i], i]).tolist()
      for i in range(values.shape[1])
    }
  return dataclasses.replace(data, truth=known)


def _by_name(values):
  return {f'field_{i}': int(value) for i, value in enumerate(values)}


def vectors(
  rng: np.random.Generator,
  share: np.ndarray,
  rank: int,
  num_columns: int,
  num_head: int,
) -> np.ndarray:
  """A field's vectors [V, num_columns], zero beyond its rank and its head.

  Args:
    rng: that they are drawn with.
    share: [V], the frequencies of the values, falling.
    rank: columns that are not zero, each of mean 0 and variance 1.
    num_columns: all columns.
    num_head: values that are not zero.
  """
  table = np.zeros((len(share), num_columns))
  head = share[:num_head] / share[:num_head].sum()
  drawn = planted.standard(rng.normal(size=(num_head, rank)), head)
  table[:num_head, :rank] = drawn / np.sqrt(share[:num_head].sum())
  return table


def pair_sum(
  tables: Sequence[np.ndarray], share: np.ndarray, values: np.ndarray
) -> np.ndarray:
  """Sum of the inner products of all pairs of fields, of variance 1: [R].

  Args:
    tables: per field, its vectors [V, D], of mean 0.
    share: [V], the frequencies of its values.
    values: int [R, F].
  """
  rows = np.stack([t[values[:, i]] for i, t in enumerate(tables)])
  total = (rows.sum(0) ** 2 - (rows**2).sum(0)).sum(1) / 2
  # Pairs are uncorrelated, as fields are independent and vectors centred.
  seconds = [table.T @ (share[:, None] * table) for table in tables]
  variance = sum((a * b).sum() for a, b in itertools.combinations(seconds, 2))
  return total / np.sqrt(variance)
