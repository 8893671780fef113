"""Bytes that a training step needs on each device.

Parameters, gradients, AdamW's two moments and the moving average are float32
and lie where `config.sharding` puts them. Activations are what the forward
pass leaves for the backward pass, by remat policy, summed over all blocks,
plus the working set of the one block that is being differentiated; under FSDP
also that block's gathered parameters. Batches are split over `replica` and
`fsdp`, heads and hidden units over `tensor`.
"""

from typing import Any

from vitok import sizes
from vitok.accounting import parameters as parameters_lib
from vitok.accounting.parameters import Spec

BYTES = {'float32': 4, 'bfloat16': 2}
MESH = {'replica': 1, 'fsdp': 1, 'tensor': 1}


def memory(spec: Spec, *, batch: int = 1, remat: str = 'none',
           dtype: str = 'float32', ema: bool = False,
           mesh: dict[str, int] | None = None,
           sharding: Any = None) -> dict[str, int]:
  """Bytes per device of a training step, by what they hold, and in total.

  Args:
    spec: the model.
    batch: examples per step (per micro-batch, if it accumulates) of all
      devices together.
    remat, dtype: as in `config.model`.
    ema: whether a moving average of the parameters is kept.
    mesh: sizes of 'replica', 'fsdp' and 'tensor'; `None` is one device.
    sharding: `config.sharding`; `None` is the default config's.
  """
  mesh = mesh or MESH
  made = parameters_lib.parameters(spec)
  held = 4 * parameters_lib.per_device(made, mesh, sharding)
  local = -(-batch // (mesh['replica'] * mesh['fsdp']))
  parts = {
      'parameters': held,
      'gradients': held,
      'optimizer': 2 * held,
      'ema': held if ema else 0,
      'activations': local * activations(spec, remat, dtype, mesh['tensor']),
      'gathered': _gathered(spec, made, mesh, sharding, dtype),
  }
  return parts | {'total': sum(parts.values())}


def activations(spec: Spec, remat: str, dtype: str, tensor: int = 1) -> int:
  """Bytes of one example: what all blocks store and one block works with."""
  stored = sum(tower.depth * _stored(spec, tower, remat, dtype, tensor)
               for tower in spec.towers.values())
  # A rematerialised block has its missing values while it is differentiated.
  working = max(_stored(spec, tower, 'none', dtype, tensor)
                - _stored(spec, tower, remat, dtype, tensor)
                + _working(spec, tower, dtype, tensor)
                for tower in spec.towers.values())
  # Patches, reconstruction and its gradient, float32.
  pixels = 3 * 4 * spec.size.patch_dim
  return spec.tokens * (stored + working + pixels)


def _stored(spec: Spec, tower: sizes.Tower, remat, dtype, tensor) -> int:
  """Bytes per token that a block keeps for its backward pass."""
  b, width = BYTES[dtype], tower.width
  hidden = tower.hidden(spec.mlp) / tensor
  up = 2 if spec.mlp == 'swiglu' else 1
  if remat == 'full':  # The input.
    return b * width
  if remat == 'dots':  # The input and the outputs of all linear maps but last.
    return int(b * (2 * width + 3 * width / tensor + up * hidden))
  norms = 2 * ({'layernorm': 3, 'rmsnorm': 3}[spec.norm] * 4 + b) * width
  attention = (4 * b * width + (4 + b) * tower.heads * spec.tokens) / tensor
  mlp = {'swiglu': 6, 'gelu': 6}[spec.mlp] * b * hidden
  return int(norms + attention + mlp)


def _working(spec: Spec, tower: sizes.Tower, dtype, tensor) -> int:
  """Bytes per token of gradients that live at once within a block."""
  b, hidden = BYTES[dtype], tower.hidden(spec.mlp) / tensor
  return int(b * (2 * tower.width + max(
      2 * hidden, 3 * tower.width / tensor
      + 2 * tower.heads * spec.tokens / tensor)))


def _gathered(spec, made, mesh, sharding, dtype) -> int:
  """Bytes of one block's parameters beyond this device's share of them."""
  if mesh['fsdp'] == 1:
    return 0
  whole = dict(mesh, fsdp=1)
  most = 0
  for part, tower in spec.towers.items():
    block = [p for p in made if p.path.startswith(f'{part}/blocks/')]
    most = max(most, parameters_lib.per_device(block, whole, sharding)
               // tower.depth)
  return BYTES[dtype] * most
