"""DPQ: can codes and a few codebooks stand for an embedding table?

Chen et al., ICML 2020 (arXiv:1908.09756), report 14 to 238 times smaller tables
at negligible cost on ten data sets of language tasks, and none of
click-through rates; AutoDim's table (arXiv:2006.14827) has a port. Fields whose
codes and codebook would not be smaller than their rows keep these, and so do
first-order weights. What is evaluated and saved is the packed model: codes of
the whole vocabulary, codebooks, and no queries.

'vq' and 64 centroids for each two columns are from trials on the validation
split of Frappe that were not recorded. Controls: logistic regression, plain
rows of width 32 (base), and the narrowest single width of at least the packed
size.

  python -m experiments.run --config=experiments/configs/dpq.py:movielens_1m \
    --config.search.kind=vq --data_dir=DIR --workdir=DIR
"""

from experiments.configs import widths


def get_config(argument: str | None = None):
  """The config for 'DATA' or 'DATA,tiny'."""
  config = widths.config(argument, method='dpq')
  config.search.update(
    {
      # Or 'sx'.
      'kind': 'vq',
      # Codes per id; they divide the width, the largest of `dims`.
      'groups': 4 if config.tiny else 16,
      # Per codebook, a power of two.
      'centroids': 4 if config.tiny else 64,
      # One codebook for all groups of a field.
      'shared': False,
    }
  )
  config.controls = ('lr', 'base', 'uniform')
  return config
