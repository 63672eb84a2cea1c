from absl.testing import absltest
import jax
import jax.numpy as jnp
import numpy as np

from jax_autorec import choices as choices_lib
from jax_autorec import fields as fields_lib
from jax_autorec.nn import field_choices, row_chains

_DIMS = (2, 3, 5)


def _growing(seed=0):
  """Rows of two fields at all sizes, and their module's parameters."""
  rng = np.random.default_rng(seed)
  plan = choices_lib.GrowingRows(_DIMS)
  fields = [
    fields_lib.FieldPlan(name, 'categorical', 5, vocab_size=9) for name in 'ab'
  ]
  module = field_choices.build(plan, fields, None, 'fields')
  rows = rng.normal(size=(12, 2, 5)).astype(np.float32)
  sizes = rng.integers(0, 3, (12, 2)).astype(np.int32)
  mask = np.ones(12, bool)
  params = module.init(jax.random.key(1), rows, mask, train=False)['params']
  params = jax.tree.map(
    lambda x: jnp.asarray(rng.normal(size=x.shape), jnp.float32), params
  )
  apply = lambda params, rows, sizes: module.apply(
    {'params': params, 'arch': {'size': sizes}}, rows, mask, train=True
  )
  return params, rows, sizes, apply


def _explicit(params, row, size, field):
  """The chain for one row, map by map, in float64."""
  vector = np.asarray(row, np.float64)[: _DIMS[size]]
  for k in range(size, len(_DIMS) - 1):
    kernel = np.asarray(params[f'kernel_{k}'][field], np.float64)
    vector = vector @ kernel + np.asarray(params[f'offset_{k}'][field])
  return vector


class RowChainsTest(absltest.TestCase):
  def test_the_chain_is_the_product_of_its_maps(self):
    params, rows, sizes, apply = _growing()
    got = apply(params, rows, sizes)
    for b in range(12):
      for field in range(2):
        size = sizes[b, field]
        expected = _explicit(params, rows[b, field], size, field)
        np.testing.assert_allclose(got[b, field], expected, rtol=1e-4)
        kernel, offset = row_chains.chain(params, _DIMS, field)[size]
        composed = rows[b, field, : _DIMS[size]] @ kernel + offset
        np.testing.assert_allclose(composed, expected, rtol=1e-6)

  def test_growing_changes_no_vector(self):
    params, rows, sizes, apply = _growing()
    grows = (np.arange(24).reshape(12, 2) % 3 > 0) & (sizes < 2)
    grown = row_chains.grow(params, _DIMS, rows, sizes, grows)
    before = apply(params, rows, sizes)
    after = apply(params, grown, sizes + grows)
    scale = np.abs(before).max()
    np.testing.assert_allclose(after / scale, before / scale, atol=1e-6)
    # Rows that do not grow keep their bits, and grown ones what lies beyond.
    np.testing.assert_array_equal(grown[~grows], rows[~grows])
    beyond = np.array(_DIMS)[(sizes + grows)[grows]]
    for row, old, start in zip(grown[grows], rows[grows], beyond):
      np.testing.assert_array_equal(row[start:], old[start:])

  def test_only_the_live_part_of_a_row_gets_gradients(self):
    params, rows, sizes, apply = _growing()
    loss = lambda rows: jnp.sin(apply(params, rows, sizes)).sum()
    grads = np.asarray(jax.grad(loss)(rows))
    live = np.arange(5) < np.array(_DIMS)[sizes][..., None]
    self.assertTrue(np.all(grads[live] != 0))
    self.assertTrue(np.all(grads[~live] == 0))

  def test_narrowed_is_the_nearest_that_a_smaller_size_makes(self):
    params, rows, sizes, apply = _growing()
    vectors = np.asarray(apply(params, rows, sizes), np.float64)
    got = row_chains.narrowed(params, _DIMS, vectors, sizes)
    for b in range(12):
      for field in range(2):
        size, vector = sizes[b, field], vectors[b, field]
        expected = vector
        if size:
          kernel, offset = row_chains.chain(params, _DIMS, field)[size - 1]
          solved = np.linalg.lstsq(kernel.T, vector - offset, rcond=None)[0]
          expected = solved @ kernel + offset
        error = np.abs(got[b, field] - expected).max()
        self.assertLess(error, 2e-3 * np.abs(vector).max())
    # A row that has only just grown is what the smaller size makes.
    grows = sizes < 2
    grown = row_chains.grow(params, _DIMS, rows, sizes, grows)
    same = row_chains.narrowed(
      params, _DIMS, apply(params, grown, sizes + grows), sizes + grows
    )
    error = np.abs(same - vectors)[grows].max()
    self.assertLess(error, 2e-3 * np.abs(vectors).max())


if __name__ == '__main__':
  absltest.main()
