"""What the feature networks share."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vitok.models.features import layers


@pytest.mark.parametrize('shape, dtype, options, reason', [
    ((2, 8, 8), 'f4', {}, r'takes \(N, H, W, 3\)'),
    ((2, 3, 8, 8), 'f4', {}, r'takes \(N, H, W, 3\)'),
    ((2, 8, 8, 3), 'u1', {}, r'takes floats in \[-1, 1\], got uint8'),
    ((2, 8, 8, 3), 'i4', {}, r'takes floats in \[-1, 1\], got int32'),
    ((2, 8, 8, 3), 'f4', {'dtype': jnp.uint8}, 'takes uint8 levels'),
    ((2, 8, 7, 3), 'f4', {'smallest': 8}, 'needs 8 x 8 pixels, got 8 x 7'),
    ((2, 8, 8, 3), 'u1', {'rank': 5}, r'takes \(N, T, H, W, 3\)'),
])
def test_what_is_no_input_is_refused(shape, dtype, options, reason):
  with pytest.raises(ValueError, match=f'Net {reason}'):
    layers.check_images(np.zeros(shape, dtype), 'Net', **options)


def test_images_of_both_kinds_are_accepted():
  layers.check_images(np.zeros((1, 8, 8, 3), 'f4'), 'Net', smallest=8)
  layers.check_images(jnp.zeros((1, 8, 8, 3), jnp.bfloat16), 'Net')
  layers.check_images(np.zeros((1, 2, 8, 8, 3), 'u1'), 'Net', rank=5,
                      dtype=jnp.uint8)


@pytest.mark.parametrize('dtype, precision', [
    (jnp.float32, jax.lax.Precision.HIGHEST), (jnp.bfloat16, None)])
def test_float32_products_are_rounded_on_no_device(dtype, precision):
  assert layers.conv(4, (3, 3), dtype=dtype).precision == precision


def test_batch_norm_uses_stored_moments():
  x, mean, var, bias, scale = np.random.default_rng(0).uniform(
      1, 2, (5, 6, 4)).astype('f4')
  params = {'mean': mean[0], 'var': var[0], 'bias': bias[0], 'scale': scale[0]}
  found = layers.BatchNorm(0.5).apply({'params': params}, x)
  expected = (x - mean[0]) / np.sqrt(var[0] + 0.5) * scale[0] + bias[0]
  # A difference of numbers between 2 and 4 has their rounding: 2^-22.
  np.testing.assert_allclose(found, expected, rtol=1e-6, atol=2**-22)


def test_norms_with_scales_are_not_converted_to_norms_without():
  state = {f'bn.{leaf}': np.ones(3) for leaf in (
      'weight', 'bias', 'running_mean', 'running_var')}
  assert set(layers.norm_from_torch(state, 'bn')) == {'bias', 'mean', 'var'}
  state['bn.weight'] = np.array([1, 1, 2.0])
  with pytest.raises(ValueError, match='bn has scales'):
    layers.norm_from_torch(state, 'bn')


def test_parameters_of_another_network_are_refused():
  network, x = layers.ConvNorm(4, (1, 1)), np.zeros((1, 2, 2, 3), 'f4')
  params = network.init(jax.random.key(0), x)['params']
  layers.check_params(network, params, x)
  del params['norm']['var']
  with pytest.raises(ValueError, match=r'norm/var has shape None.*\(4,\)'):
    layers.check_params(network, params, x)
