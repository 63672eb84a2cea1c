"""Searches of interactions beside models made by hand, over seeds.

Question: do the products that AutoFIS keeps, of pairs and of triples, and the
groups of AutoGroup make better models than those that people have made, and
than random products and groups of equal number? The shape is that of
AutoGroup's tables (Liu et al., SIGIR 2020): AUC, log loss, what is kept, and
the relative improvement of AUC - 1/2 on that of FM.

  python -m experiments.compare \
    --config=experiments/configs/interaction_table.py:frappe \
    --data_dir=DIR --workdir=DIR

',tiny' behind the data set makes a smoke run.
"""

from ml_collections import config_dict

from experiments.configs import defaults

_DATA = {'frappe': {'data.draw': 0}, 'diabetes130': {}, 'planted': {}}
_HAND_MADE = {
  'fm': 'FM',
  'fwfm': 'FwFM',
  'afm': 'AFM',
  'ffm': 'FFM',
  'deepfm': 'DeepFM',
  'ipnn': 'IPNN',
  'xdeepfm': 'xDeepFM',
}
# Label -> name in tables, method, what is set.
_SEARCHES = {
  'fm+autofis': ('AutoFM', 'autofis', {}),
  'fm+autofis3': ('AutoFM, order 3', 'autofis', {'search.order': 3}),
  'deepfm+autofis': ('AutoDeepFM', 'autofis', {}),
  'deepfm+autofis3': ('AutoDeepFM, order 3', 'autofis', {'search.order': 3}),
  'ipnn+autofis': ('AutoIPNN', 'autofis', {}),
  'fm+autogroup': ('AutoGroup, no MLP', 'autogroup', {}),
  'deepfm+autogroup': ('AutoGroup', 'autogroup', {}),
  'deepfm+autogroup_published': (
    'AutoGroup, alternating',
    'autogroup',
    {'search.selection': 'hard', 'search.split': 'alternate'},
  ),
}
_CONTROLS = {
  'autofis': ('all', 'random'),
  'autogroup': ('one_group', 'random_groups'),
}


def get_config(argument: str = 'frappe'):
  """The table for 'DATA' or 'DATA,tiny'."""
  data, _ = defaults.parse(argument)
  defaults.check_table(data, _DATA)
  rows = {
    model: {
      'config': f'base.py:{argument}',
      'set': {'model': model, 'tuned': True, **_DATA[data]},
      'method': name,
      'role': 'control',
    }
    for model, name in _HAND_MADE.items()
  }
  for label, (name, method, chosen) in _SEARCHES.items():
    rows[label] = {
      'config': f'{method}.py:{argument}',
      'set': {
        'model': label.partition('+')[0],
        'label': label,
        'controls': _CONTROLS[method],
        **_DATA[data],
        **chosen,
      },
      'method': name,
    }
  # All are compared with one another, whatever is in them.
  rows = {name: row | {'model': 'all models'} for name, row in rows.items()}
  return config_dict.ConfigDict(
    {
      'rows': rows,
      'seeds': tuple(range(2021, 2026)),
      'reference': _HAND_MADE['fm'],
    },
    convert_dict=False,
  )
