"""Runs one Python program as several processes that form one JAX system."""

import os
import pathlib
import socket
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]

# Runs ahead of the program given: devices and the connection to the others.
_PRELUDE = '''
import sys, jax
address, count, index, devices = sys.argv[1:5]
jax.config.update('jax_platforms', 'cpu')
jax.config.update('jax_num_cpu_devices', int(devices))
jax.distributed.initialize(address, int(count), int(index),
                           initialization_timeout=120)
'''


def run(program: str, processes: int = 2, devices: int = 4,
        timeout: float = 400) -> list[str]:
  """What each process printed.

  Args:
    program: Python source; `jax.distributed` is initialised before it runs.
    processes: how many, on this machine.
    devices: CPU devices of each.
    timeout: seconds until all are killed.

  Raises:
    RuntimeError: a process failed; its error output is the message.
  """
  with socket.socket() as free:
    free.bind(('localhost', 0))
    address = f'localhost:{free.getsockname()[1]}'
  environment = dict(os.environ, PYTHONPATH=str(ROOT))
  environment.pop('XLA_FLAGS', None)
  started = [subprocess.Popen(
      [sys.executable, '-c', _PRELUDE + program, address, str(processes),
       str(index), str(devices)], env=environment, text=True,
      stdout=subprocess.PIPE, stderr=subprocess.PIPE)
      for index in range(processes)]
  try:
    printed = [process.communicate(timeout=timeout) for process in started]
  finally:
    for process in started:
      process.kill()  # One that failed would leave the others waiting.
  for process, (_, error) in zip(started, printed, strict=True):
    if process.returncode:
      raise RuntimeError(error[-4000:])
  return [out for out, _ in printed]
