"""Clicks from numbers of known effect: a hidden step, a wave.

What a numeric embedding should find is known, and so is what no model beats.
"""

from collections.abc import Callable
import dataclasses

import numpy as np

from jax_autorec import errors
from jax_autorec.data import dataset as dataset_lib
from jax_autorec.data import planted

SHAPES = ('step', 'sine')


@dataclasses.dataclass(frozen=True)
class Settings:
  """What is planted.

  Logit = intercept + the sum over pairs of <f_n(x_n), a_n[c_n]>, scaled to
  `std`, + the sum of f_n(x_n), scaled to `own_std`. Number x_n is uniform on
  [-1, 1] and has a categorical partner c_n of its own, of even values; f_n
  is a step from -1 to 1 at a hidden threshold, or sin(6 x + a hidden phase).
  Effects a_n are +1 for one half of the partner's values and -1 for the other,
  so that they vanish on average, and the pair alone tells anything, unless
  `own_std` is above 0. All else is drawn. A factorization machine whose
  numbers have vectors that rise with f_n represents the truth.

  Attributes:
    num_rows: rows of all splits together, 80 / 10 / 10 %.
    shape: of f, 'step' or 'sine'.
    num_numeric: numbers, each with its partner.
    num_values: values of a partner, even.
    missing: share of the numeric cells that are empty; f is 0 there.
    std: standard deviation of the sum over pairs.
    own_std: the same of the numbers' own effects.
    intercept: logit of an average row.
    seed: of everything.
  """

  num_rows: int = 50_000
  shape: str = 'step'
  num_numeric: int = 2
  num_values: int = 4
  missing: float = 0.05
  std: float = 2.0
  own_std: float = 0.0
  intercept: float = 0.0
  seed: int = 0

  def __post_init__(self):
    if self.shape not in SHAPES:
      raise errors.ConfigError(
        f'Planted numbers: shape is {self.shape!r}; expected one of '
        f'{", ".join(map(repr, SHAPES))}.' + errors.nearest(self.shape, SHAPES)
      )
    errors.expect(
      self.num_rows >= 100, 'num_rows', self.num_rows, 'at least 100'
    )
    errors.expect(
      self.num_numeric >= 1, 'num_numeric', self.num_numeric, 'at least 1'
    )
    errors.expect(
      self.num_values >= 2 and self.num_values % 2 == 0,
      'num_values',
      self.num_values,
      'an even number of at least 2',
    )
    errors.expect(
      0 <= self.missing < 1, 'missing', self.missing, 'at least 0, less than 1'
    )
    for name in ('std', 'own_std'):
      value = getattr(self, name)
      errors.expect(0 <= value < np.inf, name, value, 'at least 0')


PRESETS = {
  'planted_step': {'shape': 'step'},
  'planted_sine': {'shape': 'sine'},
}


def generate(name: str = 'planted_step', **overrides) -> dataset_lib.Dataset:
  """Makes a data set of planted numbers.

  Args:
    name: 'planted_step' or 'planted_sine'.
    **overrides: of `Settings`.

  Returns:
    Encoded splits with `truth`: 'pairs', a number and its partner each;
    'thresholds' or 'phases' by number; and for 'valid' and 'test' the 'auc' and
    'logloss' of the true logits, which no model beats but by chance.
  """
  if name not in PRESETS:
    raise errors.ConfigError(
      f'No planted numbers {name!r}; there are: {", ".join(PRESETS)}.'
    )
  try:
    settings = Settings(**(PRESETS[name] | overrides))
  except TypeError as error:
    raise errors.ConfigError(f'Planted numbers: {error}.') from error
  rng = np.random.default_rng(settings.seed)
  count, rows = settings.num_numeric, settings.num_rows
  numbers = rng.uniform(-1, 1, (rows, count)).astype(np.float32)
  partners = rng.integers(0, settings.num_values, (rows, count))
  hidden, effects = zip(*(_effect(rng, settings.shape) for _ in range(count)))
  values = np.stack([f(x) for f, x in zip(effects, numbers.T)], 1)
  missing = rng.random((rows, count)) < settings.missing
  values = np.where(missing, 0, values)
  half = np.repeat([1.0, -1.0], settings.num_values // 2)
  signs = np.stack([rng.permutation(half) for _ in range(count)])
  paired = values * signs[np.arange(count), partners]
  logits = np.full(rows, settings.intercept, np.float64)
  for std, parts in ((settings.std, paired), (settings.own_std, values)):
    # Of independent terms.
    logits += std * parts.sum(1) / np.sqrt((parts**2).mean(0).sum())
  names = [f'number_{i}' for i in range(count)]
  key = {'step': 'thresholds', 'sine': 'phases'}[settings.shape]
  data = planted.assemble(
    name,
    dataclasses.asdict(settings),
    partners,
    [settings.num_values] * count,
    np.where(missing, 0, numbers),
    logits,
    planted.draw_labels(rng, logits),
    {
      'pairs': [[f'field_{i}', names[i]] for i in range(count)],
      'triples': [],
      key: dict(zip(names, hidden)),
    },
  )
  own = planted.split_rows(rows)
  return dataclasses.replace(
    data,
    **{
      split: dataclasses.replace(
        getattr(data, split), missing=np.ascontiguousarray(missing[part])
      )
      for split, part in own.items()
    },
  )


def _effect(
  rng: np.random.Generator, shape: str
) -> tuple[float, Callable[[np.ndarray], np.ndarray]]:
  """What is hidden of a number's effect, and the effect of values [R]."""
  if shape == 'step':
    # Not in the middle, where any even number of equal intervals has an edge.
    threshold = float(rng.choice([-1, 1]) * rng.uniform(0.1, 0.7))
    return threshold, lambda x: np.where(x > threshold, 1.0, -1.0)
  phase = float(rng.uniform(0, 2 * np.pi))
  return phase, lambda x: np.sin(6 * x.astype(np.float64) + phase)
