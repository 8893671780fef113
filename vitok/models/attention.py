"""Multi-head self-attention with rotary positions.

Dimensions: B batch, L tokens (S as keys), D width, H heads, K head dimension.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from vitok.models import layers


def rotate(x_BxLxHxK: jax.Array, rotation: np.ndarray) -> jax.Array:
  """Turns the channel pairs (2i, 2i+1) by the angles of `rotation`.

  Args:
    x_BxLxHxK: queries or keys.
    rotation: (2, L, K/2), cosines and sines.
  """
  cos_Lx1xK, sin_Lx1xK = rotation[:, :, None]
  even, odd = x_BxLxHxK[..., ::2], x_BxLxHxK[..., 1::2]
  turned = jnp.stack([even * cos_Lx1xK - odd * sin_Lx1xK,
                      even * sin_Lx1xK + odd * cos_Lx1xK], -1)
  return turned.reshape(x_BxLxHxK.shape).astype(x_BxLxHxK.dtype)


def xla(q_BxLxHxK, k_BxSxHxK, v_BxSxHxK):
  return jax.nn.dot_product_attention(
      q_BxLxHxK, k_BxSxHxK, v_BxSxHxK, implementation='xla')


def cudnn(q_BxLxHxK, k_BxSxHxK, v_BxSxHxK):
  return jax.nn.dot_product_attention(
      q_BxLxHxK, k_BxSxHxK, v_BxSxHxK, implementation='cudnn')


IMPLEMENTATIONS = {'xla': xla, 'cudnn': cudnn}


class Attention(nn.Module):
  """softmax(q k^T / sqrt(K)) v over all tokens, softmax in float32."""
  heads: int
  implementation: str = 'xla'
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x_BxLxD: jax.Array,
               rotation: np.ndarray | None = None) -> jax.Array:
    width = x_BxLxD.shape[-1]
    qkv_BxLx3xHxK = layers.Linear(
        (3, self.heads, width // self.heads), ('embed', 'qkv', 'heads', 'kv'),
        stacked=1, dtype=self.dtype, name='qkv')(x_BxLxD)
    q, k, v = (qkv_BxLx3xHxK[:, :, i] for i in range(3))
    if rotation is not None:
      q, k = rotate(q, rotation), rotate(k, rotation)
    o_BxLxHxK = IMPLEMENTATIONS[self.implementation](q, k, v)
    return layers.Linear((width,), ('heads', 'kv', 'embed'), dtype=self.dtype,
                         name='out')(o_BxLxHxK)
