"""Sizes, parameters and work of a DiT (`models.dit`), without building it.

Against what is published (arXiv 2212.09748, table 4; `XL/2` at 256 pixels is
256 tokens of 16 numbers in, 32 out, a GELU MLP and 1000 classes):

              published     here
  DiT-XL        675 M    674.8 M    118.6 GMAC    118.6 GMAC
  DiT-L         458 M    457.8 M     80.7 GMAC     80.7 GMAC

Here the outputs are as many as the inputs (no learned variance), which is a
few thousand parameters less. A SwiGLU of 2/3 the width costs the same as the
GELU MLP that it replaces, but for rounding.

MACs and FLOPs are those of `vitok.accounting.flops`: of one example, products
as they are written, FLOP = 2 MAC. Products alone are within 1% of XLA's count
of the unrolled program from width 512 on.

Dimensions: B batch, L tokens, D width, c channels of the code.
"""

import dataclasses
from typing import Any

from vitok import errors, sizes
from vitok.accounting import flops as flops_lib
from vitok.accounting import memory as memory_lib
from vitok.accounting import resolve_mesh
from vitok.accounting import sharding as sharding_lib
from vitok.accounting.memory import BYTES
from vitok.accounting.parameters import Parameter

# S, B, L and XL are the paper's, the others ours for a few CPU cores. A DiT's
# S and L are narrower than the S and L of an auto-encoder (`sizes.TOWERS`).
SIZES = {
    'F': sizes.Tower(96, 2, 3),
    'T': sizes.Tower(192, 4, 3),
    'M': sizes.Tower(384, 6, 6),
    'S': sizes.Tower(384, 12, 6),
    'B': sizes.Tower(768, 12, 12),
    'L': sizes.Tower(1024, 24, 16),
    'XL': sizes.Tower(1152, 28, 16),
}
TIME_FEATURES = 256  # Cosines and sines of the time.
# The modulations belong to 'conditioning': a third of all parameters, and next
# to no work, since there is one condition an example, not one a token.
PARTS = ('conditioning', 'blocks', 'ends')


def describe(spec: 'Spec', *, batch: int = 1, remat: str = 'none',
             dtype: str = 'float32', attention: str = 'xla', ema: bool = False,
             mesh: Any = None, sharding: Any = None, devices: int = 1
             ) -> dict[str, Any]:
  """What a DiT costs, as plain numbers.

  Args:
    spec: the DiT.
    batch, remat, dtype, attention, ema, mesh, sharding, devices: as in
      `accounting.describe`.

  Returns:
    tokens, code_floats, parameters and macs by part and in total, flops
    {forward, train_step, by_part, recomputed, optimizer_step} and memory, all
    as `accounting.describe` has them. Without the tokenizer.
  """
  mesh = resolve_mesh(mesh, devices)
  counts = count(parameters(spec))
  passed, step = forward(spec), train_step(spec)
  return {
      'tokens': spec.tokens,
      'code_floats': spec.tokens * spec.channels,
      'parameters': counts,
      'macs': macs(spec),
      'flops': {
          'forward': passed['total'],
          'train_step': step['total'],
          'by_part': {'forward': passed, 'train_step': step},
          'recomputed': recomputed(spec, remat),
          'optimizer_step': flops_lib.optimizer_step(counts['total']),
      },
      'memory': memory(spec, batch=batch, remat=remat, dtype=dtype,
                       attention=attention, ema=ema, mesh=mesh,
                       sharding=sharding),
  }


def memory(spec: 'Spec', *, batch: int = 1, remat: str = 'none',
           dtype: str = 'float32', attention: str = 'xla', ema: bool = False,
           mesh: dict[str, int] | None = None, sharding: Any = None
           ) -> dict[str, int]:
  """Bytes per device of a training step, as `accounting.memory.memory`."""
  return memory_lib.of_parts(
      parameters(spec), {'blocks/': spec.tower.depth},
      lambda tensor: activations(spec, remat, dtype, attention, tensor),
      batch=batch, dtype=dtype, ema=ema, mesh=mesh, sharding=sharding)


