"""What discrete bottlenecks share: parts, stages, gradients, usage.

The projected token u, (c,), is cut into `product` parts of d = c / product
channels, and each part becomes one integer below the radix R. With `residual`
above 1 that is stage 1 of so many: each further stage codes what the stages
before it left over, as another integer of each part. So a token has

  K = residual * product integers, ids[stage * product + part],

and residual and product codes are compositions of one quantizer, of any kind.
An integer is exact in int32 whatever R; numbers of more bits (28 or 36 of a
binary code) are several integers, which `vitok.data.packing` makes bytes or one
number of.

Gradients are straight-through, once around all stages: dz/du is the constant
`slope`, whatever the number of stages. (Libraries that wrap every stage alone
multiply the gradient by their number.)

Collection 'stats' holds 'counts' (K, R): the share of the tokens that each
code had, over the whole batch and so over all devices, as a moving sum. Where
that collection may not change (evaluation, a frozen bottleneck), it stays, and
the stats are of training.

Dimensions: B batch, L tokens, D width, c channels, P parts, d channels of a
part, K integers of a token, R radix.
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from vitok import errors
from vitok.models.bottlenecks import base

MOST = 2**18  # Codes of one integer, whose shares are counted.
_USED = 0.1  # Of an even share, from which on a code counts as used.
_TINY = 1e-12  # Square of the shortest vector that has a direction.
_STREAM = 1000  # Of an example's key; tasks and models have lower numbers.
COLLECTION = 'stats'
_PRODUCT = 'config.model.quantizer.product'


class Discrete(base.Bottleneck):
  """See the top of the file. A subclass defines `radix` and these:

    prepare   (B, L, P, d) of projected channels (B, L, c), for stage 1.
    nearest   ids_BxLxP of (B, L, P, d) at a stage.
    lookup    (B, L, P, d) of ids_BxLxP at a stage.

  and may define `penalties`, `start`, `observe`, `slope` and `commits`.

  Losses: where a kind `commits`, 'commitment', the squared distance of u, stage
  by stage, from its code, over all channels of a token; a mean over tokens.
  Stats: 'usage', the share of codes that are used, and 'code_entropy', the
  bits a token would take by the shares of its codes, integer by integer.
  """
  reads = ('product', 'residual', 'decay')
  additive = False  # Shares are those of the whole batch.
  slope = 1.0
  commits = True

  @classmethod
  def radix(cls, channels: int, options: Mapping[str, Any]) -> int:
    """Values of the integer of a part of so many channels."""
    raise NotImplementedError

  @classmethod
  def check(cls, channels, options):
    product = options['product']
    check_parts(channels, options)
    radix = cls.radix(channels // product, options)
    if radix > MOST:
      fitting = next((n for n in range(product, channels + 1)
                      if not channels % n
                      and cls.radix(channels // n, options) <= MOST), None)
      raise errors.InputError(
          _PRODUCT, product, f'makes integers of {radix} values, and codes are '
          f'counted up to {MOST}', fitting)

  @classmethod
  def radices(cls, channels, options):
    product = options['product']
    radix = cls.radix(channels // product, options)
    return (radix,) * (product * options['residual'])

  def prepare(self, u_BxLxc: jax.Array) -> jax.Array:
    """(B, L, P, d)."""
    return self.parts(u_BxLxc)

  def nearest(self, x_BxLxPxd: jax.Array, stage: int) -> jax.Array:
    """Integers (B, L, P) of what stage `stage` is given."""
    raise NotImplementedError

  def lookup(self, ids_BxLxP: jax.Array, stage: int) -> jax.Array:
    """(B, L, P, d) that integers stand for."""
    raise NotImplementedError

  def penalties(self, x_BxLxPxd: jax.Array, q_BxLxPxd: jax.Array, stage: int
                ) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
    """Losses {name: (B,)} and stats beside those that all kinds have."""
    return {}, {}

  def start(self, x_BxLxPxd: jax.Array, stage: int, key: jax.Array | None):
    """Prepares variables in training, before a stage is quantised."""

  def observe(self, x_BxLxPxd: jax.Array, ids_BxLxP: jax.Array,
              share_PxR: jax.Array, stage: int, key: jax.Array | None):
    """Updates variables in training; `share_PxR` is a batch's."""

  def parts(self, x_BxLxc: jax.Array) -> jax.Array:
    """(B, L, P, d)."""
    return x_BxLxc.reshape(*x_BxLxc.shape[:-1], self.options['product'], -1)

  @nn.compact
  def __call__(self, h_BxLxD: jax.Array, keys: jax.Array | None = None,
               train: bool = False) -> base.Code:
    u_BxLxPxd = self.prepare(self.down(h_BxLxD))
    counts = self._counts()
    moves = train and not self.is_initializing() and (
        self.is_mutable_collection(COLLECTION))
    stop = jax.lax.stop_gradient
    rest, total, ids = u_BxLxPxd, jnp.zeros_like(u_BxLxPxd), []
    shares, losses, stats = [], {}, {}
    for stage in range(self.options['residual']):
      # The first example's key is the same wherever the batch lies.
      key = None if keys is None else jax.random.fold_in(
          keys[0], _STREAM + stage)
      if moves:
        self.start(stop(rest), stage, key)
      ids_BxLxP = self.nearest(stop(rest), stage)
      q_BxLxPxd = self.lookup(ids_BxLxP, stage)
      more, told = self.penalties(rest, q_BxLxPxd, stage)
      if self.commits:
        more['commitment'] = of_example(jnp.square(rest - stop(q_BxLxPxd)))
      losses = {name: losses.get(name, 0) + more[name] for name in more}
      stats = {name: stats.get(name, 0) + told[name] for name in told}
      if moves:
        shares.append(_share(ids_BxLxP, counts.value.shape[-1]))
        self.observe(stop(rest), ids_BxLxP, shares[-1], stage, key)
      ids.append(ids_BxLxP)
      total += q_BxLxPxd
      rest -= stop(q_BxLxPxd)
    if moves:
      counts.value = (self.options['decay'] * counts.value
                      + jnp.concatenate(shares))
    z_BxLxPxd = stop(total) + self.slope * (u_BxLxPxd - stop(u_BxLxPxd))
    return base.Code(
        z=_joined(z_BxLxPxd), ids=jnp.concatenate(ids, -1), losses=losses,
        stats=stats | _usage(counts.value))

  def from_codes(self, codes: jax.Array) -> jax.Array:
    """z (B, L, c) float32 of integers (B, L, K): the z that they came with."""
    stages = jnp.split(codes, self.options['residual'], -1)
    total = 0.0
    for stage, ids_BxLxP in enumerate(stages):
      total += self.lookup(ids_BxLxP, stage)
    return _joined(total)

  def _counts(self):
    radices = self.radices(self.channels, self.options)
    return self.variable(COLLECTION, 'counts', lambda: jnp.zeros(
        (len(radices), radices[0])))


