from absl.testing import absltest, parameterized

from jax_autorec import architecture as arch_lib
from jax_autorec import errors, interactions, numeric
from jax_autorec import fields as fields_lib


class EmbeddingTest(parameterized.TestCase):
  @parameterized.parameters(
    numeric.AutoDis(buckets=7, adaptive=True, spread=0.025),
    numeric.FieldEmbedding(),
    numeric.EqualWidth(5),
    numeric.EqualFrequency(5),
    numeric.LogSquare(),
    numeric.TreeLeaves(5, trees=2),
    numeric.Powers(),
    numeric.BottomMLP((8, 2)),
  )
  def test_json_and_back(self, plan):
    values = plan.to_dict()
    self.assertEqual(numeric.from_dict(values), plan)
    field = fields_lib.FieldPlan('price', 'numeric', 4, numeric=plan)
    again = fields_lib.FieldPlan(**field.to_dict())
    self.assertEqual(again, field)
    # What goes without saying is not said: older files and runs stay valid.
    is_plain = plan == numeric.FieldEmbedding()
    self.assertEqual('numeric' in field.to_dict(), not is_plain)

  def test_a_numeric_field_has_an_embedding_and_a_categorical_one_none(self):
    field = fields_lib.FieldPlan('price', 'numeric', 4)
    self.assertEqual(field.numeric, numeric.FieldEmbedding())
    field = fields_lib.FieldPlan('city', 'categorical', 4, vocab_size=3)
    self.assertIsNone(field.numeric)
    self.assertNotIn('numeric', field.to_dict())

  @parameterized.parameters(
    (dict(kind='autodiss'), "No numeric embedding 'autodiss'.*'autodis'"),
    (dict(kind='efd', bucket=3), "no option 'bucket'.*buckets.*Did you mean"),
    (dict(kind='ld', buckets=3), "'ld' has no option 'buckets'; it has: none"),
    (dict(kind='autodis', buckets=0), 'buckets of AutoDis is 0; expected'),
    (dict(kind='autodis', buckets=True), 'buckets of AutoDis is True'),
    (dict(kind='autodis', form='C'), "form of AutoDis is 'C'; .* 'A', 'B'"),
    (dict(kind='autodis', temperature=0.0), 'temperature of AutoDis is 0.0'),
    (dict(kind='autodis', use_bias='no'), "use_bias of AutoDis is 'no'"),
    (
      dict(kind='autodis', aggregation='min'),
      'one of .average., .max., .top_k',
    ),
    (
      dict(kind='autodis', aggregation='top_k', buckets=2, top_k=3),
      'top_k of AutoDis is 3 of 2 buckets',
    ),
    (dict(kind='autodis', spread=0.1), 'the temperature is constant'),
    (
      dict(kind='autodis', adaptive=True, spread=2.0),
      'spread of AutoDis is 2.0; expected more than 0 and less than 0.1',
    ),
    (dict(kind='td', buckets=1), 'buckets of TD is 1; .* at least 2'),
    (dict(kind='mlp', hidden=()), 'a width in hidden of the bottom MLP is 0'),
  )
  def test_what_makes_no_sense_is_refused(self, options, message):
    with self.assertRaisesRegex(errors.ConfigError, message):
      numeric.make(**options)

  def test_fields_refuse_what_is_no_embedding_of_theirs(self):
    with self.assertRaisesRegex(errors.ConfigError, 'numeric.AutoDis()'):
      fields_lib.FieldPlan('price', 'numeric', 4, numeric='autodis')
    with self.assertRaisesRegex(errors.ConfigError, "Categorical field 'city'"):
      fields_lib.FieldPlan(
        'city', 'categorical', 4, vocab_size=3, numeric=numeric.AutoDis()
      )

  def test_products_need_vectors(self):
    fields = (
      fields_lib.FieldPlan('price', 'numeric', 4, numeric=numeric.Powers()),
      fields_lib.FieldPlan('age', 'numeric', 4, numeric=numeric.BottomMLP()),
    )
    fm = (interactions.FactorizationMachine(),)
    with self.assertRaisesRegex(errors.ConfigError, 'have no vectors to read'):
      arch_lib.Architecture(fields, fm, arch_lib.HeadPlan())
    # An MLP on the numbers themselves is well.
    head = arch_lib.HeadPlan(hidden=(4,))
    self.assertNotIn('main', arch_lib.Architecture(fields, (), head).views)


if __name__ == '__main__':
  absltest.main()
