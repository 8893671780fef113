"""Each moment of a run is charged to one bucket."""

import time

from vitok.training import clock as clock_lib


def test_nested_buckets_share_no_time():
  clock = clock_lib.Clock()
  clock.enter('step')
  with clock.at('eval'):
    time.sleep(0.05)
    with clock.at('data'):
      time.sleep(0.03)
  seconds = clock.read()
  assert 0.05 <= seconds['eval'] < 0.2 and 0.03 <= seconds['data'] < 0.2
  assert clock.bucket == 'step'


def test_time_that_the_device_hides_stays_with_the_bucket_around():
  clock = clock_lib.Clock()
  clock.enter('step')
  with clock.at('data', hidden=lambda: True):
    time.sleep(0.03)
  with clock.at('data', hidden=lambda: False):
    time.sleep(0.01)
  seconds = clock.read()
  assert seconds['step'] >= 0.03 and 0.01 <= seconds['data'] < 0.03


def test_time_of_earlier_sessions_is_added():
  clock = clock_lib.Clock()
  clock.resume({'step': 100.0, 'eval': 3.0})
  assert clock.read()['step'] >= 100 and clock.read()['eval'] == 3


def test_the_bucket_is_written_where_asked(tmp_path, monkeypatch):
  monkeypatch.setenv('VITOK_PHASE_FILE', str(tmp_path / 'phase'))
  clock = clock_lib.Clock()
  clock.enter('compile')
  assert (tmp_path / 'phase').read_text() == 'compile'

def test_a_run_waits_at_the_door_of_a_bucket_that_is_held(
    tmp_path, monkeypatch):
  monkeypatch.setenv('VITOK_PHASE_FILE', str(tmp_path / 'phase'))
  hold = tmp_path / 'phase.hold-report'
  hold.touch()
  waits = []
  monkeypatch.setattr(
      time, 'sleep', lambda _: (waits.append(1), hold.unlink()))
  clock_lib.Clock().enter('compile')
  assert not waits
  clock_lib.Clock().enter('report')
  assert waits == [1]
