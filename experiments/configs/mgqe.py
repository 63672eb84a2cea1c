"""MGQE: do rare ids need as many centroids as frequent ones?

Kang et al., WWW 2020 (arXiv:2002.08530), report results on par or better at a
fifth of the size (GMF, NeuMF, SASRec). DPQ-VQ of which the rare ids of each
field may choose among the first centroids only; ids are numbered by frequency
in the train split. Differences: codebooks of each field's own, and 64 and 16
centroids where a port that is often cited has 256 and 64 for one table of all
fields. `search.max_params` gives a budget in place of `search.centroids`.
Controls as of `dpq.py`.

  python -m experiments.run --config=experiments/configs/mgqe.py:movielens_1m \
    --config.search.max_params=40000 --data_dir=DIR --workdir=DIR
"""

from experiments.configs import widths


def get_config(argument: str | None = None):
  """The config for 'DATA' or 'DATA,tiny'."""
  config = widths.config(argument, method='mgqe')
  config.search.update(
    {
      'kind': 'vq',
      # Codes per id; they divide the width, the largest of `dims`.
      'groups': 4 if config.tiny else 16,
      # Of the ids of a field, most frequent first.
      'shares': (0.1, 0.9),
      # Per tier, powers of two, of one codebook.
      'centroids': (8, 4) if config.tiny else (64, 16),
      # One codebook for all groups of a field.
      'shared': False,
    }
  )
  widths.budgeted(config)
  config.controls = ('lr', 'base', 'uniform')
  return config
