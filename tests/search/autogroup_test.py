"""AutoGroup: draws, what is settled, and planted pairs and triples."""

import itertools

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jax_autorec import errors, group_spaces, pipeline, search, spaces
from jax_autorec import schema as schema_lib
from jax_autorec.data import planted
from jax_autorec.search import base
from jax_autorec.search.autogroup import members, relaxed
from jax_autorec.train import settings as settings_lib

_SCHEMA = schema_lib.Schema(
  tuple(schema_lib.Field(name, vocab_size=9) for name in 'abcd')
)


def _space(counts=(2, 3), **options):
  return group_spaces.open_groups(spaces.fm(_SCHEMA, dim=4), counts, **options)


class DrawTest(parameterized.TestCase):
  def test_frequencies_are_those_of_the_logits(self):
    """At a temperature of 1, over draws: five standard deviations."""
    logits = jnp.array([-2.0, -0.3, 0.0, 0.7, 3.0])
    keys = jax.random.split(jax.random.key(0), 20_000)
    draw = jax.vmap(lambda key: relaxed(logits, 1.0, key))
    weights = np.asarray(draw(keys))
    expected = np.asarray(jax.nn.sigmoid(logits))
    spread = np.sqrt(expected * (1 - expected) / len(keys))
    frequencies = (weights > 0.5).mean(0)
    np.testing.assert_array_less(np.abs(frequencies - expected), 5 * spread)
    self.assertBetween(weights.min(), 0, 0.01)

  def test_cold_draws_are_memberships(self):
    logits = jnp.linspace(-2, 2, 1001)
    weights = relaxed(logits, 1e-5, jax.random.key(0))
    self.assertLess(np.minimum(weights, 1 - weights).mean(), 1e-3)
    np.testing.assert_array_equal(
      np.round(weights), relaxed(logits, 1.0, jax.random.key(0)) > 0.5
    )

  def test_ties_are_no_members_and_sizes_are_kept(self):
    scores = jnp.array([[0.0, 3.0], [1e-6, 1.0], [-1.0, 2.0]])
    np.testing.assert_array_equal(members(scores), [[0, 1], [1, 1], [0, 1]])
    np.testing.assert_array_equal(members(scores, 2), [[1, 1], [1, 0], [0, 1]])

  @parameterized.parameters(None, 2)
  def test_straight_through(self, size):
    """Exactly 0 or 1 forward; backward the slope of the relaxed draw."""
    sizes = {'groups_2': size} if size else None
    selector = search.autogroup(
      optax.sgd(1.0), selection='hard', sizes=sizes, temperature=0.7
    )
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(4, 50)) * 2)
    weights = jnp.asarray(np.random.default_rng(1).normal(size=(4, 50)))

    def run(logits):
      draw = selector.sample(
        {'groups_2': logits}, (), None, 'arch', 0, jax.random.key(3)
      )
      member = draw.choice['groups_2']['member']
      return (member * weights).sum(), member

    grad, member = jax.grad(run, has_aux=True)(logits)
    self.assertContainsSubset(np.unique(member), [0.0, 1.0])
    if size:
      np.testing.assert_array_equal(member.sum(0), [size] * 50)
    key = jax.random.fold_in(jax.random.key(3), 0)
    soft = relaxed(logits, 0.7, key)
    np.testing.assert_allclose(
      grad, weights * soft * (1 - soft) / 0.7, rtol=1e-4, atol=1e-6
    )

  @parameterized.product(selection=['soft', 'hard'], noise=['both', 'arch'])
  def test_phases(self, selection, noise):
    """Which of them have noise, and which are relaxed."""
    selector = search.autogroup(
      optax.sgd(1.0), selection=selection, noise=noise
    )
    logits = jnp.full((4, 50), 0.1)

    def draw(phase, key):
      key = jax.random.key(key)
      draw = selector.sample({'x': logits}, (), None, phase, 0, key)
      return np.asarray(draw.choice['x']['member'])

    for phase, is_noisy in (
      ('arch', True),
      ('weights', noise == 'both'),
      ('eval', False),
    ):
      values = draw(phase, 0)
      self.assertEqual(np.array_equal(values, draw(phase, 1)), not is_noisy)
      self.assertEqual(np.std(values) > 0, is_noisy)
      is_hard = selection == 'hard' or phase == 'eval'
      self.assertEqual(np.isin(values, (0, 1)).all(), is_hard)


