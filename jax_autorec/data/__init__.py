"""Raw data in, encoded splits and batches out."""

from jax_autorec.data.batches import Batches
from jax_autorec.data.dataset import Dataset, Split
from jax_autorec.data.datasets import load
from jax_autorec.data.memory import from_arrays
from jax_autorec.data.source import (
  Column,
  Source,
  SplitRule,
  load_schema_file,
)
from jax_autorec.data.store import open_store, read_encoder
from jax_autorec.data.streams import stream

__all__ = [
  'Batches',
  'Column',
  'Dataset',
  'Source',
  'Split',
  'SplitRule',
  'from_arrays',
  'load',
  'load_schema_file',
  'open_store',
  'read_encoder',
  'stream',
]
