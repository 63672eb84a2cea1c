"""OptEmbed: which rows are worth keeping, and how wide is each field then?

Lyu et al., CIKM 2022: SGD of 1e-4 for the thresholds and a penalty of 1e-6 to
1e-4 on Criteo, Avazu and KDD12, of rows of width 64; the authors' code warns
that its results are not guaranteed to be reproducible, and its search returns
another candidate than the one it measured. Here it returns that one, and widths
have a price. Few steps need a faster rate. The widest of `search.dims` is what
is searched; the others are for the control of one width. Controls: logistic
regression, the full width (base), the narrowest single width of at least the
size found, permutations included, and random rows of that size.

  python -m experiments.run --config=experiments/configs/optembed.py:frappe \
    --data_dir=DIR --workdir=DIR
"""

from experiments.configs import defaults, widths


def get_config(argument: str | None = None):
  """The config for 'DATA' or 'DATA,tiny'."""
  config = widths.config(argument, method='optembed')
  defaults.searched(config)
  config.search.update(
    {
      # Of the thresholds.
      'learning_rate': 1.0,
      # Of sum exp(-threshold).
      'penalty': 1e-3,
      # Validation AUC that whole tables are to gain over none.
      'price': 0.01,
      'population': 4 if config.tiny else 10,
      'generations': 2 if config.tiny else 30,
      'mutations': 4 if config.tiny else 10,
      'crossovers': 4 if config.tiny else 10,
      # Of a field to be mutated.
      'chance': 0.1,
    }
  )
  widths.budgeted(config)
  config.controls = ('lr', 'base', 'uniform', 'random_rows')
  return config
