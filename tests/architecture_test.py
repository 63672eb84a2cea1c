import dataclasses
import itertools
import json
import pathlib
import subprocess
import sys
import tempfile

from absl.testing import absltest, parameterized

from jax_autorec import architecture as arch_lib
from jax_autorec import errors, spaces
from jax_autorec import fields as fields_lib
from jax_autorec import interactions as interactions_lib
from jax_autorec import schema as schema_lib


def _schema(vocab=5389, num_fields=10, numeric=0):
  sizes = [vocab // num_fields] * (num_fields - 1)
  sizes.append(vocab - sum(sizes))
  fields = [
    schema_lib.Field(f'c{i}', vocab_size=size) for i, size in enumerate(sizes)
  ]
  fields += [schema_lib.Field(f'n{i}', kind='numeric') for i in range(numeric)]
  return schema_lib.Schema(tuple(fields))


class ArchitectureTest(parameterized.TestCase):
  @parameterized.parameters(*spaces.MODELS)
  def test_json_round_trip(self, name):
    architecture = spaces.build(name, _schema(numeric=2))
    text = json.dumps(architecture.to_dict())
    self.assertEqual(
      arch_lib.Architecture.from_dict(json.loads(text)), architecture
    )

  def test_save_and_load(self):
    space = spaces.deepfm(_schema(), pairs='open', triples='open')
    with tempfile.TemporaryDirectory() as directory:
      space.save(directory)
      self.assertEqual(arch_lib.Architecture.load(directory), space)
      names = [p.name for p in pathlib.Path(directory).iterdir()]
      self.assertEqual(names, ['architecture.json'])

  def test_missing_or_broken_file_is_named(self):
    with tempfile.TemporaryDirectory() as directory:
      with self.assertRaisesRegex(errors.ConfigError, 'does not exist'):
        arch_lib.Architecture.load(directory)
      path = pathlib.Path(directory, 'architecture.json')
      path.write_text('{"fields": ')
      with self.assertRaisesRegex(errors.ConfigError, 'not JSON'):
        arch_lib.Architecture.load(directory)
      path.write_text('{"fields": []}')
      with self.assertRaisesRegex(errors.ConfigError, 'interactions'):
        arch_lib.Architecture.load(directory)

  def test_id_spaces_of_different_fields_differ(self):
    def space(*names):
      plans = [
        arch_lib.FieldPlan(name, 'categorical', 4, vocab_size=9)
        for name in names
      ]
      parts = tuple(fields_lib.Part(p, p.all_pieces[0]) for p in plans)
      return arch_lib.TablePlan('t', 'main', 4, parts).space

    self.assertNotEqual(space('a+b'), space('a', 'b'))

  def test_an_mlp_needs_an_input(self):
    architecture = spaces.wide_deep(_schema())
    head = dataclasses.replace(architecture.head, flat_embeddings=False)
    with self.assertRaisesRegex(errors.ConfigError, 'MLP has no input'):
      dataclasses.replace(architecture, head=head)

  def test_open_gates_make_it_open(self):
    self.assertTrue(spaces.fm(_schema(), pairs='open').is_open)
    self.assertFalse(spaces.fm(_schema(), pairs='all').is_open)
    self.assertFalse(spaces.deepfm(_schema()).is_open)

  def test_terms_are_in_combination_order(self):
    space = spaces.fm(_schema(), pairs='open', triples='open')
    names = [f'c{i}' for i in range(10)]
    self.assertEqual(
      space.interaction('pairs').terms,
      tuple(itertools.combinations(names, 2)),
    )
    self.assertLen(space.interaction('triples').terms, 120)

  def test_lr_has_no_vectors(self):
    lr = spaces.lr(_schema())
    self.assertEqual(lr.embedding_params, 5389)
    self.assertEqual(list(lr.views), ['first_order'])

  def test_embedding_params_of_unequal_dims(self):
    fm = spaces.fm(_schema(vocab=100, num_fields=4), dim=8)
    plans = [
      dataclasses.replace(plan, dim=dim)
      for plan, dim in zip(fm.fields, (2, 8, 2, 4))
    ]
    mixed = dataclasses.replace(fm, fields=tuple(plans))
    self.assertEqual(mixed.embedding_params, 25 * (2 + 8 + 2 + 4) + 100)
    self.assertEqual(mixed.projection_params, (2 + 2 + 4) * 8)
    self.assertEqual(mixed.vector_params, 25 * (2 + 8 + 2 + 4))
    self.assertEqual(
      mixed.vectors_total, 25 * (2 + 8 + 2 + 4) + (2 + 2 + 4) * 8
    )
    self.assertEqual(
      list(mixed.field_sizes.values()),
      [25 * 2 + 2 * 8, 25 * 8, 25 * 2 + 2 * 8, 25 * 4 + 4 * 8],
    )
    names = [table.name for table in mixed.tables]
    self.assertEqual(
      names, ['main_dim_2', 'main_dim_4', 'main_dim_8', 'first_order']
    )

  @parameterized.parameters(
    (dict(terms=(('c1', 'c0'),)), 'field order'),
    (dict(terms=(('c0', 'x'),)), 'not among'),
    (dict(terms=(('c0', 'c1'), ('c0', 'c1'))), 'repeat'),
    (dict(terms=(('c0', 'c1'), ('c0', 'c1', 'c2'))), 'all pairs'),
    (dict(terms=()), 'at least one'),
    (dict(terms=(('c0', 'c1'),), gates='ajar'), "'ajar'"),
    (dict(terms=(('c0', 'c1'),), to='head'), 'no MLP'),
    (dict(terms=(('c0', 'c1'),), initial_gates=(0.1, 0.2)), '2 initial'),
  )
  def test_bad_products_are_refused(self, products, message):
    fm = spaces.fm(_schema())
    with self.assertRaisesRegex(errors.ConfigError, message):
      dataclasses.replace(
        fm, interactions=(interactions_lib.Products('pairs', **products),)
      )

  def test_unknown_model_names_the_nearest(self):
    with self.assertRaisesRegex(errors.ConfigError, "mean 'deepfm'"):
      spaces.build('deepfn', _schema())

  def test_unfitted_schema_is_refused(self):
    schema = schema_lib.Schema((schema_lib.Field('a'), schema_lib.Field('b')))
    with self.assertRaisesRegex(errors.ConfigError, 'fitted schema'):
      spaces.fm(schema)

  def test_architectures_need_no_jax(self):
    code = (
      'import sys\n'
      'from jax_autorec import architecture, spaces\n'
      'sys.exit("jax" in sys.modules)'
    )
    self.assertEqual(subprocess.run([sys.executable, '-c', code]).returncode, 0)


if __name__ == '__main__':
  absltest.main()
