"""QR: may ids share rows, as long as no two share all of theirs?

Shi et al. (KDD 2020, arXiv:1909.02107) multiply the row of an id's quotient by
that of its remainder (Criteo, four collisions, tables above 200 rows) and lose
less than hashing at the same size. Differences: factors are multiplied before a
field's values are pooled, those of remainders start around 1 and do not decay,
and first-order weights stay one per id. Controls: logistic regression, one row
per id (base), the hashing trick at the same size, and the narrowest single
width of at least that size.

  python -m experiments.run --config=experiments/configs/qr.py:movielens_1m \
    --data_dir=DIR --workdir=DIR
"""

from experiments.configs import widths


def get_config(argument: str | None = None):
  """The config for 'DATA' or 'DATA,tiny'."""
  config = widths.config(argument, method='qr')
  config.search.update(
    {
      # Ids that share a row; a budget, where there is one, goes before it.
      'collisions': 4,
      # 'product', 'sum' or 'concat'.
      'combine': 'product',
      'threshold': 8 if config.tiny else 200,
    }
  )
  widths.budgeted(config)
  config.controls = ('lr', 'base', 'uniform', 'hash')
  return config