def activations(spec: 'Spec', remat: str = 'none', dtype: str = 'float32',
                attention: str = 'xla', tensor: int = 1) -> int:
  """Bytes of one example: what blocks store, and what one works with.

  The first is XLA's to 2% (a test reads the slope over depth), the second, a
  block's stored values and some gradients, a fit: together within 10%.
  """
  options = dtype, attention, tensor
  tower, gradients = spec.tower, spec.tokens * BYTES[dtype]
  hidden, width = {'none': (0, 0), 'dots': (2, 0), 'full': (3, 5)}[remat]
  return (tower.depth * stored_by_block(spec, remat, *options)
          + stored_by_block(spec, 'none', *options)
          + gradients * hidden * tower.hidden(spec.mlp) // tensor
          + gradients * width * tower.width)


def stored_by_block(spec: 'Spec', remat: str = 'none', dtype: str = 'float32',
                    attention: str = 'xla', tensor: int = 1) -> int:
  """Bytes of one example that a block keeps for its backward pass.

  As `accounting.memory.stored_by_block`, with the outputs of both branches,
  which the gates' gradients need.
  """
  b, width, tokens = BYTES[dtype], spec.tower.width, spec.tokens
  hidden, up = spec.tower.hidden(spec.mlp), len(_up(spec.mlp))
  if remat == 'full':
    return tokens * b * width
  if remat == 'dots':
    return tokens * b * (3 * width + (3 * width + up * hidden) // tensor)
  weights = 0 if attention == 'cudnn' else spec.tower.heads * tokens
  split = 4 * width + weights + (1 + up) * hidden
  return tokens * b * (6 * width + split // tensor)


def tower_of(dit: Any) -> sizes.Tower:
  """The tower of `config.dit`: its name and what overrides it.

  Raises:
    InputError: an unknown name, or heads that do not divide the width.
  """
  errors.one_of('config.dit.name', dit.name, tuple(SIZES))
  changes = {key: dit[key] for key in (
      'width', 'depth', 'heads', 'mlp_ratio', 'mlp_width')}
  for key, value in changes.items():
    if not 0 <= value < 2**20:
      raise errors.InputError(f'config.dit.{key}', value, 'is no size', 0)
  if dit.mlp_ratio and dit.mlp_width:
    raise errors.InputError('config.dit.mlp_ratio', dit.mlp_ratio, 'is not '
                            f'read beside mlp_width={dit.mlp_width}', 0)
  tower = dataclasses.replace(SIZES[dit.name], **{
      key: value for key, value in changes.items() if value})
  if tower.width % tower.heads or tower.head_dim % 2:
    raise errors.InputError(
        'config.dit.heads', tower.heads, f'does not divide the width '
        f'{tower.width} into even parts', max(
            n for n in range(1, tower.heads + 1)
            if not tower.width % (2 * n) or n == 1))
  return tower


@dataclasses.dataclass(frozen=True)
class Spec:
  """What determines the arithmetic of a DiT.

  Attributes:
    tower: width, depth, heads, MLP ratio.
    tokens: length L of the code.
    channels: floats c of a token's code.
    classes: of the condition; the null class comes on top.
    mlp, positions: as in `config.model`.
  """
  tower: sizes.Tower
  tokens: int
  channels: int
  classes: int = 1000
  mlp: str = 'swiglu'
  positions: str = 'rope2d'


def parameters(spec: Spec) -> list[Parameter]:
  """All parameters, in the order of their paths, as the module makes them."""
  width, hidden = spec.tower.width, spec.tower.hidden(spec.mlp)
  block = [
      *_linear('attention/qkv', embed=width, heads=3 * width),
      *_linear('attention/out', heads=width, embed=width),
      *[p for name in _up(spec.mlp)
        for p in _linear(f'mlp/{name}', embed=width, mlp=hidden)],
      *_linear('mlp/down', mlp=hidden, embed=width),
      *_linear('modulation', embed=width, modulation=6 * width),
  ]
  made = [Parameter(f'blocks/{p.path}', (spec.tower.depth, *p.shape),
                    (sharding_lib.LAYERS, *p.axes)) for p in block]
  made += _linear('embed', code=spec.channels, embed=width)
  made += _linear('unembed', embed=width, code=spec.channels)
  made += _linear('time_in', frequency=TIME_FEATURES, time=width)
  made += _linear('time_out', time=width, embed=width)
  made += _linear('modulation', embed=width, modulation=2 * width)
  made.append(Parameter('classes', (spec.classes + 1, width),
                        ('classes', 'embed')))
  if spec.positions.endswith('learned'):
    made.append(Parameter('positions', (spec.tokens, width),
                          ('tokens', 'embed')))
  return sorted(made, key=lambda p: p.path)


def count(made: list[Parameter]) -> dict[str, int]:
  """Numbers in each of `PARTS` and in total."""
  counts = dict.fromkeys(PARTS, 0)
  for p in made:
    counts[_part(p.path)] += p.size
  return counts | {'total': sum(counts.values())}


def macs(spec: Spec) -> dict[str, int]:
  """Multiply-accumulates of a forward pass by part, and their total."""
  width = spec.tower.width
  counts = {
      'conditioning': width * (
          TIME_FEATURES + width * (3 + 6 * spec.tower.depth)),
      'blocks': spec.tokens * sum(_block(spec).values()),
      'ends': spec.tokens * 2 * spec.channels * width,
  }
  return counts | {'total': sum(counts.values())}


def forward(spec: Spec) -> dict[str, int]:
  """FLOPs of the matrix products of a forward pass by part, and in total."""
  return {part: 2 * n for part, n in macs(spec).items()}


def train_step(spec: Spec) -> dict[str, int]:
  """FLOPs of the matrix products of forward and backward pass by part.

  Three times the forward pass, but codes and times need no gradient. Neither
  the tokenizer that makes the codes, nor the optimizer, nor rematerialisation.
  """
  flops = {part: 3 * n for part, n in forward(spec).items()}
  codes = 2 * spec.tokens * spec.channels * spec.tower.width
  times = 2 * TIME_FEATURES * spec.tower.width
  return flops | {'conditioning': flops['conditioning'] - times,
                  'ends': flops['ends'] - codes,
                  'total': flops['total'] - times - codes}


def recomputed(spec: Spec, remat: str) -> int:
  """FLOPs of products that a training step repeats under a remat policy.

  'full' repeats all of a block, also its last product, whose output the gate's
  gradient needs. The modulations, one product an example, are left out.
  """
  products = _block(spec)
  repeated = {'none': (), 'dots': ('attend',), 'full': products}[remat]
  return 2 * spec.tokens * sum(products[name] for name in repeated)


def _up(mlp):
  return ('gate', 'value') if mlp == 'swiglu' else ('up',)


def _block(spec):
  """MACs per token of all blocks, by product."""
  width, hidden = spec.tower.width, spec.tower.hidden(spec.mlp)
  one = {'qkv': 3 * width**2, 'attend': 2 * spec.tokens * width,
         'out': width**2, 'up': len(_up(spec.mlp)) * width * hidden,
         'down': width * hidden}
  return {name: spec.tower.depth * n for name, n in one.items()}


def _part(path):
  if path.endswith(('modulation/kernel', 'modulation/bias')):
    return 'conditioning'
  first = path.split('/')[0]
  return {'blocks': 'blocks', 'embed': 'ends', 'unembed': 'ends',
          'positions': 'ends'}.get(first, 'conditioning')


def _linear(path, **axes):
  """Kernel over the two `axes`, bias over the second."""
  names, shape = tuple(axes), tuple(axes.values())
  return [Parameter(f'{path}/kernel', shape, names),
          Parameter(f'{path}/bias', shape[1:], names[1:])]
