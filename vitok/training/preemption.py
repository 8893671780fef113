"""SIGTERM: a flag that the training and evaluation loops poll.

In one process our own handler sets it. Under `jax.distributed` a signal may
reach one process only, and all must stop at the same step: there JAX's
preemption service owns the signal and agrees on a poll that no process has
passed yet.
"""

import signal
import threading

import jax
from jax.experimental import multihost_utils


class Preemption:
  """Says when to save and leave. A context manager: restores the handler.

  Every process must poll the same number of times in the same order, which
  a loop over steps and over calls of an evaluator's functions does: each is a
  computation of all processes.
  """

  def __init__(self):
    # Not a threading.Event: its lock would deadlock a handler that a second
    # signal interrupts.
    self._wanted = False
    self._distributed = jax.distributed.is_initialized()
    self._polls = 0
    self._previous = None

  def __enter__(self):
    # `signal.signal` works in the main thread only; elsewhere the embedding
    # program handles signals and may call `request`.
    if (not self._distributed
        and threading.current_thread() is threading.main_thread()):
      self._previous = signal.signal(
          signal.SIGTERM, lambda *_: self.request())
    return self

  def __exit__(self, *_):
    if self._previous is not None:
      signal.signal(signal.SIGTERM, self._previous)
      self._previous = None

  def request(self) -> None:
    """Asks for a stop, as the signal does (in one process)."""
    self._wanted = True

  def preempted(self) -> bool:
    """Whether to save and leave now; once true, true for good.

    Counted in polls rather than steps, so that a signal in the middle of an
    evaluation is seen there by all processes at the same batch.
    """
    self._polls += 1
    if self._distributed and not self._wanted:
      self._wanted = multihost_utils.reached_preemption_sync_point(self._polls)
    return self._wanted
