"""The DiT equals its PyTorch twin, in values and gradients, to 1e-5.

The twin computes in float64. Differences are relative to the largest number
of each array.
"""

import math

import flax.linen as flax_nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vitok import sizes
from vitok.models import dit

torch = pytest.importorskip('torch', reason='parity tests need torch')

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from tests.parity import torch_autoencoder as parts  # noqa: E402

TOWER, GRID, CHANNELS, CLASSES = sizes.Tower(48, 2, 3), (1, 3, 2), 5, 4


class Block(nn.Module):

  def __init__(self, tower):
    super().__init__()
    self.norm = nn.LayerNorm(tower.width, eps=1e-6, elementwise_affine=False)
    self.attention = parts.Attention(tower.width, tower.heads)
    self.mlp = parts.SwiGLU(tower.width, tower.hidden('swiglu'))
    self.modulation = nn.Linear(tower.width, 6 * tower.width)

  def forward(self, x, condition, turn):
    a, b, c, d, e, f = self.modulation(condition).unsqueeze(1).chunk(6, -1)
    x = x + c * self.attention(self.norm(x) * (1 + b) + a, turn)
    return x + f * self.mlp(self.norm(x) * (1 + e) + d)


class DiT(nn.Module):
  """Same parameters, by name, as `vitok.models.dit.DiT`'s."""

  def __init__(self):
    super().__init__()
    width = TOWER.width
    self.embed = nn.Linear(CHANNELS, width)
    self.time_in = nn.Linear(256, width)
    self.time_out = nn.Linear(width, width)
    self.classes = nn.Parameter(torch.zeros(CLASSES + 1, width))
    self.blocks = nn.ModuleList(Block(TOWER) for _ in range(TOWER.depth))
    self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
    self.modulation = nn.Linear(width, 2 * width)
    self.unembed = nn.Linear(width, CHANNELS)
    angles = parts._rope_angles('rope2d', GRID, TOWER.head_dim)
    self.turn = torch.polar(torch.ones_like(angles), angles)

  def forward(self, z, time, label):
    frequencies = torch.exp(-math.log(10_000) * torch.arange(128) / 128)
    angles = 1000 * time[:, None] * frequencies.double()
    features = torch.cat([angles.cos(), angles.sin()], -1)
    condition = self.time_out(F.silu(self.time_in(features)))
    condition = F.silu(condition + self.classes[label])
    x = self.embed(z)
    for block in self.blocks:
      x = block(x, condition, self.turn)
    shift, scale = self.modulation(condition).unsqueeze(1).chunk(2, -1)
    return self.unembed(self.norm(x) * (1 + scale) + shift)


def close(a, b, what):
  a, b = np.asarray(a), np.asarray(b)
  scale = max(np.abs(b).max(), 1e-6)
  np.testing.assert_allclose(a / scale, b / scale, rtol=0, atol=1e-5,
                             err_msg=what)


def test_values_and_gradients_equal_pytorch():
  model = dit.DiT(TOWER, GRID, CHANNELS, CLASSES)
  rng = np.random.default_rng(0)
  z, goal = rng.standard_normal((2, 3, 6, CHANNELS)).astype(np.float32)
  # Small times: at 1000 rad float32 rounds angles to 3e-5, in any framework.
  time = np.array([0.0, 2**-9, 2**-6], np.float32)
  label = np.array([0, CLASSES, 2])
  shapes = flax_nn.unbox(jax.eval_shape(
      model.init, jax.random.key(0), z, time, label))['params']
  params = jax.tree.map(  # Nothing zero: it would hide mistakes.
      lambda p: (rng.standard_normal(p.shape) / 5).astype(p.dtype), shapes)

  def loss(params):
    out = model.apply({'params': params}, z, time, label)
    return jnp.square(out - goal).mean(), out

  (value, out), grads = jax.jit(
      jax.value_and_grad(loss, has_aux=True),
      compiler_options={'xla_backend_optimization_level': 0})(params)
  twin = parts.load(DiT(), params).double()  # All rounding is JAX's.
  assert sum(p.numel() for p in twin.parameters()) == sum(
      p.size for p in jax.tree.leaves(params))
  out_twin = twin(*map(torch.tensor, (np.float64(z), np.float64(time), label)))
  value_twin = ((out_twin - torch.tensor(goal))**2).mean()
  value_twin.backward()
  close(value, value_twin.detach(), 'loss')
  close(out, out_twin.detach(), 'prediction')
  for name, p in twin.named_parameters():
    close(parts.from_jax(twin, name, grads), p.grad, name)
