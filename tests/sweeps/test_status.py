import json
import os
import pathlib

import pytest

from vitok import errors, sweeps
from vitok.sweeps import status

TINY = str(pathlib.Path(__file__).with_name('tiny.py'))
NOW = 1_000_000.0


@pytest.fixture
def experiment():
  return sweeps.load(TINY + ':gpu1')


def write(folder, lines=(), age=0.0, **files):
  folder.mkdir(parents=True)
  path = folder / 'metrics.jsonl'
  path.write_text(''.join(json.dumps(line) + '\n' for line in lines))
  os.utime(path, (NOW - age, NOW - age))
  for name, value in files.items():
    (folder / name).write_text(json.dumps(value))


def read(experiment, workdir):
  return status.read(experiment, workdir, now=NOW)


LINES = [
    {'step': 0, 'eval/psnr': 10.0, 'clock/compile': 5.0},
    {'step': 1, 'train/loss': 0.5, 'clock/compile': 9.0, 'clock/step': 1.0},
    {'step': 2, 'train/loss': 0.4, 'clock/compile': 9.0, 'clock/step': 3.0},
]


def test_a_sweep_that_does_not_exist_is_pending(experiment, tmp_path):
  states = read(experiment, tmp_path / 'none')
  assert [(s.state, s.step, s.steps) for s in states] == [
      ('pending', 0, 4)] * 3


def test_a_running_unit_has_step_loss_and_time_left(experiment, tmp_path):
  write(tmp_path / 'p8c4-seed0', LINES)
  state = read(experiment, tmp_path)[0]
  assert (state.state, state.step) == ('running', 2)
  assert (state.loss, state.psnr) == (0.4, 10.0)
  # Two steps are left, at two seconds a step; compiling is over.
  assert state.eta == 4.0


def test_a_silent_unit_is_pending_with_its_step(experiment, tmp_path):
  write(tmp_path / 'p8c4-seed0', LINES, age=3600)
  state = read(experiment, tmp_path)[0]
  assert (state.state, state.step, state.eta) == ('pending', 2, None)


def test_done_and_failed_are_what_the_files_say(experiment, tmp_path):
  write(tmp_path / 'p8c4-seed0', LINES, DONE={})
  write(tmp_path / 'p8c4-seed1', LINES, FAILED={
      'error': 'OSError: full', 'failures': 3})
  done, failed, pending = read(experiment, tmp_path)
  assert (done.state, done.eta) == ('done', 0.0)
  assert (failed.state, failed.error) == ('failed', 'OSError: full')
  assert done.ended and failed.ended and not pending.ended
  assert pending.state == 'pending'


def test_a_failed_unit_that_runs_again_is_running(experiment, tmp_path):
  write(tmp_path / 'p8c4-seed0', LINES, FAILED={'error': '', 'failures': 1})
  failed = tmp_path / 'p8c4-seed0' / 'FAILED'
  os.utime(failed, (NOW - 9, NOW - 9))
  assert read(experiment, tmp_path)[0].state == 'running'


def test_a_unit_may_fail_a_few_times(experiment, tmp_path):
  for unit, failures in (('p8c4-seed0', 2), ('p8c4-seed1', status.TRIES)):
    write(tmp_path / unit, FAILED={'error': '', 'failures': failures})
  assert [one.ended for one in read(experiment, tmp_path)] == [
      False, True, False]


def test_a_unit_shares_the_fate_of_the_one_it_is_after(tmp_path):
  chain = sweeps.load(str(pathlib.Path(__file__).with_name('chain.py')))
  write(tmp_path / 'p8c8-seed0', LINES, DONE={})
  states = read(chain, tmp_path)[2:]
  assert [(one.state, one.waits, one.ended) for one in states] == [
      ('pending', True, False)] * 2
  assert [one.error for one in states] == [
      'is after p8c4-seed0, which is not done',
      'is after next, which is not done']
  write(tmp_path / 'p8c4-seed0', FAILED={'error': '', 'failures': 3})
  assert [(one.state, one.ended) for one in read(chain, tmp_path)[2:]] == [
      ('failed', True)] * 2
  write(tmp_path / 'next', LINES, DONE={})  # It was done before that.
  assert [one.state for one in read(chain, tmp_path)[2:]] == [
      'done', 'pending']
  assert not read(chain, tmp_path)[3].waits


def test_a_line_cut_short_is_left_out(experiment, tmp_path):
  write(tmp_path / 'p8c4-seed0', LINES)
  path = tmp_path / 'p8c4-seed0' / 'metrics.jsonl'
  path.write_text(path.read_text() + '{"step": 3, "tra')
  os.utime(path, (NOW, NOW))
  assert read(experiment, tmp_path)[0].step == 2


def test_only_the_units_asked_for(experiment, tmp_path):
  assert [s.unit for s in status.read(experiment, tmp_path, [2])] == [
      'p8c8-seed0']
  with pytest.raises(errors.InputError):
    status.read(experiment, tmp_path, [7])
