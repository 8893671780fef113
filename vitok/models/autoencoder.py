"""ViTok's auto-encoder: patches -> encoder -> bottleneck -> decoder -> pixels.

arXiv 2501.09755, section 2.2. An image is a clip of one frame, patches are
tubelets of q frames of p x p pixels, tokens are ordered by time, row, column.
Two variants of the code (appendix A.3) are options of the same modules:

  latents  The encoder gets so many learned tokens after the patches, and they
           alone are the code. The decoder gets a mask token at the place of
           each patch, and the code after them. So the length of the code is
           free of the patch size, and the same for images of any size.
  keep     In training each example's code is cut to one of these lengths, drawn
           with the example's key, and a learned code vector stands for what was
           dropped: a code whose first tokens can be decoded alone. Losses of
           the bottleneck are those of the whole code.

So are the parts in which QLIP differs (arXiv 2502.05178, section 3):

  cls         The encoder gets a learned token before the patches. It is what an
              image is told by as a whole, and no part of the code. The final
              norm of the encoder is its alone: tokens of the code leave the
              last block as they are.
  projection  To the code and from it: 'linear', or 'mlp' with a GELU between
              two linear maps.
  head        From the decoder's final tokens to pixels: 'linear', or 'tanh',
              with as many hidden units as the decoder's MLPs.

Images of different sizes share a batch as their patches (`Patches`, ViTok-v2's
NaFlex), with a model of positions 'rope2d' or 'none'. One example's 'image' is
then its patches, padded to the same number L, one below the other: one frame
of L * p x p pixels.

Dimensions: B batch, T frames, H and W pixels, C colours, L tokens, P numbers
of a patch (q * p * p * C), D width, c channels of the code.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import struct
from flax.core import FrozenDict

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


HEADS = ('linear', 'tanh')
PROJECTIONS = ('linear', 'mlp')


@struct.dataclass
class Patches:
  """Where the patches of images of different sizes lie.

  Attributes:
    places: (B, L, 2) int, row and column of each patch in its image.
    valid: (B, L) bool, False for padding.
  """
  places: jax.Array
  valid: jax.Array


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
  key_bias: bool = True
  sub_norm: bool = False
  final_norm: bool = True
  attention: str = 'xla'
  scan: bool = True
  remat: str = 'none'
  window: int = 0
  latents: int = 0
  cls: bool = False
  dtype: jnp.dtype = jnp.float32

  def trunk(self, x_BxLxD, grid, taps, patches=None):
    """Tokens after the last block; `{k: output of block k}`."""
    block = stack.Block(
        self.tower, self.mlp, self.norm, self.attention, self.block,
        self.layer_scale, self.qk_norm, self.bias, self.dtype, self.key_bias,
        self.sub_norm, name='blocks')
    shape = x_BxLxD.shape
    if self.window:  # Parts of a clip are clips, or images, of their own.
      grid = (self.window, *grid[1:])
      x_BxLxD = layers.constrain_batch(x_BxLxD.reshape(
          -1, math.prod(grid), shape[-1]))
    rotation = positions.rotation(self.positions, grid, self.tower.head_dim,
                                  self.latents, self.cls)
    if patches is not None and rotation is not None:
      rotation = positions.rotation_at(patches.places, self.tower.head_dim)
    x_BxLxD, tapped, _ = stack.stack(
        block, self.tower.depth, x_BxLxD, rotation,
        None if patches is None else patches.valid, taps=taps, scan=self.scan,
        remat=self.remat)
    x_BxLxD = x_BxLxD.reshape(shape)
    return x_BxLxD, {number: tap.reshape(shape)
                     for number, tap in tapped.items()}

  def last_norm(self, x):
    if not self.final_norm:
      return x
    return layers.NORMS[self.norm](self.dtype, name='norm')(x)


class Encoder(Trunk):
  """Patches to tokens of the code, CLS (or None) and taps."""

  @nn.compact
  def __call__(self, patches_BxLxP: jax.Array, grid: positions.Grid,
               taps: Sequence[int] = (), patches: Patches | None = None):
    x_BxLxD = layers.Linear(self.tower.width, ('patch', 'embed'),
                            dtype=self.dtype, name='embed')(patches_BxLxP)
    if self.cls:
      cls_D = self.param('cls', nn.with_logical_partitioning(
          nn.initializers.normal(0.02), ('embed',)), (self.tower.width,))
      x_BxLxD = _append(cls_D[None].astype(self.dtype), x_BxLxD)
      patches = patches and _after_cls(patches)
    x_BxLxD = positions.add(self, self.positions, grid, x_BxLxD, cls=self.cls)
    if self.latents:
      table_LxD = self.param(
          'latents', nn.with_logical_partitioning(
              lambda _, shape: jnp.asarray(
                  positions.sincos((1, 1, shape[0]), shape[1], axes=1)),
              ('tokens', 'embed')), (self.latents, self.tower.width))
      x_BxLxD = _append(x_BxLxD, table_LxD.astype(self.dtype))
    x_BxLxD, tapped = self.trunk(x_BxLxD, grid, taps, patches)
    first = -self.latents or int(self.cls)
    code_BxLxD = layers.constrain_batch(x_BxLxD[:, first:])
    if not self.cls:
      return self.last_norm(code_BxLxD), None, tapped
    cls_BxD = layers.constrain_batch(x_BxLxD[:, 0])
    return code_BxLxD, self.last_norm(cls_BxD), tapped


class Decoder(Trunk):
  """Tokens of the code to patches, in float32, what these are a linear map of,
  and taps."""
  patch_dim: int = 0
  head: str = 'linear'

  @nn.compact
  def __call__(self, x_BxLxD: jax.Array, grid: positions.Grid,
               taps: Sequence[int] = (), patches: Patches | None = None):
    count = math.prod(grid)
    if self.latents:
      mask_D = self.param('mask', nn.with_logical_partitioning(
          nn.initializers.normal(0.02), ('embed',)), x_BxLxD.shape[-1:])
      x_BxLxD = _append(jnp.broadcast_to(
          mask_D.astype(self.dtype), (count, len(mask_D))), x_BxLxD)
    start = 0.0 if self.positions == 'rope2d_learned' else 0.02
    x_BxLxD = positions.add(self, self.positions, grid, x_BxLxD, self.latents,
                            start=start)
    x_BxLxD, tapped = self.trunk(x_BxLxD, grid, taps, patches)
    last = self.last_norm(layers.constrain_batch(x_BxLxD[:, :count]))
    axis = 'embed'
    if self.head == 'tanh':
      axis = 'mlp'
      last = jnp.tanh(layers.Linear(
          self.tower.hidden(self.mlp), ('embed', 'mlp'), dtype=self.dtype,
          name='unembed_hidden')(last))
    unembed = layers.Linear(
        self.patch_dim, (axis, 'patch'), scale=layers.PIXELS_SCALE,
        dtype=self.dtype, out_dtype=jnp.float32, name='unembed')
    return unembed(last), last, tapped


def _append(first, second):
  """Joins tokens (B, L, D) and (L, D), which all examples share."""
  batch = max(first, second, key=jnp.ndim).shape[0]
  return jnp.concatenate([
      jnp.broadcast_to(x, (batch, *x.shape[-2:])) for x in (first, second)], 1)


def _after_cls(patches):
  """`patches` with a CLS token before them, at 0, 0: not turned."""
  return Patches(
      jnp.pad(patches.places, ((0, 0), (1, 0), (0, 0))),
      jnp.pad(patches.valid, ((0, 0), (1, 0)), constant_values=True))


class AutoEncoder(nn.Module):
  """A ViTok auto-encoder; `vitok.models.build` makes one from a config.

  Attributes:
    size: dimensions.
    grid: tokens along time, height and width of the clips it is trained on.
    trunk: the options of `Trunk` that both towers share.
    bottleneck_name: key of `bottlenecks.BOTTLENECKS`.
    quantizer: the bottleneck's `options`.
    keep: lengths to which the code is cut in training; (): it is not.
    cls, projection, head: see the top of the file.
  """
  size: sizes.Size
  grid: positions.Grid
  trunk: Mapping[str, Any]
  bottleneck_name: str = 'gaussian'
  quantizer: Mapping[str, Any] = FrozenDict()
  keep: tuple[int, ...] = ()
  cls: bool = False
  projection: str = 'linear'
  head: str = 'linear'
  dtype: jnp.dtype = jnp.float32

  def setup(self):
    size = self.size
    options = dict(self.trunk, latents=size.latents, dtype=self.dtype)
    self.encoder = Encoder(size.encoder, cls=self.cls, **options)
    self.bottleneck = bottlenecks.BOTTLENECKS[self.bottleneck_name](
        size.channels, self.dtype, self.quantizer, self.projection)
    up = functools.partial(layers.Linear, size.decoder.width, dtype=self.dtype)
    if self.projection == 'mlp':
      self.bottleneck_up_hidden = up(('code', 'mlp'))
      self.bottleneck_up = up(('mlp', 'embed'))
    else:
      self.bottleneck_up = up(('code', 'embed'))
    if self.keep:
      self.bottleneck_mask = self.param(
          'bottleneck_mask', nn.with_logical_partitioning(
              nn.initializers.zeros, ('code',)), (size.channels,))
    self.decoder = Decoder(size.decoder, patch_dim=size.patch_dim,
                           head=self.head, **options)

  def __call__(self, image_BxTxHxWxC: jax.Array,
               keys: jax.Array | None = None, train: bool = False,
               taps: Mapping[str, Sequence[int]] | None = None,
               patches: Patches | None = None):
    """Reconstructs clips.

    Args:
      image_BxTxHxWxC: float32 in [-1, 1].
      keys: (B,) typed PRNG keys, one per example; `None` samples nothing.
      train: whether the bottleneck samples, and the code is cut to one of the
        lengths `keep`.
      taps: 'encoder' or 'decoder' -> numbers of the blocks to return.
      patches: where these lie, if examples are patches of images of different
        sizes. What is returned of padding means nothing.

    Returns:
      The reconstruction, float32, not clipped; and a dictionary of 'code' (a
      `Code`, not cut), 'encoder' (the code's tokens (B, L, D) that the
      bottleneck reads), 'decoder' (what pixels are a linear map of, (B, L, D)
      after the last norm or, of the head 'tanh', its hidden units), 'taps'
      ({'encoder': {k: all tokens}, 'decoder': ...}) and, of a model with a
      CLS token, 'cls' (B, D) after the encoder's last norm.
    """
    taps = taps or {}
    code, tokens, cls_BxD, encoder_taps = self._encode(
        image_BxTxHxWxC, keys, train, taps.get('encoder', ()), patches)
    length_B = None
    if train and self.keep and keys is not None:
      length_B = jax.vmap(self._length)(keys)
    image, decoded, decoder_taps = self._decode(
        code.z, self._grid(image_BxTxHxWxC), taps.get('decoder', ()), length_B,
        patches)
    out = {'code': code, 'encoder': tokens, 'decoder': decoded,
           'taps': {'encoder': encoder_taps, 'decoder': decoder_taps}}
    return image, out | ({'cls': cls_BxD} if self.cls else {})

  def encode(self, image_BxTxHxWxC: jax.Array, keys: jax.Array | None = None,
             train: bool = False) -> bottlenecks.Code:
    """The code of clips; arguments as in `__call__`."""
    return self._encode(image_BxTxHxWxC, keys, train)[0]

  def from_codes(self, codes: jax.Array) -> jax.Array:
    """z (B, L, c) of stored codes: of the ids (B, L, K) of a discrete one."""
    return self.bottleneck.from_codes(codes)

  def decode(self, z_BxLxc: jax.Array, grid: positions.Grid | None = None,
             length: jax.Array | int | None = None) -> jax.Array:
    """Clips (B, T, H, W, C) of codes.

    Args:
      z_BxLxc: `Code.z`, or what `from_codes` returns; of a
        model with `keep`, its first tokens will do.
      grid: patches along time, height and width; `None` is the trained grid.
      length: tokens of the code that are read, or (B,) of them; `None` is all.
        For models with `keep`.
    """
    return self._decode(z_BxLxc, grid or self.grid, length=length)[0]

  def _grid(self, image):
    size = self.size
    return (image.shape[1] // size.tubelet, image.shape[2] // size.patch,
            image.shape[3] // size.patch)

  def _encode(self, image, keys, train, taps=(), patches=None):
    x_BxLxP = patchify(layers.constrain_batch(image), self.size.tubelet,
                       self.size.patch)
    tokens, cls_BxD, tapped = self.encoder(x_BxLxP, self._grid(image), taps,
                                           patches)
    return self.bottleneck(tokens, keys, train), tokens, cls_BxD, tapped

  def _length(self, key):
    # The key itself is the bottleneck's.
    return jax.random.choice(jax.random.fold_in(key, 1), np.array(self.keep))

  def _cut(self, z_BxLxc, grid, length):
    """The whole code again, mask tokens for what is missing or not read."""
    tokens, given = self.size.latents or math.prod(grid), z_BxLxc.shape[1]
    if length is None and given == tokens:
      return z_BxLxc
    if not self.keep:
      raise ValueError('a code without `keep` is read as a whole')
    z_BxLxc = jnp.pad(z_BxLxc, ((0, 0), (0, tokens - given), (0, 0)))
    length = jnp.minimum(given, given if length is None else length)
    read_BxLx1 = jnp.arange(tokens)[:, None] < jnp.reshape(length, (-1, 1, 1))
    return jnp.where(read_BxLx1, z_BxLxc, self.bottleneck_mask)

  def _decode(self, z_BxLxc, grid, taps=(), length=None, patches=None):
    x_BxLxD = self._cut(z_BxLxc, grid, length)
    if self.projection == 'mlp':
      x_BxLxD = layers.gelu(self.bottleneck_up_hidden(x_BxLxD))
    x_BxLxD = self.bottleneck_up(x_BxLxD)
    x_BxLxP, tokens, tapped = self.decoder(x_BxLxD, grid, taps, patches)
    image = unpatchify(x_BxLxP, grid, self.size.tubelet, self.size.patch)
    return layers.constrain_batch(image), tokens, tapped
