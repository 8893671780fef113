"""VGG16 without its classifier (arXiv 1409.1556, configuration D).

Letters: N images, H height, W width, C channels.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from vitok.models.features import layers

# ImageNet's channel means and deviations, moved from [0, 1] to [-1, 1].
MEAN = (-0.030, -0.088, -0.188)
DEVIATION = (0.458, 0.448, 0.450)

_BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
NAMES = tuple(f'conv{block}_{layer}' for block, (_, depth) in
              enumerate(_BLOCKS, 1) for layer in range(1, depth + 1))
CHANNELS = tuple(width for width, _ in _BLOCKS)  # Of the features.
_TORCH = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)  # Convolutions.


class VGG16(nn.Module):
  """Images to the last activation of each of the five blocks.

  Attributes:
    dtype: of the convolutions; float32 is exact on every device.
  """
  dtype: jnp.dtype = jnp.float32
  smallest = 16  # Side of an image, in pixels.

  @nn.compact
  def __call__(self, x_NxHxWx3: jax.Array) -> tuple[jax.Array, ...]:
    """Five features, (N, H / 2^k, W / 2^k, C) for k from 0 to 4.

    Args:
      x_NxHxWx3: floats in [-1, 1], at least 16 x 16 pixels.
    """
    layers.check_images(x_NxHxWx3, 'VGG16', smallest=self.smallest)
    x = (x_NxHxWx3.astype(jnp.float32) - jnp.array(MEAN)) / jnp.array(DEVIATION)
    x = x.astype(self.dtype)
    features, names = [], iter(NAMES)
    for width, depth in _BLOCKS:
      if features:
        x = nn.max_pool(x, (2, 2), (2, 2))
      for _ in range(depth):
        x = nn.relu(layers.conv(width, (3, 3), padding=1, dtype=self.dtype,
                                name=next(names))(x))
      features.append(x)
    return tuple(features)


def from_torchvision(state: Mapping[str, np.ndarray]) -> dict:
  """Parameters from torchvision's state dict ('features.0.weight', ...)."""
  return {name: layers.from_torch(state, f'features.{index}')
          for name, index in zip(NAMES, _TORCH, strict=True)}
