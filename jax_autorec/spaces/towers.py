"""Base models made of MLPs: MaskNet, FinalMLP, DLRM, the rater of ESAPN."""

from collections.abc import Sequence

from jax_autorec import architecture as arch_lib
from jax_autorec import interactions
from jax_autorec import schema as schema_lib
from jax_autorec.spaces import parts


def masknet(
  schema: schema_lib.Schema,
  *,
  dim: int = 10,
  pooling: str = 'mean',
  numeric: parts.Numeric = None,
  sizes: Sequence[int] = (50, 50, 50),
  reduction: float = 2.0,
  layer_norm: bool = True,
  norm_vectors: bool = False,
  hidden: Sequence[int] = (400, 400, 400),
  norm: str = 'none',
  dropout: float = 0.1,
) -> arch_lib.Architecture:
  """MaskNet with parallel blocks, which feed an MLP.

  (Wang et al., DLP-KDD 2021.)

  Args:
    schema: fitted schema.
    dim: embedding width.
    pooling: of multi-valued fields, 'mean' or 'sum' over a row's values.
    numeric: how numbers become vectors, see `jax_autorec.numeric`: one for all
      numeric fields, or by name.
    sizes: widths of the blocks.
    reduction: width of a mask's hidden layer, in widths of what it masks.
    layer_norm: whether blocks have layer normalisation, before relu.
    norm_vectors: layer normalisation of each field's vector.
    hidden: widths of the MLP's hidden layers.
    norm: of the MLP; 'none', 'batch' or 'layer', before each activation.
    dropout: of blocks and hidden layers, in [0, 1).
  """
  plan = interactions.MaskBlocks(
    mode='parallel',
    sizes=sizes,
    reduction=reduction,
    layer_norm=layer_norm,
    norm_vectors=norm_vectors,
    dropout=dropout,
    to='head',
  )
  head = parts.mlp(
    hidden, norm, dropout, first_order=False, flat_embeddings=False
  )
  return parts.model(schema, dim, pooling, numeric, [plan], head)


def masknet_serial(
  schema: schema_lib.Schema,
  *,
  dim: int = 10,
  pooling: str = 'mean',
  numeric: parts.Numeric = None,
  sizes: Sequence[int] = (400, 400, 400),
  reduction: float = 4.0,
  layer_norm: bool = True,
  norm_vectors: bool = False,
  dropout: float = 0.5,
) -> arch_lib.Architecture:
  """MaskNet with one block after another (Wang et al., DLP-KDD 2021).

  Args:
    schema: fitted schema.
    dim: embedding width.
    pooling: of multi-valued fields, 'mean' or 'sum' over a row's values.
    numeric: how numbers become vectors, see `jax_autorec.numeric`: one for all
      numeric fields, or by name.
    sizes: widths of the blocks.
    reduction: width of a mask's hidden layer, in widths of what it masks.
    layer_norm: whether blocks have layer normalisation, before relu.
    norm_vectors: layer normalisation of each field's vector.
    dropout: share of a block's outputs that training drops, in [0, 1).
  """
  plan = interactions.MaskBlocks(
    mode='serial',
    sizes=sizes,
    reduction=reduction,
    layer_norm=layer_norm,
    norm_vectors=norm_vectors,
    dropout=dropout,
    to='output',
  )
  head = arch_lib.HeadPlan(first_order=False)
  return parts.model(schema, dim, pooling, numeric, [plan], head)


