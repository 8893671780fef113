"""Analytic parameters, FLOPs, memory and hours: arithmetic on sizes.

Nothing here imports JAX (`devices.local` does when it measures), so a model
is described, and a sweep priced, without an accelerator.
"""

import math
from typing import Any

from vitok import errors, sizes
from vitok.accounting import flops as flops_lib
from vitok.accounting import memory as memory_lib
from vitok.accounting import parameters as parameters_lib
from vitok.accounting.parameters import OPTIONS as OPTIONS
from vitok.accounting.parameters import Spec
from vitok.accounting.sharding import AXES


def describe(size: sizes.Size, frames: int = 1, resolution: int = 256, *,
             batch: int = 1, remat: str = 'none', dtype: str = 'float32',
             attention: str = 'xla', ema: bool = False, mesh: Any = None,
             sharding: Any = None, devices: int = 1,
             **options: Any) -> dict[str, Any]:
  """What an auto-encoder costs, as plain numbers.

  Args:
    size: dimensions.
    frames, resolution: of a clip, in frames and pixels.
    batch: examples per step on all devices together.
    remat, dtype, attention: as in `config.model`.
    ema: whether a moving average of the parameters is kept.
    mesh: sizes of `AXES`, at most one -1 (the rest of `devices`); `None` is
      data-parallel.
    sharding: `config.sharding`; `None` is the default config's.
    devices: that the mesh is made of.
    **options: other fields of `Spec`: of `config.model` those of `OPTIONS`.

  Returns:
    name, grid [t, h, w], tokens, code_floats (E), code_bits (of a discrete
    code, or None), pixels_per_float (T * H * W * 3 / E), parameters and macs
    {encoder, bottleneck, decoder, total}, flops and memory. Of one example,
    MACs of a forward pass. `flops` has
    forward and train_step (matrix products, 2 FLOP a MAC), by_part (the same
    per part), elementwise {forward, train_step}, recomputed (what remat
    repeats in a training step) and optimizer_step (per update). `memory` is
    bytes per device of a training step: parameters, gradients, optimizer,
    ema, activations, gathered (see `memory.memory`), total.

  Raises:
    InputError: the clip does not divide into tubelets.
  """
  spec = Spec(size, frames, resolution, **options)
  mesh = resolve_mesh(mesh, devices)
  counts = parameters_lib.count(parameters_lib.parameters(spec))
  forward, step = flops_lib.forward(spec), flops_lib.train_step(spec)
  floats = size.code_floats(frames, resolution)
  return {
      'name': sizes.name(size),
      'frames': frames,
      'resolution': resolution,
      'grid': list(size.grid(frames, resolution)),
      'tokens': spec.tokens,
      'code_floats': floats,
      'code_bits': (None if spec.token_bits is None
                    else spec.tokens * spec.token_bits),
      'pixels_per_float': 3 * frames * resolution**2 / floats,
      'parameters': counts,
      'macs': flops_lib.macs(spec),
      'flops': {
          'forward': forward['total'],
          'train_step': step['total'],
          'by_part': {'forward': forward, 'train_step': step},
          'elementwise': {
              'forward': flops_lib.elementwise(spec),
              'train_step': flops_lib.elementwise(spec, train=True)},
          'recomputed': flops_lib.recomputed(spec, remat),
          'optimizer_step': flops_lib.optimizer_step(counts['total']),
      },
      'memory': memory_lib.memory(
          spec, batch=batch, remat=remat, dtype=dtype, attention=attention,
          ema=ema, mesh=mesh, sharding=sharding),
  }


def resolve_mesh(mesh: Any, devices: int) -> dict[str, int]:
  """Sizes of the mesh axes, with -1 replaced by the rest of `devices`.

  Raises:
    InputError: the sizes do not multiply to `devices`.
  """
  given = dict.fromkeys(AXES, 1) | {'replica': -1} | dict(mesh or {})
  fixed = math.prod(n for n in given.values() if n != -1)
  resolved = {axis: devices // fixed if n == -1 else n
              for axis, n in given.items()}
  if math.prod(resolved.values()) != devices:
    shown = ' x '.join(str(given[axis]) for axis in AXES)
    raise errors.InputError('config.mesh', shown,
                            f'does not make {devices} devices', fixed)
  return resolved
