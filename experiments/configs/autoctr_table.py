"""AutoCTR, its controls at equal budget, and hand-made models.

Question: does guided evolution find better graphs than regularised evolution
and random search, with as many trials on the same rows? And does any of them
beat models made by hand, all trained on all rows?

  python -m experiments.compare \
    --config=experiments/configs/autoctr_table.py:frappe \
    --data_dir=DIR --workdir=DIR

',tiny' behind the data set makes a smoke run.
"""

from ml_collections import config_dict

from experiments.configs import defaults

_DATA = ('frappe', 'diabetes130', 'planted')
_HAND_MADE = ('lr', 'fm', 'wide_deep', 'deepfm', 'ipnn')
_STRATEGIES = {
  'autoctr': 'AutoCTR',
  'regularized': 'regularised evolution',
  'random': 'random search',
}


def get_config(argument: str = 'frappe'):
  """The table for 'DATA' or 'DATA,tiny'."""
  data, _ = defaults.parse(argument)
  defaults.check_table(data, _DATA)
  rows = {
    name: {
      'config': f'autoctr.py:{argument}',
      'set': {'search.strategy': strategy, 'controls': ()},
      'method': name,
      'role': '' if strategy == 'autoctr' else 'control',
    }
    for strategy, name in _STRATEGIES.items()
  }
  rows |= {
    model: {
      'config': f'base.py:{argument}',
      'set': {'model': model, 'tuned': True},
      'method': model,
      'role': 'control',
    }
    for model in _HAND_MADE
  }
  # All are compared with one another, whatever is in them.
  rows = {name: row | {'model': 'all models'} for name, row in rows.items()}
  return config_dict.ConfigDict(
    {
      'rows': rows,
      'seeds': tuple(range(2021, 2026)),
      'reference': _STRATEGIES['random'],
    },
    convert_dict=False,
  )
