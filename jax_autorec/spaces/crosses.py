"""Base models of rising order: polynomials, cross layers, CIN."""

from collections.abc import Sequence

from jax_autorec import architecture as arch_lib
from jax_autorec import fields as fields_lib
from jax_autorec import interactions
from jax_autorec import schema as schema_lib
from jax_autorec.spaces import parts


def hofm(
  schema: schema_lib.Schema,
  *,
  dim: int = 10,
  pooling: str = 'mean',
  numeric: parts.Numeric = None,
  order: int = 3,
  shared: bool = False,
) -> arch_lib.Architecture:
  """Higher-order factorization machine (Blondel et al., NIPS 2016).

  Args:
    schema: fitted schema.
    dim: embedding width.
    pooling: of multi-valued fields, 'mean' or 'sum' over a row's values.
    numeric: how numbers become vectors, see `jax_autorec.numeric`: one for all
      numeric fields, or by name.
    order: the highest, 2 to 5.
    shared: whether all orders read one table; else each has its own.
  """
  fields_lib.check(order, (2, 3, 4, 5), 'order')
  plans = [interactions.FactorizationMachine()]
  for k in range(3, order + 1):
    name = f'order_{k}'
    plans.append(interactions.Polynomial(name, k, own_table=not shared))
  return parts.model(schema, dim, pooling, numeric, plans, arch_lib.HeadPlan())


def nfm(
  schema: schema_lib.Schema,
  *,
  dim: int = 10,
  pooling: str = 'mean',
  numeric: parts.Numeric = None,
  hidden: Sequence[int] = (400, 400, 400),
  norm: str = 'none',
  dropout: float = 0.4,
) -> arch_lib.Architecture:
  """Neural factorization machine (He & Chua, SIGIR 2017).

  Args:
    schema: fitted schema.
    dim: embedding width.
    pooling: of multi-valued fields, 'mean' or 'sum' over a row's values.
    numeric: how numbers become vectors, see `jax_autorec.numeric`: one for all
      numeric fields, or by name.
    hidden: widths of the MLP's hidden layers.
    norm: 'none', 'batch' or 'layer', before each activation.
    dropout: share of hidden units that training drops, in [0, 1).
  """
  plan = interactions.Polynomial('pooling', to='head')
  head = parts.mlp(hidden, norm, dropout, flat_embeddings=False)
  return parts.model(schema, dim, pooling, numeric, [plan], head)


def crossnet(
  schema: schema_lib.Schema,
  *,
  dim: int = 10,
  pooling: str = 'mean',
  numeric: parts.Numeric = None,
  layers: int = 6,
) -> arch_lib.Architecture:
  """Cross layers alone (Wang et al., ADKDD 2017).

  Args:
    schema: fitted schema.
    dim: embedding width.
    pooling: of multi-valued fields, 'mean' or 'sum' over a row's values.
    numeric: how numbers become vectors, see `jax_autorec.numeric`: one for all
      numeric fields, or by name.
    layers: how many.
  """
  plan = interactions.Cross(layers=layers, weights='vector')
  head = arch_lib.HeadPlan(first_order=False)
  return parts.model(schema, dim, pooling, numeric, [plan], head)


def crossnet_v2(
  schema: schema_lib.Schema,
  *,
  dim: int = 10,
  pooling: str = 'mean',
  numeric: parts.Numeric = None,
  layers: int = 4,
) -> arch_lib.Architecture:
  """Cross layers with full matrices, alone (Wang et al., WWW 2021).

  Args:
    schema: fitted schema.
    dim: embedding width.
    pooling: of multi-valued fields, 'mean' or 'sum' over a row's values.
    numeric: how numbers become vectors, see `jax_autorec.numeric`: one for all
      numeric fields, or by name.
    layers: how many.
  """
  plan = interactions.Cross(layers=layers, weights='matrix')
  head = arch_lib.HeadPlan(first_order=False)
  return parts.model(schema, dim, pooling, numeric, [plan], head)


