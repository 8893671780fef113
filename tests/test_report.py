"""`python -m vitok.report`: which sweep, whose claims, which exit code."""

import json
import os
import subprocess
import sys

import pytest

from tests.scaling import synthetic
from vitok import report

EXPERIMENT = """'''A tiny experiment.'''
from vitok import sweeps
PRESETS = {'cpu': {}, 'gpu1': {}}
CLAIMS = (dict(name='law', rule='slope_above', x='code_floats', margin=%s,
               text='A doubling of E is worth more than 1 dB.'),)
def units(preset):
  yield sweeps.Unit('p8c2', {'model.name': 'P-N/1x8x2'}, {})
"""


@pytest.fixture
def sweep(tmp_path):
  """(experiment file, workdir of its sweep)."""
  path = tmp_path / 'tiny.py'
  path.write_text(EXPERIMENT % '1.0')
  synthetic.write(tmp_path / 'sweep', synthetic.grid(
      lambda tokens, channels: 20.0, floats=(32, 64), seeds=1),
                  experiment='tiny')
  return path, tmp_path / 'sweep'


def test_it_names_the_page_it_wrote(sweep, capsys):
  path, workdir = sweep
  report.main([str(path), f'--workdir={workdir}'])
  page = workdir / 'report/index.html'
  assert capsys.readouterr().out.strip() == f'report: {page}'
  assert 'are no longer those' not in page.read_text()


def test_claims_that_changed_after_launch_do_not_judge(sweep):
  path, workdir = sweep
  path.write_text(EXPERIMENT % '0.0')
  page = report.report(str(path), str(workdir))
  with open(page) as file:
    assert 'are no longer those' in file.read()
  with open(workdir / 'report/report.json') as file:
    assert json.load(file)['claims'][0]['margin'] == 1.0


@pytest.mark.parametrize('change, message', [
    ({}, 'is missing|required'), ({'workdir': 'none'}, 'is not a folder'),
    ({'workdir': ''}, 'holds no sweep'),
    ({'workdir': 'sweep', 'preset': ':gpu1'}, "of preset 'cpu', not 'gpu1'"),
    ({'workdir': 'sweep', 'preset': ':tpu'}, 'is not one of'),
    ({'workdir': 'sweep', 'file': 'other.py'}, 'other.py')])
def test_bad_input_exits_with_2_and_one_line(sweep, capsys, change, message):
  path, workdir = sweep
  arguments = [f'{path.parent / change.get("file", path.name)}'
               + change.get('preset', '')]
  if 'workdir' in change:
    arguments.append(f'--workdir={workdir.parent / change["workdir"]}')
  with pytest.raises(SystemExit) as caught:
    report.main(arguments)
  assert caught.value.code == 2
  error = capsys.readouterr().err
  assert len(error.splitlines()) == 1
  assert any(part in error for part in message.split('|')), error


def test_as_a_program_it_starts_no_backend(tmp_path):
  done = subprocess.run(
      [sys.executable, '-c', 'import sys\nfrom vitok import report\ntry:\n'
       '  report.main(sys.argv[1:])\nfinally:\n'
       '  assert "jax" not in sys.modules', 'experiments/none.py',
       f'--workdir={tmp_path}'], capture_output=True, text=True,
      env=os.environ, check=False)
  assert done.returncode == 2, done.stderr
  assert done.stderr.startswith('error: --workdir')


def test_code_that_changed_after_launch_is_said_to_have(sweep):
  path, workdir = sweep
  stored = workdir / 'sweep.json'
  stored.write_text(json.dumps(
      json.loads(stored.read_text()) | dict(rules='0' * 64)))
  with open(report.report(str(path), str(workdir))) as file:
    assert 'by other code than that of the launch' in file.read()


@pytest.mark.parametrize('name, content', [
    ('sweep.json', '{"experiment": "tiny", "preset": "cpu"}'),
    ('p8c2-s0/evaluation/protocol.json', '{"id": "ab'),
    ('p8c2-s0/evaluation/400.npz', '')])
def test_a_damaged_sweep_exits_with_2_and_names_the_file(
    sweep, capsys, name, content):
  path, workdir = sweep
  (workdir / name).write_text(content)
  with pytest.raises(SystemExit) as caught:
    report.main([str(path), f'--workdir={workdir}'])
  assert caught.value.code == 2
  error = capsys.readouterr().err
  assert len(error.splitlines()) == 1 and str(workdir / name) in error
