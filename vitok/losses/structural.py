"""Structural dissimilarity as a training loss, per example."""

import jax
import jax.numpy as jnp

from vitok.metrics import image as image_metrics


def dissimilarity(x: jax.Array, y: jax.Array) -> jax.Array:
  """1 - SSIM of images that are not rounded, differentiable everywhere.

  The definition is that of `metrics.image.ssim` (Wang et al. 2004, on [0, 1]),
  but values are neither rounded nor clipped: neither has a useful gradient.

  Args:
    x, y: (B, T, H, W, C) floats in [-1, 1].

  Returns:
    (B,) float32, averaged over window positions, colours and frames: 0 for
    equal images.

  Raises:
    ValueError: shapes differ, or H or W is below 11 pixels.
  """
  return 1 - image_metrics.similarity(
      *((a.astype(jnp.float32) + 1) / 2 for a in (x, y)))
