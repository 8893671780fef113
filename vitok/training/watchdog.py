"""Names the process that holds up the others.

In a job of several processes one that is stuck (a slow disk, a dead link)
stops all of them inside a collective, without a word. Each process leaves a
heartbeat in `<workdir>/heartbeats`; when a run makes no step for a while, all
print the stacks of their threads, and the first names who is behind and in
which bucket of the clock.
"""

import faulthandler
import json
import socket
import sys
import threading
import time
from collections.abc import Callable

import jax
from absl import logging
from etils import epath

from vitok import files


class Watchdog:
  """Watches one process; a context manager around its loop.

  Args:
    workdir: of the run, shared by all processes.
    seconds: without a step before the alarm; 0 watches nothing.
    where: returns (step, clock bucket) of this process.
    say: receives the alarm.
  """

  def __init__(self, workdir: epath.Path, seconds: float,
               where: Callable[[], tuple[int, str]],
               say: Callable[[str], None]):
    self._folder = epath.Path(workdir) / 'heartbeats'
    self._seconds, self._where, self._say = seconds, where, say
    self._number = jax.process_index()
    self._stop = threading.Event()
    self._thread = threading.Thread(
        target=self._watch, name='watchdog', daemon=True)

  def __enter__(self):
    if self._seconds:
      self._thread.start()
    return self

  def __exit__(self, *_):
    self._stop.set()

  def _watch(self):
    self._try(self._path(self._number).unlink, missing_ok=True)
    seen, since = None, time.monotonic()
    while not self._stop.wait(self._seconds / 10):
      step, bucket = self._where()
      if step != seen:
        seen, since = step, time.monotonic()
        self._try(self._beat, step, bucket)
      elif time.monotonic() - since > self._seconds:
        faulthandler.dump_traceback(sys.__stderr__, all_threads=True)
        self._try(self._beat, step, bucket)
        if self._number == 0:
          self._say(self._try(self.diagnosis)
                    or f'no step for {self._seconds:.0f} s at step {step}')
        since = time.monotonic()

  def _try(self, call, *arguments, **options):
    """The call's value; None if the file system failed, which is logged.

    A full disk is no reason to stop watching.
    """
    try:
      return call(*arguments, **options)
    except OSError as error:
      logging.warning('heartbeats in %s: %s', self._folder, error)
      return None

  def _beat(self, step, bucket):
    files.write_text(self._path(self._number), json.dumps({
        'process': self._number, 'host': socket.gethostname(), 'step': step,
        'bucket': bucket}))

  def _path(self, number):
    return self._folder / f'{number}.json'

  def diagnosis(self) -> str:
    """One line: who is behind. Processes wait for one that has not beaten, or
    for the lowest step, and among equals for one that is not itself waiting
    in `step`. Files of more processes are of an earlier session."""
    alarm = f'no step for {self._seconds:.0f} s at step {self._where()[0]}; '
    paths = [self._path(number) for number in range(jax.process_count())]
    silent = [number for number, path in enumerate(paths)
              if not path.exists()]
    if silent:
      return f'{alarm}no heartbeat of process {silent[0]}'
    late = min((json.loads(path.read_text()) for path in paths),
               key=lambda beat: (beat['step'], beat['bucket'] == 'step',
                                 beat['process']))
    return (f'{alarm}last to move: process {late["process"]} on '
            f'{late["host"]}, step {late["step"]}, in {late["bucket"]}')
