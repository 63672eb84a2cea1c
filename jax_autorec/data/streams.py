"""A data set as a stream: rows in the order in which they came."""

from collections.abc import Sequence
import dataclasses
import hashlib

import numpy as np

from jax_autorec import errors
from jax_autorec import schema as schema_lib
from jax_autorec.data import dataset as dataset_lib


def stream(
  data: dataset_lib.Dataset,
  entities: Sequence[str],
  shuffle_seed: int | None = None,
  max_rows: int | None = None,
) -> dataset_lib.Dataset:
  """All rows of all splits, in order of time, with the entities alone.

  Rows without times keep their order: train, validation, test. Rows of one
  time keep theirs.

  Args:
    data: encoded splits. Load it with split='stream', if it has times: values
      that the train split lacks would otherwise all be one unknown value.
    entities: categorical fields that hold one value, a user and an item, say.
    shuffle_seed: of a random order instead (what the published code of ESAPN
      evaluates on); None for that of time.
    max_rows: so many of the first rows by time, whatever the order; None for
      all. (The first of every split would leave holes in the time.)

  Returns:
    A data set whose train split is the stream; the others are empty.

  Raises:
    ConfigError: for a field that is not categorical or holds several values.
  """
  columns, names = {}, []
  for field in data.schema.categorical:
    columns[field.name] = len(names)
    names += [field.name] * field.max_length
  unfit = [n for n in entities if names.count(n) != 1]
  if unfit or len(set(entities)) < len(entities) or not entities:
    raise errors.ConfigError(
      f'Entities are {tuple(entities)}; expected different categorical fields '
      'that hold one value: '
      f'{", ".join(n for n in columns if names.count(n) == 1)}.'
    )
  # A schema has its fields in the order of the columns.
  entities = sorted(entities, key=columns.__getitem__)
  taken = [columns[name] for name in entities]
  splits = [data.train, data.valid, data.test]
  joined = {
    field.name: None
    if any(getattr(split, field.name) is None for split in splits)
    else np.concatenate([getattr(split, field.name) for split in splits])
    for field in dataclasses.fields(dataset_lib.Split)
  }
  num_rows = len(joined['labels'])
  order = np.arange(num_rows)
  if joined['times'] is not None:
    order = np.argsort(joined['times'], kind='stable')
  order = order[:max_rows]
  if shuffle_seed is not None:
    order = np.sort(order)  # Which rows these are matters, not their times.
    order = order[np.random.default_rng(shuffle_seed).permutation(len(order))]
  joined['ids'] = joined['ids'][:, taken]
  joined['numeric'] = np.zeros((num_rows, 0), np.float32)
  joined['missing'] = np.zeros((num_rows, 0), bool)
  rows = dataset_lib.Split(
    **{k: None if v is None else v[order] for k, v in joined.items()}
  )
  schema = data.schema
  identity = f'{data.fingerprint} stream {entities} {shuffle_seed}'
  identity += f' {max_rows}' if len(order) < num_rows else ''
  return dataclasses.replace(
    data,
    schema=schema_lib.Schema(
      tuple(schema.field(name) for name in entities),
      schema.label,
      schema.weight,
      schema.group,
      schema.time,
    ),
    train=rows,
    valid=rows.head(0),
    test=rows.head(0),
    frequencies={
      name: np.bincount(rows.ids[:, i], minlength=schema.field(name).vocab_size)
      for i, name in enumerate(entities)
    },
    fingerprint=hashlib.sha256(identity.encode()).hexdigest(),
    truth={},
  )
