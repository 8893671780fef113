"""The layer stack: per-layer inputs, taps, per-layer outputs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from vitok import sizes
from vitok.models import stack


class Affine(nn.Module):
  """Multiplies by a parameter, adds its layer's input and a shared one."""

  @nn.compact
  def __call__(self, x, own=None, shared=0.0):
    scale = self.param('scale', nn.with_logical_partitioning(
        nn.initializers.normal(1.0), (None,)), (1,))
    x = x * scale + shared + (0.0 if own is None else own['add'])
    return x, {'mean': x.mean()}


class Tower(nn.Module):
  scan: bool = True
  remat: str = 'none'

  @nn.compact
  def __call__(self, x, shared, per_layer=None, taps=()):
    return stack.stack(Affine(name='blocks'), 3, x, shared, taps=taps,
                       per_layer=per_layer, scan=self.scan, remat=self.remat)


def by_hand(scales, x, adds):
  states = []
  for scale, add in zip(scales, adds, strict=True):
    x = x * scale + 0.5 + add
    states.append(x)
  return states


@pytest.mark.parametrize('scan', [True, False])
@pytest.mark.parametrize('remat', stack.REMAT)
def test_each_block_gets_its_own_input_and_yields_its_own_output(scan, remat):
  tower, x = Tower(scan, remat), jnp.arange(6.0).reshape(1, 2, 3)
  params = nn.unbox(tower.init(jax.random.key(0), x, 0.5))
  scales = params['params']['blocks']['scale']
  assert scales.shape == (3, 1) and len(set(scales.ravel().tolist())) == 3
  adds = jnp.array([1.0, 20.0, 300.0])
  y, tapped, ys = tower.apply(params, x, 0.5, {'add': adds}, (0, 2))
  states = by_hand(scales, x, adds)
  np.testing.assert_allclose(y, states[-1], rtol=1e-6)
  assert set(tapped) == {0, 2}
  for k, h in tapped.items():
    np.testing.assert_allclose(h, states[k], rtol=1e-6)
  np.testing.assert_allclose(ys['mean'], [s.mean() for s in states],
                             rtol=1e-6)


def test_gradients_flow_through_taps_to_the_blocks_before_them():
  tower, x = Tower(), jnp.ones((1, 2, 3))
  params = nn.unbox(tower.init(jax.random.key(0), x, 0.5))
  grads = jax.grad(lambda p: tower.apply(p, x, 0.5, None, (1,))[1][1].sum())(
      params)['params']['blocks']['scale']
  assert grads[0] != 0 and grads[1] != 0 and grads[2] == 0


def test_stacked_parameters_lead_with_the_layers_axis():
  boxed = jax.eval_shape(Tower().init, jax.random.key(0), jnp.ones((1, 2)), 0.)
  assert boxed['params']['blocks']['scale'].names == ('layers', None)


def test_a_tap_beyond_the_last_block_is_refused():
  tower = Tower()
  with pytest.raises(ValueError, match='taps'):
    tower.init(jax.random.key(0), jnp.ones((1, 2)), 0.0, None, (3,))


class Blocks(nn.Module):
  """Two blocks of ViTok-v2's kind or, but for their form, of ViTok's."""
  form: str
  scan: bool = True
  remat: str = 'none'
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x, valid=None):
    block = stack.Block(sizes.Tower(32, 2, 2), norm='rmsnorm', form=self.form,
                        layer_scale=0.5, qk_norm=True, bias=False,
                        dtype=self.dtype, name='blocks')
    return stack.stack(block, 2, x, None, valid, scan=self.scan,
                       remat=self.remat)[0]


@pytest.mark.parametrize('form', stack.BLOCKS)
def test_forms_of_blocks_are_the_same_looped_unrolled_and_recomputed(form):
  x = jax.random.normal(jax.random.key(0), (2, 5, 32))
  valid = jnp.arange(5) < jnp.array([[5], [3]])
  params = nn.unbox(Blocks(form).init(jax.random.key(1), x))

  def grads(**options):
    return jax.jit(jax.grad(lambda p: jnp.square(
        Blocks(form, **options).apply(p, x, valid)).mean()))(params)
  looped = grads()
  for other in (grads(scan=False), grads(remat='full')):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(
        a, b, atol=1e-5 * np.abs(a).max()), looped, other)


def test_blocks_compute_in_bfloat16_near_what_float32_gives():
  x = jax.random.normal(jax.random.key(0), (2, 5, 32))
  params = nn.unbox(Blocks('parallel').init(jax.random.key(1), x))
  exact = Blocks('parallel').apply(params, x)
  rough = Blocks('parallel', dtype=jnp.bfloat16).apply(
      params, x.astype(jnp.bfloat16))
  assert rough.dtype == jnp.bfloat16
  # Eight bits of mantissa, a few roundings in a row.
  np.testing.assert_allclose(rough.astype(jnp.float32), exact, atol=0.05)
