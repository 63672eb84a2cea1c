"""AutoDis, and what it is compared with: how numbers become vectors.

Nothing is searched: the embedding is trained with the model.
"""

from experiments.methods import base
from jax_autorec import architecture as arch_lib
from jax_autorec import numeric


def _space(task: base.Task) -> arch_lib.Architecture:
  return task.build()


def _plain(task: base.Task) -> arch_lib.Architecture:
  """The model as it is without: a vector per field, times the value."""
  return task.build(numeric=None)


def _control(kind: str) -> base.Control:
  """A comparison, with as many buckets as are asked for where it has some."""

  def control(task, space, found):
    del space, found
    options = {}
    if kind in ('edd', 'efd', 'td') and hasattr(task.numeric, 'buckets'):
      options['buckets'] = task.numeric.buckets
    return task.build(numeric=numeric.make(kind, **options))

  return control


METHOD = base.Method(
  _space,
  base=_plain,
  controls={f'numeric_{kind}': _control(kind) for kind in numeric.EMBEDDINGS},
)
