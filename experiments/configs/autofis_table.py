"""AutoFIS against its controls, over seeds.

Question: do the pairs that AutoFIS keeps do as well as all of them, and better
than as many random ones? On planted data: are they the planted ones? On
'planted_triples' products of order 2 and 3 are searched together.

  python -m experiments.compare \
    --config=experiments/configs/autofis_table.py:frappe \
    --data_dir=DIR --workdir=DIR
"""

from ml_collections import config_dict

from experiments.configs import defaults

_SEEDS = {
  name: range(1, 11) for name in ('planted', 'planted_hard', 'planted_triples')
}
_ROWS = {
  'planted': {'fm': {'model': 'fm'}},
  'planted_hard': {'fm': {'model': 'fm'}},
  'planted_triples': {'fm': {'model': 'fm', 'search.order': 3}},
  'frappe': {
    'fm': {'model': 'fm', 'data.draw': 0},
    'deepfm': {'model': 'deepfm', 'data.draw': 0},
  },
  'diabetes130': {'fm': {'model': 'fm'}, 'deepfm': {'model': 'deepfm'}},
}


def get_config(argument: str = 'planted'):
  """The table for one data set."""
  defaults.check_table(argument, _ROWS)
  rows = {
    name: {'config': f'autofis.py:{argument}', 'set': dict(overrides)}
    for name, overrides in _ROWS[argument].items()
  }
  seeds = tuple(_SEEDS.get(argument, range(2021, 2026)))
  return config_dict.ConfigDict(
    {'rows': rows, 'seeds': seeds}, convert_dict=False
  )
