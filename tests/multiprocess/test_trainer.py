"""The trainer in two processes: one fails, one is told to stop, one goes on."""

import json
import types

import numpy as np
import pytest

from tests import runs
from tests.multiprocess import job, launch
from vitok import data
from vitok.interop import saved
from vitok.training import trainer

PROGRAM = '''
import json
from tests.multiprocess import job
from vitok import data
from vitok.training import trainer
workdir, accident = sys.argv[2:]
last = jax.process_index() == jax.process_count() - 1
drawn = {}
data.train_batches = job.recorded(
    drawn, fail_at=4 if last and accident == 'failure' else None)
if accident == 'signal':
  data.eval_batches = job.interrupted(signalled=last)
result = trainer.train(job.config(2, 2, 2), workdir)
print(json.dumps(dict(result=result, drawn=drawn)))
'''

# The manifest is written by the first process alone.
UNSAVED = '''
import types
from jax.experimental import multihost_utils
from vitok.interop import manifest, saved
from vitok.training import checkpoints
def full(path): raise OSError(28, 'No space left on device', str(path))
manifest.write = full
saver = checkpoints.Checkpoints(
    sys.argv[2], types.SimpleNamespace(every=1, keep=1, keep_every=0))
saver.save(1, {'params': multihost_utils.host_local_array_to_global_array(
    jax.numpy.ones(4), jax.make_mesh((8,), 'a'), jax.P('a'))}, {})
saver.wait()
'''


@pytest.fixture(scope='module')
def story(tmp_path_factory):
  """Three sessions of one run, and the same run without any accident."""
  workdir = tmp_path_factory.mktemp('pair') / 'run'
  found = types.SimpleNamespace(
      workdir=workdir, whole=workdir.with_name('whole'))
  found.failed = launch.run(PROGRAM, str(workdir), 'failure', timeout=200,
                            check=False)
  found.saved = saved.restore_params(workdir)[2]
  found.stopped = [json.loads(one.stdout.splitlines()[-1]) for one in
                   launch.run(PROGRAM, str(workdir), 'signal', timeout=200)]
  found.steps = sorted(int(path.name) for path in
                       (workdir / 'checkpoints').iterdir() if path.is_dir())
  config, programs = job.config(1, 8, 1), {}
  found.drawn, found.expected = {}, {}
  with pytest.MonkeyPatch.context() as patch:
    for drawn, folder in ((found.drawn, workdir),
                          (found.expected, found.whole)):
      with patch.context() as one:
        one.setattr(data, 'train_batches', job.recorded(drawn))
        found.done = trainer.train(config, folder, programs=programs)
  return found


def test_a_failure_in_one_process_ends_all_and_keeps_the_last_save(story):
  assert all(one.returncode for one in story.failed)
  assert 'UnreadableError: a.jpg' in story.failed[1].stderr
  assert story.saved == 3


def test_a_signal_to_one_stops_all_in_the_middle_of_an_evaluation(story):
  assert [one['result'] for one in story.stopped] == 2 * [
      {'step': 4, 'preempted': True}]
  assert story.steps == [3, 4]


def test_one_process_on_another_mesh_goes_on_where_two_stopped(story):
  lines, whole = runs.lines(story.workdir), runs.lines(story.whole)
  assert [line['step'] for line in lines] == [0, 2, 4, 6]
  for line, expected in zip(lines, whole, strict=True):
    assert line.keys() == expected.keys()
    for name in ('train/loss', 'eval/mse', 'eval/psnr'):
      if name in line:
        np.testing.assert_allclose(line[name], expected[name], rtol=1e-5,
                                   err_msg=f'{name}, step {line["step"]}')


def test_two_processes_and_one_draw_the_same_records(story):
  first, second = (one['drawn'] for one in story.stopped)
  assert list(first) == list(second) == ['3']
  assert first['3'] + second['3'] == story.expected[3]
  assert story.drawn == {step: story.expected[step] for step in (4, 5)}


def test_a_save_that_fails_on_the_first_process_ends_all(tmp_path):
  first, second = launch.run(UNSAVED, str(tmp_path), timeout=60, check=False)
  assert first.returncode and second.returncode
  assert 'No space left' in first.stderr
