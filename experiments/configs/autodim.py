"""AutoDim: which width does each field deserve?

Zhao et al., WWW 2021 (arXiv:2006.14827), report 64 to 78 % fewer embedding
parameters than one width of 32 at a higher AUC (Criteo, Avazu; FM, Wide & Deep,
DeepFM). Differences from the paper: the learning rate of the logits follows
from how far they are to travel, since with few updates they never leave their
start; the temperature is constant and batches see many draws
(`jax_autorec/search/autodim.py` says why); the logits move as often as they
must to be told apart, every step if need be; vectors are scaled, by one trained
number per field, where candidates are normalised.
`search.schedule=published search.draws=1 search.period=10` is the paper's (its
temperature falls over 19,800 steps, whatever the length of the search);
`search.tolerance` below 1 prefers narrow widths, which the paper does not.
`search.split=train` is AD-s, `search.order=2` the exact second order. Controls:
logistic regression, one width of 32 (base), the narrowest single width of at
least the size found, and random widths of that size.

  python -m experiments.run \
    --config=experiments/configs/autodim.py:movielens_1m \
    --data_dir=DIR --workdir=DIR
"""

from ml_collections import config_dict

from experiments.configs import defaults, widths


def get_config(argument: str | None = None):
  """The config for 'DATA' or 'DATA,tiny'."""
  config = widths.config(argument, method='autodim')
  defaults.searched(config)
  config.search.update(
    {
      'tables': 'shared',
      'transform': 'linear',
      'transforms': 'field',
      # 'train': one level, AD-s.
      'split': 'valid',
      'order': 1,
      # Rate of the inner step, of order 2. It is one of plain gradient descent
      # on a mean loss, whose rows move by Adam some 1 to 100 times as far as
      # their gradients are long: at Adam's own rate of 1e-3 the second order
      # would differ from the first by 1e-4 of it.
      'inner_rate': 1.0,
      # Steps between updates of the logits; left open, 10 as in the paper, or
      # fewer where there would be less than 1000 updates.
      'period': config_dict.placeholder(int),
      # Share of the search before the first update of the logits.
      'warmup': 0.25,
      # Of the logits; left open, `travel` over the number of updates.
      'learning_rate': config_dict.placeholder(float),
      'travel': 4.0,
      # Of the temperature: 'constant', at `floor`; 'linear', from 1 to `floor`
      # over the whole search; 'published', which suits far longer searches.
      'schedule': 'constant',
      'floor': 0.1,
      # Per batch; each is seen by as many rows.
      'draws': 64,
      # Of widths that weigh at least so much of the heaviest, the narrowest; 1
      # for the heaviest.
      'tolerance': 1.0,
    }
  )
  config.search.engine = defaults.engine()
  config.controls = ('lr', 'base', 'uniform', 'random_dims')
  return config
