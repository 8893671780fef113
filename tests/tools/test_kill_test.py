"""The kill test kills in every phase, loses nothing, and would notice."""

import importlib.util
import json
import pathlib
import shutil
import subprocess
import sys
import types

import jax
import numpy as np
import pytest

from vitok.interop import saved
from vitok.training import checkpoints

TOOL = pathlib.Path(__file__).parents[2] / 'tools' / 'kill_test.py'


@pytest.fixture(scope='module')
def kill_test():
  spec = importlib.util.spec_from_file_location('kill_test', TOOL)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


@pytest.fixture(scope='module')
def killed(tmp_path_factory):
  """(workdir, what the program printed) after one kill in each phase."""
  workdir = tmp_path_factory.mktemp('kills')
  process = subprocess.run(
      [sys.executable, str(TOOL), '--kills=5', '--seed=1',
       f'--workdir={workdir}'], capture_output=True, text=True, timeout=900)
  assert process.returncode == 0, process.stdout + process.stderr
  return workdir, process.stdout


def test_every_phase_was_hit_and_nothing_was_lost(killed, kill_test):
  _, printed = killed
  result = json.loads(printed)
  assert printed.count('\n') == 1
  assert result['equal'] and not result['different']
  assert all(result['kills'][phase] for phase in kill_test.REQUIRED)
  assert result['total'] == sum(result['kills'].values()) >= 5
  assert {'params', 'opt', 'ema'} <= set(result['state'])


def test_a_lost_line_or_another_number_would_be_noticed(killed, kill_test):
  workdir, _ = killed
  expected = kill_test.outcome(workdir / 'uninterrupted')
  path = workdir / 'round0' / 'metrics.jsonl'
  lines = path.read_text().splitlines()
  whole = [json.loads(line) for line in lines]

  def found(rows):
    path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
    return kill_test.differences(
        expected, kill_test.outcome(workdir / 'round0'))

  assert found(whole[:7] + whole[8:]) == ['metrics']
  changed = whole[7] | {'train/loss': whole[7]['train/loss'] * (1 + 1e-15)}
  assert found(whole[:7] + [changed] + whole[8:]) == ['metrics']
  other_time = [row | {'clock/step': -1.0} for row in whole]
  assert found(other_time) == []


def test_another_parameter_in_a_checkpoint_would_be_noticed(
    killed, kill_test, tmp_path):
  workdir, _ = killed
  expected = kill_test.outcome(workdir / 'uninterrupted')
  step, fields = expected['step'], expected['state']

  def found(name, change):
    run = tmp_path / name
    shutil.copytree(workdir / 'uninterrupted', run)
    shutil.rmtree(run / 'checkpoints' / str(step))
    state = {field: saved.restore_params(
        workdir / 'uninterrupted', field=field)[0] for field in fields}
    change(state['params']['autoencoder']['encoder'])
    saver = checkpoints.Checkpoints(
        run, types.SimpleNamespace(every=1, keep=2, keep_every=0))
    saver.save(step, state, {})
    saver.close()
    return kill_test.differences(expected, kill_test.outcome(run))

  def flip(tree):
    leaf = jax.tree.leaves(tree)[0]
    leaf.flat[0] = np.nextafter(leaf.flat[0], np.float32(np.inf))

  assert found('same', lambda tree: None) == []
  assert found('other', flip) == ['state']


def test_a_wrong_flag_is_one_line():
  process = subprocess.run(
      [sys.executable, str(TOOL), '--kill=3'], capture_output=True, text=True)
  assert process.returncode == 2 and process.stderr.count('\n') == 1
  assert '--kills' in process.stderr
