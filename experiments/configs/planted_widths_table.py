"""Which methods find the widths that planted data call for?

Question: where the truth is known, does a search recover it, and does what it
derives do better than random widths of the same size? 'ranks': wide vectors
where a field's interactions need them. 'noise': the least for fields that the
label does not depend on. 'head': no more for a tail without signal than for the
head. 'duplicate': a field that comes twice needs its rows once. A
factorization machine on all; with an MLP behind them widths are not
identifiable. Methods that take a density are given the one that is planted.

  python -m experiments.compare \
    --config=experiments/configs/planted_widths_table.py:ranks --workdir=DIR
"""

from ml_collections import config_dict

from jax_autorec import errors

_DIMS = {'search.dims': (2, 4, 8, 16)}
_RANDOM = {'controls': ('random_dims',)}

# Method -> name in tables, config, what is set.
_AUTODIM = {
  'autodim': ('AutoDim', 'autodim', _DIMS | _RANDOM),
  # Noise needs no width, so nothing tells its candidates apart.
  'autodim_narrow': (
    'AutoDim, narrowest',
    'autodim',
    {'search.tolerance': 1 / 3, **_DIMS, **_RANDOM},
  ),
  'autodim2': (
    'AutoDim, second order',
    'autodim',
    {'search.order': 2, **_DIMS, **_RANDOM},
  ),
}
_NIS = {
  'nis': ('NIS', 'nis', {'controls': ('random_blocks',)}),
}


def _pruned(share):
  """Methods that keep a share of the entries of tables of width 16."""
  common = {'search.dims': (2, 4, 8, 16), **_RANDOM}
  return {
    'sseds': ('SSEDS', 'sseds', {'search.share': share, **common}),
    'autosrh': ('AutoSrh', 'autosrh', {'search.density': share, **common}),
    'pep': ('PEP', 'pep', {'search.density': share, **common}),
    'optembed': ('OptEmbed', 'optembed', common),
  }


_TABLES = {
  'ranks': {
    **_AUTODIM,
    'ads': ('AD-s', 'autodim', {'search.split': 'train', **_DIMS, **_RANDOM}),
    **_pruned(0.42),
  },
  'noise': {**_AUTODIM, **_NIS, **_pruned(0.2)},
  'head': {
    **_NIS,
    'autoemb': ('AutoEmb', 'autoemb', _DIMS | _RANDOM),
    'mgqe': ('MGQE', 'mgqe', {'search.groups': 4, **_DIMS, 'controls': ()}),
    'autosrh': _pruned(0.1)['autosrh'],
    'pep': _pruned(0.1)['pep'],
  },
  'duplicate': _AUTODIM,
}


def get_config(argument: str = 'ranks'):
  """The table for one kind of planted data."""
  if argument not in _TABLES:
    raise errors.ConfigError(
      f'No table {argument!r}; the tables are: {", ".join(_TABLES)}.'
      + errors.nearest(argument, _TABLES)
    )
  rows = {
    label: {
      'config': f'{config}.py:planted_{argument}',
      'set': {'model': 'fm', **chosen},
      'model': 'fm',
      'method': name,
    }
    for label, (name, config, chosen) in _TABLES[argument].items()
  }
  return config_dict.ConfigDict(
    {'rows': rows, 'seeds': tuple(range(1, 11))}, convert_dict=False
  )
