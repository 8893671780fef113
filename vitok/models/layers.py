"""Linear maps, norms and MLPs: the parts of a transformer block.

Parameters are float32 whatever the compute `dtype`; norms compute in float32.
Every parameter carries logical axis names, which `config.sharding.rules` map
to mesh axes. Kernels are Xavier-uniform matrices, biases zero, norm scales
one. Two kinds of kernels start smaller than the paper's, which does not matter
after 100k steps, but does in short runs (CIFAR-10, `P-N/1x8x8`, 400 steps at
rate 2.3e-3: 17.9 dB without, 22.8 dB with):

  * those that write into the residual stream, by 1 / sqrt(2 depth), so that
    it does not grow with the depth of a tower (GPT-2, section 2.3);
  * the one that makes pixels, by `PIXELS_SCALE`. Xavier's start is an image of
    unit variance; the first steps, which unlearn it, blow up the code.

Two habits make the step fast everywhere. A kernel is a plain matrix, used as
it is stored: XLA then transposes neither it nor its gradient, and a scan over
layers need not store a reshaped copy of it for the backward pass. And what is
cheap to compute again is wrapped in `jax.checkpoint`: its inputs are stored,
not its intermediate values (float32 copies, if the inputs are bfloat16).

Dimensions: B batch, L tokens, D width, F hidden width of the MLP.
"""

import functools
import math

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.sharding import PartitionSpec

from vitok.accounting.sharding import BATCH_AXES

PIXELS_SCALE = 0.1

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


# A scan hides the forward pass from common subexpression elimination.
_store_inputs = functools.partial(jax.checkpoint, prevent_cse=False)


class Linear(nn.Module):
  """x @ kernel + bias over the last axis.

  Attributes:
    features: width of the output.
    axes: logical names of the kernel's two axes.
    matrices: how many matrices side by side the kernel holds (the 3 of q, k
      and v), of which Xavier's fan-out must count one.
    scale: of the initial kernel, in units of Xavier's.
    dtype: of the product's operands; it accumulates in float32.
    out_dtype: of the output; `None` means `dtype`.
    bias: whether a bias is added.
  """
  features: int
  axes: tuple[str, str]
  matrices: int = 1
  scale: float = 1.0
  dtype: jnp.dtype = jnp.float32
  out_dtype: jnp.dtype | None = None
  bias: bool = True

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    width, dtype = x.shape[-1], self.out_dtype or self.dtype
    limit = self.scale * math.sqrt(
        6 / (width + self.features / self.matrices))
    init = lambda *args: jax.random.uniform(
        *args, minval=-limit, maxval=limit)
    kernel = self.param('kernel', nn.with_logical_partitioning(
        init, self.axes), (width, self.features))
    bias = self.bias and self.param('bias', nn.with_logical_partitioning(
        nn.initializers.zeros, self.axes[1:]), (self.features,))

    @_store_inputs
    def product(x, kernel):
      y = jax.lax.dot(x.astype(self.dtype).reshape(-1, width),
                      kernel.astype(self.dtype), preferred_element_type=dtype)
      return y.reshape(*x.shape[:-1], self.features)

    y = product(x, kernel)
    return y + bias.astype(dtype) if self.bias else y


class LayerNorm(nn.Module):
  """Zero mean, unit variance over the last axis; scale and bias."""
  dtype: jnp.dtype = jnp.float32
  epsilon: float = 1e-6

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    scale = _vector(self, 'scale', nn.initializers.ones, x.shape[-1])
    bias = _vector(self, 'bias', nn.initializers.zeros, x.shape[-1])

    @_store_inputs
    def normalize(x, scale, bias):
      x = x.astype(jnp.float32)
      x -= x.mean(-1, keepdims=True)
      variance = jnp.square(x).mean(-1, keepdims=True)
      x *= jax.lax.rsqrt(variance + self.epsilon)
      return (x * scale + bias).astype(self.dtype)

    return normalize(x, scale, bias)


class RMSNorm(nn.Module):
  """Unit mean square over the last axis; scale."""
  dtype: jnp.dtype = jnp.float32
  epsilon: float = 1e-6

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    scale = _vector(self, 'scale', nn.initializers.ones, x.shape[-1])

    @_store_inputs
    def normalize(x, scale):
      x = x.astype(jnp.float32)
      square = jnp.square(x).mean(-1, keepdims=True)
      x *= jax.lax.rsqrt(square + self.epsilon)
      return (x * scale).astype(self.dtype)

    return normalize(x, scale)


def _vector(module, name, init, size):
  return module.param(
      name, nn.with_logical_partitioning(init, ('embed',)), (size,))


gelu = _store_inputs(functools.partial(nn.gelu, approximate=False))


class SwiGLU(nn.Module):
  """down(silu(gate(x)) * value(x)) (arXiv 2002.05202).

  Attributes:
    hidden: width of `gate` and `value`.
    out_scale: `Linear.scale` of `down`.
    dtype, bias: as of `Linear`.
    sub_norm: key of `NORMS`, of a norm before `down`; '': none.
  """
  hidden: int
  out_scale: float = 1.0
  dtype: jnp.dtype = jnp.float32
  bias: bool = True
  sub_norm: str = ''

  @nn.compact
  def __call__(self, x_BxLxD: jax.Array) -> jax.Array:
    up, down = ('embed', 'mlp'), ('mlp', 'embed')
    linear = functools.partial(Linear, dtype=self.dtype, bias=self.bias)
    gate_BxLxF = linear(self.hidden, up, name='gate')(x_BxLxD)
    value_BxLxF = linear(self.hidden, up, name='value')(x_BxLxD)
    h_BxLxF = _store_inputs(lambda gate, value: nn.silu(gate) * value)(
        gate_BxLxF, value_BxLxF)
    if self.sub_norm:
      h_BxLxF = NORMS[self.sub_norm](self.dtype, name='sub_norm')(h_BxLxF)
    return linear(x_BxLxD.shape[-1], down, scale=self.out_scale,
                  name='down')(h_BxLxF)


class GeluMLP(nn.Module):
  """down(gelu(up(x))), the exact (erf) GELU; attributes as of `SwiGLU`."""
  hidden: int
  out_scale: float = 1.0
  dtype: jnp.dtype = jnp.float32
  bias: bool = True
  sub_norm: str = ''

  @nn.compact
  def __call__(self, x_BxLxD: jax.Array) -> jax.Array:
    linear = functools.partial(Linear, dtype=self.dtype, bias=self.bias)
    h_BxLxF = linear(self.hidden, ('embed', 'mlp'), name='up')(x_BxLxD)
    h_BxLxF = gelu(h_BxLxF)
    if self.sub_norm:
      h_BxLxF = NORMS[self.sub_norm](self.dtype, name='sub_norm')(h_BxLxF)
    return linear(x_BxLxD.shape[-1], ('mlp', 'embed'), scale=self.out_scale,
                  name='down')(h_BxLxF)


NORMS = {'layernorm': LayerNorm, 'rmsnorm': RMSNorm}
MLPS = {'swiglu': SwiGLU, 'gelu': GeluMLP}
