"""ViTok's auto-encoder: patches -> encoder -> bottleneck -> decoder -> pixels.

arXiv 2501.09755, section 2.2. An image is a clip of one frame, patches are
tubelets of q frames of p x p pixels, tokens are ordered by time, row, column.

Dimensions: B batch, T frames, H and W pixels, C colours, L tokens, P numbers
of a patch (q * p * p * C), D width, c channels of the code.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from vitok import sizes
from vitok.models import bottlenecks, layers, positions, stack


def patchify(image_BxTxHxWxC: jax.Array, tubelet: int,
             patch: int) -> jax.Array:
  """Cuts clips into tubelets: (B, L, P), a patch ordered frame, row, column,
  colour."""
  b, t, h, w, c = image_BxTxHxWxC.shape
  x = image_BxTxHxWxC.reshape(b, t // tubelet, tubelet, h // patch, patch,
                              w // patch, patch, c)
  return x.transpose(0, 1, 3, 5, 2, 4, 6, 7).reshape(
      b, -1, tubelet * patch * patch * c)


def unpatchify(patches_BxLxP: jax.Array, grid: positions.Grid, tubelet: int,
               patch: int) -> jax.Array:
  """Inverse of `patchify`; `grid` is tokens along time, height and width."""
  t, h, w = grid
  x = patches_BxLxP.reshape(-1, t, h, w, tubelet, patch, patch,
                            patches_BxLxP.shape[-1] // (tubelet * patch**2))
  return x.transpose(0, 1, 4, 2, 5, 3, 6, 7).reshape(
      -1, t * tubelet, h * patch, w * patch, x.shape[-1])


class Trunk(nn.Module):
  """What encoder and decoder share: positions, blocks, final norm."""
  tower: sizes.Tower
  mlp: str = 'swiglu'
  norm: str = 'layernorm'
  positions: str = 'rope2d'
  block: str = 'sequential'
  layer_scale: float = 0.0
  qk_norm: bool = False
  bias: bool = True
  final_norm: bool = True
  attention: str = 'xla'
  scan: bool = True
  remat: str = 'none'
  dtype: jnp.dtype = jnp.float32

  def trunk(self, x_BxLxD, grid, taps):
    """Final tokens (B, L, D) and `{k: output of block k}`."""
    x_BxLxD = positions.add(self, self.positions, grid, x_BxLxD)
    block = stack.Block(
        self.tower, self.mlp, self.norm, self.attention, self.block,
        self.layer_scale, self.qk_norm, self.bias, self.dtype, name='blocks')
    rotation = positions.rotation(self.positions, grid, self.tower.head_dim)
    x_BxLxD, tapped, _ = stack.stack(
        block, self.tower.depth, x_BxLxD, rotation, taps=taps, scan=self.scan,
        remat=self.remat)
    x_BxLxD = layers.constrain_batch(x_BxLxD)
    if self.final_norm:
      x_BxLxD = layers.NORMS[self.norm](self.dtype, name='norm')(x_BxLxD)
    return x_BxLxD, tapped


class Encoder(Trunk):
  """Patches to tokens."""

  @nn.compact
  def __call__(self, patches_BxLxP: jax.Array, grid: positions.Grid,
               taps: Sequence[int] = ()):
    x_BxLxD = layers.Linear(self.tower.width, ('patch', 'embed'),
                            dtype=self.dtype, name='embed')(patches_BxLxP)
    return self.trunk(x_BxLxD, grid, taps)


class Decoder(Trunk):
  """Tokens to patches, in float32."""
  patch_dim: int = 0

  @nn.compact
  def __call__(self, x_BxLxD: jax.Array, grid: positions.Grid,
               taps: Sequence[int] = ()):
    x_BxLxD, tapped = self.trunk(x_BxLxD, grid, taps)
    unembed = layers.Linear(
        self.patch_dim, ('embed', 'patch'), scale=layers.PIXELS_SCALE,
        dtype=self.dtype, out_dtype=jnp.float32, name='unembed')
    return unembed(x_BxLxD), x_BxLxD, tapped


class AutoEncoder(nn.Module):
  """A ViTok auto-encoder; `vitok.models.build` makes one from a config.

  Attributes:
    size: dimensions.
    grid: tokens along time, height and width of the clips it is trained on.
    trunk: the options of `Trunk` that both towers share.
    bottleneck: key of `bottlenecks.BOTTLENECKS`.
  """
  size: sizes.Size
  grid: positions.Grid
  trunk: Mapping[str, Any]
  bottleneck_name: str = 'gaussian'
  dtype: jnp.dtype = jnp.float32

  def setup(self):
    size, options = self.size, dict(self.trunk, dtype=self.dtype)
    self.encoder = Encoder(size.encoder, **options)
    self.bottleneck = bottlenecks.BOTTLENECKS[self.bottleneck_name](
        size.channels, self.dtype)
    self.bottleneck_up = layers.Linear(
        size.decoder.width, ('code', 'embed'), dtype=self.dtype)
    self.decoder = Decoder(size.decoder, patch_dim=size.patch_dim, **options)

  def __call__(self, image_BxTxHxWxC: jax.Array,
               keys: jax.Array | None = None, train: bool = False,
               taps: Mapping[str, Sequence[int]] | None = None):
    """Reconstructs clips.

    Args:
      image_BxTxHxWxC: float32 in [-1, 1].
      keys: (B,) typed PRNG keys, one per example; `None` samples nothing.
      train: whether the bottleneck samples.
      taps: 'encoder' or 'decoder' -> numbers of the blocks to return.

    Returns:
      The reconstruction, float32, not clipped; and a dictionary of 'code' (a
      `Code`), 'encoder' and 'decoder' (final tokens (B, L, D) after the last
      norm) and 'taps' ({'encoder': {k: tokens}, 'decoder': ...}).
    """
    taps = taps or {}
    code, tokens, encoder_taps = self._encode(
        image_BxTxHxWxC, keys, train, taps.get('encoder', ()))
    image, decoded, decoder_taps = self._decode(
        code.z, self._grid(image_BxTxHxWxC), taps.get('decoder', ()))
    return image, {
        'code': code, 'encoder': tokens, 'decoder': decoded,
        'taps': {'encoder': encoder_taps, 'decoder': decoder_taps}}

  def encode(self, image_BxTxHxWxC: jax.Array, keys: jax.Array | None = None,
             train: bool = False) -> bottlenecks.Code:
    """The code of clips; arguments as in `__call__`."""
    return self._encode(image_BxTxHxWxC, keys, train)[0]

  def decode(self, z_BxLxc: jax.Array,
             grid: positions.Grid | None = None) -> jax.Array:
    """Clips (B, T, H, W, C) of codes.

    Args:
      z_BxLxc: `Code.z`, or what the bottleneck's `from_codes` returns.
      grid: tokens along time, height and width; `None` is the trained grid.
    """
    return self._decode(z_BxLxc, grid or self.grid)[0]

  def _grid(self, image):
    size = self.size
    return (image.shape[1] // size.tubelet, image.shape[2] // size.patch,
            image.shape[3] // size.patch)

  def _encode(self, image, keys, train, taps=()):
    patches = patchify(layers.constrain_batch(image), self.size.tubelet,
                       self.size.patch)
    tokens, tapped = self.encoder(patches, self._grid(image), taps)
    return self.bottleneck(tokens, keys, train), tokens, tapped

  def _decode(self, z_BxLxc, grid, taps=()):
    x_BxLxD = self.bottleneck_up(z_BxLxc)
    patches, tokens, tapped = self.decoder(x_BxLxD, grid, taps)
    image = unpatchify(patches, grid, self.size.tubelet, self.size.patch)
    return layers.constrain_batch(image), tokens, tapped
