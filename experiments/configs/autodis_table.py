"""AutoDis against every other way to embed numbers, over seeds.

Question: is a learnt discretisation better than what is cut beforehand (EDD,
EFD, LD, TD), than a vector times the value (field embedding), and than no
embedding at all (three powers, an MLP), whatever the base model? Guo et al.
(KDD 2021, arXiv:2012.08986) answer yes, for six models on three sets. All rows
of a model have the same settings, and the buckets are 20 wherever there are
any. 'published' is AutoDis without offsets, which start from quantiles here.

criteo is a sample of few columns; its numbers are numbers here, and not the
bins they are by default. planted_step and planted_sine are data of which the
truth is known.

  python -m experiments.compare \
    --config=experiments/configs/autodis_table.py:adult \
    --data_dir=DIR --workdir=DIR

`--rows='fm+*'` takes a part; ',tiny' behind the data set makes a smoke run.
"""

from ml_collections import config_dict

from experiments.configs import defaults

MODELS = ('fm', 'deepfm', 'ipnn')
_DATA = ('adult', 'criteo', 'planted_step', 'planted_sine')
_REFERENCE = 'field embedding'

# Short name -> name in tables, what is set, whether it is a control.
_EMBEDDINGS = {
  'autodis': ('AutoDis', {'numeric.kind': 'autodis'}, False),
  'autodis_a': (
    'AutoDis, form A',
    {'numeric.kind': 'autodis', 'numeric.form': 'A'},
    False,
  ),
  'published': (
    'AutoDis, published',
    {
      'numeric.kind': 'autodis',
      'numeric.use_bias': False,
      'numeric.temperature': 0.1,
    },
    False,
  ),
  'field': (_REFERENCE, {'numeric.kind': 'field'}, True),
  'edd': ('EDD', {'numeric.kind': 'edd'}, True),
  'efd': ('EFD', {'numeric.kind': 'efd'}, True),
  'ld': ('LD', {'numeric.kind': 'ld'}, True),
  'td': ('TD', {'numeric.kind': 'td'}, True),
  'powers': ('no embedding, powers', {'numeric.kind': 'powers'}, True),
  'mlp': ('no embedding, MLP', {'numeric.kind': 'mlp'}, True),
}


def get_config(argument: str = 'adult'):
  """The table for 'DATA' or 'DATA,tiny'."""
  data, _ = defaults.parse(argument)
  defaults.check_table(data, _DATA)
  rows = {}
  for model in MODELS:
    for short, (name, chosen, control) in _EMBEDDINGS.items():
      label = f'{model}+{short}'
      rows[label] = {
        'config': f'autodis.py:{argument}',
        'set': {'model': model, 'label': label, 'controls': (), **chosen},
        'model': model,
        'method': name,
        'role': 'control' * control,
      }
  return config_dict.ConfigDict(
    {
      'rows': rows,
      'seeds': tuple(range(2021, 2026)),
      # What every row is compared with, beside the best of its controls.
      'reference': _REFERENCE,
    },
    convert_dict=False,
  )
