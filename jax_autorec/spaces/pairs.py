"""Base models of all pairs of fields, each pair with weights of its own."""

from collections.abc import Sequence

from jax_autorec import architecture as arch_lib
from jax_autorec import fields as fields_lib
from jax_autorec import interactions
from jax_autorec import schema as schema_lib
from jax_autorec.spaces import parts


def ffm(
  schema: schema_lib.Schema,
  *,
  dim: int = 10,
  pooling: str = 'mean',
  numeric: parts.Numeric = None,
) -> arch_lib.Architecture:
  """Field-aware factorization machine (Juan et al., RecSys 2016).

  Args:
    schema: fitted schema.
    dim: embedding width.
    pooling: of multi-valued fields, 'mean' or 'sum' over a row's values.
    numeric: how numbers become vectors, see `jax_autorec.numeric`: one for all
      numeric fields, or by name.
  """
  plan = interactions.FieldAware()
  return parts.model(schema, dim, pooling, numeric, [plan], arch_lib.HeadPlan())


def fwfm(
  schema: schema_lib.Schema,
  *,
  dim: int = 10,
  pooling: str = 'mean',
  numeric: parts.Numeric = None,
  linear: str = 'felv',
) -> arch_lib.Architecture:
  """Field-weighted factorization machine (Pan et al., WWW 2018).

  Args:
    schema: fitted schema.
    dim: embedding width.
    pooling: of multi-valued fields, 'mean' or 'sum' over a row's values.
    numeric: how numbers become vectors, see `jax_autorec.numeric`: one for all
      numeric fields, or by name.
    linear: 'lw': a weight per id; 'felv': a vector per id, from a second table,
      times the id's own; 'filv': a vector per field.
  """
  fields_lib.check(linear, ('lw', 'felv', 'filv'), 'linear')
  plan = interactions.FieldWeighted(linear='none' if linear == 'lw' else linear)
  head = arch_lib.HeadPlan(first_order=linear == 'lw')
  return parts.model(schema, dim, pooling, numeric, [plan], head)


def fmfm(
  schema: schema_lib.Schema,
  *,
  dim: int = 10,
  pooling: str = 'mean',
  numeric: parts.Numeric = None,
  matrices: str = 'vectorized',
) -> arch_lib.Architecture:
  """Field-matrixed factorization machine (Sun et al., WWW 2021).

  Args:
    schema: fitted schema.
    dim: embedding width.
    pooling: of multi-valued fields, 'mean' or 'sum' over a row's values.
    numeric: how numbers become vectors, see `jax_autorec.numeric`: one for all
      numeric fields, or by name.
    matrices: of pairs; 'matrixed': full, or 'vectorized': diagonal.
  """
  plan = interactions.FieldMatrixed(matrices=matrices)
  return parts.model(schema, dim, pooling, numeric, [plan], arch_lib.HeadPlan())


def afm(
  schema: schema_lib.Schema,
  *,
  dim: int = 10,
  pooling: str = 'mean',
  numeric: parts.Numeric = None,
  size: int = 128,
  attention: bool = True,
  dropout: float = 0.1,
) -> arch_lib.Architecture:
  """Attentional factorization machine (Xiao et al., IJCAI 2017).

  Args:
    schema: fitted schema.
    dim: embedding width.
    pooling: of multi-valued fields, 'mean' or 'sum' over a row's values.
    numeric: how numbers become vectors, see `jax_autorec.numeric`: one for all
      numeric fields, or by name.
    size: width of the attention's hidden layer.
    attention: without it, a plain factorization machine.
    dropout: of the attention's weights and of the pooled vector.
  """
  plan = interactions.AttentionalPooling(
    size=size, attention=attention, dropout=dropout
  )
  return parts.model(schema, dim, pooling, numeric, [plan], arch_lib.HeadPlan())


def fibinet(
  schema: schema_lib.Schema,
  *,
  dim: int = 10,
  pooling: str = 'mean',
  numeric: parts.Numeric = None,
  matrices: str = 'all',
  reduction: float = 2.0,
  hidden: Sequence[int] = (400, 400, 400),
  norm: str = 'batch',
  dropout: float = 0.3,
) -> arch_lib.Architecture:
  """FiBiNET: bilinear products feed the MLP (Huang et al., RecSys 2019).

  Args:
    schema: fitted schema.
    dim: embedding width.
    pooling: of multi-valued fields, 'mean' or 'sum' over a row's values.
    numeric: how numbers become vectors, see `jax_autorec.numeric`: one for all
      numeric fields, or by name.
    matrices: 'all': one for all pairs; 'each': one per left field; 'pair': one
      per pair.
    reduction: fields per unit of the squeeze-and-excitation network's hidden
      layer; 0 for no network.
    hidden: widths of the MLP's hidden layers.
    norm: 'none', 'batch' or 'layer', before each activation.
    dropout: share of hidden units that training drops, in [0, 1).
  """
  plan = interactions.Bilinear(matrices=matrices, reduction=reduction)
  head = parts.mlp(hidden, norm, dropout, flat_embeddings=False)
  return parts.model(schema, dim, pooling, numeric, [plan], head)
