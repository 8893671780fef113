"""Discriminators and R1 equal plain PyTorch, in values and gradients, to 1e-5.

The twin computes in float64; differences are relative to the largest number
of each array.
"""

import jax
import numpy as np
import pytest
from flax import linen as nn

from vitok.losses import adversarial
from vitok.models import discriminators

torch = pytest.importorskip('torch', reason='parity tests need torch')

SHAPE = (1, 8, 16, 16, 3)  # The frames are halved once, the pixels twice.
WIDTH = 1 / 32  # Up to 16 features.
LEAK = torch.nn.LeakyReLU(0.2)


def conv(x, p, stride=1):
  """A convolution of two or three axes."""
  kernel = torch.movedim(p['kernel'], (-1, -2), (0, 1)).contiguous()
  call = {4: torch.nn.functional.conv2d, 5: torch.nn.functional.conv3d}[x.ndim]
  padding = tuple((size - 1) // 2 for size in kernel.shape[2:])
  return call(x, kernel, p.get('bias'), stride, padding)


def halve(x):
  """Depthwise [1, 3, 3, 1] / 8 in each axis, stride 2: all are halved."""
  rank, channels = x.ndim - 2, x.shape[1]
  line = torch.tensor([1, 3, 3, 1]).double() / 8
  kernel = line
  for _ in range(rank - 1):
    kernel = kernel[..., None] * line
  kernel = kernel.expand(channels, 1, *kernel.shape)
  call = (torch.nn.functional.conv2d if rank == 2
          else torch.nn.functional.conv3d)
  return call(x, kernel, stride=2, padding=1, groups=channels)


def linear(x, p):
  return x @ p['kernel'] + p['bias']


def residual(p, x):
  """Two blocks: 16, 8, 4 pixels; the second keeps the four frames."""
  x = LEAK(conv(x, p['stem']))
  for i, down in enumerate((halve, halve_space)):
    h = down(LEAK(conv(x, p[f'block{i}_conv0'])))
    h = LEAK(conv(h, p[f'block{i}_conv1']))
    x = (h + conv(down(x), p[f'block{i}_skip'])) / 2**0.5
  x = torch.movedim(LEAK(conv(x, p['head'])), 1, -1).flatten(1)
  return linear(LEAK(linear(x, p['hidden'])), p['logit'])


def halve_space(x):
  if x.ndim == 4:
    return halve(x)
  b, c, t, h, w = x.shape
  frames = halve(x.transpose(1, 2).reshape(b * t, c, h, w))
  return frames.reshape(b, t, c, h // 2, w // 2).transpose(1, 2)


def patch(p, x):
  """Two layers that halve, one that does not, and the logits."""
  x = LEAK(conv(x, p['conv0'], 2))
  for i, stride in ((1, (1, 2, 2)[-(x.ndim - 2):]), (2, 1)):
    x = conv(x, p[f'conv{i}'], stride)
    norm = p[f'norm{i}']
    x = LEAK(torch.nn.functional.group_norm(
        x, np.gcd(32, x.shape[1]), norm['scale'], norm['bias'], eps=1e-6))
  return torch.movedim(conv(x, p['logits']), 1, -1)


TWINS = {'residual': residual, 'patch': patch,
         'residual3d': residual, 'patch3d': patch}
# Of each kind, and of images and clips, parameters' gradients once.
DIFFERENTIATED = ('residual', 'patch3d')


def close(a, b, what=''):
  a, b = np.asarray(a), np.asarray(b)
  scale = max(np.abs(b).max(), 1e-6)
  np.testing.assert_allclose(a / scale, b / scale, rtol=0, atol=1e-5,
                             err_msg=what)


@pytest.mark.parametrize('name', TWINS)
def test_logits_r1_and_their_gradients_equal_pytorch(name):
  model = discriminators.build(name, resolution=16, width=WIDTH)
  rng = np.random.default_rng(0)
  image = rng.uniform(-1, 1, SHAPE).astype(np.float32)
  shapes = nn.unbox(jax.eval_shape(model.init, jax.random.key(0), image))
  params = jax.tree.map(  # Biases too: zeros would hide mistakes.
      lambda p: (rng.standard_normal(p.shape) / 5).astype(p.dtype),
      shapes['params'])

  def objective(params):
    penalty_B, logits_BxN = adversarial.r1(
        lambda x: model.apply({'params': params}, x), image)
    return penalty_B.mean() + logits_BxN.mean(), (
        penalty_B, logits_BxN)

  differentiated = name in DIFFERENTIATED
  (value, (penalty, logits)), *grads = jax.jit(jax.value_and_grad(
      objective, has_aux=True) if differentiated else lambda params: (
          objective(params),))(params)

  twin = jax.tree.map(
      lambda p: torch.tensor(p).double().requires_grad_(), params)
  x = torch.tensor(image).double().requires_grad_()
  seen = torch.movedim(x, -1, 1)
  if not model.clips:
    seen = torch.movedim(x.flatten(0, 1), -1, 1)
  logits_twin = TWINS[name](twin, seen).reshape(len(image), -1)
  gradient, = torch.autograd.grad(logits_twin.sum(), x, create_graph=True)
  penalty_twin = 0.5 * gradient.square().flatten(1).sum(1) / (
      logits_twin.shape[1])
  value_twin = penalty_twin.mean() + logits_twin.mean()
  close(logits, logits_twin.detach(), 'logits')
  close(penalty, penalty_twin.detach(), 'penalty')
  close(value, value_twin.detach(), 'value')
  if differentiated:
    value_twin.backward()
    for layer, leaves in twin.items():
      for leaf, p in leaves.items():
        close(grads[0][layer][leaf], p.grad, f'{layer}/{leaf}')
