"""AutoSrh (DNIS): which entries of the tables matter, by groups of ids?

Cheng et al., 2020 (arXiv:2006.04466), and Kong et al., TKDE 2023, keep the
accuracy of the full model with 50 to 95 % fewer embedding parameters. The
pattern that is kept is unstructured: its bits count in ep_total. The widest of
`search.dims` is what is searched; the others are for the control of one width.
Controls: logistic regression, the full width (base), the narrowest single width
of at least the size found, bits included, and random entries of that size.

  python -m experiments.run --config=experiments/configs/autosrh.py:frappe \
    --data_dir=DIR --workdir=DIR
"""

from experiments.configs import defaults, widths


def get_config(argument: str | None = None):
  """The config for 'DATA' or 'DATA,tiny'."""
  config = widths.config(argument, method='autosrh')
  defaults.searched(config)
  config.search.update(
    {
      # Of ids of a field, of equal size, by falling frequency.
      'groups': 10,
      # Of the factors.
      'learning_rate': 0.01,
      'l1': 1e-5,
      # Share of the search before the first update of the factors.
      'warmup': 0.5,
      'period': 1,
      # Share of the entries that is kept; a budget goes before it.
      'density': 0.3 if config.tiny else 0.1,
    }
  )
  widths.budgeted(config)
  config.controls = ('lr', 'base', 'uniform', 'random_entries')
  return config
