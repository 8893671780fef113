"""DiT: a transformer that predicts noise from noisy codes (arXiv 2212.09748).

Each token of the code is a token of the transformer. The condition, a time and
a class, modulates every block (adaLN-zero): norms without parameters, whose
output is scaled and shifted, and branches that are gated, by linear maps of
the condition that start at zero. A new DiT is the identity in all its blocks,
and outputs zero. The rest is the auto-encoder's ("the same Llama upgrades",
arXiv 2501.09755): SwiGLU, rotary positions, `stack` and its remat policies.

`accounting.dit.SIZES`; parameters with SwiGLU, 16 channels and 1000 classes:

  name   width  blocks  heads  head dim    parameters
  F         96       2      3        32         0.5 M   ours, two cores
  T        192       4      3        64         3.0 M   ours, two cores
  M        384       6      6        64        16.9 M   ours, one GPU
  S        384      12      6        64        32.9 M
  B        768      12     12        64       130.3 M
  L       1024      24     16        64       458.3 M   ViTok's sweeps
  XL      1152      28     16        72       674.9 M   ViTok's table 6

Dimensions: B batch, L tokens, D width, c channels of the code.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from vitok import errors, sizes
from vitok.accounting.dit import TIME_FEATURES, tower_of
from vitok.models import attention, layers, positions, stack

TIME_SCALE = 1000.0  # Times in [0, 1] are embedded as DDPM's steps.
CLASS_SCALE = 0.02  # Standard deviation of the class vectors' start.


def build(config: Any, grid: positions.Grid, channels: int) -> 'DiT':
  """The DiT of `config.dit` for codes of a tokenizer; starts no device.

  How it is computed (attention, scan, dtype) is as `config.model` says.

  Args:
    config: of a run.
    grid: tokens of the code along time, height and width.
    channels: floats c of a token's code.

  Raises:
    InputError: an unknown name, or positions that do not fit the code.
  """
  dit, model = config.dit, config.model
  for key, choices in (('mlp', layers.MLPS), ('positions', positions.NAMES),
                       ('remat', stack.REMAT)):
    errors.one_of(f'config.dit.{key}', dit[key], tuple(choices))
  tower = tower_of(dit)
  if config.mesh.tensor > 1 and tower.heads % config.mesh.tensor:
    raise errors.InputError(
        'config.mesh.tensor', config.mesh.tensor, f'does not divide the '
        f'{tower.heads} heads of the DiT',
        math.gcd(tower.heads, config.mesh.tensor))
  misfit = positions.misfit(dit.positions, grid, tower)
  if misfit:
    raise errors.InputError(
        'config.dit.positions', dit.positions, misfit, next(
            name for name in positions.NAMES
            if not positions.misfit(name, grid, tower)))
  return DiT(tower, grid, channels, config.diffusion.classes, dit.mlp,
             dit.positions, model.attention, model.scan, dit.remat,
             layers.DTYPES[model.dtype])


def time_features(time_B: jax.Array) -> jax.Array:
  """(B, 256) cosines, then sines, of 128 frequencies from 1 to 1/10000."""
  half = TIME_FEATURES // 2
  frequencies = np.exp(-np.log(10_000) * np.arange(half) / half)
  angles = TIME_SCALE * time_B.astype(jnp.float32)[:, None] * jnp.asarray(
      frequencies, jnp.float32)
  return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], -1)


@functools.partial(jax.checkpoint, prevent_cse=False)
def modulate(x_BxLxD: jax.Array, shift_BxD: jax.Array,
             scale_BxD: jax.Array) -> jax.Array:
  """norm(x) * (1 + scale) + shift in float32, returned in the type of x.

  The norm is LayerNorm without parameters. Inputs alone are stored for the
  backward pass, as `layers` does for its norms.
  """
  x = x_BxLxD.astype(jnp.float32)
  x -= x.mean(-1, keepdims=True)
  x *= jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + 1e-6)
  x = x * (1 + scale_BxD[:, None]) + shift_BxD[:, None]
  return x.astype(x_BxLxD.dtype)


def _modulation(vectors, condition_BxD, dtype):
  """`vectors` float32 arrays (B, D), zero at the start; for `nn.compact`."""
  linear = layers.Linear(
      vectors * condition_BxD.shape[-1], ('embed', 'modulation'), scale=0.0,
      dtype=dtype, out_dtype=jnp.float32, name='modulation')
  return jnp.split(linear(condition_BxD), vectors, -1)


class Block(nn.Module):
  """x + gate * attention(modulated x), then the same with the MLP."""
  tower: sizes.Tower
  mlp: str = 'swiglu'
  attention: str = 'xla'
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x_BxLxD: jax.Array, per_layer: None,
               condition_BxD: jax.Array, rotation: np.ndarray | None = None
               ) -> tuple[jax.Array, None]:
    """Returns the tokens and no per-layer output; takes no such input."""
    del per_layer
    shift1, scale1, gate1, shift2, scale2, gate2 = _modulation(
        6, condition_BxD, self.dtype)
    x = layers.constrain_batch(x_BxLxD)
    h = attention.Attention(
        self.tower.heads, self.attention, dtype=self.dtype, name='attention')(
            modulate(x, shift1, scale1), rotation)
    x += gate1[:, None].astype(self.dtype) * h
    h = layers.MLPS[self.mlp](
        self.tower.hidden(self.mlp), dtype=self.dtype, name='mlp')(
            modulate(x, shift2, scale2))
    x += gate2[:, None].astype(self.dtype) * h
    return x, None


class DiT(nn.Module):
  """Codes, times and classes to a prediction shaped like the codes.

  Attributes:
    tower: dimensions, such as `accounting.dit.SIZES['L']`.
    grid: tokens along time, height and width; (1, 1, L) of a 1-D code.
    channels: floats c of a token's code.
    classes: of the condition; label `classes` is the null class, of which
      guidance makes the unconditional prediction.
    mlp, positions, attention, scan, remat: as in `config.model`.
    dtype: of the matrix products.
  """
  tower: sizes.Tower
  grid: positions.Grid
  channels: int
  classes: int
  mlp: str = 'swiglu'
  positions: str = 'rope2d'
  attention: str = 'xla'
  scan: bool = True
  remat: str = 'none'
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, z_BxLxc: jax.Array, time_B: jax.Array,
               label_B: jax.Array) -> jax.Array:
    """Predicts, in float32.

    Args:
      z_BxLxc: noisy codes.
      time_B: from 0, the data, to 1, noise.
      label_B: integers in [0, classes]; `classes` is the null class.
    """
    x_BxLxD = layers.Linear(
        self.tower.width, ('code', 'embed'), dtype=self.dtype,
        name='embed')(layers.constrain_batch(z_BxLxc))
    x_BxLxD = positions.add(self, self.positions, self.grid, x_BxLxD)
    condition_BxD = self._condition(time_B, label_B)
    block = Block(self.tower, self.mlp, self.attention, self.dtype,
                  name='blocks')
    rotation = positions.rotation(self.positions, self.grid,
                                  self.tower.head_dim)
    x_BxLxD, _, _ = stack.stack(
        block, self.tower.depth, x_BxLxD, condition_BxD, rotation,
        scan=self.scan, remat=self.remat)
    shift, scale = _modulation(2, condition_BxD, self.dtype)
    return layers.Linear(
        self.channels, ('embed', 'code'), scale=0.0, dtype=self.dtype,
        out_dtype=jnp.float32, name='unembed')(
            modulate(layers.constrain_batch(x_BxLxD), shift, scale))

  def _condition(self, time_B, label_B):
    """(B, D) float32, whatever `dtype`: times differ by less than bfloat16."""
    width = self.tower.width
    time_BxD = layers.Linear(width, ('frequency', 'time'), name='time_in')(
        time_features(time_B))
    time_BxD = layers.Linear(width, ('time', 'embed'), name='time_out')(
        nn.silu(time_BxD))
    table = self.param('classes', nn.with_logical_partitioning(
        nn.initializers.normal(CLASS_SCALE), ('classes', 'embed')),
        (self.classes + 1, width))
    return nn.silu(time_BxD + table[label_B])
