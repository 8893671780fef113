"""Where the wall-clock of a run goes, across restarts."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator

from vitok import files

BUCKETS = ('start', 'compile', 'step', 'data', 'eval', 'checkpoint', 'report')


class Clock:
  """Seconds by bucket; each moment belongs to exactly one.

  `step` is what no other bucket claims while the loop runs: the host waits
  there for the device. The totals are saved with a checkpoint, so that the
  cost of a run survives its restarts.

  Where the environment variable VITOK_PHASE_FILE names a file, it holds the
  present bucket: a program that kills runs on purpose reads it. A run waits at
  the door of a bucket while a file of that name and `.hold-<bucket>` exists.
  """

  def __init__(self):
    self.seconds = dict.fromkeys(BUCKETS, 0.0)
    self.bucket, self._since = 'start', time.monotonic()
    self._phase_file = os.environ.get('VITOK_PHASE_FILE')

  def enter(self, bucket: str) -> str:
    """Charges the time so far, starts `bucket`, returns the one before."""
    now, before = time.monotonic(), self.bucket
    self.seconds[before] += now - self._since
    self.bucket, self._since = bucket, now
    if self._phase_file and bucket != before:
      files.write_text(self._phase_file, bucket)
      while os.path.exists(f'{self._phase_file}.hold-{bucket}'):
        time.sleep(0.001)
    return before

  @contextlib.contextmanager
  def at(self, bucket: str,
         hidden: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Charges what happens inside to `bucket`.

    Args:
      bucket: one of `BUCKETS`.
      hidden: asked at the end: did the device compute all the while? Then
        nothing was lost, and the time stays with the bucket around this one.
    """
    before = self.enter(bucket)
    try:
      yield
    finally:
      if hidden():
        self.bucket = before
      self.enter(before)

  def read(self) -> dict[str, float]:
    """Seconds by bucket until now."""
    self.enter(self.bucket)
    return dict(self.seconds)

  def resume(self, seconds: dict[str, float]):
    """Adds what earlier sessions of the run have spent."""
    for bucket, spent in seconds.items():
      self.seconds[bucket] += spent
