"""Checkpoints are whole or not used; a run goes on from the newest whole one.

Damage, kills and full disks are real here: bits are flipped in array files,
writers are killed by SIGKILL, and writes fail with a limit of the kernel.
"""

import logging
import os
import pathlib
import resource
import signal
import socket
import subprocess
import sys
import types
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vitok import errors
from vitok.interop import manifest, saved
from vitok.training import checkpoints as checkpoints_lib

HERE = pathlib.Path(__file__).parent


@flax.struct.dataclass
class State:  # As the trainer's.
  step: Any
  params: Any
  opt: Any
  ema: Any
  stats: Any


def _open(workdir, every=2, keep=2, keep_every=0):
  return checkpoints_lib.Checkpoints(workdir, types.SimpleNamespace(
      every=every, keep=keep, keep_every=keep_every))


def _state(step=0, sharding=None, width=8):
  params = {'autoencoder': {
      'encoder': {'kernel': jnp.arange(64.).reshape(8, width) + step},
      'bias': jnp.full((3,), step, jnp.bfloat16)}}
  optimizer = optax.adamw(1e-3)
  state = State(
      step=jnp.int32(step), params=params,
      opt={'autoencoder': optimizer.init(params['autoencoder'])},
      ema={'autoencoder': None}, stats={'autoencoder': {}})
  return state if sharding is None else jax.device_put(state, sharding)


def _abstract(state, sharding=None):
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(
      x.shape, x.dtype, sharding=sharding), state)


def _save(workdir, steps, **config):
  saver = _open(workdir, **config)
  for step in steps:
    saver.save(step, _state(step), {'samples': 4 * step})
  saver.close()


def _restore(workdir, step=None):
  with_close = _open(workdir)
  try:
    return with_close.restore(_abstract(_state()), step)
  finally:
    with_close.close()


def _equal(a, b):
  return (jax.tree.structure(a) == jax.tree.structure(b)
          and jax.tree.all(jax.tree.map(
              lambda x, y: x.dtype == y.dtype and np.array_equal(x, y), a, b)))


def _array_file(checkpoint, item='params'):
  return max((checkpoint / item).rglob('d/*'), key=lambda f: f.stat().st_size)


def _steps(workdir):
  return sorted(path.name for path in (workdir / 'checkpoints').iterdir()
                if path.is_dir())


def test_a_restored_state_equals_the_saved_one_bit_for_bit(tmp_path):
  assert _restore(tmp_path) is None
  _save(tmp_path, [2, 4])
  state, meta, step = _restore(tmp_path)
  assert step == 4 and meta == {'samples': 16, 'step': 4}
  assert _equal(state, _state(4))
  assert _equal(_restore(tmp_path, 2)[0], _state(2))


def test_a_state_may_be_donated_as_soon_as_save_returns(tmp_path):
  overwrite = jax.jit(lambda s: jax.tree.map(lambda x: x * 0 - 1, s),
                      donate_argnums=0)
  state = {'params': {str(i): jnp.full((300_000,), i, jnp.float32)
                      for i in range(8)}}
  saver = _open(tmp_path)
  saver.save(2, state, {})
  for _ in range(3):
    state = overwrite(state)
  jax.block_until_ready(state)
  saver.close()
  params, _, _ = saved.restore_params(tmp_path)
  assert all(np.all(params[str(i)] == i) for i in range(8))


def test_a_run_goes_on_under_another_mesh(tmp_path):
  devices = jax.devices()
  if len(devices) < 4:
    pytest.skip(f'needs 4 devices, found {len(devices)}')

  def sharding(shape):
    mesh = jax.make_mesh(shape, ('a', 'b'), devices=devices[:np.prod(shape)],
                         axis_types=(jax.sharding.AxisType.Auto,) * 2)
    return jax.NamedSharding(mesh, jax.P('a', 'b'))

  def state(placed):
    return {'params': {'w': jax.device_put(jnp.arange(64.).reshape(8, 8),
                                           placed)}}

  saver = _open(tmp_path)
  saver.save(2, state(sharding((4, 1))), {})
  for shape in ((2, 2), (1, 2), (1, 1)):
    there = sharding(shape)
    restored, _, _ = saver.restore(_abstract(state(there), there))
    assert restored['params']['w'].sharding == there
    np.testing.assert_array_equal(
        restored['params']['w'], np.arange(64.).reshape(8, 8))
  saver.close()


