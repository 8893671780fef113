"""The variational bottleneck of ViTok (arXiv 2501.09755, section 2.2)."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from vitok.models.bottlenecks import base

LOG_VARIANCE = (-30.0, 20.0)  # Clamped to this range.


class Gaussian(base.Bottleneck):
  """z ~ N(mean, exp(log variance)) in training, the mean in evaluation.

  Losses, of the divergence from a unit Gaussian: 'kl_sum' in nats per example
  and 'kl_mean', the same divided by the L * c floats of the code.
  """
  code_projection = 2

  @nn.compact
  def __call__(self, h_BxLxD: jax.Array, keys: jax.Array | None = None,
               train: bool = False) -> base.Code:
    mean_BxLxc, log_variance_BxLxc = jnp.split(self.down(h_BxLxD), 2, -1)
    log_variance_BxLxc = jnp.clip(log_variance_BxLxc, *LOG_VARIANCE)
    variance_BxLxc = jnp.exp(log_variance_BxLxc)
    kl_BxLxc = 0.5 * (jnp.square(mean_BxLxc) + variance_BxLxc - 1
                      - log_variance_BxLxc)
    z_BxLxc = mean_BxLxc
    if train and keys is not None:
      noise_BxLxc = jax.vmap(
          lambda key: jax.random.normal(key, z_BxLxc.shape[1:]))(keys)
      z_BxLxc += jnp.exp(0.5 * log_variance_BxLxc) * noise_BxLxc
    return base.Code(
        z=z_BxLxc,
        losses={'kl_sum': kl_BxLxc.sum((1, 2)),
                'kl_mean': kl_BxLxc.mean((1, 2))},
        stats={'mean_square': jnp.square(mean_BxLxc).mean(),
               'variance': variance_BxLxc.mean()})
