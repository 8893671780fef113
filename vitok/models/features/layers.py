"""What the published convolutional networks are made of.

Letters: N images, H height, W width, C channels, K a kernel's extents.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import traverse_util


def check_images(x: jax.Array, network: str, *, rank: int = 4,
                 smallest: int = 1, dtype: type = jnp.floating) -> None:
  """Refuses what can be seen, without its values, to be no input.

  Args:
    x: images (N, H, W, 3) or, of rank 5, clips (N, T, H, W, 3).
    network: what messages call it.
    rank: number of axes.
    smallest: height and width must be at least so many pixels.
    dtype: kind of numbers: `jnp.floating` for [-1, 1], `jnp.uint8` for levels.

  Raises:
    ValueError: another rank, kind of numbers, number of channels or size.
  """
  axes = '(N, T, H, W, 3)' if rank == 5 else '(N, H, W, 3)'
  if x.ndim != rank or x.shape[-1] != 3:
    raise ValueError(f'{network} takes {axes}, got shape {x.shape}')
  if not jnp.issubdtype(x.dtype, dtype):
    kind = 'uint8 levels' if dtype == jnp.uint8 else 'floats in [-1, 1]'
    raise ValueError(f'{network} takes {kind}, got {x.dtype}')
  if min(x.shape[-3:-1]) < smallest:
    raise ValueError(f'{network} needs {smallest} x {smallest} pixels, got '
                     f'{x.shape[-3]} x {x.shape[-2]}')


def conv(features: int, kernel: Sequence[int], strides: int = 1,
         padding: Any = 'VALID', *, bias: bool = True,
         dtype: jnp.dtype = jnp.float32, name: str | None = None) -> nn.Conv:
  """Flax's convolution, of which float32 means float32 on every device.

  Accelerators otherwise round the factors of float32 products (TF32, bf16),
  and a metric would depend on the machine.
  """
  exact = jax.lax.Precision.HIGHEST if dtype == jnp.float32 else None
  return nn.Conv(features, kernel, strides, padding, use_bias=bias,
                 dtype=dtype, precision=exact, name=name)


class BatchNorm(nn.Module):
  """Normalises channels by stored moments; never learns them.

  Attributes:
    epsilon: added to the variance.
    scale: whether the network has scales; biases it always has.
  """
  epsilon: float
  scale: bool = True

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    size = x.shape[-1:]
    mean = self.param('mean', nn.initializers.zeros, size)
    variance = self.param('var', nn.initializers.ones, size)
    factor = jax.lax.rsqrt(variance + self.epsilon)
    if self.scale:
      factor *= self.param('scale', nn.initializers.ones, size)
    bias = self.param('bias', nn.initializers.zeros, size)
    return (x - mean) * factor + bias


class ConvNorm(nn.Module):
  """relu(norm(conv(x))): the unit of Inception networks, without biases.

  Attributes:
    scale: whether the norm has scales.
  """
  features: int
  kernel: Sequence[int]
  strides: int = 1
  padding: Any = 'VALID'
  scale: bool = False

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    x = conv(self.features, self.kernel, self.strides, self.padding,
             bias=False, name='conv')(x)
    return nn.relu(BatchNorm(1e-3, self.scale, name='norm')(x))


def resize(x_NxHxWxC: jax.Array, side: int) -> jax.Array:
  """Bilinear, half-pixel centres, no antialiasing, to float32.

  What PyTorch calls `interpolate(mode='bilinear', align_corners=False)`.
  """
  n, h, w, c = x_NxHxWxC.shape
  x = x_NxHxWxC.astype(jnp.float32)
  if (h, w) == (side, side):
    return x
  return jax.image.resize(x, (n, side, side, c), 'bilinear', antialias=False)


def resize_corners(x_NxHxWxC: jax.Array, side: int) -> jax.Array:
  """The same with the centres of corner pixels kept (`align_corners=True`)."""
  def weights(extent: int) -> np.ndarray:
    place_S = np.linspace(0, extent - 1, side)  # float64: pixels of the input.
    distance_SxE = np.abs(place_S[:, None] - np.arange(extent))
    return np.maximum(1 - distance_SxE, 0).astype(np.float32)

  _, h, w, _ = x_NxHxWxC.shape
  return jnp.einsum('ih,jw,nhwc->nijc', weights(h), weights(w),
                    x_NxHxWxC.astype(jnp.float32),
                    precision=jax.lax.Precision.HIGHEST)


def from_torch(state: Mapping[str, np.ndarray], name: str) -> dict:
  """A convolution's parameters from PyTorch's: (O, I, *K) to (*K, I, O)."""
  weight = np.asarray(state[f'{name}.weight'])
  conv = {'kernel': weight.transpose(*range(2, weight.ndim), 1, 0)}
  if f'{name}.bias' in state:
    conv['bias'] = np.asarray(state[f'{name}.bias'])
  return conv


def norm_from_torch(state: Mapping[str, np.ndarray], name: str,
                    scale: bool = False) -> dict:
  """The norm of a `ConvNorm` from PyTorch's batch norm.

  Raises:
    ValueError: its scales are not all one, of a `ConvNorm` without.
  """
  if not scale and np.any(state.get(f'{name}.weight', 1.0) != 1):
    raise ValueError(f'{name} has scales')
  names = {'bias': 'bias', 'mean': 'running_mean', 'var': 'running_var'}
  if scale:
    names['scale'] = 'weight'
  return {ours: np.asarray(state[f'{name}.{theirs}'])
          for ours, theirs in names.items()}


def put(params: dict, path: Sequence[str], conv: dict, norm: dict) -> None:
  """Adds the parameters of a `ConvNorm` at a path of names."""
  for name in path:
    params = params.setdefault(name, {})
  params.update(conv=conv, norm=norm)


def check_params(network: nn.Module, params: dict, *inputs: Any) -> None:
  """Refuses parameters that are not those of a network.

  Raises:
    ValueError: names the first that is missing, unknown or of another shape.
  """
  expected = nn.unbox(jax.eval_shape(
      network.init, jax.random.key(0), *inputs))['params']
  shapes = lambda tree: {name: leaf.shape for name, leaf in
                         traverse_util.flatten_dict(tree, sep='/').items()}
  found, expected = shapes(params), shapes(expected)
  for name in sorted(found.keys() | expected.keys()):
    if found.get(name) != expected.get(name):
      raise ValueError(f'{name} has shape {found.get(name)}, expected '
                       f'{expected.get(name)}')
