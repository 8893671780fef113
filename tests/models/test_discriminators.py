"""Discriminators: shapes, cost, and what may not depend on what."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from vitok import errors
from vitok.models import counting, discriminators

NARROW = 1 / 64
CLIP = (2, 4, 16, 16, 3)


def _abstract(name, shape, width=1.0):
  model = discriminators.build(name, resolution=min(shape[2:4]), width=width)
  return jax.eval_shape(
      lambda image: model.init_with_output(jax.random.key(0), image),
      jax.ShapeDtypeStruct(shape, jnp.float32))


@functools.cache
def _made(name):
  """(model, initial parameters, clips, its compiled self, their logits)."""
  model = discriminators.build(name, resolution=16, width=NARROW)
  image = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, CLIP),
                      jnp.float32)
  params = nn.unbox(jax.jit(model.init)(jax.random.key(1), image))
  apply = jax.jit(model.apply)
  return model, params, image, apply, np.asarray(apply(params, image))


@pytest.mark.parametrize('name, shape, logits', [
    ('residual', (2, 1, 256, 256, 3), 1),
    ('residual', (2, 5, 24, 40, 3), 5),  # One a frame; sides are not powers.
    ('residual3d', (2, 16, 128, 128, 3), 1),
    ('residual3d', (2, 1, 32, 32, 3), 1),  # An image is a clip of one frame.
    ('patch', (2, 1, 256, 256, 3), 30 * 30),  # As published.
    ('patch', (2, 3, 32, 32, 3), 3 * 2 * 2),
    ('patch', (2, 1, 4, 4, 3), 2 * 2),
    ('patch3d', (2, 16, 128, 128, 3), 4 * 14 * 14),
    ('patch3d', (2, 1, 16, 16, 3), 1 * 2 * 2),
])
def test_numbers_of_logits(name, shape, logits):
  out, _ = _abstract(name, shape)
  assert out.shape == (2, logits) and out.dtype == jnp.float32


def test_residual_features_are_the_published_ones():
  _, variables = _abstract('residual', (1, 1, 512, 512, 3))
  params = nn.unbox(variables['params'])
  found = [params['stem']['kernel'].shape[-1]] + [
      params[f'block{i}_conv1']['kernel'].shape[-1] for i in range(7)]
  assert found == [32, 64, 128, 256, 512, 512, 512, 512]  # 512 ... 4 pixels.
  assert params['hidden']['kernel'].shape == (4 * 4 * 512, 512)


def test_patch_logits_see_70_pixels():
  """The published receptive field, from the kernels and strides."""
  _, variables = _abstract('patch', (1, 1, 256, 256, 3))
  params = nn.unbox(variables['params'])
  assert [params[name]['kernel'].shape for name in (
      'conv0', 'conv1', 'conv2', 'conv3', 'logits')] == [
          (4, 4, 3, 64), (4, 4, 64, 128), (4, 4, 128, 256), (4, 4, 256, 512),
          (4, 4, 512, 1)]
  field = 1
  for stride in (1, 1, 2, 2, 2):
    field = (field - 1) * stride + 4
  assert field == 70
  model, image = discriminators.Patch(NARROW), jnp.ones((1, 1, 96, 96, 3))
  variables = nn.unbox(jax.jit(model.init)(jax.random.key(0), image))
  # Group norm sees all; without it a logit sees its patch.
  sees = jax.jit(jax.grad(
      lambda x: _without_norms(model, variables, x)[0, 5 * 10 + 5]))(image)
  rows = np.flatnonzero(np.abs(sees).sum((0, 1, 3, 4)))
  assert rows[-1] - rows[0] + 1 == field


def _without_norms(model, variables, image):
  def skip(call, args, kwargs, context):
    if isinstance(context.module, discriminators.GroupNorm):
      return args[0]
    return call(*args, **kwargs)
  with nn.intercept_methods(skip):
    return model.apply(variables, image)


@pytest.mark.parametrize('name', discriminators.DISCRIMINATORS)
def test_every_axis_of_a_parameter_has_a_name_of_its_own(name):
  _, variables = _abstract(name, CLIP)
  boxes = jax.tree.leaves(
      variables, is_leaf=lambda x: isinstance(x, nn.LogicallyPartitioned))
  for box in boxes:
    assert isinstance(box, nn.LogicallyPartitioned)
    assert len(box.names) == box.value.ndim == len(set(box.names))


@pytest.mark.parametrize('name', discriminators.DISCRIMINATORS)
def test_examples_do_not_see_each_other_and_frames_only_in_clips(name):
  model, params, image, apply, logits = _made(name)
  changed = np.asarray(apply(params, image.at[1, 3].set(0.5)))
  np.testing.assert_array_equal(changed[0], logits[0])
  if model.clips:
    assert (changed[1] != logits[1]).any()
  else:
    differs = (changed[1] != logits[1]).reshape(4, -1)
    assert differs[3].all() and not differs[:3].any()
  # Neither blown up nor died out on the way through the layers.
  assert 1e-4 < logits.std() and np.abs(logits).max() < 10


@pytest.mark.parametrize('name', discriminators.DISCRIMINATORS)
def test_bfloat16_has_float32_logits_near_those_of_float32(name):
  model, params, image, _, exact = _made(name)
  narrow = model.clone(dtype=jnp.bfloat16)
  logits = jax.jit(narrow.apply)(params, image)
  assert logits.dtype == jnp.float32
  np.testing.assert_allclose(logits, exact, atol=0.1)


def test_cost_is_counted_by_hand():
  model = discriminators.build('residual', resolution=32, width=1 / 16)
  f, conv = 32, 9 * 32 * 32
  by_hand = 9 * 3 * f * 32**2 + conv * 4**2 + 4 * 4 * f * f + f + sum(
      conv * side**2 + (conv + f * f) * (side // 2)**2 for side in (32, 16, 8))
  one, three = (counting.count(model, (t, 32, 32, 3)) for t in (1, 3))
  assert one['macs'] == by_hand and three['macs'] == 3 * by_hand
  assert one['outputs'] == f * sum(
      side**2 for side in (32, 32, 16, 16, 16, 8, 8, 8, 4, 4, 4)) + f + 1


def test_halving_keeps_a_level_and_removes_the_finest_stripes():
  flat, stripes = jnp.ones(16), jnp.array([1.0, -1.0] * 8)
  x = jnp.stack([flat, stripes])[:, :, None]
  y = discriminators.blur(x, (True,))[..., 0]
  assert y.shape == (2, 8)
  np.testing.assert_allclose(y[:, 1:-1], [[1] * 6, [0] * 6], atol=1e-7)
  np.testing.assert_array_equal(discriminators.blur(x, (False,)), x)


@pytest.mark.parametrize('options, message', [
    (dict(name='patchgan'), "discriminator='patchgan'.*choice: patch"),
    (dict(name='residual', width=0.0), 'width=0.0.*choice: 0.015625'),
    (dict(name='residual', width=100.0), 'width=100.0.*choice: 16'),
    (dict(name='patch', resolution=2), 'resolution=2.*choice: 4'),
    (dict(name='patch', dtype='int8'), "dtype='int8'"),
])
def test_impossible_discriminators_are_refused(options, message):
  with pytest.raises(errors.InputError, match=message):
    discriminators.build(**dict(dict(resolution=32), **options))
