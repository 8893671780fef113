"""Multi-head self-attention with rotary positions and normed queries.

Dimensions: B batch, L tokens (S as keys), D width, H heads, K head dimension.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from vitok.models import layers


def rotate(x_BxLxHxK: jax.Array, rotation: np.ndarray) -> jax.Array:
  """Turns the channel pairs (2i, 2i+1) by the angles of `rotation`.

  Args:
    x_BxLxHxK: queries or keys.
    rotation: (2, L, K/2), cosines and sines, or (2, B, L, K/2) where examples
      differ.
  """
  cos_Lx1xK, sin_Lx1xK = rotation[..., None, :]
  even, odd = x_BxLxHxK[..., ::2], x_BxLxHxK[..., 1::2]
  turned = jnp.stack([even * cos_Lx1xK - odd * sin_Lx1xK,
                      even * sin_Lx1xK + odd * cos_Lx1xK], -1)
  return turned.reshape(x_BxLxHxK.shape).astype(x_BxLxHxK.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _softmax(dtype, logits):
  """Softmax in float32, returned as `dtype`.

  Its gradient needs the result alone. `jax.nn.softmax` stores the
  exponentials in float32 as well: three times the memory in bfloat16, of what
  is the largest activation of a block.
  """
  return jax.nn.softmax(logits).astype(dtype)


def _softmax_forward(dtype, logits):
  p = _softmax(dtype, logits)
  return p, p


def _softmax_backward(dtype, p, dp):
  del dtype
  p, dp = p.astype(jnp.float32), dp.astype(jnp.float32)
  return (p * (dp - (p * dp).sum(-1, keepdims=True)),)


_softmax.defvjp(_softmax_forward, _softmax_backward)


def xla(q_BxLxHxK: jax.Array, k_BxSxHxK: jax.Array, v_BxSxHxK: jax.Array,
        valid_BxS: jax.Array | None = None) -> jax.Array:
  """softmax(q k^T / sqrt(K)) v by matrix products, softmax in float32.

  Only `valid_BxS` keys are attended to, all if it is None.
  """
  q_BxLxHxK *= q_BxLxHxK.shape[-1]**-0.5
  logits_BxHxLxS = jnp.einsum('blhk,bshk->bhls', q_BxLxHxK, k_BxSxHxK,
                              preferred_element_type=jnp.float32)
  if valid_BxS is not None:  # Finite: an example may be padding altogether.
    logits_BxHxLxS = jnp.where(valid_BxS[:, None, None], logits_BxHxLxS,
                               jnp.finfo(jnp.float32).min)
  p_BxHxLxS = _softmax(v_BxSxHxK.dtype, logits_BxHxLxS)
  # Values first: the other way round, XLA copies their transpose.
  return jnp.einsum('bshk,bhls->blhk', v_BxSxHxK, p_BxHxLxS)


def cudnn(q_BxLxHxK: jax.Array, k_BxSxHxK: jax.Array, v_BxSxHxK: jax.Array,
          valid_BxS: jax.Array | None = None) -> jax.Array:
  """The same by cuDNN's fused kernel: bfloat16, heads of 8n <= 128."""
  mask = None if valid_BxS is None else valid_BxS[:, None, None]
  return jax.nn.dot_product_attention(
      q_BxLxHxK, k_BxSxHxK, v_BxSxHxK, mask=mask, implementation='cudnn')


IMPLEMENTATIONS = {'xla': xla, 'cudnn': cudnn}


class Attention(nn.Module):
  """Every token attends to all tokens of its example, but not to padding.

  The columns of the fused kernel 'qkv' are ordered by head, then q, k, v,
  then channel, so that a split of the columns over devices splits heads. With
  `bias` it has one bias, and without `key_bias`, since keys then have none, in
  its place 'q_bias' and 'v_bias', by head, then channel.

  Attributes:
    heads: number of heads.
    implementation: key of `IMPLEMENTATIONS`.
    out_scale: `Linear.scale` of the output projection.
    dtype: of matrix products.
    bias: whether linear maps have biases.
    qk_norm: RMSNorm of each query and key, before they turn.
    key_bias: whether keys have a bias, where linear maps do.
    sub_norm: key of `layers.NORMS`, of a norm of the concatenated heads before
      the output projection; '': none.
  """
  heads: int
  implementation: str = 'xla'
  out_scale: float = 1.0
  dtype: jnp.dtype = jnp.float32
  bias: bool = True
  qk_norm: bool = False
  key_bias: bool = True
  sub_norm: str = ''

  @nn.compact
  def __call__(self, x_BxLxD: jax.Array,
               rotation: np.ndarray | None = None,
               valid_BxL: jax.Array | None = None) -> jax.Array:
    width = x_BxLxD.shape[-1]
    qkv_BxLxE = layers.Linear(
        3 * width, ('embed', 'heads'), matrices=3, dtype=self.dtype,
        bias=self.bias and self.key_bias, name='qkv')(x_BxLxD)
    qkv_BxLxHx3xK = qkv_BxLxE.reshape(
        *x_BxLxD.shape[:2], self.heads, 3, width // self.heads)
    q, k, v = (x[..., 0, :] for x in jnp.split(qkv_BxLxHx3xK, 3, axis=-2))
    if self.bias and not self.key_bias:
      q, v = q + self._bias('q_bias', q), v + self._bias('v_bias', v)
    if self.qk_norm:
      q = layers.RMSNorm(self.dtype, name='norm_q')(q)
      k = layers.RMSNorm(self.dtype, name='norm_k')(k)
    if rotation is not None:
      q, k = rotate(q, rotation), rotate(k, rotation)
    o_BxLxHxK = IMPLEMENTATIONS[self.implementation](q, k, v, valid_BxL)
    out = layers.Linear(width, ('heads', 'embed'), scale=self.out_scale,
                        dtype=self.dtype, bias=self.bias, name='out')
    o_BxLxD = o_BxLxHxK.reshape(x_BxLxD.shape)
    if self.sub_norm:
      o_BxLxD = layers.NORMS[self.sub_norm](self.dtype, name='sub_norm')(
          o_BxLxD)
    return out(o_BxLxD)

  def _bias(self, name, x_BxLxHxK):
    bias_D = self.param(name, nn.with_logical_partitioning(
        nn.initializers.zeros, ('heads',)), (math.prod(x_BxLxHxK.shape[2:]),))
    return bias_D.reshape(x_BxLxHxK.shape[2:]).astype(x_BxLxHxK.dtype)
