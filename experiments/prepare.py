"""Encodes a data set ahead of time, or writes a schema file to edit.

python -m experiments.prepare --dataset=criteo --source=FILE --data_dir=DIR
python -m experiments.prepare --infer=FILE
"""

import time

from absl import flags

from experiments import cli
from jax_autorec import errors
from jax_autorec.data import datasets, infer

_DATASET = flags.DEFINE_string(
  'dataset', None, 'Name of a data set, or path of a schema file (.toml).'
)
_SOURCE = flags.DEFINE_string(
  'source', None, 'The raw file, where it does not lie in --data_dir.'
)
_DATA_DIR = flags.DEFINE_string('data_dir', 'data', 'Where data sets lie.')
_BAD_ROWS = flags.DEFINE_enum(
  'bad_rows',
  'raise',
  ['raise', 'quarantine'],
  'What becomes of rows that cannot be read.',
)
_INFER = flags.DEFINE_string(
  'infer', None, 'A CSV, TSV or Parquet file to write a first schema file for.'
)


def main(argv: list[str]) -> None:
  """Prepares, or infers."""
  del argv
  if _INFER.value:
    print(f'Wrote {infer.write_schema_file(_INFER.value)}: look it over, then')
    print(f'run with --dataset={infer.schema_path(_INFER.value)}.')
    return
  if not _DATASET.value:
    raise errors.ConfigError('Give --dataset=NAME or --infer=FILE.')
  start = time.monotonic()
  options = {'source': _SOURCE.value} if _SOURCE.value else {}
  data = datasets.load(
    _DATASET.value,
    _DATA_DIR.value,
    bad_rows=_BAD_ROWS.value,
    **options,
  )
  seconds = time.monotonic() - start
  print(
    f'{data.name}: {data.train.num_rows} train, {data.valid.num_rows} valid, '
    f'{data.test.num_rows} test rows; {data.counts["read"]} read = '
    f'{data.counts["kept"]} kept + {data.counts["quarantined"]} quarantined; '
    f'{seconds:.1f} s.'
  )
  for field in data.schema.fields:
    print(f'  {field.name}: {field.kind}, {field.vocab_size} ids')


if __name__ == '__main__':
  cli.run(main)
