"""ViTok-v2 in PyTorch by its published names, written apart from ours.

Dimensions: B batch, L tokens, D width, H heads, K head dimension.
"""

import torch
from torch import nn
from torch.nn import functional as F


def turn(x_BxHxLxK, rows_BxL, columns_BxL):
  """Axial RoPE: rows turn the first half of a head, columns the second."""
  half = x_BxHxLxK.shape[-1] // 2
  frequency = 10000.0**(-torch.arange(0, half, 2, dtype=torch.float64) / half)
  angle_BxLxK = torch.cat([position[..., None] * frequency
                           for position in (rows_BxL, columns_BxL)], -1)
  factor = torch.polar(torch.ones_like(angle_BxLxK), angle_BxLxK)[:, None]
  pairs = torch.view_as_complex(
      x_BxHxLxK.unflatten(-1, (-1, 2)).contiguous())
  return torch.view_as_real(pairs * factor).flatten(-2)


class Attention(nn.Module):

  def __init__(self, width, heads):
    super().__init__()
    self.heads, head_dim = heads, width // heads
    self.qkv_proj = nn.Linear(width, 3 * width, bias=False)
    self.norm_q = nn.RMSNorm(head_dim, eps=1e-6)
    self.norm_k = nn.RMSNorm(head_dim, eps=1e-6)
    self.out_proj = nn.Linear(width, width, bias=False)

  def forward(self, x, rows, columns, mask):
    q, k, v = (y.unflatten(-1, (self.heads, -1)).transpose(1, 2)
               for y in self.qkv_proj(x).chunk(3, -1))
    q = turn(self.norm_q(q), rows, columns)
    k = turn(self.norm_k(k), rows, columns)
    pairs = mask[:, None, :, None] & mask[:, None, None]
    # A padding token attends to itself alone, as softmax needs something.
    pairs = pairs | torch.eye(x.shape[1], dtype=torch.bool)
    o = F.scaled_dot_product_attention(q, k, v, attn_mask=pairs)
    return self.out_proj(o.transpose(1, 2).flatten(-2))


class FFN(nn.Module):

  def __init__(self, width, hidden):
    super().__init__()
    self.fc1 = nn.Linear(width, 2 * hidden, bias=False)
    self.fc2 = nn.Linear(hidden, width, bias=False)

  def forward(self, x):
    value, gate = self.fc1(x).chunk(2, -1)
    return self.fc2(F.silu(gate) * value)


class LayerScale(nn.Module):

  def __init__(self, width):
    super().__init__()
    self.gamma = nn.Parameter(torch.full((width,), 1e-4))

  def forward(self, x):
    return self.gamma * x


class Block(nn.Module):

  def __init__(self, width, heads):
    super().__init__()
    hidden = (int(2.67 * width) + 8) // 16 * 16
    self.norm1 = nn.RMSNorm(width, eps=1e-6)
    self.attn = Attention(width, heads)
    self.ffn = FFN(width, hidden)
    self.layer_scale = LayerScale(width)

  def forward(self, x, *where):
    n = self.norm1(x)
    return x + self.layer_scale(self.attn(n, *where) + self.ffn(n))


class Encoder(nn.Module):
  """Flattened patches to codes; also the tokens after every block."""

  def __init__(self, width, depth, heads, patch, channels):
    super().__init__()
    self.patch_embed = nn.Linear(3 * patch**2, width)
    self.encoder_blocks = nn.ModuleList(
        Block(width, heads) for _ in range(depth))
    self.to_code = nn.Linear(width, channels)

  def forward(self, patches, *where):
    x, states = self.patch_embed(patches), []
    for block in self.encoder_blocks:
      x = block(x, *where)
      states.append(x)
    z = self.to_code(x)
    return F.layer_norm(z, z.shape[-1:], eps=1e-6), states


class Decoder(nn.Module):
  """Codes to flattened patches; also the tokens after every block."""

  def __init__(self, width, depth, heads, patch, channels):
    super().__init__()
    self.decoder_embed = nn.Linear(channels, width)
    self.decoder_blocks = nn.ModuleList(
        Block(width, heads) for _ in range(depth))
    self.to_pixels = nn.Linear(width, 3 * patch**2)

  def forward(self, z, *where):
    x, states = self.decoder_embed(z), []
    for block in self.decoder_blocks:
      x = block(x, *where)
      states.append(x)
    return self.to_pixels(x), states


def patches(image_BxCxHxW, patch):
  """(B, L, 3 p p), a patch flattened colour, row, column."""
  return F.unfold(image_BxCxHxW, patch, stride=patch).transpose(1, 2)


def image(patches_BxLxP, height, width, patch):
  return F.fold(patches_BxLxP.transpose(1, 2), (height, width), patch,
                stride=patch)
