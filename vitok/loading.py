"""Opens a trained tokenizer in three lines:

  tokenizer = vitok.load('runs/sb16')
  code = tokenizer.encode(images)  # (B, H, W, 3), uint8 or [-1, 1].
  images = tokenizer.decode(code)

A discrete code has integers as well, `code.ids`, which `decode` takes alone. A
model that was trained with `config.model.keep` takes `length`, the number of
tokens of the code that are made or read.

B: batch, T: frames, H: height, W: width, C: colours, L: tokens, c: channels,
K: integers of a token.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from vitok import config as config_lib
from vitok import errors, models
from vitok.data import transforms
from vitok.interop import saved
from vitok.metrics import image as image_metrics
from vitok.tasks import base
from vitok.training import checkpoints


def read_config(workdir: epath.PathLike,
                checkpoint: int | None = None) -> Any:
  """The config of the run in `workdir`; touches no device.

  Args:
    workdir: of the run.
    checkpoint: step of a checkpoint that must be there; `None`: any.

  Raises:
    InputError: there is no run or no such checkpoint, with the nearest.
  """
  workdir = epath.Path(workdir)
  path = workdir / 'config.json'
  if not path.exists():
    found = workdir.is_dir()
    folder = workdir if found else workdir.parent
    runs = sorted(str(p.parent) for p in folder.glob('*/config.json'))
    raise errors.InputError(
        '--workdir', str(workdir),
        'holds no run (no config.json)' if found else 'is not a folder',
        errors.nearest(workdir, runs))
  folder = workdir / saved.DIRECTORY
  steps = sorted((p.name for p in folder.glob('*') if p.name.isdigit()),
                 key=int)
  if not steps:
    raise errors.InputError('--workdir', str(workdir), 'holds no checkpoint')
  if checkpoint is not None and str(checkpoint) not in steps:
    raise errors.InputError('--checkpoint', checkpoint, f'is not in {folder}',
                            errors.nearest(checkpoint, steps))
  return config_lib.read(path)


def load(workdir: epath.PathLike, checkpoint: int | None = None
         ) -> 'Tokenizer':
  """Restores the auto-encoder of a run, on this process's first device.

  Args:
    workdir: of the run; local or `gs://`.
    checkpoint: step; by default the newest whole checkpoint.

  Returns:
    The tokenizer, with the moving average of the parameters if the run keeps
    one, as its evaluation has it.

  Raises:
    InputError: no run, or no such checkpoint.
    saved.CheckpointError: no checkpoint is whole.
  """
  config = read_config(workdir, checkpoint)
  field = 'ema' if config.ema_decay else 'params'
  params, _, step = saved.restore_params(
      workdir, base.AUTOENCODER, checkpoint, field)
  model = models.build(config.model, frames=config.data.frames,
                       resolution=config.data.resolution)
  shape = (1, config.data.frames, *2 * (config.data.resolution,), 3)
  collections = jax.eval_shape(
      model.init, jax.random.key(0), jax.ShapeDtypeStruct(shape, jnp.float32))
  stats = {}
  if set(collections) - {'params'}:
    stats, _, _ = saved.restore_params(
        workdir, base.AUTOENCODER, step, 'stats')
  return Tokenizer(config, model, step, jax.device_put(
      {'params': params, **stats}))


def restore_state(workdir: epath.PathLike, abstract: base.State,
                  checkpoint: int | None = None) -> tuple[base.State, int]:
  """The state of a checkpoint without its optimizer, laid out on a mesh.

  Args:
    workdir: of the run.
    abstract: `Program.abstract`: shapes with shardings.
    checkpoint: step; by default the newest whole checkpoint.

  Returns:
    (state with `opt` {}, step).

  Raises:
    InputError, saved.CheckpointError: as `load`.
    checkpoints.TreeMismatchError: the model has another shape.
  """
  fields, step = {}, checkpoint
  for name in ('params', 'ema', 'stats'):
    fields[name] = specs = getattr(abstract, name)
    if not jax.tree.leaves(specs):
      continue
    tree, _, step = saved.restore_params(workdir, '', step, name)

    def place(path, spec, tree=tree, name=name):
      value = functools.reduce(lambda node, key: node[key.key], path, tree)
      if value.shape != spec.shape:
        raise checkpoints.TreeMismatchError(
            f'{name}{jax.tree_util.keystr(path)} has shape {value.shape}, '
            f'the model {spec.shape}')
      return jax.device_put(value, spec.sharding)
    fields[name] = jax.tree_util.tree_map_with_path(place, specs)
  return abstract.replace(step=jnp.int32(step), opt={}, **fields), step


@dataclasses.dataclass(frozen=True)
class Tokenizer:
  """A trained auto-encoder; nothing in it is sampled.

  Images are (B, H, W, 3) or (B, T, H, W, 3), uint8 or floats in [-1, 1]. A
  new shape compiles anew; sides other than the trained resolution must be
  multiples of the patch, and do not suit every kind of positions.

  Attributes:
    config: of the run.
    model: the Linen module, for what has no method here.
    step: of the checkpoint.
    variables: {'params': ..., other collections}, on the device.
  """
  config: Any
  model: models.AutoEncoder
  step: int
  variables: Mapping[str, Any]

  def encode(self, images: Any, length: int | None = None) -> models.Code:
    """The code of images.

    Args:
      images: as above.
      length: tokens that are returned, the first ones; `None` is all.

    Returns:
      `.z` are the latent means (B, L, c), float32; the losses are those of the
      whole code.
    """
    code = self._encode(self.variables, self._clips(images))
    if length is None:
      return code
    self._check_length(length, code.z.shape[1])
    ids = None if code.ids is None else code.ids[:, :length]
    return code.replace(z=code.z[:, :length], ids=ids)

  def decode(self, code: Any, grid: tuple[int, int, int] | None = None,
             length: int | None = None) -> jax.Array:
    """Images of a code.

    Args:
      code: what `encode` returns, or its `z` (B, L, c), or its `ids`
        (B, L, K) alone.
      grid: patches along time, height and width, where these are not those of
        the trained resolution.
      length: tokens that are read, the first ones; `None` is all.

    Returns:
      (B, T, H, W, C) float32, about [-1, 1] and not clipped;
      `metrics.image.to_uint8` makes levels of it.
    """
    z_BxLxc = code.z if isinstance(code, models.Code) else self._z(code)
    tokens = self.model.size.latents or math.prod(grid or self.model.grid)
    if z_BxLxc.shape[1] != tokens:
      self._check_length(z_BxLxc.shape[1], tokens)
    if length is not None:
      self._check_length(length, tokens)
    return self._decode(self.variables, z_BxLxc, grid, length)

  def reconstruct(self, images: Any, length: int | None = None) -> np.ndarray:
    """`images`, encoded and decoded: of the same shape and kind."""
    clips, size = self._clips(images), self.model.size
    _, t, h, w, _ = clips.shape
    decoded = self.decode(self.encode(clips), (
        t // size.tubelet, h // size.patch, w // size.patch), length)
    if np.asarray(images).dtype == np.uint8:
      decoded = image_metrics.to_uint8(decoded)
    return np.asarray(decoded).reshape(np.shape(images))

  @property
  def radices(self) -> tuple[int, ...]:
    """How many values each of the K integers of a token has, as
    `vitok.data.packing` takes them; () of a code of floats."""
    return models.radices(self.config.model)

  def _z(self, code):
    """(B, L, c) of z, or of integers, which are checked."""
    code = code if isinstance(code, jax.Array) else np.asarray(code)
    if not jnp.issubdtype(code.dtype, jnp.integer):
      return jnp.asarray(code)
    if not self.radices:
      raise errors.InputError('code', str(code.dtype), 'are integers, and '
                              'this model\'s code is of floats', 'float32')
    if code.ndim != 3 or code.shape[2] != len(self.radices) or (
        code < 0).any() or (code >= np.array(self.radices)).any():
      raise errors.InputError(
          'code', code.shape, f'is not (B, L, {len(self.radices)}) integers '
          f'from 0, below {", ".join(map(str, dict.fromkeys(self.radices)))}')
    return self._from_codes(self.variables, code)

  @functools.cached_property
  def _from_codes(self):
    return jax.jit(functools.partial(self.model.apply, method='from_codes'))

  @functools.cached_property
  def _encode(self):
    return jax.jit(functools.partial(self.model.apply, method='encode'))

  @functools.cached_property
  def _decode(self):
    return jax.jit(functools.partial(self.model.apply, method='decode'),
                   static_argnums=2)

  def _check_length(self, length, tokens):
    """Refuses codes that are cut unfitly; any length, trained or not, fits."""
    if not 1 <= length <= tokens:
      raise errors.InputError('length', length, f'is not from 1 to {tokens}',
                              min(max(1, length), tokens))
    if length < tokens and not self.model.keep:
      raise errors.InputError(
          'length', length, 'this model reads whole codes (config.model.keep '
          'is empty)', tokens)

  def _clips(self, images):
    """float32 (B, T, H, W, 3) in [-1, 1], of sides that the patches divide."""
    images = np.asarray(images)
    if images.ndim == 4:
      images = images[:, None]
    if images.ndim != 5 or images.shape[-1] != 3:
      raise errors.InputError('images', images.shape, 'is not the shape '
                              '(B, H, W, 3) or (B, T, H, W, 3)')
    size = self.model.size
    for name, side, unit in (('frames', images.shape[1], size.tubelet),
                             ('height', images.shape[2], size.patch),
                             ('width', images.shape[3], size.patch)):
      if not side or side % unit:
        raise errors.InputError(f'images.{name}', side, f'is not a multiple '
                                f'of {unit}', max(1, round(side / unit)) * unit)
    if images.dtype == np.uint8:
      return transforms.to_float(images)
    if not np.issubdtype(images.dtype, np.floating):
      raise errors.InputError('images.dtype', str(images.dtype),
                              'is neither uint8 nor floating', 'uint8')
    # Images in 0..255, or 0..1 seen as [-1, 1], are the classic mistake; the
    # first can be told from the values.
    if np.abs(images).max(initial=0) > 2:
      raise errors.InputError('images', float(np.abs(images).max()),
                              'is a value far outside [-1, 1]', 'uint8')
    return images.astype(np.float32)
