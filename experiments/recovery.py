"""How near what was derived comes to what was planted, where that is known."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy import stats

from jax_autorec import architecture as arch_lib
from jax_autorec import fields as fields_lib


def values_per_id(
  architecture: arch_lib.Architecture, plan: fields_lib.FieldPlan
) -> np.ndarray:
  """What is stored for every id of a field alone: float64 [vocab_size].

  Entries of its row; its share of rows that several ids have in common; of a
  quantised field the bits of its codes / 32. Codebooks, maps, permutations and
  patterns of bits are not counted.
  """
  result = np.zeros(plan.vocab_size)
  if plan.num_values:
    bits = architecture.arrays[f'{plan.name}.bits']
    return np.bitwise_count(bits).sum(1, dtype=np.float64)
  if plan.quantizer is not None:
    start = 0
    for tier in plan.quantizer.tiers:
      result[start : tier.stop] = plan.quantizer.groups * tier.bits / 32
      start = tier.stop
    return result
  for piece in plan.all_pieces:
    ids = slice(piece.start, piece.stop)
    share = piece.num_rows / (piece.stop - piece.start)
    result[ids] += piece.dim * share
  if plan.remap:
    order = architecture.arrays[f'{plan.name}.remap']
    result = np.append(result, 0)[np.minimum(order, plan.vocab_size)]
  return result


def widths(
  architecture: arch_lib.Architecture, truth: Mapping[str, Any]
) -> dict[str, Any]:
  """What became of planted ranks, noise, heads and duplicates.

  Args:
    architecture: derived.
    truth: of `planted_fields.generate`.

  Returns:
    'widths', mean values per id by field; and where the truth has such:
    'rank_correlation' (Spearman's, of widths and ranks), 'noise_least' (1
    where no noise field is wider than any other, nor as wide as all), 'noise'
    (the width of the widest noise field), 'head'
    and 'tail' (mean values per id of those that carry signal and of the
    others), 'duplicate' (width of a field and its copy together, over the
    mean of the fields that came once).
  """
  found = {
    plan.name: values_per_id(architecture, plan)
    for plan in architecture.categorical
  }
  own = {name: float(values.mean()) for name, values in found.items()}
  ranks, twice = truth['ranks'], [n for p in truth['duplicates'] for n in p]
  result: dict[str, Any] = {'widths': own}
  once = [name for name in own if name not in twice]
  if len({ranks[name] for name in once}) > 1:
    pair = [own[n] for n in once], [ranks[n] for n in once]
    is_even = len(set(pair[0])) == 1
    rho = 0.0 if is_even else float(stats.spearmanr(*pair).statistic)
    result['rank_correlation'] = rho
  noise = truth['noise_fields']
  if noise:
    others = [own[name] for name in own if name not in noise]
    most = max(own[name] for name in noise)
    result['noise'] = most
    result['noise_least'] = float(most <= min(others) and most < max(others))
  if 'head_ids' in truth:
    in_head = {
      name: np.isin(np.arange(len(values)), truth['head_ids'][name])
      for name, values in found.items()
    }
    for key, inverted in (('head', False), ('tail', True)):
      parts = [found[n][in_head[n] != inverted] for n in own]
      result[key] = float(np.concatenate(parts).mean())
  if twice:
    mean = np.mean([own[name] for name in once])
    result['duplicate'] = float(sum(own[name] for name in twice) / mean)
  return result
