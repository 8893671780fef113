"""Work of an auto-encoder per example: matrix products and element-wise.

A MAC is one multiply-accumulate, a FLOP half of one: FLOP = 2 MAC. Products
are counted as they are written (a batch of one, nothing recomputed, causal or
padded tricks there are none): the linear maps of `parameters`, and queries x
keys and weights x values, L * L * width each. Where latent tokens are the code,
both towers work on patches and latents, the bottleneck on latents. A CLS token
is one more of the encoder's. The backward
pass computes two products for each one of the forward pass, but for the patch
embedding, whose input needs no gradient, and for the search of a codebook,
which has none.

The paper's "GFLOPs" (table 1) are MACs of a forward pass at 256 tokens:

               paper    here            paper    here
  S             11.6    11.6   S-B/16    34.8    34.7
  B             23.1    23.1   at 512p  160.8   160.7
  L            101.8   101.7   S-L/16   113.4   113.3

and for 16 frames of 128 x 128: S-B/4x8 160.8 (160.7), S-B/8x8 73.2 (73.8),
S-B/4x16 34.8 (35.6). The paper's clips cost what images of as many tokens
cost, that is, without the wider patch embedding and un-embedding of a tubelet:
3072 numbers instead of 768 make S-B/4x16 2.6% dearer.

Element-wise work is what XLA counts beside the products: one FLOP for each
addition, multiplication, division or comparison, none for exp or rsqrt. The
table below is per number, measured on the compiled modules (XLA repeats a
cheap producer where that saves memory, and such repeats are counted). The sum
is within 1% of `cost_analysis` of the unrolled, un-rematerialised program at
any width (measured from width 96: 0.2% forward, 0.4% training step). Products
alone are within 1% from width 512 on with SwiGLU. With GELU they are not: the
polynomials of an exact error function are 64 FLOP per hidden unit on XLA's CPU
backend, 2.5% of a forward pass at width 512 and 1.7% at 768.
"""

import math

from vitok.accounting.parameters import PARTS, Spec

# Operations per number, (forward, training step).
_BIAS = (1, 2)  # Per output of a linear map.
_NORM = {'layernorm': (8, 23), 'rmsnorm': (4, 14)}  # Per channel.
_MLP = {'swiglu': (5, 20), 'gelu': (64, 85)}  # Per hidden unit.
_LOGITS = (5, 17)  # Scale, maximum, subtract, sum, divide.
_TANH = (0, 4)  # Per hidden unit of a head.
_SPLIT = (6, 15)  # Queries, keys, values out of one product, per channel.
_ROTATE = (6, 12)  # Queries and keys, per channel of the width.
_RESIDUAL = (2, 4)  # Two additions a block, per channel.
_SCALE = (1, 4)  # LayerScale of a branch, per channel.
_SAMPLE = 200  # Random bits, normal, KL per float of a sampled code.
_ADAMW = 20  # Clip, moments, decay, update per parameter.


def macs(spec: Spec) -> dict[str, int]:
  """Multiply-accumulates of a forward pass by part, and their total."""
  size = spec.size
  counts = {'bottleneck': spec.tokens * (
      _down(spec) + _search(spec) + spec.joint) + up(spec)}
  for part, tower in spec.towers.items():
    counts[part] = spec.sequence(part) * sum(_blocks(spec, part).values())
    if part == 'decoder' and spec.head == 'tanh':
      counts[part] += spec.patches * tower.hidden(spec.mlp) * (
          tower.width + size.patch_dim)
    else:
      counts[part] += spec.patches * tower.width * size.patch_dim
  counts = {part: counts[part] for part in PARTS}
  return counts | {'total': sum(counts.values())}


def up(spec: Spec) -> int:
  """MACs from the code to the decoder, a share of the bottleneck's."""
  width = spec.size.decoder.width
  return spec.tokens * width * (
      spec.size.channels + (width if spec.projection == 'mlp' else 0))


def _down(spec):
  """MACs per token from the encoder to the code."""
  width = spec.size.encoder.width
  return width * (spec.code_projection * spec.size.channels
                  + (width if spec.projection == 'mlp' else 0))


def forward(spec: Spec) -> dict[str, int]:
  """FLOPs of the matrix products of a forward pass by part, and in total."""
  return {part: 2 * n for part, n in macs(spec).items()}


