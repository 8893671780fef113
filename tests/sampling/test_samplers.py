"""Samplers of exact denoisers reach the known distribution at their order."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vitok import errors
from vitok.sampling import predictions, samplers
from vitok.sampling.schedules import Schedule

SHAPE = (2, 3)
MEAN, STD = 1.5, 0.4  # Of Gaussian data.
# Of a mixture: weight and mean of its parts, which share a deviation.
WEIGHTS, MEANS, PART_STD = np.array([0.3, 0.7]), np.array([-1.0, 0.8]), 0.25


@functools.partial(jax.jit, static_argnums=(0, 2, 3, 4, 5))
def run(predict, examples, schedule, prediction, sampler, steps):
  """Samples of the examples of those numbers."""
  keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(0), examples)
  return samplers.sample(predict, keys, SHAPE, schedule, prediction,
                         sampler=sampler, steps=steps)


def denoiser(schedule, prediction, weights, means, std):
  """The exact prediction for independent numbers of a Gaussian mixture."""
  def predict(z, time):
    alpha, sigma = (a[:, None, None] for a in schedule(time))
    variance = (alpha * std)**2 + sigma**2
    distance = z[..., None] - alpha[..., None] * means
    share = jax.nn.softmax(
        jnp.log(weights) - distance**2 / variance[..., None] / 2)
    error = (share * distance).sum(-1) / variance
    x = (share * means).sum(-1) + alpha * std**2 * error
    return predictions.target(prediction, x, sigma * error, alpha, sigma)
  return jax.jit(predict)


@functools.cache
def gaussian(schedule, prediction):
  one = np.ones(1)
  return denoiser(schedule, prediction, one, MEAN * one, STD)


@functools.cache
def start(count):
  """The noise that samples start from: one step to x = z leaves it as is."""
  return run(lambda z, time: jnp.zeros_like(z), np.arange(count),
             Schedule('flow'), 'velocity', 'euler', 1)


def end(schedule, count):
  """Where the flow of Gaussian data takes that noise, in closed form."""
  alpha, sigma = (float(level) for level in schedule(1.0))
  spread = math.hypot(alpha * STD, sigma)
  return MEAN + STD * (np.float64(start(count)) - alpha * MEAN) / spread


@pytest.mark.parametrize('sampler, order, schedule, prediction', [
    ('ddim', 1, Schedule('linear'), 'epsilon'),
    ('euler', 1, Schedule('flow'), 'velocity'),
    ('heun', 2, Schedule('flow', 3.0), 'v'),
])
def test_error_falls_with_the_order_of_the_sampler(
    sampler, order, schedule, prediction):
  largest, exact = [], end(schedule, 32)
  for steps in (25, 100):
    out = run(gaussian(schedule, prediction), np.arange(32), schedule,
              prediction, sampler, steps)
    largest.append(np.abs(out - exact).max())
  # To any other end the error would stop falling.
  slope = math.log(largest[1] / largest[0]) / math.log(100 / 25)
  assert slope == pytest.approx(-order, abs=0.25)


@pytest.mark.parametrize('sampler, steps, schedule, prediction', [
    ('ddpm', 250, Schedule('linear'), 'epsilon'),
    ('ddpm', 250, Schedule('flow'), 'velocity'),
    ('heun', 50, Schedule('cosine'), 'v'),
])
def test_samples_of_a_mixture_have_its_distribution(
    sampler, steps, schedule, prediction):
  predict = denoiser(schedule, prediction, WEIGHTS, MEANS, PART_STD)
  out = run(predict, np.arange(2000), schedule, prediction, sampler, steps)
  found = np.sort(np.float64(out).ravel())
  error = np.vectorize(math.erf)
  cdf = sum(weight * (1 + error((found - mean) / PART_STD / 2**0.5)) / 2
            for weight, mean in zip(WEIGHTS, MEANS, strict=True))
  ranks = np.arange(len(found)) / len(found)
  # Kolmogorov and Smirnov's statistic exceeds this once in 200.
  assert np.abs(cdf - ranks).max() < 1.73 / len(found)**0.5


@pytest.mark.parametrize('n', [1, 2, 10, 500, 1000])
def test_the_ancestral_step_is_ddpms_posterior(n):
  """arXiv 2006.11239, eq. 6 and 7."""
  beta = np.linspace(1e-4, 0.02, 1000)
  signal = np.concatenate([[1.0], np.cumprod(1 - beta)])
  x, epsilon, noise = np.random.default_rng(0).standard_normal((3, 50))
  z = signal[n]**0.5 * x + (1 - signal[n])**0.5 * epsilon
  mean = (signal[n - 1]**0.5 * beta[n - 1] * x
          + (1 - beta[n - 1])**0.5 * (1 - signal[n - 1]) * z) / (1 - signal[n])
  variance = (1 - signal[n - 1]) / (1 - signal[n]) * beta[n - 1]
  schedule = Schedule('linear')
  step = samplers.posterior(x, epsilon, schedule(n / 1000),
                            schedule((n - 1) / 1000), noise)
  np.testing.assert_allclose(step, mean + variance**0.5 * noise, atol=1e-4)


def test_euler_and_ddim_are_eulers_method_on_straight_paths():
  schedule, predict = Schedule('flow'), gaussian(Schedule('flow'), 'velocity')
  z, times = start(3), np.linspace(1, 0, 6)
  for now, to in zip(times, times[1:], strict=False):
    z = z + (to - now) * predict(z, jnp.full(3, now))
  for sampler in ('euler', 'ddim'):
    out = run(predict, np.arange(3), schedule, 'velocity', sampler, 5)
    np.testing.assert_allclose(out, z, atol=1e-5)


def test_a_sample_does_not_depend_on_its_batch():
  schedule = Schedule('flow')
  predict = gaussian(schedule, 'velocity')
  whole, part = (
      run(predict, examples, schedule, 'velocity', 'ddpm', 4)
      for examples in (np.arange(64), np.arange(5, 12)))
  assert len(np.unique(whole)) > 380  # Of 384 numbers, by luck a few repeat.
  np.testing.assert_allclose(part, whole[5:12], rtol=1e-6, atol=1e-6)


def test_heun_evaluates_twice_a_step_and_never_at_time_zero():
  seen = []

  def predict(z, time):
    jax.debug.callback(lambda t: seen.append(float(t)), time[0])
    return jnp.zeros_like(z)

  for sampler, evaluations in (('ddim', 5), ('heun', 9)):
    seen.clear()
    run(predict, np.arange(1), Schedule('flow'), 'velocity', sampler, 5)
    jax.effects_barrier()
    assert len(seen) == evaluations and min(seen) == pytest.approx(0.2)


@pytest.mark.parametrize('options, message', [
    (dict(sampler='huen'), "sampler='huen'.*nearest.*heun"),
    (dict(steps=0), 'steps=0'),
    (dict(prediction='epsilon'), "prediction='epsilon'.*velocity"),
])
def test_what_cannot_be_sampled_is_refused_in_one_line(options, message):
  options = dict(prediction='velocity', sampler='ddim', steps=5) | options
  with pytest.raises(errors.InputError, match=message):
    run(lambda z, time: z, np.arange(1), Schedule('flow'), *options.values())
