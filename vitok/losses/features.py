"""Distance of the features of a frozen network, on tiles of the images.

ViTok-v2 (arXiv 2605.05331) compares features of a self-supervised ViT in place
of LPIPS and a discriminator. Of its form little is public: here the features
are the last layer's tokens at unit length, and their squared difference is
averaged over channels and positions.

Letters: B examples, T frames, H height, W width, N tiles, C channels.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from vitok import errors
from vitok.interop import weights
from vitok.losses import lpips
from vitok.models import counting
from vitok.models.features import dinov2, resnet

NETWORKS = {name: functools.partial(dinov2.make, name)
            for name in weights.REPOSITORIES}
NETWORKS['resnet50'] = lambda dtype: resnet.ResNet50()  # float32 alone.
_SMALLEST = {'resnet50': 32}


class Features:
  """The distance that a network measures.

  Attributes:
    weights: name of its converted weights.
    network: module of the features.
    dtype: of its products.
    smallest: side of an image or tile, in pixels, at least.
  """

  def __init__(self, network: str, tile: int = 0,
               dtype: jnp.dtype = jnp.float32):
    """Says which network; reads nothing.

    Args:
      network: key of `NETWORKS`.
      tile: side in pixels of the squares that are compared apart; 0: frames
        as a whole. An image's sides are multiples of it.
      dtype: of the network's products, where it has the choice. Distances are
        always float32.

    Raises:
      InputError: there is no network of that name.
    """
    self.weights = errors.one_of('config.loss.feature_network', network,
                                 tuple(NETWORKS))
    self.network = NETWORKS[network](dtype)
    self.dtype = getattr(self.network, 'dtype', jnp.float32)
    self.smallest = _SMALLEST.get(network, 1)
    self._tile = tile

  def __call__(self, params: Mapping[str, Any], x: jax.Array,
               y: jax.Array) -> jax.Array:
    """Distances of images or clips; frames are compared one by one.

    Args:
      params: of the network.
      x, y: (B, T, H, W, 3), floats in [-1, 1].

    Returns:
      (B,) float32, each the mean over its tiles and frames.
    """
    if x.shape != y.shape or x.ndim != 5:
      raise ValueError(f'Features take two of (B, T, H, W, 3), got shapes '
                       f'{x.shape} and {y.shape}')

    def tokens(z):
      out = self.network.apply({'params': params}, _tiles(z, self._tile))
      return lpips.unit(out['tokens'])
    with weights.fit(self.weights):
      square = jnp.square(tokens(x) - tokens(y))
    return square.reshape(len(x), -1).mean(1)

  def count(self, shape: Sequence[int]) -> dict[str, int]:
    """As `models.counting.count`, of all tiles of one frame (H, W, 3)."""
    height, width, colours = shape
    tile = (self._tile or height, self._tile or width, colours)
    tiles = height // tile[0] * (width // tile[1])
    count = getattr(self.network, 'count', functools.partial(
        counting.count, self.network))(tile)
    return {name: n if name == 'parameters' else tiles * n
            for name, n in count.items()}


def _tiles(x_BxTxHxWx3, side):
  """(N, side, side, 3), the tiles of an example side by side."""
  b, t, h, w, c = x_BxTxHxWx3.shape
  if not side:
    return x_BxTxHxWx3.reshape(b * t, h, w, c)
  if h % side or w % side:
    raise ValueError(f'tiles of {side} do not fill {h} x {w} pixels')
  x = x_BxTxHxWx3.reshape(b * t, h // side, side, w // side, side, c)
  return x.swapaxes(2, 3).reshape(-1, side, side, c)
