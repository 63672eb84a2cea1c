from absl.testing import absltest
import numpy as np

from jax_autorec import schema as schema_lib
from jax_autorec import spaces
from jax_autorec.interactions import Block
from jax_autorec.search.autoctr import with_blocks
from jax_autorec.train import complexity

_SCHEMA = schema_lib.Schema(
  tuple(schema_lib.Field(n, vocab_size=50) for n in 'abcdef')
)
_DIM = 8


def _flops(*blocks):
  fields = spaces.field_plans(_SCHEMA, _DIM)
  return complexity.flops(with_blocks(fields, blocks), _SCHEMA)


class FlopsTest(absltest.TestCase):
  def test_a_layer_is_two_operations_per_weight(self):
    inputs, width = 6 * _DIM, 512
    found = _flops(Block('mlp', ['vectors'], width))
    expected = 2 * inputs * width + 2 * width
    self.assertBetween(found, expected, 1.1 * expected)

  def test_products_of_vectors_are_counted(self):
    """By the official code's counter FM and DP are free."""
    least = _flops()
    # Additions and squares of 6 vectors; 36 products of 8 entries.
    self.assertGreater(_flops(Block('fm', ['vectors'])), least + 3 * 6 * _DIM)
    products = _flops(Block('dp', ['vectors'])) - least
    self.assertBetween(products, 2 * 15 * _DIM, 2 * 2 * 36 * _DIM)

  def test_tables_do_not_matter(self):
    large = schema_lib.Schema(
      tuple(schema_lib.Field(n, vocab_size=5000) for n in 'abcdef')
    )
    found = [
      complexity.flops(spaces.deepfm(schema, dim=_DIM, hidden=(8,)), schema)
      for schema in (_SCHEMA, large)
    ]
    np.testing.assert_allclose(*found)


if __name__ == '__main__':
  absltest.main()
