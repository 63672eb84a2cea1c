"""The one table of methods: how a config becomes a space and selectors."""

from collections.abc import Callable
import dataclasses
from typing import Any

from jax_autorec import architecture as arch_lib
from jax_autorec import errors, optim, search, spaces
from jax_autorec import schema as schema_lib

_ORDERS = {2: {'pairs': 'open'}, 3: {'pairs': 'open', 'triples': 'open'}}


@dataclasses.dataclass(frozen=True)
class Method:
  """What a method needs of a config.

  Attributes:
    space: (schema, model, model options, search options) -> open architecture.
    selectors: (search options, number of steps) -> slot -> selector.
  """

  space: Callable[..., arch_lib.Architecture]
  selectors: Callable[..., dict[str, search.Selector]]


def _autofis_space(
  schema: schema_lib.Schema,
  model: str,
  options: dict[str, Any],
  search_options: dict[str, Any],
) -> arch_lib.Architecture:
  order = search_options['order']
  if order not in _ORDERS:
    raise errors.ConfigError(f'search.order is {order!r}; expected 2 or 3.')
  if model not in ('fm', 'deepfm', 'ipnn'):
    raise errors.ConfigError(
      f'AutoFIS searches the products of fm, deepfm or ipnn, not of {model!r}.'
    )
  return spaces.build(model, schema, **options, **_ORDERS[order])


def _autofis_selectors(search_options, num_steps):
  rate, mu = search_options['learning_rate'], search_options['mu']
  c = optim.grda_c(
    search_options['ratio'],
    arch_lib.Products.gate_init,
    rate,
    mu,
    num_steps,
  )
  selector = search.autofis(
    optim.grda(rate, c, mu), keep_gates=search_options['keep_gates']
  )
  return {'interactions': selector}


METHODS = {'autofis': Method(_autofis_space, _autofis_selectors)}
