"""ViTok-v2's bottleneck: a norm holds the code's scale, in place of a KL."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from vitok import errors
from vitok.models.bottlenecks import base

EPSILON = 1e-6


class LayerNorm(base.Bottleneck):
  """z = down(h) with zero mean and unit variance over its c channels.

  No parameters beyond the projection, no noise and no loss. One channel alone
  would always be 0.
  """

  @classmethod
  def check(cls, channels, options):
    if channels < 2:
      raise errors.InputError('config.model.bottleneck', 'layernorm',
                              'makes every code of 1 channel 0',
                              'deterministic')

  @nn.compact
  def __call__(self, h_BxLxD: jax.Array, keys: jax.Array | None = None,
               train: bool = False) -> base.Code:
    del keys, train
    z_BxLxc = self.down(h_BxLxD)
    z_BxLxc -= z_BxLxc.mean(-1, keepdims=True)
    variance = jnp.square(z_BxLxc).mean(-1, keepdims=True)
    return base.Code(z=z_BxLxc * jax.lax.rsqrt(variance + EPSILON))