def dcn(
  schema: schema_lib.Schema,
  *,
  dim: int = 10,
  pooling: str = 'mean',
  numeric: parts.Numeric = None,
  layers: int = 3,
  hidden: Sequence[int] = (400, 400, 400),
  norm: str = 'batch',
  dropout: float = 0.2,
) -> arch_lib.Architecture:
  """Cross layers beside an MLP (DCN; Wang et al., ADKDD 2017).

  Args:
    schema: fitted schema.
    dim: embedding width.
    pooling: of multi-valued fields, 'mean' or 'sum' over a row's values.
    numeric: how numbers become vectors, see `jax_autorec.numeric`: one for all
      numeric fields, or by name.
    layers: cross layers.
    hidden: widths of the MLP's hidden layers.
    norm: 'none', 'batch' or 'layer', before each activation.
    dropout: share of hidden units that training drops, in [0, 1).
  """
  plan = interactions.Cross(layers=layers, weights='vector')
  return parts.model(
    schema,
    dim,
    pooling,
    numeric,
    [plan],
    parts.mlp(hidden, norm, dropout, first_order=False),
  )


def dcn_v2(
  schema: schema_lib.Schema,
  *,
  dim: int = 10,
  pooling: str = 'mean',
  numeric: parts.Numeric = None,
  layers: int = 4,
  hidden: Sequence[int] = (400, 400, 400),
  norm: str = 'batch',
  dropout: float = 0.4,
) -> arch_lib.Architecture:
  """Cross layers with full matrices beside an MLP (DCN-V2, parallel).

  (Wang et al., WWW 2021.)

  Args:
    schema: fitted schema.
    dim: embedding width.
    pooling: of multi-valued fields, 'mean' or 'sum' over a row's values.
    numeric: how numbers become vectors, see `jax_autorec.numeric`: one for all
      numeric fields, or by name.
    layers: cross layers.
    hidden: widths of the MLP's hidden layers.
    norm: 'none', 'batch' or 'layer', before each activation.
    dropout: share of hidden units that training drops, in [0, 1).
  """
  plan = interactions.Cross(layers=layers, weights='matrix')
  return parts.model(
    schema,
    dim,
    pooling,
    numeric,
    [plan],
    parts.mlp(hidden, norm, dropout, first_order=False),
  )


def cin(
  schema: schema_lib.Schema,
  *,
  dim: int = 10,
  pooling: str = 'mean',
  numeric: parts.Numeric = None,
  sizes: Sequence[int] = (64, 64, 64),
) -> arch_lib.Architecture:
  """Compressed interaction network, without MLP (Lian et al., KDD 2018).

  Args:
    schema: fitted schema.
    dim: embedding width.
    pooling: of multi-valued fields, 'mean' or 'sum' over a row's values.
    numeric: how numbers become vectors, see `jax_autorec.numeric`: one for all
      numeric fields, or by name.
    sizes: vectors of each layer.
  """
  plan = interactions.Compressed(sizes=sizes)
  return parts.model(schema, dim, pooling, numeric, [plan], arch_lib.HeadPlan())


def xdeepfm(
  schema: schema_lib.Schema,
  *,
  dim: int = 10,
  pooling: str = 'mean',
  numeric: parts.Numeric = None,
  sizes: Sequence[int] = (64,),
  hidden: Sequence[int] = (400, 400, 400),
  norm: str = 'batch',
  dropout: float = 0.2,
) -> arch_lib.Architecture:
  """xDeepFM: CIN beside an MLP (Lian et al., KDD 2018).

  Args:
    schema: fitted schema.
    dim: embedding width.
    pooling: of multi-valued fields, 'mean' or 'sum' over a row's values.
    numeric: how numbers become vectors, see `jax_autorec.numeric`: one for all
      numeric fields, or by name.
    sizes: vectors of each layer of the CIN.
    hidden: widths of the MLP's hidden layers.
    norm: 'none', 'batch' or 'layer', before each activation.
    dropout: share of hidden units that training drops, in [0, 1).
  """
  plan = interactions.Compressed(sizes=sizes)
  head = parts.mlp(hidden, norm, dropout)
  return parts.model(schema, dim, pooling, numeric, [plan], head)
