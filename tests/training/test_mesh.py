"""The mesh, and which axis of which array is split over it."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.sharding import AxisType, PartitionSpec

from vitok import config as config_lib
from vitok import errors
from vitok.training import mesh as mesh_lib
from vitok.training import optimizers

RULES = (('embed', 'fsdp'), ('mlp', 'tensor'), ('heads', 'tensor'))


def _mesh(replica=2, fsdp=2, tensor=2, devices=None):
  return mesh_lib.make_mesh(
      dict(replica=replica, fsdp=fsdp, tensor=tensor), devices)


def _config(rules=RULES, fsdp_min_size=64):
  return types.SimpleNamespace(rules=rules, fsdp_min_size=fsdp_min_size)


def _boxed(shape, *names):
  return nn.LogicallyPartitioned(jax.ShapeDtypeStruct(shape, jnp.float32),
                                 names=names)


def _spec(leaf, mesh=None, **config):
  placed = mesh_lib.state_shardings(
      {'a': {'kernel': leaf}}, mesh or _mesh(), _config(**config))
  spec = tuple(placed['a']['kernel'].spec)
  return spec + (None,) * (len(jax.tree.leaves(leaf)[0].shape) - len(spec))


def test_minus_one_takes_the_remaining_devices():
  mesh = _mesh(replica=-1, fsdp=2, tensor=2)
  assert dict(mesh.shape) == dict(replica=2, fsdp=2, tensor=2)
  assert set(mesh.axis_types) == {AxisType.Auto}


def test_a_mesh_may_use_some_of_the_devices():
  assert _mesh(1, 1, 1, jax.devices()[:1]).size == 1


@pytest.mark.parametrize(
    'sizes', [(3, 1, 1), (-1, 3, 1), (-1, -1, 1), (2, 2, 1), (0, 8, 1),
              (-2, 4, 1), (16, 1, 1)])
def test_sizes_that_do_not_make_the_devices_are_refused(sizes):
  with pytest.raises(errors.InputError, match='^config.mesh'):
    _mesh(*sizes)


def test_a_batch_is_split_over_replica_and_fsdp():
  mesh = _mesh()
  x = jax.device_put(np.zeros((8, 3)), mesh_lib.batch_sharding(mesh, rows=8))
  assert {shard.data.shape for shard in x.addressable_shards} == {(2, 3)}
  with pytest.raises(errors.InputError, match='batch_size=6.*choice: 4'):
    mesh_lib.batch_sharding(mesh, rows=6)


def test_rules_send_names_to_mesh_axes():
  assert _spec(_boxed((16, 32), 'embed', 'mlp')) == ('fsdp', 'tensor')
  assert _spec(_boxed((16, 3, 4, 8), 'embed', 'qkv', 'heads', 'kv')) == (
      'fsdp', None, 'tensor', None)


def test_without_a_rule_fsdp_takes_the_largest_axis_that_divides():
  assert _spec(_boxed((16, 33, 8), 'a', 'b', 'c')) == ('fsdp', None, None)
  assert _spec(jax.ShapeDtypeStruct((16, 32), jnp.float32)) == (None, 'fsdp')
  # The rule's axis does not divide.
  assert _spec(_boxed((15, 32), 'embed', 'x')) == (None, 'fsdp')
  assert _spec(_boxed((15, 33), 'embed', 'x')) == (None, None)


def test_small_parameters_are_whole_over_fsdp_but_follow_tensor_rules():
  assert _spec(_boxed((6, 8), 'embed', 'mlp')) == (None, 'tensor')
  assert _spec(_boxed((6, 10), None, None)) == (None, None)


def test_the_stacked_layer_axis_is_never_split():
  assert _spec(_boxed((64, 16, 8), 'layers', 'x', 'y')) == (
      None, 'fsdp', None)
  assert _spec(_boxed((64, 9, 9), 'layers', 'x', 'y')) == (None, None, None)
  # Small is a word about one layer: 12 biases of 16 are still small.
  assert _spec(_boxed((12, 16), 'layers', 'embed')) == (None, None)
  with pytest.raises(errors.InputError, match='never split'):
    _spec(_boxed((8, 8), 'layers', 'x'), rules=(('layers', 'fsdp'),))


@pytest.mark.parametrize('rules, leaf, why', [
    ((('a', 'fsdp'), ('b', 'fsdp')), _boxed((8, 8), 'a', 'b'),
     'both a and b of a/kernel'),
    (RULES, _boxed((8, 8), 'embed', 'embed'), 'both embed and embed'),
    ((('a', 'fsdp'), ('a', 'tensor')), _boxed((8, 8), 'a', 'b'), 'two rules'),
    ((('a', 'fdsp'),), _boxed((8, 8), 'a', 'b'), 'choice: fsdp'),
    (RULES, _boxed((16, 3, 4), 'embed', 'heads', 'kv'),
     r'mesh.tensor=2: does not divide the 3 heads of a/kernel'),
])
def test_conflicting_rules_are_refused(rules, leaf, why):
  with pytest.raises(errors.InputError, match=why):
    _spec(leaf, rules=rules)


def test_moments_and_averages_lie_where_their_parameter_lies():
  config = config_lib.default()
  params = {'blocks': {'kernel': _boxed((3, 16, 32), 'layers', 'embed', 'mlp'),
                       'bias': _boxed((3, 32), 'layers', 'mlp')},
            'plain': {'kernel': jax.ShapeDtypeStruct((16, 8), jnp.float32)}}
  transform = optimizers.build(config.optimizer, 256, 10, params)
  opt = jax.eval_shape(transform.init, params)
  shardings = mesh_lib.state_shardings(
      dict(params=params, opt=opt, ema=params), _mesh(), _config())
  adam = shardings['opt'][0].inner_states['trained'].inner_state[1]
  assert shardings['params']['blocks']['kernel'].spec == PartitionSpec(
      None, 'fsdp', 'tensor')
  for tree in (adam.mu, adam.nu, shardings['ema']):
    assert tree == shardings['params']
  assert adam.count.is_fully_replicated


def test_unbox_leaves_arrays_alone():
  tree = {'a': _boxed((2,), 'x'), 'b': 1, 'c': None}
  bare = mesh_lib.unbox(tree)
  assert bare['a'].shape == (2,) and bare['b'] == 1 and bare['c'] is None
