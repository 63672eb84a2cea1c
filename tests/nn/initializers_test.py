from unittest import mock

from absl.testing import absltest, parameterized
import jax
import numpy as np
from scipy import stats

from jax_autorec.nn import initializers


class NormalByBlocksTest(parameterized.TestCase):
  @parameterized.parameters(7, 64, 200)
  def test_every_entry_is_a_draw_of_its_own(self, num_rows):
    """Less than a block, whole blocks, and a last one that is short."""
    with mock.patch.object(initializers, '_BLOCK_ENTRIES', 32 * 3):
      table = initializers.normal_by_blocks(0.3)(
        jax.random.key(0), (num_rows, 3)
      )
    self.assertEqual(table.shape, (num_rows, 3))
    values = np.ravel(table)
    self.assertLen(np.unique(values), len(values))
    self.assertGreater(stats.kstest(values / 0.3, 'norm').pvalue, 1e-3)

  def test_memory_is_the_table_and_some_blocks(self):
    def temporaries(num_rows):
      init = jax.jit(initializers.normal_by_blocks(1.0), static_argnums=1)
      compiled = init.lower(jax.random.key(0), (num_rows, 16)).compile()
      return compiled.memory_analysis().temp_size_in_bytes

    self.assertEqual(temporaries(1_000_000), temporaries(10_000_000))
    self.assertLess(temporaries(10_000_000), 0.2 * 4 * 16 * 10_000_000)


if __name__ == '__main__':
  absltest.main()
