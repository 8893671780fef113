"""Objectives of other kinds go through the same trainer as reconstruction."""

import numpy as np
import pytest

from tests import runs
from tests.tasks import toys
from vitok import errors, tasks
from vitok.training import checkpoints, trainer


@pytest.fixture(autouse=True)
def registered(monkeypatch):
  """One line each, as a real task is added."""
  for name, toy in toys.TOYS.items():
    monkeypatch.setitem(tasks.TASKS, name, toy)


def config(name, **changes):
  options = {'task': name, 'total_steps': 60, 'checkpoint__every': 100,
             'logging__every': 20, 'optimizer__learning_rate': 0.1,
             'optimizer__weight_decay': 0.0, 'ema_decay': 0.0}
  return runs.tiny(**options | changes)


@pytest.mark.parametrize('name', toys.TOYS)
def test_a_toy_task_learns_and_resumes_bit_for_bit(name, tmp_path):
  programs = {}
  whole, parts = tmp_path / 'whole', tmp_path / 'parts'
  trainer.train(config(name), whole, programs=programs)
  trainer.train(config(name, total_steps=25), parts, programs=programs)
  trainer.train(config(name), parts, extend=True, programs=programs)

  def stored(workdir, field):
    return checkpoints.restore_params(workdir, field=field)[0]
  for field in {'gan': ('params', 'opt', 'ema'), 'kmeans': ('stats',),
                'reinforce': ('params', 'opt', 'stats')}[name]:
    if name == 'kmeans':  # Statistics do not follow the schedule's length.
      np.testing.assert_array_equal(
          *(stored(w, field)['codebook']['sums'] for w in (whole, parts)))
  first, last = runs.lines(whole)[0], runs.lines(whole)[-1]
  if name == 'gan':  # The generator starts at white and moves to the data.
    assert (stored(whole, 'params')['generator']['mean'] < 0.8).all()
  else:
    assert last['train/loss'] < first['train/loss']


def test_a_player_sits_out_the_steps_that_are_not_its_own(tmp_path):
  trainer.train(config('gan', total_steps=1), tmp_path / 'a')
  trainer.train(config('gan', total_steps=2), tmp_path / 'b')
  a, b = (checkpoints.restore_params(tmp_path / w)[0] for w in 'ab')
  assert (a['discriminator']['w'] != 0).all()  # Plays at step 0.
  assert b['generator']['mean'].tolist() != a['generator']['mean'].tolist()


def test_players_metrics_carry_their_names(tmp_path):
  trainer.train(config('gan', total_steps=2, logging__every=1), tmp_path)
  line = runs.lines(tmp_path)[-1]
  assert {'train/generator/loss', 'train/discriminator/loss',
          'train/generator/gradient_norm'} <= set(line)


@pytest.mark.parametrize('name', ['kmeans', 'reinforce'])
def test_accumulation_refuses_what_is_not_a_mean(name, tmp_path):
  with pytest.raises(errors.InputError, match='accumulate'):
    trainer.train(config(name, batch_size=16, optimizer__accumulate=2),
                  tmp_path)
