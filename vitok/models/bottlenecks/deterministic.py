"""A plain auto-encoder's bottleneck: the projection is the code."""

import jax
from flax import linen as nn

from vitok.models.bottlenecks import base


class Deterministic(base.Bottleneck):
  """z = down(h), no noise and no loss."""

  @nn.compact
  def __call__(self, h_BxLxD: jax.Array, keys: jax.Array | None = None,
               train: bool = False) -> base.Code:
    del keys, train
    return base.Code(z=self.down(h_BxLxD))
