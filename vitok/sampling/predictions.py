"""What a network predicts about z = alpha x + sigma epsilon, by name.

  epsilon   the noise (DDPM)
  v         alpha epsilon - sigma x (arXiv 2202.00512)
  velocity  epsilon - x, along straight lines from data to noise

Given z, each determines the data x and the noise epsilon, hence the others.
All are affine in each other, so that guidance, a mean of two predictions whose
weights sum to one, is the same in each. Along any path, not only `flow`,
velocity is the derivative of z / (alpha + sigma) by sigma / (alpha + sigma).
"""

import jax

from vitok import errors
from vitok.sampling.schedules import Schedule

NAMES = ('epsilon', 'v', 'velocity')


def check(name: str, schedule: Schedule):
  """Refuses a prediction that does not determine the data at every time.

  Raises:
    InputError: an unknown name, or noise where it is all that there is, or
      nearly: at the end of 'cosine' alpha is 5e-5, and an error of 1% of the
      noise is one of 200 of the data.
  """
  errors.one_of('config.diffusion.prediction', name, NAMES)
  if name == 'epsilon' and schedule.name == 'flow':
    raise errors.InputError(
        'config.diffusion.prediction', name,
        "says nothing of the data at the start of 'flow', which is all noise",
        'velocity')
  if name == 'epsilon' and schedule.name == 'cosine':
    raise errors.InputError(
        'config.diffusion.prediction', name, "says next to nothing of the data "
        "at the start of 'cosine', which is noise but for 1 part in 20000", 'v')


def target(name: str, x: jax.Array, epsilon: jax.Array, alpha: jax.Array,
           sigma: jax.Array) -> jax.Array:
  """The prediction `name` of data and noise.

  Args:
    name: of `NAMES`.
    x, epsilon: arrays of one shape.
    alpha, sigma: of the path, broadcast against them.
  """
  if name == 'epsilon':
    return epsilon
  if name == 'v':
    return alpha * epsilon - sigma * x
  return epsilon - x


def split(name: str, prediction: jax.Array, z: jax.Array, alpha: jax.Array,
          sigma: jax.Array) -> tuple[jax.Array, jax.Array]:
  """(x, epsilon) that the prediction `name` means at z: `target` inverted."""
  if name == 'epsilon':
    return (z - sigma * prediction) / alpha, prediction
  if name == 'v':
    square = alpha**2 + sigma**2
    return ((alpha * z - sigma * prediction) / square,
            (sigma * z + alpha * prediction) / square)
  length = alpha + sigma
  return ((z - sigma * prediction) / length,
          (z + alpha * prediction) / length)
