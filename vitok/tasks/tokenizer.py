"""A trained auto-encoder as a frozen part of another task.

Its parameters are a frozen network's weights (`base.WeightRef`): an argument
of the step, in no checkpoint of the run that uses them. With them come mean
and deviation of each channel of its codes. They are the tokenizer's own: of
codes of the images that it was trained on, measured once, by the same rule on
every machine, and kept in its workdir as `latents/<step>-<sample or mean>.json`
for whoever uses it next, with or without the data. Where cached codes are
trained on, they are those of the codes, which lie beside them.

Dimensions: B batch, L tokens, c channels of the code.
"""

import functools
import hashlib
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from etils import epath
from flax import linen as nn
from jax.experimental import multihost_utils
from jax.sharding import AxisType

from vitok import accounting, data, errors, files, models
from vitok import config as config_lib
from vitok.accounting import flops
from vitok.data import codes, native, splits
from vitok.interop import manifest, saved
from vitok.tasks import base, reuse

LATER = '@after'  # A workdir that another unit of a sweep will fill.
EXAMPLES = 2048  # Of the channels' statistics.
_BATCH = 32


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
      `config.model` says, or images that are to keep their own size.
  """

  def __init__(self, config: Any):
    self._config = config
    _check_crops(config)
    self.model = models.build(config.model, frames=config.data.frames,
                              resolution=config.data.resolution)
    if config.tokenizer.workdir != LATER:
      self._own = _read(config.tokenizer.workdir)
      reuse.check(config, self._own,
                  f'the tokenizer in {config.tokenizer.workdir}',
                  also=('data.resolution', 'data.frames'))
      self._folder = _checkpoint(config.tokenizer)
      self._check_codes()
      self._check_source()

  @property
  def reference(self) -> base.WeightRef:
    if self._config.tokenizer.workdir == LATER:
      return base.WeightRef(LATER, '', self._load, shapes=self._shapes)
    return base.WeightRef(str(self._folder), self.sha256, self._load,
                          self._which_statistics, self._shapes)

  @property
  def _which_statistics(self):
    """Of `_load`: none, those of cached codes, or what these are kept as."""
    if not self._config.diffusion.normalise:
      return ''
    cached = self._statistics_of_cached
    if cached is None:
      return self._kind
    return hashlib.sha256(cached.tobytes()).hexdigest()

  @property
  def _kind(self):
    return 'sample' if self._config.tokenizer.sample else 'mean'

  @property
  def _statistics_of_cached(self):
    """(2, c) of the codes that are trained on; None if they are made."""
    cached = [stored for key, _, stored in self._cached
              if key == 'data.sources']
    return (codes.statistics(cached, self._config.data.weights) if cached
            else None)

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

  def _check_codes(self):
    """Refuses cached codes of another tokenizer."""
    config = self._config
    for key, source, stored in self._cached:
      if stored['sha256'] != self.sha256:
        raise errors.InputError(
            f'config.{key}', source, 'holds codes of another tokenizer than '
            f'{self._folder}: of {stored["tokenizer"]}')
      if config.tokenizer.sample:
        raise errors.InputError('config.tokenizer.sample', True, f'{source} '
                                'holds means, of which none is drawn', False)

  def _check_source(self):
    """Refuses to scale codes by what cannot be known of them."""
    config = self._config
    done = json.loads((self._folder.parents[1] / 'DONE').read_text())
    if config.diffusion.normalise and done.get('source') == '' and not any(
        key == 'data.sources' for key, _, _ in self._cached):
      raise errors.InputError(
          'config.tokenizer.workdir', config.tokenizer.workdir,
          'was converted without --source, so that nothing says which images '
          'the mean and deviation of its codes are of',
          'tools/convert_weights.py with --source=tfds:imagenet2012, or '
          '--config.data.sources=codes:DIR of vitok.encode')

  @functools.cached_property
  def _cached(self):
    """(key, source, manifest) of the config's sources that are codes."""
    config = self._config
    asked = [('data.sources', source, config.data.split)
             for source in config.data.sources]
    asked.append(('evaluation.source', config.evaluation.source,
                  config.evaluation.split))
    return [(key, source, codes.read_manifest(
        source.removeprefix(codes.PREFIX),
        splits.parse(f'config.{key}', split).name))
            for key, source, split in asked if source.startswith(codes.PREFIX)]

  def encode(self, frozen: Any, batch: base.Batch,
             keys_B: jax.Array | None) -> jax.Array:
    """Codes (B, L, c), float32: of images, or what the batch holds of them.

    Args:
      frozen: what `reference` loads.
      batch: with 'image' (B, T, H, W, C), or 'code' from a cache: (B, L, c), or
        the integers (B, L, K) of a discrete code.
      keys_B: (B,) keys of the posterior's samples; `None`: its means.
    """
    if 'code' not in batch:
      return self.code(frozen, batch['image'], keys_B).z
    if jnp.issubdtype(batch['code'].dtype, jnp.integer):
      return self.model.apply(frozen['variables'], batch['code'],
                              method='from_codes')
    return batch['code']

  def code(self, frozen: Any, image: jax.Array, keys_B: jax.Array | None
           ) -> models.Code:
    """The `Code` of images; arguments as for `encode`."""
    return self.model.apply(frozen['variables'], image, keys=keys_B,
                            train=keys_B is not None, method='encode')

  def decode(self, frozen: Any, z_BxLxc: jax.Array) -> jax.Array:
    """Images (B, T, H, W, C) of codes, about [-1, 1], not clipped."""
    return self.model.apply(frozen['variables'], z_BxLxc, method='decode')

  def cost(self) -> dict[str, Any]:
    """'parameters', and FLOPs of a forward pass to 'encode' and 'decode'."""
    model, shape = self._config.model, self._config.data
    cost = accounting.describe(
        self.model.size, shape.frames, shape.resolution,
        **models.arithmetic(model))
    parts = cost['flops']['by_part']['forward']
    # The rest of the bottleneck is the encoder's.
    up = 2 * flops.up(models.spec(model, shape.frames, shape.resolution))
    return {'parameters': cost['parameters'],
            'encode': parts['encoder'] + parts['bottleneck'] - up,
            'decode': parts['decoder'] + up}

  @property
  def _field(self):
    return 'ema' if self._own.ema_decay else 'params'

  @property
  def abstract(self) -> dict[str, Any]:
    """Shapes of the model's variables."""
    data_ = self._config.data
    shape = (1, data_.frames, data_.resolution, data_.resolution, 3)
    return nn.unbox(jax.eval_shape(self.model.init, jax.random.key(0),
                                   jax.ShapeDtypeStruct(shape, jnp.float32)))

  def variables(self) -> dict[str, Any]:
    """Parameters (the moving average if there is one) and statistics."""
    read = lambda field: saved.restore_params(
        self._folder, base.AUTOENCODER, field=field)[0]
    stats = read('stats') if set(self.abstract) - {'params'} else {}
    return {'params': read(self._field), **stats}

  def _shapes(self):
    """Of what `_load` returns."""
    if not self._config.diffusion.normalise:
      return {'variables': self.abstract}
    of_channels = jax.ShapeDtypeStruct((self.model.size.channels,), jnp.float32)
    return {'variables': self.abstract, 'mean': of_channels,
            'deviation': of_channels}

  def _load(self):
    if self._config.tokenizer.workdir == LATER:
      raise errors.InputError('config.tokenizer.workdir', LATER,
                              'is what a sweep puts a workdir in place of')
    variables = self.variables()
    if not self._config.diffusion.normalise:
      return {'variables': variables}
    cached = self._statistics_of_cached
    if cached is not None:  # What was encoded may be gone.
      mean_c, deviation_c = cached
      return {'variables': variables, 'mean': mean_c, 'deviation': deviation_c}
    # A program's mesh may be of many devices.
    alone = jax.make_mesh((1,), ('one',), (AxisType.Auto,),
                          devices=jax.local_devices()[:1])
    with jax.set_mesh(alone):
      mean_c, deviation_c = self._statistics(variables)
    return {'variables': variables, 'mean': mean_c, 'deviation': deviation_c}

  @property
  def _crop(self):
    """Of the images that statistics are of: a code has no padding, so that of
    a tokenizer of images at their own size is of their centres."""
    own = self._own.data.crop
    return 'center' if own == native.CROP else own

  def _statistics(self, variables):
    """Mean and deviation (c,) of codes, float32; measured if not yet stored.

    Process 0 tells the others.
    """
    path = self._folder.parents[1] / 'latents' / (
        f'{self._folder.name}-{self._kind}.json')
    found = np.zeros((2, self.model.size.channels), np.float32)
    if jax.process_index() == 0:
      stored = json.loads(path.read_text()) if path.exists() else {}
      if (stored.get('sha256'), stored.get('crop', self._own.data.crop)) != (
          self.sha256, self._crop):  # None, of another run, or with padding.
        stored = self._measure(variables) | {'sha256': self.sha256}
        try:
          files.write_text(path, json.dumps(stored, indent=1) + '\n')
        except OSError as error:  # Then it is measured again next time.
          logging.warning('%s cannot be written: %s', path, error)
      found[:] = stored['mean'], stored['deviation']
    if jax.process_count() > 1:
      found = multihost_utils.broadcast_one_to_all(found)
    return tuple(np.asarray(found))

  def _measure(self, variables):
    """Mean and deviation of each channel, as lists, and what they are of.

    Of `EXAMPLES` of the tokenizer's training examples, drawn and augmented by
    a seed of their own, encoded on this process's first device.
    """
    own, sampled = self._own.copy_and_resolve_references(), (
        self._config.tokenizer.sample)
    own.seed, own.batch_size, own.data.crop = 0, _BATCH, self._crop
    variables = jax.device_put(variables, jax.local_devices()[0])

    @jax.jit
    def encode(variables, image, rows):
      keys = base.example_keys(jax.random.key(0), rows) if sampled else None
      return self.encode({'variables': variables}, {'image': image}, keys)

    count = sums = squares = 0
    try:
      for step in range(EXAMPLES // _BATCH):
        rows = np.arange(step * _BATCH, (step + 1) * _BATCH, dtype=np.int32)
        image = data.host_batch(own, step)['image']
        z_Nxc = np.asarray(encode(variables, image, rows), np.float64).reshape(
            -1, self.model.size.channels)
        count += len(z_Nxc)
        sums, squares = sums + z_Nxc.sum(0), squares + np.square(z_Nxc).sum(0)
    except errors.InputError as error:
      raise errors.InputError(
          'config.tokenizer.workdir', self._config.tokenizer.workdir,
          'holds no latents/, and what it was trained on cannot be read: '
          f'{error}', '--config.diffusion.normalise=False') from error
    mean = sums / count
    # A channel that no code uses is left as it is, nearly.
    deviation = np.sqrt(np.maximum(squares / count - mean**2, 1e-12))
    return {'mean': mean.tolist(), 'deviation': deviation.tolist(),
            'examples': EXAMPLES, 'data': data.fingerprint(own, 'train'),
            'crop': self._crop}


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


def _check_crops(config):
  """Refuses images at their own size: of their codes a part is padding."""
  for part in ('data', 'evaluation'):
    if config[part].crop == native.CROP:
      raise errors.InputError(
          f'config.{part}.crop', native.CROP, 'a generator is of codes of one '
          'size, and these would hold padding', 'center')


def _checkpoint(tokenizer):
  """The folder of the checkpoint that is meant."""
  folder = saved.absolute(tokenizer.workdir) / saved.DIRECTORY
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
