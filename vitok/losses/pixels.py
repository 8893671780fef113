"""Pixel losses of a reconstruction, per example.

All take images in [-1, 1] and average over pixels, frames and channels, so a
value does not depend on the resolution; the caller averages over examples.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from vitok import errors

# Where the Charbonnier loss turns from quadratic to linear, on the [-1, 1]
# scale: an eighth of a uint8 level, so it is L1 for any visible error, with a
# gradient at zero. Charbonnier et al., ICIP 1994, as image restoration uses it.
CHARBONNIER_EPSILON = 1e-3


def l2(difference: jax.Array) -> jax.Array:
  return jnp.square(difference)


def l1(difference: jax.Array) -> jax.Array:
  return jnp.abs(difference)


def charbonnier(difference: jax.Array) -> jax.Array:
  return jnp.sqrt(jnp.square(difference) + CHARBONNIER_EPSILON**2)


PENALTIES = {'l2': l2, 'l1': l1, 'charbonnier': charbonnier}


def pixel(name: str) -> Callable[[jax.Array, jax.Array], jax.Array]:
  """The pixel loss called `name`.

  Args:
    name: 'l2' (squared error), 'l1' (absolute error) or 'charbonnier'
      (sqrt(error^2 + 1e-6), a smooth absolute error).

  Returns:
    A function of two arrays (B, ...) in [-1, 1] to the float32 mean (B,);
    given `where`, a mask that broadcasts to them, the mean of that part.

  Raises:
    InputError: there is no loss of that name.
  """
  errors.one_of('config.loss.pixel', name, tuple(PENALTIES))
  penalty = PENALTIES[name]

  def loss(x: jax.Array, y: jax.Array, where: Any = None) -> jax.Array:
    if x.shape != y.shape:  # Broadcasting would hide a wrong frame axis.
      raise ValueError(f'pixel loss of shapes {x.shape} and {y.shape}')
    difference = x.astype(jnp.float32) - y.astype(jnp.float32)
    return jnp.mean(penalty(difference), axis=range(1, x.ndim), where=where)

  return loss
