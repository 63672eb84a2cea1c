import ast
import collections
import fnmatch
import os
import pathlib
import subprocess
import sys
import types
from unittest import mock

from absl.testing import absltest

import jax_autorec

_ROOT = pathlib.Path(__file__).parents[1]
_PACKAGE = _ROOT / 'jax_autorec'

# What a package may import of the others; a name above may know those below.
_LAYERS = (
  {'__init__'},
  {'pipeline', 'streaming'},
  {'search'},
  {'train'},
  {'data', 'nn', 'optim', 'report'},
  {
    'field_spaces',
    'group_spaces',
    'head_spaces',
    'numeric_spaces',
    'quantization',
    'sizes',
    'spaces',
  },
  {'architecture'},
  {'choices', 'interactions'},
  {'fields'},
  {'numeric'},
  {'comparison', 'metrics', 'rows'},
  {'schema', 'types'},
  {'errors', 'files'},
)

_BLOCKED = """
import sys

class Absent:
  def find_spec(self, name, path=None, target=None):
    if name.partition('.')[0] in {absent!r}:
      raise ModuleNotFoundError(f'No module named {{name!r}}', name=name)

sys.meta_path.insert(0, Absent())
"""


def _python(code, absent):
  """Runs code in a fresh interpreter that lacks some packages."""
  done = subprocess.run(
    [sys.executable, '-c', _BLOCKED.format(absent=absent) + code],
    capture_output=True,
    text=True,
    check=False,
    cwd=_ROOT,
    env=os.environ | {'JAX_PLATFORMS': 'cpu'},
  )
  if done.returncode:
    raise AssertionError(done.stderr)
  return done.stdout


def _imports():
  """(importing module, imported module) within the package, as paths."""
  for path in sorted(_PACKAGE.rglob('*.py')):
    module = path.relative_to(_ROOT).with_suffix('').parts[1:]
    for node in ast.walk(ast.parse(path.read_text('utf-8'))):
      if isinstance(node, ast.ImportFrom) and node.module:
        names = [f'{node.module}.{alias.name}' for alias in node.names]
      elif isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
      else:
        continue
      for name in names:
        if name.partition('.')[0] == 'jax_autorec':
          yield module, tuple(name.split('.')[1:])


class ImportTest(absltest.TestCase):
  def test_the_package_imports_without_any_requirement(self):
    # Quick, since nothing is imported; timing it would only measure machines.
    loaded = _python(
      'import jax_autorec, sys; print(*sys.modules)',
      ('jax', 'flax', 'numpy', 'absl', 'matplotlib', 'tensorflow_datasets'),
    ).split()
    ours = [name for name in loaded if name.startswith('jax_autorec')]
    self.assertEqual(ours, ['jax_autorec'])

  def test_the_road_runs_without_heavy_or_optional_packages(self):
    absent = (
      'tensorflow',
      'tensorflow_datasets',
      'tensorboardX',
      'matplotlib',
      'jinja2',
      'pandas',
      'sklearn',
      'lightgbm',
    )
    code = """
import jax_autorec as jar
for name in jar.__all__:
  assert getattr(jar, name).__name__.endswith(name), name
data = jar.data.load('planted').head(4000)
space = jar.spaces.fm(data.schema, dim=4, pairs='open')
settings = jar.Settings(epochs=1, batch_size=500, table_std=.1)
gates = jar.optim.grda(1.0, c=1e-6, mu=.5)
found = jar.run_search(
  space, {'interactions': jar.search.autofis(gates)}, data, settings)
model = jar.retrain(jar.derive(found), data, settings)
print(jar.evaluate(model, data.test)['auc'])
"""
    self.assertBetween(float(_python(code, absent)), 0, 1)

  def test_modules_serve_alone(self):
    code = """
import jax_autorec as jar
print(jar.nn.blocks.MLP((4,)).norm, jar.train.loop.Stopping().patience)
"""
    self.assertEqual(_python(code, ()).split(), ['none', '2'])
    for package in (jax_autorec.nn, jax_autorec.train):
      folder = pathlib.Path(package.__file__).parent
      modules = {path.stem for path in folder.glob('*.py')} - {'__init__'}
      self.assertSameElements(package.__all__, modules)

  def test_unknown_names_are_refused(self):
    with self.assertRaisesRegex(AttributeError, 'no attribute .autofiss'):
      jax_autorec.autofiss  # noqa: B018
    self.assertContainsSubset(jax_autorec.__all__, dir(jax_autorec))

  def test_imports_point_one_way(self):
    level = {name: i for i, names in enumerate(_LAYERS) for name in names}
    found = collections.defaultdict(set)
    for source, target in _imports():
      if source[0] != target[0]:
        found[source[0]].add(target[0])
    self.assertIn('nn', found)
    for source, targets in found.items():
      for target in targets:
        self.assertLess(level[source], level[target], f'{source} -> {target}')

  def test_one_method_does_not_import_another(self):
    shared = {'base', 'online', 'supernet', 'controls', 'patterns', 'rewards'}
    shared |= {'unroll', 'engines', 'genomes', '__init__'}
    between = {
      (source[1], target[1])
      for source, target in _imports()
      if source[0] == target[0] == 'search' and len(target) > 1
    }
    self.assertNotEmpty(between)
    for source, target in between:
      if source not in shared:
        self.assertIn(target, shared, f'{source} -> {target}')

  def test_plain_data_do_not_import_jax(self):
    _python(
      'from jax_autorec import architecture, choices, errors, fields, schema\n'
      'from jax_autorec import field_spaces, group_spaces, interactions\n'
      'from jax_autorec import numeric, numeric_spaces, quantization\n'
      'from jax_autorec import sizes, spaces',
      ('jax', 'flax'),
    )


def _find_packages(include):
  """What setuptools finds under the root."""
  places = (path.parent for path in _ROOT.glob('[a-z]*/**/__init__.py'))
  names = ('.'.join(place.relative_to(_ROOT).parts) for place in places)
  return [n for n in names if any(fnmatch.fnmatch(n, p) for p in include)]


class SetupTest(absltest.TestCase):
  def test_only_the_package_is_installed(self):
    given = {}
    # A fresh environment of Python 3.12 has no setuptools.
    stand_in = types.SimpleNamespace(
      setup=given.update, find_packages=_find_packages
    )
    source = (_ROOT / 'setup.py').read_text('utf-8')
    with mock.patch.dict(sys.modules, setuptools=stand_in):
      exec(source, {'__file__': str(_ROOT / 'setup.py')})
    packages = given['packages']
    for path in _PACKAGE.rglob('*.py'):
      name = '.'.join(path.parent.relative_to(_ROOT).parts)
      self.assertIn(name, packages)
    self.assertEqual({name.split('.')[0] for name in packages}, {'jax_autorec'})
    for path in _PACKAGE.rglob('*'):
      if path.suffix in ('.html', '.md'):
        patterns = given['package_data']['jax_autorec']
        inside = path.relative_to(_PACKAGE)
        self.assertTrue(any(inside.match(p) for p in patterns), inside)


if __name__ == '__main__':
  absltest.main()
