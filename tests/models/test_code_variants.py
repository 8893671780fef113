"""Latent tokens and codes that are cut: appendix A.3 of ViTok."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from vitok import config, errors, models
from vitok.models import autoencoder, positions
from vitok.training import mesh as mesh_lib

# To compile fast, not to run fast.
_jit = functools.partial(
    jax.jit, compiler_options={'xla_backend_optimization_level': 0})


KEYS = jax.random.split(jax.random.key(7), 3)


def make(frames=1, resolution=16, **options):
  """Model, image of batch 3 and random parameters, none of them zero."""
  conf = config.default().model
  conf.update({'name': 'Aw32h2-Aw32h2/1x4x4', **options})
  model = models.build(conf, frames=frames, resolution=resolution)
  rng = np.random.default_rng(0)
  image = jnp.array(rng.uniform(
      -1, 1, (3, frames, resolution, resolution, 3)), jnp.float32)
  shapes = nn.unbox(jax.eval_shape(model.init, KEYS[0], image))['params']
  return model, image, {'params': jax.tree.map(
      lambda p: rng.normal(0, 0.15, p.shape).astype(p.dtype), shapes)}



@pytest.mark.parametrize('position, frames, name', [
    ('rope2d', 1, 'Aw32h2-Aw48h2/1x4x4+6'),
    ('rope3d', 4, 'Aw96h3-A/2x4x4+5'), ('learned', 1, 'A-A/1x4x4+40')])
def test_latent_tokens_are_the_code_and_patches_come_back(
    position, frames, name):
  conf = config.default().model
  conf.update(name=name, positions=position)
  model = models.build(conf, frames=frames, resolution=16)
  image = jnp.zeros((3, frames, 16, 16, 3))
  (y, out), _ = jax.eval_shape(lambda: model.init_with_output(
      jax.random.key(0), image, KEYS, True, {'encoder': (0,)}))
  latents, patches = model.size.latents, math.prod(model.grid)
  assert y.shape == image.shape
  assert out['code'].z.shape == (3, latents, 4)
  assert out['encoder'].shape[1] == latents
  assert out['decoder'].shape[1] == patches
  assert out['taps']['encoder'][0].shape[1] == patches + latents


def test_latent_tokens_start_from_the_sines_and_cosines_of_their_index():
  model, image, _ = make(latents=6)
  latents = _jit(lambda key: nn.unbox(model.init(key, image))['params'][
      'encoder']['latents'])(jax.random.key(0))
  expected = np.array([
      [f(i * 10000.0**(-2 * k / 32)) for f in (np.sin, np.cos)
       for k in range(16)] for i in range(6)])
  np.testing.assert_allclose(latents, expected, atol=1e-6)


def numpy_block(p, x, heads, angles):
  """A sequential block with SwiGLU, one token and one head at a time."""
  def norm(p, x):
    x = x - x.mean(-1, keepdims=True)
    return (x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * p['scale']
            + p['bias'])

  def linear(p, x):
    return x @ p['kernel'] + p['bias']

  def turn(vector, angle):
    pairs = (vector[::2] + 1j * vector[1::2]) * np.exp(1j * angle)
    return np.stack([pairs.real, pairs.imag], -1).reshape(-1)

  length, width = x.shape
  qkv = linear(p['attention']['qkv'], norm(p['norm1'], x)).reshape(
      length, heads, 3, width // heads)
  mixed = np.zeros((length, heads, width // heads))
  for h in range(heads):
    q, k = (np.stack([turn(qkv[i, h, j], angles[i]) for i in range(length)])
            for j in (0, 1))
    for i in range(length):
      weights = np.exp(k @ q[i] / np.sqrt(width / heads))
      mixed[i, h] = weights / weights.sum() @ qkv[:, h, 2]
  x = x + linear(p['attention']['out'], mixed.reshape(length, width))
  n = norm(p['norm2'], x)
  gate = linear(p['mlp']['gate'], n)
  x = x + linear(p['mlp']['down'], gate / (1 + np.exp(-gate))
                 * linear(p['mlp']['value'], n))
  return x, norm


def test_a_latent_auto_encoder_is_what_a_loop_over_tokens_computes():
  """Float64 and from the definition, cut to three latents on the way.

  Tolerance: float32 rounding of a few hundred additions of order one.
  """
  model, image, variables = make(latents=5, keep=(3, 5), norm='layernorm',
                                 bottleneck='deterministic')
  p = jax.tree.map(lambda x: np.asarray(x, np.float64), variables['params'])
  where = [(r, c) for r in range(4) for c in range(4)]
  angles = [np.concatenate([
      [r * 10000.0**(-i / 4) for i in range(4)],
      [c * 10000.0**(-i / 4) for i in range(4)]]) for r, c in where]
  angles += [np.array([i * 16 / 5 * 10000.0**(-k / 8) for k in range(8)])
             for i in range(5)]
  block = lambda side: jax.tree.map(lambda x: x[0], p[side]['blocks'])

  patches = np.stack([np.asarray(image[0, 0, 4 * r:4 * r + 4, 4 * c:4 * c + 4],
                                 np.float64).reshape(-1) for r, c in where])
  embed, up, unembed = (p['encoder']['embed'], p['bottleneck_up'],
                        p['decoder']['unembed'])
  x = np.concatenate([patches @ embed['kernel'] + embed['bias'],
                      p['encoder']['latents']])
  x, norm = numpy_block(block('encoder'), x, 2, angles)
  down = p['bottleneck']['down']
  z = norm(p['encoder']['norm'], x[16:]) @ down['kernel'] + down['bias']
  read = np.concatenate([z[:3], np.tile(p['bottleneck_mask'], (2, 1))])
  x = np.concatenate([np.tile(p['decoder']['mask'], (16, 1)),
                      read @ up['kernel'] + up['bias']])
  x, norm = numpy_block(block('decoder'), x, 2, angles)
  y = (norm(p['decoder']['norm'], x[:16]) @ unembed['kernel']
       + unembed['bias'])

  encode, decode = (_jit(functools.partial(model.apply, method=name))
                    for name in ('encode', 'decode'))
  code = encode(variables, image).z
  np.testing.assert_allclose(code[0], z, atol=1e-5)
  decoded = decode(variables, code, None, 3)
  np.testing.assert_allclose(
      autoencoder.patchify(decoded, 1, 4)[0], y, atol=1e-5)


@pytest.mark.parametrize('latents', [0, 8])
def test_a_cut_code_is_decoded_without_its_tail(latents):
  tokens = latents or 16
  model, image, variables = make(latents=latents, keep=(3, tokens))
  decode = _jit(functools.partial(model.apply, method='decode'),
                static_argnums=2)
  z = _jit(functools.partial(model.apply, method='encode'))(
      variables, image).z
  cut = decode(variables, z, None, 3)
  np.testing.assert_array_equal(
      cut, decode(variables, z.at[:, 3:].add(9), None, 3))
  # Rounding is below 1e-6.
  other = decode(variables, z.at[:, 2].add(9), None, 3)
  assert np.abs(cut - other).max() > 1e-3
  # A stored code of three tokens is the same, whatever length is asked for.
  np.testing.assert_allclose(decode(variables, z[:, :3], None, None), cut,
                             atol=1e-6)
  np.testing.assert_allclose(decode(variables, z[:, :3], None, 16), cut,
                             atol=1e-6)
  # Each example has its own length.
  lengths = jnp.array([3, tokens, 3])
  mixed = decode(variables, z, None, lengths)
  np.testing.assert_allclose(mixed[0], cut[0], atol=1e-6)
  np.testing.assert_allclose(mixed[1], decode(variables, z, None, None)[1],
                             atol=1e-6)


def test_training_cuts_each_example_to_a_length_of_its_key():
  model, image, variables = make(keep=(1, 4, 16), bottleneck='deterministic')
  forward = _jit(lambda image, keys: model.apply(
      variables, image, keys, True))
  y, out = forward(image, KEYS)
  decode = _jit(lambda length: model.apply(
      variables, out['code'].z, None, length, method='decode'))
  found = []
  for i in range(3):
    near = [float(jnp.abs(decode(k)[i] - y[i]).max()) for k in (1, 4, 16)]
    assert min(near) < 1e-5 and sorted(near)[1] > 1e-4
    found.append((1, 4, 16)[int(np.argmin(near))])
  # The lengths follow the keys, not the rows; evaluation cuts nothing.
  turned = forward(image[::-1], KEYS[::-1])[0]
  np.testing.assert_allclose(turned[::-1], y, atol=1e-5)
  np.testing.assert_allclose(
      _jit(model.apply)(variables, image, KEYS)[0], decode(16), atol=1e-5)
  lengths = jax.vmap(lambda key: model.apply(
      variables, key, method='_length'))(
          jax.random.split(jax.random.key(0), 3000))
  counts = [int((lengths == k).sum()) for k in (1, 4, 16)]
  assert sum(counts) == 3000
  assert max(abs(n - 1000) for n in counts) < 130  # 5 sd of a binomial.


def test_the_length_does_not_change_the_noise_of_the_code():
  whole, image, variables = make()
  cut, _, _ = make(keep=(4, 16))
  same = dict(variables['params'], bottleneck_mask=jnp.zeros(4))
  z = [_jit(lambda params, m=model: m.apply(
      {'params': params}, image, KEYS, True)[1]['code'].z)(params)
       for model, params in ((whole, variables['params']), (cut, same))]
  np.testing.assert_array_equal(*z)


def test_gradients_reach_latents_and_masks_alike_on_one_device_and_two():
  model, image, variables = make(latents=6, keep=(2, 6))
  image, keys = np.concatenate([image, image[:1]]), jax.random.split(
      jax.random.key(7), 4)
  gradient = _jit(jax.value_and_grad(lambda v, x, keys: jnp.square(
      model.apply(v, x, keys, True)[0] - x).mean()))
  one = gradient(variables, image, keys)
  mesh = mesh_lib.make_mesh({'replica': 2, 'fsdp': 1, 'tensor': 1},
                            jax.devices()[:2])
  rows = mesh_lib.batch_sharding(mesh)
  with jax.set_mesh(mesh):
    two = gradient(variables, *(jax.device_put(x, rows) for x in (image, keys)))
  # Float32: sums in another order.
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5),
               one, two)
  grads = one[1]['params']
  latents = np.asarray(grads['encoder']['latents'])
  for leaf in (latents, grads['decoder']['mask'], grads['bottleneck_mask']):
    assert np.abs(leaf).max() > 1e-6
  # All of them: no token is left out.
  assert (np.abs(latents).max(-1) > 1e-9).all()


def test_latents_serve_images_of_other_sizes_with_the_same_code():
  model, _, variables = make(latents=6)
  wide = jnp.ones((1, 1, 8, 24, 3))
  y, out = _jit(model.apply)(variables, wide)
  assert y.shape == wide.shape and out['code'].z.shape == (1, 6, 4)
  decode = _jit(functools.partial(model.apply, method='decode'),
                static_argnums=2)
  np.testing.assert_allclose(
      decode(variables, out['code'].z, (1, 2, 6)), y, atol=1e-5)


@pytest.mark.parametrize('name', ['rope1d', 'rope2d', 'rope3d', 'sincos'])
def test_patches_keep_their_positions_and_latents_lie_along_them(name):
  grid = (2, 2, 2) if name == 'rope3d' else (1, 2, 4)
  if name == 'sincos':
    plain = lambda grid, axes=0: positions.sincos(grid, 96, axes)
    both = np.asarray(positions.add(None, name, grid, jnp.zeros((1, 13, 96)),
                                    5))[0]
    alone = plain((1, 1, 5), 1)
  else:
    plain = lambda grid: np.moveaxis(positions.rotation(name, grid, 32), 1, 0)
    both = np.moveaxis(positions.rotation(name, grid, 32, 4), 1, 0)
    # Four latents lie at every second of eight patches.
    alone = np.moveaxis(positions.rotation('rope1d', (1, 1, 8), 32), 1, 0)[::2]
  np.testing.assert_array_equal(both[:8], plain(grid))
  np.testing.assert_array_equal(both[8:], alone)


@pytest.mark.parametrize('options, message', [
    (dict(latents=-1), 'model.latents=-1.*choice: 0'),
    (dict(latents=4, positions='none'), 'positions.*mask tokens'),
    (dict(keep=(4, 32)), r'longer than the code of 16.*\(4, 16\)'),
    (dict(keep=(8, 4, 16)), r'does not rise.*\(4, 8, 16\)'),
    (dict(keep=(4, 4, 16)), r'does not rise.*\(4, 16\)'),
    (dict(keep=(0, 16)), r'below 1.*\(16,\)'),
    (dict(keep=(4, 8)), r'untrained.*\(4, 8, 16\)'),
    (dict(latents=8, keep=(4, 16)), r'longer than the code of 8.*\(4, 8\)'),
])
def test_impossible_variants_are_refused(options, message):
  with pytest.raises(errors.InputError, match=message):
    make(**options)


def test_a_code_that_was_not_trained_to_be_cut_is_not():
  model, _, variables = make()
  z = jnp.zeros((3, 16, 4))
  with pytest.raises(ValueError, match='as a whole'):
    model.apply(variables, z, None, 3, method='decode')
