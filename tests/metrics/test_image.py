"""PSNR and SSIM against scikit-image, and what must not change them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage.data
import skimage.metrics

from vitok.metrics import image as metrics

# PSNR in float32 at 50 dB has steps of 4e-6; SSIM's moments lose more digits
# on flat regions, where they are compared with C2 = 9e-4.
TOLERANCE = 1e-5


def _photograph(size=96):
  return skimage.data.astronaut()[60:60 + size, 180:180 + size]


def _noisy(image, sd, seed=0):
  noise = np.random.default_rng(seed).normal(0, sd, image.shape)
  return np.clip(np.round(image + noise), 0, 255).astype(np.uint8)


def _flat(level, other, size=64):
  image = np.full((size, size, 3), level, np.uint8)
  changed = image.copy()
  changed[::7, ::5] = other
  return image, changed


PAIRS = {
    'noise 1': (_photograph(), _noisy(_photograph(), 1)),
    'noise 10': (_photograph(), _noisy(_photograph(), 10)),
    'noise 60': (_photograph(), _noisy(_photograph(), 60)),
    'unrelated': (_photograph(), _photograph()[::-1, ::-1].copy()),
    'bright and flat': _flat(255, 254),
    'dark and flat': _flat(0, 1),
    'not square': (_photograph()[:40], _noisy(_photograph(), 5)[:40]),
    'one window': (_photograph(11), _noisy(_photograph(11), 5)),
}


@pytest.mark.parametrize('name', PAIRS)
def test_equals_scikit_image(name):
  x, y = PAIRS[name]
  ssim, psnr, mse = jax.jit(lambda a, b: (
      metrics.ssim(a, b), metrics.psnr(a, b), metrics.mse(a, b)))(
          x[None, None], y[None, None])
  expected = skimage.metrics.structural_similarity(
      x / 255, y / 255, gaussian_weights=True, sigma=1.5,
      use_sample_covariance=False, data_range=1, channel_axis=-1)
  np.testing.assert_allclose(ssim[0], expected, rtol=0, atol=TOLERANCE)
  expected = skimage.metrics.peak_signal_noise_ratio(x, y, data_range=255)
  np.testing.assert_allclose(psnr[0], expected, rtol=0, atol=TOLERANCE)
  expected = skimage.metrics.mean_squared_error(x / 255, y / 255)
  np.testing.assert_allclose(mse[0], expected, rtol=1e-6)


def test_range_is_one_and_not_two():
  """[-1, 1] is converted first; a data range of 2 raises SSIM by up to .15."""
  x, y = PAIRS['noise 10']
  floats = [jnp.asarray(a[None, None] / 127.5 - 1, jnp.float32)
            for a in (x, y)]
  np.testing.assert_allclose(metrics.ssim(*floats), metrics.ssim(
      x[None, None], y[None, None]), rtol=0, atol=1e-6)


def test_rounding_inverts_the_normalisation_of_every_level():
  levels = np.arange(256, dtype=np.uint8)
  floats = levels.astype(np.float32) / np.float32(127.5) - 1
  np.testing.assert_array_equal(metrics.to_uint8(jnp.asarray(floats)), levels)


def test_rounding_clips_and_takes_ties_to_even():
  floats = jnp.asarray([-3, -1, 0, 2 / 255, 1, 7])  # 0 lies at 127.5.
  np.testing.assert_array_equal(metrics.to_uint8(floats),
                                [0, 0, 128, 128, 255, 255])


def test_errors_below_half_a_level_do_not_count():
  x = jnp.asarray(_photograph()[None, None] / 127.5 - 1, jnp.float32)
  y = x + 0.4 / 127.5
  assert metrics.mse(x, y)[0] == 0
  assert metrics.psnr(x, y)[0] == metrics.PSNR_CAP
  np.testing.assert_allclose(metrics.ssim(x, y), 1, atol=1e-6)


def test_psnr_is_of_each_image_and_not_pooled():
  """Pooling the MSE over a batch gives less, and depends on the batch."""
  x = np.stack([_photograph()] * 4)[:, None]
  y = np.stack([_noisy(_photograph(), sd) for sd in (1, 5, 20, 60)])[:, None]
  together = metrics.psnr(x, y)
  alone = [metrics.psnr(x[i:i + 1], y[i:i + 1])[0] for i in range(4)]
  np.testing.assert_allclose(together, alone, rtol=0, atol=1e-5)
  pooled = -10 * np.log10(metrics.mse(x, y).mean())
  assert together.mean() - pooled > 5


def test_video_is_the_mean_over_its_frames():
  frames = [PAIRS[name] for name in ('noise 1', 'noise 10', 'unrelated')]
  x, y = (np.stack(side)[None] for side in zip(*frames, strict=True))
  for metric in (metrics.mse, metrics.psnr, metrics.ssim):
    each = [metric(a[None, None], b[None, None])[0] for a, b in frames]
    np.testing.assert_allclose(metric(x, y)[0], np.mean(each), rtol=1e-6)


def test_ssim_of_images_below_the_window_is_refused():
  x = np.zeros((1, 1, 10, 32, 3), np.uint8)
  assert not metrics.has_ssim(x.shape)
  with pytest.raises(ValueError, match='11 x 11'):
    metrics.ssim(x, x)


@pytest.mark.parametrize('metric', [metrics.mse, metrics.psnr, metrics.ssim])
def test_shapes_that_would_broadcast_are_refused(metric):
  x = np.zeros((2, 1, 16, 16, 3), np.uint8)
  with pytest.raises(ValueError, match='shapes'):
    metric(x, x[:1])
