"""SIGTERM becomes a flag that loops poll, and nothing else."""

import os
import signal
import threading

from vitok.training import preemption


def test_a_signal_is_seen_by_the_next_poll_and_stays():
  with preemption.Preemption() as stop:
    assert not stop.preempted()
    os.kill(os.getpid(), signal.SIGTERM)
    assert stop.preempted() and stop.preempted()


def test_the_former_handler_comes_back():
  before = signal.getsignal(signal.SIGTERM)
  with preemption.Preemption():
    assert signal.getsignal(signal.SIGTERM) is not before
  assert signal.getsignal(signal.SIGTERM) is before


def test_a_thread_other_than_the_main_one_leaves_signals_alone():
  before, seen = signal.getsignal(signal.SIGTERM), []

  def work():
    with preemption.Preemption() as stop:
      seen.append(signal.getsignal(signal.SIGTERM))
      stop.request()
      seen.append(stop.preempted())

  thread = threading.Thread(target=work)
  thread.start()
  thread.join()
  assert seen == [before, True]
