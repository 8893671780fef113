"""Linear maps, norms, MLPs, attention: initial values, precision, meaning."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from vitok.models import attention, layers


@pytest.mark.parametrize('matrices', [1, 3])
def test_kernels_are_xavier_uniform_per_matrix_and_biases_zero(matrices):
  linear = layers.Linear(96 * matrices, ('a', 'b'), matrices=matrices)
  params = nn.unbox(linear.init(jax.random.key(0), jnp.ones((1, 64))))['params']
  limit = np.sqrt(6 / (64 + 96))
  assert 0.99 * limit < np.abs(params['kernel']).max() <= limit
  np.testing.assert_allclose(params['kernel'].std(), limit / np.sqrt(3),
                             rtol=0.03)
  assert not params['bias'].any()


@pytest.mark.parametrize('name', layers.NORMS)
def test_norms_compute_in_float32_and_return_the_compute_dtype(name):
  x = 1000 + np.random.default_rng(0).standard_normal((4, 64))
  norm = layers.NORMS[name](jnp.bfloat16)
  x = jnp.array(x, jnp.bfloat16)
  y = norm.apply(nn.unbox(norm.init(jax.random.key(0), x)), x)
  x = np.float64(x)
  if name == 'layernorm':
    x -= x.mean(-1, keepdims=True)
  expected = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6)
  assert y.dtype == jnp.bfloat16
  np.testing.assert_allclose(np.float64(y), expected, rtol=2**-8, atol=1e-3)


def test_attention_is_a_softmax_average_of_values():
  q, k, v = np.random.default_rng(0).standard_normal((3, 2, 5, 3, 8))
  out = attention.xla(*(jnp.array(x, jnp.float32) for x in (q, k, v)))
  for b in range(2):
    for h in range(3):
      weights = np.exp(q[b, :, h] @ k[b, :, h].T / np.sqrt(8))
      weights /= weights.sum(-1, keepdims=True)
      np.testing.assert_allclose(out[b, :, h], weights @ v[b, :, h],
                                 atol=1e-5)


def test_scores_beyond_float16_range_do_not_overflow():
  x = jnp.full((1, 4, 1, 8), 1e3, jnp.bfloat16)
  assert np.isfinite(attention.xla(x, x, x).astype(jnp.float32)).all()


def test_activations_are_left_alone_without_a_mesh():
  x = jnp.ones((4, 2))
  assert layers.constrain_batch(x) is x


@pytest.mark.parametrize('batch, split', [(8, ('replica', 'fsdp')), (3, None)])
def test_activations_are_split_over_the_batch_axes_of_the_mesh(batch, split):
  if len(jax.devices()) < 8:
    pytest.skip('needs 8 devices; tests/conftest.py asks for them')
  mesh = jax.make_mesh((2, 2, 2), ('replica', 'fsdp', 'tensor'),
                       axis_types=(AxisType.Auto,) * 3)
  with jax.set_mesh(mesh):
    y = jax.jit(lambda x: layers.constrain_batch(x * 2))(jnp.ones((batch, 4)))
  expected = P(split) if split else P()
  assert y.sharding.is_equivalent_to(
      jax.sharding.NamedSharding(mesh, expected), 2)
