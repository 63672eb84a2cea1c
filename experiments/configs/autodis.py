"""AutoDis: does a learnt discretisation beat what numbers are given otherwise?

Guo et al. (KDD 2021, arXiv:2012.08986) report, on Criteo and two other sets,
that it beats all of `jax_autorec.numeric`'s other embeddings, whatever the base
model; their README has an AUC of .81099 on Criteo, by a split of their own. The
full Criteo is not at hand. `autodis_table.py` makes the comparison on adult and
on a sample of Criteo; no table was run yet.

Differences from the authors' code: scores have offsets and start from quantiles
of the train split (`numeric.use_bias`), since without them the published map
cannot tell two values above 0 by their largest bucket; numbers are scaled by
their logarithm rather than by their maximum; missing values have a vector. As
published: --config.numeric.form=A --config.numeric.use_bias=False
--config.numeric.temperature=1e-5, and data scaled by 'max'.

Controls: logistic regression, a vector times the value ('base') and intervals
of equal frequency. All others: --config.controls="('numeric_td',)".

  python -m experiments.run --config=experiments/configs/autodis.py:adult \
    --config.model=deepfm --data_dir=DIR --workdir=DIR

Criteo's numbers are bins unless it is asked for numbers, as this config does.
'planted' has no numbers: 'planted_step' stands for it.
"""

from experiments.configs import defaults


def get_config(argument: str | None = None):
  """The config for 'DATA' or 'DATA,tiny'."""
  name, *flags = (argument or 'planted').split(',')
  if name in ('', 'planted'):
    name = 'planted_step'
  config = defaults.config(','.join([name, *flags]), method='autodis')
  if config.data.get('discretize'):
    config.data.discretize = 'none'
  config.numeric.kind = 'autodis'
  config.controls = ('lr', 'base', 'numeric_efd')
  return config
