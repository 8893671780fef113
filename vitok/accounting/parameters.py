"""Every parameter of an auto-encoder, without building it.

`parameters(spec)` lists paths, shapes and logical axis names exactly as the
modules in `vitok/models` make them; tests compare the two trees. The patch
embedding belongs to the encoder, the un-embedding to the decoder, the linear
maps to and from the code to the bottleneck.

Against the paper's table 1 (a ViT with a position table, as timm counts it):

          paper       here
  S      43.3 M     43.1 M  -0.4%
  B      85.8 M     85.7 M  -0.2%
  L     383.7 M    383.5 M  -0.1%

The paper counts a table of 197 positions, which axial RoPE does not have, a
GELU MLP of ratio 4 where SwiGLU has three matrices of 8/3 the width, and no
bottleneck; for one tower here that is its embedding, blocks and final norm.
"""

import dataclasses
import functools
import math

from vitok import sizes
from vitok.accounting import sharding as sharding_lib

PARTS = ('encoder', 'bottleneck', 'decoder')
# Fields of `config.model` that `Spec` takes as they are.
OPTIONS = ('mlp', 'norm', 'positions', 'block', 'layer_scale', 'qk_norm',
           'bias', 'key_bias', 'sub_norm', 'final_norm', 'cls', 'projection',
           'head', 'window', 'keep')


@dataclasses.dataclass(frozen=True)
class Spec:
  """What determines the arithmetic of an auto-encoder.

  Attributes:
    size: dimensions.
    frames, resolution: of a clip, in frames and pixels.
    code_projection: width of the projection to the code in units of its
      channels; 2 where it makes a mean and a log-variance.
    token_bits: log2 of the codes of a token; None where they are floats.
    codebook: shape of the entries that tokens are compared with, their stages,
      parts, number and channels; () for none. Parameters if `trained`.
    joint: soft codes of a token, over its parts and stages, whose mean over
      tokens is a product of two halves of its bits.
    mlp, norm, positions, block, layer_scale, qk_norm, bias, key_bias,
      sub_norm, final_norm, cls, projection, head, window, keep: as in
      `config.model`.
  """
  size: sizes.Size
  frames: int
  resolution: int
  mlp: str = 'swiglu'
  norm: str = 'layernorm'
  positions: str = 'rope2d'
  code_projection: int = 2
  token_bits: float | None = None
  codebook: tuple[int, ...] = ()
  trained: bool = False
  joint: int = 0
  block: str = 'sequential'
  layer_scale: float = 0.0
  qk_norm: bool = False
  bias: bool = True
  key_bias: bool = True
  sub_norm: bool = False
  final_norm: bool = True
  cls: bool = False
  projection: str = 'linear'
  head: str = 'linear'
  window: int = 0
  keep: tuple[int, ...] = ()

  @property
  def tokens(self) -> int:
    """Of the code."""
    return self.size.tokens(self.frames, self.resolution)

  @property
  def patches(self) -> int:
    return self.size.patches(self.frames, self.resolution)

  def sequence(self, part: str) -> int:
    """Tokens in a tower's blocks: patches, latents, the encoder's CLS."""
    first = int(self.cls and part == 'encoder')
    return first + self.patches + self.size.latents

  def attended(self, part: str) -> int:
    """Tokens that a token of a tower attends to."""
    steps = self.frames // self.size.tubelet
    return self.sequence(part) // (steps // (self.window or steps))

  def placed(self, part: str) -> int:
    """Tokens of a tower to which fixed or learned positions are added."""
    # Positions of the encoder's latents are what they are learned from.
    return self.sequence(part) - (
        self.size.latents if part == 'encoder' else 0)

  @property
  def table(self) -> bool:
    """Whether positions are learned vectors."""
    return self.positions.endswith('learned')

  @property
  def towers(self) -> dict[str, sizes.Tower]:
    return {'encoder': self.size.encoder, 'decoder': self.size.decoder}


@dataclasses.dataclass(frozen=True)
class Parameter:
  """One array: its path, shape and the logical name of each axis."""
  path: str
  shape: tuple[int, ...]
  axes: tuple[str, ...]

  @property
  def part(self) -> str:
    """'encoder', 'bottleneck' or 'decoder'."""
    return self.path.split('/')[0].split('_')[0]

  @property
  def size(self) -> int:
    return math.prod(self.shape)