def test_the_newest_and_the_multiples_are_kept(tmp_path):
  _save(tmp_path, range(2, 15, 2), keep=2, keep_every=6)
  assert _steps(tmp_path) == ['12', '14', '6']


def test_the_cadence_leaves_out_step_0_and_what_was_just_restored(tmp_path):
  _save(tmp_path, [4])
  saver = _open(tmp_path)
  assert [s for s in range(7) if saver.should_save(s)] == [2, 4, 6]
  saver.restore(_abstract(_state()))
  assert [s for s in range(7) if saver.should_save(s)] == [2, 6]
  assert not _open(tmp_path, every=0).should_save(6)
  saver.close()


def _flip_bit(checkpoint):
  path = _array_file(checkpoint)
  data = bytearray(path.read_bytes())
  data[len(data) // 3] ^= 1
  path.write_bytes(data)


def _truncate(checkpoint):
  os.truncate(_array_file(checkpoint, 'opt'), 100)


def _manifest_as_folder(checkpoint):
  (checkpoint / manifest.NAME).unlink()
  (checkpoint / manifest.NAME).mkdir()


DAMAGE = {
    'flipped bit': (_flip_bit, 'has changed'),
    'truncated': (_truncate, 'has 100 bytes, not'),
    'missing file': (lambda c: _array_file(c).unlink(), 'cannot be read'),
    'no meta': (lambda c: (c / 'meta' / 'metadata').unlink(), 'meta/metadata'),
    'no manifest': (lambda c: (c / manifest.NAME).unlink(), 'no manifest'),
    'manifest a folder': (_manifest_as_folder, 'manifest is unreadable'),
}


@pytest.mark.parametrize('kind', DAMAGE)
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(
    tmp_path, kind, caplog):
  harm, reason = DAMAGE[kind]
  _save(tmp_path, [2, 4])
  harm(tmp_path / 'checkpoints' / '4')
  with caplog.at_level(logging.WARNING):
    state, meta, step = _restore(tmp_path)
  assert step == 2 and meta['step'] == 2 and _equal(state, _state(2))
  said = [r.getMessage() for r in caplog.records if 'damaged' in r.getMessage()]
  assert said and 'checkpoints/4: ' in said[0] and reason in said[0]


@pytest.mark.parametrize('kind', DAMAGE)
def test_without_any_whole_checkpoint_nothing_starts_afresh(tmp_path, kind):
  harm, reason = DAMAGE[kind]
  _save(tmp_path, [2, 4])
  for step in ('2', '4'):
    harm(tmp_path / 'checkpoints' / step)
  with pytest.raises(saved.CheckpointError) as caught:
    _restore(tmp_path)
  for part in ('checkpoints/2', 'checkpoints/4', reason):
    assert part in str(caught.value)


@pytest.mark.parametrize('harm', [_flip_bit, _manifest_as_folder])
def test_a_damaged_checkpoint_is_replaced_when_its_step_comes_again(
    tmp_path, harm):
  _save(tmp_path, [2, 4])
  harm(tmp_path / 'checkpoints' / '4')
  saver = _open(tmp_path)
  saver.restore(_abstract(_state()))
  assert saver.should_save(4)
  saver.save(4, _state(4), {})
  saver.close()
  assert _equal(_restore(tmp_path)[0], _state(4))


def test_a_damaged_checkpoint_does_not_count_among_those_kept(tmp_path):
  _save(tmp_path, [2, 4])
  _flip_bit(tmp_path / 'checkpoints' / '4')
  saver = _open(tmp_path)
  saver.restore(_abstract(_state()))
  saver.save(5, _state(5), {})
  saver.close()
  assert _steps(tmp_path) == ['2', '5']


def test_going_back_by_hand_leaves_the_abandoned_future(tmp_path):
  _save(tmp_path, [2, 4, 6], keep=3)
  saver = _open(tmp_path, keep=3)
  saver.restore(_abstract(_state()), 2)
  saver.save(3, _state(3), {})
  saver.close()
  assert _steps(tmp_path) == ['2', '3']


def test_a_fresh_run_never_overwrites_what_it_did_not_restore(tmp_path):
  _save(tmp_path, [2])
  saver = _open(tmp_path)
  with pytest.raises(saved.CheckpointError, match='2: it exists'):
    saver.save(2, _state(0), {})
  saver.close()
  assert _equal(_restore(tmp_path)[0], _state(2))


@pytest.mark.parametrize('change, path', [
    (lambda s: s.replace(params={'autoencoder': {}}),
     r'params/autoencoder/bias: \(3,\) bfloat16 in the checkpoint, absent'),
    (lambda s: s.replace(ema={'autoencoder': s.params['autoencoder']}),
     'ema/autoencoder/bias: absent in the checkpoint'),
    (lambda s: s.replace(step=jnp.zeros((), jnp.float32)),
     r'step: \(\) int32 in the checkpoint, \(\) float32 in the program'),
    (lambda s: s.replace(stats={'autoencoder': {'n': jnp.zeros((4, 2))}}),
     r'stats/autoencoder/n: absent in the checkpoint, \(4, 2\)'),
])
def test_another_tree_is_an_error_that_never_falls_back(
    tmp_path, change, path):
  _save(tmp_path, [2, 4])
  saver = _open(tmp_path)
  with pytest.raises(checkpoints_lib.TreeMismatchError, match=path) as caught:
    saver.restore(_abstract(change(_state())))
  assert 'checkpoints/4' in str(caught.value)
  saver.close()
  assert _steps(tmp_path) == ['2', '4']


# Orbax closes an event loop under a write that is still to fail.
@pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')
def test_a_full_disk_is_an_error_with_the_path_and_the_last_one_survives(
    tmp_path):
  saver = _open(tmp_path, keep=1)
  saver.save(2, _state(2), {})
  saver.wait()
  big = {'params': {str(i): jax.random.normal(jax.random.key(i), (100_000,))
                    for i in range(4)}}
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
  try:
    with pytest.raises(saved.CheckpointError,
                       match=f'could not save {tmp_path}/checkpoints/4: '):
      saver.save(4, big, {})
      saver.wait()
    saver.close()
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
  assert _equal(_restore(tmp_path)[0], _state(2))
  assert _steps(tmp_path) == ['2']  # Reopening removed the half one.


def test_a_failed_save_is_raised_at_the_next_step(tmp_path, monkeypatch):
  def full(path):
    raise OSError(28, 'No space left on device', str(path))

  saver = _open(tmp_path)
  monkeypatch.setattr(manifest, 'write', full)
  saver.save(2, _state(2), {})
  saver._thread.join()
  with pytest.raises(saved.CheckpointError, match='No space left'):
    saver.should_save(3)
  saver.close()
  assert _steps(tmp_path) == []


# Each child inherits the imports, saves step 2, and is killed by the kernel
# at a chosen moment of saving step 4. Nothing starts a backend before a fork.
KILLS = '''
import os, signal, sys
from etils import epath
from tests.training import test_checkpoints as t

def die(*_, **__): os.kill(os.getpid(), signal.SIGKILL)

def child(workdir, point, first):
  import orbax.checkpoint as ocp
  saver = t._open(workdir, keep=1)
  if not first:
    saver.save(2, t._state(2), {}); saver.wait()
  if point == 'writing': ocp.CompositeCheckpointHandler.finalize = die
  if point == 'hashing': t.manifest.write = die
  if point == 'deleting': type(epath.Path(workdir)).rmtree = die
  saver.save(4, t._state(4), {}); saver.wait()

for point in ('writing', 'hashing', 'deleting'):
  for first in (False, True):
    if point == 'deleting' and first: continue
    if not (pid := os.fork()):
      child(f'{sys.argv[1]}/{point}{int(first)}', point, first)
      os._exit(1)
    _, status = os.waitpid(pid, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL, (point, status)
'''


def test_a_killed_save_leaves_no_half_checkpoint(tmp_path, caplog):
  subprocess.run([sys.executable, '-c', KILLS, str(tmp_path)], check=True,
                 cwd=HERE.parents[1], timeout=120)
  for run, found in dict(writing0=2, hashing0=2, deleting0=4, writing1=None,
                         hashing1=None).items():
    before = _steps(tmp_path / run)
    assert len(before) == (2 if found else 1), before
    if found == 2:  # A reader that comes before the next run.
      assert saved.restore_params(tmp_path / run)[2] == 2
    restored = _restore(tmp_path / run)
    assert (restored and restored[2]) == found, run
    assert _steps(tmp_path / run) == ([str(found)] if found else [])
  assert 'removing the unfinished' in caplog.text


def test_a_part_is_read_alone(tmp_path):
  _save(tmp_path, [2, 4])
  _truncate(tmp_path / 'checkpoints' / '4')  # The optimizer, which is not read.
  read = saved.restore_params
  params, meta, step = read(tmp_path)
  assert step == 4 and meta['samples'] == 16
  assert _equal(params, jax.tree.map(np.asarray, _state(4).params))
  encoder, _, _ = read(tmp_path, 'autoencoder/encoder')
  assert list(encoder) == ['kernel']
  bias, _, _ = read(tmp_path / 'checkpoints' / '2', 'autoencoder/bias')
  assert isinstance(bias, np.ndarray) and np.all(bias == 2)
  assert read(tmp_path, 'autoencoder/0/mu', step=2, field='opt')[2] == 2
  _flip_bit(tmp_path / 'checkpoints' / '4')
  assert read(tmp_path)[2] == 2
  with pytest.raises(saved.CheckpointError, match='has changed'):
    read(tmp_path / 'checkpoints' / '4')


def test_a_wrong_part_is_refused_with_the_nearest(tmp_path):
  read = saved.restore_params
  with pytest.raises(errors.InputError, match='holds no checkpoint'):
    read(tmp_path)
  _save(tmp_path, [2, 4])
  for arguments, said in [
      (dict(subtree='autoencoder/encode'), 'choice: autoencoder/encoder'),
      (dict(field='ema'), 'not saved'),
      (dict(step=3), 'is not in .* nearest valid choice: 2|4')]:
    with pytest.raises(errors.InputError, match=said):
      read(tmp_path, **arguments)


# Two processes with two devices each: save, meet a SIGTERM that only one of
# them gets, save at the step they agree on, and leave with 0.
PAIR = '''
import os, signal, sys, time
import jax
jax.config.update('jax_num_cpu_devices', 2)
index, port, workdir = int(sys.argv[1]), sys.argv[2], sys.argv[3]
jax.distributed.initialize(f'localhost:{port}', 2, index)
import jax.numpy as jnp
from vitok.training import preemption
from tests.training import test_checkpoints as t
mesh = jax.make_mesh((4,), ('a',), axis_types=(jax.sharding.AxisType.Auto,))
placed = jax.NamedSharding(mesh, jax.P('a'))
make = jax.jit(lambda x: {'params': {'w': jnp.arange(16.) + x}},
               out_shardings={'params': {'w': placed}})
saver = t._open(workdir, every=2)
with preemption.Preemption() as stop:
  for step in range(1, 200):
    state = make(step)
    if step in (2, 4): saver.save(step, state, {})
    if step == 5 and index == 1: os.kill(os.getpid(), signal.SIGTERM)
    if stop.preempted(): break
    time.sleep(.05)
saver.save(step, state, {})
restored, meta, found = saver.restore(t._abstract(state, placed))
assert found == step
local = restored['params']['w'].addressable_shards
assert [float(s.data[0]) for s in local] == [
    step + 4 * s.index[0].start // 4 for s in local]
saver.close()
print('stopped at', step)
'''


def test_two_processes_stop_at_one_step_and_one_process_goes_on(tmp_path):
  with socket.socket() as free:
    free.bind(('localhost', 0))
    port = free.getsockname()[1]
  pair = [subprocess.Popen(
      [sys.executable, '-c', PAIR, str(index), str(port), str(tmp_path)],
      stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
      cwd=HERE.parents[1]) for index in range(2)]
  try:
    said = [process.communicate(timeout=120) for process in pair]
  finally:
    for process in pair:
      process.kill()
  assert [process.returncode for process in pair] == [0, 0], said
  step, other = (int(out.split('stopped at')[1]) for out, _ in said)
  assert 5 < step == other < 199
  saver = _open(tmp_path)
  state, _, found = saver.restore(
      {'params': {'w': jax.ShapeDtypeStruct((16,), jnp.float32)}})
  saver.close()
  assert found == step
  np.testing.assert_array_equal(state['params']['w'], np.arange(16.) + step)
  assert _steps(tmp_path) == sorted(['4', str(step)])


def test_a_signal_while_saving_does_not_harm_the_save(tmp_path):
  saver = _open(tmp_path)
  before = signal.signal(signal.SIGTERM, lambda *_: None)
  try:
    saver.save(2, _state(2), {})
    os.kill(os.getpid(), signal.SIGTERM)
    saver.close()
  finally:
    signal.signal(signal.SIGTERM, before)
  assert _equal(_restore(tmp_path)[0], _state(2))


def test_a_relative_workdir_is_as_good_as_an_absolute_one(
    tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  _save('run', [2])
  assert saved.restore_params('run')[2] == 2
