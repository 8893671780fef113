"""A block of a transformer, and many of them with stacked parameters.

Dimensions: B batch, L tokens, D width, N blocks.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from vitok import sizes
from vitok.models import attention, layers

REMAT = {  # What the backward pass finds stored, by name.
    'full': jax.checkpoint_policies.nothing_saveable,
    'dots': jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    'none': None,
}


BLOCKS = ('sequential', 'parallel')


class Block(nn.Module):
  """Pre-norm block, of one of two forms.

  'sequential': x + a * attention(norm(x)), then x + b * mlp(norm(x)).
  'parallel': x + a * (attention(n) + mlp(n)) with n = norm(x), as in ViTok-v2.

  Attributes:
    tower: dimensions.
    mlp, norm, attention: keys of `layers.MLPS`, `layers.NORMS`,
      `attention.IMPLEMENTATIONS`.
    form: one of `BLOCKS`.
    layer_scale: start of a and b, a factor of each channel (arXiv 2103.17239,
      LayerScale); 0: there are none.
    qk_norm: whether queries and keys pass an RMSNorm.
    bias: whether the linear maps have biases.
    dtype: of matrix products.
    key_bias: whether keys have one, too.
    sub_norm: whether heads and hidden units pass a norm before the last linear
      map of attention and of the MLP (arXiv 2210.06423, sub-LN).
  """
  tower: sizes.Tower
  mlp: str = 'swiglu'
  norm: str = 'layernorm'
  attention: str = 'xla'
  form: str = 'sequential'
  layer_scale: float = 0.0
  qk_norm: bool = False
  bias: bool = True
  dtype: jnp.dtype = jnp.float32
  key_bias: bool = True
  sub_norm: bool = False

  @nn.compact
  def __call__(self, x_BxLxD: jax.Array, per_layer: None = None,
               rotation: np.ndarray | None = None,
               valid_BxL: jax.Array | None = None) -> tuple[jax.Array, None]:
    """Returns the tokens and no per-layer output; takes no such input."""
    del per_layer
    norm = layers.NORMS[self.norm]
    sub_norm = self.norm if self.sub_norm else ''
    out_scale = (2 * self.tower.depth)**-0.5  # Two branches a block.
    attend = attention.Attention(
        self.tower.heads, self.attention, out_scale, self.dtype, self.bias,
        self.qk_norm, self.key_bias, sub_norm, name='attention')
    mlp = layers.MLPS[self.mlp](
        self.tower.hidden(self.mlp), out_scale, self.dtype, self.bias,
        sub_norm, name='mlp')
    x = layers.constrain_batch(x_BxLxD)
    n = norm(self.dtype, name='norm1')(x)
    if self.form == 'parallel':
      y = attend(n, rotation, valid_BxL) + mlp(n)
      return x + self._scaled(1, y), None
    x += self._scaled(1, attend(n, rotation, valid_BxL))
    x += self._scaled(2, mlp(norm(self.dtype, name='norm2')(x)))
    return x, None

  def _scaled(self, branch, y_BxLxD):
    if not self.layer_scale:
      return y_BxLxD
    gamma_D = self.param(f'layer_scale{branch}', nn.with_logical_partitioning(
        nn.initializers.constant(self.layer_scale), ('embed',)),
                         y_BxLxD.shape[-1:])
    return y_BxLxD * gamma_D.astype(y_BxLxD.dtype)


def stack(block: nn.Module, depth: int, x_BxLxD: jax.Array, *shared: Any,
          per_layer: Any = None, taps: Sequence[int] = (), scan: bool = True,
          remat: str = 'none'):
  """Applies `depth` blocks whose parameters are stacked on a leading axis.

  Args:
    block: a module `(x, per_layer, *shared) -> (x, y)`, made by the caller;
      its name is where the stacked parameters live.
    depth: number of blocks N.
    x_BxLxD: input tokens.
    *shared: passed to every block.
    per_layer: pytree whose leaves have leading axis N; each block gets its
      slice.
    taps: blocks whose output tokens are returned.
    scan: loop over the blocks, so that compile time is flat in depth; or else
      write them out one after the other. Same parameters either way.
    remat: key of `REMAT`.

  Returns:
    Tokens, `{k: output of block k}` for k in `taps`, and the blocks' y
    stacked on a leading axis N.
  """
  if not set(taps) <= set(range(depth)):
    raise ValueError(f'taps {tuple(taps)} are not all below depth {depth}')

  def body(block, carry, inputs):
    (x, tapped), (layer, own) = carry, inputs
    x, y = block(x, own, *shared)
    # In the carry, not an output per layer: only what is asked for is kept.
    tapped = {k: jnp.where(layer == k, x, h) for k, h in tapped.items()}
    return (x, tapped), y

  if REMAT[remat]:
    # A loop hides the forward pass from common subexpression elimination.
    body = nn.remat(body, policy=REMAT[remat], prevent_cse=not scan)
  body = nn.scan(
      body, variable_axes={'params': 0}, split_rngs={'params': True},
      length=depth, unroll=1 if scan else depth,
      metadata_params={nn.PARTITION_NAME: 'layers'})
  carry = x_BxLxD, {k: jnp.zeros_like(x_BxLxD) for k in taps}
  (x_BxLxD, tapped), ys = body(block, carry, (jnp.arange(depth), per_layer))
  return x_BxLxD, tapped, ys
