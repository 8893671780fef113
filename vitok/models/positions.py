"""Where a token is: rotary, sine-cosine and learned positions.

Rotary positions turn the pair of channels (2i, 2i+1) of every query and key by
an angle proportional to the token's coordinate, theta^(-2i/n) per unit on an
axis that owns n channels, theta = 10000 (arXiv 2104.09864). `rope1d` has one
axis, the index in the flattened sequence; `rope2d` gives the first half of the
head dimension to rows and the second to columns; `rope3d` gives channels to
time, rows and columns, in this order, by `axis_split`. Fixed `sincos` and
`learned` vectors are added to the tokens at the input of each tower.

`rope2d_learned`, QLIP's, has a table as `learned` and turns as `rope2d`, but
with every grid rescaled to 16 rows and 16 columns: row i of h is at 16 i / h.
The table of the decoder starts at zero.

Latent tokens follow the patches and have one axis of their own. Under any rope
the n latents are turned in all channels as `rope1d` turns tokens, and lie
evenly along the L patches: latent i at i L / n. (At 0, 1, ... they learn more
slowly: CIFAR-10, `F-F/1x8x8+8`, `rope1d`, 300 steps, 17.2 and not 17.8 dB.)
With `rope2d` and `rope3d` what a patch meets in a latent is then no distance,
but an angle of its own for every pair of patch and latent.

A CLS token, before the patches, is never turned, and has no `sincos` vector,
but one of its own in a learned table.

Dimensions: L tokens, K channels of a head, D width.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from vitok import sizes

THETA = 10000.0
RESCALED = 16  # Rows and columns of every grid, under `rope2d_learned`.
Grid = tuple[int, int, int]  # Tokens along time, rows, columns.
NAMES = ('rope2d', 'rope3d', 'rope1d', 'sincos', 'learned', 'rope2d_learned',
         'none')


def axis_split(channels: int, axes: int) -> tuple[int, ...]:
  """Channels of each axis; all even and positive.

  Two axes get halves. Of three, rows and columns each get a third rounded up
  to a multiple of 4, and time, the shortest axis, the rest: 64 is 16, 24, 24,
  72 is 24, 24, 24 and 32 is 8, 12, 12.

  Raises:
    ValueError: `channels` cannot be split so.
  """
  if axes == 1:
    split = (channels,)
  elif axes == 2:
    split = (channels // 2, channels - channels // 2)
  else:
    space = -(-channels // 12) * 4
    split = (channels - 2 * space, space, space)
  if any(n < 2 or n % 2 for n in split):
    raise ValueError(
        f'{channels} channels do not split into {axes} even parts')
  return split


def coordinates(grid: Grid) -> np.ndarray:
  """(L, 3) time, row and column of each token, columns fastest."""
  return np.stack(np.meshgrid(*map(np.arange, grid), indexing='ij'),
                  -1).reshape(-1, 3)


def has_table(name: str) -> bool:
  """Whether positions `name` have parameters, a vector for each token."""
  return name.endswith('learned')


def _angles(grid, axes, channels, rescaled=False):
  """(L, channels / 2): each axis' coordinate times its frequencies."""
  position_Lx3 = coordinates(grid)
  if rescaled:
    position_Lx3 = position_Lx3 / np.array(grid) * RESCALED
  position = (np.arange(len(position_Lx3))[:, None] if axes == 1
              else position_Lx3[:, 3 - axes:])
  split = axis_split(channels, axes)
  return np.concatenate([
      position[:, i, None] * THETA**(-np.arange(0, n, 2) / n)
      for i, n in enumerate(split)], -1)


def rotation(name: str, grid: Grid, head_dim: int, latents: int = 0,
             cls: bool = False) -> np.ndarray | None:
  """(2, L, K/2) float32 cosines and sines, or `None` if `name` is no rope.

  L counts a CLS token, if there is one, the patches of the grid and then the
  `latents`.
  """
  if not name.startswith('rope'):
    return None
  patches_LxK = _angles(grid, int(name[4]), head_dim, has_table(name))
  step = len(patches_LxK) / max(latents, 1)
  angles_LxK = np.concatenate([
      np.zeros((int(cls), head_dim // 2)), patches_LxK,
      step * _angles((1, 1, latents), 1, head_dim)])
  return np.stack([np.cos(angles_LxK), np.sin(angles_LxK)]).astype(np.float32)


def rotation_at(places_BxLx2: jax.Array, head_dim: int) -> jax.Array:
  """`rotation` of 'rope2d', (2, B, L, K/2), at any rows and columns."""
  half = axis_split(head_dim, 2)[0]
  frequencies = (THETA**(-np.arange(0, half, 2) / half)).astype(np.float32)
  angles_BxLxK = (places_BxLx2[..., None].astype(jnp.float32) * frequencies
                  ).reshape(*places_BxLx2.shape[:2], -1)
  return jnp.stack([jnp.cos(angles_BxLxK), jnp.sin(angles_BxLxK)])


def sincos(grid: Grid, width: int, axes: int = 0) -> np.ndarray:
  """(L, D) float32 fixed vectors.

  Each axis owns the channels that `axis_split` gives it: the sines of its
  angles, then the cosines. `axes` is 1 for the index in the flattened
  sequence; 0 means 2 for one frame and 3 for a clip.
  """
  axes = axes or (2 if grid[0] == 1 else 3)
  parts, start = [], 0
  angles = _angles(grid, axes, width)
  for n in axis_split(width, axes):
    part = angles[:, start:start + n // 2]
    parts += [np.sin(part), np.cos(part)]
    start += n // 2
  return np.concatenate(parts, -1).astype(np.float32)


def add(module: nn.Module, name: str, grid: Grid, x_BxLxD: jax.Array,
        latents: int = 0, cls: bool = False, start: float = 0.02
        ) -> jax.Array:
  """Tokens with the vectors of positions `name` added, if it has any.

  Args:
    module: the caller, inside a compact method; its parameter 'positions' is
      the learned table.
    name: one of `NAMES`.
    grid: of the patches.
    x_BxLxD: input of a tower: CLS, patches, latents.
    latents: how many latent tokens there are.
    cls: whether there is a CLS token.
    start: standard deviation with which a learned table starts.
  """
  if name == 'sincos':
    width = x_BxLxD.shape[-1]
    table_LxD = np.concatenate([
        np.zeros((int(cls), width)), sincos(grid, width),
        sincos((1, 1, latents), width, axes=1)])
    return x_BxLxD + table_LxD.astype(x_BxLxD.dtype)
  if has_table(name):
    table_LxD = module.param(
        'positions', nn.with_logical_partitioning(
            nn.initializers.normal(start), ('tokens', 'embed')),
        x_BxLxD.shape[1:])
    return x_BxLxD + table_LxD.astype(x_BxLxD.dtype)
  return x_BxLxD


def misfit(name: str, grid: Grid, tower: sizes.Tower,
           latents: int = 0) -> str | None:
  """Why positions `name` cannot serve a tower, or `None` if they can."""
  if name == 'none' and latents:
    return 'cannot tell apart the mask tokens of which the pixels are made'
  if name == 'rope2d' and grid[0] > 1:
    return f'cannot tell the {grid[0]} time steps of a clip apart'
  try:  # The tables of a long sequence are too large to be made for a check.
    if name == 'sincos':
      axis_split(tower.width, 2 if grid[0] == 1 else 3)
    elif name.startswith('rope'):
      axis_split(tower.head_dim, int(name[4]))
    if latents:
      axis_split(tower.width, 1)
  except ValueError as error:
    return str(error)
  return None
