"""Base models by name, as architectures whose products may be open."""

from collections.abc import Sequence
import inspect
import itertools
from typing import Any

from jax_autorec import architecture as arch_lib
from jax_autorec import errors
from jax_autorec import fields as fields_lib
from jax_autorec import interactions as plans_lib
from jax_autorec import schema as schema_lib

PAIRS = ('fm', 'all', 'open')


def field_plans(
  schema: schema_lib.Schema, dim: int, pooling: str = 'mean'
) -> tuple[arch_lib.FieldPlan, ...]:
  """Every field of a schema at one width, categorical fields first."""
  return tuple(
    arch_lib.FieldPlan(
      name=field.name,
      kind=field.kind,
      dim=dim,
      vocab_size=field.vocab_size,
      max_length=field.max_length,
      pooling=pooling,
    )
    for field in schema.categorical + schema.numeric
  )


def all_terms(
  fields: Sequence[arch_lib.FieldPlan], order: int
) -> tuple[tuple[str, ...], ...]:
  """All combinations of `order` field names, in combination order."""
  names = [plan.name for plan in fields]
  if len(names) < order:
    raise errors.ConfigError(
      f'Products of order {order} need {order} fields, got {len(names)}.'
    )
  return tuple(itertools.combinations(names, order))


def _pair_terms(fields, pairs, to):
  """Interactions for the `pairs` argument of the factories below."""
  if pairs == 'fm' and to == 'logit':
    return (plans_lib.FactorizationMachine(),)
  if pairs == 'fm':
    return (plans_lib.Products('pairs', all_terms(fields, 2), to=to),)
  terms, gates = _terms_and_gates(fields, pairs, 2, 'pairs')
  return (
    plans_lib.Products('pairs', terms, normalize=True, gates=gates, to=to),
  )


def _triple_terms(fields, triples, to):
  if triples is None:
    return ()
  terms, gates = _terms_and_gates(fields, triples, 3, 'triples')
  return (
    plans_lib.Products('triples', terms, normalize=True, gates=gates, to=to),
  )


def _terms_and_gates(fields, asked, order, argument):
  """Terms of an order and what becomes of their gates."""
  if not isinstance(asked, str):
    return tuple(tuple(term) for term in asked), 'weights'
  gates = {'all': 'weights', 'open': 'open'}.get(asked)
  if gates is None:
    words = PAIRS if order == 2 else PAIRS[1:]
    raise errors.ConfigError(
      f'{argument} is {asked!r}; expected {", ".join(map(repr, words))} or a '
      f'sequence of tuples of {order} field names.'
    )
  return all_terms(fields, order), gates


def lr(
  schema: schema_lib.Schema, *, pooling: str = 'mean'
) -> arch_lib.Architecture:
  """Logistic regression: one weight per id.

  Args:
    schema: fitted schema.
    pooling: of multi-valued fields, 'mean' or 'sum' over a row's values.
  """
  fields = field_plans(schema, 1, pooling)
  return arch_lib.Architecture(fields, (), arch_lib.HeadPlan())


def fm(
  schema: schema_lib.Schema,
  *,
  dim: int = 10,
  pooling: str = 'mean',
  pairs: str | Sequence[tuple[str, str]] = 'fm',
  triples: str | Sequence[tuple[str, str, str]] | None = None,
) -> arch_lib.Architecture:
  """Factorization machine; AutoFM with `pairs='open'`.

  Args:
    schema: fitted schema.
    dim: embedding width.
    pooling: of multi-valued fields, 'mean' or 'sum' over a row's values.
    pairs: 'fm': the plain sum of all inner products; 'all': all pairs,
      normalised and with trained gates; 'open': the same with gates to be
      searched; or the pairs to keep, normalised and gated.
    triples: None, 'all', 'open' or a sequence, for products of order 3.
  """
  fields = field_plans(schema, dim, pooling)
  interactions = _pair_terms(fields, pairs, 'logit')
  interactions += _triple_terms(fields, triples, 'logit')
  return arch_lib.Architecture(fields, interactions, arch_lib.HeadPlan())