def finalmlp(
  schema: schema_lib.Schema,
  *,
  dim: int = 10,
  pooling: str = 'mean',
  numeric: parts.Numeric = None,
  towers: Sequence[Sequence[int]] = ((400,), (100,)),
  gate_hidden: Sequence[int] | None = (400,),
  contexts: Sequence[Sequence[str]] = ((), ()),
  heads: int = 5,
  norm: str = 'batch',
  dropouts: Sequence[float] = (0.4, 0.4),
) -> arch_lib.Architecture:
  """FinalMLP: two gated MLPs and their products (Mao et al., AAAI 2023).

  Args:
    schema: fitted schema.
    dim: embedding width.
    pooling: of multi-valued fields, 'mean' or 'sum' over a row's values.
    numeric: how numbers become vectors, see `jax_autorec.numeric`: one for all
      numeric fields, or by name.
    towers: widths of the layers of both.
    gate_hidden: widths of the hidden layers of gates; None for no gates.
    contexts: fields that either gate looks at, in tables of their own.
    heads: of the products of both towers' last layers.
    norm: of the towers; 'none', 'batch' or 'layer', before each activation.
    dropouts: share of hidden units that training drops, in [0, 1), of both.
  """
  plan = interactions.TwoTowers(
    hidden=towers,
    norm=norm,
    dropout=dropouts,
    gate_hidden=gate_hidden,
    contexts=contexts,
    heads=heads,
  )
  head = arch_lib.HeadPlan(first_order=False)
  return parts.model(schema, dim, pooling, numeric, [plan], head)


def dlrm(
  schema: schema_lib.Schema,
  *,
  dim: int = 10,
  pooling: str = 'mean',
  numeric: parts.Numeric = None,
  product: str = 'cat',
  bottom: Sequence[int] = (64, 64, 64),
  hidden: Sequence[int] = (400, 400, 400),
  norm: str = 'batch',
  dropout: float = 0.4,
  bottom_dropout: float = 0.0,
) -> arch_lib.Architecture:
  """DLRM: one vector of all numbers beside those of ids.

  (Naumov et al., 2019, arXiv:1906.00091.)

  Args:
    schema: fitted schema.
    dim: embedding width.
    pooling: of multi-valued fields, 'mean' or 'sum' over a row's values.
    numeric: of numeric fields, whose numbers are read as they are; only those
      without vectors (powers, an MLP) are inputs of the upper MLP, too.
    product: 'dot': inner products of all pairs of vectors feed the MLP; 'cat':
      the vectors do, as in the BARS benchmark: without numeric fields that is
      a plain MLP.
    bottom: hidden layers of the MLP that reads the numbers.
    hidden: widths of the MLP's hidden layers.
    norm: 'none', 'batch' or 'layer', before each activation.
    dropout: share of hidden units that training drops, in [0, 1).
    bottom_dropout: the same of the bottom MLP.
  """
  plan = interactions.NumbersAndVectors(
    product=product, hidden=bottom, norm=norm, dropout=bottom_dropout
  )
  head = parts.mlp(
    hidden, norm, dropout, first_order=False, flat_embeddings=False
  )
  return parts.model(schema, dim, pooling, numeric, [plan], head)


def rater(
  schema: schema_lib.Schema,
  *,
  dim: int = 128,
  width: int | None = None,
  pooling: str = 'mean',
  numeric: parts.Numeric = None,
  hidden: Sequence[int] = (512,),
  norm: str = 'batch',
  dropout: float = 0.0,
) -> arch_lib.Architecture:
  """The recommender of ESAPN (Liu et al., SIGIR 2020): an MLP on entities.

  Rows are brought to a common width, normalised and squashed; their
  concatenation is normalised and goes through hidden layers with tanh. No
  first order.

  Args:
    schema: fitted schema; in the paper, of a user and an item alone.
    dim: embedding width.
    width: common width, at least `dim`; None for `dim`.
    pooling: of multi-valued fields, 'mean' or 'sum' over a row's values.
    numeric: how numbers become vectors, see `jax_autorec.numeric`: one for all
      numeric fields, or by name.
    hidden: widths of the hidden layers.
    norm: 'none', 'batch' or 'layer', before each activation.
    dropout: share of hidden units that training drops, in [0, 1).
  """
  head = arch_lib.HeadPlan(
    first_order=False,
    hidden=hidden,
    norm=norm,
    dropout=dropout,
    activation='tanh',
    norm_inputs=True,
  )
  return arch_lib.Architecture(
    parts.field_plans(schema, dim, pooling, numeric),
    (),
    head,
    projection='affine',
    width=width or dim,
    squash=True,
  )
