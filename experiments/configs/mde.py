"""MDE: do fields of many rows deserve narrow ones?

Ginart et al. (arXiv:1909.11810) report, on Criteo, equal accuracy with 16 times
fewer parameters, or .1 % more with half of them; in AutoDim's table (Zhao et
al., WWW 2021, arXiv:2006.14827) MDE has 48 to 65 % fewer at an AUC of .0002 to
.0007 more than one width of 32, as the best of 16 settings. Here too: 16
exponents, of which the validation split chooses one; 0 is one width for all.
One exponent alone is not searched: --config.search.alphas='(0.3,)'.

Differences from the authors' code: a budget counts projections and first-order
weights, and lambda is solved again once widths are clipped; tables of at most
`threshold` rows keep the full width (there they stop the run); rows start at a
common spread rather than at U(+-1/sqrt(rows)). Fields of planted data have few
rows: there --config.search.threshold=0. Controls: logistic regression, the full
width for all (base), the narrowest single width of at least the size found.

  python -m experiments.run --config=experiments/configs/mde.py:movielens_1m \
    --data_dir=DIR --workdir=DIR
"""

from experiments.configs import widths


def get_config(argument: str | None = None):
  """The config for 'DATA' or 'DATA,tiny'."""
  config = widths.config(argument, method='mde')
  alphas = (0.1, 0.3) if config.tiny else tuple(n / 20 for n in range(16))
  config.search.update(
    {
      'alphas': alphas,
      # Per field, blocks of equal popularity with a width each (8 to 16 are
      # enough); 0: a width per field, by its number of rows.
      'num_blocks': 0,
      'threshold': 8 if config.tiny else 200,
      'power_of_two': False,
    }
  )
  widths.budgeted(config)
  config.controls = ('lr', 'base', 'uniform')
  return config
