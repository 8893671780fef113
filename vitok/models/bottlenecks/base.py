"""What every bottleneck shares: the code and the interface.

Dimensions: B batch, L tokens, D width of the encoder, c channels of the code,
K integers of a token.
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct
from flax.core import FrozenDict

from vitok.models import layers


@struct.dataclass
class Code:
  """A batch of codes.

  Attributes:
    z: (B, L, c) float32, what the decoder reads.
    ids: (B, L, K) int32, the integers of a discrete code, or `None`.
    losses: name -> (B,) values, one per example.
    stats: name -> array, to be logged.
  """
  z: jax.Array
  ids: jax.Array | None = None
  losses: dict[str, jax.Array] = struct.field(default_factory=dict)
  stats: dict[str, Any] = struct.field(default_factory=dict)


class Bottleneck(nn.Module):
  """From the encoder's tokens to a `Code`.

  A subclass defines `__call__` and is registered by one line in
  `vitok/models/bottlenecks/__init__.py`. What it keeps that gradients do not
  train goes into variable collections other than 'params'.

  Attributes:
    channels: floats c of a token's code.
    dtype: of matrix products.
    options: the fields `reads` of `config.model.quantizer`; others are refused
      where they are not the default's.
    projection: 'linear' or 'mlp': what projects the encoder's tokens.
    code_projection: width of the projection from the encoder, in units of c.
    additive: whether a batch's gradient is the mean of that of its parts.
  """
  channels: int
  dtype: jnp.dtype = jnp.float32
  options: Mapping[str, Any] = FrozenDict()
  projection: str = 'linear'
  code_projection = 1
  reads = ()
  additive = True

  def __call__(self, h_BxLxD: jax.Array, keys: jax.Array | None = None,
               train: bool = False) -> Code:
    """Encodes tokens.

    Args:
      h_BxLxD: final tokens of the encoder.
      keys: (B,) typed PRNG keys, one per example, so that no example's noise
        depends on the batch or the device that it is in.
      train: whether to sample, where keys are given.
    """
    raise NotImplementedError

  def from_codes(self, codes: jax.Array) -> jax.Array:
    """z_BxLxc of stored codes: the identity unless the codes are ids."""
    return codes

  @classmethod
  def check(cls, channels: int, options: Mapping[str, Any]) -> None:
    """Raises `InputError` where channels or options make no such code."""

  @classmethod
  def radices(cls, channels: int, options: Mapping[str, Any]
              ) -> tuple[int, ...]:
    """How many values each of the K integers of a token has; () if z is
    continuous."""
    return ()

  @classmethod
  def arithmetic(cls, channels: int, options: Mapping[str, Any]
                 ) -> dict[str, Any]:
    """The fields of `accounting.Spec` that a bottleneck decides."""
    radices = cls.radices(channels, options)
    return {'code_projection': cls.code_projection,
            'token_bits': math.log2(math.prod(radices)) if radices else None}

  def down(self, h_BxLxD: jax.Array) -> jax.Array:
    """Projects to `code_projection * channels` in float32; for `__call__`."""
    axis = 'embed'
    if self.projection == 'mlp':
      axis = 'mlp'
      h_BxLxD = layers.gelu(layers.Linear(
          h_BxLxD.shape[-1], ('embed', 'mlp'), dtype=self.dtype,
          name='down_hidden')(h_BxLxD))
    return layers.Linear(
        self.code_projection * self.channels, (axis, 'code'),
        dtype=self.dtype, out_dtype=jnp.float32, name='down')(h_BxLxD)
