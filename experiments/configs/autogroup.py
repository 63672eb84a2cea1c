"""AutoGroup: which fields should interact as a group, and at which order?

Liu et al., SIGIR 2020 (no arXiv version), report an AUC of .8028 and a log loss
of .5384 on Criteo_x2, where DeepFM has .7991 and .5423. The defaults are the
slides' form: relaxed memberships, logits on validation batches. The authors'
code is `search.selection=hard search.noise=arch search.split=alternate
search.compensation=0.01 search.temperature=0.01`, but for a rate of 1e2 to 1e4
(`jax_autorec/search/autogroup.py` says what else differs); on planted data that
form loses its groups, since weights trained without noise do not stand it.
Their last hidden layer has one unit, which can die: it is left out. Controls:
logistic regression, the plain base model, one group of all fields per order,
and as many random groups of the sizes found.

  python -m experiments.run --config=experiments/configs/autogroup.py:frappe \
    --data_dir=DIR --workdir=DIR
"""

from ml_collections import config_dict

from experiments.configs import defaults


def get_config(argument: str | None = None):
  """The config for 'DATA' or 'DATA,tiny'."""
  config = defaults.config(argument, method='autogroup')
  config.model = 'deepfm'
  unset = config_dict.placeholder
  config.search = config_dict.ConfigDict(
    {
      # Passes over the train split; a search has no early stopping.
      'epochs': 4 if config.tiny else unset(int),
      # At least so many steps, however few the rows.
      'min_steps': 0 if config.tiny else unset(int),
      # Groups of order 1, 2, ...; left open, by the number of fields: .6, 5.4
      # and 7.5 times as many, as for Avazu (15, 130, 180).
      'counts': unset(tuple),
      # Widths of their vectors, in those of the base model; one for all or one
      # per order.
      'copies': 1,
      # 'power', as published, or 'elementary': products of different fields
      # alone.
      'form': 'power',
      'compensation': 1.0,
      'normalize': True,
      'selection': 'soft',
      # 'both', or 'arch': in steps of the logits alone.
      'noise': 'both',
      # 'alternate': on train batches.
      'split': 'valid',
      # 'order': as many members as the order, with hard selection.
      'sizes': 'any',
      'temperature': 0.3,
      # Draws per update of the logits; each costs a pass.
      'samples': 1,
      # 2 for the exact second order, with the rate of its inner step.
      'order': 1,
      'inner_rate': 1.0,
      # Steps between updates of the logits; left open, 10, or fewer where there
      # would be less than 400 updates.
      'period': unset(int),
      # Share of the search before the first update of the logits.
      'warmup': 0.0,
      # Of the logits; left open, `travel` over the number of updates.
      'learning_rate': unset(float),
      'travel': 8.0,
      # Of the weights, while searching; as in `train` where left open.
      'train': {
        'learning_rate': unset(float),
        'embedding_l2': unset(float),
      },
    }
  )
  # 'reinforce' or 'darts' on the same space.
  config.search.engine = defaults.engine()
  config.controls = ('lr', 'base', 'one_group', 'random_groups')
  return config
