from unittest import mock

from absl.testing import absltest, parameterized
import numpy as np
import pyarrow as pa

from jax_autorec.data import vocabulary


def _texts(rng, count):
  """Texts of 0 to 40 bytes, many alike: a prefix says nothing."""
  stems = [
    '',
    'a',
    'a\0',
    'é' * 4,
    'x' * 8,
    'y' * 16,
    'same long beginning ' * 2,
  ]
  return [
    None
    if rng.random() < 0.1
    else rng.choice(stems) + str(rng.integers(3000)) * rng.integers(2)
    for _ in range(count)
  ]


class InternerTest(parameterized.TestCase):
  @parameterized.parameters(None, 0, 3)
  def test_codes_stand_for_values_one_to_one(self, num_hashes):
    """Also where hashes collide: texts are compared, not hashes."""
    rng = np.random.default_rng(0)
    interner, known = vocabulary.Interner(), {}
    blocks = [_texts(rng, size) for size in (1, 500, 3000, 0, 2500)]
    hashes = vocabulary._Texts.hashes
    collide = lambda texts: hashes(texts) % (num_hashes + 1)
    if num_hashes is None:
      collide = hashes
    with mock.patch.object(vocabulary._Texts, 'hashes', collide):
      for block in blocks if num_hashes is None else blocks[:2]:
        codes = interner.codes(pa.array(block, pa.string()))
        for text, code in zip(block, codes):
          if text is None:
            self.assertEqual(code, vocabulary.MISSING)
          else:
            self.assertEqual(known.setdefault(text, code), code)
      self.assertLen(interner, len(known))
      self.assertGreater(len(known), 200)
      values = interner.values().to_pylist()
      self.assertEqual({values[code]: code for code in known.values()}, known)
      probes = list(known)[::7] + ['nowhere', None]
      expected = [known[text] for text in probes[:-2]]
      expected += [len(known), vocabulary.MISSING]
      np.testing.assert_array_equal(
        interner.find(pa.array(probes)), np.array(expected)
      )
      self.assertLen(interner, len(known))

  def test_integers_and_texts_of_the_same_digits_are_one_value(self):
    interner = vocabulary.Interner()
    first = interner.codes(pa.array([2**62 + 1, -5, None]))
    second = interner.codes(pa.chunked_array([['-5'], [str(2**62 + 1)]]))
    np.testing.assert_array_equal(first[[1, 0]], second)
    self.assertEqual(first[2], vocabulary.MISSING)

  def test_slices_are_read_from_their_own_start(self):
    interner = vocabulary.Interner()
    column = pa.array(['aa', 'b', 'ccc', 'b', None, 'dd'])
    codes = interner.codes(column.slice(1, 4))
    values = interner.values().to_pylist()
    self.assertEqual(
      [None if c < 0 else values[c] for c in codes], ['b', 'ccc', 'b', None]
    )


class FitVocabularyTest(absltest.TestCase):
  def test_ids_fall_with_frequency_and_rare_values_are_unknown(self):
    values = pa.array(['b', 'rare', 'c', 'a', 'unseen'], pa.large_string())
    counts = np.array([5, 1, 9, 5, 0])
    fitted, ids = vocabulary.fit_vocabulary(values, counts, 4, min_count=2)
    self.assertEqual(fitted.values.to_pylist(), ['c', 'a', 'b'])
    self.assertEqual(fitted.size, 5)
    np.testing.assert_array_equal(fitted.frequencies, [4, 1, 9, 5, 5])
    np.testing.assert_array_equal(ids[:5], [4, 1, 2, 3, 1])
    self.assertEqual(ids[vocabulary.MISSING], 0)
    self.assertEqual(ids[vocabulary.PAD], -1)
    np.testing.assert_array_equal(
      fitted.ids(pa.array(['a', None, 'rare', 'new', 'c'])), [3, 0, 1, 1, 2]
    )

  def test_without_values_all_is_unknown_or_missing(self):
    fitted, _ = vocabulary.fit_vocabulary(
      pa.array([], pa.large_string()), np.zeros(0, np.int64), 7, 1
    )
    np.testing.assert_array_equal(fitted.frequencies, [7, 0])
    np.testing.assert_array_equal(fitted.ids(pa.array(['a', None])), [1, 0])


if __name__ == '__main__':
  absltest.main()
