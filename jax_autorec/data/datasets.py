"""Data sets by name."""

import difflib

from jax_autorec import errors
from jax_autorec.data import dataset as dataset_lib
from jax_autorec.data import planted

NAMES = ('planted', 'planted_hard')


def load(
  name: str, data_dir: str, *, bad_rows: str = 'raise', **options
) -> dataset_lib.Dataset:
  """A data set, encoded; prepared first if it has not been.

  Args:
    name: a known name.
    data_dir: where raw data lies.
    bad_rows: 'raise' or 'quarantine'.
    **options: of the data set.

  Raises:
    DataError: for an unknown name; lists the known and the nearest.
  """
  del data_dir, bad_rows
  if name in planted.PRESETS:
    return planted.generate(name, **options)
  near = difflib.get_close_matches(name, NAMES, 1)
  hint = f' Did you mean {near[0]!r}?' if near else ''
  raise errors.DataError(
    f'No data set {name!r}; the data sets are: {", ".join(NAMES)}.{hint}'
  )
