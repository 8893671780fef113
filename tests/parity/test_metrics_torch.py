"""PSNR and SSIM against torchmetrics, where the definitions coincide."""

import numpy as np
import pytest
import skimage.data

from vitok.metrics import image as metrics

torch = pytest.importorskip('torch', reason='needs the extra [parity]')
functional = pytest.importorskip('torchmetrics.functional.image',
                                 reason='needs the extra [parity]')
BORDER = 5  # Radius of the Gaussian window.


@pytest.fixture(scope='module')
def pair():
  """Three photographs with noise of 2, 8 and 30 levels: (B, H, W, C)."""
  rng = np.random.default_rng(0)
  x = np.stack([photograph()[:128, 40:168] for photograph in (
      skimage.data.astronaut, skimage.data.chelsea, skimage.data.coffee)])
  noise = rng.normal(size=x.shape) * np.array([2, 8, 30]).reshape(3, 1, 1, 1)
  return x, np.clip(np.round(x + noise), 0, 255).astype(np.uint8)


def _torch(x):
  return torch.from_numpy(x / 255).permute(0, 3, 1, 2)  # float64.


def test_psnr_equals_torchmetrics_per_image(pair):
  x, y = pair
  expected = functional.peak_signal_noise_ratio(
      _torch(y), _torch(x), data_range=1.0, reduction='none', dim=(1, 2, 3))
  np.testing.assert_allclose(metrics.psnr(x[:, None], y[:, None]), expected,
                             rtol=0, atol=1e-5)


def test_ssim_equals_the_inside_of_torchmetrics_map(pair):
  """Both have the same local values; torchmetrics' mean adds the border."""
  x, y = pair
  mean, local = functional.structural_similarity_index_measure(
      _torch(y), _torch(x), data_range=1.0, sigma=1.5, kernel_size=11,
      reduction='none', return_full_image=True)
  ours = metrics.ssim(x[:, None], y[:, None])
  inside = local[..., BORDER:-BORDER, BORDER:-BORDER].mean((1, 2, 3))
  np.testing.assert_allclose(ours, inside, rtol=0, atol=1e-5)
  # Mirrored pixels at the border move the mean by about 1e-3, not by more.
  np.testing.assert_allclose(ours, mean, rtol=0, atol=1e-2)
