import json
import os
import pathlib
import signal
import sys
import textwrap

import pytest

from vitok import errors, sweeps
from vitok.sweeps import run as run_lib

TINY = str(pathlib.Path(__file__).with_name('tiny.py'))
CHAIN = str(pathlib.Path(__file__).with_name('chain.py'))
NAMES = ['p8c4-seed0', 'p8c4-seed1', 'p8c8-seed0']
gives_cores = pytest.mark.skipif(
    not hasattr(os, 'sched_setaffinity'),
    reason='only Linux gives cores to processes')


class Trainer:
  """Stands for `trainer.train`: finishes a unit, fails it or is stopped."""

  def __init__(self, fails=(), stops=()):
    self.fails, self.stops = set(fails), set(stops)
    self.ran, self.programs = [], []

  def __call__(self, config, workdir, *, programs, say, label):
    self.ran.append(workdir.name)
    self.started = config.init_from
    self.programs.append(programs)
    say(f'{label}step 0')
    workdir.mkdir(parents=True, exist_ok=True)
    if workdir.name in self.fails:
      raise FloatingPointError('loss is\nnot finite')
    if workdir.name not in self.stops:
      (workdir / 'DONE').write_text('{}')


@pytest.fixture
def experiment(tmp_path):
  (tmp_path / 'price.json').write_text(json.dumps({
      'total': {'hours': None},
      'units': [{'unit': name, 'train_flops': 10.0} for name in NAMES]}))
  return sweeps.load(TINY)


def run(experiment, workdir, **options):
  lines = []
  trainer = options.pop('trainer', None) or Trainer()
  outcome = run_lib.run_units(experiment, workdir, train=trainer,
                              say=lines.append, **options)
  return outcome, trainer, lines


def test_units_run_in_order_in_one_process_and_share_programs(
    experiment, tmp_path):
  outcome, trainer, _ = run(experiment, tmp_path)
  assert outcome.done == trainer.ran == NAMES and not outcome.failed
  assert all(programs is trainer.programs[0] for programs in trainer.programs)
  assert (tmp_path / 'sweep.json').exists()


def test_programs_of_units_long_gone_are_let_go(
    experiment, tmp_path, monkeypatch):
  held = []

  def train(config, workdir, *, programs, **_):
    held.append(list(programs))
    programs[workdir.name] = 'compiled'
    workdir.mkdir()
    (workdir / 'DONE').write_text('{}')
  monkeypatch.setattr(run_lib, '_KEPT', 1)
  run(experiment, tmp_path, trainer=train)
  assert held == [[], NAMES[:1], NAMES[1:2]]


def test_a_unit_that_is_done_is_skipped(experiment, tmp_path):
  run(experiment, tmp_path, indices=[1])
  outcome, trainer, _ = run(experiment, tmp_path)
  assert trainer.ran == [NAMES[0], NAMES[2]] and outcome.done == NAMES


def test_a_failed_unit_is_reported_and_the_next_one_runs(
    experiment, tmp_path):
  outcome, trainer, lines = run(experiment, tmp_path,
                                trainer=Trainer(fails=NAMES[:1]))
  assert trainer.ran == NAMES
  error = 'FloatingPointError: loss is not finite'
  assert outcome.failed == {NAMES[0]: error}
  failed = json.loads((tmp_path / NAMES[0] / 'FAILED').read_text())
  assert failed['error'] == error and 'Traceback' in failed['traceback']
  assert any(error in line for line in lines)
  assert run_lib.outcome_on_disk(experiment, tmp_path) == outcome


def test_a_failed_unit_is_tried_again_by_the_next_run(experiment, tmp_path):
  for times in (1, 2):
    run(experiment, tmp_path, trainer=Trainer(fails=NAMES[:1]))
    path = tmp_path / NAMES[0] / 'FAILED'
    assert json.loads(path.read_text())['failures'] == times
  outcome, trainer, _ = run(experiment, tmp_path)
  assert trainer.ran == NAMES[:1] and not outcome.failed
  assert not (tmp_path / NAMES[0] / 'FAILED').exists()


