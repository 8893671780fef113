"""Epsilon, v and velocity determine each other."""

import itertools

import numpy as np
import pytest

from vitok import errors
from vitok.sampling import predictions, schedules
from vitok.sampling.schedules import Schedule

TIMES = np.array([0.002, 0.1, 0.5, 0.9, 0.99])


def data(times=TIMES):
  x, epsilon = np.random.default_rng(0).standard_normal((2, len(times), 4, 3))
  return x, epsilon


def levels(schedule, times=TIMES):
  return (np.float64(level)[:, None, None] for level in schedule(times))


@pytest.mark.parametrize('start, end', [*itertools.product(
    predictions.NAMES, repeat=2)])
@pytest.mark.parametrize('schedule', [
    Schedule('linear'), Schedule('cosine'), Schedule('flow'),
    Schedule('flow', 3.0), Schedule('linear', 3.0)])
def test_conversions_round_trip(start, end, schedule):
  x, epsilon = data()
  alpha, sigma = levels(schedule)
  z = alpha * x + sigma * epsilon
  first = predictions.target(start, x, epsilon, alpha, sigma)
  second = predictions.target(
      end, *predictions.split(start, first, z, alpha, sigma), alpha, sigma)
  for name, prediction in ((start, first), (end, second)):
    x_back, epsilon_back = predictions.split(name, prediction, z, alpha, sigma)
    np.testing.assert_allclose(x_back, x, atol=1e-9)
    np.testing.assert_allclose(epsilon_back, epsilon, atol=1e-9)


@pytest.mark.parametrize('schedule', [
    Schedule(name) for name in schedules.NAMES])
def test_velocity_is_the_slope_of_the_scaled_path(schedule):
  x, epsilon = data()
  (a, s), (b, t) = levels(schedule), levels(schedule, TIMES + 1e-3)
  rise = ((b * x + t * epsilon) / (b + t) - (a * x + s * epsilon) / (a + s))
  slope = rise / (t / (b + t) - s / (a + s))
  np.testing.assert_allclose(
      slope, predictions.target('velocity', x, epsilon, a, s), rtol=1e-6)


@pytest.mark.parametrize('name', ['v', 'velocity'])
def test_pure_noise_has_data_in_what_is_predicted(name):
  x, epsilon = data(np.ones(2))
  prediction = predictions.target(name, x, epsilon, 0.0, 1.0)
  found, _ = predictions.split(name, prediction, epsilon, 0.0, 1.0)
  np.testing.assert_allclose(found, x, atol=1e-12)


@pytest.mark.parametrize('name, schedule, message', [
    ('epsilon', 'flow', "prediction='epsilon'.*nearest.*velocity"),
    ('epsilon', 'cosine', "prediction='epsilon'.*'cosine'.*choice: v$"),
    ('velocty', 'flow', 'nearest.*velocity')])
def test_predictions_that_do_not_fit_are_refused(name, schedule, message):
  with pytest.raises(errors.InputError, match=message):
    predictions.check(name, Schedule(schedule))
