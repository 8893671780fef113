"""Scripts are checked by shellcheck and run against stubs (conftest.py)."""

import pathlib
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from tests.sweeps.conftest import NAMES, ROOT, TINY, stub
from vitok import errors, sweeps
from vitok.sweeps import emit as emit_lib


@pytest.mark.parametrize('indices, text', [
    ([0], '0'), ([0, 1, 2, 5], '0-2,5'), ([1, 3, 4], '1,3-4')])
def test_indices_are_written_as_slurm_counts(indices, text):
  assert emit_lib._ranges(indices) == text


@pytest.mark.parametrize('to', emit_lib.TARGETS)
def test_shellcheck_finds_nothing(world, to):
  shellcheck = pathlib.Path(sys.executable).with_name('shellcheck')
  path = world.script(to, options=["--config.data.sources=('a b', \"c\")"])
  done = subprocess.run([str(shellcheck), str(path)], capture_output=True,
                        text=True)
  assert done.returncode == 0, done.stdout + done.stderr


def test_an_unknown_target_is_refused():
  with pytest.raises(errors.InputError, match='slurm'):
    emit_lib.emit(sweeps.load(TINY), 'w', 'slrum')


def test_local_starts_again_until_all_are_done(world):
  log = world.run(world.script('local', jobs=2))
  assert len(log) == 2 and log[0].endswith('--jobs=2')
  assert all((world.work / name / 'DONE').exists() for name in NAMES)


@pytest.mark.parametrize('to', ['local', 'slurm'])
def test_what_is_refused_is_not_tried_again(world, to):
  more = dict(SLURM_ARRAY_TASK_ID='0') if to == 'slurm' else {}
  stub(world.bin, 'srun', 'exec "${@:2}"\n')
  arguments = ['unit'] if to == 'slurm' else []
  log = world.run(world.script(to), *arguments, expect=2, REFUSES='1', **more)
  assert len(log) == 1


def test_sources_in_the_present_folder_are_refused_for_other_machines():
  overrides = {'data.sources': 'folder:data/photos'}
  with pytest.raises(errors.InputError, match='folder:/where'):
    emit_lib.emit(sweeps.load(TINY, overrides), 'gs://b', 'tpu')
  emit_lib.emit(sweeps.load(TINY, {'data.sources': 'folder:/mnt'}), 'gs://b',
                'xpk')


@pytest.mark.parametrize('to, workdir, message', [
    ('tpu', 'runs/x', "own disk.*gs://BUCKET"), ('xpk', '/x', '--mounted')])
def test_a_workdir_that_goes_with_the_machine_is_refused(to, workdir, message):
  with pytest.raises(errors.InputError, match=message):
    emit_lib.emit(sweeps.load(TINY), workdir, to)


def test_a_mounted_workdir_is_taken_for_xpk():
  text = emit_lib.emit(sweeps.load(TINY), '/mnt/x', 'xpk', mounted=True)
  assert '--workdir=/mnt/x' in text


@pytest.mark.parametrize('to', ['tpu', 'xpk'])
def test_workers_get_the_experiment_by_its_path_in_the_checkout(
    to, monkeypatch):
  monkeypatch.chdir(ROOT)
  experiment = sweeps.load(TINY)
  text = emit_lib.emit(experiment, 'gs://b', to)
  assert '\nwhat=(tests/sweeps/tiny.py:cpu --workdir=gs://b)\n' in text
  monkeypatch.chdir(ROOT / 'vitok')
  with pytest.raises(errors.InputError, match='EXPERIMENT.*outside'):
    emit_lib.emit(experiment, 'gs://b', to)


def test_local_ends_with_4_if_a_unit_fails_each_time(world):
  log = world.run(world.script('local'), expect=4, FAILS='2')
  assert len(log) == 3


def test_a_status_that_cannot_be_read_is_no_failed_unit(world):
  log = world.run(world.script('local'), BROKEN='1')
  assert len(log) == 3  # The second one was enough, but could not be seen.


def test_local_gives_up_after_its_attempts(world):
  log = world.run(world.script('local', attempts=1), expect=1)
  assert len(log) == 1


def test_local_passes_sigterm_on_and_ends_with_0(world):
  stub(world.bin, 'python3', textwrap.dedent('''
      trap 'echo saved >>"$LOG"; exit 0' TERM
      echo ready >>"$LOG"
      for _ in $(seq 600); do sleep 0.1; done
      '''))
  process = subprocess.Popen(['bash', str(world.script('local'))],
                             env=world.environment)
  deadline = time.monotonic() + 30
  while 'ready' not in world.log.read_text():
    assert time.monotonic() < deadline
    time.sleep(0.05)
  process.send_signal(signal.SIGTERM)
  assert process.wait(30) == 0
  assert world.log.read_text().split() == ['ready', 'saved']


@pytest.fixture
def slurm(world):
  """Stubs that run array elements in a row, and requeue them once."""
  stub(world.bin, 'srun', '''
      echo "srun $*" >>"$LOG"
      while [[ $1 == --* ]]; do shift; done
      exec "$@"
      ''')
  stub(world.bin, 'scontrol', '''
      [[ $1 == requeue ]]
      echo "requeue $2" >>"$LOG"
      touch "$BIN/requeue-$2"
      ''')
  stub(world.bin, 'sbatch', '''
      echo "sbatch $*" >>"$LOG"
      arguments=()
      array=
      for argument; do
        case $argument in
          --array=*) array=${argument#--array=} ;;
          --*) ;;
          *) arguments+=("$argument") ;;
        esac
      done
      if [[ -z $array ]]; then
        SLURM_JOB_ID=99 bash "${arguments[@]}"
        exit
      fi
      array=${array%%%*}
      for ((i = ${array%-*}; i <= ${array#*-}; i++)); do
        for restart in 0 1 2 3; do
          rm -f "$BIN/requeue-$((10 + i))"
          code=0
          SLURM_JOB_ID=$((10 + i)) SLURM_ARRAY_TASK_ID=$i \\
            SLURM_RESTART_COUNT=$restart bash "${arguments[@]}" >&2 || code=$?
          echo "element $i: $code" >>"$LOG"
          if [[ ! -e $BIN/requeue-$((10 + i)) ]]; then break; fi
        done
      done
      echo "10;cluster"
      ''')
  return world