class DeriveTest(parameterized.TestCase):
  def test_groups_are_those_of_positive_logits(self):
    """Whatever the order of the fields."""
    rng = np.random.default_rng(0)
    logits = {
      name: rng.normal(size=(4, 6)) for name in ('groups_1', 'groups_2')
    }
    selector = search.autogroup(optax.sgd(1.0))
    found = {}
    for order in ([0, 1, 2, 3], [2, 0, 3, 1]):
      schema = schema_lib.Schema(tuple(_SCHEMA.fields[i] for i in order))
      space = group_spaces.open_groups(spaces.fm(schema, dim=4), (6, 6))
      arch = {name: values[order] for name, values in logits.items()}
      derived = selector.derive(arch, (), base.Context(space, None))
      found[tuple(order)] = [
        [frozenset(group) for group in plan.groups]
        for plan in derived.interactions
      ]
    first, second = found.values()
    self.assertEqual(first, second)
    expected = [
      frozenset(name for name, own in zip('abcd', column) if own > 0)
      for column in logits['groups_2'].T
    ]
    self.assertEqual(first[1], [own for own in expected if len(own) > 1])

  def test_fresh_groups_differ(self):
    space = _space((0, 40))
    choice = {'groups_2': {'member': jnp.ones((4, 40))}}
    selector = search.autogroup(optax.sgd(1.0))
    logits, _ = selector.init(choice, jax.random.key(0), None)
    derived = selector.derive(logits, (), base.Context(space, None))
    self.assertGreater(len(set(derived.interactions[0].groups)), 5)

  @parameterized.parameters(
    (dict(selection='harder'), "'harder'"),
    (dict(split='train'), "'train'"),
    (dict(noise='weights'), "'weights'"),
    (dict(temperature=0.0), 'temperature'),
    (dict(samples=0), 'samples'),
    (dict(sizes={'groups_2': 2}), 'hard selection'),
  )
  def test_options(self, options, message):
    with self.assertRaisesRegex(errors.ConfigError, message):
      search.autogroup(optax.sgd(1.0), **options)

  @parameterized.parameters({'groups_3': 2}, {'groups_2': 5})
  def test_sizes_are_of_open_groups(self, **sizes):
    selector = search.autogroup(optax.sgd(1.0), selection='hard', sizes=sizes)
    with self.assertRaisesRegex(errors.ConfigError, '1 to 4'):
      selector.check(_space())


def _shares(seed, num_steps, num_rows, **options):
  """Order -> how many groups hold the planted term, and others on average."""
  data = planted.generate(
    num_rows=num_rows,
    num_fields=6,
    num_pairs=1,
    num_triples=1,
    max_values=12,
    std=1.5,
    seed=seed,
  )
  space = group_spaces.open_groups(
    spaces.fm(data.schema, dim=4), (0, 4, 4), form='elementary'
  )
  settings = settings_lib.Settings(
    batch_size=1000,
    learning_rate=0.02,
    table_std=0.1,
    table_optimizer='adam',
    steps_per_dispatch=8,
  )
  selector = search.autogroup(
    optax.adam(8 / num_steps), temperature=0.3, **options
  )
  found = pipeline.run_search(
    space, {'interactions': selector}, data, settings, num_steps=num_steps
  )
  names = [field.name for field in data.schema.fields]
  shares = {}
  for plan in pipeline.derive(found).interactions:
    ((*term,),) = data.truth[{2: 'pairs', 3: 'triples'}[plan.order]]
    share = lambda term, plan=plan: np.mean(
      [set(term) <= set(group) for group in plan.groups]
    )
    others = set(itertools.combinations(names, plan.order)) - {tuple(term)}
    shares[plan.order] = share(term), np.mean([share(own) for own in others])
  return shares


class RecoveryTest(parameterized.TestCase):
  def test_a_planted_pair_and_triple_meet_in_groups(self):
    shares = _shares(
      1, num_steps=240, num_rows=20_000, selection='hard', split='alternate'
    )
    for order in (2, 3):
      planted_share, others = shares[order]
      self.assertGreater(planted_share, others + 0.5, order)

  @parameterized.parameters(
    dict(selection='soft', split='valid'),
    dict(selection='hard', split='alternate'),
  )
  @pytest.mark.slow
  def test_in_nine_of_ten_seeds(self, **options):
    apart = {2: 0, 3: 0}
    for seed in range(10):
      shares = _shares(seed, num_steps=240, num_rows=20_000, **options)
      for order, (planted_share, others) in shares.items():
        apart[order] += planted_share > others + 0.3
    self.assertGreaterEqual(min(apart.values()), 9, apart)


if __name__ == '__main__':
  absltest.main()