def wide_deep(
  schema: schema_lib.Schema,
  *,
  dim: int = 10,
  pooling: str = 'mean',
  hidden: Sequence[int] = (400, 400, 400),
  norm: str = 'batch',
  dropout: float = 0.2,
) -> arch_lib.Architecture:
  """Wide & Deep without hand-made crosses: first order + MLP.

  (Cheng et al., DLRS 2016.)

  Args:
    schema: fitted schema.
    dim: embedding width.
    pooling: of multi-valued fields, 'mean' or 'sum' over a row's values.
    hidden: widths of the MLP's hidden layers.
    norm: 'none', 'batch' or 'layer', before each activation.
    dropout: share of hidden units that training drops, in [0, 1).
  """
  return arch_lib.Architecture(
    field_plans(schema, dim, pooling),
    (),
    arch_lib.HeadPlan(hidden=hidden, norm=norm, dropout=dropout),
  )


def deepfm(
  schema: schema_lib.Schema,
  *,
  dim: int = 10,
  pooling: str = 'mean',
  pairs: str | Sequence[tuple[str, str]] = 'fm',
  triples: str | Sequence[tuple[str, str, str]] | None = None,
  hidden: Sequence[int] = (400, 400, 400),
  norm: str = 'batch',
  dropout: float = 0.2,
) -> arch_lib.Architecture:
  """DeepFM (Guo et al., IJCAI 2017); AutoDeepFM with `pairs='open'`.

  Args:
    schema: fitted schema.
    dim: embedding width.
    pooling: of multi-valued fields, 'mean' or 'sum' over a row's values.
    pairs: as of `fm`.
    triples: as of `fm`.
    hidden: widths of the MLP's hidden layers.
    norm: 'none', 'batch' or 'layer', before each activation.
    dropout: share of hidden units that training drops, in [0, 1).
  """
  fields = field_plans(schema, dim, pooling)
  interactions = _pair_terms(fields, pairs, 'logit')
  interactions += _triple_terms(fields, triples, 'logit')
  return arch_lib.Architecture(
    fields,
    interactions,
    arch_lib.HeadPlan(hidden=hidden, norm=norm, dropout=dropout),
  )


def ipnn(
  schema: schema_lib.Schema,
  *,
  dim: int = 10,
  pooling: str = 'mean',
  pairs: str | Sequence[tuple[str, str]] = 'fm',
  triples: str | Sequence[tuple[str, str, str]] | None = None,
  hidden: Sequence[int] = (400, 400, 400),
  norm: str = 'none',
  dropout: float = 0.3,
) -> arch_lib.Architecture:
  """Inner-product network (Qu et al., ICDM 2016): products feed the MLP.

  Args:
    schema: fitted schema.
    dim: embedding width.
    pooling: of multi-valued fields, 'mean' or 'sum' over a row's values.
    pairs: as of `fm`, but 'fm' gives every plain product to the MLP.
    triples: as of `fm`.
    hidden: widths of the MLP's hidden layers.
    norm: 'none', 'batch' or 'layer', before each activation.
    dropout: share of hidden units that training drops, in [0, 1).
  """
  fields = field_plans(schema, dim, pooling)
  interactions = _pair_terms(fields, pairs, 'head')
  interactions += _triple_terms(fields, triples, 'head')
  return arch_lib.Architecture(
    fields,
    interactions,
    arch_lib.HeadPlan(
      first_order=False, hidden=hidden, norm=norm, dropout=dropout
    ),
  )


def _model(schema, dim, pooling, plans, head):
  """Every field at one width, some interactions and a head."""
  fields = field_plans(schema, dim, pooling)
  return arch_lib.Architecture(fields, tuple(plans), head)


def _mlp(hidden, norm, dropout, **options):
  return arch_lib.HeadPlan(hidden=hidden, norm=norm, dropout=dropout, **options)


def ffm(
  schema: schema_lib.Schema,
  *,
  dim: int = 10,
  pooling: str = 'mean',
) -> arch_lib.Architecture:
  """Field-aware factorization machine (Juan et al., RecSys 2016).

  Args:
    schema: fitted schema.
    dim: embedding width.
    pooling: of multi-valued fields, 'mean' or 'sum' over a row's values.
  """
  plan = plans_lib.FieldAware()
  return _model(schema, dim, pooling, [plan], arch_lib.HeadPlan())


