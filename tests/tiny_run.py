"""A run's workdir without training: checkpoints of initial parameters."""

import jax

from tests import runs
from vitok import config as config_lib
from vitok import files
from vitok.training import checkpoints, program

SIDE = runs.TINY['data.resolution']  # Pixels.


def make(workdir, steps=(3,), **changes):
  """Writes config.json and a checkpoint per step; returns the config.

  Parameters of step n are the initial ones times 1 + n / 10; the moving
  average, if there is one, is half of them.
  """
  config = runs.tiny(checkpoint__keep=len(steps), **changes)
  built = program.Program(config)
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
