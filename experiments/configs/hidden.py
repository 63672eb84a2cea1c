"""How wide should each hidden layer of the MLP be?

By one of the two general engines of `jax_autorec/search/engines.py`: 'darts'
mixes widths, 'reinforce' draws them. Candidates are shares of the widths that
the model has (`model_options.hidden`); all share one weight matrix, of which a
narrower layer takes the first units. Without a price the widest tends to win:
`search.engine.price` is what all units cost together, in nats. Controls:
logistic regression, the model at its full widths (base), and random widths of
as many weights.

  python -m experiments.run --config=experiments/configs/hidden.py:frappe \
    --data_dir=DIR --workdir=DIR
"""

from ml_collections import config_dict

from experiments.configs import defaults


def get_config(argument: str | None = None):
  """The config for 'DATA' or 'DATA,tiny'."""
  config = defaults.config(argument, method='hidden')
  config.model = 'deepfm'
  config.search = config_dict.ConfigDict({'shares': (0.125, 0.25, 0.5, 1.0)})
  defaults.searched(config)
  config.search.engine = defaults.engine()
  config.search.engine.name = 'darts'
  config.controls = ('lr', 'base', 'random_hidden')
  return config
