"""Losses of exact denoisers are the variances that they cannot know."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vitok.losses import diffusion
from vitok.sampling import predictions
from vitok.sampling.schedules import Schedule

STD = 0.5  # Of Gaussian data around zero.
CASES = [('linear', 'epsilon'), ('cosine', 'v'), ('flow', 'velocity')]


@functools.partial(jax.jit, static_argnums=0)
def keys(count):
  return jax.vmap(jax.random.fold_in, (None, 0))(
      jax.random.key(1), jnp.arange(count))


@functools.partial(jax.jit, static_argnums=0)
def codes(count):
  return STD * jax.random.normal(jax.random.key(0), (count, 8, 16))


def exact(schedule, prediction):
  def predict(z, time):
    alpha, sigma = (a[:, None, None] for a in schedule(time))
    error = z / ((alpha * STD)**2 + sigma**2)
    return predictions.target(
        prediction, alpha * STD**2 * error, sigma * error, alpha, sigma)
  return predict


@functools.partial(jax.jit, static_argnums=(0, 1))
def losses(schedule, prediction, x, keys):
  """Losses of the exact denoiser and of one that outputs zero, and times."""
  args = x, keys, schedule, prediction
  loss, time = diffusion.denoising(exact(schedule, prediction), *args)
  return loss, diffusion.denoising(lambda z, time: 0 * z, *args)[0], time


@functools.cache
def measured(name, prediction):
  found = losses(Schedule(name), prediction, codes(2000), keys(2000))
  assert all(values.shape == (2000,) for values in found)
  alpha, sigma = (np.float64(level) for level in Schedule(name)(found[2]))
  return *found[:2], alpha, sigma


@pytest.mark.parametrize('name, prediction', CASES)
def test_the_exact_denoisers_loss_is_the_posterior_variance(name, prediction):
  loss, _, alpha, sigma = measured(name, prediction)
  # Of x given z; epsilon, v and velocity are linear in x where z is known.
  unknown = (STD * sigma)**2 / ((STD * alpha)**2 + sigma**2)
  slope = {'epsilon': alpha, 'v': alpha**2 + sigma**2,
           'velocity': alpha + sigma}[prediction] / np.maximum(sigma, 1e-9)
  expected = slope**2 * unknown
  # 128 numbers an example: a relative deviation of 1/8.
  np.testing.assert_allclose(loss / expected, 1, atol=0.6)
  assert np.mean(loss / expected) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize('name, prediction', CASES)
def test_a_network_that_outputs_zero_loses_the_targets_square(name, prediction):
  _, loss, alpha, sigma = measured(name, prediction)
  expected = {'epsilon': 1, 'v': alpha**2 + (STD * sigma)**2,
              'velocity': 1 + STD**2}[prediction]
  assert np.mean(loss / expected) == pytest.approx(1, abs=0.01)


def test_an_examples_loss_does_not_depend_on_its_batch():
  args = codes(2000), keys(2000)
  whole = losses(Schedule('flow'), 'velocity', *args)
  part = losses(Schedule('flow'), 'velocity', *(a[3:5] for a in args))
  for a, b in zip(whole, part, strict=True):
    np.testing.assert_allclose(a[3:5], b, rtol=1e-5)


def test_labels_are_dropped_at_the_rate_and_by_example():
  labels = jnp.arange(2000) % 10
  dropped = diffusion.drop_labels(labels, keys(2000), 0.1, 10)
  assert np.mean(dropped == 10) == pytest.approx(0.1, abs=0.02)  # 3 sigma.
  np.testing.assert_array_equal(dropped[dropped != 10], labels[dropped != 10])
  np.testing.assert_array_equal(
      diffusion.drop_labels(labels[7:9], keys(2000)[7:9], 0.1, 10),
      dropped[7:9])
  for rate, expected in ((0.0, labels), (1.0, jnp.full(2000, 10))):
    np.testing.assert_array_equal(
        diffusion.drop_labels(labels, keys(2000), rate, 10), expected)
