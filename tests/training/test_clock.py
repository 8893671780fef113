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


def test_time_of_earlier_sessions_is_added():
  clock = clock_lib.Clock()
  clock.resume({'step': 100.0, 'eval': 3.0})
  assert clock.read()['step'] >= 100 and clock.read()['eval'] == 3


def test_the_bucket_is_written_where_asked(tmp_path, monkeypatch):
  monkeypatch.setenv('VITOK_PHASE_FILE', str(tmp_path / 'phase'))
  clock = clock_lib.Clock()
  clock.enter('compile')
  assert (tmp_path / 'phase').read_text() == 'compile'
