"""Eight fake CPU devices for all tests; no silent rank promotion."""

import os
import tempfile

os.environ.setdefault('JAX_PLATFORMS', 'cpu')
_FLAG = '--xla_force_host_platform_device_count=8'
if _FLAG not in os.environ.get('XLA_FLAGS', ''):
  os.environ['XLA_FLAGS'] = f'{os.environ.get("XLA_FLAGS", "")} {_FLAG}'
_TEMPORARY = tempfile.TemporaryDirectory(prefix='jax_autorec_tests_')
os.environ['TEST_TMPDIR'] = _TEMPORARY.name

from absl import flags  # noqa: E402
from absl.testing import absltest  # noqa: E402, F401  (defines flags)
import jax  # noqa: E402
import pytest  # noqa: E402

flags.FLAGS.mark_as_parsed()


@pytest.fixture(autouse=True)
def _no_silent_rank_promotion():
  with jax.numpy_rank_promotion('raise'):
    yield
