"""Init and one step of each config, traced without a device."""

import functools
import json
import pathlib
import re

import jax
import jax.numpy as jnp
import pytest

from tests import stand_ins
from vitok import config as config_lib
from vitok import errors, sizes, sweeps, tasks
from vitok.data import native
from vitok.tasks import tokenizer
from vitok.training import mesh, program, step

ROOT = pathlib.Path(__file__).parents[2]
CONFIGS = sorted((ROOT / 'configs').glob('*.py'))
EXPERIMENTS = sorted((ROOT / 'experiments').glob('*.py'))
PRESETS = ('cpu', 'paper')  # Only numbers differ in the others.


def _trace(config):
  """Shapes of the state, and of what an update makes of it and a batch."""
  task, side = tasks.build(config), config.data.resolution
  run = jax.eval_shape(lambda: step.Run(jax.random.key(0), jnp.float32(1),
                                        jnp.float32(1)))
  state = mesh.unbox(jax.eval_shape(
      functools.partial(step.init, task, config), run))
  spec, rows = jax.ShapeDtypeStruct, (config.batch_size,)
  image = (config.data.frames, side, side, 3)
  own = {}
  if config.data.crop == native.CROP:
    size = sizes.from_config(config.model)
    tokens = size.tokens(1, side)
    image = (1, tokens * size.patch, size.patch, 3)
    own = {'places': spec((*rows, tokens, 2), jnp.int32),
           'valid': spec((*rows, tokens), jnp.bool_)}
  batch = own | {
      'image': spec((*rows, *image), jnp.float32),
      'mask': spec(rows, jnp.bool_), 'index': spec(rows, jnp.int32),
      'group': spec(rows, jnp.int32), 'label': spec(rows, jnp.int32)}
  try:
    frozen = {name: ref.abstract() for name, ref in task.weights.items()}
  except errors.InputError as error:
    pytest.skip(f'NOT CHECKED: {error}')
  return state, *jax.eval_shape(step.make(task, config), state, batch, frozen,
                                run)


def _path(value):
  """A program's fields without sizes: what decides which code is traced."""
  if isinstance(value, dict):
    return {key: _path(item) for key, item in value.items()}
  if isinstance(value, list):
    return [_path(item) for item in value]
  if isinstance(value, str):  # S-B/1x16 is A-A/1x8; one frame is none of more.
    return re.sub(r'[A-Z](d\d+)?(?=[-/])|\b(?!1\b)\d+|(?<=x)\d+', '#', value)
  return value if value in (0, 1, None) else '#'


@functools.cache
def _traced():
  return {}


def _check(config):
  # Configs that differ in sizes alone are traced once.
  path = json.dumps(_path(json.loads(program.signature(config))))
  if path not in _traced():
    _traced()[path] = _trace(config)
  state, new, metrics = _traced()[path]
  assert new == state
  assert metrics['committed'] == state.step
  loss = metrics.get('loss', metrics.get('autoencoder/loss'))
  assert loss.shape == ()


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_a_config_file_at_its_default(path, monkeypatch, tmp_path):
  config = config_lib.load(str(path))
  if config.loss.feature_weight:  # No registry has those weights.
    stand_ins.install_dinov2(monkeypatch, tmp_path)
  if config.task == 'generation':
    config.tokenizer.workdir = tokenizer.LATER
  _check(config)


@pytest.mark.parametrize('preset', PRESETS)
@pytest.mark.parametrize('path', EXPERIMENTS, ids=lambda path: path.stem)
def test_a_unit_of_each_preset(path, preset):
  experiment = sweeps.load(f'{path}:{preset}')
  _check(experiment.resolve(experiment.units[-1]))
