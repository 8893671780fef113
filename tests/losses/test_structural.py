"""The SSIM loss against scikit-image, and its gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage.data
import skimage.metrics

from vitok.losses import structural
from vitok.metrics import image as image_metrics


@pytest.fixture(scope='module')
def pair():
  """Photographs on [-1, 1] and noisy ones, not rounded: (2, 2, 24, 20, 3)."""
  rng = np.random.default_rng(0)
  x = skimage.data.astronaut()[60:108, 180:220].reshape(2, 24, 2, 20, 3)
  x = x.transpose(0, 2, 1, 3, 4) / 127.5 - 1
  return x, x + rng.normal(0, 0.1, x.shape)


def test_equals_one_minus_scikit_images_ssim(pair):
  x, y = pair
  expected = [1 - np.mean([skimage.metrics.structural_similarity(
      (a + 1) / 2, (b + 1) / 2, gaussian_weights=True, sigma=1.5,
      use_sample_covariance=False, data_range=1, channel_axis=-1)
      for a, b in zip(x[i], y[i], strict=True)]) for i in range(len(x))]
  np.testing.assert_allclose(structural.dissimilarity(*map(jnp.float32, pair)),
                             expected, rtol=0, atol=1e-5)


def test_equals_the_metric_where_nothing_is_rounded(pair):
  x, y = (jnp.float32(image_metrics.to_uint8(jnp.asarray(a))) / 127.5 - 1
          for a in pair)
  np.testing.assert_allclose(structural.dissimilarity(x, y),
                             1 - image_metrics.ssim(x, y), atol=1e-6)


def test_gradient_equals_finite_differences(pair):
  x, y = (jnp.float32(a[:1, :1]) for a in pair)
  direction = jnp.float32(np.random.default_rng(1).normal(size=y.shape))
  loss = jax.jit(lambda y: structural.dissimilarity(x, y)[0])
  slope = jnp.vdot(jax.jit(jax.grad(loss))(y), direction)
  h = 1e-3
  numeric = (loss(y + h * direction) - loss(y - h * direction)) / (2 * h)
  assert abs(slope) > 0.01
  np.testing.assert_allclose(slope, numeric, rtol=2e-3)


def test_gradient_vanishes_at_equal_images_even_flat_ones(pair):
  x = jnp.float32(pair[0])
  both = jax.jit(jax.value_and_grad(
      lambda y, x: structural.dissimilarity(x, y).sum()))
  flat = [jnp.full_like(x, level) for level in (-1.0, 0.0, 1.0)]
  for image in (x, *flat):
    value, gradient = both(image, image)
    np.testing.assert_allclose(value, 0, atol=1e-5)
    np.testing.assert_allclose(gradient, 0, atol=1e-4)


def test_what_the_metric_refuses_is_refused():
  x = jnp.zeros((2, 1, 16, 16, 3))
  with pytest.raises(ValueError, match='shapes'):
    structural.dissimilarity(x, x[:1])
  with pytest.raises(ValueError, match='10 x 16'):
    structural.dissimilarity(x[:, :, :10], x[:, :, :10])
