"""MSE, PSNR and SSIM of each example, on [0, 1] after rounding to uint8.

A number here belongs to one image: it does not depend on the batch it came
in. A video's number is the mean over its frames. What is averaged over images
is therefore always the per-image value (never an MSE pooled over a batch).

B: batch, T: frames, H: height, W: width, C: colour channels.
"""

import jax
import jax.numpy as jnp
import numpy as np

LEVELS = 255
# Identical images would have infinite PSNR and take every mean with them. The
# MSE under the logarithm is at least 1e-10: no image scores more than 100 dB.
PSNR_CAP = 100.0
SSIM_SIGMA = 1.5
SSIM_WINDOW = 11  # Pixels: a radius of int(3.5 sigma + 0.5) = 5.


def to_uint8(image: jax.Array) -> jax.Array:
  """Clips [-1, 1] and rounds to the 256 levels, ties to even.

  It inverts `level / 127.5 - 1` exactly for every level.

  Args:
    image: floats in [-1, 1], any shape; values outside are clipped.

  Returns:
    uint8 of the same shape.
  """
  levels = (image.astype(jnp.float32) + 1) * (LEVELS / 2)
  return jnp.round(jnp.clip(levels, 0, LEVELS)).astype(jnp.uint8)


def levels(image: jax.Array) -> jax.Array:
  """uint8 levels of a (B, T, H, W, C) array of floats in [-1, 1] or uint8."""
  if image.ndim != 5:
    raise ValueError(f'expected (B, T, H, W, C), got shape {image.shape}')
  return image if image.dtype == jnp.uint8 else to_uint8(image)


def _mse_of_frames(x: jax.Array, y: jax.Array) -> jax.Array:
  """(B, T) mean squared errors on [0, 1]."""
  if x.shape != y.shape:
    raise ValueError(f'metrics of shapes {x.shape} and {y.shape}')
  difference = levels(x).astype(jnp.int32) - levels(y).astype(jnp.int32)
  # A row's sum is exact in integers (up to 11,008 RGB pixels wide); only the
  # mean over rows rounds. A float32 sum of all pixels is off by 1e-4 dB.
  rows_BxTxH = jnp.sum(difference**2, axis=(3, 4))
  per_row = x.shape[3] * x.shape[4]
  return jnp.mean(rows_BxTxH.astype(jnp.float32), axis=2) / (
      per_row * LEVELS**2)


def mse(x: jax.Array, y: jax.Array) -> jax.Array:
  """Mean squared error on [0, 1] after rounding to uint8.

  Args:
    x, y: (B, T, H, W, C), floats in [-1, 1] or uint8.

  Returns:
    (B,) float32.
  """
  return jnp.mean(_mse_of_frames(x, y), axis=1)


def psnr(x: jax.Array, y: jax.Array) -> jax.Array:
  """Peak signal-to-noise ratio in dB, of each frame, averaged over frames.

  Args:
    x, y: (B, T, H, W, C), floats in [-1, 1] or uint8.

  Returns:
    (B,) float32, at most `PSNR_CAP` (reached by identical images).
  """
  floor = 10 ** (-PSNR_CAP / 10)
  decibel_BxT = -10 * jnp.log10(jnp.maximum(_mse_of_frames(x, y), floor))
  return jnp.mean(decibel_BxT, axis=1)


def _blur(x: jax.Array) -> jax.Array:
  """Gaussian window over H and W of (..., H, W, C), valid positions only.

  Written as shifted sums: a convolution would be allowed to use bf16 or TF32
  on accelerators, which variances of nearly flat regions do not survive.
  """
  offsets = np.arange(SSIM_WINDOW) - SSIM_WINDOW // 2
  weights = np.exp(-0.5 * (offsets / SSIM_SIGMA) ** 2)
  weights = (weights / weights.sum()).astype(np.float32)
  for axis in (x.ndim - 3, x.ndim - 2):
    size = x.shape[axis] - SSIM_WINDOW + 1
    x = sum(weight * jax.lax.slice_in_dim(x, i, i + size, axis=axis)
            for i, weight in enumerate(weights))
  return x


def ssim(x: jax.Array, y: jax.Array) -> jax.Array:
  """Structural similarity (Wang et al. 2004), averaged over channels, frames.

  Gaussian window of sigma 1.5 on 11 x 11 pixels, population covariance, data
  range 1, K1 = 0.01, K2 = 0.03, averaged over the window positions that lie
  inside the image. Equals scikit-image's `structural_similarity` with
  `gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
  data_range=1, channel_axis=-1`. torchmetrics has the same map of local
  values, but its mean (from 1.9) includes the border, where windows see
  mirrored pixels: there the two definitions differ.

  Args:
    x, y: (B, T, H, W, C), floats in [-1, 1] or uint8.

  Returns:
    (B,) float32 in [-1, 1].

  Raises:
    ValueError: H or W is below 11 pixels: there is no window inside.
  """
  return similarity(levels(x) / LEVELS, levels(y) / LEVELS)


def similarity(x: jax.Array, y: jax.Array) -> jax.Array:
  """The SSIM of `ssim`, of floats in [0, 1] that nothing rounds.

  Args:
    x, y: (B, T, H, W, C); differentiable everywhere.

  Returns:
    (B,) float32.

  Raises:
    ValueError: shapes differ, or H or W is below 11 pixels.
  """
  if x.shape != y.shape:
    raise ValueError(f'SSIM of shapes {x.shape} and {y.shape}')
  if not has_ssim(x.shape):
    raise ValueError(f'SSIM needs {SSIM_WINDOW} x {SSIM_WINDOW} pixels, got '
                     f'{x.shape[2]} x {x.shape[3]}')
  # Variances do not change with an offset, but E[x^2] - E[x]^2 of bright flat
  # regions loses its digits: so it is taken of x minus the image's mean level.
  offset = jax.lax.stop_gradient(x.mean((2, 3), keepdims=True))
  x, y = x - offset, y - offset
  moments = jnp.concatenate([x, y, x * x + y * y, x * y], -1)
  mean_x, mean_y, squares, product = jnp.split(_blur(moments), 4, -1)
  variances = squares - mean_x**2 - mean_y**2
  covariance = product - mean_x * mean_y
  mean_x, mean_y = mean_x + offset, mean_y + offset
  c1, c2 = 0.01**2, 0.03**2
  values = (2 * mean_x * mean_y + c1) * (2 * covariance + c2) / (
      (mean_x**2 + mean_y**2 + c1) * (variances + c2))
  return values.mean((1, 2, 3, 4))


def has_ssim(shape: tuple[int, ...]) -> bool:
  """Whether an SSIM window fits into images of shape (B, T, H, W, C)."""
  return min(shape[2], shape[3]) >= SSIM_WINDOW
