"""Injected failures: what stops, what goes back, and what goes back with it."""

import jax
import numpy as np
import pytest

from tests import runs, tiny_run
from vitok import config as config_lib
from vitok import data, errors, tasks, validation
from vitok.interop import saved
from vitok.tasks import tokenizer
from vitok.training import divergence, program, trainer

PROGRAMS = {}  # Compiled once for all tests.
# Evaluates at 0 and 6, saves at 3, reads metrics at 2, 3, 4 and 6.
SHORT = {'evaluation__every': 0, 'evaluation__count': 16}
PLAIN = SHORT | {'model__bottleneck': 'deterministic'}
GAN = SHORT | {
    'task': 'adversarial', 'optimizer__groups': (
        {'match': '(encoder|bottleneck)/.*', 'frozen': True},),
    'adversarial__width': 1 / 64, 'adversarial__schedule__start': 0,
    'adversarial__schedule__ramp': 0,
    'adversarial__optimizer__warmup': 0.0,
    'adversarial__optimizer__learning_rate': 1.0,
    'adversarial__optimizer__reference_batch': 0}
LOSS = 'train/discriminator/loss'


def train(workdir, said=None, **changes):
  said = [] if said is None else said
  config = runs.tiny(**changes if 'task' in changes else PLAIN | changes)
  name = program.signature(config)
  if name not in PROGRAMS:
    PROGRAMS[name] = program.Program(config, jax.devices()[:1])
  return trainer.train(config, workdir, programs=PROGRAMS, say=said.append)


def stage1(folder):
  """What a run of stage 2 starts from: a run that was never trained."""
  tiny_run.make(folder / 'stage1')
  return {'init_from': str(folder / 'stage1')}


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """The run to which nothing happens."""
  workdir = tmp_path_factory.mktemp('whole')
  train(workdir)
  return workdir


class Faults:
  """Batch `step` is bad, at its first `times` visits.

  Attributes:
    taken: steps of the batches that were taken, in their order.
  """

  def __init__(self, monkeypatch, step, times, error=None):
    self.taken, self._left = [], times
    original = data.train_batches

    def batches(config, sharding, start):
      inner = original(config, sharding, start=start)
      try:
        for number, batch in enumerate(inner, start):
          if number == step and self._left:
            self._left -= 1
            if error is not None:
              raise error
            batch = dict(batch, image=batch['image'] * np.float32(np.nan))
          self.taken.append(number)
          yield batch
      finally:
        inner.close()
    monkeypatch.setattr(data, 'train_batches', batches)


def without_count(workdir):
  """Lines of the log; how often the run went back is told, and left out."""
  return [{key: value for key, value in line.items()
           if key != 'train/rewinds'} for line in runs.lines(workdir)]


def test_a_rewind_takes_everything_back(whole, tmp_path, monkeypatch):
  """Without noise, a run that went back is the run to which nothing happened:
  parameters, optimizer, averages, data and log."""
  faults, said = Faults(monkeypatch, step=4, times=1), []
  done = train(tmp_path, said, divergence__action='rewind')
  # The update of step 4 is read at the end; nothing after it was kept.
  assert faults.taken == [0, 1, 2, 3, 4, 5, 3, 4, 5]
  a, b = runs.leaves(tmp_path), runs.leaves(whole)
  assert a.keys() == b.keys()
  for name in a:
    np.testing.assert_array_equal(a[name], b[name], err_msg=name)
  assert without_count(tmp_path) == without_count(whole)
  assert [line.get('train/rewinds') for line in runs.lines(tmp_path)] == [
      None, None, 1, 1]
  one, = done['rewinds']
  assert (one['from'], one['to'], one['skipped']) == (6, 3, 0)
  assert 'finite again' in one['reason']  # As those of step 5 were.
  assert any('rewind 1 of 3: goes on from step 3' in line for line in said)


def test_skipping_passes_over_the_batches_since_the_checkpoint(
    tmp_path, monkeypatch):
  faults = Faults(monkeypatch, step=4, times=9)
  done = train(tmp_path, divergence__action='skip')
  assert faults.taken == [0, 1, 2, 3, 4, 5, 6, 7, 8] and done['step'] == 6
  _, meta, _ = saved.restore_params(tmp_path)
  assert [one['skipped'] for one in meta['rewinds']] == [3]


def test_noise_is_another_after_a_rewind(tmp_path, monkeypatch):
  Faults(monkeypatch, step=4, times=1)
  keys, original = [], program.Program.run_arguments

  def noted(self, *given):
    arguments = original(self, *given)
    keys.append(jax.random.key_data(arguments.key).tolist())
    return arguments
  monkeypatch.setattr(program.Program, 'run_arguments', noted)
  train(tmp_path, divergence__action='rewind')
  # For init and evaluation; for the first steps; for those after the rewind.
  first, before, after = keys
  assert first == before != after


def test_what_is_met_again_and_again_stops_the_run(tmp_path, monkeypatch):
  faults = Faults(monkeypatch, step=4, times=9)
  with pytest.raises(divergence.NonFiniteError, match='step 6') as e:
    train(tmp_path, divergence__action='rewind', divergence__limit=2)
  assert e.value.__notes__ == ['stopped after 2 rewinds']
  assert faults.taken == [0, 1, 2] + 3 * [3, 4, 5]
  assert saved.restore_params(tmp_path)[2] == 3


def test_before_the_first_checkpoint_a_run_starts_again(
    whole, tmp_path, monkeypatch):
  faults = Faults(monkeypatch, step=1, times=1)
  train(tmp_path, divergence__action='rewind')
  assert faults.taken[:5] == [0, 1, 2, 0, 1]
  assert without_count(tmp_path) == without_count(whole)


