"""Axes of the mesh, and into how many pieces it cuts a parameter.

The arithmetic of `vitok.training.mesh.state_shardings`, whose tests and this
module's agree on every parameter: rules first, then FSDP along the largest
axis that its size divides; small parameters and the stacked `layers` axis are
never cut.
"""

import functools
import math
from typing import Any

from vitok import config as config_lib
from vitok import errors

AXES = ('replica', 'fsdp', 'tensor')  # Of the mesh.
BATCH_AXES = ('replica', 'fsdp')  # Those that split the batch.
LAYERS = 'layers'  # Logical name of the axis that stacks layers.


@functools.cache
def _usual():
  """Locked; a config takes longer to make than all this arithmetic."""
  return config_lib.default().sharding


def ways(shape: tuple[int, ...], axes: tuple[str, ...], mesh: dict[str, int],
         sharding: Any = None) -> int:
  """Number of different pieces of an array.

  Args:
    shape: of the array.
    axes: logical name of each of its axes.
    mesh: sizes of `AXES`.
    sharding: `config.sharding`; `None` is the default config's.

  Raises:
    InputError: a rule gives an axis to a mesh axis that does not divide it,
      other than `fsdp`.
  """
  sharding = sharding or _usual()
  rules = dict(sharding.rules)
  one_layer = math.prod(
      n for n, name in zip(shape, axes, strict=True) if name != LAYERS)
  small = one_layer < sharding.fsdp_min_size
  pieces, free = {}, []
  for n, name in zip(shape, axes, strict=True):
    axis = rules.get(name)
    if axis and n % mesh[axis] == 0 and not (axis == 'fsdp' and small):
      pieces[axis] = mesh[axis]
    elif axis not in (None, 'fsdp'):
      raise errors.InputError(
          f'config.mesh.{axis}', mesh[axis], f'does not divide the {n} {name}',
          math.gcd(n, mesh[axis]))
    elif name != LAYERS and n % mesh['fsdp'] == 0:
      free.append(n)
  if 'fsdp' not in pieces and free and not small:
    pieces['fsdp'] = mesh['fsdp']
  return math.prod(pieces.values())
