"""LPIPS against its formula in numpy, and its check values."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage.data
from PIL import Image, ImageFilter

from tests import real_weights
from vitok import errors
from vitok.losses import lpips


@functools.cache
def random_params():
  """Of AlexNet, which is the cheaper."""
  measure = lpips.LPIPS('alexnet')
  net = jax.jit(measure.network.init)(
      jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32))
  rng = np.random.default_rng(0)
  heads = {str(k): rng.uniform(size=width).astype(np.float32)
           for k, width in enumerate((64, 192, 384, 256, 256))}
  return {'net': net['params'], 'heads': heads}


def clips(shape=(3, 2, 32, 32, 3)):
  rng = np.random.default_rng(0)
  return rng.uniform(-1, 1, (2, *shape)).astype(np.float32)


@functools.cache
def jitted(dtype=jnp.float32):
  return jax.jit(lpips.LPIPS('alexnet', dtype))


def test_distance_is_the_published_formula():
  rng = np.random.default_rng(0)
  x, y = ([rng.normal(size=(2, s, s, c)) for s, c in ((6, 3), (3, 5))]
          for _ in range(2))
  heads = [rng.uniform(size=c) for c in (3, 5)]
  expected = np.zeros(2)
  for a, b, head in zip(x, y, heads, strict=True):
    a, b = (z / (np.sqrt((z**2).sum(-1, keepdims=True)) + 1e-10)
            for z in (a, b))
    expected += ((a - b)**2 @ head).mean((1, 2))
  np.testing.assert_allclose(lpips.distance(x, y, heads), expected, rtol=1e-6)


def test_a_clip_has_the_mean_of_its_frames_whatever_it_is_batched_with():
  x, y = clips()
  together = jitted()(random_params(), x, y)
  assert together.shape == (3,) and together.dtype == jnp.float32
  frames = np.array([[jitted()(random_params(), x[b:b + 1, t:t + 1],
                               y[b:b + 1, t:t + 1])[0] for t in range(2)]
                     for b in range(3)])
  np.testing.assert_allclose(together, frames.mean(1), rtol=1e-5)
  assert np.ptp(together) > 0


@pytest.mark.parametrize('case', ['equal', 'no features', 'one without'])
def test_gradient_is_finite(case):
  """The published code gives NaN where a feature vector is zero."""
  rng = np.random.default_rng(0)
  x = rng.uniform(size=(1, 2, 2, 3)).astype(np.float32)
  y = x if case == 'equal' else np.zeros_like(x)
  x = y if case == 'no features' else x
  gradient = jax.jit(jax.grad(
      lambda y, x: lpips.distance([x], [y], [np.ones(3)])[0]))(y, x)
  assert np.isfinite(gradient).all()
  if case != 'one without':
    # XLA may round the two sides' unit features differently, by 2^-24.
    np.testing.assert_allclose(gradient, 0, atol=2**-23)


@functools.cache
def both():
  """Jitted (made, original, params) -> distance, and its gradient."""
  return jax.jit(jax.value_and_grad(
      lambda y, x, params: lpips.LPIPS('alexnet')(params, x, y)[0]))


def test_gradient_of_images_is_finite_where_the_network_is_silent():
  params = dict(random_params())
  params['net'] = jax.tree.map(np.zeros_like, params['net'])
  x, y = clips((1, 1, 32, 32, 3))
  np.testing.assert_array_equal(both()(y, x, params)[1], 0)


def test_equal_images_have_distance_and_gradient_zero():
  x, y = clips((1, 1, 32, 32, 3))
  value, gradient = both()(x, x, random_params())
  other_value, other_gradient = both()(y, x, random_params())
  # The two passes are not compiled alike: rounding is left.
  assert value < 1e-8 * other_value
  assert np.abs(gradient).max() < 1e-3 * np.abs(other_gradient).max()


def test_bfloat16_changes_a_distance_by_its_rounding_only():
  x, y = clips()
  exact = jitted()(random_params(), x, y)
  rounded = jitted(jnp.bfloat16)(random_params(), x, y)
  assert rounded.dtype == jnp.float32
  np.testing.assert_allclose(rounded, exact, rtol=2e-2)
  assert not np.array_equal(rounded, exact)


def test_other_inputs_are_refused():
  measure, x = lpips.LPIPS('alexnet'), jnp.zeros((1, 1, 32, 32, 3))
  for y in (x[0], jnp.zeros((2, 1, 32, 32, 3))):
    with pytest.raises(ValueError, match='LPIPS takes'):
      measure(random_params(), x, y)
  levels = x.astype(jnp.uint8)
  with pytest.raises(ValueError, match=r'floats in \[-1, 1\]'):
    measure(random_params(), levels, levels)
  with pytest.raises(errors.InputError, match='choice: alexnet'):
    lpips.LPIPS('alex')


@pytest.mark.parametrize('network, expected', [
    ('vgg16', (0.362, 0.609)), ('alexnet', (0.485, 0.809))])
def test_real_weights_give_the_check_values(network, expected):
  """Of a photograph against itself, blurred by 2 and by 6 pixels."""
  measure = lpips.LPIPS(network)
  params = real_weights.load(measure.weights)
  photograph = Image.fromarray(skimage.data.chelsea()).crop(
      (100, 20, 356, 276))
  blurred = [photograph.filter(ImageFilter.GaussianBlur(radius))
             for radius in (2, 6)]
  x, y = (np.stack(images)[:, None].astype(np.float32) / 127.5 - 1
          for images in ([photograph] * 2, blurred))
  found = jax.jit(measure)(params, x, y)
  np.testing.assert_allclose(found, expected, rtol=0, atol=5e-4)
