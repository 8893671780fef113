"""A trained auto-encoder as a frozen part of another task.

Its parameters are a frozen network's weights (`base.WeightRef`): an argument
of the step, in no checkpoint of the run that uses them. With them come mean
and deviation of each channel of its codes, measured once, by the same rule on
every machine, and kept in the tokenizer's workdir.

Dimensions: B batch, L tokens, c channels of the code.
"""

import hashlib
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from etils import epath
from jax.experimental import multihost_utils

from vitok import config as config_lib
from vitok import accounting, data, errors, files, models
from vitok.tasks import base
from vitok.training import checkpoints, manifest

LATER = '@after'  # A workdir that another unit of a sweep will fill.
EXAMPLES = 2048  # Of the channels' statistics.
_BATCH = 32
# What may differ from the run that trained it: how, not what is computed.
_FREE = ('attention', 'remat', 'scan', 'dtype')


class Frozen:
  """The tokenizer of a config.

  Args:
    config: of the run that uses it. `tokenizer` says where it lies; `model`,
      `data.resolution` and `data.frames` must be those it was trained with.

  Attributes:
    model: the Linen module.
    reference: what the trainer loads: 'variables' of the model, and the 'mean'
      and 'deviation' (c,) of its codes.

  Raises:
    InputError: no finished run of an auto-encoder, or another one than
      `config.model` says.
  """

  def __init__(self, config: Any):
    self._config = config
    self.model = models.build(config.model, frames=config.data.frames,
                              resolution=config.data.resolution)
    if config.tokenizer.workdir != LATER:
      self._own = _read(config.tokenizer.workdir)
      _check_same(config, self._own)
      self._folder = _checkpoint(config.tokenizer)

  @property
  def reference(self) -> base.WeightRef:
    if self._config.tokenizer.workdir == LATER:
      raise errors.InputError('config.tokenizer.workdir', LATER,
                              'is what a sweep puts a workdir in place of')
    return base.WeightRef(str(self._folder), self.sha256, self._load)

  @property
  def sha256(self) -> str:
    """Of the parameters' files, as the checkpoint's manifest lists them."""
    stored = json.loads((self._folder / manifest.NAME).read_text())['files']
    return hashlib.sha256(repr(sorted(
        (name, entry['sha256']) for name, entry in stored.items()
        if name.split('/')[0] in (self._field, 'stats'))).encode()).hexdigest()

  @property
  def grid(self) -> tuple[int, int, int]:
    """Tokens of the code along time, height and width; a list is one row."""
    latents = self.model.size.latents
    return (1, 1, latents) if latents else self.model.grid

  @property
  def floats(self) -> int:
    """Of a code, the paper's E."""
    return int(np.prod(self.grid)) * self.model.size.channels

  def encode(self, frozen: Any, batch: base.Batch,
             keys_B: jax.Array | None) -> jax.Array:
    """Codes (B, L, c), float32: of images, or those that the batch holds.

    Args:
      frozen: what `reference` loads.
      batch: with 'image' (B, T, H, W, C), or 'code' (B, L, c) from a cache.
      keys_B: (B,) keys of the posterior's samples; `None`: its means.
    """
    if 'code' in batch:
      return batch['code']
    return self.model.apply(frozen['variables'], batch['image'], keys=keys_B,
                            train=keys_B is not None, method='encode').z

  def decode(self, frozen: Any, z_BxLxc: jax.Array) -> jax.Array:
    """Images (B, T, H, W, C) of codes, about [-1, 1], not clipped."""
    return self.model.apply(frozen['variables'], z_BxLxc, method='decode')

  def cost(self) -> dict[str, Any]:
    """'parameters', and FLOPs of a forward pass to 'encode' and 'decode'."""
    model, shape = self._config.model, self._config.data
    kind = models.BOTTLENECKS[model.bottleneck]
    cost = accounting.describe(
        self.model.size, shape.frames, shape.resolution,
        **{name: model[name] for name in accounting.OPTIONS},
        code_projection=kind.code_projection)
    parts = cost['flops']['by_part']['forward']
    width = self.model.size.decoder.width
    up = 2 * self.floats * width  # The rest of the bottleneck is the encoder's.
    return {'parameters': cost['parameters'],
            'encode': parts['encoder'] + parts['bottleneck'] - up,
            'decode': parts['decoder'] + up}

  @property
  def _field(self):
    return 'ema' if self._own.ema_decay else 'params'

  def variables(self) -> dict[str, Any]:
    """Parameters (the moving average if there is one) and statistics."""
    read = lambda field: checkpoints.restore_params(
        self._folder, base.AUTOENCODER, field=field)[0]
    shape = self._config.data
    made = jax.eval_shape(self.model.init, jax.random.key(0),
                          jax.ShapeDtypeStruct((
                              1, shape.frames, *2 * (shape.resolution,), 3),
                              jnp.float32))
    stats = read('stats') if set(made) - {'params'} else {}
    return {'params': read(self._field), **stats}

  def _load(self):
    variables = self.variables()
    mean_c, deviation_c = self._statistics(variables)
    return {'variables': variables, 'mean': mean_c, 'deviation': deviation_c}

  def _statistics(self, variables):
    """Mean and deviation (c,) of codes, float32; measured if not yet stored.

    Of `EXAMPLES` training examples, drawn and augmented by a seed of their
    own, encoded on this process's first device. Process 0 tells the others.
    """
    config = self._config
    path = epath.Path(config.tokenizer.workdir) / 'latents' / (
        f'{self._statistics_id()[:16]}.json')
    found = np.zeros((2, self.model.size.channels), np.float32)
    if jax.process_index() == 0:
      if path.exists():
        stored = json.loads(path.read_text())
      else:
        stored = measure(self, variables, config)
        try:
          files.write_text(path, json.dumps(stored, indent=1) + '\n',
                           replace=False)
        except OSError as error:  # Then it is measured again next time.
          logging.warning('%s cannot be written: %s', path, error)
      found[:] = stored['mean'], stored['deviation']
    if jax.process_count() > 1:
      found = multihost_utils.broadcast_one_to_all(found)
    return tuple(np.asarray(found))

  def _statistics_id(self):
    """Hash of all that the statistics depend on."""
    config = self._config
    transforms = [value for key, value in sorted(config_lib.flatten(
        config.data).items()) if key not in (
            'sources', 'workers', 'prefetch')]
    return hashlib.sha256(repr([
        self.sha256, config.tokenizer.sample, EXAMPLES, transforms,
        data.fingerprint(config, 'train')]).encode()).hexdigest()


