"""Paths from data to noise against the formulas of their papers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vitok import errors
from vitok.sampling import schedules
from vitok.sampling.schedules import Schedule

TIMES = np.arange(1001) / 1000


@functools.cache
def levels(schedule):
  """alpha and sigma at `TIMES`, in float64."""
  return tuple(map(np.float64, jax.jit(schedule)(TIMES)))


def test_linear_is_the_product_of_ddpms_thousand_steps():
  signal = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
  alpha, sigma = levels(Schedule('linear'))
  np.testing.assert_allclose(alpha[1:]**2, signal, rtol=1e-5)
  np.testing.assert_allclose(sigma[1:]**2, 1 - signal, rtol=1e-5)
  assert alpha[-1]**2 == pytest.approx(4.036e-5, rel=1e-3)  # As is known.


def test_cosine_is_nichol_and_dhariwals_but_for_the_last_clipped_step():
  signal = np.cos((TIMES + 0.008) / 1.008 * np.pi / 2)**2
  signal /= signal[0]
  alpha, sigma = levels(Schedule('cosine'))
  np.testing.assert_allclose(alpha[:-1]**2, signal[:-1], rtol=1e-4)
  np.testing.assert_allclose(
      sigma[:-1]**2, 1 - signal[:-1], rtol=1e-4, atol=1e-7)
  assert alpha[-1]**2 == pytest.approx(0.001 * signal[-2], rel=1e-3)


def test_flow_is_straight():
  alpha, sigma = levels(Schedule('flow'))
  np.testing.assert_allclose(alpha, 1 - TIMES, atol=1e-6)
  np.testing.assert_allclose(sigma, TIMES, atol=1e-6)


@pytest.mark.parametrize('name', schedules.NAMES)
@pytest.mark.parametrize('shift', [1.0, 3.0])
def test_paths_start_at_the_data_and_end_in_noise(name, shift):
  alpha, sigma = levels(Schedule(name, shift))
  assert alpha[0] == 1 and sigma[0] == 0
  assert alpha[-1] < 0.01 and sigma[-1] == pytest.approx(1, abs=1e-4)
  assert (np.diff(alpha) < 0).all() and (np.diff(sigma) >= 0).all()


@pytest.mark.parametrize('shift', [0.5, 2.0, 7.0])
def test_shift_of_flow_is_sd3s_formula(shift):
  _, sigma = levels(Schedule('flow', shift))
  np.testing.assert_allclose(
      sigma, shift * TIMES / (1 + (shift - 1) * TIMES), rtol=1e-5)


@pytest.mark.parametrize('name', ['linear', 'cosine'])
def test_shift_of_diffusion_moves_the_log_signal_to_noise_ratio(name):
  plain, moved = (2 * np.log(alpha[1:] / sigma[1:]) for alpha, sigma in map(
      levels, (Schedule(name), Schedule(name, 4.0))))
  np.testing.assert_allclose(moved, plain - 2 * np.log(4), atol=1e-4)
  alpha, sigma = levels(Schedule(name, 4.0))
  np.testing.assert_allclose(alpha**2 + sigma**2, 1, rtol=1e-6)


def test_a_code_of_four_times_the_floats_has_twice_the_shift():
  assert schedules.dimension_shift(4096) == 1
  assert schedules.dimension_shift(256 * 64) == 2
  assert schedules.dimension_shift(512**2, 256**2) == 2  # SD3: of pixels.


@pytest.mark.parametrize('name', schedules.NAMES)
def test_training_times_are_uniform_and_those_of_the_schedule(name):
  keys = jax.random.split(jax.random.key(0), 4000)
  times = np.asarray(jax.vmap(Schedule(name).draw)(keys), np.float64)
  assert times.dtype == np.float64 and 0 <= times.min() < 0.01
  assert 0.99 < times.max() <= 1
  assert times.mean() == pytest.approx(0.5, abs=0.015)  # Three sigma.
  assert times.var() == pytest.approx(1 / 12, rel=0.05)
  if name != 'flow':
    steps = times * 1000
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-4)
    assert np.round(steps).min() >= 1


@pytest.mark.parametrize('name, steps', [
    ('linear', 7), ('linear', 250), ('cosine', 1000), ('flow', 7),
    ('flow', 3000)])
def test_sampling_times_fall_from_noise_to_data(name, steps):
  times = Schedule(name).times(steps)
  assert len(times) == steps + 1 and times[0] == 1 and times[-1] == 0
  assert (np.diff(times) < 0).all()
  np.testing.assert_allclose(times, np.linspace(1, 0, steps + 1), atol=6e-4)
  if name != 'flow':
    np.testing.assert_allclose(times * 1000, np.round(times * 1000), atol=1e-4)


@pytest.mark.parametrize('make, message', [
    (lambda: Schedule('cosin'), "schedule='cosin'.*nearest.*cosine"),
    (lambda: Schedule('flow', 0.0), 'shift=0.0.*not positive'),
    (lambda: Schedule('flow', float('nan')), 'shift=nan'),
    (lambda: Schedule('linear').times(1001), 'steps=1001.*nearest.*1000'),
    (lambda: Schedule('flow').times(0), 'steps=0.*nearest.*1'),
])
def test_what_is_no_schedule_is_refused_in_one_line(make, message):
  with pytest.raises(errors.InputError, match=message):
    make()


def test_levels_are_float32_whatever_the_time():
  for name in schedules.NAMES:
    for level in Schedule(name)(jnp.ones(3, jnp.bfloat16)):
      assert level.dtype == jnp.float32 and level.shape == (3,)
