"""Encodes a data set ahead of time, or writes a schema file to edit.

python -m experiments.prepare --dataset=criteo --source=FILE --data_dir=DIR
python -m experiments.prepare --infer=FILE
"""

import ast
import time
from typing import Any

from absl import flags, logging

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
_OPTIONS = flags.DEFINE_multi_string(
  'option', [], 'An option of the data set, KEY=VALUE, as --config.data has it.'
)
_INFER = flags.DEFINE_string(
  'infer', None, 'A CSV, TSV or Parquet file to write a first schema file for.'
)


def _option(text: str) -> tuple[str, Any]:
  key, equals, value = text.partition('=')
  if not equals:
    raise errors.ConfigError(f'--option={text}; expected KEY=VALUE.')
  try:
    return key, ast.literal_eval(value)
  except (SyntaxError, ValueError):
    return key, value  # A text needs no quotes.


def main(argv: list[str]) -> None:
  """Prepares, or infers."""
  if len(argv) > 1:
    raise errors.ConfigError(f'Unknown arguments: {" ".join(argv[1:])}.')
  logging.set_verbosity(logging.INFO)
  if _INFER.value:
    print(f'Wrote {infer.write_schema_file(_INFER.value)}: look it over, then')
    print(f'run with --dataset={infer.schema_path(_INFER.value)}.')
    return
  if not _DATASET.value:
    raise errors.ConfigError('Give --dataset=NAME or --infer=FILE.')
  start = time.monotonic()
  options = dict(_option(text) for text in _OPTIONS.value)
  if _SOURCE.value:
    options['source'] = _SOURCE.value
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
  if data.counts['quarantined']:
    print(f'Rows kept out: {data.directory}/quarantine.jsonl')
  for field in data.schema.fields:
    ids = f', {field.vocab_size} ids' if field.vocab_size else ''
    print(f'  {field.name}: {field.kind}{ids}')


if __name__ == '__main__':
  cli.run(main)
