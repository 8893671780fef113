"""Bytes that a training step needs on each device.

Parameters, gradients, AdamW's two moments and the moving average are float32
and lie where `config.sharding` puts them. Batches are split over `replica` and
`fsdp`; heads and hidden units also over `tensor`.

Activations are what the forward pass of the loop over blocks leaves for the
backward pass, by remat policy, plus what the block that is being
differentiated works with: its own stored values once more (taken out of the
stack, or recomputed) and the gradients of some of them. The stored values are
exact (a test reads the slope over depth from XLA's buffer assignment); the
working set is a fit to it, and together they are within 15% (mostly 3%) of
XLA's temporary memory on CPU in float32. An accelerator's scheduler may do
better or worse by the working set.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vitok.accounting import parameters as parameters_lib
from vitok.accounting import sharding as sharding_lib
from vitok.accounting.parameters import Parameter, Spec

BYTES = {'float32': 4, 'bfloat16': 2}


def memory(spec: Spec, *, batch: int = 1, remat: str = 'none',
           dtype: str = 'float32', attention: str = 'xla', ema: bool = False,
           mesh: dict[str, int] | None = None,
           sharding: Any = None) -> dict[str, int]:
  """Bytes per device of a training step, by what they hold, and in total.

  Args:
    spec: the model.
    batch: examples per step (per micro-batch, if it accumulates) of all
      devices together.
    remat, dtype, attention: as in `config.model`.
    ema: whether a moving average of the parameters is kept.
    mesh: sizes of `sharding.AXES`; `None` is one device.
    sharding: `config.sharding`; `None` is the default config's.

  Returns:
    'parameters', 'gradients' (and once more those of the block that is being
    differentiated, before they join the stack), 'optimizer', 'ema',
    'activations', 'gathered' (one block's parameters, under FSDP), 'total'.
  """
  return of_parts(
      parameters_lib.parameters(spec),
      {f'{part}/blocks/': tower.depth for part, tower in spec.towers.items()},
      lambda tensor: activations(spec, remat, dtype, attention, tensor),
      batch=batch, dtype=dtype, ema=ema, mesh=mesh, sharding=sharding)


def of_parts(made: Sequence[Parameter], depths: Mapping[str, int],
             activations: Callable[[int], int], *, batch: int, dtype: str,
             ema: bool, mesh: dict[str, int] | None, sharding: Any
             ) -> dict[str, int]:
  """As `memory`, of any network that is made of stacks of blocks.

  Args:
    made: all parameters.
    depths: {start of a stack's paths: its blocks}.
    activations: size of `tensor` -> bytes of one example.
    batch, dtype, ema, mesh, sharding: as for `memory`.
  """
  mesh = mesh or dict.fromkeys(sharding_lib.AXES, 1)
  held = 4 * parameters_lib.per_device(made, mesh, sharding)
  local = -(-batch // (mesh['replica'] * mesh['fsdp']))
  block = max(
      parameters_lib.per_device(
          [p for p in made if p.path.startswith(start)],
          dict(mesh, fsdp=1), sharding) // depth
      for start, depth in depths.items())
  parts = {
      'parameters': held,
      'gradients': held + 4 * block,
      'optimizer': 2 * held,
      'ema': held if ema else 0,
      'activations': local * activations(mesh['tensor']),
      'gathered': BYTES[dtype] * block if mesh['fsdp'] > 1 else 0,
  }
  return parts | {'total': sum(parts.values())}


def activations(spec: Spec, remat: str = 'none', dtype: str = 'float32',
                attention: str = 'xla', tensor: int = 1) -> int:
  """Bytes of one example: patches, what blocks and what hidden layers before
  and after them store, what one block works with."""
  options = dtype, attention, tensor
  stored = sum(tower.depth * stored_by_block(spec, part, remat, *options)
               for part, tower in spec.towers.items())
  gradients = {part: spec.sequence(part) * BYTES[dtype] for part in spec.towers}
  working = max(stored_by_block(spec, part, 'none', *options)
                + gradients[part] * 3 * tower.hidden(spec.mlp) // tensor
                + gradients[part] * (9 if remat == 'full' else 0) * tower.width
                for part, tower in spec.towers.items())
  if spec.codebook:  # The distances of all tokens, between the towers.
    _, parts, entries, _ = spec.codebook
    working = max(working, 4 * spec.tokens * parts * entries)
  patches = spec.patches * 4 * spec.size.patch_dim
  return patches + stored + ends(spec, dtype, tensor) + working


def ends(spec: Spec, dtype: str = 'float32', tensor: int = 1) -> int:
  """Bytes of one example that hidden layers outside of the blocks keep."""
  units = 0
  if spec.projection == 'mlp':  # What their GELU is given, and what it makes.
    units += 2 * spec.tokens * sum(t.width for t in spec.towers.values())
  if spec.head == 'tanh':
    units += spec.patches * spec.size.decoder.hidden(spec.mlp)
  return BYTES[dtype] * units // tensor


def stored_by_block(spec: Spec, part: str, remat: str = 'none',
                    dtype: str = 'float32', attention: str = 'xla',
                    tensor: int = 1) -> int:
  """Bytes of one example that a block of a tower keeps for its backward
  pass."""
  tower, tokens = spec.towers[part], spec.sequence(part)
  b, width = BYTES[dtype], tower.width
  hidden, up = tower.hidden(spec.mlp), 2 if spec.mlp == 'swiglu' else 1
  if remat == 'full':  # Its input.
    return tokens * b * width
  if remat == 'dots':  # Its input and the outputs of all products but the last.
    return tokens * b * (2 * width + (3 * width + up * hidden) // tensor)
  # The inputs of norms (2) and of products (qkv, gate and value or up; q, k, v,
  # weights, the output of attention, down) and of the nonlinearity. A fused
  # kernel stores no weights. LayerScale stores what it scales, a norm before
  # the last product of a branch its input.
  branches = 1 if spec.block == 'parallel' else 2
  weights = 0 if attention == 'cudnn' else tower.heads * spec.attended(part)
  split = (6 if spec.qk_norm else 4) * width + weights + (1 + up) * hidden
  if spec.sub_norm:
    split += width + hidden
  whole = (3 if spec.layer_scale else 2) * branches * width
  return tokens * b * (whole + split // tensor)
