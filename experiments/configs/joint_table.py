"""Searches together, in turn and each alone, over seeds.

Question: is an architecture whose widths, numeric embeddings and pairs were
searched in one supernet better than what each search finds by itself, and than
one search after another? All rows of a data set start from the same model: one
width of 32, numbers by AutoDis (but for the row that says otherwise); weights
start and train alike in all of them. Together, and each in turn, searches are
as long as the longest of them is alone. Data: adult and criteo, which have both
kinds of fields (criteo is a sample of few columns; its numbers are numbers
here, and not the bins they are by default); planted_noise, of which it is known
which fields and pairs say nothing.

  python -m experiments.compare \
    --config=experiments/configs/joint_table.py:adult \
    --data_dir=DIR --workdir=DIR

',tiny' behind the data set makes a smoke run.
"""

from ml_collections import config_dict

from experiments.configs import defaults, widths

_MODELS = {'adult': 'deepfm', 'criteo': 'deepfm', 'planted_noise': 'fm'}
# What AutoFIS wants by itself: else settings would be compared, not searches.
_SEARCH = {'search.train.learning_rate': 1e-2}
_DATA = {'train.table_std': 1e-2}
_CRITEO = {'data.discretize': 'none'}

# Short name -> name in tables, parts of a joint search or else a config of its
# own, order.
_SEARCHES = {
  'autodim': ('AutoDim', ('autodim',), ''),
  'nis': ('NIS', ('nis',), ''),
  'autofis': ('AutoFIS', ('autofis',), ''),
  'autodim_autofis': ('AutoDim & AutoFIS', ('autodim', 'autofis'), 'together'),
  'autodim_then_autofis': (
    'AutoDim, then AutoFIS',
    ('autodim', 'autofis'),
    'in_turn',
  ),
  'autofis_then_autodim': (
    'AutoFIS, then AutoDim',
    ('autofis', 'autodim'),
    'in_turn',
  ),
  'nis_autofis': ('NIS & AutoFIS', ('nis', 'autofis'), 'together'),
  'nis_then_autofis': ('NIS, then AutoFIS', ('nis', 'autofis'), 'in_turn'),
}


def get_config(argument: str = 'adult'):
  """The table for 'DATA' or 'DATA,tiny'."""
  data, tiny = defaults.parse(argument)
  defaults.check_table(data, _MODELS)
  model, is_planted = _MODELS[data], data.startswith('planted')
  dim = 8 if tiny else max(widths.DIMS)
  shared = {'model': model, 'controls': ()}
  shared |= {} if is_planted else _DATA
  shared |= _CRITEO if data == 'criteo' else {}
  numeric = {} if is_planted else {'numeric.kind': 'autodis'}
  rows = {}

  def add(short, name, config, chosen, role=''):
    label = f'{model}+{short}'
    rows[label] = {
      'config': f'{config}.py:{argument}',
      'set': {**shared, 'label': label, **chosen},
      'model': model,
      'method': name,
      'role': role,
    }

  one_width = {'search.dims': (dim,)}
  if numeric:
    add(
      'field', 'one width, numbers times vectors', 'fde', one_width, 'control'
    )
  add('plain', 'one width', 'fde', one_width | numeric, 'control')
  for short, (name, parts, order) in _SEARCHES.items():
    chosen = dict(numeric) if is_planted else numeric | _SEARCH
    if order:
      chosen |= {'search.parts': parts, 'search.order': order}
    elif parts == ('autofis',):
      chosen |= {'model_options.dim': dim}
    add(short, name, 'joint' if order else parts[0], chosen)
  return config_dict.ConfigDict(
    {
      'rows': rows,
      'seeds': tuple(range(11, 21) if is_planted else range(2021, 2026)),
      # What every row is compared with, beside the best of its controls.
      'reference': 'one width',
    },
    convert_dict=False,
  )
