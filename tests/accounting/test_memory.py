"""Predicted bytes against XLA's buffer assignment and the mesh's shardings."""

import functools

import jax
import pytest
from jax.sharding import AbstractMesh

from tests.accounting import programs
from vitok import accounting, models, sizes
from vitok import config as config_lib
from vitok.accounting import memory, parameters
from vitok.accounting import sharding as sharding_lib
from vitok.training import mesh as mesh_lib


@functools.cache
def temporary(name, resolution, **options):
  """XLA's temporary bytes of loss and gradients, and the `Spec`."""
  executable, spec = programs.compiled(
      name, resolution, train=True, scan=True, **options)
  return executable.memory_analysis().temp_size_in_bytes, spec


@pytest.mark.parametrize('remat, options', [
    ('none', {}), ('dots', {}), ('full', {}), ('none', {'mlp': 'gelu'}),
    ('none', {'block': 'parallel', 'layer_scale': 1e-4, 'qk_norm': True}),
    ('none', {'sub_norm': True, 'key_bias': False, 'cls': True}),
    ('dots', {'sub_norm': True, 'key_bias': False}),
    ('full', {'sub_norm': True})])
def test_a_block_stores_what_its_policy_says(remat, options):
  """The slope over depth is exact: nothing else grows with it."""
  two, _ = temporary('Ad2-Ad2/8', 64, batch=4, remat=remat, **options)
  three, spec = temporary('Ad3-Ad3/8', 64, batch=4, remat=remat, **options)
  stored = sum(4 * memory.stored_by_block(spec, part, remat)
               for part in spec.towers)
  assert three - two == pytest.approx(stored, rel=0.01)


@pytest.mark.parametrize('name, batch, remat, options', [
    ('Ad3-Ad3/8', 4, 'none', {}), ('Ad3-Ad3/8', 4, 'dots', {}),
    ('Ad3-Ad3/8', 4, 'full', {}), ('Ad3-Ad3/8', 4, 'none', {'mlp': 'gelu'}),
    ('Ad4-Ad2/8+64', 4, 'none', {'norm': 'rmsnorm'}),
    ('Ad3-Ad3/8', 4, 'none', {'projection': 'mlp', 'head': 'tanh'}),
    ('Ad3-Ad3/8', 4, 'none', {
        'projection': 'mlp', 'head': 'tanh', 'cls': True, 'sub_norm': True,
        'key_bias': False, 'positions': 'rope2d_learned'}),
    ('Ad3-Ad3/8', 4, 'full', {
        'projection': 'mlp', 'head': 'tanh', 'cls': True, 'sub_norm': True,
        'key_bias': False, 'positions': 'rope2d_learned'}),
    ('Pd2-Pd4/16', 16, 'full', {})])
def test_activations_are_within_15_percent_of_xlas_temporary_memory(
    name, batch, remat, options):
  counted, spec = temporary(name, 64, batch=batch, remat=remat, **options)
  predicted = memory.memory(spec, batch=batch, remat=remat)
  # Whole gradients are outputs of this program; one block's are temporary.
  temporaries = (predicted['activations'] + predicted['gradients']
                 - predicted['parameters'])
  assert temporaries == pytest.approx(counted, rel=0.15)


@functools.cache
def boxed_parameters(name):
  """The module's abstract parameters with their axes, and their `Spec`."""
  config = config_lib.default().model
  config.update(name=name, positions='learned')
  image = jax.ShapeDtypeStruct((1, 1, 64, 64, 3), 'float32')
  model = models.build(config, frames=1, resolution=64)
  return (jax.eval_shape(model.init, jax.random.key(0), image)['params'],
          models.spec(config, 1, 64))


@pytest.mark.parametrize('mesh', [
    (1, 1, 1), (8, 1, 1), (1, 8, 1), (1, 3, 1), (2, 2, 2), (1, 4, 2)])
@pytest.mark.parametrize('name', ['S-B/16', 'M-L/8'])
def test_devices_hold_what_the_shardings_give_them(name, mesh):
  mesh = dict(zip(mesh_lib.AXES, mesh, strict=True))
  rules = config_lib.default().sharding
  boxed, spec = boxed_parameters(name)
  shardings = mesh_lib.state_shardings(
      boxed, AbstractMesh(tuple(mesh.values()), tuple(mesh)), rules)
  real = {
      jax.tree_util.keystr(path, simple=True, separator='/'):
      leaf.size // jax.tree.reduce(
          lambda a, b: a * b, sharding.shard_shape(leaf.shape), 1)
      for (path, leaf), sharding in zip(
          jax.tree_util.tree_leaves_with_path(mesh_lib.unbox(boxed)),
          jax.tree.leaves(shardings), strict=True)}
  assert {p.path: sharding_lib.ways(p.shape, p.axes, mesh, rules)
          for p in parameters.parameters(spec)} == real


def test_state_shrinks_with_fsdp_and_activations_with_the_batch():
  one = accounting.describe(sizes.parse('S-B/16'), batch=64)['memory']
  eight = accounting.describe(sizes.parse('S-B/16'), batch=64, devices=8,
                              mesh={'replica': 1, 'fsdp': 8})['memory']
  for part in ('parameters', 'optimizer'):
    # Norms, biases and other small parameters stay whole: 0.2%.
    assert one[part] / 8 < eight[part] < 1.02 * one[part] / 8
  assert eight['activations'] == one['activations'] / 8
  assert one['gathered'] == 0 < eight['gathered'] < eight['parameters']


def test_optimizer_and_average_follow_the_parameters():
  held = accounting.describe(sizes.parse('A-A/8'), resolution=32,
                             ema=True)['memory']
  total = accounting.describe(sizes.parse('A-A/8'), resolution=32)
  assert held['parameters'] == 4 * total['parameters']['total']
  assert held['optimizer'] == 2 * held['parameters'] == 2 * held['ema']
  assert held['total'] - total['memory']['total'] == held['ema']


def test_bfloat16_and_a_fused_kernel_store_less():
  spec = parameters.Spec(sizes.parse('S-B/16'), 1, 512)
  full = memory.activations(spec)
  assert memory.activations(spec, attention='cudnn') < 0.6 * full
  # All that a block stores is in the compute dtype: attention's weights too.
  block = memory.stored_by_block(spec, 'encoder')
  assert 2 * memory.stored_by_block(
      spec, 'encoder', dtype='bfloat16') == block


@pytest.mark.parametrize('mesh, devices', [
    ({'replica': -1, 'fsdp': 3}, 8), ({'replica': 2}, 1), ({'fsdp': 2}, 1)])
def test_a_mesh_that_does_not_make_the_devices_is_refused(mesh, devices):
  with pytest.raises(accounting.errors.InputError):
    accounting.describe(sizes.parse('A-A/8'), mesh=mesh, devices=devices)
