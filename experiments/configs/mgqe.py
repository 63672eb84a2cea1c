"""MGQE: do rare ids need as many centroids as frequent ones?

Kang et al., WWW 2020 (arXiv:2002.08530).

  python -m experiments.run --config=experiments/configs/mgqe.py:movielens_1m \
    --data_dir=DIR --workdir=DIR
"""

from ml_collections import config_dict

from experiments.configs import widths


def get_config(argument: str | None = None):
  """The config for 'DATA' or 'DATA,tiny'."""
  config = widths.config(argument, method='mgqe')
  config.search.update(
    {
      'kind': 'vq',
      # Codes per id; they divide the width.
      'groups': 4 if config.tiny else 8,
      # Of the ids of a field, most frequent first.
      'shares': (0.1, 0.9),
      # Per tier, powers of two, of one codebook.
      'centroids': (8, 4) if config.tiny else (64, 16),
      # Bound on ep_total, in float32 entries; chooses `centroids`.
      'max_params': config_dict.placeholder(int),
      # One codebook for all groups of a field.
      'shared': False,
    }
  )
  config.controls = ('lr', 'base', 'uniform')
  return config
