"""A clip whose tokens attend to their own time step is so many images."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from tests.accounting import programs
from vitok import config, errors, models
from vitok.accounting import flops, memory

# To compile fast, not to run fast.
_jit = functools.partial(
    jax.jit, compiler_options={'xla_backend_optimization_level': 0})


def build(frames, name='Aw32h2-Aw32d2h2/1x4x4', **options):
  conf = config.default().model
  conf.update({'name': name, **options})
  return models.build(conf, frames=frames, resolution=8)


def test_each_frame_is_coded_as_the_image_that_it_is():
  clip = jnp.array(np.random.default_rng(0).uniform(-1, 1, (2, 3, 8, 8, 3)),
                   jnp.float32)
  apart, image = build(3, attends='step'), build(1)
  shapes = nn.unbox(jax.eval_shape(image.init, jax.random.key(0), clip[:, :1]))
  rng = np.random.default_rng(1)
  params = jax.tree.map(lambda p: rng.normal(0, .15, p.shape).astype(p.dtype),
                        shapes)
  taps = {'encoder': (0,), 'decoder': (1,)}

  def run(model, x):
    return _jit(lambda x: model.apply(params, x, taps=taps))(x)

  whole, out = run(apart, clip)
  assert out['code'].z.shape == (2, 12, 4)
  for t in range(3):
    one, alone = run(image, clip[:, t:t + 1])
    # float32 products in another order.
    np.testing.assert_allclose(whole[:, t:t + 1], one, atol=2e-5)
    for side, block in (('encoder', 0), ('decoder', 1)):
      np.testing.assert_allclose(
          out['taps'][side][block][:, 4 * t:4 * t + 4],
          alone['taps'][side][block], atol=2e-5)


@pytest.mark.parametrize('train', [False, True])
def test_what_is_counted_is_what_xla_counts(train):
  executable, spec = programs.compiled(
      'A-A/2x4', 32, frames=8, attends='step', train=train)
  counted = executable.cost_analysis()['flops']
  assert ((flops.train_step if train else flops.forward)(spec)['total']
          + flops.elementwise(spec, train)
          == pytest.approx(counted, rel=0.01))


def test_a_time_step_alone_needs_less_work_and_memory():
  made = {}
  for attends in ('clip', 'step'):
    conf = config.default().model
    conf.update(name='A-A/1x4', attends=attends, positions='rope1d')
    made[attends] = programs.spec_of(conf, 4, 32)
  assert made['clip'].attended == 4 * made['step'].attended == 256
  assert made['clip'].tokens == made['step'].tokens
  difference = 2 * 256 * (256 - 64) * 96 * 2  # Products of two blocks.
  assert (flops.macs(made['clip'])['total']
          - flops.macs(made['step'])['total']) == difference
  assert memory.activations(made['step']) < memory.activations(made['clip'])


@pytest.mark.parametrize('options, message', [
    (dict(attends='frame'), "'step'"),
    (dict(attends='step', latents=4), 'latent tokens'),
    (dict(attends='step', positions='learned'), 'rope2d')])
def test_what_would_join_or_tell_apart_the_steps_is_refused(options, message):
  with pytest.raises(errors.InputError, match=message):
    build(4, **options)
  assert build(4, attends='step', positions='rope2d')
  with pytest.raises(errors.InputError, match='time steps'):
    build(4, positions='rope2d')