def test_slurm_submits_an_array_and_requeues_what_is_not_done(slurm):
  log = slurm.run(slurm.script('slurm'))
  assert '--array=0-2%8' in log[0] and log[0].endswith('unit')
  assert [line for line in log if line.startswith('requeue')] == [
      'requeue 10', 'requeue 11', 'requeue 12']
  assert log.count('element 1: 0') == 2
  assert any('--dependency=afterany:10 ' in line for line in log)
  assert log[-1].endswith('--finish') and (slurm.work / 'report').exists()
  assert all((slurm.work / name / 'DONE').exists() for name in NAMES)


CHAINED = 'p8c4-seed0 p8c8-seed0 next last'


def test_slurm_runs_a_unit_when_what_it_is_after_has_ended(slurm):
  log = slurm.run(slurm.script('slurm', 'chain.py'), UNITS=CHAINED)
  arrays = [line for line in log if '--array=' in line]
  assert [line.split('--array=')[1].split('%')[0] for line in arrays] == [
      '0-1', '2', '3']
  assert '--dependency' not in arrays[0]
  assert all('--dependency=afterany:10 ' in line for line in arrays[1:])
  assert all((slurm.work / name / 'DONE').exists() for name in CHAINED.split())


def test_slurm_leaves_what_is_after_a_unit_that_is_not_done(slurm):
  log = slurm.run(slurm.script('slurm', 'chain.py', attempts=1), UNITS=CHAINED)
  assert 'element 0: 1' in log and 'element 2: 5' in log


def test_slurm_requeues_a_failed_unit_until_it_has_failed_too_often(slurm):
  log = slurm.run(slurm.script('slurm'), FAILS='1')
  assert 'element 1: 4' in log and log.count('requeue 11') == 2
  assert log[-1].endswith('--finish')


def test_slurm_submits_itself_from_any_folder(slurm):
  path = slurm.script('slurm')
  done = subprocess.run(['bash', path.name], cwd=path.parent,
                        env=slurm.environment, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  assert f' {path} unit' in slurm.log.read_text()


def test_slurm_keeps_logs_of_a_bucket_here(monkeypatch, tmp_path):
  experiment = sweeps.load(TINY)
  monkeypatch.chdir(tmp_path)
  text = emit_lib.emit(experiment, 'gs://b', 'slurm')
  assert f'mkdir -p {tmp_path}/runs/logs/vitok-tiny\n' in text


def test_slurm_gives_a_unit_up_after_its_attempts(slurm):
  log = slurm.run(slurm.script('slurm', attempts=1))
  assert 'element 0: 1' in log and not any('requeue' in line for line in log)


def test_several_nodes_of_slurm_train_one_unit_together(slurm):
  script = slurm.script('slurm', nodes=4)
  assert '#SBATCH --nodes=4\n' in script.read_text()
  log = slurm.run(script, SLURM_NNODES='4')
  units = [line for line in log
           if line.startswith('python') and '--index' in line]
  assert units and all(line.endswith('--distributed') for line in units)


@pytest.fixture
def xpk(world):
  stub(world.bin, 'xpk', '''
      [[ $1 == workload ]]
      echo "$2 ${*:3}" >>"$LOG"
      if [[ $2 == create ]]; then
        for argument; do
          case $argument in --command=*)
            command=${argument#--command=}
            bash -c "${command#cd /vitok && }" ;;
          esac
        done
      fi
      if [[ $2 == list ]]; then exit 1; fi
      ''')
  world.environment.update(CLUSTER='c', PROJECT='p', ZONE='z',
                           TPU_TYPE='v5litepod-16', DOCKER_IMAGE='i')
  return world


def test_xpk_sends_units_again_until_they_are_done(xpk):
  log = xpk.run(xpk.script('xpk', grace=120))
  created = [line for line in log if line.startswith('create')]
  assert len(created) == 7
  assert all('--termination-grace-period-seconds=120' in line
             for line in created)
  assert sum('--wait-for-job-completion' in line for line in log) == 7
  assert [line.strip() for line in log if line.startswith('python')][
      -1].endswith('--finish')
  assert all((xpk.work / name / 'DONE').exists() for name in NAMES)


def test_xpk_sends_a_failed_unit_again_until_it_has_failed_too_often(xpk):
  log = xpk.run(xpk.script('xpk'), expect=4, FAILS='2')
  assert sum(line.startswith('create') for line in log) == 2 * 2 + 3 + 1


def test_xpk_sends_a_unit_when_what_it_is_after_is_done(xpk):
  for name in CHAINED.split()[1:]:  # They will be done at once.
    (xpk.work / name).mkdir(parents=True)
    (xpk.work / name / 'started').touch()
  log = xpk.run(xpk.script('xpk', 'chain.py'), UNITS=CHAINED)
  sent = [line.split('--index=')[1][0] for line in log
          if line.startswith('python') and '--index=' in line]
  assert sent == ['0', '1', '0', '2', '3']


def test_xpk_runs_the_python_that_it_is_told(xpk):
  log = xpk.run(xpk.script('xpk'), REMOTE_PYTHON='env python3')
  assert any('env python3 -m vitok.sweep' in line for line in log)
