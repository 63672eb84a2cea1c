"""Raw data in, encoded splits and batches out."""

from jax_autorec.data.batches import Batches
from jax_autorec.data.dataset import Dataset, Split
from jax_autorec.data.datasets import load

__all__ = ['Batches', 'Dataset', 'Split', 'load']
