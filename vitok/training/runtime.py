"""What a process sets up once before it trains or evaluates."""

import faulthandler
import os
import pathlib
import signal
import sys

import jax
from absl import flags
from absl import logging as absl_logging

from vitok import errors


def prepare(distributed: bool = False):
  """Makes this process ready; starts no backend unless it is distributed.

  SIGUSR1 prints the stack of every thread. Compiled programs are kept in
  JAX_COMPILATION_CACHE_DIR, by default `~/.cache/vitok/jax`.

  Args:
    distributed: whether to join the other processes of the job, which JAX
      finds by itself (TPU pods, SLURM, Open MPI, Kubernetes) or through
      JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID.

  Raises:
    errors.InputError: neither tells of the other processes.
  """
  if hasattr(signal, 'SIGUSR1') and sys.__stderr__ is not None:
    faulthandler.register(signal.SIGUSR1, sys.__stderr__, all_threads=True)
  absl_logging.use_absl_handler()
  absl_logging.set_verbosity(absl_logging.WARNING)  # Orbax tells each rename.
  if not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()  # Grain's worker processes read them.
  if not os.environ.get('JAX_COMPILATION_CACHE_DIR'):
    cache = pathlib.Path.home() / '.cache' / 'vitok' / 'jax'
    jax.config.update('jax_compilation_cache_dir', str(cache))
  if distributed:
    address = os.environ.get('JAX_COORDINATOR_ADDRESS')
    count = os.environ.get('JAX_NUM_PROCESSES')
    number = os.environ.get('JAX_PROCESS_ID')
    try:
      jax.distributed.initialize(
          address, count and int(count), number and int(number))
    except ValueError as error:
      raise errors.InputError(
          '--distributed', None, f'finds no other process: {error}',
          'leave it out, or set JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES '
          'and JAX_PROCESS_ID') from error
    sys.excepthook = _leave


def _leave(*error):
  """An uncaught exception ends this process at once, as a crash would.

  At an orderly exit JAX waits for the other processes, and these wait for this
  one in a collective. When it is gone the coordination service ends them.
  """
  sys.__excepthook__(*error)
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(1)
