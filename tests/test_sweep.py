import json
import os
import pathlib
import subprocess
import sys

import pytest

from vitok import sweep, sweeps
from vitok.sweeps import emit as emit_lib
from vitok.sweeps import price as price_lib
from vitok.training import trainer

TINY = str(pathlib.Path(__file__).parent / 'sweeps' / 'tiny.py')
ONE = TINY + ':gpu'  # Two seeds of one configuration.
NAMES = ['p8c4-seed0', 'p8c4-seed1', 'p8c8-seed0']
ROOT = pathlib.Path(__file__).parents[1]


@pytest.mark.parametrize('arguments, message', [
    (['list', TINY + ':cpuu'], "nearest valid choice: cpu"),
    (['list', 'experiments/bottleneck_scalin.py'], 'bottleneck_scaling.py'),
    (['lits', TINY], 'list'),
    (['run', TINY], '--workdir'),
    (['run', TINY, '--workdir=w', '--indx=1'], '--index'),
    (['run', TINY, '--workdir=w', '--index=9'], '0 to 2'),
    (['run', TINY, '--workdir=w', '--index=a'],
     "'a' is neither a list of indices like 0,3,7 nor all"),
    (['run', TINY, '--workdir=w', '--jobs=-3'], "--jobs: '-3' is no positive"),
    *[(['emit', TINY, '--workdir=w', '--to=slurm', flag], flag.split('=')[0])
      for flag in ('--attempts=0', '--nodes=-1', '--parallel=0', '--grace=-5',
                   '--jobs=x')],
    (['list', TINY, '--config.batch_sise=3'], 'config.batch_size'),
    (['list', TINY, '--config.seed=3'], 'varies'),
    (['price', TINY, '--device=h1000'], 'h100'),
    (['emit', TINY, '--workdir=w', '--to=slrum'], 'slurm'),
])
def test_bad_input_is_one_line_and_exit_code_2(arguments, message, capsys,
                                               tmp_path, monkeypatch):
  monkeypatch.chdir(ROOT)
  if '--workdir=w' in arguments:
    arguments[arguments.index('--workdir=w')] = f'--workdir={tmp_path}/w'
  with pytest.raises(SystemExit) as leave:
    sweep.main(arguments)
  error = capsys.readouterr().err
  assert leave.value.code == 2
  assert error.count('\n') == 1 and message in error
  assert not (tmp_path / 'w').exists()


def test_list_names_every_unit(capsys):
  assert sweep.main(['list', TINY]) == 0
  lines = capsys.readouterr().out.splitlines()
  assert [line.split()[1] for line in lines[1:]] == NAMES


def test_price_is_kept_in_a_workdir_and_never_changed(
    capsys, tmp_path, monkeypatch):
  # As of a design that does not carry its claim; NaN is not equal to itself.
  monkeypatch.setattr(price_lib, 'smallest_effects',
                      lambda *_: {'claim': float('nan')})
  arguments = ['price', TINY, f'--workdir={tmp_path}']
  assert sweep.main(arguments + ['--device=h100']) == 0
  assert sweep.main(arguments + ['--device=h100']) == 0
  assert 'keeps' not in capsys.readouterr().out
  before = (tmp_path / 'price.json').read_text()
  assert sweep.main(arguments + ['--device=v4']) == 0
  assert 'keeps the price of before: h100' in capsys.readouterr().out
  assert (tmp_path / 'price.json').read_text() == before
  assert json.loads((tmp_path / 'sweep.json').read_text())['preset'] == 'cpu'


def test_a_failed_unit_makes_the_exit_code_1(capsys, tmp_path, monkeypatch):
  def fail(config, workdir, **_):
    raise FloatingPointError(f'{workdir.name} diverged')
  monkeypatch.setattr(trainer, 'train', fail)
  assert sweep.main(['run', TINY, f'--workdir={tmp_path}']) == 1
  printed = capsys.readouterr()
  assert printed.err.splitlines()[-1] == (
      'failed: p8c8-seed0: FloatingPointError: p8c8-seed0 diverged')
  assert sweep.main(['status', TINY, f'--workdir={tmp_path}']) == 0
  assert '3 failed' in capsys.readouterr().out
  # Nothing to report on.
  assert not (tmp_path / 'report').exists()


