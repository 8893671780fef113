"""Classifier-free guidance: what it mixes, and where it does not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vitok.sampling import guidance, predictions
from vitok.sampling.schedules import Schedule

NULL = 10
LABELS = jnp.array([3, 0, 7])
Z = jnp.array(np.random.default_rng(0).standard_normal((3, 4, 2)), jnp.float32)
TIME = jnp.array([0.1, 0.5, 0.9])


@jax.jit
def network(z, time, labels):
  """Something that depends on every argument, row by row."""
  return jnp.sin(z * (1 + labels[:, None, None])) + time[:, None, None]


def mixed(scale_B):
  null = network(Z, TIME, jnp.full(3, NULL))
  scale_B = np.asarray(scale_B)[:, None, None]
  return null + scale_B * (network(Z, TIME, LABELS) - null)


def test_scale_one_is_the_conditional_network_run_alone():
  rows = []

  def counting(z, time, labels):
    rows.append(len(z))
    return network(z, time, labels)

  out = guidance.guided(counting, LABELS, NULL, 1.0)(Z, TIME)
  np.testing.assert_array_equal(out, network(Z, TIME, LABELS))
  assert rows == [3]


def test_an_array_of_scales_has_one_for_each_example():
  scales = jnp.array([1.0, 0.0, 2.5])
  out = jax.jit(lambda scale: guidance.guided(
      network, LABELS, NULL, scale)(Z, TIME))(scales)
  np.testing.assert_allclose(out, mixed(scales), atol=1e-5)


@pytest.mark.parametrize('scale', [0.0, 1.5, 4.0])
def test_guidance_extrapolates_from_the_null_class(scale):
  out = guidance.guided(network, LABELS, NULL, scale)(Z, TIME)
  np.testing.assert_allclose(out, mixed([scale] * 3), atol=1e-5)


def test_guidance_keeps_to_its_interval():
  out = guidance.guided(network, LABELS, NULL, 4.0, (0.3, 0.7))(Z, TIME)
  np.testing.assert_allclose(out, mixed([1.0, 4.0, 1.0]), atol=1e-5)


def test_guidance_is_the_same_in_every_prediction():
  levels = [level[:, None, None] for level in Schedule('cosine')(TIME)]

  @jax.jit
  def as_velocity(z, time, labels):
    found = predictions.split('v', network(z, time, labels), z, *(
        level[:, None, None] for level in Schedule('cosine')(time)))
    return predictions.target('velocity', *found, None, None)

  v = guidance.guided(network, LABELS, NULL, 3.0)(Z, TIME)
  velocity = guidance.guided(as_velocity, LABELS, NULL, 3.0)(Z, TIME)
  for a, b in zip(predictions.split('v', v, Z, *levels),
                  predictions.split('velocity', velocity, Z, *levels),
                  strict=True):
    np.testing.assert_allclose(a, b, atol=1e-4)
