"""SSEDS: which columns of which fields would a trained model miss?

Qu et al., SIGIR 2022, keep the strength of the full model with 10 % of its
embedding parameters, from one backward pass over a trained model. Here the
pass is over the whole validation split. The widest of `search.dims` is what is
searched; the others are for the control of one width. Controls: logistic
regression, the full width (base), the narrowest single width of at least the
size found, and random widths of that size.

  python -m experiments.run --config=experiments/configs/sseds.py:frappe \
    --data_dir=DIR --workdir=DIR
"""

from experiments.configs import defaults, widths


def get_config(argument: str | None = None):
  """The config for 'DATA' or 'DATA,tiny'."""
  config = widths.config(argument, method='sseds')
  defaults.searched(config)
  config.search.update(
    {
      # Of the entries of the tables that is kept; more where few are wide.
      'share': 0.5 if config.tiny else 0.1,
    }
  )
  widths.budgeted(config)
  config.controls = ('lr', 'base', 'uniform', 'random_dims')
  return config
