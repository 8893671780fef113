"""Objectives of other kinds go through the same trainer as reconstruction."""

import numpy as np
import pytest

from tests import runs
from tests.tasks import toys
from vitok import errors, tasks
from vitok.interop import saved
from vitok.training import preemption, trainer


@pytest.fixture(autouse=True)
def registered(monkeypatch):
  """One line each, as a real task is added."""
  for name, toy in toys.TOYS.items():
    monkeypatch.setitem(tasks.TASKS, name, toy)


def config(name, **changes):
  options = {'task': name, 'total_steps': 30, 'checkpoint__every': 100,
             'logging__every': 5, 'optimizer__learning_rate': 0.1,
             'optimizer__weight_decay': 0.0, 'ema_decay': 0.0}
  return runs.tiny(**options | changes)


@pytest.mark.parametrize('name', toys.TOYS)
def test_a_toy_task_learns_and_resumes_bit_for_bit(
    name, tmp_path, monkeypatch):
  programs = {}
  whole, parts = tmp_path / 'whole', tmp_path / 'parts'
  trainer.train(config(name), whole, programs=programs)
  with monkeypatch.context() as patch:
    polls = iter(range(1000))
    patch.setattr(preemption.Preemption, 'preempted',
                  lambda self: next(polls) >= 11)
    trainer.train(config(name), parts, programs=programs)
  trainer.train(config(name), parts, programs=programs)
  runs.assert_same(parts, whole)
  losses = [line.get('train/loss', 0) for line in runs.lines(whole)]
  if name == 'gan':  # The generator starts at white and moves to the data.
    mean = saved.restore_params(whole)[0]['generator']['mean']
    assert (mean < 0.8).all()
  else:
    assert np.mean(losses[-3:]) < np.mean(losses[:3])


def test_a_player_sits_out_the_steps_that_are_not_its_own(tmp_path):
  programs = {}
  options = dict(checkpoint__every=1, checkpoint__keep=9, total_steps=3)
  trainer.train(config('gan', **options), tmp_path, programs=programs)
  w1, w2, w3 = (saved.restore_params(tmp_path, step=step)[0]
                ['discriminator']['w'] for step in (1, 2, 3))
  assert (w1 != 0).all() and (w2 == w1).all() and (w3 != w2).all()


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
