"""Distances of features: by hand, on tiles, with real weights."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from tests import real_weights
from vitok import errors, sizes
from vitok.interop import weights
from vitok.losses import features
from vitok.models.features import dinov2


@pytest.fixture(scope='module')
def tiny():
  """A small DINOv2 in place of a published one; (distance maker, params)."""
  network = dinov2.DINOv2(sizes.Tower(48, 2, 2), side=3)

  @jax.jit
  def init():
    params = network.init(jax.random.key(0), jnp.zeros((1, 28, 28, 3)))
    return jax.tree.map(lambda p: p + 0.1 * jax.random.normal(
        jax.random.key(p.size), p.shape), nn.unbox(params)['params'])
  params = init()
  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(features.NETWORKS, 'dinov2_small', lambda dtype: network)
    yield functools.partial(features.Features, 'dinov2_small'), params


def clips(shape=(2, 2, 28, 42, 3)):
  x = np.random.default_rng(0).uniform(-1, 1, (2, *shape))
  return x.astype(np.float32)


def test_the_distance_is_that_of_unit_tokens_averaged(tiny):
  make, params = tiny
  distance, (x, y) = make(), clips()
  found = jax.jit(distance)(params, x, y)
  assert found.shape == (2,) and found.dtype == jnp.float32
  apply = jax.jit(distance.network.apply)
  for b in range(2):
    tokens = [np.asarray(apply({'params': params}, z[b])[
        'tokens'], np.float64) for z in (x, y)]
    u, v = (t / np.linalg.norm(t, axis=-1, keepdims=True) for t in tokens)
    assert u.shape == (2, 2, 3, 48)
    np.testing.assert_allclose(found[b], ((u - v)**2).mean(), rtol=1e-4)


def test_tiles_are_compared_apart(tiny):
  make, params = tiny
  x, y = clips()
  whole = jax.jit(make())
  by_hand = np.mean([
      whole(params, *(z[:, :, i:i + 14, j:j + 14] for z in (x, y)))
      for i in (0, 14) for j in (0, 14, 28)], 0)
  found = jax.jit(make(14))(params, x, y)
  np.testing.assert_allclose(found, by_hand, rtol=1e-4)
  # Positions and neighbours matter: it is not the distance of the whole.
  assert np.abs(by_hand / whole(params, x, y) - 1).min() > 0.01


def test_equal_images_are_at_0_with_a_finite_gradient(tiny):
  make, params = tiny
  distance, (x, y) = make(), clips((1, 1, 20, 20, 3))  # Enlarged to 28.
  both = jax.jit(jax.value_and_grad(
      lambda z, x: distance(params, x, z).sum()))
  value, grad = both(x, x)
  # A square of what XLA may round differently on the two sides, by 2^-24.
  assert 0 <= value < 2**-44 and np.isfinite(grad).all()
  assert np.abs(both(y, x)[1]).max() > 0


@pytest.mark.parametrize('mlp, registers', [('gelu', 0), ('swiglu', 2)])
def test_the_count_of_a_network_is_xlas(mlp, registers):
  network = dinov2.DINOv2(sizes.Tower(192, 1, 3), mlp, registers, side=6)
  x = jax.ShapeDtypeStruct((1, 84, 84, 3), jnp.float32)
  params = nn.unbox(jax.eval_shape(network.init, jax.random.key(0), x))
  compiled = jax.jit(lambda *args: network.apply(*args)['tokens']).lower(
      params, x).compile({'xla_backend_optimization_level': 0})
  one = network.count((84, 84, 3))
  # Element-wise work beside the products is 3% at this width, 4% with erf.
  assert 2 * one['macs'] == pytest.approx(
      compiled.cost_analysis()['flops'], rel=0.05)
  assert one['parameters'] == sum(p.size for p in jax.tree.leaves(params))


def test_costs_of_tiles_add_up():
  distance = features.Features('dinov2_small', 28)
  one = distance.network.count((28, 28, 3))
  whole = distance.count((56, 84, 3))
  assert whole == {'parameters': one['parameters'], 'macs': 6 * one['macs'],
                   'outputs': 6 * one['outputs']}


def test_absent_weights_say_how_they_are_made():
  with pytest.raises(errors.InputError,
                     match=r'convert_weights.py dinov2_base --file='):
    weights.describe('dinov2_base')


def test_with_real_weights_more_blur_is_further_away():
  params = real_weights.load('resnet50')
  image = np.random.default_rng(0).uniform(-1, 1, (1, 1, 8, 8, 3))
  image = jax.image.resize(jnp.asarray(image, jnp.float32), (1, 1, 32, 32, 3),
                           'cubic')
  distance = jax.jit(features.Features('resnet50'))
  noise = jax.random.normal(jax.random.key(0), image.shape)
  near, far = (distance(params, image, image + s * noise)[0]
               for s in (0.05, 0.5))
  assert 0 < near < far
