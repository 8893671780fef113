"""Pixel losses against their formulas in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vitok import errors, losses

SHAPE = (3, 2, 8, 8, 3)


def _pair():
  rng = np.random.default_rng(0)
  return rng.uniform(-1, 1, (2, *SHAPE)).astype(np.float32)


@pytest.mark.parametrize('name, formula', [
    ('l2', np.square),
    ('l1', np.abs),
    ('charbonnier', lambda d: np.sqrt(d**2 + 1e-6)),
])
def test_loss_is_the_mean_over_each_example(name, formula):
  x, y = _pair()
  expected = formula(x.astype(np.float64) - y).mean((1, 2, 3, 4))
  np.testing.assert_allclose(losses.pixel(name)(x, y), expected, rtol=1e-6)


@pytest.mark.parametrize('name', ['l2', 'l1', 'charbonnier'])
def test_gradient_is_bounded_where_reconstruction_is_perfect(name):
  x = jnp.asarray(_pair()[0])
  gradient = jax.grad(lambda y: losses.pixel(name)(x, y).sum())(x)
  largest = 1 / x[0].size if name == 'l1' else 0  # L1: any subgradient.
  assert np.abs(gradient).max() <= largest * (1 + 1e-6)


def test_bfloat16_images_are_compared_in_float32():
  x, y = jnp.asarray(_pair(), jnp.bfloat16)
  loss = losses.pixel('l2')(x, y)
  assert loss.dtype == jnp.float32
  expected = np.square(np.float64(x) - np.float64(y)).mean((1, 2, 3, 4))
  np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_shapes_that_would_broadcast_are_refused():
  x, y = _pair()
  with pytest.raises(ValueError, match='shapes'):
    losses.pixel('l2')(x, y[:, :1])


def test_unknown_loss_is_refused_with_the_nearest():
  with pytest.raises(errors.InputError, match='config.loss.pixel=.l3.*l2'):
    losses.pixel('l3')
