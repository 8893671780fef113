"""Runs on one device, and workdirs of runs that were never trained."""

import contextlib
import pathlib
import shutil
from collections.abc import Iterator

import jax
import pytest

from tests import runs, stand_ins
from vitok import config as config_lib
from vitok import files, tasks
from vitok.tasks import tokenizer
from vitok.training import checkpoints, program, trainer

SIDE = runs.TINY['data.resolution']  # Pixels.
DIT = {
    'task': 'generation', 'dit.name': 'F', 'dit.width': 32, 'dit.heads': 2,
    'dit.depth': 1, 'diffusion.steps': 3, 'generation.count': 5,
    'generation.batch_size': 8, 'data.crop': 'center', 'data.flip': False,
    'evaluation.count': 4, 'evaluation.batch_size': 8, 'evaluation.every': 0,
    'total_steps': 4, 'checkpoint.every': 2,
}
PROGRAMS = {}  # Of one device, compiled once for the tests of a process.


def compiled(config):
  """The config's program; to compile it for eight devices takes longer."""
  name = program.signature(config) + ''.join(
      ref.content for ref in tasks.build(config).weights.values())
  if name not in PROGRAMS:
    PROGRAMS[name] = program.Program(config, jax.devices()[:1])
  return PROGRAMS[name]


def train(config, workdir, say=lambda line: None):
  """What `trainer.train` returns, on one device."""
  compiled(config)
  return trainer.train(config, workdir, programs=PROGRAMS, say=say)


def resume(config, workdir, again, step=4):
  """Trains a copy of a finished run on, without its checkpoint of `step`."""
  shutil.copytree(workdir, again)
  (again / trainer.DONE).unlink()
  shutil.rmtree(again / f'checkpoints/{step}')
  train(config, again)


def make(workdir, steps=(3,), **changes):
  """Writes config.json and a checkpoint per step; returns the config.

  Parameters of step n are the initial ones times 1 + n / 10; the moving
  average, if there is one, is half of them.
  """
  config = runs.tiny(checkpoint__keep=len(steps), **changes)
  built = compiled(config)
  state = built.init(built.run_arguments(config))
  saver = checkpoints.Checkpoints(workdir, config.checkpoint)
  for step in steps:
    params = jax.tree.map(lambda x, s=step: x * (1 + s / 10), state.params)
    ema = jax.tree.map(lambda x: x / 2, params)
    saver.save(step, state.replace(
        params=params, ema=ema if config.ema_decay else state.ema), {})
  saver.close()
  files.write_text(workdir / 'config.json', config_lib.to_json(config))
  return config


def finished(workdir, **changes):
  """`make`s a run that counts as done; returns its workdir."""
  make(workdir, **changes)
  files.write_text(workdir / trainer.DONE, '{}')
  return workdir


@contextlib.contextmanager
def tokenized(folder, **changes) -> Iterator[pathlib.Path]:
  """The folder with a finished 'tokenizer' of initial parameters, and with
  stand-ins in the place of networks; statistics of codes are of few images."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(tokenizer, 'EXAMPLES', 64)
    stand_ins.install(patch, folder / 'weights')
    finished(folder / 'tokenizer', data__crop='center', data__flip=False,
             **changes)
    yield folder
