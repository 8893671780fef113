"""QLIP's visual model in PyTorch by its published names, written from the
description of arXiv 2502.05178 and of its release, apart from ours.

Dimensions: B batch, L tokens, D width, H heads, K head dimension, F hidden.
"""

import torch
from torch import nn
from torch.nn import functional as F

WIDE = 16  # Positions along a side of the grid that RoPE was pretrained on.
EPS = 1e-6


def tables(side, head_dim):
  """Cosines and sines (L, K) of a square grid, each for both of a pair."""
  half = head_dim // 2
  frequency = 10000.0**(-torch.arange(0, half, 2).double() / half)
  place = torch.arange(side).double() / side * WIDE
  angle = torch.outer(place, frequency).repeat_interleave(2, -1)
  rows = angle[:, None].expand(side, side, half)
  columns = angle[None].expand(side, side, half)
  angle = torch.cat([rows, columns], -1).reshape(side * side, head_dim)
  return angle.cos(), angle.sin()


def turn(x_BxHxLxK, cos, sin):
  """Pairs (a, b) to (a cos - b sin, b cos + a sin); the last L of them."""
  first = x_BxHxLxK.shape[2] - len(cos)
  skipped, x = x_BxHxLxK[:, :, :first], x_BxHxLxK[:, :, first:]
  swapped = torch.stack([-x[..., 1::2], x[..., ::2]], -1).flatten(-2)
  return torch.cat([skipped, x * cos + swapped * sin], 2)


class Attention(nn.Module):

  def __init__(self, width, heads):
    super().__init__()
    self.heads = heads
    self.q_proj = nn.Linear(width, width)
    self.k_proj = nn.Linear(width, width, bias=False)
    self.v_proj = nn.Linear(width, width)
    self.inner_attn_ln = nn.LayerNorm(width, eps=EPS)
    self.out_proj = nn.Linear(width, width)

  def forward(self, x, cos, sin):
    q, k, v = (p(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
               for p in (self.q_proj, self.k_proj, self.v_proj))
    q = turn(q * q.shape[-1]**-0.5, cos, sin)
    weights = (q @ turn(k, cos, sin).transpose(-1, -2)).softmax(-1)
    o = (weights @ v).transpose(1, 2).flatten(-2)
    return self.out_proj(self.inner_attn_ln(o))


class SwiGLU(nn.Module):

  def __init__(self, width, hidden):
    super().__init__()
    self.w1 = nn.Linear(width, hidden)
    self.w2 = nn.Linear(width, hidden)
    self.ffn_ln = nn.LayerNorm(hidden, eps=EPS)
    self.w3 = nn.Linear(hidden, width)

  def forward(self, x):
    return self.w3(self.ffn_ln(F.silu(self.w1(x)) * self.w2(x)))


class Layer(nn.Module):

  def __init__(self, width, heads, hidden):
    super().__init__()
    self.layer_norm1 = nn.LayerNorm(width, eps=EPS)
    self.self_attn = Attention(width, heads)
    self.layer_norm2 = nn.LayerNorm(width, eps=EPS)
    self.mlp = SwiGLU(width, hidden)

  def forward(self, x, cos, sin):
    x = x + self.self_attn(self.layer_norm1(x), cos, sin)
    return x + self.mlp(self.layer_norm2(x))


class Layers(nn.Module):

  def __init__(self, depth, *sizes):
    super().__init__()
    self.layers = nn.ModuleList(Layer(*sizes) for _ in range(depth))

  def forward(self, x, *where):
    """Tokens, and those after every layer."""
    states = []
    for layer in self.layers:
      x = layer(x, *where)
      states.append(x)
    return x, states


class Embeddings(nn.Module):

  def __init__(self, width, patch, tokens):
    super().__init__()
    self.class_embedding = nn.Parameter(torch.zeros(width))
    self.patch_embedding = nn.Conv2d(3, width, patch, patch)
    self.position_embedding = nn.Embedding(1 + tokens, width)

  def forward(self, pixels_BxCxHxW):
    x = self.patch_embedding(pixels_BxCxHxW).flatten(2).transpose(1, 2)
    first = self.class_embedding.expand(len(x), 1, -1)
    return torch.cat([first, x], 1) + self.position_embedding.weight


class Projection(nn.Module):

  def __init__(self, inputs, hidden, outputs):
    super().__init__()
    self.c_fc = nn.Linear(inputs, hidden)
    self.c_proj = nn.Linear(hidden, outputs)

  def forward(self, x):
    return self.c_proj(F.gelu(self.c_fc(x)))


class VisionModel(nn.Module):
  """Pixels to bits on the sphere, as the decoder gets them, CLS and states."""

  def __init__(self, tower, hidden, patch, side, bits, decoder_width):
    super().__init__()
    self.where = tables(side, tower.head_dim)
    self.embeddings = Embeddings(tower.width, patch, side * side)
    self.encoder = Layers(tower.depth, tower.width, tower.heads, hidden)
    self.post_layernorm = nn.LayerNorm(tower.width, eps=EPS)
    self.quant_embed = Projection(tower.width, tower.width, bits)
    self.quant_embed_post = Projection(bits, decoder_width, decoder_width)

  def forward(self, pixels_BxCxHxW):
    x, states = self.encoder(self.embeddings(pixels_BxCxHxW), *self.where)
    u = F.normalize(self.quant_embed(x[:, 1:]), dim=-1)
    code = torch.where(u > 0, 1.0, -1.0).to(u) * u.shape[-1]**-0.5
    return dict(code=code, post=self.quant_embed_post(code), states=states,
                cls=self.post_layernorm(x[:, 0]))


class VisionDecoder(nn.Module):
  """Projected codes to pixels, and the tokens after every layer."""

  def __init__(self, tower, hidden, patch, side):
    super().__init__()
    self.where, self.patch = tables(side, tower.head_dim), patch
    self.position_embeddings = nn.Parameter(
        torch.zeros(1, side * side, tower.width))
    self.encoder = Layers(tower.depth, tower.width, tower.heads, hidden)
    self.norm = nn.LayerNorm(tower.width, eps=EPS)
    self.ffn = nn.Sequential(nn.Linear(tower.width, hidden), nn.Tanh())
    self.conv_out = nn.Linear(hidden, 3 * patch**2)

  def forward(self, post_BxLxD):
    x, states = self.encoder(post_BxLxD + self.position_embeddings,
                             *self.where)
    patches = self.conv_out(self.ffn(self.norm(x))).transpose(1, 2)
    side = int(patches.shape[-1]**0.5) * self.patch
    return F.fold(patches, side, self.patch, stride=self.patch), states


class QLIP(nn.Module):
  """Both halves, of an auto-encoder's `sizes.Size` and `side` patches."""

  def __init__(self, size, side):
    super().__init__()
    hidden = [t.hidden('swiglu') for t in (size.encoder, size.decoder)]
    self.vision_model = VisionModel(
        size.encoder, hidden[0], size.patch, side, size.channels,
        size.decoder.width)
    self.vision_decoder = VisionDecoder(
        size.decoder, hidden[1], size.patch, side)
