"""Runs one Python program as several processes that form one JAX system."""

import os
import pathlib
import socket
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).parents[2]

# Runs ahead of the program given: devices and the connection to the others,
# which miss a dead process after 15 s instead of 100.
_PRELUDE = '''
import functools, sys, jax
jax.distributed.initialize = functools.partial(
    jax.distributed.initialize, heartbeat_timeout_seconds=15)
jax.config.update('jax_platforms', 'cpu')
jax.config.update('jax_num_cpu_devices', int(sys.argv[1]))
from vitok.training import runtime
runtime.prepare(distributed=True)
'''


def run(program: str, *arguments: str, processes: int = 2, devices: int = 4,
        timeout: float = 400, check: bool = True
        ) -> list[subprocess.CompletedProcess]:
  """What became of each process, in order.

  Args:
    program: Python source; `jax.distributed` is initialised before it runs.
    *arguments: its `sys.argv[2:]`.
    processes: how many, on this machine.
    devices: CPU devices of each.
    timeout: seconds until all are killed.
    check: whether a failure raises.

  Raises:
    RuntimeError: a process failed; its error output is the message.
    subprocess.TimeoutExpired: one hangs.
  """
  with socket.socket() as free:
    free.bind(('localhost', 0))
    address = f'localhost:{free.getsockname()[1]}'
  environment = dict(
      os.environ, PYTHONPATH=str(ROOT), JAX_COORDINATOR_ADDRESS=address,
      JAX_NUM_PROCESSES=str(processes))
  started = [subprocess.Popen(
      [sys.executable, '-c', _PRELUDE + program, str(devices), *arguments],
      env=environment | {'JAX_PROCESS_ID': str(index)}, text=True,
      stdout=subprocess.PIPE, stderr=subprocess.PIPE)
      for index in range(processes)]
  deadline = time.monotonic() + timeout
  try:
    printed = [process.communicate(timeout=deadline - time.monotonic())
               for process in started]
  finally:
    for process in started:
      process.kill()  # One that failed would leave the others waiting.
  ended = [subprocess.CompletedProcess(process.args, process.returncode, *both)
           for process, both in zip(started, printed, strict=True)]
  if failed := [one.stderr for one in ended if check and one.returncode]:
    raise RuntimeError('\n'.join(error[-4000:] for error in failed))
  return ended
