"""RaS: random search over the widths of fields.

The strongest of the methods that AutoDim is compared with in its paper (Zhao et
al., WWW 2021, arXiv:2006.14827, table 2). Each trial is trained in full; the
best on the validation split is kept. Give the seconds that another search took
for a comparison at equal time.

  python -m experiments.run --config=experiments/configs/ras.py:movielens_1m \
    --data_dir=DIR --workdir=DIR
"""

from ml_collections import config_dict

from experiments.configs import widths


def get_config(argument: str | None = None):
  """The config for 'DATA' or 'DATA,tiny'."""
  config = widths.config(argument, method='ras')
  config.search.update(
    {
      'trials': 2 if config.tiny else 10,
      # Of all trials together; no further one is begun after them.
      'seconds': config_dict.placeholder(float),
      'transform': 'linear',
    }
  )
  widths.budgeted(config)
  config.controls = ('lr', 'base', 'uniform')
  return config
