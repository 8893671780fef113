"""Images at their own size in a task: patches, what goes with them, numbers.

Batches are of `data.native`: 'image' (B, 1, L * p, p, 3) holds the patches of
an example one below the other, 'places' (B, L, 2) where they lie, 'valid'
(B, L) which are none of the padding.

B examples, L patches, p their side, K patches along the side of a tile.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from vitok import data, errors, files, models, sizes
from vitok.data import native
from vitok.metrics import files as metric_files
from vitok.metrics import image as image_metrics
from vitok.metrics import protocol, reconstruction, table
from vitok.tasks import base

_TILE = 2  # Stream of an example's key; the model's are the key itself and 1.


def check(config: Any) -> None:
  """Refuses what cannot be done with images at their own size.

  Raises:
    InputError: with the field at fault.
  """
  training = config.data.crop == native.CROP
  evaluating = config.evaluation.crop == native.CROP
  if not training and not evaluating:
    return
  crop = f"config.{'data' if training else 'evaluation'}.crop='native'"
  model, size = config.model, sizes.from_config(config.model)

  def refuse_unless(key, allowed, reason):
    value = functools.reduce(lambda node, part: node[part],
                             key.split('.'), config)
    if value not in allowed:
      raise errors.InputError(f'config.{key}', value, f'{crop} {reason}',
                              allowed[0])
  refuse_unless('task', ('reconstruction',), 'is of this task alone')
  refuse_unless('data.frames', (1,), 'is for images')
  if size.tubelet > 1 or size.latents:
    raise errors.InputError('config.model.name', model.name,
                            f'{crop} needs tokens that are patches')
  refuse_unless('model.positions', ('rope2d', 'none'),
                'needs positions that any coordinates have')
  refuse_unless('model.keep', ((),), 'codes are not in an order')
  refuse_unless('model.bottleneck', ('layernorm', 'deterministic'),
                'would price the codes of padding too')
  if evaluating:
    refuse_unless('evaluation.numbers', ((),), 'has images of many sizes, '
                  'networks want one: measure with evaluation.crop=center')


def patches(batch: Mapping[str, Any]) -> models.Patches | None:
  """Of a batch of images at their own size; `None` for one of squares."""
  if 'valid' not in batch:
    return None
  return models.Patches(batch['places'], batch['valid'])


def pixels(batch: Mapping[str, Any]) -> jax.Array | None:
  """(B, 1, L * p, 1, 1) bool: pixels that are none of padding; or `None`."""
  if 'valid' not in batch:
    return None
  rows = jnp.repeat(batch['valid'], batch['image'].shape[3], axis=1)
  return rows[:, None, :, None, None]


def tile(batch: Mapping[str, Any], keys_B: jax.Array, side: int
         ) -> Callable[[jax.Array], jax.Array]:
  """Cuts one square out of each image, for losses that need an image.

  It begins at a patch, any of those from which it fits into the image with
  equal chance, so patches at the border are seen less often than others. Along
  an axis on which it does not fit the image is repeated, from its first patch
  on: no padding is seen and no patch left out, but there is an edge where the
  image's end meets its beginning, at the same place in all that is cut.

  Args:
    batch: of images at their own size; of squares nothing is cut.
    keys_B: (B,) keys of the examples, of which this draws from a stream of its
      own.
    side: in pixels, a multiple of p.

  Returns:
    A function from patches (B, 1, L * p, p, 3), the originals or what was made
    of them, to the same square of each, (B, 1, side, side, 3).
  """
  if 'valid' not in batch:
    return lambda image: image
  count = side // batch['image'].shape[3]

  def numbers(places_Lx2, valid_L, key):
    grid = jnp.max(places_Lx2, 0, where=valid_L[:, None], initial=0) + 1
    first = jax.random.randint(jax.random.fold_in(key, _TILE), (2,), 0,
                               jnp.maximum(grid - count, 0) + 1)
    rows, columns = (first[:, None] + jnp.arange(count)) % grid[:, None]
    return rows[:, None] * grid[1] + columns  # Patches are in reading order.
  numbers_BxKxK = jax.vmap(numbers)(batch['places'], batch['valid'], keys_B)

  def cut(strip_Bx1xLpxpx3):
    b, _, _, p, colours = strip_Bx1xLpxpx3.shape
    patches = strip_Bx1xLpxpx3.reshape(b, -1, p, p, colours)
    square = jax.vmap(lambda x, k: x[k])(patches, numbers_BxKxK)
    return square.swapaxes(2, 3).reshape(b, 1, side, side, colours)
  return cut


class Evaluator:
  """PSNR, SSIM and MSE of reconstructions, each image at its own size.

  Files as those of `evaluation.Reconstruction`, but of the first images each
  in a picture of its own, beside its reconstruction:
  `evaluation/<step>_<index>.png`.
  """
  name = 'eval'
  weights: dict[str, base.WeightRef] = {}

  def __init__(self, model: models.AutoEncoder, config: Any):
    self._model, self._config = model, config
    self.functions = {'images': self._images}

  def _images(self, state, frozen, batch, key):
    del frozen
    name = base.AUTOENCODER
    params = state.params[name] if state.ema[name] is None else state.ema[name]
    made, _ = self._model.apply(
        {'params': params, **state.stats[name]}, batch['image'],
        keys=base.example_keys(key, batch['index']), patches=patches(batch))
    finite = (jnp.isfinite(made) | ~pixels(batch)).all((1, 2, 3, 4))
    images = reconstruction.pair(batch['image'], made)
    return images | {'finite': finite} | base.rows(batch) | {
        name: batch[name] for name in ('places', 'valid')}

  def run(self, functions, batches, step, workdir,
          last) -> Iterator[tuple[str, Any]]:
    del last
    rows, shown, small = table.Table(), {}, False
    for batch in batches:
      out = functions['images'](batch)
      values = self._measure(out, shown)
      small |= bool((out['finite'] & np.isnan(values['ssim']))[
          out['mask']].any())
      rows.add(values, out)
    results = rows.summary()
    if small:  # A mean over the others would be of other images.
      results = {name: value for name, value in results.items()
                 if not name.startswith('ssim')}
    measured = protocol.Protocol.from_config(
        self._config, results['count'],
        data.fingerprint(self._config, 'evaluation'), {})
    if workdir is not None:
      folder = epath.Path(workdir) / 'evaluation'
      metric_files.write_evaluation(folder, step, rows)
      for index, image in shown.items():
        metric_files.write_png(folder / f'{step}_{index}.png', image)
      files.write_text(folder / 'protocol.json', measured.to_json())
    yield from results.items()
    yield 'protocol', measured.of('psnr').id

  def _measure(self, out, shown):
    """{metric: (B,)}; adds to `shown` the first images with what was made."""
    values = {name: np.full(len(out['mask']), np.nan, np.float32)
              for name in ('mse', 'psnr', 'ssim')}
    for b in np.flatnonzero(out['mask']):
      x, y = (native.picture(out[name][b], out['places'][b], out['valid'][b])[0]
              for name in ('original', 'made'))
      if len(shown) < self._config.evaluation.grid:
        shown[int(out['index'][b])] = np.concatenate([x, y], 1)
      if out['finite'][b]:
        for name, value in measure(x, y).items():
          values[name][b] = value
    return values


def measure(x_HxWx3: np.ndarray, y_HxWx3: np.ndarray) -> dict[str, float]:
  """As `metrics.reconstruction.compare`, of two uint8 images of any size.

  On the host: a device would compile anew for every size. There is no 'ssim'
  of images below its window.
  """
  from skimage import metrics  # Late: half a second.
  x, y = x_HxWx3 / image_metrics.LEVELS, y_HxWx3 / image_metrics.LEVELS
  mse = np.square(x - y).mean()
  floor = 10**(-image_metrics.PSNR_CAP / 10)
  values = {'mse': mse, 'psnr': -10 * np.log10(max(mse, floor))}
  if image_metrics.has_ssim((1, 1, *x.shape)):
    values['ssim'] = metrics.structural_similarity(
        x, y, gaussian_weights=True, sigma=image_metrics.SSIM_SIGMA,
        use_sample_covariance=False, data_range=1, channel_axis=-1)
  return values
