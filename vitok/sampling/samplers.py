"""From noise to codes: DDPM, DDIM, Euler and Heun as pure loops.

  ddim   deterministic (arXiv 2010.02502, eta = 0)
  ddpm   ancestral: each step samples the Gaussian posterior of its end, given
         the predicted data (arXiv 2006.11239 with the posterior's variance)
  euler  Euler's method along the velocity. On any path this is ddim exactly,
         in exact arithmetic: both move on a line of constant x and epsilon
  heun   the trapezoidal rule along the velocity (arXiv 2206.00364, algorithm
         1, without its noise); two evaluations a step but the last, which is
         Euler's since the networks are not trained at time 0

Coordinates of the differential equation are z / (alpha + sigma) and its time
sigma / (alpha + sigma), in which its derivative is the velocity: finite at
pure noise as at pure data. The first three are of order 1. heun is of order 2
on `flow`, and of about 1.5 on `linear` and `cosine`, where sigma starts as the
root of time, so that the last step, Euler's, is long (measured on a Gaussian).

Noise is keyed by example: no sample depends on the batch or the device that it
is made in.

Dimensions: B batch, L tokens, c channels of the code.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from vitok import errors
from vitok.sampling import predictions
from vitok.sampling.schedules import Schedule

NAMES = ('ddpm', 'ddim', 'euler', 'heun')


def sample(predict: Callable[[jax.Array, jax.Array], jax.Array],
           keys_B: jax.Array, shape: tuple[int, ...], schedule: Schedule,
           prediction: str, *, sampler: str = 'ddim',
           steps: int = 250) -> jax.Array:
  """Samples codes.

  Args:
    predict: (z, time_B) -> prediction like z; conditions and guidance are
      the caller's (`guidance.guided`).
    keys_B: (B,) typed PRNG keys, one per example: the run's key folded with
      the number of the example.
    shape: of an example, (L, c).
    schedule: of the training, or another shift of it.
    prediction: what the network predicts; of `predictions.NAMES`.
    sampler: of `NAMES`.
    steps: number of steps; 'heun' evaluates 2 * steps - 1 times.

  Returns:
    (B, *shape) float32.

  Raises:
    InputError: an unknown name, an impossible combination or number of steps.
  """
  errors.one_of('config.diffusion.sampler', sampler, NAMES)
  predictions.check(prediction, schedule)
  times = jnp.asarray(schedule.times(steps))
  alphas, sigmas = schedule(times)

  def noise(number):
    return jax.vmap(lambda key: jax.random.normal(
        jax.random.fold_in(key, number), shape))(keys_B)

  def evaluate(z, i):
    """Data and noise that the network sees in z at time i."""
    out = predict(z, jnp.full(keys_B.shape, times[i]))
    return predictions.split(prediction, out, z, alphas[i], sigmas[i])

  def euler(z, i):
    x, epsilon = evaluate(z, i)
    return alphas[i + 1] * x + sigmas[i + 1] * epsilon

  def ancestral(z, i):
    x, epsilon = evaluate(z, i)
    return posterior(x, epsilon, (alphas[i], sigmas[i]),
                     (alphas[i + 1], sigmas[i + 1]), noise(i + 1))

  def heun(z, i):
    j = i + 1
    lengths = alphas + sigmas
    x, epsilon = evaluate(z, i)
    slope = epsilon - x
    x, epsilon = evaluate(alphas[j] * x + sigmas[j] * epsilon, j)
    distance = sigmas[j] / lengths[j] - sigmas[i] / lengths[i]
    y = z / lengths[i] + distance * (slope + epsilon - x) / 2
    return y * lengths[j]

  step = {'ddpm': ancestral, 'heun': heun}.get(sampler, euler)
  inner = steps - 1 if sampler == 'heun' else steps
  z, _ = jax.lax.scan(lambda z, i: (step(z, i), None), noise(0),
                      jnp.arange(inner))
  return euler(z, inner) if sampler == 'heun' else z


def posterior(x: jax.Array, epsilon: jax.Array,
              now: tuple[jax.Array, jax.Array],
              to: tuple[jax.Array, jax.Array],
              noise: jax.Array) -> jax.Array:
  """A sample of z at a lower noise, given z now and the data.

  Args:
    x, epsilon: data and noise that z now consists of.
    now, to: (alpha, sigma) of the two times.
    noise: unit Gaussian, like x.
  """
  (alpha, sigma), (alpha_to, sigma_to) = now, to
  # Of the noise there, the share that is in z now as well, and the rest.
  kept = sigma_to * alpha / (sigma * alpha_to)
  fresh = jnp.sqrt(jnp.maximum(1 - kept**2, 0))
  return alpha_to * x + sigma_to * (kept * epsilon + fresh * noise)
