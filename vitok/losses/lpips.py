"""LPIPS: weighted distance of deep features (arXiv 1801.03924, version 0.1).

Letters: N images, B examples, T frames, H height, W width, C channels.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vitok import errors
from vitok.interop import weights
from vitok.models import counting, features

NETWORKS = {'vgg16': features.VGG16, 'alexnet': features.AlexNet}

# Under the root of a feature vector's length, so that the gradient is finite
# where it is zero. The published code adds 1e-10 to the root: its gradient
# there is not a number. Lengths above 1e-2 differ by less than 1e-6 relative.
EPSILON = 1e-10


class LPIPS:
  """The distance that a network measures.

  Attributes:
    weights: name of its converted weights, `{'net': .., 'heads': ..}`.
    network: module of the features.
    dtype: of its convolutions.
    smallest: side of an image, in pixels, at least.
  """

  def __init__(self, network: str, dtype: jnp.dtype = jnp.float32):
    """Says which network; reads nothing.

    Args:
      network: 'vgg16' (the loss of most tokenizers) or 'alexnet' (the metric
        that its authors recommend).
      dtype: of the convolutions. Distances are always float32.

    Raises:
      InputError: there is no network of that name.
    """
    errors.one_of('network', network, tuple(NETWORKS))
    self.weights = f'lpips_{network}'
    self.network = NETWORKS[network](dtype)
    self.dtype, self.smallest = dtype, self.network.smallest

  def __call__(self, params: Mapping[str, Any], x: jax.Array,
               y: jax.Array) -> jax.Array:
    """Distances of images or clips; frames are compared one by one.

    Args:
      params: `{'net': parameters, 'heads': {'0': (C,), ..}}`.
      x, y: (B, T, H, W, 3), floats in [-1, 1].

    Returns:
      (B,) float32, each the mean over its frames.
    """
    if x.shape != y.shape or x.ndim != 5:
      raise ValueError(f'LPIPS takes two of (B, T, H, W, 3), got shapes '
                       f'{x.shape} and {y.shape}')
    apply = lambda z: self.network.apply(
        {'params': params['net']}, z.reshape(-1, *z.shape[2:]))
    with weights.fit(self.weights):
      heads = [params['heads'][str(k)] for k in range(len(params['heads']))]
      of_x, of_y = apply(x), apply(y)
      if [h.shape for h in heads] != [z.shape[-1:] for z in of_x]:
        raise TypeError(f'heads of shapes {[h.shape for h in heads]}')
    distance_N = distance(of_x, of_y, heads)
    return distance_N.reshape(x.shape[:2]).mean(1)

  def count(self, shape: Sequence[int]) -> dict[str, int]:
    """`models.counting.count` of one frame (H, W, 3), without heads."""
    return counting.count(self.network, shape)


def distance(x: Sequence[jax.Array], y: Sequence[jax.Array],
             heads: Sequence[jax.Array]) -> jax.Array:
  """Sum over layers of the mean over positions of head . (x' - y')^2.

  x' and y' are the features with unit length at each position (equation 1).

  Args:
    x, y: features, each (N, H, W, C).
    heads: a weight for each channel (C,) of each.

  Returns:
    (N,) float32.
  """
  total = 0.0
  for x_NxHxWxC, y_NxHxWxC, head_C in zip(x, y, heads, strict=True):
    square = jnp.square(unit(x_NxHxWxC) - unit(y_NxHxWxC))
    # A sum and no product of matrices: that could be rounded to bfloat16.
    total += (square * head_C).sum(-1).mean((1, 2))
  return total


def unit(x: jax.Array) -> jax.Array:
  """Vectors of the last axis at length 1, float32; zero stays zero."""
  x = x.astype(jnp.float32)
  return x * jax.lax.rsqrt(jnp.square(x).sum(-1, keepdims=True) + EPSILON)


def heads_from_torch(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Heads from the published state dict ('lin0.model.1.weight', ...)."""
  return {str(k): np.asarray(state[f'lin{k}.model.1.weight']).reshape(-1)
          for k in range(5)}

