"""The loop's contract: order, resumption, stops, and what it leaves behind."""

import json
import shutil

import jax
import numpy as np
import pytest
from jax._src import array as jax_array

from tests import runs, tiny_run
from vitok import data, errors
from vitok.interop import saved
from vitok.training import (
    divergence,
    preemption,
    program,
    starting,
    trainer,
)


@pytest.fixture(scope='module')
def programs():
  """Compiled once for all tests of this file, on one device: it is faster."""
  config = runs.tiny()
  return {program.signature(config): program.Program(
      config, jax.devices()[:1])}


@pytest.fixture(scope='module')
def whole(programs, tmp_path_factory):
  """An uninterrupted run."""
  workdir = tmp_path_factory.mktemp('whole')
  trainer.train(runs.tiny(), workdir, programs=programs)
  return workdir


def stop_at_poll(monkeypatch, number):
  """As a SIGTERM would: the flag is up from this poll on."""
  polls = []

  def preempted(self):
    polls.append(1)
    return len(polls) >= number
  monkeypatch.setattr(preemption.Preemption, 'preempted', preempted)


def test_the_workdir_holds_what_analysis_needs(whole):
  names = {path.name for path in whole.iterdir()}
  assert {'config.json', 'model.json', 'metrics.jsonl', 'checkpoints',
          'evaluation', 'DONE'} <= names
  done = json.loads((whole / 'DONE').read_text())
  assert done['step'] == 6 and done['metrics']['eval/psnr'] > 0
  assert set(done['seconds']) >= {'compile', 'step', 'data', 'eval',
                                  'checkpoint'}
  model = json.loads((whole / 'model.json').read_text())
  assert model['train_flops'] == model['flops']['train_step'] * 8 * 6
  assert model['provenance']['versions']['jax'] == jax.__version__


def test_each_step_has_one_line_with_its_update_and_its_evaluation(whole):
  lines = runs.lines(whole)
  assert [line['step'] for line in lines] == [0, 2, 4, 6]
  assert [('train/loss' in line, 'eval/psnr' in line) for line in lines] == [
      (False, True), (True, False), (True, True), (True, True)]


def test_training_learns(whole):
  lines = runs.lines(whole)
  assert lines[-1]['eval/psnr'] > lines[0]['eval/psnr']


@pytest.mark.parametrize('poll', [1, 2, 4, 5, 7, 9])
def test_a_stopped_run_goes_on_bit_for_bit(
    whole, programs, tmp_path, monkeypatch, poll):
  # Polls: twice in evaluation 0 (24 images by 16), at steps 0..4, in
  # evaluation 4, and so on; so stops fall in evaluations and between steps.
  with monkeypatch.context() as patch:
    stop_at_poll(patch, poll)
    stopped = trainer.train(runs.tiny(), tmp_path, programs=programs)
  assert stopped['preempted'] and not (tmp_path / 'DONE').exists()
  done = trainer.train(runs.tiny(), tmp_path, programs=programs)
  assert done['step'] == 6
  runs.assert_same(tmp_path, whole)


def test_lines_after_the_restored_checkpoint_are_dropped(
    whole, programs, tmp_path, monkeypatch):
  def crash(self):
    if self.step == 5:
      raise KeyboardInterrupt  # After line 4 was written, without a save.
    return original(self)
  original = trainer._Run._evaluation_due
  with monkeypatch.context() as patch:
    patch.setattr(trainer._Run, '_evaluation_due', crash)
    with pytest.raises(KeyboardInterrupt):
      trainer.train(runs.tiny(), tmp_path, programs=programs)
  assert [line['step'] for line in runs.lines(tmp_path)] == [0, 2, 4]
  trainer.train(runs.tiny(), tmp_path, programs=programs)
  runs.assert_same(tmp_path, whole)


def test_a_finished_run_is_not_trained_again(whole, monkeypatch):
  monkeypatch.setattr(trainer, '_Run', None)
  assert trainer.train(runs.tiny(), whole)['step'] == 6


def test_more_steps_need_the_flag(whole, programs, tmp_path):
  trainer.train(runs.tiny(), tmp_path, programs=programs)
  with pytest.raises(errors.InputError, match='--extend'):
    trainer.train(runs.tiny(total_steps=8), tmp_path, programs=programs)
  done = trainer.train(runs.tiny(total_steps=8), tmp_path, extend=True,
                       programs=programs)
  assert done['step'] == 8
  assert [line['step'] for line in runs.lines(tmp_path)] == [0, 2, 4, 6, 8]


def test_a_done_that_was_cut_off_is_written_again(whole, programs, tmp_path):
  shutil.copytree(whole, tmp_path / 'run')
  (tmp_path / 'run' / 'DONE').write_text('')
  done = trainer.train(runs.tiny(), tmp_path / 'run', programs=programs)
  assert done == json.loads((tmp_path / 'run' / 'DONE').read_text())
  assert done['metrics'] == json.loads((whole / 'DONE').read_text())['metrics']
  runs.assert_same(tmp_path / 'run', whole)


def test_another_seed_gives_another_run(whole, programs, tmp_path):
  trainer.train(runs.tiny(seed=1), tmp_path, programs=programs)
  assert runs.lines(tmp_path)[-1] != runs.lines(whole)[-1]


def poisoned(monkeypatch, step, pixel):
  """Batch `step` holds `pixel` in one place."""
  original = data.train_batches

  class Batches:
    def __init__(self, config, sharding, start):
      self._inner, self._step = original(config, sharding, start=start), start

    def __next__(self):
      batch = dict(next(self._inner))
      if self._step == step:
        image = np.array(batch['image'])
        image[0, 0, 0, 0, 0] = pixel
        batch['image'] = jax.device_put(image, batch['image'].sharding)
      self._step += 1
      return batch

    def close(self):
      self._inner.close()
  monkeypatch.setattr(data, 'train_batches', Batches)


