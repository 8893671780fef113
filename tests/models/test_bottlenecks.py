"""Bottlenecks: sampling, divergence, registration."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from vitok import config, models
from vitok.models import bottlenecks
from vitok.models.bottlenecks import base, gaussian


def gaussian_of(mean, log_variance):
  """A Gaussian bottleneck whose projection passes its input through."""
  module = gaussian.Gaussian(mean.shape[-1])
  h = jnp.concatenate([mean, log_variance], -1)
  width = h.shape[-1]
  params = {'down': {'kernel': jnp.eye(width), 'bias': jnp.zeros(width)}}
  return lambda *args, **kw: module.apply(
      {'params': params}, h, *args, **kw)


def moments(batch=3):
  rng = np.random.default_rng(0)
  return (jnp.array(rng.standard_normal((batch, 5, 4)), jnp.float32),
          jnp.array(rng.uniform(-3, 1, (batch, 5, 4)), jnp.float32))


def test_layernorm_codes_have_mean_0_and_variance_1_over_their_channels():
  h = jnp.array(np.random.default_rng(0).normal(3, 5, (2, 4, 8)), jnp.float32)
  module = bottlenecks.BOTTLENECKS['layernorm'](8)
  params = {'down': {'kernel': jnp.eye(8), 'bias': jnp.zeros(8)}}
  code = module.apply({'params': params}, h)
  x = np.asarray(h, np.float64)
  expected = (x - x.mean(-1, keepdims=True)) / np.sqrt(
      x.var(-1, keepdims=True) + 1e-6)
  np.testing.assert_allclose(code.z, expected, atol=1e-5)
  assert not code.losses and code.ids is None


def test_evaluation_returns_the_mean_whatever_the_keys():
  mean, log_variance = moments()
  encode = gaussian_of(mean, log_variance)
  keys = jax.random.split(jax.random.key(0), 3)
  np.testing.assert_array_equal(encode(keys, False).z, mean)
  np.testing.assert_array_equal(encode(None, True).z, mean)


def test_noise_depends_on_the_example_key_and_not_on_the_batch():
  mean, log_variance = moments()
  keys = jax.random.split(jax.random.key(0), 3)
  whole = gaussian_of(mean, log_variance)(keys, True).z
  for i in range(3):
    alone = gaussian_of(mean[i:i + 1], log_variance[i:i + 1])(
        keys[i:i + 1], True).z
    np.testing.assert_array_equal(alone[0], whole[i])
  flipped = gaussian_of(mean[::-1], log_variance[::-1])(keys[::-1], True).z
  np.testing.assert_array_equal(flipped[::-1], whole)
  noise = (whole - mean) / jnp.exp(0.5 * log_variance)
  assert len(np.unique(np.round(noise, 5))) == noise.size  # No two alike.


def test_samples_have_the_stated_mean_and_deviation():
  n = 20_000
  mean, log_variance = jnp.full((n, 1, 2), 0.3), jnp.full((n, 1, 2), -1.0)
  z = gaussian_of(mean, log_variance)(
      jax.random.split(jax.random.key(0), n), True).z
  deviation = np.exp(-0.5)
  np.testing.assert_allclose(z.mean(0), 0.3, atol=5 * deviation / n**0.5)
  np.testing.assert_allclose(z.std(0), deviation, rtol=5 / (2 * n)**0.5)


def test_divergence_is_per_example_in_nats_and_per_float():
  mean, log_variance = moments()
  code = gaussian_of(mean, log_variance)()
  m, s = np.float64(mean), np.exp(0.5 * np.float64(log_variance))
  # KL(N(m, s) || N(0, 1)) = -log s + (s^2 + m^2) / 2 - 1/2, term by term.
  kl = (-np.log(s) + (s**2 + m**2) / 2 - 0.5).sum((1, 2))
  np.testing.assert_allclose(code.losses['kl_sum'], kl, rtol=1e-5)
  np.testing.assert_allclose(code.losses['kl_mean'], kl / 20, rtol=1e-5)


def test_log_variance_is_clamped_where_the_network_runs_away():
  mean = jnp.zeros((1, 1, 2))
  code = gaussian_of(mean, jnp.array([[[-1e4, 1e4]]]))(
      jax.random.split(jax.random.key(0), 1), True)
  assert np.isfinite(code.z).all() and abs(code.z[0, 0, 0]) < 1e-5
  kl = 0.5 * (np.exp(-30.0) - 1 + 30 + np.exp(20.0) - 1 - 20)
  np.testing.assert_allclose(code.losses['kl_sum'], kl, rtol=1e-6)


def test_a_new_bottleneck_is_a_class_and_one_line(monkeypatch):
  class Rounded(base.Bottleneck):
    """Integers, with straight-through gradients; keeps a running count."""

    @nn.compact
    def __call__(self, h_BxLxD, keys=None, train=False):
      z = self.down(h_BxLxD)
      ids = jnp.round(z).astype(jnp.int32)
      seen = self.variable('stats', 'seen', jnp.zeros, ())
      if train:
        seen.value += ids.size
      return base.Code(z + jax.lax.stop_gradient(ids - z), ids,
                       losses={'commit': jnp.square(z - ids).mean((1, 2))})

    def from_codes(self, codes):
      return codes.astype(jnp.float32)

  monkeypatch.setitem(bottlenecks.BOTTLENECKS, 'rounded', Rounded)
  conf = config.default().model
  conf.update(dict(name='Aw32h2-Aw32h2/8', bottleneck='rounded'))
  model = models.build(conf, frames=1, resolution=16)
  image = jnp.ones((2, 1, 16, 16, 3))
  variables = nn.unbox(model.init(jax.random.key(0), image))
  assert variables['params']['bottleneck']['down']['bias'].shape == (16,)
  (y, out), changed = model.apply(variables, image, train=True,
                                  mutable=['stats'])
  assert changed['stats']['bottleneck']['seen'] == 2 * 4 * 16
  z = model.apply(variables, out['code'].ids,
                  method=lambda m, ids: m.bottleneck.from_codes(ids))
  np.testing.assert_allclose(model.apply(variables, z, method='decode'), y,
                             atol=1e-5)
