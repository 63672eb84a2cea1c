"""Which methods find the widths that planted data call for?

Question: where the truth is known, does a search recover it, and does what it
derives do better than random widths of the same size? 'ranks': wide vectors
where a field's interactions need them. 'noise': the least for fields that the
label does not depend on. 'head': no more for a tail without signal than for the
head. 'duplicate': a field that comes twice needs its rows once. 'permuted':
as 'ranks', but the labels of the validation split say nothing, so widths that
follow the ranks all the same would have seen other labels. A factorization
machine on all; with an MLP behind them widths are not identifiable. Methods
that take a density are given the one that is planted. A random model is drawn
from the space of the method; ranks have three, whose median counts.

Settings were chosen on seeds 0 to 3, so the table has others.

  python -m experiments.compare \
    --config=experiments/configs/planted_widths_table.py:ranks --workdir=DIR
"""

from ml_collections import config_dict

from experiments.configs import defaults

_DIMS = {'search.dims': (2, 4, 8, 16)}

# Method -> name in tables, config, what is set, what it is compared with.
_WIDTHS = {
  'autodim': ('AutoDim', 'autodim', {}, 'random_dims'),
  # Noise needs no width, so nothing tells its candidates apart.
  'autodim_narrow': (
    'AutoDim, narrowest',
    'autodim',
    {'search.tolerance': 1 / 3},
    'random_dims',
  ),
  'autodim2': (
    'AutoDim, second order',
    'autodim',
    {'search.order': 2},
    'random_dims',
  ),
  'nis': ('NIS', 'nis', {}, 'random_blocks'),
  'autoemb': ('AutoEmb', 'autoemb', {}, 'random_dims'),
}
_ADS = {'ads': ('AD-s', 'autodim', {'search.split': 'train'}, 'random_dims')}
_OPTEMBED = {'optembed': ('OptEmbed', 'optembed', {}, 'random_rows')}


def _pruned(share):
  """Methods that keep a share of the entries of tables of width 16."""
  return {
    'autosrh': (
      'AutoSrh',
      'autosrh',
      {'search.density': share},
      'random_entries',
    ),
    'pep': ('PEP', 'pep', {'search.density': share}, 'random_entries'),
  }


def _columns(share):
  return {'sseds': ('SSEDS', 'sseds', {'search.share': share}, 'random_dims')}


def _part(names):
  return {name: _WIDTHS[name] for name in names}


_TABLES = {
  'ranks': _WIDTHS | _ADS | _columns(0.42) | _pruned(0.42) | _OPTEMBED,
  'noise': _WIDTHS | _columns(0.2) | _pruned(0.2) | _OPTEMBED,
  'head': {
    **_part(('nis', 'autoemb')),
    # Its sizes are given, not searched.
    'mgqe': ('MGQE', 'mgqe', {'search.groups': 4}, None),
    **_pruned(0.1),
    **_OPTEMBED,
  },
  'duplicate': _WIDTHS | _columns(0.25) | _pruned(0.25) | _OPTEMBED,
  # What follows the validation split finds nothing there.
  'permuted': _part(('autodim', 'autodim2', 'nis', 'autoemb')) | _OPTEMBED,
}
# Draws of random models, whose median is to be beaten.
_DRAWS = {'ranks': 3, 'noise': 1, 'head': 1}


def _controls(name, draws):
  if name is None or not draws:
    return ()
  return (name, *(f'{name}:{i}' for i in range(2, draws + 1)))


def get_config(argument: str = 'ranks'):
  """The table for one kind of planted data."""
  defaults.check_table(argument, _TABLES)
  rows = {
    label: {
      'config': f'{config}.py:planted_{argument}',
      'set': {
        'model': 'fm',
        **_DIMS,
        **chosen,
        'controls': _controls(control, _DRAWS.get(argument, 0)),
      },
      'model': 'fm',
      'method': name,
    }
    for label, (name, config, chosen, control) in _TABLES[argument].items()
  }
  return config_dict.ConfigDict(
    {'rows': rows, 'seeds': tuple(range(11, 21))}, convert_dict=False
  )
