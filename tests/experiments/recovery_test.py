"""Values per id and what is made of them, against sums that are known."""

from absl.testing import absltest
import numpy as np

from experiments import recovery
from jax_autorec import field_spaces, quantization, sizes, spaces
from jax_autorec import schema as schema_lib
from jax_autorec.search import patterns

_VOCAB = (6, 9, 5, 8)


def _model(dim=4):
  fields = [
    schema_lib.Field(f'field_{i}', vocab_size=size)
    for i, size in enumerate(_VOCAB)
  ]
  return spaces.fm(schema_lib.Schema(tuple(fields)), dim=dim)


def _truth(**given):
  ranks = {f'field_{i}': rank for i, rank in enumerate((4, 1, 2, 1))}
  return {'ranks': ranks, 'noise_fields': [], 'duplicates': [], **given}


def _with(widths, dims=(1, 2, 4)):
  return field_spaces.with_dims(field_spaces.open_dims(_model(), dims), widths)


def _vectors(architecture):
  return architecture.embedding_params - architecture.first_order_params


class ValuesPerIdTest(absltest.TestCase):
  def _check(self, architecture):
    found = [
      recovery.values_per_id(architecture, plan)
      for plan in architecture.categorical
    ]
    self.assertEqual([len(own) for own in found], list(_VOCAB))
    self.assertAlmostEqual(
      sum(own.sum() for own in found), _vectors(architecture)
    )
    return found

  def test_they_add_up_to_the_tables(self):
    self._check(_model())
    self._check(_with([1, 4, 2, 0]))
    self._check(sizes.quotient_remainder(_model(), collisions=2, threshold=0))

  def test_rows_that_are_dropped_have_none(self):
    rng = np.random.default_rng(0)
    kept = [rng.random(size) < 0.5 for size in _VOCAB]
    space = field_spaces.open_row_mask(_model())
    found = self._check(field_spaces.with_row_mask(space, kept, [3, 1, 2, 4]))
    for own, is_kept, dim in zip(found, kept, (3, 1, 2, 4)):
      np.testing.assert_array_equal(own, dim * is_kept)

  def test_single_entries(self):
    rng = np.random.default_rng(1)
    chosen = rng.random((sum(_VOCAB), 4)) < 0.4
    space = field_spaces.open_thresholds(_model())
    found = self._check(patterns.with_bits(space, np.packbits(chosen, axis=1)))
    np.testing.assert_array_equal(np.concatenate(found), chosen.sum(1))

  def test_codes_are_bits(self):
    fields = (schema_lib.Field('a', vocab_size=1000),)
    model = spaces.fm(schema_lib.Schema(fields), dim=4)
    found = quantization.quantize(model, 'vq', 2, [(0.3, 16), (0.7, 4)])
    values = recovery.values_per_id(found, found.categorical[0])
    expected = [2 * 4 / 32] * 300 + [2 * 2 / 32] * 700
    np.testing.assert_allclose(values, expected)


class WidthsTest(absltest.TestCase):
  def test_ranks(self):
    found = recovery.widths(_with([4, 1, 2, 1]), _truth())
    self.assertAlmostEqual(found['rank_correlation'], 1)
    self.assertEqual(found['widths']['field_2'], 2)
    found = recovery.widths(_with([1, 4, 2, 4]), _truth())
    self.assertAlmostEqual(found['rank_correlation'], -1)
    found = recovery.widths(_with([2, 2, 2, 2]), _truth())
    self.assertEqual(found['rank_correlation'], 0)

  def test_noise(self):
    truth = _truth(noise_fields=['field_1', 'field_3'])
    for widths, expected in (
      ([4, 1, 2, 1], 1),
      ([1, 1, 2, 1], 1),
      ([4, 1, 2, 4], 0),
      ([2, 2, 2, 2], 0),
    ):
      found = recovery.widths(_with(widths), truth)
      self.assertEqual(found['noise_least'], expected, widths)
      # Whether that is the least of all candidates, its width says.
      self.assertEqual(found['noise'], max(widths[1], widths[3]))

  def test_heads(self):
    kept = [np.arange(size) < 3 for size in _VOCAB]
    space = field_spaces.open_row_mask(_model())
    found = field_spaces.with_row_mask(space, kept, [4, 4, 2, 2])
    ids = {f'field_{i}': [0, 1, 2] for i in range(4)}
    result = recovery.widths(found, _truth(head_ids=ids))
    self.assertEqual(result['head'], 3)
    self.assertEqual(result['tail'], 0)

  def test_duplicates(self):
    truth = _truth(duplicates=[['field_1', 'field_3']])
    found = recovery.widths(_with([4, 1, 2, 2]), truth)
    self.assertEqual(found['duplicate'], 1)
    # The fields that came once alone have ranks of their own.
    self.assertAlmostEqual(found['rank_correlation'], 1)


if __name__ == '__main__':
  absltest.main()
