"""What a training program does to its process before any heavy import."""

import os
import signal
import sys
from collections.abc import Callable

# XLA's CPU backend allocates a step's temporaries anew at each step. By default
# glibc maps them from the kernel and returns them at once, so each page is
# faulted in and zeroed every step: a quarter of the time of a small model.
# Kept on the heap they are touched once. (Huge pages as well made S-B/16 slower
# by a quarter where other large arrays come and go.)
_MALLOC = ':'.join((
    f'glibc.malloc.mmap_threshold={2**32}',
    f'glibc.malloc.trim_threshold={2**32}',
))


def start():
  """Call first in `__main__`.

  Until a trainer listens, SIGTERM ends the process with exit code 0: there is
  nothing to save. On Linux the program starts itself once more, with the same
  process number, to tune the allocator, unless GLIBC_TUNABLES is set.
  """
  if sys.platform == 'linux' and 'GLIBC_TUNABLES' not in os.environ:
    os.environ['GLIBC_TUNABLES'] = _MALLOC
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
  signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))


def run(main: Callable[[], int | None]):
  """Runs `main` and ends the process without the interpreter's own end.

  Everything is on disk when `main` returns. A native thread that still calls
  back into Python (a buffer's release, a batch that nobody took) while the
  interpreter is being torn down aborts the process, and a run that ended well
  would report exit code -6.
  """
  try:
    code = main() or 0
  except SystemExit as stop:
    code = stop.code or 0
  sys.stdout.flush()
  sys.stderr.flush()
  jax = sys.modules.get('jax')
  if code == 0 and jax is not None and jax.distributed.is_initialized():
    jax.distributed.shutdown()  # Waits for the other processes' good end.
  os._exit(code)
