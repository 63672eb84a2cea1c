"""Eight fake CPU devices for all tests; no silent rank promotion.

Programs are compiled with few optimisations, and once for all processes of a
session: compiling is most of what these tests take, and none measures speed.
"""

import os
import tempfile

os.environ.setdefault('JAX_PLATFORMS', 'cpu')
_FLAGS = (
  '--xla_force_host_platform_device_count=8',
  '--xla_backend_optimization_level=0',
  '--xla_llvm_disable_expensive_passes=true',
)
for _flag in _FLAGS:
  if _flag not in os.environ.get('XLA_FLAGS', ''):
    os.environ['XLA_FLAGS'] = f'{os.environ.get("XLA_FLAGS", "")} {_flag}'
_TEMPORARY = tempfile.TemporaryDirectory(prefix='jax_autorec_tests_')
os.environ['TEST_TMPDIR'] = _TEMPORARY.name
# The first process's, which the others inherit.
os.environ.setdefault(
  'JAX_COMPILATION_CACHE_DIR', os.path.join(_TEMPORARY.name, 'programs')
)

from absl import flags  # noqa: E402
from absl.testing import absltest  # noqa: E402, F401  (defines flags)
import jax  # noqa: E402
import pytest  # noqa: E402

flags.FLAGS.mark_as_parsed()


@pytest.fixture(autouse=True)
def _no_silent_rank_promotion():
  with jax.numpy_rank_promotion('raise'):
    yield
