"""Weights as functions of the step."""

import jax
import numpy as np
import pytest

from vitok import errors
from vitok.losses import schedules


def _at(steps, **fields):
  weight = schedules.build(
      {'weight': 0.5, 'start': 0, 'ramp': 0} | fields, 'config.a')
  return [float(weight(step)) for step in steps]


def test_a_weight_is_off_then_grows_evenly_then_stays():
  assert _at(range(8), start=3, ramp=4) == [
      0, 0, 0, 0.125, 0.25, 0.375, 0.5, 0.5]


@pytest.mark.parametrize('ramp', [0, 1])
def test_without_a_ramp_the_first_update_has_it_all(ramp):
  assert _at(range(4), start=2, ramp=ramp) == [0, 0, 0.5, 0.5]


def test_a_constant_is_a_schedule():
  assert _at([0, 1, 10**9]) == [0.5] * 3


def test_a_traced_step_gives_the_same():
  fields = {'weight': 0.05, 'start': 5_000, 'ramp': 50_000}
  weight = schedules.build(fields, 'config.a')
  steps = np.array([0, 4_999, 5_000, 30_000, 54_998, 54_999, 10**6], np.int32)
  expected = 0.05 * np.clip((steps + 1 - 5_000) / 50_000, 0, 1)
  found = jax.jit(jax.vmap(weight))(steps)
  assert found.dtype == np.float32
  np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize('fields, message', [
    ({'stop': 3}, "config.a='stop': is not one of 'weight', 'start', 'ramp'"),
    ({'start': -1}, 'config.a.start=-1'),
    ({'ramp': 0.5}, 'config.a.ramp=0.5.*int'),
    ({'weight': float('inf')}, 'config.a.weight=inf'),
    ({'weight': True}, 'config.a.weight=True'),
    ({'weight': float('nan')}, 'config.a.weight=nan'),
    ({'weight': 1e39}, 'config.a.weight=1e.39.*1000000000'),
    ({'start': 2**31}, 'config.a.start=2147483648.*2147483647'),
    ({'ramp': 2**31}, 'config.a.ramp=2147483648.*2147483647'),
])
def test_what_is_no_schedule_is_refused(fields, message):
  with pytest.raises(errors.InputError, match=message):
    _at([0], **fields)


def test_a_missing_field_is_refused():
  with pytest.raises(errors.InputError, match='config.a.ramp: is missing'):
    schedules.build({'weight': 1.0, 'start': 0}, 'config.a')