def fwfm(
  schema: schema_lib.Schema,
  *,
  dim: int = 10,
  pooling: str = 'mean',
  linear: str = 'felv',
) -> arch_lib.Architecture:
  """Field-weighted factorization machine (Pan et al., WWW 2018).

  Args:
    schema: fitted schema.
    dim: embedding width.
    pooling: of multi-valued fields, 'mean' or 'sum' over a row's values.
    linear: 'lw': a weight per id; 'felv': a vector per id, from a second table,
      times the id's own; 'filv': a vector per field.
  """
  fields_lib.check(linear, ('lw', 'felv', 'filv'), 'linear')
  plan = plans_lib.FieldWeighted(linear='none' if linear == 'lw' else linear)
  head = arch_lib.HeadPlan(first_order=linear == 'lw')
  return _model(schema, dim, pooling, [plan], head)


def fmfm(
  schema: schema_lib.Schema,
  *,
  dim: int = 10,
  pooling: str = 'mean',
  matrices: str = 'vectorized',
) -> arch_lib.Architecture:
  """Field-matrixed factorization machine (Sun et al., WWW 2021).

  Args:
    schema: fitted schema.
    dim: embedding width.
    pooling: of multi-valued fields, 'mean' or 'sum' over a row's values.
    matrices: of pairs; 'matrixed': full, or 'vectorized': diagonal.
  """
  plan = plans_lib.FieldMatrixed(matrices=matrices)
  return _model(schema, dim, pooling, [plan], arch_lib.HeadPlan())


def hofm(
  schema: schema_lib.Schema,
  *,
  dim: int = 10,
  pooling: str = 'mean',
  order: int = 3,
  shared: bool = False,
) -> arch_lib.Architecture:
  """Higher-order factorization machine (Blondel et al., NIPS 2016).

  Args:
    schema: fitted schema.
    dim: embedding width.
    pooling: of multi-valued fields, 'mean' or 'sum' over a row's values.
    order: the highest, 2 to 5.
    shared: whether all orders read one table; else each has its own.
  """
  fields_lib.check(order, (2, 3, 4, 5), 'order')
  plans = [plans_lib.FactorizationMachine()]
  for k in range(3, order + 1):
    name = f'order_{k}'
    plans.append(plans_lib.Polynomial(name, k, own_table=not shared))
  return _model(schema, dim, pooling, plans, arch_lib.HeadPlan())


def afm(
  schema: schema_lib.Schema,
  *,
  dim: int = 10,
  pooling: str = 'mean',
  size: int = 128,
  attention: bool = True,
  dropout: float = 0.1,
) -> arch_lib.Architecture:
  """Attentional factorization machine (Xiao et al., IJCAI 2017).

  Args:
    schema: fitted schema.
    dim: embedding width.
    pooling: of multi-valued fields, 'mean' or 'sum' over a row's values.
    size: width of the attention's hidden layer.
    attention: without it, a plain factorization machine.
    dropout: of the attention's weights and of the pooled vector.
  """
  plan = plans_lib.AttentionalPooling(
    size=size, attention=attention, dropout=dropout
  )
  return _model(schema, dim, pooling, [plan], arch_lib.HeadPlan())


def nfm(
  schema: schema_lib.Schema,
  *,
  dim: int = 10,
  pooling: str = 'mean',
  hidden: Sequence[int] = (400, 400, 400),
  norm: str = 'none',
  dropout: float = 0.4,
) -> arch_lib.Architecture:
  """Neural factorization machine (He & Chua, SIGIR 2017).

  Args:
    schema: fitted schema.
    dim: embedding width.
    pooling: of multi-valued fields, 'mean' or 'sum' over a row's values.
    hidden: widths of the MLP's hidden layers.
    norm: 'none', 'batch' or 'layer', before each activation.
    dropout: share of hidden units that training drops, in [0, 1).
  """
  plan = plans_lib.Polynomial('pooling', to='head')
  head = _mlp(hidden, norm, dropout, flat_embeddings=False)
  return _model(schema, dim, pooling, [plan], head)


