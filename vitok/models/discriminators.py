"""Discriminators: logits of how real images and clips look.

`residual` is ViTok's, of StyleGAN's kind (arXiv 2501.09755, section 2.3;
residual form of StyleGAN2, arXiv 1912.04958): blocks that halve the image down
to 4 x 4, then one logit for the whole. `patch` is PatchGAN (arXiv 1611.07004,
section 3.2.2): a map of logits, each of a patch of at most 70 x 70 pixels.
Both see frames one by one; `residual3d` and `patch3d` see whole clips.

One rule for all axes: an axis is halved while 8 or more numbers are left of
it, so that it ends with 4 to 7. Frames of a clip obey it too: 16 frames end as
4, and an image is a clip of one frame.

Nothing here mixes examples: neither minibatch statistics nor batch norm. A
logit depends on its own example, whatever the batch, the micro-batch or the
device, and R1 may differentiate the sum over a batch.

Dimensions: B batch, T frames, H and W pixels, C colours, N logits of an
example, F features; (space) stands for H, W or T, H, W.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from vitok import errors
from vitok.models import layers

FEATURES = 512  # Of the residual blocks at 32 x 32 and below; halved above.
PATCH_FEATURES = 64  # Of the first layer; doubled by each further one,
PATCH_LAYERS = 4  # up to this many layers.
BLUR = (1, 3, 3, 1)  # Low-pass filter before an axis is halved.
LEAK = 0.2  # Slope of the leaky ReLU below zero.


def _halved(sizes: Sequence[int]) -> tuple[bool, ...]:
  """Which axes the next layer halves."""
  return tuple(size >= 8 for size in sizes)


def _leaky(x: jax.Array) -> jax.Array:
  return nn.leaky_relu(x, LEAK)


def blur(x: jax.Array, halved: Sequence[bool]) -> jax.Array:
  """Low-pass filters and halves axes of (B, space, F); zeros beyond the edge.

  As shifted sums: a convolution of single channels is slow on every backend.
  """
  for axis, halve in enumerate(halved, start=1):
    if halve:
      padding = [(0, 0)] * x.ndim
      padding[axis] = (1, 1)
      padded, size = jnp.pad(x, padding), 2 * (x.shape[axis] // 2)
      x = sum(
          weight / sum(BLUR) * jax.lax.slice_in_dim(
              padded, i, i + size - 1, stride=2, axis=axis)
          for i, weight in enumerate(BLUR))
  return x


class Conv(nn.Module):
  """Convolution of (B, space, F), padded by (kernel - 1) // 2 on each side.

  Attributes:
    features: of the output.
    kernel, stride: one number for each axis of the space.
    use_bias: whether a bias is added.
    dtype: of the operands and of the output.
  """
  features: int
  kernel: tuple[int, ...]
  stride: tuple[int, ...]
  use_bias: bool = True
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    axes = ('time', 'height', 'width')[-len(self.kernel):]
    kernel = self.param('kernel', nn.with_logical_partitioning(
        nn.initializers.xavier_uniform(), (*axes, 'features_in', 'features')),
        (*self.kernel, x.shape[-1], self.features))
    space = 'DHW'[-len(self.kernel):]
    x = jax.lax.conv_general_dilated(
        x.astype(self.dtype), kernel.astype(self.dtype), self.stride,
        [((size - 1) // 2,) * 2 for size in self.kernel],
        dimension_numbers=(f'N{space}C', f'{space}IO', f'N{space}C'))
    if not self.use_bias:
      return x
    return x + _vector(self, 'bias', nn.initializers.zeros, x).astype(x.dtype)


class GroupNorm(nn.Module):
  """Zero mean, unit variance over the space and a group of features.

  Of one example: PatchGAN's batch norm would mix them. Computes in float32.
  """
  dtype: jnp.dtype = jnp.float32
  epsilon: float = 1e-6

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    groups = math.gcd(32, x.shape[-1])
    y = x.astype(jnp.float32).reshape(x.shape[0], -1, groups,
                                      x.shape[-1] // groups)
    y -= y.mean((1, 3), keepdims=True)
    variance = jnp.square(y).mean((1, 3), keepdims=True)
    y = (y * jax.lax.rsqrt(variance + self.epsilon)).reshape(x.shape)
    y = (y * _vector(self, 'scale', nn.initializers.ones, x)
         + _vector(self, 'bias', nn.initializers.zeros, x))
    return y.astype(self.dtype)


def _vector(module, name, init, x):
  return module.param(
      name, nn.with_logical_partitioning(init, ('features',)), x.shape[-1:])


class Discriminator(nn.Module):
  """What the kinds share: frames, or clips, in; logits out.

  Attributes:
    width: factor on the published numbers of features.
    clips: whether a logit sees a whole clip, or one frame.
    dtype: of convolutions and matrix products.
  """
  width: float = 1.0
  clips: bool = False
  dtype: jnp.dtype = jnp.float32

  def __call__(self, image_BxTxHxWxC: jax.Array) -> jax.Array:
    """Logits of images.

    Args:
      image_BxTxHxWxC: in [-1, 1].

    Returns:
      (B, N) float32, large for real images. N is T for `residual`, 1 for
      `residual3d`, and the numbers of a map (times T for `patch`).
    """
    x = image_BxTxHxWxC
    if not self.clips:
      x = x.reshape(-1, *x.shape[2:])
    x = self.network(layers.constrain_batch(x.astype(self.dtype)))
    return x.astype(jnp.float32).reshape(image_BxTxHxWxC.shape[0], -1)

  def network(self, x: jax.Array) -> jax.Array:
    """Logits (B, ...) of (B, space, C)."""
    raise NotImplementedError

  def features(self, published: int) -> int:
    return max(1, round(self.width * published))

  def conv(self, features: int, kernel: Sequence[int], name: str,
           stride: Sequence[int] | None = None, use_bias: bool = True) -> Conv:
    return Conv(features, tuple(kernel), tuple(stride or (1,) * len(kernel)),
                use_bias, self.dtype, name=name)


class Residual(Discriminator):
  """StyleGAN's kind: one logit for the whole image or clip.

  A block: (conv, leaky ReLU, blur and halve, conv, leaky ReLU) plus (blur and
  halve, 1 x 1 conv), divided by sqrt(2).
  """

  @nn.compact
  def network(self, x: jax.Array) -> jax.Array:
    rank = x.ndim - 2
    three, one = (3,) * rank, (1,) * rank
    x = _leaky(self.conv(self._at(x), three, 'stem')(x))
    number = 0
    while any(halved := _halved(x.shape[1:-1])):
      h = _leaky(self.conv(x.shape[-1], three, f'block{number}_conv0')(x))
      h, skip = blur(h, halved), blur(x, halved)
      features = self._at(h)
      h = _leaky(self.conv(features, three, f'block{number}_conv1')(h))
      skip = self.conv(features, one, f'block{number}_skip',
                       use_bias=False)(skip)
      x, number = (h + skip) * math.sqrt(0.5), number + 1
    x = _leaky(self.conv(x.shape[-1], three, 'head')(x))
    x = _leaky(layers.Linear(
        self.features(FEATURES), ('features_in', 'features'), dtype=self.dtype,
        name='hidden')(x.reshape(x.shape[0], -1)))
    return layers.Linear(
        1, ('features_in', 'logits'), dtype=self.dtype,
        out_dtype=jnp.float32, name='logit')(x)

  def _at(self, x):
    """Features where the larger side is that of x: 256 at 64, 128 at 128..."""
    side = max(x.shape[-3:-1])
    return self.features(FEATURES * 32 // max(32, 2**int(math.log2(side))))


class Patch(Discriminator):
  """PatchGAN: a map of logits.

  Up to three layers halve; then there are two more, 4 x 4 without a stride.
  Group norm stands in for batch norm, after all layers but the first and the
  last. An axis that is not halved has kernel 3 in the first layers, and so has
  time in all of them.
  """

  @nn.compact
  def network(self, x: jax.Array) -> jax.Array:
    number = 0
    while number < PATCH_LAYERS - 1 and any(
        halved := _halved(x.shape[1:-1])):
      kernel = [4 if halve else 3 for halve in halved]
      stride = [2 if halve else 1 for halve in halved]
      x = self._layer(x, number, kernel, stride)
      number += 1
    last = (3,) * (x.ndim - 4) + (4, 4)
    x = self._layer(x, number, last)
    return self.conv(1, last, 'logits')(x)

  def _layer(self, x, number, kernel, stride=None):
    features = self.features(PATCH_FEATURES * 2**min(number, PATCH_LAYERS - 1))
    x = self.conv(features, kernel, f'conv{number}', stride,
                  use_bias=not number)(x)
    if number:
      x = GroupNorm(self.dtype, name=f'norm{number}')(x)
    return _leaky(x)


DISCRIMINATORS = {
    'residual': (Residual, False),
    'patch': (Patch, False),
    'residual3d': (Residual, True),
    'patch3d': (Patch, True),
}


def build(name: str, *, resolution: int, width: float = 1.0,
          dtype: str = 'float32') -> Discriminator:
  """The discriminator called `name`; starts no device.

  Args:
    name: key of `DISCRIMINATORS`.
    resolution: the smaller side of the images in pixels.
    width: factor on the published numbers of features. 1/16 suits images of 32
      pixels on two cores.
    dtype: key of `layers.DTYPES`.

  Raises:
    InputError: an unknown name, a width that leaves no feature, or images
      below 4 pixels.
  """
  key = 'config.adversarial'
  errors.one_of(f'{key}.discriminator', name, tuple(DISCRIMINATORS))
  errors.one_of('config.model.dtype', dtype, tuple(layers.DTYPES))
  least = 1 / PATCH_FEATURES
  if not least <= width <= 16:
    raise errors.InputError(f'{key}.width', width, 'is outside 1/64 to 16',
                            least if width < least else 16)
  if resolution < 4:
    raise errors.InputError('config.data.resolution', resolution,
                            'is too small for a discriminator', 4)
  kind, clips = DISCRIMINATORS[name]
  return kind(width, clips, layers.DTYPES[dtype])
