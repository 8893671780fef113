"""The auto-encoder as a whole: shapes, precision, equal ways to compute it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.extend import core

from vitok import config, errors, models
from vitok.models import autoencoder

# To compile fast, not to run fast.
_jit = functools.partial(
    jax.jit, compiler_options={'xla_backend_optimization_level': 0})


def make(frames=1, resolution=16, **options):
  """Model, image of batch 3 and random parameters, none of them zero."""
  conf = config.default().model
  conf.update({'name': 'Fw32h2-Fw32h2/4', **options})
  model = models.build(conf, frames=frames, resolution=resolution)
  rng = np.random.default_rng(0)
  image = rng.uniform(-1, 1, (3, frames, resolution, resolution, 3)).astype(
      np.float32)

  def draw():
    shapes = nn.unbox(jax.eval_shape(model.init, jax.random.key(0), image))
    return jax.tree.map(
        lambda p: rng.normal(0, 0.15, p.shape).astype(p.dtype), shapes)
  return model, image, draw


def test_patches_are_tubelets_in_reading_order():
  """A patch embedding is a convolution whose stride is its kernel."""
  rng = np.random.default_rng(0)
  clip = jnp.array(rng.standard_normal((2, 4, 6, 9, 3)), jnp.float32)
  kernel = jnp.array(rng.standard_normal((2, 3, 3, 3, 5)), jnp.float32)
  tokens = jax.lax.conv_general_dilated(
      clip, kernel, (2, 3, 3), 'VALID',
      dimension_numbers=('NDHWC', 'DHWIO', 'NDHWC')).reshape(2, -1, 5)
  patches = autoencoder.patchify(clip, 2, 3)
  np.testing.assert_allclose(patches @ kernel.reshape(-1, 5), tokens,
                             atol=1e-4)
  np.testing.assert_array_equal(
      autoencoder.unpatchify(patches, (2, 2, 3), 2, 3), clip)


@pytest.mark.parametrize('name, frames, tokens, channels', [
    ('A-F/8', 1, 16, 16), ('A-F/1x8x4', 1, 16, 4), ('F-A/2x8', 4, 32, 16)])
def test_shapes_of_outputs(name, frames, tokens, channels):
  model, image, _ = make(
      name=name, frames=frames, resolution=32,
      positions='rope2d' if frames == 1 else 'rope3d')
  keys = jax.random.split(jax.random.key(0), 3)
  (y, out), _ = jax.eval_shape(
      lambda: model.init_with_output(jax.random.key(0), image, keys, True))
  assert y.shape == image.shape and y.dtype == jnp.float32
  assert out['code'].z.shape == (3, tokens, channels)
  assert out['encoder'].shape == out['decoder'].shape == (3, tokens, 96)
  assert out['code'].losses['kl_sum'].shape == (3,)


def test_every_parameter_names_its_axes():
  model, image, _ = make()
  boxed = jax.eval_shape(model.init, jax.random.key(0), image)['params']
  leaves = jax.tree_util.tree_leaves_with_path(
      boxed, is_leaf=lambda x: isinstance(x, nn.LogicallyPartitioned))
  names = {'/'.join(p.key for p in path): leaf.names for path, leaf in leaves}
  for path, axes in names.items():
    assert ('layers' in axes) == ('/blocks/' in path), path
    assert None not in axes, path
  block = 'decoder/blocks/'
  assert names[f'{block}attention/qkv/kernel'] == ('layers', 'embed', 'heads')
  assert names[f'{block}attention/out/kernel'] == ('layers', 'heads', 'embed')
  assert names[f'{block}mlp/gate/kernel'] == ('layers', 'embed', 'mlp')
  assert names[f'{block}mlp/down/kernel'] == ('layers', 'mlp', 'embed')
  assert names['encoder/embed/kernel'] == ('patch', 'embed')
  assert names['bottleneck/down/kernel'] == ('embed', 'code')
  assert names['bottleneck_up/kernel'] == ('code', 'embed')
  assert names['decoder/unembed/kernel'] == ('embed', 'patch')


@pytest.mark.parametrize('mlp', ['swiglu', 'gelu'])
def test_residual_and_pixel_kernels_start_below_xavier(mlp):
  model, image, _ = make(name='Ad6-F/4', mlp=mlp)

  @_jit
  def drawn(key):  # Compiles what is looked at alone.
    params = nn.unbox(model.init(key, image))['params']
    blocks = {side: params[side]['blocks'] for side in ('encoder', 'decoder')}
    return {side: (b['attention']['out'], b['mlp']['down'],
                   b['attention']['qkv']) for side, b in blocks.items()}, (
                       params['decoder']['unembed'])
  towers, unembed = drawn(jax.random.key(0, impl='rbg'))

  def share(kernel, fan_out):  # Largest start, in units of Xavier's limit.
    limit = np.sqrt(6 / (kernel.shape[-2] + fan_out))
    return np.abs(kernel).max() / limit

  for tower, expected in (('encoder', 12**-0.5), ('decoder', 4**-0.5)):
    *last, qkv = towers[tower]
    for kernel in last:
      assert share(kernel['kernel'], 96) == pytest.approx(expected, rel=0.01)
    assert share(qkv['kernel'], 96) == pytest.approx(1, rel=0.01)
  assert share(unembed['kernel'], 48) == pytest.approx(0.1, rel=0.01)


@functools.cache
def forward():
  """The default model, its parameters, an image and its outputs with taps."""
  model, image, draw = make()
  variables = draw()
  taps = {'encoder': (0, 1), 'decoder': (1,)}
  return model, variables, image, _jit(
      lambda v, x: model.apply(v, x, None, False, taps))(variables, image)


def test_encode_then_decode_is_the_forward_pass():
  model, variables, image, (y, out) = forward()
  encode, decode = (_jit(functools.partial(model.apply, method=name))
                    for name in ('encode', 'decode'))
  np.testing.assert_array_equal(encode(variables, image).z, out['code'].z)
  np.testing.assert_array_equal(decode(variables, out['code'].z), y)


def test_taps_are_the_tokens_after_the_blocks_asked_for():
  _, variables, _, (_, out) = forward()
  assert set(out['taps']['encoder']) == {0, 1}
  norm = jax.jit(models.layers.LayerNorm().apply)
  for side in ('encoder', 'decoder'):  # The last block's, normed, is final.
    last = norm({'params': variables['params'][side]['norm']},
                out['taps'][side][1])
    np.testing.assert_allclose(last, out[side], atol=1e-6)


def test_rope_serves_other_resolutions_with_the_same_parameters():
  model, variables, *_ = forward()
  wide = np.ones((1, 1, 8, 24, 3), np.float32)
  y, out = _jit(model.apply)(variables, wide)
  assert y.shape == wide.shape
  decode = _jit(lambda v, z: model.apply(v, z, (1, 2, 6), method='decode'))
  np.testing.assert_array_equal(decode(variables, out['code'].z), y)


def _loss(model, variables, image):
  keys = jax.random.split(jax.random.key(1), len(image))
  y, out = model.apply(variables, image, keys, True)
  return (jnp.square(y - image).mean()
          + 1e-3 * out['code'].losses['kl_mean'].mean())


def test_unrolled_and_rematerialised_layers_equal_the_scan():
  _, variables, image, _ = forward()
  results, texts = [], []
  for options in ({}, {'scan': False}, {'remat': 'full'}, {'remat': 'dots'}):
    model, *_ = make(**options)
    lowered = _jit(jax.value_and_grad(
        lambda v, model=model: jnp.square(
            model.apply(v, image)[0] - image).mean())).lower(variables)
    texts.append(lowered.as_text())
    results.append(lowered.compile()(variables))
  assert ['stablehlo.while' in text for text in texts] == [
      True, False, True, True]
  plain, _, *repeating = (text.count('dot_general') for text in texts)
  assert min(repeating) > plain  # Something is computed again.
  (value, grads), *others = results
  for other, other_grads in others:
    np.testing.assert_allclose(value, other, rtol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(
        a, b, atol=1e-5 * np.abs(a).max()), grads, other_grads)


def _equations(jaxpr):
  for equation in jaxpr.eqns:
    yield equation
    for inner in core.jaxprs_in_params(equation.params):
      yield from _equations(inner)


def test_bfloat16_multiplies_matrices_and_float32_does_the_rest():
  model, image, _ = make(dtype='bfloat16')
  variables = nn.unbox(jax.eval_shape(model.init, jax.random.key(0), image))
  jaxpr = jax.make_jaxpr(lambda v: model.apply(v, image))(variables)
  seen = set()
  for equation in _equations(jaxpr.jaxpr):
    name = equation.primitive.name
    seen.add(name)
    dtypes = {v.aval.dtype for v in equation.invars}
    if name == 'dot_general':
      assert dtypes == {jnp.bfloat16.dtype}, equation
    if name in ('exp', 'rsqrt', 'sqrt', 'div', 'reduce_max'):
      assert dtypes == {jnp.dtype('float32')}, equation
  assert {'dot_general', 'exp', 'rsqrt'} <= seen
  y, out = jax.eval_shape(model.apply, variables, image)
  assert y.dtype == out['code'].z.dtype == jnp.float32
  assert out['encoder'].dtype == jnp.bfloat16


def test_the_backward_pass_finds_twelve_activations_a_block_and_no_weights():
  """What a scan over layers stores: nothing twice, nothing in float32."""
  model, image, _ = make(dtype='bfloat16')
  variables = nn.unbox(jax.eval_shape(model.init, jax.random.key(0), image))
  jaxpr = jax.make_jaxpr(jax.grad(lambda v: _loss(model, v, image)))(variables)
  forward = [e for e in _equations(jaxpr.jaxpr) if e.primitive.name == 'scan'
             and e.params['length'] == 2 and not e.params['reverse']]
  assert len(forward) == 2
  for scan in forward:
    stored = [v.aval for v in scan.outvars[scan.params['num_carry']:]]
    assert {a.dtype for a in stored} == {jnp.bfloat16.dtype}
    # x, norm1, q, k, v, weights, heads, x, norm2, gate, value, their product.
    assert len(stored) == 12 and all(a.shape[1] == 3 for a in stored)


def test_without_positions_tokens_are_a_set():
  """Permuting patches permutes the code; with positions it does not."""
  order = np.random.default_rng(0).permutation(16)
  differences = {}
  for positions in ('none', 'rope2d'):
    model, image, draw = make(positions=positions)
    shuffled = np.asarray(autoencoder.unpatchify(
        autoencoder.patchify(image, 1, 4)[:, order], (1, 4, 4), 1, 4))
    encode = _jit(
        lambda x, m=model, v=jax.tree.map(lambda p: 2 * p, draw()): m.apply(
            v, x, method='encode').z)
    differences[positions] = np.abs(
        np.asarray(encode(image))[:, order] - encode(shuffled)).max()
  assert differences['none'] < 1e-5 and differences['rope2d'] > 1e-3


@pytest.mark.parametrize('options, message', [
    (dict(mlp='swigluu'), "model.mlp='swigluu'.*nearest.*swiglu"),
    (dict(positions='rope'), 'model.positions'),
    (dict(positions='rope2d', name='A-A/2x8'), 'time steps'),
    (dict(positions='rope3d', name='Aw48h3-A/8'), 'do not split'),
    (dict(attention='cudnn'), 'cannot compute in float32'),
    (dict(attention='cudnn', dtype='bfloat16', name='Aw36h3-A/8',
          positions='none'), 'head dimension'),
    (dict(name='A-A/7'), 'resolution=16'),
])
def test_what_cannot_be_built_is_refused_in_one_line(options, message):
  frames = 4 if '2x8' in options.get('name', '') else 1
  with pytest.raises(errors.InputError, match=message):
    make(frames=frames, **options)
