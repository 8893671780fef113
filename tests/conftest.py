"""Eight virtual CPU devices, and one cache of compiled programs for a session.

Workers and the programs that tests start share the cache, so that each program
is compiled once. A new session starts from an empty one.
"""

import os
import pathlib
import tempfile
from importlib import metadata

# Compiling is most of the time: without LLVM's optimisations it takes 0.6 of
# it, and 0.4 without the emitters of fusions, which trace each through MLIR.
# They change no program that a test reads, and the programs that tests start
# inherit the choice. A flag that an XLA does not know ends the process, so the
# second is for the version that was tried.
_FLAGS = ['--xla_backend_optimization_level=0']
if metadata.version('jaxlib') == '0.10.2':
  _FLAGS.append('--xla_cpu_use_fusion_emitters=false')
os.environ['XLA_FLAGS'] = ' '.join((os.environ.get('XLA_FLAGS', ''), *_FLAGS))
# By default what compiles within a second is not kept: most programs here.
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0')

import jax  # noqa: E402
import pytest  # noqa: E402
from absl import flags  # noqa: E402

jax.config.update('jax_platforms', 'cpu')
jax.config.update('jax_num_cpu_devices', 8)
if not flags.FLAGS.is_parsed():
  flags.FLAGS.mark_as_parsed()  # Grain's worker processes read them.


def pytest_configure(config):
  if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
    # Workers inherit it; it goes with the process that made it.
    config.compile_cache = tempfile.TemporaryDirectory(prefix='vitok-tests-')
    os.environ['JAX_COMPILATION_CACHE_DIR'] = config.compile_cache.name
  jax.config.update('jax_compilation_cache_dir',
                    os.environ['JAX_COMPILATION_CACHE_DIR'])


def pytest_collection_modifyitems(items):
  # Half a minute and more each: started last, one would be left to one worker.
  longest = ('tests/test_readme.py', 'tests/multiprocess',
             'tests/tools/test_kill_test.py', 'tests/tools/test_benchmark.py')
  items.sort(key=lambda item: not item.nodeid.startswith(longest))


@pytest.fixture(scope='session')
def root():
  """The checkout."""
  return pathlib.Path(__file__).parents[1]