def test_a_stopped_unit_stops_the_sweep(experiment, tmp_path):
  outcome, trainer, _ = run(experiment, tmp_path,
                            trainer=Trainer(stops=[NAMES[1]]))
  assert trainer.ran == NAMES[:2] and outcome.stopped == NAMES[1]
  assert run_lib.outcome_on_disk(experiment, tmp_path).stopped == NAMES[1]


@pytest.fixture
def chain(tmp_path):
  experiment = sweeps.load(CHAIN)
  (tmp_path / 'price.json').write_text(json.dumps({
      'total': {'hours': None}, 'units': [
      {'unit': unit.name, 'train_flops': 10.0} for unit in experiment.units]}))
  return experiment


def test_a_unit_starts_from_the_workdir_of_the_one_before_it(chain, tmp_path):
  outcome, trainer, _ = run(chain, tmp_path, indices=[0, 1, 2])
  assert trainer.started == str(tmp_path / 'p8c4-seed0')
  assert outcome.done == ['p8c4-seed0', 'p8c8-seed0', 'next']


def test_what_is_after_a_unit_that_is_not_done_does_not_start(chain, tmp_path):
  outcome, trainer, _ = run(chain, tmp_path, indices=[2])
  assert not trainer.ran and not (tmp_path / 'next').exists()
  assert outcome.failed == {'next': 'is after p8c4-seed0, which is not done'}
  outcome, trainer, lines = run(chain, tmp_path, trainer=Trainer(
      fails=['p8c8-seed0']))
  assert trainer.ran == ['p8c4-seed0', 'p8c8-seed0']
  assert outcome.failed['next'] == 'is after p8c8-seed0, which has failed'
  assert outcome.failed['last'] == 'is after next, which is not done'
  assert 'next: is after p8c8-seed0, which has failed' in lines
  assert set(run_lib.outcome_on_disk(chain, tmp_path).failed) == {
      'p8c8-seed0', 'next', 'last'}


def test_processes_run_a_unit_when_what_it_is_after_has_ended(chain, tmp_path):
  script = tmp_path / 'worker.py'
  script.write_text("import sys\nprint(sys.argv[1])\n")
  lines = []
  run_lib.run_processes(chain, tmp_path, 2, [sys.executable, str(script)],
                        lines.append)
  assert sorted(lines[:2]) == ['(0) --index=0', '(1) --index=1']
  assert lines[2:] == ['(0) --index=2', '(0) --index=3']


def test_progress_covers_the_whole_sweep_once_a_unit_has_ended(
    experiment, tmp_path):
  _, _, lines = run(experiment, tmp_path)
  assert lines[0] == '[1/3 p8c4-seed0] step 0'
  assert lines[1].startswith('[2/3 p8c4-seed1] step 0 | sweep: ')


def test_no_unit_starts_if_one_of_them_cannot_run(experiment, tmp_path):
  bad = sweeps.load(TINY, {'data.resolution': '20'})
  trainer = Trainer()
  with pytest.raises(errors.InputError, match='config.data.resolution'):
    run(bad, tmp_path, trainer=trainer)
  assert not trainer.ran and not (tmp_path / 'sweep.json').exists()


def test_no_unit_starts_if_two_have_no_null_model_in_common(tmp_path):
  file = tmp_path / 'odd.py'
  file.write_text(pathlib.Path(TINY).read_text() + textwrap.dedent("""
      def units(preset, plain=units):
        for number, unit in enumerate(plain(preset)):
          unit.overrides['evaluation.count'] = 5 + number
          yield unit
      """))
  trainer = Trainer()
  for indices in (None, [0]):
    with pytest.raises(errors.InputError, match='config.evaluation: differs'):
      run(sweeps.load(str(file)), tmp_path / 'w', trainer=trainer,
          indices=indices)
  with pytest.raises(errors.InputError, match='config.evaluation: differs'):
    run_lib.run_processes(sweeps.load(str(file)), tmp_path / 'w', 2, ['false'])
  assert not trainer.ran and not (tmp_path / 'w').exists()


