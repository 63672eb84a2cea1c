"""AutoCTR: which graph of blocks makes the best model?

Song et al., KDD 2020 (arXiv:2007.06434): 100 graphs are trained on a part of
Criteo, and the best is trained anew on all of it. In the official code's logs,
of 100k rows, evolution ends at a log loss of .49247, random search at .49653.
Differences from the paper: see `jax_autorec.search.autoctr`; vectors are as
wide as the data set's other models have them, there 16; and early stopping is
by the log loss while searching, by AUC in the training of the result, as of all
other models.

Each trial has the standard error of its loss in the report: graphs much closer
than that are ranked by noise, and more of the validation rows rank better. Of
single trials on Frappe it is .0035, on diabetes130 .006.
`search.strategy` also takes 'regularized' (evolution by age alone, no ranker)
and 'random', at the same number of trials: the controls, side by side in
autoctr_table.py.

  python -m experiments.run --config=experiments/configs/autoctr.py:frappe \
    --data_dir=DIR --workdir=DIR
"""

from ml_collections import config_dict

from experiments.configs import defaults


def get_config(argument: str | None = None):
  """The config for 'DATA' or 'DATA,tiny'."""
  config = defaults.config(argument, method='autoctr')
  config.model = 'deepfm'  # The plain model to compare with; its dim is used.
  tiny = config.tiny
  config.search = config_dict.ConfigDict(
    {
      'strategy': 'autoctr',
      'trials': 4 if tiny else 100,
      'population': 2 if tiny else 20,
      'tournament': 10,
      # Mutants that the ranker chooses among.
      'neighbours': 10 if tiny else 100,
      'num_blocks': 3 if tiny else 7,
      # 'cross' and 'attention', too, as an option.
      'types': ('mlp', 'fm', 'dp'),
      'widths': (8, 16) if tiny else (32, 64, 128, 256, 512, 1024),
      # What survival weighs: ranks by loss and operations, and age.
      'weights': {'performance': 0.1, 'age': 1.0, 'complexity': 0.1},
      # Rows of a field's table at most, while searching; 0 for all.
      'hash_size': 10_000,
      # Whether trials start from tables that were trained before.
      'warm_start': True,
      # Rows that a trial is trained and scored on, drawn evenly; 0 for all.
      'train_rows': 2000 if tiny else 36_000,
      'valid_rows': 1000 if tiny else 30_000,
      # Of trials; as in `train` where left open.
      'train': {
        'epochs': 2 if tiny else 50,
        'batch_size': 256 if tiny else 1024,
        'learning_rate': 1e-3,
        'table_std': 0.01,
        'embedding_l2': config_dict.placeholder(float),
        # The first rise of the loss ends a trial.
        'patience': 1,
        # Fewer programs to compile: 36 steps are three chunks.
        'steps_per_dispatch': 12,
      },
    }
  )
  config.controls = ('lr', 'base')
  return config
