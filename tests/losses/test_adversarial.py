"""Adversarial losses, penalties and weights against numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vitok import errors
from vitok.losses import adversarial


@pytest.fixture(scope='module')
def logits():
  """Real and fake ones, (2, 5, 4)."""
  return np.random.default_rng(0).normal(0, 2, (2, 5, 4)).astype(np.float32)


def _softplus(x):
  return np.logaddexp(0, x)


FORMULAS = {
    'hinge': (
        lambda real, fake: 0.5 * (np.maximum(0, 1 - real).mean(1)
                                  + np.maximum(0, 1 + fake).mean(1)),
        lambda fake: -fake.mean(1)),
    'non_saturating': (
        lambda real, fake: _softplus(-real).mean(1) + _softplus(fake).mean(1),
        lambda fake: _softplus(-fake).mean(1)),
}


@pytest.mark.parametrize('name', FORMULAS)
def test_both_sides_equal_their_formulas(name, logits):
  game, formulas = adversarial.loss(name), FORMULAS[name]
  np.testing.assert_allclose(
      game.discriminator(*logits), formulas[0](*np.float64(logits)), rtol=1e-5)
  np.testing.assert_allclose(
      game.generator(logits[1]), formulas[1](np.float64(logits[1])), rtol=1e-5)


@pytest.mark.parametrize('name', FORMULAS)
def test_gradients_point_where_each_side_wants_and_stay_finite(name):
  game = adversarial.loss(name)
  far = jnp.array([[-1e4], [0.0], [1e4]])
  real, fake = jax.grad(
      lambda r, f: game.discriminator(r, f).sum(), argnums=(0, 1))(far, far)
  generator = jax.grad(lambda f: game.generator(f).sum())(far)
  assert (real <= 0).all() and (fake >= 0).all() and (generator <= 0).all()
  assert generator[0] < 0  # The generator learns from a sure discriminator.
  assert np.isfinite([real, fake, generator]).all()


def test_r1_of_a_quadratic_score_is_half_its_squared_gradient():
  rng = np.random.default_rng(0)
  image, weight = rng.normal(size=(2, 3, 4)).astype(np.float32)
  score = lambda x: jnp.sum(weight * x**2, 1, keepdims=True)
  penalty, logits = adversarial.r1(score, jnp.asarray(image))
  np.testing.assert_allclose(logits[:, 0], (weight * image**2).sum(1),
                             rtol=1e-5)
  np.testing.assert_allclose(
      penalty, 0.5 * ((2 * weight * image)**2).sum(1), rtol=1e-5)


def test_r1_of_frames_is_the_mean_of_each_frames_own():
  clips = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 4)),
                      jnp.float32)
  score = lambda x: jnp.sum(x**3, -1)  # A logit a frame: (B, T).
  together, _ = adversarial.r1(score, clips)
  apart, _ = adversarial.r1(score, clips.reshape(6, 1, 4))
  np.testing.assert_allclose(together, apart.reshape(2, 3).mean(1), rtol=1e-5)


def test_r1_can_be_differentiated_by_the_parameters():
  image = jnp.array([[1.0, 2.0]])
  penalty = lambda w: adversarial.r1(
      lambda x: jnp.tanh(x @ w), image)[0].sum()
  w, h = jnp.array([[0.3], [-0.2]]), 1e-2
  slope = jax.grad(penalty)(w)
  for i in range(2):
    step = jnp.zeros_like(w).at[i].set(h)
    numeric = (penalty(w + step) - penalty(w - step)) / (2 * h)
    np.testing.assert_allclose(slope[i, 0], numeric, rtol=1e-2)


def test_lecam_equals_its_formula_with_unbiased_averages(logits):
  real, fake = logits
  decay, memory, past = 0.9, adversarial.lecam_init(), []
  assert (np.asarray(adversarial.lecam(memory, real, fake)) == 0).all()
  for shift in (0.0, 1.0, -2.0):
    past.append((real.mean() + shift, fake.mean() - shift))
    memory = adversarial.lecam_update(memory, *past[-1], decay)
  weights = np.array([decay**2, decay, 1])
  mean_real, mean_fake = weights @ np.array(past) / weights.sum()
  expected = (np.maximum(0, real - mean_fake)**2).mean(1) + (
      np.maximum(0, mean_real - fake)**2).mean(1)
  np.testing.assert_allclose(adversarial.lecam(memory, real, fake), expected,
                             rtol=1e-5)


def test_lecam_pulls_logits_together_and_its_memory_has_no_gradient(logits):
  def pull(real, fake):
    memory = adversarial.lecam_update(
        adversarial.lecam_init(), real.mean(), fake.mean())
    return adversarial.lecam(memory, real, fake).sum()
  real, fake = jnp.array([[3.0]]), jnp.array([[-1.0]])
  slopes = jax.grad(pull, argnums=(0, 1))(real, fake)
  np.testing.assert_allclose(slopes, [[[8.0]], [[-8.0]]], rtol=1e-6)


def test_adaptive_weight_is_the_ratio_of_norms():
  up = {'kernel': jnp.array([3.0, 0.0]), 'bias': jnp.array([4.0])}
  down = {'kernel': jnp.array([0.0, 0.5]), 'bias': jnp.array([0.0])}
  assert adversarial.adaptive_weight(up, down) == 10.0
  assert adversarial.adaptive_weight(up, down, (0.0, 4.0)) == 4.0
  assert adversarial.adaptive_weight(up, down, (20.0, 40.0)) == 20.0


@pytest.mark.parametrize('size', [1e-30, 1e-10, 1e10])
def test_adaptive_weight_is_right_at_any_scale(size):
  """Squares of such gradients are zero, or infinite, in float32."""
  up = jnp.full((100,), 2 * size)
  for size_down in (1.0, 1e-3):
    down = jnp.full((100,), size * size_down)
    np.testing.assert_allclose(adversarial.adaptive_weight(up, down),
                               2 / size_down, rtol=1e-5)


def test_adaptive_weight_adds_in_float32():
  """A sum of 2**16 equal squares in bfloat16 would stop at 2**8."""
  ones = jnp.ones(2**16, jnp.bfloat16)
  weight = adversarial.adaptive_weight(ones, jnp.ones(1, jnp.bfloat16))
  assert weight == 256 and weight.dtype == jnp.float32


def test_adaptive_weight_without_adversarial_gradient_is_the_limit():
  zero, one = jnp.zeros(3), jnp.ones(3)
  assert adversarial.adaptive_weight(one, zero, (0.0, 50.0)) == 50
  assert adversarial.adaptive_weight(zero, zero) == 0


@pytest.mark.parametrize('bad', [np.nan, np.inf])
def test_adaptive_weight_hides_no_gradient_that_is_not_finite(bad):
  bad, one = jnp.array([1.0, bad]), jnp.ones(2)
  assert np.isnan(adversarial.adaptive_weight(bad, one))
  assert np.isnan(adversarial.adaptive_weight(one, bad))


def test_adaptive_weight_is_a_constant_to_the_gradient():
  slope = jax.grad(lambda x: adversarial.adaptive_weight(x, jnp.ones(3)))(
      jnp.ones(3))
  assert (slope == 0).all()


def test_unknown_game_is_refused_with_the_nearest():
  with pytest.raises(errors.InputError, match='choice: hinge'):
    adversarial.loss('hing')
