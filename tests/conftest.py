"""Eight fake CPU devices for all tests; no silent rank promotion."""

import os

os.environ.setdefault('JAX_PLATFORMS', 'cpu')
_FLAG = '--xla_force_host_platform_device_count=8'
if _FLAG not in os.environ.get('XLA_FLAGS', ''):
  os.environ['XLA_FLAGS'] = f'{os.environ.get("XLA_FLAGS", "")} {_FLAG}'

import jax  # noqa: E402
import pytest  # noqa: E402


@pytest.fixture(autouse=True)
def _no_silent_rank_promotion():
  with jax.numpy_rank_promotion('raise'):
    yield
