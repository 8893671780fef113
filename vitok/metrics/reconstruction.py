"""What an auto-encoder's evaluation computes for a batch; pure functions.

Everything is of latent means (nothing is sampled unless a model's evaluation
does, with the example's own key). Bind `model` with `functools.partial`, jit
the rest.

B: batch, T: frames, H: height, W: width, C: colours, L: tokens, c: channels.
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from vitok.metrics import image as image_metrics


def measure(model: Any, variables: Mapping, batch: Mapping,
            keys: jax.Array | None = None, *,
            images: int = 0) -> dict[str, jax.Array]:
  """Reconstructs a batch and measures each example.

  Args:
    model: an `AutoEncoder`, static.
    variables: {'params': ..., other collections}.
    batch: 'image' (B, T, H, W, C) in [-1, 1].
    keys: (B,) PRNG keys that belong to the examples, or None.
    images: how many of the first rows are returned as images: as many as a
      `table.Table` keeps, so that the rest never leaves the device.

  Returns:
    float32 (B,) 'mse', 'psnr', 'ssim' (absent below 11 pixels) and 'kl_bits'
    (absent without a prior); 'psnr@32', 'ssim@32' of the code cut to 32 tokens,
    if the model is trained to `keep` 32; with `images`, also uint8 'originals'
    and 'reconstructions' (min(images, B), T, H, W, C). An example whose
    reconstruction is not finite measures NaN.
  """
  original = batch['image']
  reconstruction, out = model.apply(variables, original, keys=keys,
                                    train=False)
  values = compare(original, reconstruction)
  if 'kl_sum' in out['code'].losses:
    values['kl_bits'] = out['code'].losses['kl_sum'] / math.log(2)
  if model.keep:
    cut = jax.lax.map(lambda length: compare(original, model.apply(
        variables, out['code'].z, _grid(model, original), length,
        method='decode')), jnp.array(model.keep))
    values |= {f'{name}@{length}': cut[name][i] for name in cut.keys() - {'mse'}
               for i, length in enumerate(model.keep)}
  if images:
    values.update(
        originals=image_metrics.to_uint8(original[:images]),
        reconstructions=image_metrics.to_uint8(reconstruction[:images]))
  return values


def images(model: Any, variables: Mapping, batch: Mapping,
           keys: jax.Array | None = None) -> dict[str, jax.Array]:
  """Originals and what is made of them, as networks that measure take them.

  Args:
    model, variables, batch, keys: as in `measure`.

  Returns:
    uint8 'original' and 'made' (B, T, H, W, C), and 'finite' (B,): whether all
    of a reconstruction was, before it was rounded.
  """
  made, _ = model.apply(variables, batch['image'], keys=keys, train=False)
  return pair(batch['image'], made)


def pair(original: jax.Array, made: jax.Array) -> dict[str, jax.Array]:
  """`images`, of what was made by something else than a model."""
  return {'original': image_metrics.to_uint8(original),
          'made': image_metrics.to_uint8(made),
          'finite': jnp.isfinite(made).all(axis=(1, 2, 3, 4))}


def compare(original: jax.Array,
            reconstruction: jax.Array) -> dict[str, jax.Array]:
  """'mse', 'psnr' and 'ssim' as in `measure`, of (B, T, H, W, C) images."""
  # Rounding to uint8 would turn NaN into an ordinary level.
  finite_B = jnp.isfinite(reconstruction).all(axis=(1, 2, 3, 4))
  x, y = (image_metrics.to_uint8(a) for a in (original, reconstruction))
  values = {'mse': image_metrics.mse(x, y), 'psnr': image_metrics.psnr(x, y)}
  if image_metrics.has_ssim(x.shape):
    values['ssim'] = image_metrics.ssim(x, y)
  return {name: jnp.where(finite_B, value, jnp.nan)
          for name, value in values.items()}


def quantised(model: Any, variables: Mapping, batch: Mapping,
              keys: jax.Array | None = None) -> dict[str, jax.Array]:
  """PSNR of each example when its latent means are rounded.

  Args:
    model, variables, keys: as in `measure`.
    batch: 'image'; 'step', a scalar in the latent's unit, and 'offset' (c,) or
      (1,): means become multiples of the step away from the offset; step 0
      leaves them as they are.

  Returns:
    'psnr' (B,) and 'symbols' (B, L, c): the multiples as floats, the means
    themselves at step 0, or always the integers (B, L, K) of a discrete
    code, which is never rounded.
  """
  image, step = batch['image'], batch['step']
  code = model.apply(variables, image, keys=keys, train=False,
                     method='encode')
  symbols, z_BxLxc = code.z, code.z
  if code.ids is not None:
    symbols = code.ids.reshape(*code.ids.shape[:2], -1)
  else:
    unit = jnp.where(step > 0, step, 1)
    symbols = jnp.round((z_BxLxc - batch['offset']) / unit)
    z_BxLxc = jnp.where(step > 0, symbols * unit + batch['offset'], code.z)
    symbols = jnp.where(step > 0, symbols, code.z)
  reconstruction = model.apply(variables, z_BxLxc, _grid(model, image),
                               method='decode')
  psnr = image_metrics.psnr(image, reconstruction)
  finite_B = jnp.isfinite(reconstruction).all(axis=(1, 2, 3, 4))
  return {'psnr': jnp.where(finite_B, psnr, jnp.nan), 'symbols': symbols}


def _grid(model, image):
  size = model.size
  return (image.shape[1] // size.tubelet, image.shape[2] // size.patch,
          image.shape[3] // size.patch)
