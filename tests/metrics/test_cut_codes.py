"""Codes that are cut: measured at every length, example by example."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from vitok import config, models
from vitok.metrics import image as image_metrics
from vitok.metrics import reconstruction


def test_every_length_is_measured_as_its_decoded_prefix():
  conf = config.default().model
  conf.update(name='Aw32h2-Aw32h2/1x4x4', keep=(2, 8, 16))
  model = models.build(conf, frames=1, resolution=16)
  rng = np.random.default_rng(0)
  image = jnp.array(rng.uniform(-1, 1, (3, 1, 16, 16, 3)), jnp.float32)
  shapes = nn.unbox(jax.eval_shape(model.init, jax.random.key(0), image))
  variables = jax.tree.map(
      lambda p: rng.normal(0, 0.15, p.shape).astype(p.dtype), shapes)
  values = jax.jit(lambda image: reconstruction.measure(
      model, variables, {'image': image}))(image)
  code = model.apply(variables, image, method='encode')
  for length in (2, 8, 16):
    decoded = jax.jit(lambda z: model.apply(variables, z, method='decode'))(
        code.z[:, :length])
    expected = image_metrics.psnr(*map(
        image_metrics.to_uint8, (image, decoded)))
    # A level may round the other way.
    np.testing.assert_allclose(values[f'psnr@{length}'], expected, atol=1e-3)
    assert f'ssim@{length}' in values and f'mse@{length}' not in values
  np.testing.assert_allclose(values['psnr@16'], values['psnr'], atol=1e-3)
  assert np.abs(values['psnr@2'] - values['psnr']).max() > 1e-3
