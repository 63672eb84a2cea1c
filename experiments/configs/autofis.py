"""AutoFIS: which field pairs deserve a product?

Liu et al., KDD 2020 (arXiv:2003.11235), keep 15 to 51 % of the pairs and gain
.001 to .006 AUC. Differences from the paper: c is given as the ratio r of the
threshold's final height to the gates' start, so that short runs prune (with
the paper's c, twenty epochs of Frappe could not close any gate); choices are
made on the train split and judged on the validation split, never on test.
Controls, always: the plain base model, all pairs + BN + gates, and as many
random pairs. AutoFM and AutoDeepFM are the models 'fm' and 'deepfm', AutoIPNN
is 'ipnn': there products feed the MLP. `search.keep=0.3` keeps the products of
the largest gates, trained by Adam (AutoGate's variant in Vega).

  python -m experiments.run --config=experiments/configs/autofis.py:frappe \
    --data_dir=DIR --workdir=DIR
"""

from ml_collections import config_dict

from experiments.configs import defaults


def get_config(argument: str | None = None):
  """The config for 'DATA' or 'DATA,tiny'."""
  config = defaults.config(argument, method='autofis')
  config.search = config_dict.ConfigDict(
    {
      # Passes over the train split; a search has no early stopping.
      'epochs': 4 if config.tiny else config_dict.placeholder(int),
      # At least so many steps, however few the rows.
      'min_steps': 0 if config.tiny else config_dict.placeholder(int),
      # Final threshold over the gates' start: 4 where nothing else is known;
      # 1.2 prunes little.
      'ratio': 1.5 if config.tiny else config_dict.placeholder(float),
      'learning_rate': 1.0,
      'mu': 0.8,
      # 2, or 3 for pairs and triples.
      'order': 2,
      # Share of the products of each order that is kept by the size of gates
      # that follow Adam, in place of GRDA, and Adam's rate.
      'keep': config_dict.placeholder(float),
      'keep_learning_rate': 1e-2,
      'keep_gates': False,
      # 'reinforce' or 'darts' on the same space, in place of AutoFIS's rule.
      'engine': defaults.engine(),
      # Of the weights, while searching; as in `train` where left open.
      'train': {
        'learning_rate': config_dict.placeholder(float),
        'embedding_l2': config_dict.placeholder(float),
      },
    }
  )
  config.controls = ('lr', 'base', 'all', 'random')
  return config