def test_a_stop_ends_the_run_with_exit_code_0_and_no_report(
    capsys, tmp_path, monkeypatch):
  monkeypatch.setattr(trainer, 'train', lambda *_, **__: {'preempted': True})
  assert sweep.main(['run', TINY, f'--workdir={tmp_path}']) == 0
  assert 'stopped in p8c4-seed0; run again' in capsys.readouterr().out


def test_a_process_that_is_killed_makes_the_exit_code_1(
    capsys, tmp_path, monkeypatch):
  stub = tmp_path / 'python'
  stub.write_text('#!/bin/bash\nkill -KILL $$\n')
  stub.chmod(0o755)
  monkeypatch.setattr(sys, 'executable', str(stub))
  assert sweep.main(['run', TINY, f'--workdir={tmp_path}/w', '--jobs=2']) == 1
  assert capsys.readouterr().err.splitlines() == [
      f'process {number} ended with exit code -9' for number in (0, 1)]


def test_the_help_of_a_command_explains_presets_and_overrides(capsys):
  with pytest.raises(SystemExit):
    sweep.main(['run', '--help'])
  text = capsys.readouterr().out
  assert 'gpu1' in text and '--config.data.sources=' in text


@pytest.mark.parametrize('done, failed, failures, code', [
    ((0, 1, 2), (), 0, 0), ((0, 1), (2,), 3, 4), ((), (0, 1, 2), 4, 4),
    ((0, 1), (2,), 2, 3), ((0,), (1,), 3, 3), ((), (), 0, 3)])
def test_check_tells_done_from_failed_from_unfinished(tmp_path, done, failed,
                                                      failures, code):
  for index in (*done, *failed):
    folder = tmp_path / NAMES[index]
    folder.mkdir()
    (folder / ('DONE' if index in done else 'FAILED')).write_text(
        json.dumps({'error': '', 'failures': failures}))
  arguments = ['status', TINY, f'--workdir={tmp_path}', '--check']
  assert sweep.main(arguments) == code
  assert sweep.main([*arguments, '--index=0']) == (
      0 if 0 in done else 4 if 0 in failed else 3)


@pytest.fixture(scope='module')
def swept(tmp_path_factory):
  """A sweep that an emitted local script really ran: (workdir, output)."""
  folder = tmp_path_factory.mktemp('local')
  script = folder / 'run.sh'
  script.write_text(emit_lib.emit(sweeps.load(ONE), str(folder / 'work'),
                                  'local'))
  done = subprocess.run(
      ['bash', str(script)], capture_output=True, text=True, timeout=300,
      env=os.environ | {'PYTHON': sys.executable, 'PYTHONPATH': str(ROOT)})
  assert done.returncode == 0, done.stdout + done.stderr
  return folder / 'work', done.stdout


def test_a_local_script_trains_all_units_and_ends_by_naming_the_report(swept):
  workdir, output = swept
  for name in NAMES[:2]:
    done = json.loads((workdir / name / 'DONE').read_text())
    assert done['step'] == 2 and 'eval/psnr' in done['metrics']
  report = workdir / 'report' / 'index.html'
  assert report.exists() and output.splitlines()[-1] == f'report: {report}'
  assert {row['model'] for row in json.loads(
      (workdir / 'nulls.json').read_text())['rows']} == {
          'pca', 'mean', 'downsample'}


def test_units_that_differ_in_seed_share_compiled_programs(swept):
  workdir, _ = swept
  first, second = (json.loads((workdir / name / 'DONE').read_text())['seconds']
                   for name in NAMES[:2])
  assert second['compile'] < first['compile'] / 4


def test_a_sweep_that_is_done_runs_nothing_again(swept, capsys, monkeypatch):
  workdir, _ = swept
  monkeypatch.setattr(trainer, 'train', pytest.fail)
  assert sweep.main(['run', ONE, f'--workdir={workdir}']) == 0
  assert capsys.readouterr().out.splitlines()[-1].startswith('report: ')


def test_other_overrides_are_refused_for_the_same_workdir(swept, capsys):
  with pytest.raises(SystemExit) as leave:
    sweep.main(['run', ONE, f'--workdir={swept[0]}', '--config.batch_size=8'])
  assert leave.value.code == 2
  assert 'overrides' in capsys.readouterr().err
