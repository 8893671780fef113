"""Classifier-free guidance (arXiv 2207.12598).

Dimensions: B batch, L tokens, c channels of the code.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def guided(network: Callable[..., jax.Array], label_B: jax.Array, null: int,
           scale: float | jax.Array = 1.0,
           interval: tuple[float, float] = (0.0, 1.0)
           ) -> Callable[[jax.Array, jax.Array], jax.Array]:
  """A conditional network as a function of codes and times, guided.

  Args:
    network: (z_BxLxc, time_B, label_B) -> prediction (B, L, c), of any kind
      that `predictions` names: guidance is the same in all of them.
    label_B: classes to generate.
    null: the label of the unconditional prediction u; where the conditional
      one is p, the guided one is u + scale * (p - u).
    scale: 1 is the conditional network, which then runs alone. An array, a
      scalar or (B,), is not looked at: a sweep over scales compiles once, and
      always runs both.
    interval: times, both included, at which to guide; 1 is noise. Elsewhere
      the scale is 1 (arXiv 2404.07724).
  """
  if not isinstance(scale, jax.Array) and scale == 1:
    return lambda z, time: network(z, time, label_B)
  # Side by side and not one half after the other: rows stay on their device.
  labels_2B = jnp.stack([label_B, jnp.full_like(label_B, null)], 1).ravel()

  def predict(z_BxLxc, time_B):
    both = network(jnp.repeat(z_BxLxc, 2, 0), jnp.repeat(time_B, 2), labels_2B)
    both = both.reshape(-1, 2, *both.shape[1:])
    conditional, unconditional = both[:, 0], both[:, 1]
    low, high = interval
    scale_B = jnp.where((low <= time_B) & (time_B <= high), scale, 1.0)
    difference = conditional - unconditional
    return unconditional + scale_B[:, None, None] * difference

  return predict
