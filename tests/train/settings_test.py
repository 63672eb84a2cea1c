"""What settings accept, and the optimisers that they describe."""

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from jax_autorec import choices, errors, field_spaces, sizes, spaces
from jax_autorec import schema as schema_lib
from jax_autorec.train import settings

_SCHEMA = schema_lib.Schema(
  (
    schema_lib.Field('a', vocab_size=11),
    schema_lib.Field('b', vocab_size=6, max_length=2),
    schema_lib.Field('c', 'numeric'),
  )
)


class SettingsTest(parameterized.TestCase):
  @parameterized.parameters(
    (dict(epochs=0), 'epochs is 0'),
    (dict(batch_size=2.5), 'batch_size is 2.5'),
    (dict(learning_rate=0.0), 'learning_rate is 0.0'),
    (dict(learning_rate=None), 'learning_rate is None'),
    (dict(table_learning_rate=0.0), 'table_learning_rate is 0.0.*or None'),
    (dict(clip_norm=0.0), 'clip_norm is 0.0.*or None'),
    (dict(embedding_l2=-1e-3), 'embedding_l2 is -0.001'),
    (dict(embedding_l2='0'), "embedding_l2 is '0'"),
    (dict(l2=float('nan')), 'l2 is nan'),
    (dict(learning_rate=float('inf')), 'learning_rate is inf'),
    (dict(table_std=-0.1), 'table_std is -0.1'),
    (dict(save_seconds=-1), 'save_seconds is -1'),
    (dict(patience=-1), 'patience is -1'),
    (dict(plateau_factor=1.5), 'plateau_factor is 1.5'),
    (dict(table_optimizer='adm'), 'rowwise_adagrad'),
    (dict(parallel='pmp'), 'pmap'),
  )
  def test_bad_settings_are_named(self, options, message):
    with self.assertRaisesRegex(errors.ConfigError, message):
      settings.Settings(**options)

  @parameterized.parameters((None, 0.5, 2.0), (0.0, 0.0, 2.0))
  def test_l2_of_vectors_and_of_first_order_weights(
    self, first_order_l2, expected, value
  ):
    """Of ids and of numeric fields alike; other weights have their own."""
    architecture = spaces.build(
      'deepfm', _SCHEMA, dim=3, hidden=(4,), norm='none'
    )
    options = settings.Settings(
      table_optimizer='sgd',
      table_learning_rate=1.0,
      embedding_l2=0.5,
      first_order_l2=first_order_l2,
      l2=0.25,
    )
    optimizer = settings.make_optimizer(options, architecture)
    tables = {
      t.name: jnp.full((t.num_rows, t.dim), value) for t in architecture.tables
    }
    ids = {t.space: jnp.arange(t.num_rows) for t in architecture.tables}
    zeros = jax.tree.map(jnp.zeros_like, tables)
    state = optimizer.tables.init(tables)
    state, grads = optimizer.tables.reduce(state, tables, ids, zeros)
    new, _ = optimizer.tables.update(tables, state, grads, jnp.float32(1))
    np.testing.assert_allclose(value - new['main_dim_3'], 0.5 * value)
    np.testing.assert_allclose(value - new['first_order'], expected * value)
    params = {
      'embeddings': {
        'main_numeric_dim_3': jnp.full((1, 3), value),
        'first_order_numeric_dim_1': jnp.full((1, 1), value),
      },
      'mlp': {'output': {'kernel': jnp.full((4, 1), value)}},
    }
    decays = optimizer.decay(jax.tree.map(jnp.zeros_like, params), params)
    for leaf, rate in zip(jax.tree.leaves(decays), (expected, 0.5, 0.25)):
      np.testing.assert_allclose(leaf, rate * value)

  def test_factors_of_products_do_not_decay(self):
    """To 0 they would take all vectors along: they start at 1."""
    schema = schema_lib.Schema((schema_lib.Field('a', vocab_size=500),))
    architecture = sizes.quotient_remainder(spaces.build('fm', schema, dim=3))
    options = settings.Settings(
      table_optimizer='sgd', learning_rate=1.0, embedding_l2=0.5
    )
    optimizer = settings.make_optimizer(options, architecture).tables
    tables = {
      t.name: jnp.ones((t.num_rows, t.dim)) for t in architecture.tables
    }
    ids = {t.space: jnp.arange(t.num_rows) for t in architecture.tables}
    zeros = jax.tree.map(jnp.zeros_like, tables)
    state = optimizer.init(tables)
    state, grads = optimizer.reduce(state, tables, ids, zeros)
    new, _ = optimizer.update(tables, state, grads, jnp.float32(1))
    np.testing.assert_array_equal(new['main_dim_3'], 0.5)
    np.testing.assert_array_equal(new['main_factor_dim_3'], 1.0)

  def test_what_is_no_weight_does_not_decay(self):
    """Thresholds of single ids, and what maps numbers to soft buckets."""
    schema = schema_lib.Schema((schema_lib.Field('a', vocab_size=9),))
    plain = spaces.build('fm', schema, dim=3)
    architecture = field_spaces.open_thresholds(plain, granularity='feature')
    options = settings.Settings(
      table_optimizer='sgd', learning_rate=1.0, embedding_l2=0.5, l2=0.25
    )
    optimizer = settings.make_optimizer(options, architecture)
    tables = {
      t.name: jnp.ones((t.num_rows, t.dim)) for t in architecture.tables
    }
    ids = {t.space: jnp.arange(t.num_rows) for t in architecture.tables}
    zeros = jax.tree.map(jnp.zeros_like, tables)
    state = optimizer.tables.init(tables)
    state, grads = optimizer.tables.reduce(state, tables, ids, zeros)
    new, _ = optimizer.tables.update(tables, state, grads, jnp.float32(1))
    np.testing.assert_array_equal(new['main_dim_3'], 0.5)
    np.testing.assert_array_equal(new[choices.ROW_CHOICE], 1.0)
    buckets = {name: jnp.ones(2) for name in ('meta', 'weight', 'mix')}
    params = {'embeddings': {'main_autodis_dim_3': buckets}}
    decays = optimizer.decay(jax.tree.map(jnp.zeros_like, params), params)
    own = decays['embeddings']['main_autodis_dim_3']
    for name, rate in (('meta', 0.5), ('weight', 0.0), ('mix', 0.0)):
      np.testing.assert_array_equal(own[name], rate)

  def test_tables_have_a_rate_of_their_own(self):
    architecture = spaces.build('lr', _SCHEMA)
    moved = {}
    for rate in (None, 0.25):
      options = settings.Settings(
        table_optimizer='sgd', learning_rate=0.5, table_learning_rate=rate
      )
      optimizer = settings.make_optimizer(options, architecture)
      (table,) = architecture.tables
      values = {table.name: jnp.ones((table.num_rows, 1))}
      state, grads = optimizer.tables.reduce(
        optimizer.tables.init(values),
        values,
        {table.space: jnp.array([3, 3])},
        {table.name: jnp.full((2, 1), 0.5)},
      )
      new, _ = optimizer.tables.update(values, state, grads, jnp.float32(1))
      moved[rate] = float(1 - new[table.name][3, 0])
    self.assertEqual(moved, {None: 0.5, 0.25: 0.25})


if __name__ == '__main__':
  absltest.main()
