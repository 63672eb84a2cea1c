"""Plain models by the BARS protocol, over seeds and draws of negatives.

Question: do the models reach what is published for them? All base models, in
the BARS benchmark's settings (d = 10); `--rows=deepfm*,dcn*` for some.

  python -m experiments.compare \
    --config=experiments/configs/base_table.py:frappe \
    --data_dir=DIR --workdir=DIR
"""

from ml_collections import config_dict

from jax_autorec import spaces

# The recommender of ESAPN is for streams.
_MODELS = tuple(model for model in spaces.MODELS if model != 'rater')
_DRAWS = {'frappe': (0, 1)}


def get_config(argument: str = 'frappe'):
  """The table for one data set."""
  rows = {}
  for model in _MODELS:
    for draw in _DRAWS.get(argument, (None,)):
      name = model if draw is None else f'{model}, draw {draw}'
      overrides = {'model': model}
      if draw is not None:
        overrides['data.draw'] = draw
      rows[name] = {'config': f'base.py:{argument}', 'set': overrides}
  return config_dict.ConfigDict(
    {'rows': rows, 'seeds': (2021, 2022, 2023)}, convert_dict=False
  )
