"""FID's Inception-v3: the TensorFlow network of 2015-12-05.

It is not the network of torchvision (arXiv 1512.00567): average pools count
only the pixels inside, the last block pools by maximum, the norms have no
scales, and there are 1008 classes. Images are resized as pytorch-fid does it,
bilinear with half-pixel centres (TensorFlow's graph samples without the halves,
clean-fid antialiases), and normalised by (x - 128) / 128 as in the graph
(pytorch-fid: x / 127.5 - 1). Each of these moves an FID, so it is said.

torchvision's own network is here too, since ViTok's released code measures with
it: it differs in all four, and its input is aligned at the corners of images.

Letters: N images, H height, W width, C channels.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from vitok.models.features import layers

SIDE = 299  # Pixels.
FEATURES = 2048
CLASSES = 1008
TORCHVISION_CLASSES = 1000

# Of each kind of block its convolutions, in their order in published files.
_UNITS = {
    'A': ('branch1x1', 'branch5x5_1', 'branch5x5_2', 'branch3x3dbl_1',
          'branch3x3dbl_2', 'branch3x3dbl_3', 'branch_pool'),
    'B': ('branch3x3', 'branch3x3dbl_1', 'branch3x3dbl_2', 'branch3x3dbl_3'),
    'C': ('branch1x1', 'branch7x7_1', 'branch7x7_2', 'branch7x7_3',
          'branch7x7dbl_1', 'branch7x7dbl_2', 'branch7x7dbl_3',
          'branch7x7dbl_4', 'branch7x7dbl_5', 'branch_pool'),
    'D': ('branch3x3_1', 'branch3x3_2', 'branch7x7x3_1', 'branch7x7x3_2',
          'branch7x7x3_3', 'branch7x7x3_4'),
    'E': ('branch1x1', 'branch3x3_1', 'branch3x3_2a', 'branch3x3_2b',
          'branch3x3dbl_1', 'branch3x3dbl_2', 'branch3x3dbl_3a',
          'branch3x3dbl_3b', 'branch_pool'),
}
_STEM = ('Conv2d_1a_3x3', 'Conv2d_2a_3x3', 'Conv2d_2b_3x3', 'Conv2d_3b_1x1',
         'Conv2d_4a_3x3')
# Kind and, of A, the width of the pooled branch; of C, that of the 7x7 ones.
_BLOCKS = {
    'Mixed_5b': ('A', 32), 'Mixed_5c': ('A', 64), 'Mixed_5d': ('A', 64),
    'Mixed_6a': ('B',), 'Mixed_6b': ('C', 128), 'Mixed_6c': ('C', 160),
    'Mixed_6d': ('C', 160), 'Mixed_6e': ('C', 192), 'Mixed_7a': ('D',),
    'Mixed_7b': ('E', 'average'), 'Mixed_7c': ('E', 'maximum'),
}
NAMES = tuple((name,) for name in _STEM) + tuple(
    (block, unit) for block, (kind, *_) in _BLOCKS.items()
    for unit in _UNITS[kind])


def _maximum(x):
  return nn.max_pool(x, (3, 3), (2, 2))


def _a(x, option, chain, average):
  return [chain(x, (64,)),
          chain(x, (48,), (64, (5, 5))),
          chain(x, (64,), (96, (3, 3)), (96, (3, 3))),
          chain(average(x), (option,))]


def _b(x, option, chain, average):
  return [chain(x, (384, (3, 3), 2)),
          chain(x, (64,), (96, (3, 3)), (96, (3, 3), 2)),
          _maximum(x)]


def _c(x, option, chain, average):
  c, row, column = option, (1, 7), (7, 1)
  return [chain(x, (192,)),
          chain(x, (c,), (c, row), (192, column)),
          chain(x, (c,), (c, column), (c, row), (c, column), (192, row)),
          chain(average(x), (192,))]


def _d(x, option, chain, average):
  return [chain(x, (192,), (320, (3, 3), 2)),
          chain(x, (192,), (192, (1, 7)), (192, (7, 1)),
                (192, (3, 3), 2)),
          _maximum(x)]


def _e(x, option, chain, average):
  parts = [chain(x, (320,))]
  for specs in ([(384,)], [(448,), (384, (3, 3))]):
    y = chain(x, *specs)
    parts += [chain(y, (384, (1, 3))), chain(y, (384, (3, 1)))]
  pooled = (average(x) if option == 'average'
            else nn.max_pool(x, (3, 3), (1, 1), 'SAME'))
  return [*parts, chain(pooled, (192,))]


_BRANCHES = {'A': _a, 'B': _b, 'C': _c, 'D': _d, 'E': _e}


class _Block(nn.Module):
  """One of the five kinds, by `_BLOCKS`; see `Inception`."""
  kind: str
  option: int | str | None = None
  torchvision: bool = False

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    units = iter(_UNITS[self.kind])

    def unit(x, width, kernel=(1, 1), strides=1):
      padding = 'SAME' if strides == 1 else 'VALID'
      return layers.ConvNorm(width, kernel, strides, padding,
                             self.torchvision, name=next(units))(x)

    def chain(x, *specs):
      for spec in specs:
        x = unit(x, *spec)
      return x

    def average(x):
      return nn.avg_pool(x, (3, 3), (1, 1), 'SAME',
                         count_include_pad=self.torchvision)

    option = self.option
    if self.torchvision and option == 'maximum':
      option = 'average'
    return jnp.concatenate(
        _BRANCHES[self.kind](x, option, chain, average), -1)


class Inception(nn.Module):
  """uint8 images to features and, on request, logits.

  Attributes:
    head: whether the logits of the 1008 classes are computed too, of which
      the Inception score is made. As in its published code (arXiv 1606.03498)
      they are without the network's bias.
    torchvision: whether it is torchvision's network, with 1000 classes and
      their biases.
  """
  head: bool = False
  torchvision: bool = False

  @nn.compact
  def __call__(self, x_NxHxWx3: jax.Array) -> dict[str, jax.Array]:
    """`{'features': (N, 2048)}`, and 'logits' (N, 1008) with a head.

    Args:
      x_NxHxWx3: uint8 levels of any size; resized to 299 x 299.
    """
    layers.check_images(x_NxHxWx3, 'Inception', dtype=jnp.uint8)
    # torchvision: the mean and deviation of ImageNet, which cancel there with
    # the network's own transformation of its input.
    x = (layers.resize_corners(x_NxHxWx3, SIDE) / 127.5 - 1
         if self.torchvision else
         (layers.resize(x_NxHxWx3, SIDE) - 128) / 128)
    names = iter(_STEM)
    unit = lambda x, *spec: layers.ConvNorm(
        *spec, scale=self.torchvision, name=next(names))(x)
    x = unit(x, 32, (3, 3), 2)
    x = unit(x, 32, (3, 3))
    x = unit(x, 64, (3, 3), 1, 'SAME')
    x = unit(_maximum(x), 80, (1, 1))
    x = _maximum(unit(x, 192, (3, 3)))
    for name, options in _BLOCKS.items():
      x = _Block(*options, torchvision=self.torchvision, name=name)(x)
    out = {'features': x.mean((1, 2))}
    if self.head:
      out['logits'] = nn.Dense(
          TORCHVISION_CLASSES if self.torchvision else CLASSES,
          use_bias=self.torchvision, precision=jax.lax.Precision.HIGHEST,
          name='head')(out['features'])
    return out


def from_pytorch_fid(state: Mapping[str, np.ndarray]) -> dict:
  """Parameters from pytorch-fid's state dict; with the head if it has one."""
  params = _trunk(state, scale=False)
  if 'fc.weight' in state:
    params['head'] = {'kernel': np.asarray(state['fc.weight']).T}
  return params


def from_torchvision(state: Mapping[str, np.ndarray]) -> dict:
  """Parameters with the head from torchvision's state dict."""
  return _trunk(state, scale=True) | {'head': {
      'kernel': np.asarray(state['fc.weight']).T,
      'bias': np.asarray(state['fc.bias'])}}


def _trunk(state, scale):
  params = {}
  for path in NAMES:
    name = '.'.join(path)
    layers.put(params, path, layers.from_torch(state, f'{name}.conv'),
               layers.norm_from_torch(state, f'{name}.bn', scale))
  return params


def from_torchscript(state: Mapping[str, np.ndarray]) -> dict:
  """Parameters of the trunk from the TorchScript archive of StyleGAN2-ADA.

  Its units hold `weight`, `beta`, `mean` and `var`, in the order of `NAMES`.

  Raises:
    ValueError: another number of units.
  """
  units = [name.removesuffix('.weight') for name in state
           if name.endswith('.weight')]
  params = {}
  for path, name in list(zip(NAMES, units, strict=True)):
    layers.put(params, path, layers.from_torch(state, name),
               {'bias': state[f'{name}.beta'], 'mean': state[f'{name}.mean'],
                'var': state[f'{name}.var']})
  return params
