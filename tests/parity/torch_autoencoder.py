"""The auto-encoder in PyTorch, written apart from the JAX one.

The reference of the parity tests, and the opponent of `tools/benchmark.py`.
It is written as a PyTorch user would: `nn.Linear`, fused attention
(`scaled_dot_product_attention`), rotary positions by complex products.

Dimensions: B batch, L tokens, D width, H heads, K head dimension.
"""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from vitok import sizes


def _rope_angles(kind, grid, head_dim):
  """(L, K/2): token coordinate x frequency."""
  t, y, x = torch.meshgrid(*[torch.arange(n, dtype=torch.float64)
                             for n in grid], indexing='ij')
  spatial = 24 if head_dim in (64, 72) else 12  # Of heads of 32.
  axes = {
      'rope1d': [(torch.arange(t.numel(), dtype=torch.float64), head_dim)],
      'rope2d': [(y, head_dim // 2), (x, head_dim // 2)],
      'rope3d': [(t, head_dim - 2 * spatial), (y, spatial), (x, spatial)],
  }[kind]
  return torch.cat([
      torch.outer(position.flatten(), 10000.0**(
          -torch.arange(0, channels, 2, dtype=torch.float64) / channels))
      for position, channels in axes], 1)


class Attention(nn.Module):

  def __init__(self, width, heads):
    super().__init__()
    self.heads = heads
    self.qkv = nn.Linear(width, 3 * width)
    self.out = nn.Linear(width, width)

  def forward(self, x, turn):
    b, n, d = x.shape
    q, k, v = self.qkv(x).view(b, n, self.heads, 3, -1).permute(3, 0, 2, 1, 4)
    if turn is not None:
      pairs = (*q.shape[:-1], -1, 2)
      q, k = (torch.view_as_real(torch.view_as_complex(
          y.reshape(pairs)) * turn).flatten(-2) for y in (q, k))
    o = F.scaled_dot_product_attention(q, k, v)
    return self.out(o.transpose(1, 2).reshape(b, n, d))


class SwiGLU(nn.Module):

  def __init__(self, width, hidden):
    super().__init__()
    self.gate = nn.Linear(width, hidden)
    self.value = nn.Linear(width, hidden)
    self.down = nn.Linear(hidden, width)

  def forward(self, x):
    return self.down(F.silu(self.gate(x)) * self.value(x))


class GeluMLP(nn.Module):

  def __init__(self, width, hidden):
    super().__init__()
    self.up = nn.Linear(width, hidden)
    self.down = nn.Linear(hidden, width)

  def forward(self, x):
    return self.down(F.gelu(self.up(x)))


def _norm(kind, width):
  make = {'layernorm': nn.LayerNorm, 'rmsnorm': nn.RMSNorm}[kind]
  return make(width, eps=1e-6)


class Block(nn.Module):

  def __init__(self, tower, mlp, norm):
    super().__init__()
    make = {'swiglu': SwiGLU, 'gelu': GeluMLP}[mlp]
    self.norm1 = _norm(norm, tower.width)
    self.attention = Attention(tower.width, tower.heads)
    self.norm2 = _norm(norm, tower.width)
    self.mlp = make(tower.width, tower.hidden(mlp))

  def forward(self, x, turn):
    x = x + self.attention(self.norm1(x), turn)
    return x + self.mlp(self.norm2(x))


class Tower(nn.Module):
  """Positions, blocks, final norm; a linear map before or after them."""

  def __init__(self, tower, grid, mlp, norm, positions, embed=0, unembed=0):
    super().__init__()
    length = grid[0] * grid[1] * grid[2]
    self.embed = nn.Linear(embed, tower.width) if embed else nn.Identity()
    if positions == 'learned':
      self.positions = nn.Parameter(torch.zeros(length, tower.width))
    elif positions == 'sincos':
      self.register_buffer('positions', _sincos(grid, tower.width))
    else:
      self.positions = None
    turn = None
    if positions.startswith('rope'):
      angles = _rope_angles(positions, grid, tower.head_dim)
      turn = torch.polar(torch.ones_like(angles), angles).to(torch.complex64)
    self.register_buffer('turn', turn)
    self.blocks = nn.ModuleList(
        Block(tower, mlp, norm) for _ in range(tower.depth))
    self.norm = _norm(norm, tower.width)
    self.unembed = (nn.Linear(tower.width, unembed) if unembed
                    else nn.Identity())

  def forward(self, x):
    x = self.embed(x)
    if self.positions is not None:
      x = x + self.positions
    for block in self.blocks:
      x = block(x, self.turn)
    return self.unembed(self.norm(x))


def _sincos(grid, width):
  """Of each axis in turn (time only for clips) sines, then cosines."""
  third = width // 3
  if grid[0] == 1:
    parts = [(1, width // 2), (2, width // 2)]
  else:
    assert third % 4 == 0, 'this twin knows equal splits over three axes'
    parts = [(0, third), (1, third), (2, third)]
  columns = []
  for t in range(grid[0]):
    for y in range(grid[1]):
      for x in range(grid[2]):
        row = []
        for axis, n in parts:
          angle = (t, y, x)[axis] / 10000.0**(
              torch.arange(n // 2, dtype=torch.float64) * 2 / n)
          row += [angle.sin(), angle.cos()]
        columns.append(torch.cat(row))
  return torch.stack(columns).float()


class AutoEncoder(nn.Module):
  """Same parameters, by name, as `vitok.models.AutoEncoder`'s.

  Args:
    size: dimensions.
    grid: tokens along time, height and width.
    mlp, norm, positions, bottleneck: as in `config.model`.
  """

  def __init__(self, size: sizes.Size, grid, mlp='swiglu', norm='layernorm',
               positions='rope2d', bottleneck='gaussian'):
    super().__init__()
    self.size, self.grid = size, grid
    self.gaussian = bottleneck == 'gaussian'
    options = dict(mlp=mlp, norm=norm, positions=positions)
    self.encoder = Tower(size.encoder, grid, embed=size.patch_dim, **options)
    self.bottleneck = nn.ModuleDict({'down': nn.Linear(
        size.encoder.width, size.channels * (1 + self.gaussian))})
    self.bottleneck_up = nn.Linear(size.channels, size.decoder.width)
    self.decoder = Tower(size.decoder, grid, unembed=size.patch_dim,
                         **options)

  def forward(self, image, noise=None):
    """Clips (B, T, H, W, C) -> reconstruction, KL in nats (B,).

    `noise` (B, L, c) is what a Gaussian code adds in units of its standard
    deviation; `None` decodes the mean.
    """
    (t, h, w), size = self.grid, self.size
    b = image.shape[0]
    tubes = (t, size.tubelet, h, size.patch, w, size.patch, 3)
    x = image.reshape(b, *tubes).permute(0, 1, 3, 5, 2, 4, 6, 7)
    z = self.bottleneck['down'](self.encoder(x.reshape(b, t * h * w, -1)))
    kl = torch.zeros(b)
    if self.gaussian:
      z, log_variance = z.chunk(2, -1)
      log_variance = log_variance.clamp(-30, 20)
      kl = 0.5 * (z**2 + log_variance.exp() - 1 - log_variance).sum((1, 2))
      if noise is not None:
        z = z + (0.5 * log_variance).exp() * noise
    y = self.decoder(self.bottleneck_up(z)).reshape(
        b, t, h, w, size.tubelet, size.patch, size.patch, 3)
    return y.permute(0, 1, 4, 2, 5, 3, 6, 7).reshape(image.shape), kl


def from_jax(module: nn.Module, name: str, tree) -> torch.Tensor:
  """What a tree of JAX arrays holds for PyTorch's parameter `name`.

  Args:
    module: the auto-encoder.
    name: such as 'encoder.blocks.3.mlp.down.weight'.
    tree: parameters or gradients, nested dicts of arrays.
  """
  *path, leaf = name.split('.')
  owner = module.get_submodule('.'.join(path))
  if leaf == 'weight':
    leaf = 'kernel' if isinstance(owner, nn.Linear) else 'scale'
  layer = next((int(part) for part in path if part.isdigit()), None)
  for part in (*(part for part in path if not part.isdigit()), leaf):
    tree = tree[part]
  array = torch.tensor(np.asarray(tree if layer is None else tree[layer]))
  return array.T if leaf == 'kernel' else array


def load(module: nn.Module, tree) -> nn.Module:
  """Copies JAX parameters into the module, and returns it."""
  with torch.no_grad():
    for name, parameter in module.named_parameters():
      parameter.copy_(from_jax(module, name, tree))
  return module
