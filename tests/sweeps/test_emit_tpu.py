"""The script for TPU pods, run against a stub of gcloud."""

import signal
import subprocess
import tarfile
import time

import pytest

from tests.sweeps.conftest import NAMES, TINY, stub
from vitok import sweeps
from vitok.sweeps import emit as emit_lib


@pytest.fixture
def tpu(world):
  """A stub gcloud whose pod has two workers and is preempted once."""
  stub(world.bin, 'gcloud', '''
      [[ "$1 $2 $3" == "compute tpus tpu-vm" ]]
      verb=$4
      echo "$verb ${*:5}" >>"$LOG"
      case $verb in
        describe) [[ -e $BIN/pod ]] && cat "$BIN/pod" ;;
        create) echo READY >"$BIN/pod" ;;
        delete) rm -rf "$BIN/pod" "$BIN/vitok" ;;
        scp) cp "$6" "$BIN/archive" ;;
        ssh)
          command="${*: -1}"
          command=${command#--command=}
          case $command in
            *'tar -xzf'*)
              mkdir -p "$BIN/vitok/.venv/bin"
              if [[ -e $BIN/offline ]]; then rm "$BIN/offline"; exit 1; fi
              cp "$BIN/python3" "$BIN/vitok/.venv/bin/python" ;;
            *vitok.sweep*)
              if [[ -n ${HANGS:-} ]]; then exec sleep 60; fi
              [[ " $* " == *" --worker=all "* || $command == *--finish* ]]
              if [[ ! -e $BIN/preempted ]]; then
                touch "$BIN/preempted"
                echo PREEMPTED >"$BIN/pod"
                exit 255
              fi
              cd "$BIN" && bash -c "$command" ;;
          esac ;;
      esac
      ''')
  world.environment.update(ZONE='z', ACCELERATOR_TYPE='v5litepod-16')
  return world


def test_tpu_pod_is_made_again_after_a_preemption_and_deleted(tpu):
  log = tpu.run(tpu.script('tpu'), CREATE_OPTIONS='--spot')
  creations = [line for line in log if line.startswith('create')]
  assert len(creations) == 2 and creations[0].endswith('--spot')
  assert log[-1].startswith('delete') and not (tpu.bin / 'pod').exists()
  runs = [line for line in log if line.startswith('python run')]
  assert all('--distributed' in line for line in runs if '--index' in line)
  assert runs[-1].endswith('--finish') and (tpu.work / 'report').exists()
  assert all((tpu.work / name / 'DONE').exists() for name in NAMES)


def test_tpu_ends_with_4_if_a_unit_fails_each_time_and_deletes_the_pod(tpu):
  log = tpu.run(tpu.script('tpu'), expect=4, FAILS='1')
  assert log[-1].startswith('delete')
  assert sum('--index=1 ' in line for line in log
             if line.startswith('python')) == 3


def test_tpu_gives_a_unit_up_after_its_attempts_and_runs_the_next(tpu):
  log = tpu.run(tpu.script('tpu', attempts=1), expect=1)
  runs = [line for line in log if line.startswith('python run')]
  assert ['--index=1' in line for line in runs] == [True, False, False]
  assert '--index=2' in runs[1] and log[-1].startswith('delete')


def test_tpu_repeats_an_installation_that_failed(tpu):
  (tpu.bin / 'offline').touch()
  (tpu.bin / 'preempted').touch()
  log = tpu.run(tpu.script('tpu'))
  assert sum(line.startswith('create') for line in log) == 1
  installs = [line for line in log if 'tar -xzf' in line]
  assert len(installs) == 2


def test_tpu_installs_on_a_pod_that_it_finds_ready(tpu):
  (tpu.bin / 'pod').write_text('READY\n')
  (tpu.bin / 'preempted').touch()
  log = tpu.run(tpu.script('tpu'))
  assert not any(line.startswith('create') for line in log)
  assert sum('tar -xzf' in line for line in log) == 1


def test_tpu_workers_get_a_python_that_vitok_runs_on(tpu):
  text = tpu.script('tpu').read_text()
  assert 'REMOTE_PYTHON:-3.11' in text and 'uv venv' in text
  assert 'python3 -m' not in text


def test_tpu_workers_get_the_commit_but_no_data_or_environment(tpu):
  tpu.run(tpu.script('tpu'))
  with tarfile.open(tpu.bin / 'archive') as archive:
    names = set(archive.getnames())
  assert {'./.git/HEAD', './lib/data/x.py', './tiny.py'} <= names
  assert not names & {'./.venv', './data', './runs'}


def test_tpu_pod_is_deleted_at_once_on_sigterm(tpu):
  process = subprocess.Popen(['bash', str(tpu.script('tpu'))],
                             env=tpu.environment | {'HANGS': '1'})
  deadline = time.monotonic() + 60
  while '--distributed' not in tpu.log.read_text():
    assert time.monotonic() < deadline
    time.sleep(0.05)
  process.send_signal(signal.SIGTERM)
  assert process.wait(20) == 143
  assert tpu.log.read_text().splitlines()[-1].startswith('delete')
  assert not (tpu.bin / 'pod').exists()


def test_tpu_asks_for_what_it_cannot_know(world):
  world.run(world.script('tpu'), expect=1)


def test_tpu_pod_is_deleted_if_a_unit_is_refused(tpu):
  (tpu.bin / 'preempted').touch()
  log = tpu.run(tpu.script('tpu'), expect=2, REFUSES='1')
  assert sum(line.startswith('python') for line in log) == 1
  assert not (tpu.bin / 'pod').exists()


def test_workers_find_prepared_data_where_the_environment_says(tpu):
  log = tpu.run(tpu.script('tpu'), TFDS_DATA_DIR='/mnt/my data')
  runs = [line for line in log if 'vitok.sweep' in line]
  assert runs and all(r'TFDS_DATA_DIR=/mnt/my\ data' in line for line in runs)


def test_prepared_data_must_be_named_for_workers_that_read_them():
  experiment = sweeps.load(TINY, {'data.sources': 'tfds:cifar10'})
  for to in ('tpu', 'xpk'):
    script = emit_lib.emit(experiment, 'gs://b', to)
    assert 'TFDS_DATA_DIR:?' in script
  assert 'TFDS_DATA_DIR:?' not in emit_lib.emit(
      sweeps.load(TINY), 'gs://b', 'tpu')
