"""A few training steps of a tiny auto-encoder on any mesh, for tests."""

import math
from typing import Any

import jax
import numpy as np

from vitok import config as config_lib
from vitok.training import program as program_lib


def config(replica: int = 1, fsdp: int = 1, tensor: int = 1, *,
           width: int = 64, depth: int = 2, heads: int = 2,
           **overrides: Any) -> Any:
  """Two equal towers on clips of one 16x16 frame, 16 tokens of 4x4 pixels.

  Args:
    replica: mesh axis, as are fsdp and tensor.
    fsdp: see above.
    tensor: see above.
    width: of both towers, as are depth and heads.
    depth: see above.
    heads: see above.
    **overrides: other fields; '__' stands for the dot.
  """
  tower = dict(width=width, depth=depth, heads=heads)
  fields = {
      'model.name': 'S-S/4', 'data.resolution': 16, 'batch_size': 16,
      'total_steps': 8, 'optimizer.learning_rate': 1e-3,
      'optimizer.reference_batch': 0, 'optimizer.warmup': 0.0,
      'mesh.replica': replica, 'mesh.fsdp': fsdp, 'mesh.tensor': tensor,
      'sharding.fsdp_min_size': 1024, 'ema_decay': 0.9,
      **{f'model.{side}.{key}': value for side in ('encoder', 'decoder')
         for key, value in tower.items()},
      **{key.replace('__', '.'): value for key, value in overrides.items()}}
  made = config_lib.default()
  made.update_from_flattened_dict(fields)
  return made


def program(made: Any) -> program_lib.Program:
  """The config's program, on the first devices if its mesh is smaller."""
  size = math.prod(made.mesh.values())
  return program_lib.Program(made, jax.devices()[:size])


def _numpy_batch(made, step):
  rng, rows = np.random.default_rng(step), made.batch_size
  size = made.data.resolution
  return {
      'image': rng.uniform(-1, 1, (rows, 1, size, size, 3)).astype('float32'),
      'mask': np.ones(rows, bool),
      'index': np.arange(rows, dtype='int32') + step * rows,
      'group': np.arange(rows, dtype='int32') + step * rows}


def batch(made: Any, sharding: jax.sharding.Sharding, step: int) -> Any:
  """The batch of a step: numbers which do not know of the mesh."""
  return jax.tree.map(lambda x: jax.make_array_from_callback(
      x.shape, sharding, lambda rows: x[rows]), _numpy_batch(made, step))


def abstract_batch(made: Any, sharding: jax.sharding.Sharding) -> Any:
  """Shapes and sharding of `batch`."""
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(
      x.shape, x.dtype, sharding=sharding), _numpy_batch(made, 0))


def compiled_step(made: Any, at: program_lib.Program) -> Any:
  """The config's step, ahead of any batch."""
  return at.compile_step(abstract_batch(made, at.batch_sharding),
                         at.run_arguments(made))


def losses(made: Any, at: program_lib.Program | None = None,
           steps: int = 4) -> list[float]:
  """The loss of each step from the config's first state."""
  at = at or program(made)
  arguments = at.run_arguments(made)
  state, step, found = at.init(arguments), compiled_step(made, at), []
  for number in range(steps):
    state, metrics = step(state, batch(made, at.batch_sharding, number),
                          at.frozen, arguments)
    found.append(float(metrics['loss']))
  return found
