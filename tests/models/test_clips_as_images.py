"""A clip whose tokens attend to some steps is so many clips, or images."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from tests.accounting import programs
from vitok import config, errors, models, sizes
from vitok.accounting import flops, memory

# To compile fast, not to run fast.
_jit = functools.partial(
    jax.jit, compiler_options={'xla_backend_optimization_level': 0})


def build(frames, name='Aw32h2-Aw32d2h2/1x4x4', **options):
  conf = config.default().model
  conf.update({'name': name, **options})
  return models.build(conf, frames=frames, resolution=8)


@pytest.mark.parametrize('window, name, positions', [
    (1, 'Aw32h2-Aw32d2h2/1x4x4', 'rope2d'),
    (2, 'Aw96h3-Ad2/2x4x4', 'rope3d')])
def test_each_part_is_coded_as_the_clip_that_it_is(window, name, positions):
  size = sizes.parse(name)
  frames = window * size.tubelet
  clip = jnp.array(np.random.default_rng(0).uniform(
      -1, 1, (2, 2 * frames, 8, 8, 3)), jnp.float32)
  apart = build(2 * frames, name, window=window, positions=positions)
  alone = build(frames, name, positions=positions)
  shapes = nn.unbox(jax.eval_shape(alone.init, jax.random.key(0),
                                   clip[:, :frames]))
  rng = np.random.default_rng(1)
  params = jax.tree.map(lambda p: rng.normal(0, .15, p.shape).astype(p.dtype),
                        shapes)
  taps = {'encoder': (0,), 'decoder': (1,)}

  def run(model, x):
    return _jit(lambda x: model.apply(params, x, taps=taps))(x)

  whole, out = run(apart, clip)
  tokens = 4 * window
  assert out['code'].z.shape == (2, 2 * tokens, 4)
  for part in range(2):
    one, mine = run(alone, clip[:, part * frames:(part + 1) * frames])
    # float32 products in another order.
    np.testing.assert_allclose(
        whole[:, part * frames:(part + 1) * frames], one, atol=2e-5)
    for side, block in (('encoder', 0), ('decoder', 1)):
      np.testing.assert_allclose(
          out['taps'][side][block][:, part * tokens:(part + 1) * tokens],
          mine['taps'][side][block], atol=2e-5)


@pytest.mark.parametrize('train', [False, True])
def test_what_is_counted_is_what_xla_counts(train):
  program, spec = programs.lowered(
      'A-A/2x4', 32, frames=8, window=1, train=train)
  counted = program.cost_analysis()['flops']
  assert ((flops.train_step if train else flops.forward)(spec)['total']
          + flops.elementwise(spec, train)
          == pytest.approx(counted, rel=0.01))


def test_a_time_step_alone_needs_less_work_and_memory():
  made = {}
  for window in (0, 1, 2):
    conf = config.default().model
    conf.update(name='A-A/1x4', window=window, positions='rope1d')
    made[window] = models.spec(conf, 4, 32)
  assert [made[w].attended('encoder') for w in (0, 1, 2)] == [256, 64, 128]
  assert made[0].tokens == made[1].tokens
  difference = 2 * 256 * (256 - 64) * 96 * 2  # Products of two blocks.
  assert (flops.macs(made[0])['total']
          - flops.macs(made[1])['total']) == difference
  assert memory.activations(made[1]) < memory.activations(made[0])


@pytest.mark.parametrize('options, message', [
    (dict(window=3), 'divide the 4 time steps'),
    (dict(window=1, latents=4), 'latent tokens'),
    (dict(window=1, positions='learned'), 'rope3d')])
def test_what_would_join_or_tell_apart_the_steps_is_refused(options, message):
  with pytest.raises(errors.InputError, match=message):
    build(4, **options)
  assert build(4, window=1, positions='rope2d')
  with pytest.raises(errors.InputError, match='time steps'):
    build(4, positions='rope2d')
