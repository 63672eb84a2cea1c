"""ESAPN: how wide a row does each user and item deserve, as they come?

Liu et al., SIGIR 2020 (arXiv:2004.08371), report 40 to 90 % less memory at a
better loss and accuracy than fixed widths (MovieLens-20M and -latest, rows
shuffled). Here the stream is in order of time, every row is predicted before
anything learns from it, and the last quarter is what is reported as test, as
there. `search/esapn.py` says what is different about the reward, and why;
`search.reward=grown search.base=mean` is the published reward,
with other rates and policies that draw at `explore` where the published ones
take what is likelier; `search.shuffle=True` is the published order. Controls:
every row at one width, for each width, DARTS over widths and AutoEmb, both
soft.

  python -m experiments.run \
    --config=experiments/configs/esapn.py:movielens_100k \
    --data_dir=DIR --workdir=DIR
"""

from ml_collections import config_dict

from experiments.configs import defaults


def get_config(argument: str | None = None):
  """The config for 'DATA' or 'DATA,tiny'."""
  config = defaults.config(argument, method='esapn')
  config.model = 'rater'
  if 'split' in config.data:
    # Ids for all values: those that come late are not one unknown value.
    config.data.split = 'stream'
  config.model_options.hidden = (32,) if config.tiny else (512,)
  config.train.update(
    {
      'epochs': 1,
      'batch_size': 100 if config.tiny else 500,
      'learning_rate': 1e-3,
      'table_learning_rate': 1e-2,
      'table_optimizer': 'adam',
      'table_std': 0.1,
      'embedding_l2': 0.0,
    }
  )
  if config.tiny:
    config.data.max_rows = 2000
  config.search = config_dict.ConfigDict(
    {
      'dims': (2, 4, 8) if config.tiny else (2, 4, 8, 16, 64, 128),
      # Fields whose rows grow; the two of most values where none is given.
      'entities': (),
      # One of the runs alone ('fixed 16'), which then is the result; the method
      # with its controls where nothing is given.
      'only': config_dict.placeholder(str),
      'shuffle': False,
      # Of weights, and of rewards: 'square' or 'log'.
      'loss': 'square',
      'reward': 'hindsight',
      'base': 'both',
      'history': 5,
      # By the loss before the last quarter of movielens_100k: less growth, of
      # 1 % or by a price, learns less from it.
      'explore': 0.05,
      # What growing by a size costs, in units of the loss.
      'price': 0.0,
      # Of the policies.
      'learning_rate': 2e-3,
      # Of DARTS' logits and AutoEmb's controllers.
      'mixture_learning_rate': 1e-4,
    }
  )
  return config