def check_parts(channels: int, options: Mapping[str, Any]) -> None:
  """Raises `InputError` where there are no such parts or stages."""
  product = options['product']
  if product < 1 or channels % product:
    raise errors.InputError(
        _PRODUCT, product, f'does not divide the {channels} channels',
        math.gcd(channels, max(1, product)))
  if options['residual'] < 1:
    raise errors.InputError('config.model.quantizer.residual',
                            options['residual'], 'is below 1', 1)


def _joined(x_BxLxPxd):
  return x_BxLxPxd.reshape(*x_BxLxPxd.shape[:-2], -1)


def unit(x: jax.Array) -> jax.Array:
  """Vectors of the last axis at length 1; zero stays zero."""
  square = jnp.square(x).sum(-1, keepdims=True)
  return x * jax.lax.rsqrt(jnp.maximum(square, _TINY))


def of_example(x_BxLxPxd: jax.Array) -> jax.Array:
  """(B,) sum over the channels of a token, mean over tokens."""
  return x_BxLxPxd.sum((2, 3)).mean(1)


def _share(ids_BxLxP, radix):
  """(P, R): how the tokens of the whole batch share the codes."""
  parts = ids_BxLxP.shape[-1]
  flat = ids_BxLxP.reshape(-1, parts)
  counts = jnp.zeros((parts, radix)).at[jnp.arange(parts), flat].add(1.0)
  return counts / len(flat)


def _usage(counts_KxR):
  even = 1 / counts_KxR.shape[-1]
  share_KxR = counts_KxR / jnp.maximum(counts_KxR.sum(-1, keepdims=True), 1e-9)
  nats = jax.scipy.special.entr(share_KxR).sum()
  return {'usage': (share_KxR > _USED * even).mean(),
          'code_entropy': nats / math.log(2)}
