"""The log keeps whole lines, each step once, and progress says what is left."""

import json

import pytest

from vitok import errors
from vitok.training import writers


def test_a_step_is_never_logged_twice(tmp_path):
  log = writers.MetricLog(tmp_path)
  log.write(1, {'a': 1.0})
  with pytest.raises(ValueError, match='step 1 after step 1'):
    log.write(1, {'a': 2.0})


def test_lines_survive_reopening_and_later_ones_are_dropped(tmp_path):
  log = writers.MetricLog(tmp_path)
  for step in (0, 5, 10):
    log.write(step, {'x': step / 3})
  log.flush()
  log = writers.MetricLog(tmp_path)
  log.drop_after(5)
  read = [json.loads(line)
          for line in (tmp_path / 'metrics.jsonl').read_text().splitlines()]
  assert read == [{'step': 0, 'x': 0.0}, {'step': 5, 'x': 5 / 3}]


def test_a_last_line_that_was_cut_off_is_dropped(tmp_path):
  path = tmp_path / 'metrics.jsonl'
  path.write_bytes(b'{"step": 0}\n{"step": 5, "x": "\xc3')
  log = writers.MetricLog(tmp_path)
  log.drop_after(5)
  assert path.read_text() == '{"step": 0}\n'


def test_another_line_that_is_none_is_refused_by_its_number(tmp_path):
  (tmp_path / 'metrics.jsonl').write_text('{"step": 0}\n{"st\n{"step": 9}\n')
  with pytest.raises(errors.InputError, match='metrics.jsonl: line 2 of 3'):
    writers.MetricLog(tmp_path)


def test_only_the_process_that_writes_touches_the_file(tmp_path):
  log = writers.MetricLog(tmp_path, writes=False)
  log.write(0, {'x': 1.0})
  log.flush()
  assert not (tmp_path / 'metrics.jsonl').exists() and len(log.lines) == 1


def test_progress_tells_rate_time_left_and_cost():
  said = []
  progress = writers.Progress(100, 32, 1e9, 2, 'unit: ', said.append)
  buckets = dict(start=0.0, compile=10.0, step=0.0, data=0.0, eval=0.0)
  progress(0, {}, buckets)
  progress._shown_at = -10
  progress(50, {'train/loss': 0.5}, buckets | dict(step=20.0, data=5.0))
  assert said[-1].startswith('unit: step 50/100, loss 0.50000')
  assert '64 examples/s' in said[-1] and '25s left' in said[-1]
  assert '5e+10 FLOP' in said[-1] and '0.019 device-hours' in said[-1]


@pytest.mark.parametrize('seconds, text', [
    (9.6, '10s'), (61, '1m01s'), (3725, '1h02m')])
def test_duration(seconds, text):
  assert writers.duration(seconds) == text