def test_a_non_finite_loss_stops_and_leaves_the_last_good_checkpoint(
    programs, tmp_path, monkeypatch):
  poisoned(monkeypatch, 4, np.nan)
  with pytest.raises(divergence.NonFiniteError, match='up to step 6'):
    trainer.train(runs.tiny(evaluation__every=0), tmp_path,
                  programs=programs)
  params, _, step = saved.restore_params(tmp_path)
  assert step == 3
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))


def test_a_data_error_stops_the_run_before_another_update(
    programs, tmp_path, monkeypatch):
  original = data.train_batches

  def failing(config, sharding, start):
    def batches():
      inner = original(config, sharding, start=start)
      yield next(inner)
      yield next(inner)
      inner.close()
      raise data.UnreadableError('a.jpg')
    return batches()
  monkeypatch.setattr(data, 'train_batches', failing)
  with pytest.raises(data.UnreadableError, match='a.jpg'):
    trainer.train(runs.tiny(logging__every=1), tmp_path, programs=programs)
  assert runs.lines(tmp_path)[-1]['step'] <= 2


def test_nothing_is_read_from_the_device_between_logging_steps(
    programs, tmp_path, monkeypatch):
  reads, at_step = [], []
  value = jax_array.ArrayImpl._value

  def counted(self):
    reads.append(at_step[-1] if at_step else None)
    return value.fget(self)
  profile = trainer._Run._profile

  def noted(self):
    at_step.append(self.step)
    profile(self)
  monkeypatch.setattr(jax_array.ArrayImpl, '_value', property(counted))
  monkeypatch.setattr(trainer._Run, '_profile', noted)
  trainer.train(runs.tiny(evaluation__every=0, checkpoint__every=100,
                          logging__every=4),
                tmp_path, programs=programs)
  # `_profile` runs before the update of its step; line 4 is read after the
  # dispatch of step 4, hence counted there. 5 precedes the last evaluation.
  assert at_step == [0, 1, 2, 3, 4, 5]
  assert set(reads) <= {None, 4, 5} and 4 in reads


def test_init_from_tells_what_fits_and_is_recorded(programs, tmp_path):
  said, source = [], tmp_path / 'source'
  tiny_run.make(source, model__decoder__depth=2)
  config = runs.tiny(init_from=str(source), total_steps=1)
  trainer.train(config, tmp_path / 'run', programs=programs, say=said.append)
  told = next(line for line in said if line.startswith('init_from'))
  assert 'parameters taken' in told and 'decoder/blocks' in told
  model = json.loads((tmp_path / 'run' / 'model.json').read_text())
  assert model['origin']['workdir'] == str(source)
  assert model['origin']['step'] == 3
  assert model['origin']['parameters'] == 'moving average'
  assert ', moving average parameters:' in told


def test_init_from_takes_what_the_source_is_evaluated_with(tmp_path):
  """Its moving average; the parameters where it keeps none."""
  for decay, field in ((0.9, 'ema'), (0.0, 'params')):
    source = tmp_path / field
    config = tiny_run.make(source, ema_decay=decay)
    config.init_from = str(source)
    built = tiny_run.compiled(config)
    state, origin = starting.from_run(
        built.init(built.run_arguments(config)), config, print)
    stored = runs.leaves(source)
    for name, value in saved.flat(state.params).items():
      np.testing.assert_array_equal(value, stored[f'{field}/{name}'])
    assert origin['parameters'] == (
        'moving average' if decay else 'trained')


def test_a_run_goes_on_without_its_source_and_from_another_folder(
    whole, programs, tmp_path, monkeypatch):
  shutil.copytree(whole, tmp_path / 'source')
  config = runs.tiny(init_from='source', total_steps=1)
  monkeypatch.chdir(tmp_path)
  trainer.train(config, tmp_path / 'run', programs=programs)
  trainer.train(config, tmp_path / 'run')  # Compares equal to what it stored.
  assert config.init_from == 'source'
  stored = json.loads((tmp_path / 'run' / 'config.json').read_text())
  assert stored['init_from'] == str(tmp_path / 'source')
  shutil.rmtree(tmp_path / 'source')
  monkeypatch.chdir('/')
  more = runs.tiny(init_from=stored['init_from'], total_steps=2)
  done = trainer.train(more, tmp_path / 'run', extend=True, programs=programs)
  assert done['step'] == 2


def test_init_from_a_model_without_common_parameters_is_refused(
    whole, programs, tmp_path):
  config = runs.tiny(init_from=str(whole), init_subtree='autoencoder/nothing')
  with pytest.raises(errors.InputError, match='nothing'):
    trainer.train(config, tmp_path, programs=programs)


def test_a_profile_window_leaves_a_trace(programs, tmp_path):
  trainer.train(runs.tiny(total_steps=3, profile__first=1, profile__steps=1),
                tmp_path, programs=programs)
  assert list((tmp_path / 'profile').rglob('*.xplane.pb'))


def test_tensorboard_events_hold_the_same_numbers(programs, tmp_path):
  trainer.train(runs.tiny(logging__tensorboard=True), tmp_path,
                programs=programs)
  from tensorboard.backend.event_processing import event_accumulator
  from tensorboard.util import tensor_util
  events = event_accumulator.EventAccumulator(str(tmp_path))
  events.Reload()
  lines = {line['step']: line for line in runs.lines(tmp_path)}
  tensor = events.Tensors('eval/psnr')[-1]
  assert tensor.step == 6
  value = tensor_util.make_ndarray(tensor.tensor_proto).item()
  assert value == pytest.approx(lines[6]['eval/psnr'], rel=1e-6)
