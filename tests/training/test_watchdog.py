"""A run that stands still says which process it waits for."""

import time

import jax

from vitok import files
from vitok.training import watchdog


def test_a_process_that_stands_still_is_named_with_what_it_does(tmp_path):
  said = []
  with watchdog.Watchdog(tmp_path, 0.2, lambda: (7, 'data'), said.append):
    deadline = time.monotonic() + 20
    while not said and time.monotonic() < deadline:
      time.sleep(0.05)
  assert 'at step 7' in said[0] and 'process 0' in said[0]
  assert 'in data' in said[0]


def test_the_last_to_move_is_the_lowest_step_not_waiting_for_others(
    tmp_path, monkeypatch):
  monkeypatch.setattr(jax, 'process_count', lambda: 3)
  dog = watchdog.Watchdog(tmp_path, 1.0, lambda: (9, 'step'), print)
  for number, (step, bucket) in enumerate(
      [(9, 'step'), (9, 'data'), (9, 'step')]):
    dog._number = number
    dog._beat(step, bucket)
  assert 'process 1' in dog.diagnosis()
  dog._number = 2
  dog._beat(8, 'step')
  assert 'process 2' in dog.diagnosis()


def test_processes_of_an_earlier_larger_session_are_not_named(
    tmp_path, monkeypatch):
  dog = watchdog.Watchdog(tmp_path, 1.0, lambda: (9, 'step'), print)
  for number, step in enumerate((9, 8, 3)):
    dog._number = number
    dog._beat(step, 'step')
  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  assert 'process 1' in dog.diagnosis()


def test_a_process_without_a_heartbeat_is_the_one_behind(
    tmp_path, monkeypatch):
  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  dog = watchdog.Watchdog(tmp_path, 1.0, lambda: (9, 'step'), print)
  dog._beat(9, 'step')
  assert 'no heartbeat of process 1' in dog.diagnosis()


def test_a_full_disk_does_not_end_the_watch(tmp_path, monkeypatch, caplog):
  def full(*_):
    raise OSError(28, 'No space left on device')
  monkeypatch.setattr(files, 'write_text', full)
  said = []
  with watchdog.Watchdog(tmp_path, 0.2, lambda: (7, 'data'), said.append):
    deadline = time.monotonic() + 20
    while len(said) < 2 and time.monotonic() < deadline:
      time.sleep(0.05)
  assert len(said) > 1 and 'no step for 0 s at step 7' in said[0]
  assert 'No space left' in caplog.text


def test_zero_seconds_watch_nothing(tmp_path):
  with watchdog.Watchdog(tmp_path, 0, lambda: (0, 'step'), print) as dog:
    assert not dog._thread.is_alive()
