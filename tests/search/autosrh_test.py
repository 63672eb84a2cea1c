"""AutoSrh: the rule of its factors, its two levels, noise and rare ids."""

import functools

from absl.testing import absltest
import jax
import jax.numpy as jnp
import numpy as np

from jax_autorec import errors, field_spaces, pipeline, search, spaces
from jax_autorec.data import planted
from jax_autorec.search import patterns
from jax_autorec.train import settings as settings_lib

_DIM = 6


def _data(seed=1):
  """Two of six fields are in no pair, and have no effect of their own."""
  return planted.generate(
    num_rows=20_000,
    num_fields=6,
    num_pairs=2,
    max_values=30,
    first_order_std=0.0,
    std=1.5,
    seed=seed,
  )


@functools.cache
def _found(seed=1, num_steps=192, warmup=128):
  data = _data(seed)
  found = pipeline.run_search(
    field_spaces.open_columns(spaces.fm(data.schema, dim=_DIM), 4),
    {'fields': search.autosrh(warmup=warmup, density=0.15)},
    data,
    settings_lib.Settings(
      batch_size=500, learning_rate=0.02, table_std=0.1, embedding_l2=1e-4
    ),
    num_steps=num_steps,
    seed=seed,
  )
  return data, found


class FactorsTest(absltest.TestCase):
  def test_rule(self):
    """Divided by the group's mean size, shrunk, and cut to [0, 1]."""
    selector = search.autosrh(learning_rate=0.1, l1=0.5)
    mask = np.array([[0.5, 0.02, 0.99], [0.5, 0.5, 0.5]])
    grads = np.array([[3.0, 1.0, -5.0], [0.0, 0.0, 0.0]])
    state = selector.tx.init({'mask': jnp.asarray(mask)})
    updates, _ = selector.tx.update(
      {'mask': jnp.asarray(grads)}, state, {'mask': jnp.asarray(mask)}
    )
    expected = mask.copy()
    expected[0] -= 0.1 * (grads[0] / 3 + 0.5)
    expected[1] -= 0.1 * 0.5  # An absent group fades at the rate of L1 alone.
    expected = np.clip(expected, 0, 1)
    np.testing.assert_allclose(mask + updates['mask'], expected, rtol=1e-6)
    self.assertEqual(expected[0, 1], 0)
    self.assertEqual(expected[0, 2], 1)

  def test_factors_wait_for_the_warm_up(self):
    warm = _found(num_steps=32, warmup=32)[1].state.arch['fields']['mask']
    np.testing.assert_array_equal(warm, np.ones_like(warm))
    moved = np.asarray(_found()[1].state.arch['fields']['mask'])
    self.assertTrue(np.all((moved >= 0) & (moved <= 1)))
    self.assertLess(moved.min(), 0.8)

  def test_senseless_options(self):
    with self.assertRaisesRegex(errors.ConfigError, 'Factors have the rate'):
      search.autosrh(learning_rate=0.0)
    with self.assertRaisesRegex(errors.ConfigError, 'density'):
      search.autosrh(density=0.0)
    with self.assertRaisesRegex(errors.ConfigError, 'budget of -3'):
      search.autosrh(max_params=-3)
    for options in ({'warmup': -5}, {'period': 0}):
      with self.assertRaisesRegex(errors.ConfigError, 'Factors wait for'):
        search.autosrh(**options)

  def test_a_budget_that_holds_nothing_is_refused_before_the_search(self):
    data, found = _found()
    selectors = {'fields': search.autosrh(max_params=9)}
    with self.assertRaisesRegex(errors.ConfigError, 'cannot be met'):
      pipeline.run_search(found.space, selectors, data)


class DeriveTest(absltest.TestCase):
  def test_the_largest_products_are_kept(self):
    """Against a sort of the whole table."""
    _, found = _found()
    derived = pipeline.derive(found)
    table = np.asarray(
      found.state.train.tables[patterns.main_table(found.space)]
    )
    mask = np.asarray(found.state.arch['fields']['mask'])
    group, products, first = 0, [], 0
    for plan, starts in zip(found.space.categorical, found.space.choice.starts):
      ends = [*starts[1:], plan.vocab_size]
      for start, end in zip(starts, ends):
        rows = table[first + start : first + end]
        products.append(np.abs(mask[group] * rows))
        group += 1
      first += plan.vocab_size
    self.assertEqual(group, len(mask))
    products = np.concatenate(products)
    count = round(0.15 * table.size)
    kept = products >= np.sort(products.reshape(-1))[-count]
    self.assertEqual(kept.sum(), count)
    first = 0
    for plan in derived.categorical:
      own = kept[first : first + plan.vocab_size]
      self.assertEqual(plan.num_values, own.sum())
      if plan.num_values:
        np.testing.assert_array_equal(
          np.unpackbits(derived.arrays[f'{plan.name}.bits'], 1, _DIM), own
        )
      first += plan.vocab_size
    size = first + count + derived.index_bytes / 4
    self.assertEqual(derived.ep_total, size)

  def test_what_a_factor_has_closed_is_not_kept(self):
    data, found = _found()
    closed = jax.tree.map(jnp.copy, found.state.arch)
    closed['fields']['mask'] = closed['fields']['mask'].at[:4].set(0.0)
    selectors = {'fields': search.autosrh(density=1.0)}
    state = found.state.replace(arch=closed)
    derived = pipeline.derive(pipeline.Found(found.space, selectors, state, {}))
    self.assertEqual(derived.categorical[0].pieces, ())
    self.assertGreater(derived.categorical[1].num_values, 0)

  def test_noise_fields_keep_least(self):
    """P2."""
    data, found = _found()
    derived = pipeline.derive(found)
    share = {
      plan.name: plan.num_values / (plan.vocab_size * _DIM)
      for plan in derived.categorical
    }
    true = data.truth['dims']
    noise = [share[name] for name in share if not true[name]]
    signal = [share[name] for name in share if true[name]]
    self.assertLess(max(noise), 0.1 * min(signal))


if __name__ == '__main__':
  absltest.main()
