"""Finite scalar quantization (arXiv 2309.15505): each channel is rounded.

Channel i of a part takes `levels[i]` evenly spaced values in [-1, 1], an even
number of them without the topmost, after a tanh that bounds it. There is no
codebook and nothing to collapse, so no loss either.

The integer of a part counts the first channel fastest. A further stage has the
grid of the first, shrunk to the cell that was left over: by levels - 1.

Dimensions: as in `discrete`.
"""

import math

import jax.numpy as jnp
import numpy as np

from vitok import errors
from vitok.models.bottlenecks import discrete

_KEY = 'config.model.quantizer.levels'
_MARGIN = 1e-3  # By which tanh reaches beyond the outermost levels.


class FSQ(discrete.Discrete):
  """See the top of the file.

  Options: `levels` of the channels of a part, each at least 3; `product`
  parts, so c = product * len(levels).
  """
  reads = (*discrete.Discrete.reads, 'levels')
  commits, additive = False, True  # Shares are counted and do nothing.

  @classmethod
  def check(cls, channels, options):
    levels, product = options['levels'], options['product']
    discrete.check_parts(channels, options)
    if not levels or min(levels) < 3:  # Of two the bound is flat: see LFQ.
      raise errors.InputError(_KEY, levels, 'is no number of levels for each '
                              'channel, 3 at least', (8, 5, 5, 5))
    if product * len(levels) != channels:
      raise errors.InputError(
          _KEY, levels, f'makes {product * len(levels)} channels in {product} '
          f'part(s), and the model has {channels}',
          tuple(np.resize(levels, channels // product).tolist()))
    if math.prod(levels) > discrete.MOST:
      raise errors.InputError(
          _KEY, levels, f'makes integers of {math.prod(levels)} values, and '
          f'codes are counted up to {discrete.MOST}',
          (int(discrete.MOST**(1 / len(levels))),) * len(levels))

  @classmethod
  def radix(cls, channels, options):
    return math.prod(options['levels'])

  def prepare(self, u_BxLxc):
    levels = self._levels
    reach = (levels - 1) * (1 + _MARGIN) / 2
    offset = np.where(levels % 2, 0.0, 0.5)  # An even grid holds 0, too.
    bounded = jnp.tanh(self.parts(u_BxLxc) + np.arctanh(offset / reach)
                       ) * reach - offset
    return bounded / self._half

  def nearest(self, x_BxLxPxd, stage):
    steps = jnp.round(x_BxLxPxd / self._shrink(stage) * self._half)
    digits = jnp.clip(steps + self._half, 0, self._levels - 1)
    return (digits.astype(jnp.int32) * self._basis).sum(-1)

  def lookup(self, ids_BxLxP, stage):
    digits = ids_BxLxP[..., None] // self._basis % self._levels
    return ((digits - self._half) / self._half * self._shrink(stage)
            ).astype(jnp.float32)

  @property
  def _levels(self):
    return np.array(self.options['levels'], np.int32)

  @property
  def _half(self):
    return self._levels // 2

  @property
  def _basis(self):
    return np.cumprod([1, *self.options['levels'][:-1]]).astype(np.int32)

  def _shrink(self, stage):
    return (self._levels - 1.0)**-stage
