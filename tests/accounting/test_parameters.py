"""Analytic parameters are those that the modules make, array by array."""

import itertools
import pathlib

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

from vitok import config as config_lib
from vitok import models, sizes
from vitok.accounting import parameters
from vitok.models import layers, positions, stack
from vitok.models.bottlenecks import BOTTLENECKS

ROOT = pathlib.Path(__file__).parents[2]


def real(config, frames, resolution):
  """{path: (shape, axis names)} of the module's parameters."""
  model = models.build(config, frames=frames, resolution=resolution)
  image = jnp.zeros((1, frames, resolution, resolution, 3))
  tree = jax.eval_shape(
      lambda: model.init(jax.random.key(0), image))['params']
  boxed = lambda leaf: isinstance(leaf, nn.Partitioned)
  leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=boxed)
  assert {leaf.value.dtype for _, leaf in leaves} == {jnp.dtype('float32')}
  return {jax.tree_util.keystr(path, simple=True, separator='/'):
          (leaf.value.shape, leaf.names) for path, leaf in leaves}


@pytest.mark.parametrize('mlp, norm, position, bottleneck', [
    (mlp, norm, *both) for both, (mlp, norm) in zip(
        itertools.product(positions.NAMES, BOTTLENECKS),
        itertools.cycle(itertools.product(layers.MLPS, layers.NORMS)),
        strict=False)])
def test_every_pair_of_choices_is_the_module_tree(
    mlp, norm, position, bottleneck):
  config = config_lib.default().model
  config.update(name='F-P/2x4x8', mlp=mlp, norm=norm, positions=position,
                bottleneck=bottleneck)
  frames = 2 if position == 'rope2d' else 4  # One time step, or two.
  if bottleneck == 'fsq':
    config.quantizer.levels = 8 * (3,)
  made = {p.path: (p.shape, p.axes) for p in parameters.parameters(
      models.spec(config, frames, 16))}
  assert made == real(config, frames, 16)


@pytest.mark.parametrize('update', ['ema', 'gradient'])
def test_a_codebook_is_a_parameter_where_gradients_train_it(update):
  config = config_lib.default().model
  config.update(name='F-P/1x8x8', bottleneck='vq')
  config.quantizer.update(update=update, size=20, product=2, residual=3)
  made = {p.path: (p.shape, p.axes) for p in parameters.parameters(
      models.spec(config, 1, 16))}
  assert made == real(config, 1, 16)
  assert ('bottleneck/codebook' in made) == (update == 'gradient')


@pytest.mark.parametrize('block', stack.BLOCKS)
@pytest.mark.parametrize('change', [
    dict(layer_scale=1e-4), dict(qk_norm=True), dict(bias=False),
    dict(bias=False, mlp='gelu'), dict(final_norm=False),
    dict(layer_scale=1e-4, qk_norm=True, bias=False, final_norm=False)])
def test_every_form_of_block_is_the_module_tree(block, change):
  config = config_lib.default().model
  config.update(name='F-P/8', block=block, **change)
  made = {p.path: (p.shape, p.axes)
          for p in parameters.parameters(models.spec(config, 1, 16))}
  assert made == real(config, 1, 16)


@pytest.mark.parametrize('position', ['rope2d', 'sincos', 'learned'])
@pytest.mark.parametrize('change', [
    dict(latents=5), dict(keep=(2, 4)), dict(name='F-P/8+6', keep=(2, 6))])
def test_every_variant_of_the_code_is_the_module_tree(change, position):
  config = config_lib.default().model
  config.update(dict(name='F-P/8', positions=position) | change)
  made = parameters.parameters(models.spec(config, 1, 16))
  assert {p.path: (p.shape, p.axes) for p in made} == real(config, 1, 16)
  counts = parameters.count(made)
  assert counts['total'] == sum(p.size for p in made)


@pytest.mark.parametrize('name', ['S-B/16', 'S-L/16', 'L-L/8', 'S-B/1x16x64'])
def test_the_papers_sizes_are_the_module_tree(name):
  config = config_lib.default().model
  config.name = name
  spec = parameters.Spec(sizes.parse(name), 1, 256)
  made = {p.path: (p.shape, p.axes) for p in parameters.parameters(spec)}
  assert made == real(config, 1, 256)


QLIP = dict(positions='rope2d_learned', key_bias=False, sub_norm=True, cls=True,
            projection='mlp', head='tanh')


@pytest.mark.parametrize('change', [
    *[{key: value} for key, value in QLIP.items()], QLIP,
    QLIP | dict(norm='rmsnorm', mlp='gelu', qk_norm=True, layer_scale=1.0),
    QLIP | dict(bias=False, key_bias=True, final_norm=False),
    QLIP | dict(block='parallel', latents=5, keep=(2, 5)),
    dict(cls=True, positions='sincos', latents=5)])
def test_every_part_of_qlip_alone_and_together_is_the_module_tree(change):
  config = config_lib.default().model
  config.update(dict(name='Ff50-Pf90/8') | change)
  made = {p.path: (p.shape, p.axes)
          for p in parameters.parameters(models.spec(config, 1, 16))}
  assert made == real(config, 1, 16)


@pytest.mark.parametrize('size, encoder, bottleneck, decoder', [
    ('B/16', 85_915_392, 1_224_988, 88_471_808),
    ('B/8', 86_062_848, 1_224_988, 87_881_408),
    ('L/14', 303_858_624, 2_157_596, 307_657_518)])
def test_qlip_has_the_released_numbers_of_parameters(
    size, encoder, bottleneck, decoder):
  config = config_lib.load(f'{ROOT}/configs/qlip.py:{size}')
  model, side = config.model, config.data.resolution
  made = parameters.parameters(models.spec(model, 1, side))
  expected = dict(encoder=encoder, bottleneck=bottleneck, decoder=decoder)
  assert parameters.count(made) == expected | {
      'total': sum(expected.values())}
  assert {p.path: (p.shape, p.axes) for p in made} == real(model, 1, side)


@pytest.mark.parametrize('name, millions', [('S', 43.3), ('B', 85.8),
                                            ('L', 383.7)])
def test_towers_are_the_papers_within_half_a_percent(name, millions):
  spec = parameters.Spec(sizes.parse(f'{name}-{name}/16'), 1, 256)
  counts = parameters.count(parameters.parameters(spec))
  assert counts['encoder'] == pytest.approx(millions * 1e6, rel=0.005)


@pytest.mark.parametrize('name, millions', [('S-B/16', 129.0),
                                            ('S-L/16', 426.8)])
def test_auto_encoders_are_the_papers_within_half_a_percent(name, millions):
  spec = parameters.Spec(sizes.parse(name), 1, 256)
  counts = parameters.count(parameters.parameters(spec))
  assert counts['total'] == pytest.approx(millions * 1e6, rel=0.005)
  assert counts['total'] == sum(counts[part] for part in parameters.PARTS)
