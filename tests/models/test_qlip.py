"""What QLIP adds to the auto-encoder: CLS, sub-LN, projections, a head."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from tests.models.test_autoencoder import make
from vitok import config as config_lib
from vitok import errors, models, tasks, validation
from vitok.models import layers
from vitok.models.bottlenecks import BOTTLENECKS
from vitok.training import mesh

ROOT = pathlib.Path(__file__).parents[2]
QLIP = dict(positions='rope2d_learned', key_bias=False, sub_norm=True, cls=True,
            bottleneck='deterministic', projection='mlp', head='tanh')
# To compile fast, not to run fast.
_jit = functools.partial(
    jax.jit, compiler_options={'xla_backend_optimization_level': 0})
TAPS = {'encoder': (1,), 'decoder': (1,)}


@functools.cache
def forward():
  """A model, its parameters, an image and its outputs with taps."""
  model, image, draw = make(**QLIP)
  variables = draw()
  return model, variables, image, _jit(
      lambda v: model.apply(v, image, taps=TAPS))(variables)


def test_the_last_norm_of_the_encoder_is_of_cls_alone():
  _, variables, _, (_, out) = forward()
  last = out['taps']['encoder'][1]
  assert last.shape == (3, 1 + 16, 32) and out['cls'].shape == (3, 32)
  np.testing.assert_array_equal(out['encoder'], last[:, 1:])
  norm = layers.LayerNorm().apply(
      {'params': variables['params']['encoder']['norm']}, last[:, 0])
  np.testing.assert_allclose(out['cls'], norm, atol=1e-5)
  assert out['code'].z.shape[1] == out['taps']['decoder'][1].shape[1] == 16


def test_cls_sees_all_patches_and_nothing_behind_the_encoder():
  model, variables, image, (_, out) = forward()
  params = variables['params']
  changed = {part: params[part] if part == 'encoder' else jax.tree.map(
      lambda p: p + 1, params[part]) for part in params}
  cls = _jit(lambda params, image: model.apply(
      {'params': params}, image)[1]['cls'])
  np.testing.assert_array_equal(cls(changed, image), cls(params, image))
  for row, column in ((0, 0), (7, 9), (15, 15)):
    other = image.copy()
    other[:, 0, row, column] += 1
    assert np.abs(cls(params, other) - out['cls']).max() > 1e-3


def test_pixels_are_a_linear_map_of_what_the_head_makes():
  _, variables, image, (y, out) = forward()
  decoder = variables['params']['decoder']
  hidden = out['decoder']
  assert hidden.shape == (3, 16, decoder['unembed_hidden']['bias'].size)
  assert np.abs(hidden).max() <= 1
  patches = hidden @ decoder['unembed']['kernel'] + decoder['unembed']['bias']
  np.testing.assert_allclose(
      models.autoencoder.unpatchify(patches, (1, 4, 4), 1, 4), y, atol=1e-4)
  assert y.shape == image.shape


def test_unrolled_and_rematerialised_layers_equal_the_scan():
  _, variables, image, _ = forward()

  def grads(**options):
    model, *_ = make(**QLIP, **options)

    def loss(variables):
      y, out = model.apply(variables, image)
      return jnp.square(y - image).mean() + jnp.square(out['cls']).mean()
    return _jit(jax.grad(loss))(variables)
  looped = grads()
  assert all(np.abs(g).max() > 0 for g in jax.tree.leaves(looped))
  for options in ({'scan': False}, {'remat': 'full'}):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(
        a, b, atol=2e-5 * np.abs(a).max()), looped, grads(**options))


@pytest.mark.parametrize('bottleneck', BOTTLENECKS)
def test_an_mlp_projects_to_and_from_any_code(bottleneck):
  levels = {'quantizer': {'levels': 4 * (3,)}} if bottleneck == 'fsq' else {}
  model, image, draw = make(name='Fw32h2-Fw32h2/1x4x4', bottleneck=bottleneck,
                            projection='mlp', **levels)
  variables = draw()
  y, out = _jit(model.apply)(variables, image)
  params = variables['params']
  h = layers.gelu(_affine(params['bottleneck']['down_hidden'], out['encoder']))
  plain, *_ = make(name='Fw32h2-Fw32h2/1x4x4', bottleneck=bottleneck, **levels)
  kind = BOTTLENECKS[bottleneck](4, options=plain.quantizer)
  code = kind.apply({
      name: {k: v for k, v in tree['bottleneck'].items() if k != 'down_hidden'}
      for name, tree in variables.items()}, h)
  np.testing.assert_allclose(out['code'].z, code.z, atol=1e-4)
  assert y.shape == image.shape


def _affine(linear, x):
  return x @ linear['kernel'] + linear['bias']


def test_learned_positions_beside_rope_start_at_zero_in_the_decoder_alone():
  model, image, _ = make(**QLIP)
  params = _jit(lambda key: {
      part: tree['positions'] for part, tree in nn.unbox(
          model.init(key, image))['params'].items() if 'positions' in tree})(
              jax.random.key(0))
  assert params['encoder'].shape == (17, 32)
  assert np.std(params['encoder']) == pytest.approx(0.02, rel=0.1)
  np.testing.assert_array_equal(params['decoder'], np.zeros((16, 32)))


@pytest.mark.parametrize('options, message', [
    (dict(cls=True, window=1), 'CLS'),
    (dict(positions='rope2d_learned', window=1), 'parts of a clip'),
    (dict(bias=False, key_bias=False), 'key_bias=False.*not read.*True'),
    (dict(projection='mpl'), "projection='mpl'.*nearest.*mlp"),
    (dict(head='tan'), "head='tan'.*nearest.*tanh"),
    (dict(positions='rope2d_learnt'), 'rope2d_learned'),
])
def test_what_cannot_be_built_is_refused_in_one_line(options, message):
  with pytest.raises(errors.InputError, match=message):
    make(**options)


def test_the_config_trains_bits_and_leaves_cls_to_another_loss():
  config = config_lib.load(f'{ROOT}/configs/qlip.py:F/4')
  config.batch_size = 2
  validation.check(config)
  task = tasks.build(config)
  rng = np.random.default_rng(0)
  image = rng.uniform(-1, 1, (2, 1, 32, 32, 3)).astype(np.float32)
  batch = {'image': image, 'mask': np.ones(2, bool),
           'index': np.arange(2), 'row': np.arange(2)}
  params, stats = _jit(lambda key: mesh.unbox(task.init(key)))(
      jax.random.key(0))
  (loss, (terms, _)), grads = _jit(jax.value_and_grad(
      lambda params: task.loss(params, stats.get('autoencoder', {}), {}, batch,
                               jax.random.key(1)), has_aux=True))(
          params['autoencoder'])
  np.testing.assert_allclose(loss, terms['l2'] + 1e-3 * (
      terms['commitment'] + terms['entropy']), rtol=1e-5)
  # Bits of 28 channels, one by one.
  assert terms['codebook_entropy'] <= 28 * np.log(2) * (1 + 1e-6)
  assert not np.any(grads['encoder']['norm']['scale'])
  assert np.any(grads['encoder']['cls'])  # It is attended to.
  assert np.any(grads['bottleneck']['down_hidden']['kernel'])


def test_a_size_that_the_config_does_not_have_is_refused():
  with pytest.raises(errors.InputError, match="'B/32'.*B/16"):
    config_lib.load(f'{ROOT}/configs/qlip.py:B/32')