def train_step(spec: Spec) -> dict[str, int]:
  """FLOPs of the matrix products of forward and backward pass by part.

  Three times the forward pass less the input gradient of the patch embedding;
  neither the optimizer's update nor what rematerialisation repeats.
  """
  flops = {part: 3 * n for part, n in forward(spec).items()}
  unneeded = 2 * spec.patches * spec.size.patch_dim * spec.size.encoder.width
  search = 2 * 2 * spec.tokens * _search(spec)
  return flops | {'encoder': flops['encoder'] - unneeded,
                  'bottleneck': flops['bottleneck'] - search,
                  'total': flops['total'] - unneeded - search}


def _search(spec: Spec) -> int:
  """MACs per token to compare it with a codebook, which has no gradient."""
  return math.prod(spec.codebook) if spec.codebook else 0


def elementwise(spec: Spec, train: bool = False) -> int:
  """FLOPs beside the matrix products, of a forward pass or training step."""
  i, size = int(train), spec.size
  maps = 2 if spec.mlp == 'swiglu' else 1
  total = _BIAS[i] * (
      spec.patches * (size.encoder.width + size.patch_dim) + spec.tokens * (
          size.decoder.width + spec.code_projection * size.channels))
  if spec.projection == 'mlp':
    total += spec.tokens * (size.encoder.width + size.decoder.width) * (
        _BIAS[i] + _MLP['gelu'][i])
  if spec.head == 'tanh':
    total += spec.patches * size.decoder.hidden(spec.mlp) * (
        _BIAS[i] + _TANH[i])
  # What the last norm of each tower sees.
  kept = {'encoder': 1 if spec.cls else spec.tokens, 'decoder': spec.patches}
  for part, tower in spec.towers.items():
    width, hidden = tower.width, tower.hidden(spec.mlp)
    branches = 1 if spec.block == 'parallel' else 2
    bias = _BIAS[i] if spec.bias else 0
    biases = 5 if spec.key_bias else 4
    channel = (branches * _NORM[spec.norm][i] + biases * bias + _SPLIT[i]
               + _RESIDUAL[i])
    if spec.layer_scale:
      channel += branches * _SCALE[i]
    if spec.qk_norm:
      channel += 2 * _NORM['rmsnorm'][i]
    if spec.positions.startswith('rope'):
      channel += _ROTATE[i]
    block = (width * channel + hidden * (_MLP[spec.mlp][i] + maps * bias)
             + tower.heads * spec.attended(part) * _LOGITS[i])
    if spec.sub_norm:
      block += (width + hidden) * _NORM[spec.norm][i]
    total += spec.sequence(part) * tower.depth * block
    if spec.final_norm:
      total += kept[part] * width * _NORM[spec.norm][i]
    if spec.table or spec.positions == 'sincos':
      total += spec.placed(part) * width * _BIAS[i]
  if train and spec.code_projection == 2:
    total += spec.tokens * _SAMPLE * size.channels
  return total


def recomputed(spec: Spec, remat: str) -> int:
  """FLOPs of products that a training step repeats under a remat policy.

  'full' repeats all of a block but its last product, whose output nothing
  needs; 'dots' keeps linear maps and repeats the attention products.
  """
  repeated = {'none': (), 'dots': ('attend',),
              'full': ('attend', 'qkv', 'out', 'up')}[remat]
  return 2 * sum(spec.sequence(part) * _blocks(spec, part)[name]
                 for part in spec.towers for name in repeated)


def optimizer_step(parameters: int) -> int:
  """FLOPs of one AdamW update with clipping, for the whole batch."""
  return _ADAMW * parameters


def _blocks(spec: Spec, part: str) -> dict[str, int]:
  """MACs per token of all blocks of a tower, by product."""
  tower = spec.towers[part]
  width, hidden = tower.width, tower.hidden(spec.mlp)
  maps = 2 if spec.mlp == 'swiglu' else 1
  one = {'qkv': 3 * width**2, 'attend': 2 * spec.attended(part) * width,
         'out': width**2, 'up': maps * width * hidden, 'down': width * hidden}
  return {name: tower.depth * n for name, n in one.items()}
