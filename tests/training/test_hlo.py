"""The reader of wire bytes, on programs whose traffic is known."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

from tests.training import hlo

N, ROWS = 8, 64
WHOLE = 4 * ROWS * 16  # Bytes of the array that is moved.
RING = WHOLE * (N - 1) / N


def _moved(body, out, x_spec=P('d'), **shape):
  sizes = shape or dict(d=N)
  mesh = jax.make_mesh(
      tuple(sizes.values()), tuple(sizes),
      axis_types=(jax.sharding.AxisType.Auto,) * len(sizes))
  function = jax.jit(jax.shard_map(
      body, mesh=mesh, in_specs=x_spec, out_specs=out, check_vma=False))
  text = function.lower(jnp.zeros((ROWS, 16))).compile().as_text()
  return hlo.collectives(text)


def _own_slice(x):
  return jax.lax.dynamic_slice_in_dim(
      x, jax.lax.axis_index('d') * (ROWS // N), ROWS // N)


def test_a_gather_in_a_loop_counts_once_a_trip():
  def body(x):
    step = lambda i, x: 0.5 * jax.lax.all_gather(
        x, 'd', tiled=True)[:ROWS // N] + i
    return jax.lax.fori_loop(0, 5, step, x)
  gather, = _moved(body, P('d'))
  assert (gather.op, gather.shape) == ('all-gather', (ROWS, 16))
  assert (gather.wire_bytes, gather.times) == (RING, 5)


def test_an_all_reduce_counts_twice_unless_each_device_keeps_its_slice():
  reduce, = _moved(lambda x: jax.lax.psum(x, 'd'), P(), P())
  assert (reduce.op, reduce.wire_bytes) == ('all-reduce', 2 * RING)
  scatter, = _moved(lambda x: _own_slice(jax.lax.psum(x, 'd')), P('d'), P())
  assert (scatter.op, scatter.wire_bytes) == ('reduce-scatter', RING)

  def both(x):
    x = jax.lax.psum(x, 'd')
    return _own_slice(x) + jnp.sum(x)
  reduce, = _moved(both, P('d'), P())
  assert (reduce.op, reduce.wire_bytes) == ('all-reduce', 2 * RING)


@pytest.mark.parametrize('axis, n', [('a', 4), ('b', 2)])
def test_groups_are_read_from_a_mesh_of_two_axes(axis, n):
  reduce, = _moved(lambda x: jax.lax.psum(x, axis), P(), P(), a=4, b=2)
  assert reduce.wire_bytes == 2 * WHOLE * (n - 1) / n
