"""The DiT: what it starts as, what it depends on, equal ways to compute it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.extend import core
from jax.sharding import AbstractMesh
from jax.sharding import PartitionSpec as P

from vitok import config, sizes
from vitok.models import dit
from vitok.training import mesh as mesh_lib

TOWER = sizes.Tower(32, 2, 2)
CLASSES = 5

# To compile fast, not to run fast.
_jit = functools.partial(
    jax.jit, compiler_options={'xla_backend_optimization_level': 0})


def make(**options):
  """A DiT and a batch of three for it: codes, times, labels."""
  options = dict(tower=TOWER, grid=(1, 3, 4), channels=6) | options
  rng = np.random.default_rng(0)
  shape = (3, np.prod(options['grid']), options['channels'])
  z = jnp.array(rng.standard_normal(shape), jnp.float32)
  return dit.DiT(classes=CLASSES, **options), (
      z, jnp.array([0.0, 0.3, 1.0]), jnp.array([0, 2, CLASSES]))


def random_params(model, args, seed=0):
  """Nothing zero: neither gates nor output."""
  rng = np.random.default_rng(seed)
  shapes = nn.unbox(jax.eval_shape(model.init, jax.random.key(0), *args))
  return jax.tree.map(lambda p: jnp.array(
      rng.standard_normal(p.shape) / 5, p.dtype), shapes)


def test_a_new_dit_outputs_zero_and_its_blocks_do_nothing():
  model, args = make()
  key = jax.random.key(0, impl='rbg')  # Compiles faster.
  params = nn.unbox(_jit(model.init)(key, *args))['params']
  apply = _jit(lambda params: model.apply({'params': params}, *args))
  out = apply(params)
  assert out.shape == args[0].shape and out.dtype == jnp.float32
  assert not np.asarray(out).any()
  # With an output that is not zero, whatever is in the blocks does not matter.
  params['unembed']['kernel'] += 1
  out = apply(params)
  for part in ('attention', 'mlp'):
    params['blocks'][part] = jax.tree.map(
        lambda p: p + 1, params['blocks'][part])
  assert np.asarray(out).any()
  np.testing.assert_array_equal(apply(params), out)


def test_every_parameter_names_its_axes_once():
  model, args = make(positions='learned')
  boxed = jax.eval_shape(model.init, jax.random.key(0), *args)['params']
  leaves = jax.tree_util.tree_leaves_with_path(
      boxed, is_leaf=lambda x: isinstance(x, nn.LogicallyPartitioned))
  names = {'/'.join(p.key for p in path): leaf.names for path, leaf in leaves}
  for path, axes in names.items():
    assert ('layers' in axes) == path.startswith('blocks/'), path
    assert None not in axes and len(set(axes)) == len(axes), path
  assert names['blocks/modulation/kernel'] == ('layers', 'embed', 'modulation')
  assert names['embed/kernel'] == ('code', 'embed')
  assert names['unembed/kernel'] == ('embed', 'code')
  assert names['classes'] == ('classes', 'embed')


def test_times_are_embedded_as_cosines_and_sines_of_ddpm_steps():
  features = dit.time_features(jnp.array([0.0, 0.001, 0.25]))
  assert features.shape == (3, 256)
  for step, row in zip((0, 1, 250), np.float64(features), strict=True):
    for i in (0, 1, 64, 127):
      angle = step * 10_000**(-i / 128)
      assert row[i] == pytest.approx(np.cos(angle), abs=1e-4)
      assert row[128 + i] == pytest.approx(np.sin(angle), abs=1e-4)


def test_a_prediction_depends_on_its_own_code_time_and_class_alone():
  model, (z, time, label) = make()
  params = random_params(model, (z, time, label))
  apply = _jit(model.apply)
  out = apply(params, z, time, label)
  for row in range(3):  # Not on the batch.
    alone = apply(params, *(a[row:row + 1] for a in (z, time, label)))
    np.testing.assert_allclose(alone[0], out[row], atol=1e-5)
  for other in ((z + 1, time, label), (z, time + 0.1, label),
                (z, time, (label + 1) % (CLASSES + 1))):
    assert (np.abs(apply(params, *other) - out).max((1, 2)) > 1e-2).all()


def _loss(model, params, args):
  return jnp.square(model.apply(params, *args) - jnp.cos(args[0])).mean()


def test_unrolled_and_rematerialised_layers_equal_the_scan():
  results, texts = [], []
  for options in ({}, {'scan': False}, {'remat': 'full'}):
    model, args = make(**options)
    params = random_params(model, args)
    lowered = _jit(jax.value_and_grad(
        lambda p, model=model, args=args: _loss(model, p, args))).lower(params)
    texts.append(lowered.as_text())
    results.append(lowered.compile()(params))
  assert ['stablehlo.while' in text for text in texts] == [True, False, True]
  plain, _, repeating = (text.count('dot_general') for text in texts)
  assert repeating > plain  # Something is computed again.
  (value, grads), *others = results
  for other, other_grads in others:
    np.testing.assert_allclose(value, other, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(
        a, b, atol=1e-5 * np.abs(a).max()), grads, other_grads)


@pytest.mark.parametrize('name', ['none', 'rope2d', 'learned'])
def test_tokens_are_a_set_without_positions_alone(name):
  model, (z, time, label) = make(positions=name, tower=sizes.Tower(64, 1, 2))
  params = random_params(model, (z, time, label))
  order = np.random.default_rng(1).permutation(z.shape[1])
  apply = _jit(model.apply)
  out = apply(params, z, time, label)[:, order]
  difference = np.abs(apply(params, z[:, order], time, label) - out).max()
  assert difference < 1e-5 if name == 'none' else difference > 1e-3


def test_codes_of_one_dimension_and_of_clips_have_their_grids():
  for grid, name in (((1, 1, 8), 'rope1d'), ((2, 2, 2), 'rope3d')):
    model, args = make(grid=grid, positions=name,
                       tower=sizes.Tower(64, 1, 2), mlp='gelu')
    shape, _ = jax.eval_shape(
        lambda model=model, args=args: model.init_with_output(
            jax.random.key(0), *args))
    assert shape.shape == args[0].shape


def _equations(jaxpr):
  for equation in jaxpr.eqns:
    yield equation
    for inner in core.jaxprs_in_params(equation.params):
      yield from _equations(inner)


def test_bfloat16_multiplies_matrices_and_float32_does_the_rest():
  model, args = make(dtype=jnp.bfloat16)
  params = random_params(model, args)
  jaxpr = jax.make_jaxpr(lambda p: model.apply(p, *args))(params)
  products = []
  for equation in _equations(jaxpr.jaxpr):
    dtypes = {v.aval.dtype for v in equation.invars}
    if equation.primitive.name == 'dot_general':
      products.append(dtypes)
    if equation.primitive.name in ('exp', 'rsqrt', 'div', 'cos', 'sin'):
      assert dtypes == {jnp.dtype('float32')}, equation
  # All but the two of the time, one row an example.
  assert products.count({jnp.dtype('float32')}) == 2
  assert products.count({jnp.bfloat16.dtype}) == len(products) - 2 > 8
  out = jax.eval_shape(model.apply, params, *args)
  assert out.dtype == jnp.float32


def test_the_backward_pass_finds_fourteen_activations_a_block_and_no_weights():
  """What a scan over layers stores: nothing twice, no tokens in float32."""
  model, args = make(dtype=jnp.bfloat16)
  params = random_params(model, args)
  jaxpr = jax.make_jaxpr(jax.grad(lambda p: _loss(model, p, args)))(params)
  scan, = (e for e in _equations(jaxpr.jaxpr) if e.primitive.name == 'scan'
           and e.params['length'] == 2 and not e.params['reverse'])
  stored = [v.aval for v in scan.outvars[scan.params['num_carry']:]]
  tokens = [a for a in stored if 12 in a.shape]
  # x, modulated, q, k, v, weights, heads, output, x, modulated, gate, value,
  # their product, output: both outputs for the gradient of their gate.
  assert len(tokens) == 14 and all(a.shape[1] == 3 for a in tokens)
  assert {a.dtype for a in tokens} == {jnp.bfloat16.dtype}
  # And scales and gates, a row an example.
  assert [a.size for a in stored if 12 not in a.shape] == 4 * [2 * 3 * 32]


def test_the_default_rules_place_every_parameter():
  """No two axes of one parameter on one axis of the mesh."""
  model, args = make(tower=sizes.Tower(256, 2, 4))
  boxed = jax.eval_shape(model.init, jax.random.key(0), *args)['params']
  placed = mesh_lib.state_shardings(
      boxed, AbstractMesh((1, 2, 2), mesh_lib.AXES),
      config.default().sharding)
  specs = placed['blocks']
  assert specs['attention']['qkv']['kernel'].spec == P(None, 'fsdp', 'tensor')
  assert specs['modulation']['kernel'].spec == P(None, 'fsdp', None)
