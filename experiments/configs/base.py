"""A model without any search, by the BARS protocol.

Question: what does the plain model reach? The embedding regulariser differs by
four decades between models, so each takes the value that BARS published; with
--config.tuned the values that `experiments.tune` chose on the validation split.

  python -m experiments.run --config=experiments/configs/base.py:frappe \
    --config.model=deepfm --data_dir=DIR --workdir=DIR
"""

from experiments.configs import defaults


def get_config(argument: str | None = None):
  """The config for 'DATA' or 'DATA,tiny'."""
  config = defaults.config(argument, method='base')
  config.model = 'deepfm'
  config.tuned = False
  return config
