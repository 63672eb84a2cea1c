"""DPQ: can codes and a few codebooks stand for an embedding table?

Chen et al., ICML 2020 (arXiv:1908.09756), report 14 to 238 times smaller tables
at negligible cost on ten data sets of language tasks, and none of
click-through rates; AutoDim's table (arXiv:2006.14827) has a port.

  python -m experiments.run --config=experiments/configs/dpq.py:movielens_1m \
    --config.search.kind=vq --data_dir=DIR --workdir=DIR
"""

from experiments.configs import widths


def get_config(argument: str | None = None):
  """The config for 'DATA' or 'DATA,tiny'."""
  config = widths.config(argument, method='dpq')
  config.search.update(
    {
      'kind': 'vq',
      # Codes per id; they divide the width.
      'groups': 4 if config.tiny else 8,
      # Per codebook, a power of two.
      'centroids': 4 if config.tiny else 64,
      # One codebook for all groups of a field.
      'shared': False,
    }
  )
  config.controls = ('lr', 'base', 'uniform')
  return config
