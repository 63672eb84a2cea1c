"""Does it pay to search several parts of a model together?

`search.parts` says which: 'autodim', 'nis' or another search of the embedding
layer, 'autofis' or 'autogroup' (interactions), 'hidden' (the MLP). How numbers
become vectors is trained with the rest: by AutoDis on adult and criteo, and as
`numeric` says on others. `search.order` is 'together', in one
supernet, or 'in_turn': each is searched and settled in the order of
`search.parts`, on what the ones before it left, for as many steps, with the
settings that it has alone. Each part has the options of its own config below
its name (`search.autofis.ratio`). AIM's authors refuse to search gates and
widths at once, since batch normalisation couples them: whether that matters is
what `joint_table.py` is for.
Controls: logistic regression, the plain model at the largest width (base), and
random choices of the same sizes.

  python -m experiments.run --config=experiments/configs/joint.py:criteo \
    --data_dir=DIR --workdir=DIR
"""

from ml_collections import config_dict

from experiments.configs import (
  autodim,
  autoemb,
  autofis,
  autogroup,
  autosrh,
  defaults,
  hidden,
  nis,
  optembed,
  pep,
  sseds,
)

_PARTS = {
  'autodim': autodim,
  'nis': nis,
  'autoemb': autoemb,
  'sseds': sseds,
  'autosrh': autosrh,
  'pep': pep,
  'optembed': optembed,
  'autofis': autofis,
  'autogroup': autogroup,
  'hidden': hidden,
}
_WITH_NUMBERS = ('adult', 'criteo')
# One for all parts.
_SHARED = ('epochs', 'min_steps', 'train')


def get_config(argument: str | None = None):
  """The config for 'DATA' or 'DATA,tiny'."""
  config = defaults.config(argument, method='joint')
  config.model = 'deepfm'
  config.search = config_dict.ConfigDict(
    {'parts': ('autodim', 'autofis'), 'order': 'together'}
  )
  defaults.searched(config)
  if config.data.get('discretize'):
    config.data.discretize = 'none'
  if config.data.name in _WITH_NUMBERS:
    config.numeric.kind = 'autodis'
  for name, part in _PARTS.items():
    own = part.get_config(argument).search
    for key in _SHARED:
      del own[key]
    config.search[name] = own
  config.controls = ('lr', 'base', 'random_joint')
  return config
