"""ESAPN beside its controls over seeds: do rows that grow beat fixed widths?

Liu et al., SIGIR 2020 (arXiv:2004.08371), report 40 to 90 % less memory at a
better loss and accuracy than every fixed width. Rows of the table: ESAPN,
every row at one width, for each width, DARTS over widths and AutoEmb (soft
both, as large as the widest). Each is a run of its own over the same stream, in
the same order; seeds differ in initialisation and draws alone, so that
differences over seeds say nothing of other streams. `esapn.py` says how the
stream is scored. The best fixed width is the one that is best before the last
quarter.

  python -m experiments.compare \
    --config=experiments/configs/esapn_table.py:movielens_100k \
    --data_dir=DIR --workdir=DIR

movielens_1m is the longer stream; ',tiny' behind the data set makes a smoke
run.
"""

from ml_collections import config_dict

from experiments.configs import defaults, esapn

_DATA = ('movielens_1m', 'movielens_100k')


def get_config(argument: str = 'movielens_1m'):
  """The table for 'DATA' or 'DATA,tiny'."""
  data, _ = defaults.parse(argument)
  defaults.check_table(data, _DATA)
  config = esapn.get_config(argument)
  dims = config.search.dims
  # Name of the run -> name in tables, role.
  runs = {'esapn': ('ESAPN', '')}
  runs |= {f'fixed {dim}': (f'Fixed({dim})', 'uniform') for dim in dims}
  runs |= {'darts': ('DARTS', 'control'), 'autoemb': ('AutoEmb', 'control')}
  return config_dict.ConfigDict(
    {
      'rows': {
        run: {
          'config': f'esapn.py:{argument}',
          'set': {'search.only': run},
          'model': config.model,
          'method': name,
          'role': role,
        }
        for run, (name, role) in runs.items()
      },
      'seeds': tuple(range(2021, 2026)),
      'reference': f'Fixed({max(dims)})',
    },
    convert_dict=False,
  )