def crossnet(
  schema: schema_lib.Schema,
  *,
  dim: int = 10,
  pooling: str = 'mean',
  layers: int = 6,
) -> arch_lib.Architecture:
  """Cross layers alone (Wang et al., ADKDD 2017).

  Args:
    schema: fitted schema.
    dim: embedding width.
    pooling: of multi-valued fields, 'mean' or 'sum' over a row's values.
    layers: how many.
  """
  plan = plans_lib.Cross(layers=layers, weights='vector')
  return _model(
    schema, dim, pooling, [plan], arch_lib.HeadPlan(first_order=False)
  )


def crossnet_v2(
  schema: schema_lib.Schema,
  *,
  dim: int = 10,
  pooling: str = 'mean',
  layers: int = 4,
) -> arch_lib.Architecture:
  """Cross layers with full matrices, alone (Wang et al., WWW 2021).

  Args:
    schema: fitted schema.
    dim: embedding width.
    pooling: of multi-valued fields, 'mean' or 'sum' over a row's values.
    layers: how many.
  """
  plan = plans_lib.Cross(layers=layers, weights='matrix')
  return _model(
    schema, dim, pooling, [plan], arch_lib.HeadPlan(first_order=False)
  )


def dcn(
  schema: schema_lib.Schema,
  *,
  dim: int = 10,
  pooling: str = 'mean',
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
    layers: cross layers.
    hidden: widths of the MLP's hidden layers.
    norm: 'none', 'batch' or 'layer', before each activation.
    dropout: share of hidden units that training drops, in [0, 1).
  """
  plan = plans_lib.Cross(layers=layers, weights='vector')
  return _model(
    schema, dim, pooling, [plan], _mlp(hidden, norm, dropout, first_order=False)
  )


def dcn_v2(
  schema: schema_lib.Schema,
  *,
  dim: int = 10,
  pooling: str = 'mean',
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
    layers: cross layers.
    hidden: widths of the MLP's hidden layers.
    norm: 'none', 'batch' or 'layer', before each activation.
    dropout: share of hidden units that training drops, in [0, 1).
  """
  plan = plans_lib.Cross(layers=layers, weights='matrix')
  return _model(
    schema, dim, pooling, [plan], _mlp(hidden, norm, dropout, first_order=False)
  )


def cin(
  schema: schema_lib.Schema,
  *,
  dim: int = 10,
  pooling: str = 'mean',
  sizes: Sequence[int] = (64, 64, 64),
) -> arch_lib.Architecture:
  """Compressed interaction network, without MLP (Lian et al., KDD 2018).

  Args:
    schema: fitted schema.
    dim: embedding width.
    pooling: of multi-valued fields, 'mean' or 'sum' over a row's values.
    sizes: vectors of each layer.
  """
  plan = plans_lib.Compressed(sizes=sizes)
  return _model(schema, dim, pooling, [plan], arch_lib.HeadPlan())


def xdeepfm(
  schema: schema_lib.Schema,
  *,
  dim: int = 10,
  pooling: str = 'mean',
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
    sizes: vectors of each layer of the CIN.
    hidden: widths of the MLP's hidden layers.
    norm: 'none', 'batch' or 'layer', before each activation.
    dropout: share of hidden units that training drops, in [0, 1).
  """
  plan = plans_lib.Compressed(sizes=sizes)
  return _model(schema, dim, pooling, [plan], _mlp(hidden, norm, dropout))


def autoint(
  schema: schema_lib.Schema,
  *,
  dim: int = 10,
  pooling: str = 'mean',
  layers: int = 6,
  heads: int = 4,
  size: int = 128,
  scale: bool = False,
  layer_norm: bool = False,
  wide: bool = False,
  dropout: float = 0.0,
) -> arch_lib.Architecture:
  """Self-attention over fields (AutoInt; Song et al., CIKM 2019).

  Args:
    schema: fitted schema.
    dim: embedding width.
    pooling: of multi-valued fields, 'mean' or 'sum' over a row's values.
    layers: of attention.
    heads: of each layer.
    size: width of a field after a layer, all heads together.
    scale: whether scores are divided by the root of a head's width.
    layer_norm: whether layers end with layer normalisation, before relu.
    wide: whether there are first-order weights.
    dropout: of attention's weights and outputs.
  """
  plan = plans_lib.SelfAttention(
    layers=layers,
    heads=heads,
    size=size,
    scale=scale,
    layer_norm=layer_norm,
    dropout=dropout,
  )
  head = arch_lib.HeadPlan(first_order=wide)
  return _model(schema, dim, pooling, [plan], head)


def autoint_plus(
  schema: schema_lib.Schema,
  *,
  dim: int = 10,
  pooling: str = 'mean',
  layers: int = 5,
  heads: int = 4,
  size: int = 128,
  scale: bool = True,
  layer_norm: bool = True,
  wide: bool = False,
  hidden: Sequence[int] = (400, 400, 400),
  norm: str = 'batch',
  dropout: float = 0.1,
) -> arch_lib.Architecture:
  """AutoInt+: self-attention beside an MLP (Song et al., CIKM 2019).

  Args:
    schema: fitted schema.
    dim: embedding width.
    pooling: of multi-valued fields, 'mean' or 'sum' over a row's values.
    layers: of attention.
    heads: of each layer.
    size: width of a field after a layer, all heads together.
    scale: whether scores are divided by the root of a head's width.
    layer_norm: whether layers end with layer normalisation, before relu.
    wide: whether there are first-order weights.
    hidden: widths of the MLP's hidden layers.
    norm: 'none', 'batch' or 'layer', before each activation.
    dropout: share of hidden units, and of attention's weights and outputs, that
      training drops, in [0, 1).
  """
  plan = plans_lib.SelfAttention(
    layers=layers,
    heads=heads,
    size=size,
    scale=scale,
    layer_norm=layer_norm,
    dropout=dropout,
  )
  head = _mlp(hidden, norm, dropout, first_order=wide)
  return _model(schema, dim, pooling, [plan], head)


def fibinet(
  schema: schema_lib.Schema,
  *,
  dim: int = 10,
  pooling: str = 'mean',
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
    matrices: 'all': one for all pairs; 'each': one per left field; 'pair': one
      per pair.
    reduction: fields per unit of the squeeze-and-excitation network's hidden
      layer; 0 for no network.
    hidden: widths of the MLP's hidden layers.
    norm: 'none', 'batch' or 'layer', before each activation.
    dropout: share of hidden units that training drops, in [0, 1).
  """
  plan = plans_lib.Bilinear(matrices=matrices, reduction=reduction)
  head = _mlp(hidden, norm, dropout, flat_embeddings=False)
  return _model(schema, dim, pooling, [plan], head)


def masknet(
  schema: schema_lib.Schema,
  *,
  dim: int = 10,
  pooling: str = 'mean',
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
    sizes: widths of the blocks.
    reduction: width of a mask's hidden layer, in widths of what it masks.
    layer_norm: whether blocks have layer normalisation, before relu.
    norm_vectors: layer normalisation of each field's vector.
    hidden: widths of the MLP's hidden layers.
    norm: of the MLP; 'none', 'batch' or 'layer', before each activation.
    dropout: of blocks and hidden layers, in [0, 1).
  """
  plan = plans_lib.MaskBlocks(
    mode='parallel',
    sizes=sizes,
    reduction=reduction,
    layer_norm=layer_norm,
    norm_vectors=norm_vectors,
    dropout=dropout,
    to='head',
  )
  head = _mlp(hidden, norm, dropout, first_order=False, flat_embeddings=False)
  return _model(schema, dim, pooling, [plan], head)


def masknet_serial(
  schema: schema_lib.Schema,
  *,
  dim: int = 10,
  pooling: str = 'mean',
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
    sizes: widths of the blocks.
    reduction: width of a mask's hidden layer, in widths of what it masks.
    layer_norm: whether blocks have layer normalisation, before relu.
    norm_vectors: layer normalisation of each field's vector.
    dropout: share of a block's outputs that training drops, in [0, 1).
  """
  plan = plans_lib.MaskBlocks(
    mode='serial',
    sizes=sizes,
    reduction=reduction,
    layer_norm=layer_norm,
    norm_vectors=norm_vectors,
    dropout=dropout,
    to='output',
  )
  head = arch_lib.HeadPlan(first_order=False)
  return _model(schema, dim, pooling, [plan], head)


def finalmlp(
  schema: schema_lib.Schema,
  *,
  dim: int = 10,
  pooling: str = 'mean',
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
    towers: widths of the layers of both.
    gate_hidden: widths of the hidden layers of gates; None for no gates.
    contexts: fields that either gate looks at, in tables of their own.
    heads: of the products of both towers' last layers.
    norm: of the towers; 'none', 'batch' or 'layer', before each activation.
    dropouts: share of hidden units that training drops, in [0, 1), of both.
  """
  plan = plans_lib.TwoTowers(
    hidden=towers,
    norm=norm,
    dropout=dropouts,
    gate_hidden=gate_hidden,
    contexts=contexts,
    heads=heads,
  )
  head = arch_lib.HeadPlan(first_order=False)
  return _model(schema, dim, pooling, [plan], head)


def dlrm(
  schema: schema_lib.Schema,
  *,
  dim: int = 10,
  pooling: str = 'mean',
  product: str = 'cat',
  bottom: Sequence[int] = (64, 64, 64),
  hidden: Sequence[int] = (400, 400, 400),
  norm: str = 'batch',
  dropout: float = 0.4,
) -> arch_lib.Architecture:
  """DLRM: one vector of all numbers beside those of ids.

  (Naumov et al., 2019, arXiv:1906.00091.)

  Args:
    schema: fitted schema.
    dim: embedding width.
    pooling: of multi-valued fields, 'mean' or 'sum' over a row's values.
    product: 'dot': inner products of all pairs of vectors feed the MLP; 'cat':
      the vectors do, as in the BARS benchmark: without numeric fields that is
      a plain MLP.
    bottom: hidden layers of the MLP that reads the numbers.
    hidden: widths of the MLP's hidden layers.
    norm: 'none', 'batch' or 'layer', before each activation.
    dropout: share of hidden units that training drops, in [0, 1).
  """
  plan = plans_lib.NumbersAndVectors(
    product=product, hidden=bottom, norm=norm, dropout=dropout
  )
  head = _mlp(hidden, norm, dropout, first_order=False, flat_embeddings=False)
  return _model(schema, dim, pooling, [plan], head)


def rater(
  schema: schema_lib.Schema,
  *,
  dim: int = 128,
  width: int | None = None,
  pooling: str = 'mean',
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
    field_plans(schema, dim, pooling),
    (),
    head,
    projection='affine',
    width=width or dim,
    squash=True,
  )


MODELS = {
  'lr': lr,
  'fm': fm,
  'ffm': ffm,
  'fwfm': fwfm,
  'fmfm': fmfm,
  'hofm': hofm,
  'afm': afm,
  'nfm': nfm,
  'crossnet': crossnet,
  'crossnet_v2': crossnet_v2,
  'cin': cin,
  'autoint': autoint,
  'wide_deep': wide_deep,
  'deepfm': deepfm,
  'ipnn': ipnn,
  'dcn': dcn,
  'dcn_v2': dcn_v2,
  'xdeepfm': xdeepfm,
  'autoint_plus': autoint_plus,
  'fibinet': fibinet,
  'masknet': masknet,
  'masknet_serial': masknet_serial,
  'finalmlp': finalmlp,
  'dlrm': dlrm,
  'rater': rater,
}


def options(name: str) -> dict[str, Any]:
  """What a model's factory takes beside the schema, with its defaults.

  Raises:
    ConfigError: for an unknown name; lists the known and the nearest.
  """
  if name not in MODELS:
    raise errors.ConfigError(
      f'No model {name!r}; the models are: {", ".join(MODELS)}.'
      f'{errors.nearest(name, MODELS)}'
    )
  parameters = inspect.signature(MODELS[name]).parameters.values()
  return {p.name: p.default for p in parameters if p.kind == p.KEYWORD_ONLY}


def build(
  name: str, schema: schema_lib.Schema, **given: Any
) -> arch_lib.Architecture:
  """The architecture of a model by name, for a fitted schema.

  Args:
    name: of `MODELS`.
    schema: fitted schema.
    **given: options of its factory.

  Raises:
    ConfigError: for an unknown name or option; lists the known and the nearest.
  """
  known = options(name)
  for option in given:
    if option not in known:
      raise errors.ConfigError(
        f'Model {name!r} has no option {option!r}; there are: '
        f'{", ".join(known)}.{errors.nearest(option, known)}'
      )
  return MODELS[name](schema, **given)
