"""FDE: one embedding width for all fields.

Question: how wide is wide enough? The sweep over widths is the control that
AutoDim's published tables lack: there 32 is the worst row everywhere, so a part
of every gain may be that smaller is better.

  python -m experiments.run --config=experiments/configs/fde.py:movielens_1m \
    --config.search.dims='(8,)' --data_dir=DIR --workdir=DIR
"""

from experiments.configs import widths


def get_config(argument: str | None = None):
  """The config for 'DATA' or 'DATA,tiny'."""
  config = widths.config(argument, method='fde')
  config.search.dims = (8,) if config.tiny else (32,)
  config.controls = ('lr',)
  return config
