"""How the number of a field becomes a vector, or an input without one.

Plain data, one class per embedding. All are exchangeable: a base model takes
any of them (`spaces.fm(schema, numeric=AutoDis())`), for all its numeric
fields or by name. What an embedding has to know of the data (quantiles, edges)
is fitted on the train split (`numeric_spaces.fit`) and becomes an array of the
architecture. A missing value has parameters of its own in every one.

The comparisons of AutoDis (Guo et al., KDD 2021, arXiv:2012.08986, section
4.1) go by its names: no embedding (`Powers`, `BottomMLP`), field embedding
(`FieldEmbedding`), discretisation (`EqualWidth`, `EqualFrequency`,
`LogSquare`, `TreeLeaves`).
"""

from collections.abc import Mapping
import dataclasses
import itertools
import math
from typing import Any, ClassVar

from jax_autorec import errors

FORMS = ('A', 'B')
AGGREGATIONS = ('average', 'max', 'top_k')
NUM_STATISTICS = 17  # Of a field: 16 values of its distribution, and its mean.
NUM_POWERS = 3


def _check_integer(value: Any, least: int, what: str) -> None:
  if isinstance(value, bool) or not isinstance(value, int) or value < least:
    raise errors.ConfigError(
      f'{what} is {value!r}; expected an integer of at least {least}.'
    )


def _check_number(value: Any, low: float, high: float, what: str) -> None:
  """Refuses a value that is not a number strictly between two bounds."""
  is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
  if not is_number or not low < value < high:
    beyond = '' if high == math.inf else f' and less than {high:g}'
    raise errors.ConfigError(
      f'{what} is {value!r}; expected more than {low:g}{beyond}.'
    )


def _check_word(value: Any, allowed: tuple[str, ...], what: str) -> None:
  if value not in allowed:
    raise errors.ConfigError(
      f'{what} is {value!r}; expected one of {", ".join(map(repr, allowed))}.'
    )


@dataclasses.dataclass(frozen=True)
class Embedding:
  """What all numeric embeddings have in common.

  Attributes:
    kind: its name in JSON and in configs.
    title: its name in tables.
    has_vectors: whether a field has a vector, which meets those of other
      fields; if not, it enters the input of the MLP, or the logit of a model
      without one.
    is_bucketed: whether a value is replaced by an interval, of which the field
      has a vector and a first-order weight as a categorical field has of an id.
    arrays: suffixes of the arrays '{field}.{suffix}' that it is fitted by.
  """

  kind: ClassVar[str] = ''
  title: ClassVar[str] = ''
  has_vectors: ClassVar[bool] = True
  is_bucketed: ClassVar[bool] = False
  arrays: ClassVar[tuple[str, ...]] = ()

  def num_params(self, dim: int) -> int:
    """Trained scalars of one field's vectors of width `dim`, but for tables."""
    del dim
    return 0

  @property
  def num_shared_params(self) -> int:
    """Trained scalars that the fields of one embedding share."""
    return 0

  @property
  def num_constants(self) -> int:
    """Entries of a field's arrays that a prediction needs."""
    return 0

  def to_dict(self) -> dict[str, Any]:
    return {'kind': self.kind, **dataclasses.asdict(self)}


@dataclasses.dataclass(frozen=True)
class FieldEmbedding(Embedding):
  """A trained vector per field, times the value ('normalisation')."""

  kind: ClassVar[str] = 'field'
  title: ClassVar[str] = 'field embedding'

  def num_params(self, dim: int) -> int:
    return 2 * dim


