"""Does it pay to search several parts of a model together?

`search.parts` says which: 'autodim' or 'nis' (widths), 'autofis' or 'autogroup'
(interactions), 'hidden' (the MLP). How numbers become vectors is `numeric`, of
any kind; it is trained with the rest. `search.order` is 'together', in one
supernet, or 'in_turn': each is searched and settled in the order of
`search.parts`, on what the ones before it left, for as many steps. Each part
has the options of its own config below its name (`search.autofis.ratio`).
Controls: logistic regression, the plain model at the largest width (base), and
random choices of the same sizes.

  python -m experiments.run --config=experiments/configs/joint.py:criteo \
    --config.numeric.kind=autodis --data_dir=DIR --workdir=DIR
"""

from ml_collections import config_dict

from experiments.configs import (
  autodim,
  autofis,
  autogroup,
  defaults,
  hidden,
  nis,
)

_PARTS = {
  'autodim': autodim,
  'nis': nis,
  'autofis': autofis,
  'autogroup': autogroup,
  'hidden': hidden,
}
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
  # A dense optimiser would move rows and blocks that a draw switches off.
  config.search.train.table_optimizer = 'adam'
  for name, part in _PARTS.items():
    own = part.get_config(argument).search
    for key in _SHARED:
      del own[key]
    config.search[name] = own
  config.controls = ('lr', 'base', 'random_joint')
  return config