def test_exit_codes_of_the_processes_are_known(experiment, tmp_path):
  script = tmp_path / 'worker.py'
  script.write_text(textwrap.dedent("""
      import os, signal, sys
      if sys.argv[1] == '--index=1':
        os.kill(os.getpid(), signal.SIGKILL)
      """))
  assert run_lib.run_processes(
      experiment, tmp_path, 2, [sys.executable, str(script)],
      lambda line: None) == {1: -9}


def test_units_of_one_program_go_to_one_process():
  experiment = sweeps.load(TINY)
  equal = {unit.name: 1.0 for unit in experiment.units}
  dear = equal | {experiment.units[2].name: 2.0}
  assert run_lib._deal(experiment, range(3), dear, 2) == [[0, 1], [2]]
  assert run_lib._deal(experiment, range(3), equal, 1) == [[0, 1, 2]]


def test_units_of_one_program_are_shared_out_where_others_would_wait():
  experiment = sweeps.load(TINY)
  costs = {unit.name: 1.0 for unit in experiment.units}
  first, *_ = experiment.units
  assert run_lib._deal(experiment, range(3), costs, 9) == [[0], [1], [2]]
  assert run_lib._deal(experiment, range(3), costs | {first.name: 5.0},
                       2) == [[0], [1, 2]]


def test_processes_run_their_share_on_their_share_of_the_devices(
    experiment, tmp_path, monkeypatch):
  script = tmp_path / 'worker.py'
  script.write_text(textwrap.dedent('''
      import os, sys
      print(sys.argv[1], os.environ['CUDA_VISIBLE_DEVICES'])
      '''))
  monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '0,1,2,3')
  lines = []
  run_lib.run_processes(experiment, tmp_path, 2,
                        [sys.executable, str(script)], lines.append)
  assert sorted(lines) == ['(0) --index=0,2 0,2', '(1) --index=1 1,3']


@gives_cores
def test_processes_run_their_share_on_their_share_of_the_cores(
    experiment, tmp_path):
  cores = sorted(os.sched_getaffinity(0))
  script = tmp_path / 'worker.py'
  script.write_text(textwrap.dedent('''
      import os, time
      time.sleep(0.5)  # As imports of a real one take, and longer.
      print(sorted(os.sched_getaffinity(0)))
      '''))
  lines = []
  run_lib.run_processes(experiment, tmp_path, 2,
                        [sys.executable, str(script)], lines.append)
  assert sorted(lines) == [f'({number}) {cores[number::2] or cores}'
                           for number in range(2)]


@gives_cores
def test_one_process_of_a_wave_has_all_cores(chain, tmp_path):
  script = tmp_path / 'worker.py'
  script.write_text(textwrap.dedent('''
      import os, sys, time
      time.sleep(0.5)
      print(sys.argv[1], sorted(os.sched_getaffinity(0)))
      '''))
  lines = []
  run_lib.run_processes(chain, tmp_path, 2, [sys.executable, str(script)],
                        lines.append)
  assert lines[-1] == f'(0) --index=3 {sorted(os.sched_getaffinity(0))}'


def test_sigterm_reaches_the_processes(experiment, tmp_path):
  script = tmp_path / 'worker.py'
  script.write_text(textwrap.dedent('''
      import signal, sys, time
      def leave(*_):
        print('saved')
        sys.exit(0)
      signal.signal(signal.SIGTERM, leave)
      print('ready', flush=True)
      time.sleep(60)
      '''))
  lines, ready = [], []

  def say(line):
    lines.append(line)
    if line.endswith('ready'):
      ready.append(line)
      if len(ready) == 2:
        os.kill(os.getpid(), signal.SIGTERM)

  run_lib.run_processes(experiment, tmp_path, 2,
                        [sys.executable, str(script)], say)
  assert {'(0) saved', '(1) saved'} <= set(lines)


def test_sigterm_between_units_ends_with_exit_code_0():
  with pytest.raises(SystemExit) as leave, run_lib.exits_on_sigterm():
    os.kill(os.getpid(), signal.SIGTERM)
  assert leave.value.code == 0