def measure(frozen: Frozen, variables: Any, config: Any) -> dict[str, Any]:
  """Mean and deviation of each channel of a tokenizer's codes.

  Returns:
    {'mean', 'deviation': lists of c numbers, 'examples'}.
  """
  config = config.copy_and_resolve_references()
  config.unlock()
  config.seed, config.batch_size = 0, _BATCH
  variables = jax.device_put(variables, jax.local_devices()[0])
  key = jax.random.key(0)

  @jax.jit
  def encode(variables, batch, rows):
    keys = base.example_keys(key, rows) if config.tokenizer.sample else None
    return frozen.encode({'variables': variables}, batch, keys)

  count = sums = squares = 0
  for step in range(EXAMPLES // _BATCH):
    batch = data.host_batch(config, step)
    inputs = {name: batch[name] for name in ('image', 'code') if name in batch}
    rows = np.arange(step * _BATCH, (step + 1) * _BATCH, dtype=np.int32)
    z_BxLxc = np.asarray(encode(variables, inputs, rows), np.float64)
    count += z_BxLxc.shape[0] * z_BxLxc.shape[1]
    sums = sums + z_BxLxc.sum((0, 1))
    squares = squares + np.square(z_BxLxc).sum((0, 1))
  mean = sums / count
  # A channel that no code uses (its posterior is the prior's mean) stays so.
  deviation = np.sqrt(np.maximum(squares / count - mean**2, 1e-12))
  return {'mean': mean.tolist(), 'deviation': deviation.tolist(),
          'examples': EXAMPLES}


def _read(workdir):
  """The config of a finished run of an auto-encoder."""
  key = 'config.tokenizer.workdir'
  if not workdir:
    raise errors.InputError(key, '', 'names no run: a generator needs a '
                            'trained tokenizer', 'runs/sb16')
  path = epath.Path(workdir)
  if not (path / 'config.json').exists():
    folder = path if path.is_dir() else path.parent
    runs = [str(p.parent) for p in folder.glob('*/config.json')]
    raise errors.InputError(key, workdir, 'holds no run (no config.json)',
                            errors.nearest(workdir, sorted(runs)))
  own = config_lib.read(path / 'config.json')
  if own.task == 'generation':
    raise errors.InputError(key, workdir, 'is a generator, not a tokenizer',
                            own.tokenizer.workdir)
  if not (path / 'DONE').exists():
    raise errors.InputError(
        key, workdir, 'is not finished: it holds no DONE; go on with '
        f'`python -m vitok.train --config=... --workdir={workdir}`')
  return own


def _check_same(config, own):
  """Refuses a config that describes another tokenizer."""
  def of(config):
    return {f'config.{key}': value for key, value in config_lib.flatten({
        'model': config.model.to_dict(),
        'data': {key: config.data[key] for key in ('resolution', 'frames')},
    }).items() if key.removeprefix('model.') not in _FREE}
  mine, theirs = of(config), of(own)
  for key, value in mine.items():
    if value != theirs[key]:
      raise errors.InputError(
          key, value, f'is not that of the tokenizer in '
          f'{config.tokenizer.workdir}', theirs[key])


def _checkpoint(tokenizer):
  """The folder of the checkpoint that is meant."""
  folder = checkpoints.absolute(tokenizer.workdir) / checkpoints.DIRECTORY
  steps = sorted(int(path.name) for path in folder.glob('*')
                 if path.name.isdigit() and (path / manifest.NAME).exists())
  if not steps:
    raise errors.InputError('config.tokenizer.workdir', tokenizer.workdir,
                            'holds no checkpoint')
  step = tokenizer.checkpoint or steps[-1]
  if step not in steps:
    raise errors.InputError('config.tokenizer.checkpoint', step,
                            f'is not in {folder}', errors.nearest(step, steps))
  return folder / str(step)
