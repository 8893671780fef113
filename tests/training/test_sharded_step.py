"""The training step on eight devices: what it computes, holds and sends."""

import functools

import jax
import numpy as np
import pytest

from tests import sharded
from tests.training import hlo
from vitok import accounting, sizes
from vitok.accounting import parameters

MESHES = {'fsdp': (1, 8, 1), '2x2x2': (2, 2, 2)}


@functools.cache
def _one_device():
  return sharded.losses(sharded.config())


@functools.cache
def _compiled(mesh):
  """Config, program and compiled step; each takes seconds to compile."""
  config = sharded.config(*MESHES[mesh])
  at = sharded.program(config)
  return config, at, sharded.compiled_step(config, at)


@pytest.mark.parametrize('mesh', MESHES)
def test_losses_equal_those_of_one_device(mesh):
  config, at, _ = _compiled(mesh)
  np.testing.assert_allclose(
      sharded.losses(config, at), _one_device(), rtol=1e-5)
  assert _one_device()[-1] < _one_device()[0]


def _check_traffic(at, compiled):
  """3P(n-1)/n: kernels gathered forward and backward, gradients scattered.

  Only the body of the layer loop gathers kernels of layers; the embedding, the
  un-embedding and the bottleneck, which are in no loop, are gathered outside.
  """
  moved = hlo.collectives(compiled.as_text())
  ring = 4 * 7 / 8  # Bytes sent for each number that is gathered.
  whole = sum(x.size for x in jax.tree.leaves(at.abstract.params))
  assert sum(c.wire_bytes * c.times for c in moved) <= 1.1 * 3 * whole * ring
  stacked = sum(
      x.size for side in ('encoder', 'decoder') for x in jax.tree.leaves(
          at.abstract.params['autoencoder'][side]['blocks']))
  outside = sum(c.wire_bytes for c in moved
                if c.op == 'all-gather' and not c.in_loop)
  assert outside <= 2 * (whole - stacked) * ring  # Forward and backward.


def test_fsdp_step_sends_two_gathers_and_one_scatter():
  _, at, compiled = _compiled('fsdp')
  _check_traffic(at, compiled)


def test_fsdp_step_with_remat_sends_no_more():
  config = sharded.config(1, 8, 1, model__remat='full')
  at = sharded.program(config)
  _check_traffic(at, sharded.compiled_step(config, at))


def test_fsdp_step_needs_the_temporary_memory_that_is_accounted():
  config, _, compiled = _compiled('fsdp')
  memory = accounting.describe(
      sizes.from_config(config.model), 1, config.data.resolution,
      batch=config.batch_size, mesh=config.mesh, sharding=config.sharding,
      devices=8)['memory']
  predicted = memory['total'] - sum(
      memory[part] for part in ('parameters', 'optimizer', 'ema'))
  np.testing.assert_allclose(
      compiled.memory_analysis().temp_size_in_bytes, predicted, rtol=0.15)


def _bytes_on_first_device(tree):
  return sum(4 * np.prod(x.sharding.shard_shape(x.shape))
             for x in jax.tree.leaves(tree) if x.ndim)


@pytest.mark.parametrize('mesh', [(8, 1, 1), (1, 8, 1), (2, 2, 2)])
def test_memory_of_the_state_is_what_accounting_predicts(mesh):
  config = sharded.config(*mesh)
  state = sharded.program(config).abstract
  spec = parameters.Spec(sizes.from_config(config.model), 1, 16)
  predicted = 4 * parameters.per_device(
      parameters.parameters(spec), dict(config.mesh), config.sharding)
  assert _bytes_on_first_device(state.params) == predicted
  assert _bytes_on_first_device(state.ema) == predicted
  assert _bytes_on_first_device(state.opt) == 2 * predicted


@pytest.mark.parametrize('fsdp, tensor', [(1, 8), (4, 2)])
def test_tensor_splits_attention_and_mlp_kernels(fsdp, tensor):
  config = sharded.config(1, fsdp, tensor, heads=8)
  towers = sharded.program(config).abstract.params['autoencoder']
  for side in ('encoder', 'decoder'):
    blocks = towers[side]['blocks']
    for linear in (*blocks['attention'].values(), *blocks['mlp'].values()):
      kernel = linear['kernel']
      whole = 4 * np.prod(kernel.shape)
      assert _bytes_on_first_device(kernel) * fsdp * tensor == whole


def test_no_step_gathers_a_kernel_over_tensor():
  _, at, compiled = _compiled('2x2x2')
  whole = {x.shape[1:] for x in jax.tree.leaves(at.abstract.params)
           if x.ndim == 3}
  gathered = {c.shape[-2:] for c in hlo.collectives(compiled.as_text())
              if c.op == 'all-gather'}
  assert gathered and not gathered & whole
