import functools
import itertools
import math
from unittest import mock

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from jax_autorec.nn import groups, products


def _inputs(num_fields=5, num_groups=4, seed=0):
  rng = np.random.default_rng(seed)
  vectors = rng.normal(size=(6, num_fields, 3))
  weights = rng.normal(size=(num_fields, num_groups))
  # An empty group and a single member, too.
  weights[:, 0] = weights[1:, 1] = 0
  return vectors, weights


def _elementary(vectors, weights, order):
  """Plain float64 loops over sets of fields."""
  out = np.zeros((len(vectors), weights.shape[1]))
  for b, row in enumerate(vectors):
    for group in range(weights.shape[1]):
      own = row * weights[:, group, None]
      for term in itertools.combinations(range(len(own)), order):
        out[b, group] += np.prod(own[list(term)], 0).sum()
  return out


def _mixed_powers(vectors, weights, order):
  """The expansion of g^p less own powers: all other multi-indices."""
  out = np.zeros((len(vectors), weights.shape[1]))
  count = weights.shape[0]
  for b, row in enumerate(vectors):
    for group in range(weights.shape[1]):
      own = row * weights[:, group, None]
      for term in itertools.combinations_with_replacement(range(count), order):
        times = np.bincount(term, minlength=count)
        if times.max() == order:
          continue
        factor = math.factorial(order) // math.prod(map(math.factorial, times))
        out[b, group] += factor * np.prod(own[list(term)], 0).sum()
  return out


class FormsTest(parameterized.TestCase):
  @parameterized.parameters(2, 3, 4)
  def test_forms_are_their_expansions(self, order):
    vectors, weights = _inputs()
    with jax.enable_x64(True):
      x, w = jnp.asarray(vectors), jnp.asarray(weights)
      pure = groups.elementary(x, w, order)
      mixed = groups.power_difference(x, w, order)
      partly = groups.power_difference(x, w, order, 0.25)
    pure, mixed, partly = map(np.asarray, (pure, mixed, partly))
    expected = _elementary(vectors, weights, order)
    np.testing.assert_allclose(pure, expected, rtol=1e-9, atol=1e-9)
    expected = _mixed_powers(vectors, weights, order)
    np.testing.assert_allclose(mixed, expected, rtol=1e-9, atol=1e-9)
    own = (np.einsum('bfd,fn->bnfd', vectors, weights) ** order).sum((2, 3))
    np.testing.assert_allclose(partly, mixed + 0.75 * own, rtol=1e-9, atol=1e-9)
    # Neither an empty group nor a single member interacts.
    np.testing.assert_allclose(pure[:, :2], 0, atol=1e-12)
    np.testing.assert_allclose(mixed[:, :2], 0, atol=1e-12)
    self.assertGreater(np.abs(partly[:, 1]).min(), 0)

  @parameterized.parameters(7, 30, 36, 1000)
  def test_some_rows_at_a_time_are_all_rows(self, entries):
    """Parts of 1, 2 (and a rest) and all 7 rows; values and gradients."""
    rng = np.random.default_rng(1)
    vectors = jnp.asarray(rng.normal(size=(7, 5, 3)), jnp.float32)
    weights = jnp.asarray(_inputs()[1], jnp.float32)

    def run(apply):
      loss = lambda x, w: jnp.square(apply(x, w)).sum()
      return jax.value_and_grad(loss, (0, 1))(vectors, weights)

    form = functools.partial(groups.elementary, order=2)
    with mock.patch.object(groups, '_PART', entries):
      got = run(functools.partial(groups.by_rows, form))
    jax.tree.map(
      functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4),
      got,
      run(form),
    )

  def test_order_1_is_the_sum(self):
    vectors, weights = _inputs()
    got = groups.elementary(
      jnp.asarray(vectors, jnp.float32), jnp.asarray(weights, jnp.float32), 1
    )
    expected = np.einsum('bfd,fn->bn', vectors, weights)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)

  def test_all_fields_as_one_group_are_twice_the_fm(self):
    vectors = jnp.asarray(_inputs()[0], jnp.float32)
    everyone = jnp.ones((5, 1))
    expected = products.fm_sum(vectors)
    for form, factor in (
      (groups.power_difference, 2),
      (groups.elementary, 1),
    ):
      got = form(vectors, everyone, 2)[:, 0]
      np.testing.assert_allclose(got, factor * expected, rtol=1e-4, atol=1e-5)


class GroupsTest(parameterized.TestCase):
  @parameterized.parameters((1, 6), (2, 2), (3, 2))
  def test_no_rows(self, order, width):
    module = groups.Groups(order=order, num_fields=5, members=2)
    vectors, mask = jnp.zeros((0, 5, 3)), jnp.zeros(0, bool)
    variables = module.init(jax.random.key(0), vectors, mask, train=False)
    found = module.apply(variables, vectors, mask, train=False)
    self.assertEqual(found.shape, (0, width))

  @parameterized.product(order=[1, 3], form=['power', 'elementary'])
  def test_closed_is_the_supernet_with_these_members(self, order, form):
    """And has one weight per membership; statistics are away from 0 and 1."""
    vectors = 2 + 3 * _inputs()[0].astype(np.float32)
    mask = np.ones(6, bool)
    members = ((0, 2, 3, 4), (1, 2, 4), (0, 1, 3))
    options = dict(order=order, num_fields=5, form=form)
    open_ = groups.Groups(members=3, **options)
    closed = groups.Groups(members=members, **options)
    key = jax.random.key(0)
    supernet = open_.init(key, vectors, mask, train=False)
    final = closed.init(key, vectors, mask, train=False)
    self.assertEqual(supernet['arch']['member'].shape, (5, 3))
    self.assertEqual(final['params']['weights'].shape, (10,))
    self.assertNotIn('arch', final)
    member = np.zeros((5, 3), np.float32)
    for group, own in enumerate(members):
      member[list(own), group] = 1
    choice = {'arch': {'member': member}}
    outputs = [
      module.apply(
        variables, vectors, mask, train=True, mutable=['batch_stats']
      )[0]
      for module, variables in (
        (open_, {**supernet, **choice}),
        (closed, final),
      )
    ]
    width = 9 if order == 1 else 3
    self.assertEqual(outputs[0].shape, (6, width))
    np.testing.assert_allclose(*outputs, rtol=1e-4, atol=1e-4)

  def test_scaled_vectors_are_the_same_normalised(self):
    vectors = _inputs()[0].astype(np.float32)
    mask = np.arange(6) < 5
    module = groups.Groups(2, 5, ((0, 1, 2), (2, 3, 4)))
    variables = module.init(jax.random.key(0), vectors, mask, train=False)
    run = lambda x: module.apply(
      variables, x, mask, train=True, mutable=['batch_stats']
    )[0]
    np.testing.assert_allclose(run(100 * vectors)[:5], run(vectors)[:5], 1e-3)


if __name__ == '__main__':
  absltest.main()
