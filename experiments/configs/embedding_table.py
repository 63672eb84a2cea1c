"""Methods that choose how wide vectors are, and the controls they lack.

Question: does any of them beat one width for all fields, at its best width, at
equal size? AutoDim's published tables (Zhao et al., WWW 2021, arXiv:2006.14827)
compare with the width of 32 alone, which is the worst row everywhere.

Controls are FDE(d) at every candidate width, MDE (widths by a formula, four
exponents of which the validation split chooses) and RaS (random search), twice:
at the wall-clock of AutoDim's search, on the machine of RESULTS.md, and with
four full trainings, some 2.4 times as long, and so a strong one.
movielens_1m is all ratings, divided at random 8:1:1; a rating of 4 is a like;
user and item attributes are fields. Its MLPs are those of AutoDim's paper,
2 x 128 with batch normalisation and a dropout of .2, which is then not tuned;
other data sets take what `experiments.known` has. criteo is a smoke run:
our sample's columns are too small to say anything on widths.

Tune first, then compare; both go on where they were stopped:

  python -m experiments.tune \
    --config=experiments/configs/embedding_table.py:movielens_1m \
    --learning_rates=3e-3 --l2=3e-6,1e-5 --data_dir=DIR --workdir=DIR
  python -m experiments.compare \
    --config=experiments/configs/embedding_table.py:movielens_1m \
    --data_dir=DIR --workdir=DIR

`--rows='fm+*'` takes a part; ',tiny' behind the data set makes a smoke run.
"""

from ml_collections import config_dict

from experiments.configs import defaults, widths

MODELS = ('fm', 'wide_deep', 'deepfm')
_WITH_MLP = ('wide_deep', 'deepfm')
_DATA = {
  'movielens_1m': {'data.split': 'ratio'},
  'frappe': {},
  'amazon_employee': {},
  'criteo': {},
}
_MLP = {
  'movielens_1m': {
    'model_options.hidden': (128, 128),
    'model_options.norm': 'batch',
    'model_options.dropout': 0.2,
  }
}
_TINY_DIMS = (2, 4, 8)
_ALPHAS = (0.1, 0.2, 0.3, 0.4)

# Short name -> name in tables, config, what is set, whether it is a control.
_METHODS = {
  'mde': ('MDE', 'mde', {'search.alphas': _ALPHAS}, True),
  'dpq': ('DPQ', 'dpq', {}, False),
  'nis': ('NIS', 'nis', {}, False),
  'mgqe': ('MGQE', 'mgqe', {}, False),
  'autoemb': ('AutoEmb', 'autoemb', {}, False),
  'ras': ('RaS', 'ras', {'search.trials': 4}, True),
  'ras_equal': ('RaS, equal time', 'ras', {'search.trials': 99}, True),
  'ads': ('AD-s', 'autodim', {'search.split': 'train'}, False),
  'autodim': ('AutoDim', 'autodim', {}, False),
  # Of widths that are not told apart the narrowest, not the heaviest.
  'autodim_narrow': (
    'AutoDim, narrowest',
    'autodim',
    {'search.tolerance': 1 / 3},
    False,
  ),
  # Of 19,800 steps that the published temperature falls over, 1,470 pass here:
  # it stays above .92.
  'autodim_published': (
    'AutoDim, published',
    'autodim',
    {'search.schedule': 'published', 'search.draws': 1, 'search.period': 10},
    False,
  ),
  # The same from 1 to .1, over the whole search.
  'autodim_linear': (
    'AutoDim, linear',
    'autodim',
    {'search.schedule': 'linear', 'search.draws': 1, 'search.period': 10},
    False,
  ),
}
# Of AutoDim's search, where it was measured.
_SECONDS = {'movielens_1m': {'fm': 170.0, 'deepfm': 240.0}}


def _uniform(dims):
  return {
    f'fde{dim}': (f'FDE({dim})', 'fde', {'search.dims': (dim,)}, True)
    for dim in dims
  }


def get_config(argument: str = 'movielens_1m'):
  """The table for 'DATA' or 'DATA,tiny'."""
  data, tiny = defaults.parse(argument)
  defaults.check_table(data, _DATA)
  dims = _TINY_DIMS if tiny else widths.DIMS
  uniform = _uniform(dims)
  rows = {}
  for model in MODELS:
    for short, (name, config, chosen, control) in (uniform | _METHODS).items():
      label = f'{model}+{short}'
      if short == 'ras_equal':
        seconds = {} if tiny else _SECONDS.get(data, {})
        if model not in seconds:
          continue
        chosen = chosen | {'search.seconds': seconds[model]}
      shared = {'model': model, 'label': label, 'controls': (), **_DATA[data]}
      if model in _WITH_MLP and not tiny:
        shared |= _MLP.get(data, {})
      rows[label] = {
        'config': f'{config}.py:{argument}',
        'set': shared | chosen,
        'model': model,
        'method': name,
        'role': 'uniform' if short in uniform else 'control' * control,
      }
  return config_dict.ConfigDict(
    {
      'rows': rows,
      'seeds': tuple(range(2021, 2026)),
      # What every row is compared with, beside the best of its controls.
      'reference': f'FDE({max(dims)})',
    },
    convert_dict=False,
  )