@dataclasses.dataclass(frozen=True)
class AutoDis(Embedding):
  """Soft buckets, learnt with the model, and a vector for each of them.

  (Guo et al., KDD 2021, arXiv:2012.08986.) Value x gives scores s of H buckets,
  p = softmax(s / temperature), and the vector is an aggregation of the buckets'
  vectors by p. Nothing is searched: all is trained with the other weights.

  Form A (arXiv version 1, the authors' code): s = w x. Form B (KDD):
  h = LeakyReLU(w x), s = W h + skip h. Without biases, as published, both are
  positively homogeneous: for x > 0, s(x) = x s(1), so that one bucket alone is
  the largest on the whole positive axis, and x = 0 is always the even mixture.
  No value above 0 can be told from another by its largest bucket. Hence
  `use_bias`, our default: biases at both layers, and scores that start as lines
  which cross one another at quantiles of the train split, so that each bucket
  is the largest between two quantiles.

  Attributes:
    buckets: H, at least 1.
    form: 'A' or 'B'.
    use_bias: whether scores have offsets; False for the published map.
    temperature: of the softmax, above 0; in the units of the scores.
      TorchEasyRec's by default; the authors' 1e-5 goes with values in [0, 1]
      and weights of .01. With offsets, weights start in proportion to it, and
      the lower it is, the faster crossings move.
    adaptive: whether the temperature depends on value and field, as
      temperature + spread * (2 sigmoid(net) - 1), where the net, without
      offsets, reads 16 values of the field's distribution function, its mean,
      and the value. Its weights are shared by all fields.
    spread: of an adaptive temperature, above 0, less than `temperature`; None
      for half of it.
    temperature_hidden: width of the adaptive temperature's hidden layer.
    aggregation: 'average': weighted by p; 'max': the vector of the largest p;
      'top_k': the sum of the vectors of the `top_k` largest, unweighted. The
      latter two have no gradient in p, and take that of the average
      (straight-through).
    top_k: of the aggregation 'top_k', 1 to `buckets`.
    skip: factor of h in form B; None for .8, TorchEasyRec's. With offsets W is
      trained from where W + skip I = I, so any factor would be the same, and
      there is none to set.
  """

  kind: ClassVar[str] = 'autodis'
  title: ClassVar[str] = 'AutoDis'

  buckets: int = 20
  form: str = 'B'
  use_bias: bool = True
  temperature: float = 0.1
  adaptive: bool = False
  spread: float | None = None
  temperature_hidden: int = 16
  aggregation: str = 'average'
  top_k: int = 3
  skip: float | None = None

  def __post_init__(self):
    _check_integer(self.buckets, 1, 'buckets of AutoDis')
    _check_word(self.form, FORMS, 'form of AutoDis')
    _check_word(self.aggregation, AGGREGATIONS, 'aggregation of AutoDis')
    for name in ('use_bias', 'adaptive'):
      _check_word(getattr(self, name), (True, False), f'{name} of AutoDis')
    _check_number(self.temperature, 0, math.inf, 'temperature of AutoDis')
    if self.skip is not None:
      _check_number(self.skip, -math.inf, math.inf, 'skip of AutoDis')
      if self.use_bias or self.form == 'A':
        raise errors.ConfigError(
          f'skip of AutoDis is {self.skip}, which is of form B without '
          'offsets: set use_bias to False, or leave skip out.'
        )
    _check_integer(self.temperature_hidden, 1, 'temperature_hidden of AutoDis')
    _check_integer(self.top_k, 1, 'top_k of AutoDis')
    if self.aggregation == 'top_k' and self.top_k > self.buckets:
      raise errors.ConfigError(
        f'top_k of AutoDis is {self.top_k} of {self.buckets} buckets; expected '
        'at most all of them.'
      )
    if self.spread is not None and not self.adaptive:
      raise errors.ConfigError(
        f'spread of AutoDis is {self.spread}, but the temperature is constant: '
        'set adaptive, or leave the spread out.'
      )
    if self.spread is not None:
      _check_number(self.spread, 0, self.temperature, 'spread of AutoDis')

  @property
  def arrays(self) -> tuple[str, ...]:
    """'quantiles' [H + 1]: the least train value, H - 1 quantiles, the largest.

    'statistics' [17]: the distribution function at 16 even places from the
    least train value to the largest, and the mean.
    """
    return ('quantiles', 'statistics') if self.adaptive else ('quantiles',)

  @property
  def temperature_spread(self) -> float:
    """Of an adaptive temperature."""
    return self.temperature / 2 if self.spread is None else self.spread

  def num_params(self, dim: int) -> int:
    layers = 2 if self.form == 'B' else 1
    scores = self.buckets * (1 + layers * self.use_bias)
    scores += self.buckets**2 if self.form == 'B' else 0
    return self.buckets * dim + scores + dim

  @property
  def num_shared_params(self) -> int:
    width = NUM_STATISTICS + 2
    return width * self.temperature_hidden if self.adaptive else 0

  @property
  def num_constants(self) -> int:
    # Of form B with offsets the map is in units of quantiles; of the others
    # they are where training starts, and nothing else.
    units = self.buckets + 1 if self.form == 'B' and self.use_bias else 0
    return units + (NUM_STATISTICS if self.adaptive else 0)


@dataclasses.dataclass(frozen=True)
class _Bucketed(Embedding):
  """Intervals of the value axis, with an id each; id 0 is a missing value.

  Fitted by '{field}.edges' float32 [E], increasing: a value is in interval
  i where i edges are at most the value; and '{field}.buckets' int32 [E + 1]:
  the id of every interval. Values beyond the train split's are in the first or
  last one.
  """

  is_bucketed: ClassVar[bool] = True
  arrays: ClassVar[tuple[str, ...]] = ('edges', 'buckets')


@dataclasses.dataclass(frozen=True)
class EqualWidth(_Bucketed):
  """EDD: intervals of equal width between the ends of the train values.

  Of the values as the model reads them, that is, after scaling: of counts that
  are scaled by their logarithm, in logarithms.

  Attributes:
    buckets: number of intervals, at least 1.
  """

  kind: ClassVar[str] = 'edd'
  title: ClassVar[str] = 'EDD'

  buckets: int = 20

  def __post_init__(self):
    _check_integer(self.buckets, 1, 'buckets of EDD')


