"""NIS: which rows and columns of its table does each field deserve?

Joglekar et al., KDD 2020 (arXiv:1907.04471), report +1.8 % relative ROC-AUC
(ranking) and +6.8 % relative Recall@1 (retrieval) over sizes chosen by hand,
and in an app store 1 % more installs from a model 30 % smaller. Differences
from the paper: one worker takes the policy gradient in place of A3C; the second
warm-up, the cost of linear maps and the blocks' widths, which are the steps
between AutoDim's candidates, are our own. Single sizes, side by side, are the
default: on Frappe the policy over multiple sizes, many more decisions to learn
from one reward, was still far from settled after as many updates. Controls:
logistic regression, one width of 32 (base), the narrowest single width of at
least the size found, and random blocks of that size.

  python -m experiments.run --config=experiments/configs/nis.py:movielens_1m \
    --data_dir=DIR --workdir=DIR
"""

from experiments.configs import defaults, widths


def get_config(argument: str | None = None):
  """The config for 'DATA' or 'DATA,tiny'."""
  config = widths.config(argument, method='nis')
  defaults.searched(config)
  config.search.update(
    {
      # 'single': rows x columns of each field; 'multi': rows for each block of
      # columns; `prefix`: no more than for the one before it.
      'kind': 'single',
      'prefix': False,
      # Shares of the blocks of rows, of the 'values' or their 'occurrences'.
      'rows': (0.1, 0.2, 0.2, 0.2, 0.3),
      'cuts': 'values',
      # 'project', as in the paper, or 'concatenate': no linear maps.
      'combine': 'concatenate',
      # Ids without a row read one that they share, in place of zeros.
      'shared_row': False,
      # Share of the whole that costs nothing, and what twice as much costs, in
      # units of the reward.
      'budget': 0.25,
      'cost_weight': 0.1,
      # 'auc', noisy of batches below 4096 rows, or 'ce': minus the log loss.
      'reward': 'auc',
      'baseline': 'ema',
      'samples': 8,
      # Steps between updates of the policy.
      'period': 1,
      # Of the search: all blocks on, then even draws now and then.
      'full_share': 0.1,
      'mixed_share': 0.1,
      # Of the policy: with 1e-2 a thousand updates leave it nearly even.
      'learning_rate': 5e-2,
      'entropy': 1e-3,
    }
  )
  # 'reinforce' on the same space: what a block is or is not cannot be mixed.
  config.search.engine = defaults.engine()
  config.controls = ('lr', 'base', 'uniform', 'random_blocks')
  return config
