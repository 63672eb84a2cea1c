from absl.testing import absltest, parameterized

from jax_autorec import errors
from jax_autorec import schema as schema_lib

_SCHEMA = schema_lib.Schema(
  (
    schema_lib.Field('user', vocab_size=9, default='nobody'),
    schema_lib.Field('price', 'numeric', default=1.5),
    schema_lib.Field('tags', vocab_size=7, max_length=3),
    schema_lib.Field('age', 'numeric'),
  ),
  label='clicked',
  weight='importance',
  group='user',
  time='day',
)


class SchemaTest(parameterized.TestCase):
  def test_fields_by_kind_keep_their_order(self):
    names = lambda fields: [field.name for field in fields]
    self.assertEqual(names(_SCHEMA.categorical), ['user', 'tags'])
    self.assertEqual(names(_SCHEMA.numeric), ['price', 'age'])
    self.assertEqual(_SCHEMA.num_id_columns, 4)
    self.assertEqual(_SCHEMA.field('tags').max_length, 3)

  def test_round_trip(self):
    again = schema_lib.Schema.from_dict(_SCHEMA.to_dict())
    self.assertEqual(again, _SCHEMA)

  @parameterized.parameters(
    ({'labels': 'clicked'}, 'labels'),
    ({'fields': [{'name': 'user', 'sort': 'numeric'}]}, 'sort'),
  )
  def test_dict_of_another_version(self, change, message):
    with self.assertRaisesRegex(errors.DataError, f'this version.*{message}'):
      schema_lib.Schema.from_dict(_SCHEMA.to_dict() | change)

  def test_dict_without_fields(self):
    with self.assertRaisesRegex(errors.DataError, 'this version.*fields'):
      schema_lib.Schema.from_dict({'label': 'clicked'})

  def test_unknown_field_lists_the_known(self):
    with self.assertRaisesRegex(errors.DataError, "'usr'.*user, price, tags"):
      _SCHEMA.field('usr')

  @parameterized.parameters(
    (dict(kind='categoric'), "'a' has kind 'categoric'"),
    (dict(max_length=0), "'a' has max_length 0"),
    (dict(kind='numeric', max_length=2), "'a' has max_length 2"),
  )
  def test_wrong_field(self, options, message):
    with self.assertRaisesRegex(errors.DataError, message):
      schema_lib.Field('a', **options)

  def test_fields_of_one_name(self):
    fields = tuple(map(schema_lib.Field, 'abcab'))
    with self.assertRaisesRegex(errors.DataError, 'twice: a, b'):
      schema_lib.Schema(fields)

  def test_label_among_the_inputs(self):
    with self.assertRaisesRegex(errors.DataError, "'clicked' is among"):
      schema_lib.Schema((schema_lib.Field('clicked'),), label='clicked')


if __name__ == '__main__':
  absltest.main()
