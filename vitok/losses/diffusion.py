"""Training losses of diffusion and flow matching, per example.

A network learns to predict epsilon (DDPM's simple loss, arXiv 2006.11239, eq.
14), v (arXiv 2202.00512) or, with schedule 'flow', the velocity (conditional
flow matching, arXiv 2210.02747): the mean squared error of the prediction, at
a time drawn uniformly for each example.

Dimensions: B batch, L tokens, c channels of the code.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from vitok.sampling import predictions
from vitok.sampling.schedules import Schedule

_TIME, _NOISE, _LABEL = range(3)  # Streams of an example's key.


def _per_example(keys_B, stream, function):
  return jax.vmap(
      lambda key: function(jax.random.fold_in(key, stream)))(keys_B)


def denoising(predict: Callable[[jax.Array, jax.Array], jax.Array],
              x_BxLxc: jax.Array, keys_B: jax.Array, schedule: Schedule,
              prediction: str) -> tuple[jax.Array, jax.Array]:
  """The loss of each example and the time at which it was taken.

  Args:
    predict: (z_BxLxc, time_B) -> prediction (B, L, c).
    x_BxLxc: codes, of about unit variance.
    keys_B: (B,) typed PRNG keys, one per example.
    schedule: the path from data to noise.
    prediction: of `predictions.NAMES`, that `predictions.check` accepts.

  Returns:
    Mean squared errors (B,) and times (B,), float32.
  """
  time_B = _per_example(keys_B, _TIME, schedule.draw)
  return denoising_at(predict, x_BxLxc, keys_B, time_B, schedule,
                      prediction), time_B


def denoising_at(predict: Callable[[jax.Array, jax.Array], jax.Array],
                 x_BxLxc: jax.Array, keys_B: jax.Array, time_B: jax.Array,
                 schedule: Schedule, prediction: str) -> jax.Array:
  """As `denoising`, at given times: the losses (B,)."""
  x_BxLxc = x_BxLxc.astype(jnp.float32)
  epsilon_BxLxc = _per_example(
      keys_B, _NOISE, lambda key: jax.random.normal(key, x_BxLxc.shape[1:]))
  alpha, sigma = (level_B[:, None, None] for level_B in schedule(time_B))
  error_BxLxc = (
      predict(alpha * x_BxLxc + sigma * epsilon_BxLxc, time_B)
      - predictions.target(prediction, x_BxLxc, epsilon_BxLxc, alpha, sigma))
  return jnp.square(error_BxLxc).mean((1, 2))


def drop_labels(label_B: jax.Array, keys_B: jax.Array, rate: float,
                null: int) -> jax.Array:
  """Labels of which each is replaced by `null` with probability `rate`.

  What classifier-free guidance learns the unconditional prediction from. The
  keys may be those of `denoising`: this draws from a stream of its own.
  """
  dropped_B = _per_example(
      keys_B, _LABEL, lambda key: jax.random.bernoulli(key, rate))
  return jnp.where(dropped_B, null, label_B)
