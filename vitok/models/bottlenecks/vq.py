"""Vector quantization (arXiv 1711.00937): the nearest entry of a codebook.

Two ways to train the entries, `update`:

  ema       each entry is the moving average of the tokens that chose it
            (appendix A.1 there), without gradients;
  gradient  entries are parameters, drawn to their tokens by the loss
            'codebook', the squared distance whose other side is 'commitment'.

`distance` is Euclidean, or 'cosine': tokens and entries are then unit vectors.
Entries that are hardly chosen are lost: where an entry's moving share falls
below `restart` times an even one, a random token of the batch takes its place
(0: never). The first batch of training takes the place of all entries, which
start as unit normals. Parameters can be moved by gradients alone, so that those
of 'gradient' are offsets from positions in 'stats'.

Collection 'stats' holds, beside `discrete`'s 'counts', 'entries' (S, P, R, d),
'mass' (S, P, R), the moving share by which 'ema' weighs an entry and 'restart'
finds the lost, and 'batches', how many training has seen. (What freezes
parameters does not hold them; stage 2's frozen encoder does. With a moving
average of parameters, restarted entries of 'gradient' are off by what the
average lacks of their offset.)

Dimensions: as in `discrete`; S stages, N tokens of a batch.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.core import meta

from vitok import errors
from vitok.models.bottlenecks import discrete

DISTANCES = ('euclidean', 'cosine')
UPDATES = ('ema', 'gradient')
_KEY = 'config.model.quantizer'
_LOST = 1e-20  # A share below which an entry's mean is out of float32's reach.


class VQ(discrete.Discrete):
  """See the top of the file.

  Options: `size` R of a codebook, `product`, `residual`, `distance`, `update`,
  `decay` of the averages, `restart`.
  """
  reads = (*discrete.Discrete.reads, 'size', 'distance', 'update', 'restart')

  @classmethod
  def radix(cls, channels, options):
    return options['size']

  @classmethod
  def check(cls, channels, options):
    errors.one_of(f'{_KEY}.distance', options['distance'], DISTANCES)
    errors.one_of(f'{_KEY}.update', options['update'], UPDATES)
    if not 2 <= options['size'] <= discrete.MOST:
      raise errors.InputError(
          f'{_KEY}.size', options['size'], f'is not from 2 to {discrete.MOST}',
          min(max(2, options['size']), discrete.MOST))
    super().check(channels, options)
    if options['distance'] == 'cosine' and channels == options['product']:
      raise errors.InputError(
          f'{_KEY}.distance', 'cosine', 'makes every part of 1 channel -1 or 1',
          'euclidean')
    if options['distance'] == 'cosine' and options['residual'] > 1:
      raise errors.InputError(
          f'{_KEY}.residual', options['residual'], 'what unit vectors leave '
          'over is no unit vector: distance=\'cosine\' has one stage', 1)

  @classmethod
  def arithmetic(cls, channels, options):
    return super().arithmetic(channels, options) | {
        'codebook': cls._shape(channels, options),
        'trained': options['update'] == 'gradient'}

  @staticmethod
  def _shape(channels, options):
    """(S, P, R, d)."""
    product = options['product']
    return options['residual'], product, options['size'], channels // product

  def prepare(self, u_BxLxc):
    u_BxLxPxd = self.parts(u_BxLxc)
    shape = self._shape(self.channels, self.options)
    if self.options['update'] == 'gradient':
      self.param('codebook', nn.with_logical_partitioning(
          nn.initializers.zeros, (None, None, None, 'code')), shape)
    # Variables are made by what reads them first.
    self.variable(discrete.COLLECTION, 'entries', lambda: (
        jax.random.normal(self.make_rng('params'), shape)))
    self.variable(discrete.COLLECTION, 'mass', lambda: (
        jnp.full(shape[:-1], 1 / self.options['size'], jnp.float32)))
    self.variable(discrete.COLLECTION, 'batches',
                  lambda: jnp.zeros((), jnp.int32))
    return self._scaled(u_BxLxPxd)

  def nearest(self, x_BxLxPxd, stage):
    entries_PxRxd = jax.lax.stop_gradient(self._entries(stage))
    product = jnp.einsum('blpd,prd->blpr', x_BxLxPxd, entries_PxRxd,
                         precision=jax.lax.Precision.HIGHEST)
    return jnp.argmax(product - 0.5 * jnp.square(entries_PxRxd).sum(-1),
                      -1).astype(jnp.int32)

  def lookup(self, ids_BxLxP, stage):
    entries_PxRxd = self._entries(stage)
    return entries_PxRxd[jnp.arange(len(entries_PxRxd)), ids_BxLxP]

  def penalties(self, x_BxLxPxd, q_BxLxPxd, stage):
    if self.options['update'] == 'ema':
      return {}, {}
    return {'codebook': discrete.of_example(jnp.square(
        jax.lax.stop_gradient(x_BxLxPxd) - q_BxLxPxd))}, {}

  def start(self, x_BxLxPxd, stage, key):
    if key is None:
      return
    tokens_PxRxd = self._tokens(x_BxLxPxd, key) - self._offset(stage)
    first = self._kept('batches') == 0
    self._keep('entries', self._kept('entries').at[stage].set(
        jnp.where(first, tokens_PxRxd, self._kept('entries')[stage])))

  def observe(self, x_BxLxPxd, ids_BxLxP, share_PxR, stage, key):
    decay, mass_PxR = self.options['decay'], self._kept('mass')[stage]
    new_PxR = decay * mass_PxR + (1 - decay) * share_PxR
    values_PxRxd = self._kept('entries')[stage]
    if self.options['update'] == 'ema':
      means_PxRxd = (decay * mass_PxR[..., None] * values_PxRxd
                     + (1 - decay) * self._sums(x_BxLxPxd, ids_BxLxP)
                     ) / jnp.maximum(new_PxR, _LOST)[..., None]
      values_PxRxd = jnp.where(new_PxR[..., None] > _LOST, means_PxRxd,
                               values_PxRxd)
    if key is not None and self.options['restart']:
      even = 1 / self.options['size']
      dead_PxR = new_PxR < self.options['restart'] * even
      tokens_PxRxd = self._tokens(x_BxLxPxd, jax.random.fold_in(key, 1))
      values_PxRxd = jnp.where(
          dead_PxR[..., None], tokens_PxRxd - self._offset(stage),
          values_PxRxd)
      # It has as long as any other to be chosen.
      new_PxR = jnp.where(dead_PxR, even, new_PxR)
    self._keep('entries',
               self._kept('entries').at[stage].set(values_PxRxd))
    self._keep('mass', self._kept('mass').at[stage].set(new_PxR))
    if stage == self.options['residual'] - 1:
      self._keep('batches', self._kept('batches') + 1)

  def _kept(self, name):
    return self.get_variable(discrete.COLLECTION, name)

  def _keep(self, name, value):
    self.put_variable(discrete.COLLECTION, name, value)

  def _tokens(self, x_BxLxPxd, key):
    """(P, R, d): tokens of the batch, drawn anew for each entry."""
    x_NxPxd = x_BxLxPxd.reshape(-1, *x_BxLxPxd.shape[2:])
    parts = x_NxPxd.shape[1]
    drawn_PxR = jax.random.randint(key, (parts, self.options['size']), 0,
                                   len(x_NxPxd))
    return x_NxPxd[drawn_PxR, jnp.arange(parts)[:, None]]

  def _sums(self, x_BxLxPxd, ids_BxLxP):
    """(P, R, d): sum of the tokens of each entry, over the number of all."""
    x_NxPxd = x_BxLxPxd.reshape(-1, *x_BxLxPxd.shape[2:])
    n, parts, width = x_NxPxd.shape
    return jnp.zeros((parts, self.options['size'], width)).at[
        jnp.arange(parts), ids_BxLxP.reshape(n, parts)].add(x_NxPxd) / n

  def _offset(self, stage):
    """(P, R, d) of entries from their positions: what gradients train."""
    if self.options['update'] == 'ema':
      return 0.0
    return jax.lax.stop_gradient(meta.unbox(
        self.get_variable('params', 'codebook')))[stage]

  def _entries(self, stage):
    """(P, R, d)."""
    entries = self._kept('entries')
    if self.options['update'] == 'gradient':
      entries += meta.unbox(self.get_variable('params', 'codebook'))
    return self._scaled(entries[stage])

  def _scaled(self, x):
    return x if self.options['distance'] == 'euclidean' else discrete.unit(x)
