"""Settings shared by the configs: data sets, base models, tiny runs.

A value of None in `train` or `model_options` is filled in from
`experiments.protocols` and from what `experiments.tune` has chosen, once the
data set and the model are known (`experiments.settings`). A value given by a
person always wins.
"""

from collections.abc import Iterable
import dataclasses

from ml_collections import config_dict

from jax_autorec import errors, numeric, spaces
from jax_autorec.data import datasets

# Options of models that no config sets: methods do, or nobody needs to.
_OTHERS = ('pooling', 'numeric', 'pairs', 'triples', 'width')


def parse(argument: str | None) -> tuple[str, bool]:
  """'frappe,tiny' -> ('frappe', True)."""
  parts = (argument or 'planted').split(',')
  name, flags = parts[0] or 'planted', parts[1:]
  unknown = [flag for flag in flags if flag != 'tiny']
  if unknown:
    raise errors.ConfigError(
      f"Unknown word {unknown[0]!r} after the data set; expected 'tiny'."
    )
  return name, 'tiny' in flags


def check_table(name: str, tables: Iterable[str]) -> None:
  """Refuses a table that a config does not have.

  Raises:
    ConfigError: lists those that there are.
  """
  known = tuple(tables)
  if name not in known:
    raise errors.ConfigError(
      f'No table {name!r}; the tables are: {", ".join(known)}.'
      + errors.nearest(name, known)
    )


def searched(config: config_dict.ConfigDict) -> None:
  """Adds what a search by gradients has."""
  unset = config_dict.placeholder
  config.search.update(
    {
      # Passes over the train split; a search has no early stopping.
      'epochs': 2 if config.tiny else unset(int),
      # At least so many steps, however few the rows.
      'min_steps': 0 if config.tiny else unset(int),
      # Of the weights, while searching; as in `train` where left open.
      'train': {
        'learning_rate': unset(float),
        'embedding_l2': unset(float),
        'table_optimizer': unset(str),
      },
    }
  )


def engine() -> config_dict.ConfigDict:
  """A general engine in place of a method's own: `search.engine.name`.

  Then these options are read, and not those of the method's own rule.
  """
  unset = config_dict.placeholder
  return config_dict.ConfigDict(
    {
      # 'reinforce' or 'darts'; left open, the method's own.
      'name': unset(str),
      # How far a logit can go: its rate times the number of updates.
      'travel': 6.0,
      # Of keeping all, in nats of the validation loss.
      'price': 0.05,
      # Share of the search before the first update, and steps between two.
      'warmup': 0.25,
      'period': 1,
      # Of 'reinforce': draws per update, and the bonus of a nat of entropy.
      'samples': 4,
      'entropy': 0.0,
      # And 'ce' (left open), minus the log loss, or 'auc' of the batch; the
      # weight of the old in the baseline, .95.
      'reward': unset(str),
      'decay': unset(float),
      # Of 'darts': logits are divided by it, 1 where left open.
      'temperature': unset(float),
      # None for first order; else xi of the exact second.
      'inner_rate': unset(float),
      # Of 'darts' in its place: 'cg' or 'neumann', with the number of products
      # with the second derivative, what is added to its diagonal and the
      # rate, of 'neumann' and where 'cg' cannot take a step.
      'implicit': unset(str),
      'iterations': 10,
      'damping': 0.1,
      'implicit_rate': 0.1,
    }
  )


def _numeric_options():
  """The options of all numeric embeddings, unset."""
  return {
    field.name: config_dict.placeholder(type(field.default))
    if field.default is not None
    else config_dict.placeholder(float)
    for cls in numeric.EMBEDDINGS.values()
    for field in dataclasses.fields(cls)
  }


def config(argument: str | None, method: str) -> config_dict.ConfigDict:
  """What every experiment has: data, model, training, controls."""
  name, tiny = parse(argument)
  unset = config_dict.placeholder
  result = config_dict.ConfigDict()
  result.method = method
  result.seed = 2021
  result.tiny = tiny
  result.model = 'fm'
  # Names a variant of a method, whose tuned values are its own ('fm+fde8');
  # MODEL+METHOD where it is left out.
  result.label = unset(str)
  # Whether values that `experiments.tune` chose go before the protocol's.
  result.tuned = True
  result.data = config_dict.ConfigDict(
    {'name': name, 'max_rows': 20_000 if tiny else 0}
  )
  # Go to `jax_autorec.data.load`.
  for key, value in datasets.options(name).items():
    result.data[key] = unset(str) if value is None else value
  # All that any model has; what the chosen one lacks stays unset.
  result.model_options = config_dict.ConfigDict(
    {
      option: unset(type(default))
      for model in spaces.MODELS
      for option, default in spaces.options(model).items()
      if option not in _OTHERS
    }
  )
  # How numeric fields become vectors: a kind of `jax_autorec.numeric` and its
  # options; a trained vector times the value where nothing is said.
  result.numeric = config_dict.ConfigDict(
    {'kind': unset(str), **_numeric_options()}
  )
  result.train = config_dict.ConfigDict(
    {
      'epochs': 2 if tiny else unset(int),
      # Small batches, so that a few rows still make some hundred steps.
      'batch_size': 512 if tiny else unset(int),
      'learning_rate': unset(float),
      'table_learning_rate': unset(float),
      'table_optimizer': unset(str),
      'table_std': unset(float),
      'embedding_l2': unset(float),
      'first_order_l2': unset(float),
      'l2': unset(float),
      'clip_norm': 10.0,
      'patience': 2,
      'plateau_factor': 0.1,
      'steps_per_dispatch': 10,
      'save_seconds': 30.0,
    }
  )
  return result
