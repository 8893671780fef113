"""Linear maps, norms and MLPs: the parts of a transformer block.

Parameters are float32 whatever the compute `dtype`; norms compute in float32.
Every parameter carries logical axis names, which `config.sharding.rules` map
to mesh axes. Kernels are Xavier-uniform (fan-in and fan-out of each matrix
that a fused kernel holds), biases zero, norm scales one.

Dimensions: B batch, L tokens, D width, F hidden width of the MLP.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.sharding import PartitionSpec

BATCH_AXES = ('replica', 'fsdp')  # Mesh axes that split the batch.
DTYPES = {'float32': jnp.float32, 'bfloat16': jnp.bfloat16}


def constrain_batch(x_Bx: jax.Array) -> jax.Array:
  """Splits the leading axis of an activation over the mesh's batch axes.

  The mesh is the one of `jax.set_mesh`. Nothing happens without a mesh, or
  where the batch does not divide (a single example on many devices).
  """
  mesh = jax.sharding.get_abstract_mesh()
  axes = tuple(a for a in BATCH_AXES if a in mesh.auto_axes)
  if x_Bx.shape[0] % math.prod(mesh.shape[a] for a in axes) or not axes:
    return x_Bx
  return jax.lax.with_sharding_constraint(x_Bx, PartitionSpec(axes))


class Linear(nn.Module):
  """Contracts the trailing axes of its input with a kernel, adds a bias.

  Attributes:
    features: trailing shape of the output.
    axes: logical names of the kernel's axes, inputs first; their number
      beyond `len(features)` is how many axes of the input are contracted.
    stacked: how many leading `features` only count separate matrices (the 3
      of q, k and v), which Xavier's fan must not include.
    dtype: of the product; accumulation is float32.
    out_dtype: of the output; `None` means `dtype`.
  """
  features: Sequence[int]
  axes: Sequence[str]
  stacked: int = 0
  use_bias: bool = True
  dtype: jnp.dtype = jnp.float32
  out_dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    contracted = len(self.axes) - len(self.features)
    inputs = x.shape[x.ndim - contracted:]
    shape = (*inputs, *self.features)
    first_out = contracted + self.stacked
    init = nn.initializers.variance_scaling(
        1.0, 'fan_avg', 'uniform', in_axis=range(contracted),
        out_axis=range(first_out, len(shape)),
        batch_axis=range(contracted, first_out))
    kernel = self.param(
        'kernel', nn.with_logical_partitioning(init, tuple(self.axes)), shape)
    dtype = self.out_dtype or self.dtype
    y = jax.lax.dot_general(
        x.astype(self.dtype), kernel.astype(self.dtype),
        ((range(x.ndim - contracted, x.ndim), range(contracted)), ((), ())),
        preferred_element_type=dtype)
    if self.use_bias:
      bias = self.param('bias', nn.with_logical_partitioning(
          nn.initializers.zeros, tuple(self.axes[contracted:])), self.features)
      y += bias.astype(dtype)
    return y


class LayerNorm(nn.Module):
  """Zero mean, unit variance over the last axis; scale and bias."""
  dtype: jnp.dtype = jnp.float32
  epsilon: float = 1e-6

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    x = x.astype(jnp.float32)
    x -= x.mean(-1, keepdims=True)
    x *= jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + self.epsilon)
    x = x * _vector(self, 'scale', nn.initializers.ones, x.shape[-1])
    x += _vector(self, 'bias', nn.initializers.zeros, x.shape[-1])
    return x.astype(self.dtype)


class RMSNorm(nn.Module):
  """Unit mean square over the last axis; scale."""
  dtype: jnp.dtype = jnp.float32
  epsilon: float = 1e-6

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    x = x.astype(jnp.float32)
    x *= jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + self.epsilon)
    x = x * _vector(self, 'scale', nn.initializers.ones, x.shape[-1])
    return x.astype(self.dtype)


def _vector(module, name, init, size):
  return module.param(
      name, nn.with_logical_partitioning(init, ('embed',)), (size,))


class SwiGLU(nn.Module):
  """down(silu(gate(x)) * value(x)); gate and value are one matrix product."""
  hidden: int
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x_BxLxD: jax.Array) -> jax.Array:
    both_BxLx2xF = Linear((2, self.hidden), ('embed', 'gate', 'mlp'),
                          stacked=1, dtype=self.dtype, name='up')(x_BxLxD)
    h_BxLxF = nn.silu(both_BxLx2xF[..., 0, :]) * both_BxLx2xF[..., 1, :]
    return Linear((x_BxLxD.shape[-1],), ('mlp', 'embed'), dtype=self.dtype,
                  name='down')(h_BxLxF)


class GeluMLP(nn.Module):
  """down(gelu(up(x))), the exact (erf) GELU."""
  hidden: int
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x_BxLxD: jax.Array) -> jax.Array:
    h_BxLxF = nn.gelu(Linear((self.hidden,), ('embed', 'mlp'),
                             dtype=self.dtype, name='up')(x_BxLxD),
                      approximate=False)
    return Linear((x_BxLxD.shape[-1],), ('mlp', 'embed'), dtype=self.dtype,
                  name='down')(h_BxLxF)


NORMS = {'layernorm': LayerNorm, 'rmsnorm': RMSNorm}
MLPS = {'swiglu': SwiGLU, 'gelu': GeluMLP}
