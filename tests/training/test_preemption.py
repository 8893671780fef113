"""SIGTERM becomes a flag that loops poll, and nothing else."""

import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest

from tests import runs
from vitok.interop import saved
from vitok.training import preemption

ROOT = pathlib.Path(__file__).parents[2]


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


def test_a_second_signal_inside_the_handler_of_the_first_does_no_harm():
  def hung(*_):
    raise TimeoutError('a handler waits for itself')

  def again(*_):  # At each call and return inside the handler.
    if inside and len(sent) < 40:
      sent.append(signal.SIGTERM)
      signal.raise_signal(signal.SIGTERM)

  inside, sent = [], []
  before = signal.signal(signal.SIGALRM, hung)
  try:
    with preemption.Preemption() as stop:
      handler = signal.getsignal(signal.SIGTERM)
      signal.setitimer(signal.ITIMER_REAL, 5)
      inside.append(True)
      sys.setprofile(again)
      handler(signal.SIGTERM, None)
      sys.setprofile(None)
      assert sent and stop.preempted()
  finally:
    sys.setprofile(None)
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def stop_in(workdir, bucket, visit):
  """Sends SIGTERM to a real run in a phase; returns its exit code."""
  phase_file = workdir.with_suffix('.phase')
  phase_file.unlink(missing_ok=True)
  process = subprocess.Popen(
      [sys.executable, '-m', 'vitok.train', '--config=configs/vitok.py:A-A/8',
       f'--workdir={workdir}', *runs.flags({
           'evaluation.batch_size': 8, 'evaluation.count': 800,
           'checkpoint.every': 1000})],
      cwd=ROOT, env=dict(os.environ, JAX_PLATFORMS='cpu',
                         VITOK_PHASE_FILE=str(phase_file)))
  try:
    before, deadline = None, time.monotonic() + 200
    while visit and time.monotonic() < deadline and process.poll() is None:
      phase = phase_file.read_text() if phase_file.exists() else None
      visit -= phase != before and phase == bucket
      before = phase
      time.sleep(0.002)
    process.send_signal(signal.SIGTERM)
    return process.wait(200)
  finally:
    process.kill()


@pytest.fixture(scope='module')
def stopped(tmp_path_factory):
  """Two SIGTERMs to one run: its workdir and {phase: (exit code, saved)}."""
  workdir, found = tmp_path_factory.mktemp('stopped') / 'run', {}
  for bucket, visit in (('compile', 1), ('eval', 2)):
    code = stop_in(workdir, bucket, visit)
    found[bucket] = code, saved.restore_params(workdir)[2]
  return workdir, found


def test_a_real_signal_while_compiling_saves_and_exits_with_0(stopped):
  assert stopped[1]['compile'] == (0, 0)


def test_a_real_signal_while_evaluating_saves_and_exits_with_0(stopped):
  workdir, found = stopped
  assert found['eval'] == (0, 4)
  # Line 4 comes with its evaluation, which is due again.
  assert [line['step'] for line in runs.lines(workdir)] == [0, 2]
