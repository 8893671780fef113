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


def xla(q_BxLxHxK: jax.Array, k_BxSxHxK: jax.Array,
        v_BxSxHxK: jax.Array) -> jax.Array:
  """softmax(q k^T / sqrt(K)) v by matrix products, softmax in float32."""
  q_BxLxHxK *= q_BxLxHxK.shape[-1]**-0.5
  logits_BxHxLxS = jnp.einsum('blhk,bshk->bhls', q_BxLxHxK, k_BxSxHxK,
                              preferred_element_type=jnp.float32)
  p_BxHxLxS = jax.nn.softmax(logits_BxHxLxS).astype(v_BxSxHxK.dtype)
  return jnp.einsum('bhls,bshk->blhk', p_BxHxLxS, v_BxSxHxK)


def cudnn(q_BxLxHxK: jax.Array, k_BxSxHxK: jax.Array,
          v_BxSxHxK: jax.Array) -> jax.Array:
  """The same by cuDNN's fused kernel: bfloat16, heads of 8n <= 128."""
  return jax.nn.dot_product_attention(
      q_BxLxHxK, k_BxSxHxK, v_BxSxHxK, implementation='cudnn')


IMPLEMENTATIONS = {'xla': xla, 'cudnn': cudnn}


class Attention(nn.Module):
  """Every token attends to all tokens of its example.

  The columns of the fused kernel 'qkv' are ordered by head, then q, k, v,
  then channel, so that a split of the columns over devices splits heads.
  """
  heads: int
  implementation: str = 'xla'
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x_BxLxD: jax.Array,
               rotation: np.ndarray | None = None) -> jax.Array:
    width = x_BxLxD.shape[-1]
    qkv_BxLxE = layers.Linear(3 * width, ('embed', 'heads'), matrices=3,
                              dtype=self.dtype, name='qkv')(x_BxLxD)
    qkv_BxLxHx3xK = qkv_BxLxE.reshape(
        *x_BxLxD.shape[:2], self.heads, 3, width // self.heads)
    q, k, v = (x[..., 0, :] for x in jnp.split(qkv_BxLxHx3xK, 3, axis=-2))
    if rotation is not None:
      q, k = rotate(q, rotation), rotate(k, rotation)
    o_BxLxHxK = IMPLEMENTATIONS[self.implementation](q, k, v)
    return layers.Linear(width, ('heads', 'embed'), dtype=self.dtype,
                         name='out')(o_BxLxHxK.reshape(x_BxLxD.shape))
