"""AutoEmb: how wide are the rows of ids of each frequency to be?

Zhao et al., ICDM 2021 (arXiv:2002.11252), a row of AutoDim's comparison. A
controller weighs the widths of a bucket of ids by their train frequency; it
follows the validation loss, the weights that of the train split. Differences
from the paper, whose mixture stays soft: in the end each bucket takes its
widest weight, and the model is retrained on rows of these widths. On streams
the soft form is a control of `configs/esapn.py`.

  python -m experiments.run \
    --config=experiments/configs/autoemb.py:movielens_1m \
    --data_dir=DIR --workdir=DIR
"""

from ml_collections import config_dict

from experiments.configs import defaults, widths


def get_config(argument: str | None = None):
  """The config for 'DATA' or 'DATA,tiny'."""
  config = widths.config(argument, method='autoemb')
  defaults.searched(config)
  config.search.update(
    {
      # Fields of fewer ids have one bucket: one width for all their ids.
      'min_vocab': 0,
      # Steps between updates of the controller; left open, 10, or fewer where
      # there would be less than 400 updates. In the paper every step.
      'period': config_dict.placeholder(int),
      # Share of the search before the first update of the controller.
      'warmup': 0.25,
      'controller_learning_rate': 1e-3,
    }
  )
  # 'reinforce' or 'darts' on the same space.
  config.search.engine = defaults.engine()
  config.controls = ('lr', 'base', 'uniform', 'random_dims')
  return config
