"""DINOv2 equals a PyTorch model of its published names, to 1e-5.

The twin computes in float64. Differences are relative to the largest number
of each array.
"""

import jax
import numpy as np
import pytest

from vitok import sizes
from vitok.models.features import dinov2, layers

torch = pytest.importorskip('torch', reason='parity tests need torch')
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

HEADS, SIDE = 2, 5


class Layer(nn.Module):
  """A block by its published names; B images, L tokens, D width."""

  def __init__(self, width, swiglu):
    super().__init__()
    self.norm1, self.norm2 = (nn.LayerNorm(width, eps=1e-6) for _ in range(2))
    self.attention = nn.ModuleDict({
        'attention': nn.ModuleDict({name: nn.Linear(width, width) for name in (
            'query', 'key', 'value')}),
        'output': nn.ModuleDict({'dense': nn.Linear(width, width)})})
    for name in ('layer_scale1', 'layer_scale2'):
      self.add_module(name, nn.ParameterDict(
          {'lambda1': nn.Parameter(torch.ones(width))}))
    hidden = (int(4 * width * 2 / 3) + 7) // 8 * 8
    self.mlp = nn.ModuleDict(
        {'weights_in': nn.Linear(width, 2 * hidden),
         'weights_out': nn.Linear(hidden, width)} if swiglu else
        {'fc1': nn.Linear(width, 4 * width),
         'fc2': nn.Linear(4 * width, width)})

  def forward(self, x):
    maps = self.attention['attention']
    n = self.norm1(x)
    q, k, v = (maps[name](n).unflatten(-1, (HEADS, -1)).transpose(1, 2)
               for name in ('query', 'key', 'value'))
    o = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(-2)
    x = x + self.layer_scale1['lambda1'] * self.attention['output']['dense'](o)
    n = self.norm2(x)
    if 'fc1' in self.mlp:
      y = self.mlp['fc2'](F.gelu(self.mlp['fc1'](n)))
    else:
      gate, value = self.mlp['weights_in'](n).chunk(2, -1)
      y = self.mlp['weights_out'](F.silu(gate) * value)
    return x + self.layer_scale2['lambda1'] * y


class Twin(nn.Module):

  def __init__(self, width, depth, swiglu, registers):
    super().__init__()
    self.embeddings = nn.ParameterDict({
        'cls_token': torch.zeros(1, 1, width),
        'mask_token': torch.zeros(1, width),
        'position_embeddings': torch.zeros(1, 1 + SIDE**2, width)})
    if registers:
      self.embeddings['register_tokens'] = torch.zeros(1, registers, width)
    self.patches = nn.Conv2d(3, width, 14, 14)
    self.encoder = nn.ModuleDict({'layer': nn.ModuleList(
        Layer(width, swiglu) for _ in range(depth))})
    self.layernorm = nn.LayerNorm(width, eps=1e-6)

  def published(self):
    return {name.replace('patches', 'embeddings.patch_embeddings.projection'):
            value.numpy() for name, value in self.state_dict().items()}

  def forward(self, x_BxCxHxW):
    mean = torch.tensor([0.485, 0.456, 0.406]).double()[:, None, None]
    deviation = torch.tensor([0.229, 0.224, 0.225]).double()[:, None, None]
    x = self.patches(((x_BxCxHxW + 1) / 2 - mean) / deviation)
    e = self.embeddings
    table = e['position_embeddings'][:, 1:].unflatten(1, (SIDE, SIDE))
    if x.shape[2:] != (SIDE, SIDE):
      table = F.interpolate(
          table.permute(0, 3, 1, 2), size=x.shape[2:], mode='bicubic',
          antialias='register_tokens' in e).permute(0, 2, 3, 1)
    x = x.flatten(2).transpose(1, 2) + table.flatten(1, 2)
    first = [e['cls_token'] + e['position_embeddings'][:, :1]]
    if 'register_tokens' in e:
      first.append(e['register_tokens'])
    x = torch.cat([y.expand(len(x), -1, -1) for y in first] + [x], 1)
    states = []
    for layer in self.encoder['layer']:
      x = layer(x)
      states.append(x)
    return self.layernorm(x), states


def random(width=96, depth=2, swiglu=False, registers=0):
  torch.manual_seed(0)
  twin = Twin(width, depth, swiglu, registers)
  for name, p in twin.named_parameters():
    p.data = torch.randn_like(p) / 10 + ('norm' in name or 'lambda' in name)
  network = dinov2.DINOv2(sizes.Tower(width, depth, HEADS),
                          'swiglu' if swiglu else 'gelu', registers, SIDE)
  return network, twin


@pytest.mark.parametrize('options, height, width', [
    ({}, 70, 70), ({}, 28, 98), (dict(registers=3), 28, 98),
    (dict(swiglu=True, depth=1), 42, 42)])
def test_every_layer_equals_pytorch(options, height, width):
  network, twin = random(**options)
  params = dinov2.from_huggingface(twin.published(), network)
  x = np.random.default_rng(0).uniform(-1, 1, (2, height, width, 3))
  layers.check_params(network, params, x.astype(np.float32))
  out = jax.jit(lambda p, x: network.apply(
      {'params': p}, x, range(network.tower.depth)))(
          params, x.astype(np.float32))
  last, states = twin.double()(torch.tensor(x).permute(0, 3, 1, 2))

  def close(a, b, what):
    b = b.detach().numpy()
    scale = np.abs(b).max()
    np.testing.assert_allclose(np.asarray(a) / scale, b / scale, rtol=0,
                               atol=1e-5, err_msg=what)
  for k, state in enumerate(states):
    close(out['taps'][k], state, f'block {k}')
  close(out['features'], last[:, 0], 'class token')
  tokens = last[:, 1 + network.registers:]
  close(out['tokens'], tokens.unflatten(1, (height // 14, -1)), 'tokens')


@pytest.mark.parametrize('antialias', [False, True])
def test_positions_are_resized_as_pytorch_does(antialias):
  table = np.random.default_rng(0).standard_normal((49, 3))
  for grid in ((7, 7), (3, 11), (16, 2), (37, 5), (1, 1)):
    expected = F.interpolate(
        torch.tensor(table.reshape(1, 7, 7, 3)).permute(0, 3, 1, 2), size=grid,
        mode='bicubic', antialias=antialias).permute(0, 2, 3, 1)
    found = dinov2.resize_positions(table.astype(np.float32), grid, antialias)
    np.testing.assert_allclose(found, expected.reshape(-1, 3), atol=2e-6)


def test_a_file_of_another_network_is_refused():
  network, twin = random()
  state = twin.published()
  for change, word in (
      ({'encoder.layer.2.norm1.weight': np.ones(96)}, 'layer.2'),
      ({'embeddings.register_tokens': np.ones((1, 4, 96))}, 'register')):
    with pytest.raises(ValueError, match=word):
      dinov2.from_huggingface(state | change, network)
  state.pop('layernorm.bias')
  with pytest.raises(ValueError, match='no tensor layernorm.bias'):
    dinov2.from_huggingface(state, network)
