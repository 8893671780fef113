"""AlexNet without its classifier (arXiv 1404.5997, one tower).

Letters: N images, H height, W width, C channels.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from vitok.models.features import layers, vgg

CHANNELS = (64, 192, 384, 256, 256)  # Of the features.
NAMES = tuple(f'conv{layer}' for layer in range(1, 6))
_KERNELS, _PADDING = (11, 5, 3, 3, 3), (2, 2, 1, 1, 1)
_TORCH = (0, 3, 6, 8, 10)  # Convolutions.


class AlexNet(nn.Module):
  """Images to the activations of the five convolutions.

  Attributes:
    dtype: of the convolutions; float32 is exact on every device.
  """
  dtype: jnp.dtype = jnp.float32
  smallest = 31  # Side of an image, in pixels.

  @nn.compact
  def __call__(self, x_NxHxWx3: jax.Array) -> tuple[jax.Array, ...]:
    """Five features (N, h, w, C), the first at a quarter of the resolution.

    Args:
      x_NxHxWx3: floats in [-1, 1], at least 31 x 31 pixels.
    """
    layers.check_images(x_NxHxWx3, 'AlexNet', smallest=self.smallest)
    x = x_NxHxWx3.astype(jnp.float32) - jnp.array(vgg.MEAN)
    x = (x / jnp.array(vgg.DEVIATION)).astype(self.dtype)
    features = []
    for k, name in enumerate(NAMES):
      if k in (1, 2):
        x = nn.max_pool(x, (3, 3), (2, 2))
      x = nn.relu(layers.conv(
          CHANNELS[k], (_KERNELS[k],) * 2, 4 if k == 0 else 1, _PADDING[k],
          dtype=self.dtype, name=name)(x))
      features.append(x)
    return tuple(features)


def from_torchvision(state: Mapping[str, np.ndarray]) -> dict:
  """Parameters from torchvision's state dict ('features.0.weight', ...)."""
  return {name: layers.from_torch(state, f'features.{index}')
          for name, index in zip(NAMES, _TORCH, strict=True)}
