"""I3D on RGB clips, trained on Kinetics-400 (arXiv 1705.07750).

The Frechet video distance (arXiv 1812.01717) is measured on its logits. All
padding is TensorFlow's SAME, as in the network on TensorFlow Hub, of which
`i3d_torchscript` is a port; odd extents pad as TensorFlow does there.

Letters: N clips, T frames, H height, W width, C channels.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from vitok.models.features import layers

SIDE = 224  # Pixels.
CLASSES = 400
# A head averages over two steps in time, which three halvings must leave.
MIN_FRAMES = 9

# Widths of a block: 1x1; 1x1 then 3x3; 1x1 then 3x3; pool then 1x1.
_BLOCKS = {
    'mixed_3b': (64, 96, 128, 16, 32, 32),
    'mixed_3c': (128, 128, 192, 32, 96, 64),
    'mixed_4b': (192, 96, 208, 16, 48, 64),
    'mixed_4c': (160, 112, 224, 24, 64, 64),
    'mixed_4d': (128, 128, 256, 24, 64, 64),
    'mixed_4e': (112, 144, 288, 32, 64, 64),
    'mixed_4f': (256, 160, 320, 32, 128, 128),
    'mixed_5b': (256, 160, 320, 32, 128, 128),
    'mixed_5c': (384, 192, 384, 48, 128, 128),
}
# Before these blocks: window and strides of a maximum pool.
_POOLS = {'mixed_4b': ((3, 3, 3), (2, 2, 2)), 'mixed_5b': ((2, 2, 2),) * 2}
_UNITS = ('branch_0', 'branch_1_0', 'branch_1_1', 'branch_2_0', 'branch_2_1',
          'branch_3_1')
_STEM = ('conv3d_1a_7x7', 'conv3d_2b_1x1', 'conv3d_2c_3x3')
NAMES = tuple((name,) for name in _STEM) + tuple(
    (block, unit) for block in _BLOCKS for unit in _UNITS)


class _Block(nn.Module):
  """Four branches side by side."""
  widths: tuple[int, ...]

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    unit = lambda k, kernel, x: layers.ConvNorm(
        self.widths[k], (kernel,) * 3, 1, 'SAME', name=_UNITS[k])(x)
    pooled = nn.max_pool(x, (3, 3, 3), (1, 1, 1), 'SAME')
    return jnp.concatenate([
        unit(0, 1, x), unit(2, 3, unit(1, 1, x)), unit(4, 3, unit(3, 1, x)),
        unit(5, 1, pooled)], -1)


class I3D(nn.Module):
  """uint8 clips to 400 logits, averaged over time."""

  @nn.compact
  def __call__(self, x_NxTxHxWx3: jax.Array) -> jax.Array:
    """(N, 400) float32.

    Args:
      x_NxTxHxWx3: uint8 levels of any size, at least 9 frames; each frame is
        resized to 224 x 224 and scaled to [-1, 1].
    """
    layers.check_images(x_NxTxHxWx3, 'I3D', rank=5, dtype=jnp.uint8)
    n, t, *image = x_NxTxHxWx3.shape
    if t < MIN_FRAMES:
      raise ValueError(f'I3D needs {MIN_FRAMES} frames, got {t}')
    x = layers.resize(x_NxTxHxWx3.reshape(n * t, *image), SIDE)
    x = x.reshape(n, t, SIDE, SIDE, 3) / 127.5 - 1
    names = iter(_STEM)
    unit = lambda x, *spec: layers.ConvNorm(*spec, 'SAME', name=next(names))(x)
    shrink = lambda x: nn.max_pool(x, (1, 3, 3), (1, 2, 2), 'SAME')
    x = shrink(unit(x, 64, (7, 7, 7), 2))
    x = shrink(unit(unit(x, 64, (1, 1, 1), 1), 192, (3, 3, 3), 1))
    for name, widths in _BLOCKS.items():
      if name in _POOLS:
        x = nn.max_pool(x, *_POOLS[name], 'SAME')
      x = _Block(widths, name=name)(x)
    x = nn.avg_pool(x, (2, 7, 7), (1, 1, 1))
    x = layers.conv(CLASSES, (1, 1, 1), name='conv3d_0c_1x1')(x)
    return x.mean((1, 2, 3))


def from_torchscript(state: Mapping[str, np.ndarray]) -> dict:
  """Parameters from a PyTorch port's tensors, taken in their order.

  Each convolution without bias is followed by its batch norm; the last one
  has a bias and none. The names above them do not matter.

  Raises:
    ValueError: other convolutions than the network's, or norms with scales.
  """
  convs = [name.removesuffix('.weight') for name, array in state.items()
           if name.endswith('.weight') and array.ndim == 5]
  norms = [name.removesuffix('.running_mean') for name in state
           if name.endswith('.running_mean')]
  *convs, head = convs
  params = {'conv3d_0c_1x1': layers.from_torch(state, head)}
  for path, conv, norm in list(zip(NAMES, convs, norms, strict=True)):
    layers.put(params, path, layers.from_torch(state, conv),
               layers.norm_from_torch(state, norm))
  clip = jax.ShapeDtypeStruct((1, MIN_FRAMES, SIDE, SIDE, 3), jnp.uint8)
  layers.check_params(I3D(), params, clip)
  return params