@dataclasses.dataclass(frozen=True)
class EqualFrequency(_Bucketed):
  """EFD: intervals with as many train rows each, between quantiles.

  Attributes:
    buckets: number of intervals, at least 1; fewer come out where a value is
      so frequent that quantiles coincide.
  """

  kind: ClassVar[str] = 'efd'
  title: ClassVar[str] = 'EFD'

  buckets: int = 20

  def __post_init__(self):
    _check_integer(self.buckets, 1, 'buckets of EFD')


@dataclasses.dataclass(frozen=True)
class LogSquare(_Bucketed):
  """LD: floor(ln(x)^2) of raw values above 2, the integral part of others.

  As FuxiCTR encodes Criteo's counts, and with its oddity: intervals share
  buckets where the two rules meet (2 < x < e is with 0, e <= x < 4.1 with 1).
  Raw values are needed; a data set knows how its numbers were scaled
  (`Dataset.scales`). There are as many buckets as the train values call for.
  """

  kind: ClassVar[str] = 'ld'
  title: ClassVar[str] = 'LD'


@dataclasses.dataclass(frozen=True)
class TreeLeaves(_Bucketed):
  """TD: leaves of gradient-boosted trees that predict the label by the field.

  Trees of a field see its value alone, so that leaves are intervals of it; of
  several trees, every combination of leaves is one. Needs lightgbm
  (`pip install 'jax_autorec[trees]'`), to fit, but not to train or to serve.

  Attributes:
    buckets: leaves of a tree at most, at least 2.
    trees: at least 1.
  """

  kind: ClassVar[str] = 'td'
  title: ClassVar[str] = 'TD'

  buckets: int = 20
  trees: int = 1

  def __post_init__(self):
    _check_integer(self.buckets, 2, 'buckets of TD')
    _check_integer(self.trees, 1, 'trees of TD')


@dataclasses.dataclass(frozen=True)
class Powers(Embedding):
  """No embedding: x', its square and its root, as inputs (YouTube).

  (Covington et al., RecSys 2016.) x' is the share of train values below x,
  read off 101 quantiles with lines between them, in [0, 1]. The three go to the
  MLP, beside the vectors; to the logit, each with a weight, where a model has
  no MLP. They are in no product.
  """

  kind: ClassVar[str] = 'powers'
  title: ClassVar[str] = 'no embedding, powers'
  has_vectors: ClassVar[bool] = False
  # 'grid' [G]: train quantiles, increasing; 'shares' [G]: of values below.
  arrays: ClassVar[tuple[str, ...]] = ('grid', 'shares')

  def num_params(self, dim: int) -> int:
    del dim
    return NUM_POWERS

  @property
  def num_constants(self) -> int:
    return 2 * 101


@dataclasses.dataclass(frozen=True)
class BottomMLP(Embedding):
  """No embedding: an MLP over all numbers, whose output is an input (DLRM).

  (Naumov et al., arXiv:1906.00091.) Linear layers with ReLU after each. The
  output goes where that of `Powers` goes. In DLRM itself it takes part in
  products, as one more field; here it stays what it is compared as, an input
  without an embedding.

  Attributes:
    hidden: widths of the layers; the last is that of the output.
  """

  kind: ClassVar[str] = 'mlp'
  title: ClassVar[str] = 'no embedding, MLP'
  has_vectors: ClassVar[bool] = False

  hidden: tuple[int, ...] = (64, 16)

  def __post_init__(self):
    given = self.hidden
    given = (given,) if isinstance(given, int) else tuple(given)
    object.__setattr__(self, 'hidden', given)
    for width in given or (0,):
      _check_integer(width, 1, 'a width in hidden of the bottom MLP')

  def num_params(self, dim: int) -> int:
    del dim
    # A column of the first layer, and what stands in for a missing value.
    return self.hidden[0] + 1

  @property
  def num_shared_params(self) -> int:
    pairs = itertools.pairwise(self.hidden)
    return sum(self.hidden) + sum(a * b for a, b in pairs)


EMBEDDINGS: dict[str, type[Embedding]] = {
  cls.kind: cls
  for cls in (
    AutoDis,
    FieldEmbedding,
    EqualWidth,
    EqualFrequency,
    LogSquare,
    TreeLeaves,
    Powers,
    BottomMLP,
  )
}


def make(kind: str, **options: Any) -> Embedding:
  """The embedding of a kind.

  Raises:
    ConfigError: for an unknown kind, an option that it does not have, or one
      out of its range; lists what is known.
  """
  if kind not in EMBEDDINGS:
    raise errors.ConfigError(
      f'No numeric embedding {kind!r}; there are: {", ".join(EMBEDDINGS)}.'
      + errors.nearest(str(kind), EMBEDDINGS)
    )
  cls = EMBEDDINGS[kind]
  known = [field.name for field in dataclasses.fields(cls)]
  for name in options:
    if name not in known:
      raise errors.ConfigError(
        f'Numeric embedding {kind!r} has no option {name!r}; it has: '
        f'{", ".join(known) or "none"}.' + errors.nearest(name, known)
      )
  return cls(**options)


def from_dict(values: Mapping[str, Any]) -> Embedding:
  """The embedding of `Embedding.to_dict`."""
  values = dict(values)
  return make(values.pop('kind', None), **values)
