"""PEP: which entries of the tables outlast the thresholds that they learn?

Liu et al., ICLR 2021 (arXiv:2101.07577), keep accuracy with 97 to 99 % fewer
embedding parameters (MovieLens-1M, Criteo, Avazu; FM, DeepFM, AutoInt), judged
on the test split while training. Differences: thresholds start where they can
be learnt, and the search ends at the first evaluation below the target. The
pattern that is kept is unstructured: its bits count in ep_total. The widest of
`search.dims` is what is searched; the others are for the control of one width.
Controls: logistic regression, the full width (base), the narrowest single width
of at least the size found, bits included, and random entries of that size.

  python -m experiments.run --config=experiments/configs/pep.py:frappe \
    --data_dir=DIR --workdir=DIR
"""

from ml_collections import config_dict

from experiments.configs import defaults, widths


def get_config(argument: str | None = None):
  """The config for 'DATA' or 'DATA,tiny'."""
  config = widths.config(argument, method='pep')
  defaults.searched(config)
  config.search.update(
    {
      # 'global', 'dim', 'field', 'field_dim', 'feature' or 'feature_dim'.
      'granularity': 'field_dim',
      'initial': -10.0,
      # Of s; left open, `travel` over the number of steps at most.
      'learning_rate': config_dict.placeholder(float),
      'travel': 60.0,
      # Coupled, of s.
      'decay': 1e-2,
      # Speed of an id's own threshold, over that of tables.
      'row_scale': 5.0,
      # Share of the entries that is kept; a budget goes before it.
      'density': 0.5 if config.tiny else 0.1,
    }
  )
  widths.budgeted(config)
  config.controls = ('lr', 'base', 'uniform', 'random_entries')
  return config