def test_a_kill_after_a_rewind_changes_nothing(tmp_path, monkeypatch):
  """The run repeats what it did since its checkpoint, or goes on from it."""
  changes = {'divergence__action': 'skip', 'total_steps': 8}
  Faults(monkeypatch, step=4, times=99)
  train(tmp_path / 'whole', **changes)
  original = trainer._Run._evaluation_due
  for step in (4, 7):  # Before and after the next save.
    def crash(self, step=step):
      if self.rewinds and self.step == step:
        raise KeyboardInterrupt
      return original(self)
    killed = tmp_path / f'killed at {step}'
    with monkeypatch.context() as patch:
      patch.setattr(trainer._Run, '_evaluation_due', crash)
      with pytest.raises(KeyboardInterrupt):
        train(killed, **changes)
    train(killed, **changes)
    runs.assert_same(killed, tmp_path / 'whole')


@pytest.mark.parametrize('action, times, taken', [
    ('stop', 1, [0, 1, 2, 3]),
    ('rewind', 1, [0, 1, 2, 3, 3, 4, 5]),  # Read well at the second try.
    ('rewind', 9, [0, 1, 2, 3, 3, 3, 3]),
    ('skip', 9, [0, 1, 2, 3, 5, 6, 7]),
])
def test_a_record_that_cannot_be_read(
    whole, tmp_path, monkeypatch, action, times, taken):
  faults = Faults(monkeypatch, 4, times, data.UnreadableError('a.jpg'))
  if taken[-1] == 3:
    with pytest.raises(data.UnreadableError, match='a.jpg'):
      train(tmp_path, divergence__action=action)
  else:
    train(tmp_path, divergence__action=action)
    same = without_count(tmp_path) == without_count(whole)
    assert same == (action == 'rewind')
  assert faults.taken == taken


@pytest.mark.parametrize('action', ['rewind', 'skip'])
def test_an_evaluation_record_that_cannot_be_read_stops_the_run(
    tmp_path, monkeypatch, action):
  """No batch of training is at fault; the checkpoint stays."""
  faults, original = Faults(monkeypatch, 99, 0), trainer._Run._evaluate

  def evaluate(self):
    if self.step == 4:
      raise data.UnreadableError('a.jpg')
    original(self)
  monkeypatch.setattr(trainer._Run, '_evaluate', evaluate)
  with pytest.raises(data.UnreadableError, match='a.jpg'):
    train(tmp_path, divergence__action=action, evaluation__every=4)
  assert faults.taken == [0, 1, 2, 3]
  assert saved.restore_params(tmp_path)[2] == 3


def test_a_gan_that_blows_up_stops_or_goes_back(tmp_path):
  """A discriminator's rate of 1 makes finite losses without end."""
  blown = stage1(tmp_path) | GAN | {
      'logging__every': 1, 'divergence__metric': LOSS,
      'divergence__above': 10.0, 'divergence__patience': 2}
  with pytest.raises(divergence.DivergedError,
                     match=f'{LOSS} is above 10 for 2 readings'):
    train(tmp_path / 'stop', **blown)
  # It was too large when step 3 was due to be saved.
  assert not saved.exist(tmp_path / 'stop')
  said = []
  with pytest.raises(divergence.DivergedError) as error:
    train(tmp_path / 'rewind', said, divergence__action='rewind',
          divergence__limit=1, **blown)
  assert error.value.__notes__ == ['stopped after 1 rewinds']
  assert any('goes on from step 0' in line for line in said)
  # The guard alone stops it: its numbers are finite.
  assert not isinstance(error.value, divergence.NonFiniteError)


def test_an_error_names_what_is_not_finite_of_several_players(
    tmp_path, monkeypatch):
  Faults(monkeypatch, step=1, times=9)
  with pytest.raises(divergence.NonFiniteError,
                     match='autoencoder/loss nan.*and [0-9]+ more'):
    train(tmp_path / 'run', **stage1(tmp_path) | GAN | {'total_steps': 2})


@pytest.mark.parametrize('changes, message', [
    ({'action': 'go on'}, "action='go on'"),
    ({'above': 1.0}, 'above=1.0.*metric'),
    ({'metric': 'train/loss'}, 'above=0.0.*train/loss'),
    ({'metric': 'train/loss', 'above': -1.0}, 'above=-1.0.*train/loss'),
    ({'patience': 0}, 'patience=0'),
    ({'metric': 'train/los', 'above': 1.0},
     "metric='train/los'.*choice: train/loss"),
    ({'metric': 'l2', 'above': 1.0}, "metric='l2'.*choice: train/l2"),
])
def test_impossible_policies_are_refused(changes, message):
  with pytest.raises(errors.InputError, match=message):
    validation.check(runs.tiny(**{
        f'divergence__{key}': value for key, value in changes.items()}))


def test_a_generator_is_guarded_before_its_tokenizer_is_read_or_trained(
    tmp_path):
  with tiny_run.tokenized(tmp_path) as place:
    for workdir in (str(place / 'tokenizer'), tokenizer.LATER):
      config = config_lib.override(runs.tiny(
          tokenizer__workdir=workdir, divergence__metric='train/loss',
          divergence__above=5.0), tiny_run.DIT)
      validation.check(config)
      config.divergence.metric = 'train/los'
      with pytest.raises(errors.InputError, match='choice: train/loss$'):
        validation.check(config)
    assert not (place / 'tokenizer/latents').exists()
    config.tokenizer.workdir = str(place / 'tokenizer')
    for config.diffusion.normalise in (True, False):
      ref = tasks.build(config).weights['tokenizer']
      loaded = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype),
                            ref.load())
      assert loaded == ref.abstract()