def parameters(spec: Spec) -> list[Parameter]:
  """All parameters, in the order of their paths."""
  size = spec.size
  encoder, decoder = size.encoder.width, size.decoder.width
  code = spec.code_projection * size.channels
  if spec.projection == 'mlp':
    made = [*_linear('bottleneck/down_hidden', embed=encoder, mlp=encoder),
            *_linear('bottleneck/down', mlp=encoder, code=code),
            *_linear('bottleneck_up_hidden', code=size.channels, mlp=decoder),
            *_linear('bottleneck_up', mlp=decoder, embed=decoder)]
  else:
    made = [*_linear('bottleneck/down', embed=encoder, code=code),
            *_linear('bottleneck_up', code=size.channels, embed=decoder)]
  if spec.trained:
    made.append(Parameter('bottleneck/codebook', spec.codebook,
                          (None, None, None, 'code')))
  made += _linear('encoder/embed', patch=size.patch_dim, embed=encoder)
  if spec.head == 'tanh':
    hidden = size.decoder.hidden(spec.mlp)
    made += _linear('decoder/unembed_hidden', embed=decoder, mlp=hidden)
    made += _linear('decoder/unembed', mlp=hidden, patch=size.patch_dim)
  else:
    made += _linear('decoder/unembed', embed=decoder, patch=size.patch_dim)
  if spec.cls:
    made.append(Parameter('encoder/cls', (encoder,), ('embed',)))
  if size.latents:
    made += [Parameter('encoder/latents', (size.latents, encoder),
                       ('tokens', 'embed')),
             Parameter('decoder/mask', (decoder,), ('embed',))]
  if spec.keep:
    made.append(Parameter('bottleneck_mask', (size.channels,), ('code',)))
  for part, tower in spec.towers.items():
    if spec.final_norm:
      made += _norm(f'{part}/norm', spec.norm, tower.width)
    if spec.table:
      made.append(Parameter(
          f'{part}/positions', (spec.placed(part), tower.width),
          ('tokens', 'embed')))
    made += [
        Parameter(p.path, (tower.depth, *p.shape),
                  (sharding_lib.LAYERS, *p.axes))
        for p in _block(f'{part}/blocks', tower, spec)]
  return sorted(made, key=lambda p: p.path)


def count(made: list[Parameter]) -> dict[str, int]:
  """Numbers in each part and in total."""
  counts = {part: sum(p.size for p in made if p.part == part)
            for part in PARTS}
  return counts | {'total': sum(counts.values())}


def per_device(made: list[Parameter], mesh: dict[str, int],
               sharding=None) -> int:
  """Numbers that one device of a mesh holds.

  Args:
    made: from `parameters`.
    mesh: sizes of `sharding.AXES`.
    sharding: as `config.sharding`; `None` is the default config's.
  """
  return sum(p.size // sharding_lib.ways(p.shape, p.axes, mesh, sharding)
             for p in made)


def _block(path, tower, spec):
  width, hidden = tower.width, tower.hidden(spec.mlp)
  up = ('gate', 'value') if spec.mlp == 'swiglu' else ('up',)
  linear = functools.partial(_linear, bias=spec.bias)
  made = [
      *_linear(f'{path}/attention/qkv', embed=width, heads=3 * width,
               bias=spec.bias and spec.key_bias),
      *linear(f'{path}/attention/out', heads=width, embed=width),
      *[p for name in up
        for p in linear(f'{path}/mlp/{name}', embed=width, mlp=hidden)],
      *linear(f'{path}/mlp/down', mlp=hidden, embed=width),
  ]
  if spec.bias and not spec.key_bias:
    made += [Parameter(f'{path}/attention/{name}', (width,), ('heads',))
             for name in ('q_bias', 'v_bias')]
  if spec.sub_norm:
    made += _norm(f'{path}/attention/sub_norm', spec.norm, width)
    made += _norm(f'{path}/mlp/sub_norm', spec.norm, hidden)
  for i in range(1, 2 if spec.block == 'parallel' else 3):
    made += _norm(f'{path}/norm{i}', spec.norm, width)
    if spec.layer_scale:
      made.append(Parameter(f'{path}/layer_scale{i}', (width,), ('embed',)))
  if spec.qk_norm:
    for name in ('norm_q', 'norm_k'):
      made += _norm(f'{path}/attention/{name}', 'rmsnorm', tower.head_dim)
  return made


def _linear(path, *, bias=True, **axes):
  """Kernel over the two `axes`, bias over the second."""
  names, shape = tuple(axes), tuple(axes.values())
  made = [Parameter(f'{path}/kernel', shape, names),
          Parameter(f'{path}/bias', shape[1:], names[1:])]
  return made if bias else made[:1]


def _norm(path, norm, width):
  vectors = ('scale', 'bias') if norm == 'layernorm' else ('scale',)
  return [Parameter(f'{path}/{name}', (width,), ('embed',))
          for name in vectors]
