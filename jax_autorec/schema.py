"""What the columns of a table are: names, kinds, vocabularies, defaults."""

from collections.abc import Mapping
import dataclasses
from typing import Any

from jax_autorec import errors

MISSING_ID = 0  # An empty cell.
UNKNOWN_ID = 1  # A value that the train split does not have (often enough).
FIRST_VALUE_ID = 2  # Values follow by falling frequency in the train split.

KINDS = ('categorical', 'numeric')


@dataclasses.dataclass(frozen=True)
class Field:
  """One input column.

  Attributes:
    name: unique name.
    kind: 'categorical' or 'numeric'.
    vocab_size: number of ids, the two reserved ones included; 0 before the
      encoding is fitted, and for numeric fields.
    max_length: how many values a row can hold; above 1 the field is
      multi-valued, is padded with -1 and is pooled.
    default: raw value that stands in for an empty cell; None keeps it missing.
  """

  name: str
  kind: str = 'categorical'
  vocab_size: int = 0
  max_length: int = 1
  default: str | float | None = None

  def __post_init__(self):
    if self.kind not in KINDS:
      raise errors.DataError(
        f'Field {self.name!r} has kind {self.kind!r}; expected one of '
        f'{", ".join(KINDS)}.'
      )
    if self.max_length < 1:
      raise errors.DataError(
        f'Field {self.name!r} has max_length {self.max_length}; expected at '
        'least 1.'
      )
    if self.kind == 'numeric' and self.max_length != 1:
      raise errors.DataError(
        f'Numeric field {self.name!r} has max_length {self.max_length}; only '
        'categorical fields hold several values.'
      )


@dataclasses.dataclass(frozen=True)
class Schema:
  """The columns of a data set.

  Attributes:
    fields: input columns, in order.
    label: name of the label column (0 or 1).
    weight: name of the column of sample weights, if any.
    group: name of the column that group AUC is computed by, if any.
    time: name of the column that orders rows in time, if any.
  """

  fields: tuple[Field, ...]
  label: str = 'label'
  weight: str | None = None
  group: str | None = None
  time: str | None = None

  def __post_init__(self):
    names = [field.name for field in self.fields]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
      raise errors.DataError(f'Fields named twice: {", ".join(twice)}.')
    if self.label in names:
      raise errors.DataError(
        f'The label column {self.label!r} is among the input fields; a model '
        'would read what it is to predict.'
      )

  @property
  def categorical(self) -> tuple[Field, ...]:
    return tuple(f for f in self.fields if f.kind == 'categorical')

  @property
  def numeric(self) -> tuple[Field, ...]:
    return tuple(f for f in self.fields if f.kind == 'numeric')

  @property
  def num_id_columns(self) -> int:
    """Width C of `Batch.ids`."""
    return sum(field.max_length for field in self.categorical)

  def field(self, name: str) -> Field:
    for field in self.fields:
      if field.name == name:
        return field
    known = ', '.join(field.name for field in self.fields)
    raise errors.DataError(f'No field {name!r}; the fields are: {known}.')

  def to_dict(self) -> dict[str, Any]:
    return dataclasses.asdict(self)

  @classmethod
  def from_dict(cls, values: Mapping[str, Any]) -> 'Schema':
    values = dict(values)
    try:
      fields = tuple(Field(**field) for field in values.pop('fields'))
      return cls(fields=fields, **values)
    except (KeyError, TypeError) as error:
      raise errors.DataError(
        f'Not a schema of this version: {error}.'
      ) from error
