"""Ahead of time, without a TPU: the FSDP step for a v5e slice of 2x4 chips."""

import jax
import pytest
from jax.experimental import topologies

from tests import sharded
from tests.training import hlo
from vitok.training import program as program_lib

pytest.importorskip(
    'libtpu', reason='compiling for a TPU needs libtpu (the extra [tpu])')


def test_the_fsdp_step_compiles_for_a_v5e_slice(monkeypatch):
  monkeypatch.setenv('TPU_SKIP_MDS_QUERY', '1')  # There is no TPU to ask.
  topology = topologies.get_topology_desc('v5e:2x4', platform='tpu')
  config = sharded.config(1, 8, 1, width=256, heads=4)
  at = program_lib.Program(config, topology.devices)
  run = jax.tree.map(lambda x: jax.ShapeDtypeStruct(
      x.shape, x.dtype, sharding=at.replicated), jax.eval_shape(
          lambda: program_lib.step_lib.Run(jax.random.key(0), 0.0, 0.0)))
  compiled = at.compile_step(
      sharded.abstract_batch(config, at.batch_sharding), run)
  program, _ = hlo.parse(compiled.as_text())
  kernels = {x.shape[1:] for x in jax.tree.leaves(at.abstract.params)
             if x.ndim == 3}
  gathers = [i for body in program.values() for i in body
             if i.op == 'all-gather' and i.shapes[0][1][-2:] in kernels]
  assert gathers
  assert all('/while/body/' in i.attributes for i in gathers)
